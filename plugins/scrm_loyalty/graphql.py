"""Points in GraphQL."""

from __future__ import annotations

import datetime as dt
from enum import Enum

import sqlalchemy as sa

from scrm.api import (
    NOW,
    BigInt,
    Connection,
    DateTimeFilter,
    Direction,
    Event,
    IntFilter,
    Node,
    StringFilter,
    User,
    UserFilter,
    UserOrder,
    arg,
    column,
    enum,
    expression,
    extend,
    filter,
    filter_input,
    many,
    one,
    ordering,
    rows,
    same_row,
    users,
    where,
)

from . import service
from .models import entries, holds

READ, WRITE = "points:read", "points:write"


@enum(
    "What a line of the ledger is.",
    EARN="Points for something the person did.",
    ACTIVATE="Pending points that became usable.",
    REDEEM="Points spent.",
    EXPIRE="Points written off because their time was over.",
    ADJUST="A correction by hand.",
    REVERSE="Points taken back, as for a refund.",
    RESTORE="Spent points given back.",
    TRANSFER_IN="Points, or debt, that came from another account.",
    TRANSFER_OUT="Points, or debt, that went to another account.",
    DEBT_REPAID="Points earned that paid a debt.",
)
class PointsEntryKind(Enum):
    EARN = "EARN"
    ACTIVATE = "ACTIVATE"
    REDEEM = "REDEEM"
    EXPIRE = "EXPIRE"
    ADJUST = "ADJUST"
    REVERSE = "REVERSE"
    RESTORE = "RESTORE"
    TRANSFER_IN = "TRANSFER_IN"
    TRANSFER_OUT = "TRANSFER_OUT"
    DEBT_REPAID = "DEBT_REPAID"


@filter_input
class PointsEntryFilter:
    """Which lines of the ledger; every field that is given must hold."""

    kind: list[PointsEntryKind] | None = where(
        "Of these kinds.", lambda entry, kinds: entry.c.kind.in_([kind.value for kind in kinds]), scope=READ
    )
    occurred_at: DateTimeFilter | None = filter("By when they happened.", lambda entry: entry.c.occurred_at, scope=READ)
    reference: StringFilter | None = filter(
        "By what they refer to, such as an order.", lambda entry: entry.c.reference, scope=READ
    )


@rows(entries, scope=READ, owner=service.holder)
class PointsEntry(Node):
    """One line of the points ledger; never changed."""

    kind: PointsEntryKind = column("What it is.")
    points: BigInt = column("Positive credits, negative debits.")
    occurred_at: dt.datetime = column("When it happened.")
    recorded_at: dt.datetime = column("When it was recorded.")
    reason: str | None = expression("Why, in words.", service.reason, personal=True)
    reference: str | None = column("What it refers to, such as an order.")
    rule: str | None = column("The earn rule of a credit.")
    expires_at: dt.datetime | None = column("From when on the credit's points cannot be spent; null: never, or no credit.")
    event: Event | None = one("The event it follows from.", lambda entry, event: event.c.id == entry.c.event_id)
    user: User | None = one(
        "Whose points; null once the person is erased.", lambda entry, user: user.c.id == service.holder(entry)
    )
    reverses: PointsEntry | None = one("The line that it takes back.", lambda entry, other: other.c.id == entry.c.reverses)


@enum(
    "What became of a hold.",
    OPEN="It keeps its points.",
    CAPTURED="Points of it were spent; the rest is free.",
    RELEASED="All of it is free.",
    EXPIRED="Its deadline is over, and all of it is free.",
)
class HoldState(Enum):
    OPEN = "OPEN"
    CAPTURED = "CAPTURED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@rows(holds, scope=READ, owner=service.holder)
class PointsHold(Node):
    """Points kept for something, such as an order that is not paid yet."""

    user: User | None = one("Whose points; null once the person is erased.", lambda hold, user: user.c.id == service.holder(hold))
    state: HoldState = expression("What became of it.", service.hold_state)
    points: BigInt = column("How many it keeps, or kept.")
    captured: BigInt = column("How many of them were spent.")
    reference: str | None = column("What it is for, such as an order.")
    created_at: dt.datetime = column("Since when.")
    expires_at: dt.datetime = column("From when on it keeps nothing, if nobody resolves it before.")
    resolved_at: dt.datetime | None = column("When it was captured or released.")


@rows(None, public=True)
class ExpiringPoints:
    """Points that expire on one day."""

    date: dt.date = column("The day from which on they cannot be spent.")
    points: BigInt = column("How many.")


@rows(users, scope=READ, owner=lambda user: user.c.id)
class PointsAccount:
    """A person's points; everybody has an account."""

    user: User = one("Whose.", lambda account, user: user.c.id == account.c.id)
    frozen: bool = expression("Whether nothing can be spent, for its numbers did not agree.", service.frozen, weight=1)
    balance: BigInt = expression("Points that can be spent now.", service.spendable, weight=1)
    pending: BigInt = expression("Points that can be spent later.", service.pending, weight=1)
    held: BigInt = expression("Points that open holds keep.", service.held, weight=1)
    debt: BigInt = expression("Points that the next credit pays first.", service.debt, weight=1)
    earned: BigInt = expression("Points ever credited, those that refunds took back included.", service.earned, weight=1)
    redeemed: BigInt = expression("Points ever spent.", service.redeemed, weight=1)
    expired: BigInt = expression("Points that expired unspent.", service.expired, weight=1)
    as_of: dt.datetime = expression("The instant of these numbers.", lambda account: NOW)
    expiring: list[ExpiringPoints] = many(
        "What expires on which day, soonest first.",
        select=service.expiring,
        order=[sa.column("date", sa.Date())],
        within_days=arg(int | None, "Within so many business days, today included; null: whenever.", 30),
    )
    entries: Connection[PointsEntry] = many(
        "The ledger, newest first.",
        service.entries_of,
        order=[entries.c.occurred_at.desc(), entries.c.id.desc()],
        filter=PointsEntryFilter,
    )
    holds: list[PointsHold] = many(
        "Points that were held, newest first.", service.holds_of, order=[holds.c.created_at.desc(), holds.c.id.desc()]
    )
    balance_at: BigInt = expression(
        "Points that can be spent at another time, past or future, as the ledger knows it now.",
        service.balance_at,
        weight=2,
        at=arg(dt.datetime, "The instant."),
    )


@extend(User)
class LoyaltyUser:
    """A user's points."""

    points: PointsAccount | None = same_row("The person's points.", scope=READ)


@extend(UserFilter)
class LoyaltyFilter:
    """Users by their points."""

    points: IntFilter | None = filter("By points that can be spent now.", service.spendable, scope=READ)


@extend(UserOrder)
class LoyaltyOrder:
    """Users sorted by their points."""

    points: Direction | None = ordering("By points that can be spent now.", service.spendable, nullable=False, scope=READ)
