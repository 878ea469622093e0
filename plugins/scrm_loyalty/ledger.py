"""What events do to a ledger: plain Python on rows that were loaded, without a database.

`Ledger` holds the accounts, orders and lots that a batch touches; here is what refunds do to it, in `earning` what earns, in
`facts` what was decided.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from scrm.api import Announcement, Journal, LogEvent, derive_id

from .models import entries
from .rules import LoyaltyRules

EARNED, REDEEMED, REVERSED = "points.earned", "points.redeemed", "points.reversed"
REFUSED = "points.reversal_refused"
HELD, RELEASED = "points.held", "points.released"
UNDONE, ADJUSTED, TRANSFERRED = "points.undone", "points.adjusted", "points.transferred"
EXPIRED, FROZEN, UNFROZEN = "points.expired", "points.frozen", "points.unfrozen"
ONCE = "1"
"""The multiplier of a member without a level."""


@dataclass(slots=True)
class Account:
    """One account; `debt` is paid by the next credit; nothing is spent of one that is `frozen`; `multiplier`, a decimal number as
    text, is what the member's level gives."""

    id: uuid.UUID
    user_id: uuid.UUID
    holder_id: uuid.UUID
    debt: int = 0
    frozen: bool = False
    multiplier: str = ONCE


@dataclass(slots=True)
class Order:
    """What refunds of an order need to know of it: `reversed` points were taken back so far; of them `waived` had expired, and
    `forgiven` were spent and let go."""

    id: uuid.UUID
    account_id: uuid.UUID
    order_id: str
    entry_id: uuid.UUID | None = None
    paid: int = 0
    points: int = 0
    refunded: int = 0
    refunded_at: datetime | None = None
    reversed: int = 0
    waived: int = 0
    forgiven: int = 0


@dataclass(slots=True)
class Lot:
    """What is left of a credit. `lapsed` was written off as expired."""

    id: uuid.UUID
    account_id: uuid.UUID
    home_id: uuid.UUID
    entry_id: uuid.UUID
    order_id: uuid.UUID | None
    original: int
    remaining: int
    earned_at: datetime
    available_at: datetime
    expires_at: datetime | None
    expires_on: date | None
    lapsed: int = 0

    @property
    def place(self) -> tuple[bool, datetime, datetime, uuid.UUID]:
        """Where it stands among those that are spent: by expiry, those that never expire last."""
        return self.expires_at is None, self.expires_at or self.earned_at, self.earned_at, self.id

    def expired(self, at: datetime) -> bool:
        """Whether it cannot be spent any more at this instant."""
        return self.expires_at is not None and self.expires_at <= at


@dataclass(slots=True)
class Hold:
    """Points that are kept for something: nobody else can spend them until it is resolved or its deadline is over."""

    id: uuid.UUID
    account_id: uuid.UUID
    home_id: uuid.UUID
    points: int
    created_at: datetime
    expires_at: datetime
    captured: int = 0
    state: str = "OPEN"
    reason: str | None = None
    reference: str | None = None
    resolved_at: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether its points are out at this instant."""
        return self.state == "OPEN" and self.expires_at > at


@dataclass
class Ledger:
    """The rows that a batch of events touches, and what is to be written when it is folded."""

    accounts: dict[uuid.UUID, Account] = field(default_factory=dict)
    orders: dict[tuple[uuid.UUID, str], Order] = field(default_factory=dict)
    siblings: dict[tuple[uuid.UUID, str], list[Order]] = field(default_factory=dict)
    """What others, who are one with their person now, said of the same orders."""
    more_orders: dict[uuid.UUID, Order] = field(default_factory=dict)
    """Orders by id that no event of the batch names, but whose lots get points back."""
    lots: dict[uuid.UUID, Lot] = field(default_factory=dict)
    of_order: dict[uuid.UUID, list[Lot]] = field(default_factory=dict)
    holds: dict[uuid.UUID, Hold] = field(default_factory=dict)
    held: dict[uuid.UUID, dict[uuid.UUID, int]] = field(default_factory=dict)
    """How much of each lot which hold keeps."""
    held_lots: list[dict[str, Any]] = field(default_factory=list)
    journal: Journal = field(default_factory=lambda: Journal(entries))
    notes: list[dict[str, Any]] = field(default_factory=list)
    allocations: list[dict[str, Any]] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)
    earned: dict[tuple[uuid.UUID, str], dict[date, int]] = field(default_factory=dict)
    """By member and capped earn rule: points by business day, as far back as the caps look; `EVER` has those before."""
    used: set[tuple[uuid.UUID, str, str]] = field(default_factory=set)
    """By member and earn rule: the values that have earned once."""
    uses: list[dict[str, Any]] = field(default_factory=list)
    limited: list[tuple[str, str]] = field(default_factory=list)
    """Which earn rules gave less than they would have, and why."""
    redeemed: dict[uuid.UUID, int] = field(default_factory=dict)
    """How much of each lot is redeemed and not given back, as far as it matters."""
    undoable: set[uuid.UUID] = field(default_factory=set)
    """The lines that are there of those that are to be undone."""
    misfits: list[tuple[LogEvent, str]] = field(default_factory=list)
    """Facts that were left out, for the ledger is not as it was when they were decided, and what it lacks."""

    def add_lot(self, lot: Lot) -> None:
        """Know a lot, old or new."""
        self.lots[lot.id] = lot
        if lot.order_id is not None:
            self.of_order.setdefault(lot.order_id, []).append(lot)

    def account(self, user_id: uuid.UUID, event: LogEvent) -> Account:
        """The account of a user; opened now if there is none."""
        account = self.accounts.get(user_id)
        if account is None:
            account = Account(derive_id(event.id, "account", user_id.hex), user_id, user_id)
            self.accounts[user_id] = account
        return account

    def order(self, account: Account, event: LogEvent) -> Order:
        """The order that an event speaks of; one without an id is an order of its own."""
        key = event.order_id
        order = self.orders.get((account.user_id, key))
        if order is None:
            order = Order(derive_id(event.id, "order"), account.id, key)
            self.orders[account.user_id, key] = order
        return order

    def known_orders(self) -> list[Order]:
        """All orders."""
        return [*self.orders.values(), *(one for alike in self.siblings.values() for one in alike), *self.more_orders.values()]

    def order_of(self, lot: Lot) -> Order | None:
        """The known order that a lot is of."""
        known = (order for order in self.known_orders() if order.id == lot.order_id)
        return next(known, None) if lot.order_id is not None else None

    def entry(self, event: LogEvent, account_id: uuid.UUID, kind: str, points: int, **more: Any) -> uuid.UUID:
        """A new line of the ledger; `part` tells several of one kind and event apart."""
        return self.journal.line(event, kind, account_id=account_id, points=points, **more)

    def free(self, lot: Lot, at: datetime) -> int:
        """What is left of a lot and not held at this instant."""
        kept = (amount for hold_id, amount in self.held.get(lot.id, {}).items() if self.holds[hold_id].holds(at))
        return max(lot.remaining - sum(kept), 0)

    def take(self, entry_id: uuid.UUID, lot: Lot, amount: int) -> None:
        """Take from a lot on behalf of a debit."""
        lot.remaining -= amount
        self.allocations.append({"entry_id": entry_id, "lot_id": lot.id, "amount": amount})

    def write_off(self, event: LogEvent, lot: Lot, amount: int, part: Any) -> None:
        """Say that so many points of a lot have expired, as of when they did."""
        self.take(self.entry(event, lot.account_id, "EXPIRE", -amount, occurred_at=lot.expires_at, part=part), lot, amount)
        lot.lapsed += amount

    def pair(
        self, event: LogEvent, giver: uuid.UUID, taker: uuid.UUID, points: int, part: str, **more: Any
    ) -> tuple[uuid.UUID, uuid.UUID]:
        """The linked lines of points, or debt (below 0), that go from one account to another."""
        left, came = {"account_id": giver, "points": -points, **more}, {"account_id": taker, "points": points, **more}
        return self.journal.pair(event, left, came, part=part)

    def move(
        self, event: LogEvent, lot: Lot, amount: int, out: uuid.UUID, into: uuid.UUID, account_id: uuid.UUID, home_id: uuid.UUID
    ) -> None:
        """Move a part of a lot to another account, by these lines: a new lot there that lasts as long."""
        self.take(out, lot, amount)
        moved = Lot(
            id=moved_lot(into, lot.id),
            account_id=account_id,
            home_id=home_id,
            entry_id=into,
            order_id=None,
            original=amount,
            remaining=amount,
            earned_at=event.occurred_at,
            available_at=max(lot.available_at, event.occurred_at),
            expires_at=lot.expires_at,
            expires_on=lot.expires_on,
        )
        self.add_lot(moved)


def moved_lot(into: uuid.UUID, lot_id: uuid.UUID) -> uuid.UUID:
    """The lot that a transfer makes of a part of another."""
    return derive_id(into, "lot", lot_id.hex)


def refund(ledger: Ledger, event: LogEvent, user_id: uuid.UUID, amount: int, rules: LoyaltyRules) -> None:
    """Take back what a refund cancels; one whose order is not known yet waits for it."""
    account = ledger.account(user_id, event)
    order = ledger.order(account, event)
    order.refunded += amount
    order.refunded_at = max(order.refunded_at or event.occurred_at, event.occurred_at)
    settle(ledger, event, account, order, rules)


def settle(ledger: Ledger, event: LogEvent, account: Account, order: Order, rules: LoyaltyRules) -> None:
    """Bring what was taken back to what the refunds so far ask for: rounded once on their sum, so parts sum to the whole. What
    people who are one now said of one order counts together."""
    alike = [order, *ledger.siblings.get((account.user_id, order.order_id), ())]
    told = [one.refunded_at for one in alike if one.refunded_at is not None]
    points, paid = sum(one.points for one in alike), sum(one.paid for one in alike)
    if not points or not told:
        return
    due = points * min(sum(one.refunded for one in alike), paid) // paid - sum(one.reversed for one in alike)
    for one in alike:
        part = min(due, one.points - one.reversed)
        if part > 0:
            reverse(ledger, event, account, one, part, max(event.occurred_at, *told), rules)
            due -= part


def reverse(ledger: Ledger, event: LogEvent, account: Account, order: Order, due: int, at: datetime, rules: LoyaltyRules) -> None:
    """Take back so many points of an order: those that have expired are gone, held or not, those that are there go, and what was
    spent is owed. Where the policy blocks what is not all there, nothing is taken, and the next refund tries again."""
    known = max(at, event.received_at)  # what has expired by then has, whether the job has said so or not
    own = sorted(ledger.of_order.get(order.id, []), key=lambda lot: lot.place)
    free = {lot.id: ledger.free(lot, event.received_at) for lot in own}
    lapsed = sum(lot.lapsed + (lot.remaining if lot.expired(known) else 0) for lot in own)
    waived = min(due, max(lapsed - order.waived, 0))
    taken = _unspent(own, free, due - waived, known)
    owed = due - waived - sum(amount for _, amount in taken)
    money = event.amount_minor, event.currency
    if owed and rules.debt_policy == "block":
        said = {"points": due, "short": owed, "orderId": order.order_id}
        ledger.announcements.append(Announcement(REFUSED, event, account.user_id, said, order.id.hex, *money))
        return
    order.reversed += due
    spent = sum(ledger.redeemed.get(lot.id, 0) for lot in own) if rules.debt_policy == "floor_zero" else 0
    forgiven = min(owed, max(spent - order.forgiven, 0))
    order.waived += waived
    order.forgiven += forgiven
    owed -= forgiven
    account.debt += owed
    points = due - waived - forgiven
    if points:
        said = {"reference": order.order_id, "reverses": order.entry_id, "part": order.id.hex}
        entry_id = ledger.entry(event, account.id, "REVERSE", -points, occurred_at=at, **said)
        for lot, amount in taken:
            ledger.take(entry_id, lot, amount)
    properties = {"points": points, "cancelled": due, "debt": owed, "orderId": order.order_id, "lots": _said(taken)}
    ledger.announcements.append(Announcement(REVERSED, event, account.user_id, properties, order.id.hex, *money))


def take_back(ledger: Ledger, event: LogEvent, order: Order, lot: Lot, points: int) -> None:
    """Points that were spent when their order was refunded, and let go, have come back to their lot: now they are taken."""
    points = min(points, order.forgiven, ledger.free(lot, event.received_at))
    if points <= 0:
        return
    order.forgiven -= points
    said = {"reference": order.order_id, "reverses": order.entry_id, "part": lot.id.hex}
    ledger.take(ledger.entry(event, lot.account_id, "REVERSE", -points, **said), lot, points)


def _unspent(lots: Sequence[Lot], free: Mapping[uuid.UUID, int], points: int, at: datetime) -> list[tuple[Lot, int]]:
    taken = []
    for lot in lots:
        amount = 0 if lot.expired(at) else min(points, free[lot.id])
        if amount:
            taken.append((lot, amount))
            points -= amount
    return taken


def _said(taken: Sequence[tuple[Lot, int]]) -> list[dict[str, Any]]:
    return [{"lot": lot.id.hex, "points": amount} for lot, amount in taken]
