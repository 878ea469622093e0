"""Load the rows that a batch touches, fold its events, store what changed: a handful of statements whatever its size."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa

from scrm.api import EVERY, FoundRows, Handler, HandlerTx, Id, LogEvent, Text, Tx, among, insert_rows, row_set

from .earn_rules import REFUNDED
from .facts import FACTS, TIER_CHANGED, fold, received_by
from .ledger import UNDONE, Account, Hold, Ledger, Lot, Order
from .limits import load_limits
from .models import accounts, allocations, entries, held_lots, holds, lots, notes, orders, uses
from .rules import PAID, LoyaltyRules

ORDERS = (PAID, REFUNDED)


_LAPSED = (
    sa.select(sa.cast(sa.func.coalesce(sa.func.sum(allocations.c.amount), 0), sa.BigInteger))
    .join(entries, entries.c.id == allocations.c.entry_id)
    .where(allocations.c.lot_id == lots.c.id, entries.c.kind == "EXPIRE")
    .scalar_subquery()
)


def select_lots(
    condition: sa.ColumnElement[bool], *more: sa.ColumnElement[Any], lapsed: sa.ColumnElement[int] = _LAPSED
) -> sa.Select[Any]:
    """The lots of a condition, for `load_lots`, and what more shall be known of each. `lapsed` may be 0 where nobody looks at it:
    to sum it up is to read all that was ever taken of a lot."""
    columns = [lapsed.label("lapsed") if each.name == "lapsed" else lots.c[each.name] for each in fields(Lot)]
    return sa.select(*columns, *more).where(condition).order_by(lots.c.expires_at.asc().nulls_last(), lots.c.earned_at, lots.c.id)


# Built once: to build a statement costs more than to run it.
_ACCOUNTS = (
    sa.select(*(accounts.c[each.name] for each in fields(Account)))
    .where(among(accounts.c.user_id, "users"))
    .order_by(accounts.c.id)
)
_ACCOUNTS_LOCKED = _ACCOUNTS.with_for_update()
LOTS = select_lots(among(lots.c.id, "ids"), lapsed=sa.literal(0))
_LOTS_OF_ORDERS = select_lots(among(lots.c.order_id, "ids"))
_HELD = sa.select(*(holds.c[each.name] for each in fields(Hold)), held_lots.c.lot_id, held_lots.c.amount).join(
    held_lots, held_lots.c.hold_id == holds.c.id
)
_HELD_OF_LOTS = _HELD.where(holds.c.state == "OPEN", among(held_lots.c.lot_id, "ids"))
_HELD_BY = _HELD.where(among(holds.c.id, "ids"))


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: LoyaltyRules) -> None:
    """Earn as the rules say, take back on refunds, spend what decisions decided."""
    wanted = [event for event in batch if event.type in ALWAYS or event.type in rules.earning]
    if not wanted:
        return
    loaded = load(tx, wanted, rules)
    fold(loaded.ledger, wanted, rules)
    for event, lacking in loaded.ledger.misfits:
        tx.leave_out(event, f"the ledger has not {lacking}")
    loaded.store(tx)
    for announcement in loaded.ledger.announcements:
        tx.announce(announcement)


ALWAYS = frozenset((*ORDERS, *FACTS, TIER_CHANGED))
handler = Handler((*ORDERS, *FACTS, EVERY), follow, optional=(TIER_CHANGED,))


@dataclass
class Loaded:
    """A ledger with its rows as they were found."""

    ledger: Ledger
    rows: FoundRows = field(default_factory=FoundRows)

    def store(self, tx: Tx) -> None:
        """Write what is new and what changed."""
        ledger = self.ledger
        self.rows.store(tx, accounts, ledger.accounts.values(), ["debt", "frozen", "multiplier"])
        ledger.journal.store(tx)
        insert_rows(tx, notes, ledger.notes)
        insert_rows(tx, uses, ledger.uses)
        kept = ["account_id", "entry_id", "paid", "points", "refunded", "refunded_at", "reversed", "waived", "forgiven"]
        self.rows.store(tx, orders, ledger.known_orders(), kept)
        self.rows.store(tx, lots, ledger.lots.values(), ["remaining"])
        insert_rows(tx, allocations, ledger.allocations)
        self.rows.store(tx, holds, ledger.holds.values(), ["captured", "state", "resolved_at"])
        insert_rows(tx, held_lots, ledger.held_lots)

    def keep_holds(self, tx: Tx, named: Sequence[uuid.UUID] = ()) -> None:
        """Know the holds that keep points of the known lots, and those that are named."""
        ledger = self.ledger
        if not ledger.lots and not named:
            return
        for statement, ids in ((_HELD_OF_LOTS, list(ledger.lots)), (_HELD_BY, list(named))):
            for row in tx.rows(statement, {"ids": ids}) if ids else ():
                ledger.holds.setdefault(row.id, Hold(*tuple(row)[:-2]))
                ledger.held.setdefault(row.lot_id, {})[row.id] = row.amount
        self.rows.keep(ledger.holds.values())

    def keep_orders_of_lots(self, tx: Tx) -> None:
        """Know the orders that the known lots are of."""
        ledger = self.ledger
        known = {order.id for order in ledger.known_orders()}
        wanted = sorted({lot.order_id for lot in ledger.lots.values() if lot.order_id is not None} - known)
        if not wanted:
            return
        joined = sa.select(accounts.c.holder_id, orders).join(accounts, accounts.c.id == orders.c.account_id)
        for row in tx.rows(joined.where(among(orders.c.id, wanted))):
            order = Order(**{name: value for name, value in row._mapping.items() if name != "holder_id"})
            ledger.more_orders[order.id] = order
        self.rows.keep(ledger.more_orders.values())


def load(tx: Tx, batch: Sequence[LogEvent], rules: LoyaltyRules, *, lock: bool = True) -> Loaded:
    """The accounts, locked in the order of their ids unless nothing shall be stored, and the orders and lots that these events
    touch, with what limits their earning."""
    facts = [event.properties for event in batch if event.type in FACTS]
    users = {event.user_id for event in batch if event.user_id is not None}
    users.update(user for fact in facts for user in received_by(fact))
    ledger = Ledger({account.user_id: account for account in find_accounts(tx, users, lock=lock)})
    loaded = Loaded(ledger)
    loaded.rows.keep(ledger.accounts.values())
    keys = {(event.user_id, event.order_id) for event in batch if event.type in ORDERS and event.user_id is not None}
    if keys and ledger.accounts:
        load_orders(tx, ledger, keys)
        loaded.rows.keep(ledger.known_orders())
    named = [uuid.UUID(part["lot"]) for fact in facts for name in ("lots", "renewed") for part in _parts(fact, name)]
    wanted = [order.id for order in ledger.known_orders() if order.points]
    # One by one: each has an index, both together have none. Those of refunded orders first, for of them it matters what lapsed.
    for statement, ids in ((_LOTS_OF_ORDERS, wanted), (LOTS, named)):
        for lot in load_lots(tx, statement, ids=ids) if ids else ():
            if lot.id not in ledger.lots:
                ledger.add_lot(lot)
    loaded.rows.keep(ledger.lots.values())
    loaded.keep_holds(tx, [uuid.UUID(fact["hold"]) for fact in facts if fact.get("hold")])
    undone = [uuid.UUID(event.properties["entry"]) for event in batch if event.type == UNDONE]
    if undone:
        ledger.undoable = {row.id for row in tx.rows(sa.select(entries.c.id).where(among(entries.c.id, undone)))}
        loaded.keep_orders_of_lots(tx)
    if ledger.accounts:
        load_limits(tx, ledger, batch, rules)
    if rules.debt_policy == "floor_zero" and ledger.lots:
        ledger.redeemed = load_redeemed(tx, list(ledger.lots))
    return loaded


def _parts(fact: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    parts = fact.get(name)
    return [part for part in parts if isinstance(part, dict) and "lot" in part] if isinstance(parts, list) else []


def find_accounts(tx: Tx, users: Iterable[uuid.UUID], *, lock: bool = True) -> list[Account]:
    """The accounts of these users, locked in the order of their ids."""
    return [Account(*tuple(row)) for row in tx.rows(_ACCOUNTS_LOCKED if lock else _ACCOUNTS, {"users": list(users)})]


def load_orders(tx: Tx, ledger: Ledger, keys: Collection[tuple[uuid.UUID, str]]) -> None:
    """Know orders by who holds their account and their id; of several with one id the one that earned comes first, then the own,
    and the others are its siblings."""
    asked = [{"holder": user, "key": key} for user, key in sorted(keys, key=lambda key: (key[0].int, key[1]))]
    said = row_set(tx, "said", {"holder": Id, "key": Text}, asked)
    joined = sa.join(said, accounts, accounts.c.holder_id == said.c.holder).join(
        orders, sa.and_(orders.c.account_id == accounts.c.id, orders.c.order_id == said.c.key)
    )
    rows = tx.rows(sa.select(accounts.c.holder_id, orders).select_from(joined).order_by(orders.c.id))
    for row in sorted(rows, key=lambda row: (row.points == 0, row.account_id != _own_id(ledger.accounts, row.holder_id))):
        order = Order(**{name: value for name, value in row._mapping.items() if name != "holder_id"})
        if ledger.orders.setdefault((row.holder_id, row.order_id), order) is not order:
            ledger.siblings.setdefault((row.holder_id, row.order_id), []).append(order)


def _own_id(own: Mapping[uuid.UUID, Account], user_id: uuid.UUID) -> uuid.UUID | None:
    account = own.get(user_id)
    return account.id if account is not None else None


def load_lots(tx: Tx, statement: sa.Select[Any], **said: Any) -> list[Lot]:
    """Lots in the order in which they are spent, each with what was written off of it, by a statement of `select_lots`."""
    return [Lot(*tuple(row)) for row in tx.rows(statement, said)]


def load_redeemed(tx: Tx, of: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """How much of these lots is redeemed and not given back."""
    spent = sa.select(allocations.c.lot_id, sa.cast(sa.func.sum(allocations.c.amount), sa.BigInteger).label("amount"))
    spent = spent.join(entries, entries.c.id == allocations.c.entry_id).where(entries.c.kind.in_(("REDEEM", "RESTORE")))
    return {
        row.lot_id: row.amount for row in tx.rows(spent.where(among(allocations.c.lot_id, of)).group_by(allocations.c.lot_id))
    }
