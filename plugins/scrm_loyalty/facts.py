"""What was decided about points, and what it does to a ledger: it only applies what the facts say."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from scrm.api import LogEvent, derive_id

from .earn_rules import REFUNDED
from .earning import earn, multiply
from .ledger import (
    ADJUSTED,
    EXPIRED,
    FROZEN,
    HELD,
    REDEEMED,
    RELEASED,
    TRANSFERRED,
    UNDONE,
    UNFROZEN,
    Account,
    Hold,
    Ledger,
    Lot,
    refund,
    take_back,
)
from .rules import LoyaltyRules

TIER_CHANGED = "tier.changed"
"""Says what the points of a member are multiplied by, whoever announces it."""
OWN = ("mutation:", "job:")
"""Facts of decisions and jobs come from such sources; nobody outside can record one."""


def fold(ledger: Ledger, events: Sequence[LogEvent], rules: LoyaltyRules) -> None:
    """Apply events in their order."""
    for event in events:
        if event.user_id is None:
            continue
        if event.type in FACTS:
            if event.source.startswith(OWN):
                lacking = misfit(ledger, event, event.user_id)
                if lacking is None:
                    FACTS[event.type](ledger, event, event.user_id)
                else:
                    ledger.misfits.append((event, lacking))
            continue
        if event.type == TIER_CHANGED:
            multiply(ledger, event, event.user_id)
        elif event.type == REFUNDED and event.amount_minor and event.currency == rules.currency:
            refund(ledger, event, event.user_id, event.amount_minor, rules)
        earn(ledger, event, event.user_id, rules)


def misfit(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> str | None:
    """What the ledger lacks for a fact, if it is not as it was when that was decided."""
    fact = event.properties
    held = ledger.holds.get(uuid.UUID(fact["hold"])) if fact.get("hold") else None
    if fact.get("hold") and (held is None or held.state != "OPEN"):
        return f"the hold {fact['hold']}"
    for part in (*fact.get("lots", ()), *fact.get("renewed", ())):
        if uuid.UUID(part["lot"]) not in ledger.lots:
            return f"the lot {part['lot']}"
    if event.type == UNDONE:
        undone = uuid.UUID(fact["entry"])
        if undone not in ledger.undoable and all(line["id"] != undone for line in ledger.journal.lines):
            return f"the entry {undone.hex}"
    account = ledger.accounts.get(user_id)
    if fact.get("debtRepaid", 0) > (account.debt if account is not None else 0):
        return f"a debt of {fact['debtRepaid']}"
    short = (part for part in moved(event) if not _has(ledger, event, part))
    return next((f"{part['points']} points of the lot {part['lot']}" for part in short), None)


def moved(event: LogEvent) -> Sequence[Mapping[str, Any]]:
    """The parts of lots that a fact takes points from or puts them back to."""
    return event.properties["lots"] if event.type in (REDEEMED, HELD, UNDONE, ADJUSTED, TRANSFERRED) else ()


def _has(ledger: Ledger, event: LogEvent, part: Mapping[str, Any]) -> bool:
    lot = ledger.lots[uuid.UUID(part["lot"])]
    back = event.type == UNDONE and event.properties["points"] > 0
    return bool(part["points"] <= (lot.original - lot.remaining if back else lot.remaining))


def redeem(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Spend from the lots that the decision chose; what a hold kept and is not spent is free again."""
    fact = event.properties
    if fact.get("hold"):
        resolve(ledger, event, "CAPTURED").captured = fact["points"]
    account = ledger.account(user_id, event)
    entry_id = ledger.entry(event, account.id, "REDEEM", -fact["points"], reference=fact.get("reference"))
    note(ledger, entry_id, fact)
    for part in fact["lots"]:
        lot = ledger.lots[uuid.UUID(part["lot"])]
        ledger.take(entry_id, lot, part["points"])
        ledger.redeemed[lot.id] = ledger.redeemed.get(lot.id, 0) + part["points"]


def hold(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Keep points of the lots that the decision chose."""
    fact = event.properties
    account = ledger.account(user_id, event)
    made = Hold(
        id=hold_of(event.id),
        account_id=account.id,
        home_id=account.id,
        points=fact["points"],
        created_at=event.occurred_at,
        expires_at=datetime.fromisoformat(fact["expiresAt"]),
        reason=fact.get("reason"),
        reference=fact.get("reference"),
    )
    ledger.holds[made.id] = made
    for part in fact["lots"]:
        lot_id = uuid.UUID(part["lot"])
        ledger.held.setdefault(lot_id, {})[made.id] = part["points"]
        ledger.held_lots.append({"hold_id": made.id, "lot_id": lot_id, "amount": part["points"]})


def hold_of(event_id: uuid.UUID) -> uuid.UUID:
    """The hold that an event made."""
    return derive_id(event_id, "hold")


def release(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Free what a hold kept."""
    resolve(ledger, event, "RELEASED")


def resolve(ledger: Ledger, event: LogEvent, state: str) -> Hold:
    """End a hold; it is resolved once."""
    ended = ledger.holds[uuid.UUID(event.properties["hold"])]
    ended.state = state
    ended.resolved_at = event.occurred_at
    return ended


def note(ledger: Ledger, entry_id: uuid.UUID, fact: Mapping[str, Any]) -> None:
    """Keep somebody's words beside an entry."""
    if fact.get("reason"):
        ledger.notes.append({"entry_id": entry_id, "reason": fact["reason"]})


def undo(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Give points back to the lots they were taken from, or take back those of an adjustment; debt is paid first.

    The line is written where the undone one is; what belongs to lots that have another account by now goes there by a pair.
    """
    fact = event.properties
    undone, home = uuid.UUID(fact["entry"]), uuid.UUID(fact["account"])
    said = {"reverses": undone, "reference": fact.get("reference")}
    if fact.get("debtMade"):  # what an adjustment had paid of a debt is owed again
        account = ledger.account(user_id, event)
        account.debt += fact["debtMade"]
        note(ledger, ledger.entry(event, account.id, "REVERSE", -fact["debtMade"], **said), fact)
    if fact["debtRepaid"]:
        account = ledger.account(user_id, event)
        account.debt -= fact["debtRepaid"]
        note(ledger, ledger.entry(event, account.id, "DEBT_REPAID", fact["debtRepaid"], **said), fact)
    points = fact["points"] - fact["debtRepaid"] + fact.get("debtMade", 0)
    if not points:
        return
    entry_id = ledger.entry(event, home, "RESTORE" if fact["kind"] == "REDEEM" else "ADJUST", points, **said)
    note(ledger, entry_id, fact)
    sign = 1 if points > 0 else -1
    went: dict[uuid.UUID, int] = {}
    for part in (*fact["lots"], *fact["renewed"]):
        lot, amount = ledger.lots[uuid.UUID(part["lot"])], sign * part["points"]
        if part.get("expiresAt"):
            renew(ledger, event, entry_id, lot, part)
        else:
            ledger.take(entry_id, lot, -amount)
            ledger.redeemed[lot.id] = ledger.redeemed.get(lot.id, 0) - amount
        if lot.account_id != home:
            went[lot.account_id] = went.get(lot.account_id, 0) + amount
    for other, amount in went.items():
        giver, taker = (home, other) if amount > 0 else (other, home)
        ledger.pair(event, giver, taker, abs(amount), other.hex, reason="lots")
    for part in fact["lots"] if points > 0 else ():
        lot = ledger.lots[uuid.UUID(part["lot"])]
        order = ledger.order_of(lot)
        if order is not None:
            take_back(ledger, event, order, lot, part["points"])


def renew(ledger: Ledger, event: LogEvent, entry_id: uuid.UUID, lot: Lot, part: Mapping[str, Any]) -> None:
    """Points whose time was over last anew."""
    made = new_lot(event, entry_id, lot.account_id, part, derive_id(entry_id, "lot", lot.id.hex))
    made.home_id = lot.home_id
    made.order_id = lot.order_id
    ledger.add_lot(made)


def new_lot(event: LogEvent, entry_id: uuid.UUID, account_id: uuid.UUID, part: Mapping[str, Any], lot_id: uuid.UUID) -> Lot:
    """A lot of so many points, usable from now on until the day that was decided."""
    return Lot(
        id=lot_id,
        account_id=account_id,
        home_id=account_id,
        entry_id=entry_id,
        order_id=None,
        original=part["points"],
        remaining=part["points"],
        earned_at=event.occurred_at,
        available_at=event.occurred_at,
        expires_at=datetime.fromisoformat(part["expiresAt"]) if part.get("expiresAt") else None,
        expires_on=date.fromisoformat(part["expiresOn"]) if part.get("expiresOn") else None,
    )


def adjust(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Credit points by hand, debt first, or take some from the lots that were chosen."""
    fact = event.properties
    account = ledger.account(user_id, event)
    said = {"reference": fact.get("reference")}
    if fact["debtRepaid"]:
        account.debt -= fact["debtRepaid"]
        note(ledger, ledger.entry(event, account.id, "DEBT_REPAID", fact["debtRepaid"], **said), fact)
    points = fact["points"] - fact["debtRepaid"]
    if not points:
        return
    until = datetime.fromisoformat(fact["expiresAt"]) if fact.get("expiresAt") else None
    entry_id = ledger.entry(event, account.id, "ADJUST", points, expires_at=until, **said)
    note(ledger, entry_id, fact)
    if points > 0:
        ledger.add_lot(new_lot(event, entry_id, account.id, {**fact, "points": points}, derive_id(entry_id, "lot")))
    for part in fact["lots"]:
        ledger.take(entry_id, ledger.lots[uuid.UUID(part["lot"])], part["points"])


def transfer(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Move parts of lots, which last as long as before, to somebody else's account."""
    fact = event.properties
    giver: Account = ledger.account(user_id, event)
    taker = ledger.account(uuid.UUID(fact["to"]), event)
    out, into = ledger.pair(event, giver.id, taker.id, fact["points"], "points", reference=fact.get("reference"))
    note(ledger, out, fact)  # they are the words of who gives, and are forgotten with them
    for part in fact["lots"]:
        ledger.move(event, ledger.lots[uuid.UUID(part["lot"])], part["points"], out, into, taker.id, taker.id)


def expire(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Write off what has lapsed of these lots, as far as it is still there."""
    for part in event.properties["lots"]:
        lot = ledger.lots[uuid.UUID(part["lot"])]
        amount = min(part["points"], ledger.free(lot, event.received_at))
        if amount and lot.expired(event.occurred_at):
            ledger.write_off(event, lot, amount, lot.id.hex)


def freeze(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Let nothing be spent of an account any more, or again."""
    ledger.account(user_id, event).frozen = event.type == FROZEN


def received_by(fact: Mapping[str, Any]) -> list[uuid.UUID]:
    """Whose account a fact touches beside its own user's."""
    return [uuid.UUID(fact["to"])] if fact.get("to") else []


FACTS: dict[str, Callable[[Ledger, LogEvent, uuid.UUID], None]] = {
    REDEEMED: redeem,
    HELD: hold,
    RELEASED: release,
    UNDONE: undo,
    ADJUSTED: adjust,
    TRANSFERRED: transfer,
    EXPIRED: expire,
    FROZEN: freeze,
    UNFROZEN: freeze,
}
"""What decisions and jobs say, and how each is applied."""
