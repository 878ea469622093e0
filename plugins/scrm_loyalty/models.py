"""Tables of the points ledger.

Everything hangs on an account, never on a person, so a merge or an erasure changes whose an account is and no entry.
Entries are facts and are never changed (triggers refuse it); a lot is what is left of a credit; an allocation says which lot a
debit took from, and below 0 which lot an undone one went back to.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, ForeignKey, Index, Table, UniqueConstraint

from scrm.api import Id, Instant, Text, plugin_metadata

metadata = plugin_metadata()

accounts = Table(
    "loyalty_accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
    Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
    Column("debt", BigInteger, nullable=False, comment="points spent and then taken back; the next credit pays it first"),
    Column("frozen", Boolean, nullable=False, comment="nothing can be spent, for its numbers did not agree"),
    Column("multiplier", Text, nullable=False, comment="what the member's level multiplies points by, a decimal number"),
    UniqueConstraint("user_id"),
    CheckConstraint("debt >= 0", name="debt"),
    Index("ix_loyalty_accounts_holder_id", "holder_id"),
)

entries = Table(
    "loyalty_entries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("points", BigInteger, nullable=False, comment="positive credits, negative debits"),
    Column("occurred_at", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("reason", Text),
    Column("reference", Text),
    Column("rule", Text, comment="the earn rule of a credit"),
    Column("event_id", Id, nullable=False, comment="the event it follows from"),
    Column("expires_at", Instant),
    Column("reverses", Id, comment="the entry that a reversal takes back"),
    Column("pair_id", Id, comment="the other half of a transfer"),
    CheckConstraint("points <> 0", name="points"),
    CheckConstraint(
        "kind in ('EARN', 'ACTIVATE', 'REDEEM', 'EXPIRE', 'ADJUST', 'REVERSE', 'RESTORE', 'TRANSFER_IN', 'TRANSFER_OUT', "
        "'DEBT_REPAID')",
        name="kind",
    ),
    Index("ix_loyalty_entries_account_id", "account_id", "occurred_at", "id"),
    Index("ix_loyalty_entries_event_id", "event_id"),
    Index("ix_loyalty_entries_reverses", "reverses"),
)

uses = Table(
    "loyalty_uses",
    metadata,
    Column("account_id", Id, ForeignKey("loyalty_accounts.id"), primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("value", Text, primary_key=True, comment="what has earned by the rule and does not again"),
    Column("event_id", Id, nullable=False, comment="the event that it earned with"),
)

notes = Table(
    "loyalty_notes",
    metadata,
    Column("entry_id", Id, ForeignKey("loyalty_entries.id"), primary_key=True),
    Column("reason", Text, nullable=False, comment="why, in somebody's words; gone when the person is erased"),
)

orders = Table(
    "loyalty_orders",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False),
    Column("order_id", Text, nullable=False),
    Column("entry_id", Id, comment="its first credit; null while only a refund is known"),
    Column("paid", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False, comment="credited for it in all"),
    Column("refunded", BigInteger, nullable=False),
    Column("refunded_at", Instant, comment="the latest refund"),
    Column("reversed", BigInteger, nullable=False, comment="points taken back for refunds so far, in whatever form"),
    Column("waived", BigInteger, nullable=False, comment="of these the part that had expired, or that the policy let go"),
    Column("forgiven", BigInteger, nullable=False, comment="of these the part that was spent, and that the policy let go"),
    UniqueConstraint("account_id", "order_id"),
    CheckConstraint("0 <= waived and waived <= reversed and reversed <= points", name="reversed"),
    CheckConstraint("paid >= 0 and refunded >= 0", name="amounts"),
)

lots = Table(
    "loyalty_lots",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False, comment="who may spend it"),
    Column("home_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False, comment="who earned it"),
    Column("entry_id", Id, ForeignKey("loyalty_entries.id"), nullable=False, comment="the credit that made it"),
    Column("order_id", Id, ForeignKey("loyalty_orders.id"), comment="the order it was earned with"),
    Column("original", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("earned_at", Instant, nullable=False),
    Column("available_at", Instant, nullable=False),
    Column("expires_at", Instant, comment="the first instant at which it cannot be spent any more; null: never"),
    Column("expires_on", Date, comment="the business day of expires_at"),
    CheckConstraint("original > 0 and 0 <= remaining and remaining <= original", name="remaining"),
    Index("ix_loyalty_lots_account_id", "account_id", "expires_at", "earned_at", "id"),
    Index("ix_loyalty_lots_home_id", "home_id"),
    Index("ix_loyalty_lots_order_id", "order_id"),
    Index("ix_loyalty_lots_expires_at", "expires_at"),
)

allocations = Table(
    "loyalty_allocations",
    metadata,
    Column("entry_id", Id, ForeignKey("loyalty_entries.id"), primary_key=True),
    Column("lot_id", Id, ForeignKey("loyalty_lots.id"), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
    Index("ix_loyalty_allocations_lot_id", "lot_id"),
)

holds = Table(
    "loyalty_holds",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False, comment="whose points it keeps"),
    Column("home_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False, comment="who asked for it"),
    Column("points", BigInteger, nullable=False),
    Column("captured", BigInteger, nullable=False, comment="of these the part that was spent"),
    Column("state", Text, nullable=False, comment="OPEN, also past its deadline, when nothing is held any more"),
    Column("reason", Text, comment="why, in somebody's words; gone when the person is erased"),
    Column("reference", Text),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, comment="the first instant at which it holds nothing"),
    Column("resolved_at", Instant, comment="when it was captured or released"),
    CheckConstraint("points > 0 and 0 <= captured and captured <= points", name="captured"),
    CheckConstraint("state in ('OPEN', 'CAPTURED', 'RELEASED')", name="state"),
    Index("ix_loyalty_holds_account_id", "account_id"),
    Index("ix_loyalty_holds_home_id", "home_id"),
)

held_lots = Table(
    "loyalty_held_lots",
    metadata,
    Column("hold_id", Id, ForeignKey("loyalty_holds.id"), primary_key=True),
    Column("lot_id", Id, ForeignKey("loyalty_lots.id"), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_loyalty_held_lots_lot_id", "lot_id"),
)

merges = Table(
    "loyalty_merges",
    metadata,
    Column("id", Id, primary_key=True, comment="the event of the merge"),
    Column("kept_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False),
    Column("absorbed_id", Id, ForeignKey("loyalty_accounts.id"), nullable=False),
    Column("debt", BigInteger, nullable=False, comment="debt that came with the absorbed account and has not gone back"),
    Column("undone_by", Id, comment="the event that undid it"),
    CheckConstraint("debt >= 0", name="debt"),
    Index("ix_loyalty_merges_kept_id", "kept_id"),
    Index("ix_loyalty_merges_absorbed_id", "absorbed_id"),
)
