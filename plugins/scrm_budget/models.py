"""Tables of budgets.

Entries are facts and are never changed (triggers refuse it); a line keeps what they sum to, so that a commitment looks at one
row. A commitment whose time is over keeps nothing, whatever its row says: its entry is written with the next on its line. What a
person was spent on, and came through last, hangs on an account, never on a person.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, ForeignKey, Index, Integer, SmallInteger, Table
from sqlalchemy import UniqueConstraint as Unique

from scrm.api import Id, Instant, Json, Text, plugin_metadata

metadata = plugin_metadata()

budgets = Table(
    "budget_budgets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("chain_id", Id, nullable=False, comment="the first budget of those that follow one another"),
    Column("previous_id", Id, ForeignKey("budget_budgets.id")),
    Column("name", Text, nullable=False),
    Column("opens_on", Date, nullable=False),
    Column("ends_on", Date, nullable=False, comment="the first day after it"),
    Column("closes_on", Date, nullable=False, comment="the first day on which it is closed, if nobody closes it before"),
    Column("closed_on", Date, comment="the day on which somebody closed it"),
    Column("currency", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("rollover", Text, nullable=False, comment="what its lines take over from those before"),
    Column("rollover_cap", BigInteger, comment="at most so much for each line"),
    Column("ranges", Json, nullable=False, comment="category to lowest and highest percent"),
    Column("cause_percent", SmallInteger, nullable=False),
    Column("home", Boolean(create_constraint=False), nullable=False, comment="whether its currency is the plugin's own"),
    Unique("previous_id"),
    CheckConstraint("opens_on < ends_on and ends_on <= closes_on", name="days"),
    CheckConstraint("rollover in ('NONE', 'REMAINING', 'CAPPED', 'NEGATIVE')", name="rollover"),
    Index("ix_budget_budgets_chain_id", "chain_id", "opens_on"),
    Index("ix_budget_budgets_opens_on", "opens_on"),
)

lines = Table(
    "budget_lines",
    metadata,
    Column("id", Id, primary_key=True),
    Column("budget_id", Id, ForeignKey("budget_budgets.id"), nullable=False),
    Column("previous_id", Id, ForeignKey("budget_lines.id"), comment="the line whose rest it takes over"),
    Column("category", Text, nullable=False),
    Column("place", SmallInteger, nullable=False, comment="its place among the lines; 0: the reserve"),
    Column("planned", BigInteger, nullable=False),
    Column("allocated", BigInteger, nullable=False),
    Column("carrying", BigInteger, nullable=False, comment="what it takes over once the budget before is closed"),
    Column("committed", BigInteger, nullable=False, comment="what open commitments keep, those included whose time is over"),
    Column("spent", BigInteger, nullable=False),
    Column("policy", Text, nullable=False),
    Column("cap_per_day", BigInteger),
    Column("cap_per_user", BigInteger),
    Column("expected_roi", BigInteger, comment="in ten-thousandths"),
    Column("cause", Text),
    Column("note", Text),
    Unique("budget_id", "category"),
    CheckConstraint("policy in ('BLOCK', 'WARN', 'ALLOW')", name="policy"),
    CheckConstraint("cause in ('MARKET', 'CAMPAIGN', 'OVERRUN')", name="cause"),
    CheckConstraint("committed >= 0", name="committed"),
    Index("ix_budget_lines_previous_id", "previous_id"),
)

sources = Table(
    "budget_sources",
    metadata,
    Column("line_id", Id, ForeignKey("budget_lines.id"), primary_key=True),
    Column("key", Text, primary_key=True, comment="the campaign, or the channel's id"),
    Column("channel_id", Id, comment="null: it is a campaign"),
    Index("ix_budget_sources_key", "key"),
    Index("ix_budget_sources_channel_id", "channel_id"),
)

people = Table(
    "budget_people",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
    Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
    Column("touched_at", Instant, comment="the last touch"),
    Column("channel_id", Id, comment="its channel"),
    Column("campaign", Text, comment="its campaign"),
    Unique("user_id"),
    Index("ix_budget_people_holder_id", "holder_id"),
)

commitments = Table(
    "budget_commitments",
    metadata,
    Column("id", Id, primary_key=True),
    Column("line_id", Id, ForeignKey("budget_lines.id"), nullable=False),
    Column("person_id", Id, ForeignKey("budget_people.id")),
    Column("amount", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False, comment="of these the part that was spent"),
    Column("released", BigInteger, nullable=False, comment="of these the part that is free again"),
    Column("state", Text, nullable=False, comment="OPEN, also past its deadline, when it keeps nothing any more"),
    Column("counts_on", Date, nullable=False, comment="the business day it counts on for caps"),
    Column("reference", Text),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, comment="the first instant at which it keeps nothing"),
    Column("resolved_at", Instant),
    CheckConstraint("amount > 0 and spent >= 0 and released >= 0 and spent + released <= amount", name="amounts"),
    CheckConstraint("state in ('OPEN', 'SPENT', 'RELEASED', 'EXPIRED')", name="state"),
    Index("ix_budget_commitments_line_id", "line_id", "state", "expires_at"),
    Index("ix_budget_commitments_counts_on", "line_id", "counts_on"),
    Index("ix_budget_commitments_person_id", "person_id"),
)

entries = Table(
    "budget_entries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("budget_id", Id, ForeignKey("budget_budgets.id"), nullable=False),
    Column("line_id", Id, ForeignKey("budget_lines.id"), nullable=False),
    Column("person_id", Id, ForeignKey("budget_people.id")),
    Column("commitment_id", Id, ForeignKey("budget_commitments.id")),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="minor units; below 0 what an adjustment or a transfer takes"),
    Column("occurred_at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("counts_on", Date, nullable=False, comment="the business day"),
    Column("cap_day", Date, nullable=False, comment="the business day for caps; of a refund, its spending's"),
    Column("reference", Text),
    Column("event_id", Id, nullable=False, comment="the event it follows from"),
    Column("reverses", Id, comment="the spending that a refund takes back"),
    Column("pair_id", Id, comment="the other half of a transfer"),
    CheckConstraint("amount <> 0", name="amount"),
    CheckConstraint(
        "kind in ('ALLOCATE', 'COMMIT', 'RELEASE', 'SPEND', 'REFUND', 'TRANSFER_IN', 'TRANSFER_OUT', 'ADJUST')", name="kind"
    ),
    Index("ix_budget_entries_line_id", "line_id", "counts_on"),
    Index("ix_budget_entries_cap_day", "line_id", "cap_day"),
    Index("ix_budget_entries_budget_id", "budget_id", "occurred_at", "id"),
    Index("ix_budget_entries_person_id", "person_id"),
    Index("ix_budget_entries_reverses", "reverses"),
    Index("ix_budget_entries_event_id", "event_id"),
)

crossings = Table(
    "budget_crossings",
    metadata,
    Column("id", Id, primary_key=True),
    Column("budget_id", Id, ForeignKey("budget_budgets.id"), nullable=False),
    Column("line_id", Id, ForeignKey("budget_lines.id"), comment="null: the whole budget"),
    Column("percent", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("funds", BigInteger, nullable=False),
    Column("event_id", Id, nullable=False),
    Index("ix_budget_crossings_budget_id", "budget_id"),
)

revenue = Table(
    "budget_revenue",
    metadata,
    Column("id", Id, primary_key=True),
    Column("person_id", Id, ForeignKey("budget_people.id"), nullable=False),
    Column("order_id", Text, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="paid, or below 0 refunded; minor units"),
    Column("currency", Text, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("day", Date, nullable=False),
    Column("known", Boolean(create_constraint=False), nullable=False, comment="whether its order has come"),
    Column("channel_id", Id, comment="of the last touch before the order"),
    Column("campaign", Text, comment="of the last touch before the order"),
    CheckConstraint("amount <> 0", name="amount"),
    Index("ix_budget_revenue_day", "day"),
    Index("ix_budget_revenue_person_id", "person_id", "order_id"),
)

earned = Table(
    "budget_earned",
    metadata,
    Column("day", Date, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("touch", Text, primary_key=True, comment="the channel's id and the campaign, as one key"),
    Column("channel_id", Id),
    Column("campaign", Text),
    Column("amount", BigInteger, nullable=False, comment="what the known rows of budget_revenue sum to"),
)

merges = Table(
    "budget_merges",
    metadata,
    Column("id", Id, primary_key=True, comment="the event of the merge"),
    Column("kept_id", Id, ForeignKey("budget_people.id"), nullable=False),
    Column("absorbed_id", Id, ForeignKey("budget_people.id"), nullable=False),
    Column("undone_by", Id, comment="the event that undid it"),
    Index("ix_budget_merges_kept_id", "kept_id"),
)

guard = Table(
    "budget_guard",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    comment="its row is locked while lines are given their channels and campaigns, which no two may share",
)
