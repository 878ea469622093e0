"""Tables of membership tiers.

What people did is kept by business day: on which day it counts and on which day it was known, so that every window can be summed
as of every day. It hangs on an account, never on a person, so a merge or an erasure changes whose an account is and no sum. A
person's level stands on the account whose `user_id` is its `holder_id`; the others' are as they were when they were absorbed. The
scheme is kept as it was last applied, so that it can be asked.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, ForeignKey, Index, Integer, SmallInteger, Table
from sqlalchemy import UniqueConstraint as Unique

from scrm.api import Id, Instant, Json, Text, plugin_metadata

metadata = plugin_metadata()

accounts = Table(
    "tiers_accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
    Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
    Column("tier", Text, comment="key of the level that was given; null: none, or the one that everybody has"),
    Column("since", Instant),
    Column("valid_until", Instant, comment="the first review at which the level may fall"),
    Column("pin", Text, comment="key of the level below which nothing lowers"),
    Column("pinned_until", Instant),
    Column("failures", Integer, nullable=False, comment="reviews failed in a row and let pass"),
    Column("changes", Integer, nullable=False, comment="how often the level has changed"),
    Column("seen_on", Date, nullable=False, comment="the newest day of which something is known"),
    Column("reviewed_on", Date, nullable=False, comment="the newest review that was done"),
    Column("announced", Text, comment="a digest of what the level was last announced to give; null: nothing"),
    Unique("user_id"),
    CheckConstraint("failures >= 0", name="failures"),
    CheckConstraint("(pin is null) = (pinned_until is null)", name="pin"),
    Index("ix_tiers_accounts_holder_id", "holder_id"),
    Index("ix_tiers_accounts_tier", "tier"),
    Index("ix_tiers_accounts_reviewed_on", "reviewed_on"),
)

days = Table(
    "tiers_days",
    metadata,
    Column("account_id", Id, ForeignKey("tiers_accounts.id"), primary_key=True),
    Column("counted_on", Date, primary_key=True, comment="the day it counts on; of a refund, its order's"),
    Column("known_on", Date, primary_key=True, comment="the day it happened"),
    Column("spend", BigInteger, nullable=False, comment="minor units"),
    Column("orders", BigInteger, nullable=False),
    Column("points_earned", BigInteger, nullable=False),
    Column("growth", BigInteger, nullable=False),
)

orders = Table(
    "tiers_orders",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("tiers_accounts.id"), nullable=False),
    Column("order_id", Text, nullable=False),
    Column("counted_on", Date, comment="the day of its first payment; null while only a refund is known"),
    Column("paid", BigInteger, nullable=False),
    Column("refunded", BigInteger, nullable=False),
    Column("refunded_on", Date, comment="the latest refund"),
    Column("points", BigInteger, nullable=False, comment="points announced for it in all"),
    Unique("account_id", "order_id"),
    CheckConstraint("paid >= 0 and refunded >= 0 and points >= 0", name="amounts"),
)

tasks = Table(
    "tiers_tasks",
    metadata,
    Column("account_id", Id, ForeignKey("tiers_accounts.id"), primary_key=True),
    Column("task", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("times", Integer, nullable=False),
    CheckConstraint("times > 0", name="times"),
)

transitions = Table(
    "tiers_transitions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("tiers_accounts.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="the account's first is 1"),
    Column("from_tier", Text),
    Column("to_tier", Text),
    Column("at", Instant, nullable=False),
    Column("cause", Text, nullable=False),
    Column("event_id", Id, nullable=False, comment="the event it follows from"),
    Column("counted_from", Date, comment="the first day of the window; null: from ever"),
    Column("counted_to", Date, nullable=False, comment="the last day of the window"),
    CheckConstraint("cause in ('UPGRADE', 'REVIEW', 'PIN', 'UNPIN', 'MERGE')", name="cause"),
    Index("ix_tiers_transitions_account_id", "account_id", "at", "number"),
)

transition_values = Table(
    "tiers_transition_values",
    metadata,
    Column("transition_id", Id, ForeignKey("tiers_transitions.id"), primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("place", SmallInteger, nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("required", BigInteger, comment="what the new level asks for; null where there is none"),
    Column("currency", Text, nullable=False),
)

merges = Table(
    "tiers_merges",
    metadata,
    Column("id", Id, primary_key=True, comment="the event of the merge"),
    Column("kept_id", Id, ForeignKey("tiers_accounts.id"), nullable=False),
    Column("absorbed_id", Id, ForeignKey("tiers_accounts.id"), nullable=False),
    Column(
        "took_pin", Boolean(create_constraint=False), nullable=False, comment="whether the survivor's pin is the absorbed one's"
    ),
    Column("undone_by", Id, comment="the event that undid it"),
    Index("ix_tiers_merges_kept_id", "kept_id"),
    Index("ix_tiers_merges_absorbed_id", "absorbed_id"),
)

scheme = Table(
    "tiers_scheme",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False, comment="of the rules that it is made of"),
    Column("match_kind", Text, nullable=False),
    Column("window_kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("base", Text, comment="key of the level that everybody has"),
    Column("lowest", Text, nullable=False, comment="key of the lowest level"),
)

levels = Table(
    "tiers_levels",
    metadata,
    Column("id", Id, primary_key=True, comment="follows from the key"),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
    Column("rank", SmallInteger, nullable=False, comment="its place from 1, the lowest; 0: the scheme does not have it any more"),
    Unique("key"),
)

bounds = Table(
    "tiers_bounds",
    metadata,
    Column("level", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("place", SmallInteger, nullable=False),
    Column("bound", BigInteger, nullable=False),
)

benefits = Table(
    "tiers_benefits",
    metadata,
    Column("level", Text, primary_key=True),
    Column("place", SmallInteger, primary_key=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
    Column("value", Json),
)
