"""What was decided about budgets, and what it does to a book: it only applies what the facts say."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from scrm.api import Announcement, LogEvent, derive_id

from .book import Book, Budget, Commitment, Line, pairs
from .events import (
    CLOSED,
    COMMITTED,
    CREATED,
    EXPLAINED,
    REALLOCATED,
    REFUNDED,
    RELEASED,
    SPENT,
    TRANSFERRED,
    UNASSIGNED,
    UPDATED,
)
from .rules import AMOUNT, LARGEST

LINE_CHANGES = ("policy", "cap_per_day", "cap_per_user", "expected_roi")


def budget_of(event_id: uuid.UUID) -> uuid.UUID:
    """The budget that an event made."""
    return derive_id(event_id, "budget")


def line_of(event_id: uuid.UUID, category: str) -> uuid.UUID:
    """The line of a category that an event made."""
    return derive_id(event_id, "line", category)


def commitment_of(event_id: uuid.UUID) -> uuid.UUID:
    """The commitment that an event made."""
    return derive_id(event_id, "commitment")


def id_of(fact: Mapping[str, Any], name: str) -> uuid.UUID:
    """An id that a fact names."""
    return uuid.UUID(fact[name])


def create(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Make a budget and its lines."""
    fact = event.properties
    previous_id = id_of(fact, "previous") if fact.get("previous") else None
    budget = Budget(
        id=budget_of(event.id),
        chain_id=book.budgets[previous_id].chain_id if previous_id is not None else budget_of(event.id),
        previous_id=previous_id,
        name=fact["name"],
        opens_on=date.fromisoformat(fact["start"]),
        ends_on=date.fromisoformat(fact["end"]),
        closes_on=date.fromisoformat(fact["closes"]),
        currency=fact["currency"],
        timezone=fact["timezone"],
        rollover=fact["rollover"],
        rollover_cap=fact["rolloverCap"],
        ranges=fact["ranges"],
        cause_percent=fact["causePercent"],
        home=fact["currency"] == book.rules.currency,
    )
    before = {line.category: line for line in book.of_budget(previous_id)} if previous_id is not None else {}
    book.budgets[budget.id] = budget
    made = []
    for place, said in enumerate(fact["lines"]):
        previous = before.get(said["category"])
        line = Line(
            id=line_of(event.id, said["category"]),
            budget_id=budget.id,
            previous_id=previous.id if previous is not None else None,
            category=said["category"],
            place=place,
            policy=said["policy"],
            planned=said["planned"],
            **{name: said[name] for name in LINE_CHANGES if name != "policy"},
        )
        book.lines[line.id] = line
        book.sources[line.id] = _sources(said)
        book.post(event, line, "ALLOCATE", said["planned"], part=place)
        made.append(line.id)
    return [*(line.id for line in before.values()), *made]


def _sources(said: Mapping[str, Any]) -> dict[str, uuid.UUID | None]:
    return {**{key: uuid.UUID(key) for key in said["channels"]}, **dict.fromkeys(said["campaigns"])}


def update(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Change a budget's name and its lines; an amount before the budget's first day changes the plan too."""
    fact = event.properties
    budget = book.budgets[id_of(fact, "budget")]
    budget.name = fact["name"]
    touched = []
    for said in fact["lines"]:
        line = book.lines[id_of(said, "line")]
        for name in LINE_CHANGES:
            setattr(line, name, said[name])
        if line.place:
            book.sources[line.id] = _sources(said)
        change = said["change"]
        if book.day(event) < budget.opens_on:
            line.planned += change
        book.post(event, line, "ADJUST", change, part=line.place)
        touched.append(line.id)
    return touched


def close(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Close a budget: what is committed is free again."""
    budget = book.budgets[id_of(event.properties, "budget")]
    own = [line.id for line in book.of_budget(budget.id)]
    book.sweep(event, own)
    budget.closed_on = book.day(event)
    for one in sorted(book.commitments.values(), key=lambda one: one.id):
        if one.line_id in own and one.state == "OPEN":
            book.free(event, one, "RELEASED", event.occurred_at, one.id.hex)
    return own


def explain(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Say why a line's spending differs from its plan."""
    line = book.lines[id_of(event.properties, "line")]
    line.cause, line.note = event.properties["cause"], event.properties["note"]
    return []


def commit(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Keep money of a line for something."""
    fact = event.properties
    line = book.lines[id_of(fact, "line")]
    made = Commitment(
        id=commitment_of(event.id),
        line_id=line.id,
        person_id=book.own(event.user_id).id if event.user_id is not None else None,
        amount=fact["amount"],
        counts_on=book.day(event),
        reference=fact["reference"],
        created_at=event.occurred_at,
        expires_at=datetime.fromisoformat(fact["expiresAt"]),
    )
    book.commitments[made.id] = made
    said = {"commitment_id": made.id, "person_id": made.person_id, "reference": made.reference}
    book.post(event, line, "COMMIT", made.amount, **said)
    return []


def release(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Free what a commitment still keeps."""
    book.free(event, book.commitments[id_of(event.properties, "commitment")], "RELEASED", event.occurred_at, 0)
    return []


def spend(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Spend money of a line, or of a commitment, which ends when nothing is left of it or the rest is given up."""
    fact = event.properties
    line = book.lines[id_of(fact, "line")]
    said: dict[str, Any] = {"reference": fact["reference"]}
    if not fact["commitment"]:
        said["person_id"] = book.own(event.user_id).id if event.user_id is not None else None
        book.post(event, line, "SPEND", fact["amount"], **said)
        return [line.id]
    kept = book.commitments[id_of(fact, "commitment")]
    said |= {"commitment_id": kept.id, "person_id": kept.person_id}
    book.post(event, line, "SPEND", fact["amount"], **said)
    kept.spent += fact["amount"]
    if not kept.left or fact["final"]:
        book.free(event, kept, "SPENT", event.occurred_at, 0)
    return [line.id]


def refund(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Take back what was spent, in all or in part."""
    fact = event.properties
    line = book.lines[id_of(fact, "line")]
    said: dict[str, Any] = {"reverses": id_of(fact, "entry"), "person_id": id_of(fact, "person") if fact["person"] else None}
    said["reference"] = fact["reference"]
    book.post(event, line, "REFUND", fact["amount"], cap_day=date.fromisoformat(fact["capDay"]), **said)
    return [line.id]


def transfer(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Move money from one line to another."""
    fact = event.properties
    giver, taker = book.lines[id_of(fact, "from")], book.lines[id_of(fact, "to")]
    book.move(event, giver, taker, fact["amount"], reference=fact["reference"])
    return [giver.id, taker.id]


def reallocate(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Move money to where it earns more."""
    changes = {id_of(move, "line"): move["change"] for move in event.properties["moves"]}
    for place, (giver, taker, amount) in enumerate(pairs(changes)):
        book.move(event, book.lines[giver], book.lines[taker], amount, place)
    return list(changes)


def cost(book: Book, event: LogEvent) -> list[uuid.UUID]:
    """Let what an event cost count, on the line that pays for it; announce it where none does, once there are budgets at all."""
    amount = cost_of(book, event)
    rule = book.rules.cost_of(event.type)
    if not amount or rule is None:
        return []
    line = book.payer(event, rule.category) if amount <= LARGEST else None
    if line is None and not (book.begun or book.budgets):
        return []
    if line is None:
        said = {"amount": amount, "currency": event.currency or book.rules.currency, "type": event.type}
        book.announcements.append(Announcement(UNASSIGNED, event, None, said))
        return []
    person_id = book.own(event.user_id).id if event.user_id is not None else None
    book.sweep(event, [line.id])
    book.post(event, line, "SPEND", amount, person_id=person_id)
    return [line.id]


def cost_of(book: Book, event: LogEvent) -> int | None:
    """What an event cost in minor units, if it says so; it may be more than any line can pay."""
    rule = book.rules.cost_of(event.type)
    if rule is None:
        return None
    said = event.amount_minor if rule.cost == AMOUNT else event.properties.get(rule.cost)
    return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None


def named(fact: Mapping[str, Any]) -> Iterable[uuid.UUID]:
    """The lines that a fact is about."""
    said = [fact.get("line"), fact.get("from"), fact.get("to")]
    said += [part.get("line") for name in ("lines", "moves") for part in fact.get(name, ())]
    return [uuid.UUID(key) for key in said if key]


FACTS: dict[str, Callable[[Book, LogEvent], list[uuid.UUID]]] = {
    CREATED: create,
    UPDATED: update,
    CLOSED: close,
    EXPLAINED: explain,
    COMMITTED: commit,
    RELEASED: release,
    SPENT: spend,
    REFUNDED: refund,
    TRANSFERRED: transfer,
    REALLOCATED: reallocate,
}
"""What decisions say, and how each is applied; each tells the lines whose funds or spending it changed."""
