"""Load the rows that a batch touches, fold its events, store what changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    EVERY,
    FoundRows,
    Handler,
    HandlerTx,
    Id,
    LogEvent,
    Text,
    Tx,
    among,
    as_row,
    derive_id,
    insert_rows,
    row_set,
    upsert,
)

from .book import Book, Budget, Commitment, Line, Person, Revenue, campaign_in, campaign_of
from .events import CLOSED, COMMITTED, EXPLAINED, RELEASED
from .facts import FACTS, cost, cost_of, id_of, named
from .models import budgets, commitments, crossings, earned, lines, people, revenue, sources
from .rules import BudgetRules

PAID, REFUNDED = "order.paid", "order.refunded"
OWN = ("mutation:", "job:", "plugin:")
"""What plugins say comes from such sources; nobody outside can record it."""
OF_ONE_LINE = (COMMITTED, RELEASED, EXPLAINED)
"""Facts that change no line's funds or spending, so that the other lines of the budget need not be looked at."""


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: BudgetRules) -> None:
    """Keep the books of what was decided and of what something cost; follow what people come through and what they pay."""
    wanted = [event for event in batch if _concerns(event, rules)]
    if not wanted:
        return
    loaded = load(tx, wanted, rules)
    for event in wanted:
        apply(loaded.book, event)
    loaded.store(tx)


handler = Handler((*FACTS, PAID, REFUNDED, EVERY), follow)


def _concerns(event: LogEvent, rules: BudgetRules) -> bool:
    if event.type in FACTS:
        return True
    if event.source.startswith(OWN) or event.type.startswith("budget."):
        return False
    return event.type in (PAID, REFUNDED) or event.type in rules.touches or rules.cost_of(event.type) is not None


def apply(book: Book, event: LogEvent) -> None:
    """Apply one event to the book."""
    if event.type in FACTS:
        book.sweep(event, named(event.properties))
        book.settle(event, FACTS[event.type](book, event))
        return
    if event.user_id is not None:
        if event.type in (PAID, REFUNDED):
            if event.amount_minor and event.amount_minor > 0:
                book.order(event, event.user_id, 1 if event.type == PAID else -1)
        elif event.type in book.rules.touches:
            book.touch(event, event.user_id)
    book.settle(event, cost(book, event))


@dataclass
class Loaded:
    """A book with its rows as they were found."""

    book: Book
    rows: FoundRows = field(default_factory=FoundRows)
    sources: dict[uuid.UUID, dict[str, uuid.UUID | None]] = field(default_factory=dict)

    def keep(self) -> None:
        """Remember every row as it is."""
        book = self.book
        held = (person for own in book.people.values() for person in own)
        known = (one for own in book.orders.values() for one in own)
        self.rows.keep((*book.budgets.values(), *book.lines.values(), *book.commitments.values(), *held, *known))
        self.sources = {key: dict(said) for key, said in book.sources.items()}

    def store(self, tx: HandlerTx) -> None:
        """Write what is new and what changed, and announce it."""
        book = self.book
        self.rows.store(tx, people, [own[0] for own in book.people.values()], ("touched_at", "channel_id", "campaign"))
        self.rows.store(tx, budgets, book.budgets.values(), ("name", "closed_on"))
        changing = ("planned", "allocated", "carrying", "committed", "spent", "policy", "cap_per_day", "cap_per_user")
        self.rows.store(tx, lines, book.lines.values(), (*changing, "expected_roi", "cause", "note"))
        self._store_sources(tx)
        self.rows.store(tx, commitments, book.commitments.values(), ("spent", "released", "state", "resolved_at"))
        book.journal.store(tx)
        insert_rows(tx, crossings, book.crossings)
        known = {one.id: one for own in book.orders.values() for one in own}
        self.rows.store(tx, revenue, known.values(), ("known", "channel_id", "campaign"))
        self._store_earned(tx)
        for announcement in book.announcements:
            tx.announce(announcement)

    def _store_earned(self, tx: Tx) -> None:
        rows = []
        for (day, currency, channel_id, campaign), amount in sorted(self.book.earned.items(), key=str):
            touch = f"{channel_id.hex if channel_id is not None else ''} {campaign if campaign is not None else ''}"
            said = {"day": day, "currency": currency, "touch": touch, "channel_id": channel_id, "campaign": campaign}
            rows.append({**said, "amount": amount})
        if rows:
            insert = upsert(tx, earned)
            more = {"amount": earned.c.amount + insert.excluded["amount"]}
            tx.execute(insert.on_conflict_do_update(index_elements=["day", "currency", "touch"], set_=more), rows)

    def _store_sources(self, tx: Tx) -> None:
        changed = {key: said for key, said in self.book.sources.items() if said != self.sources.get(key, {})}
        if changed:
            tx.execute(sa.delete(sources).where(among(sources.c.line_id, list(changed))))
            said = [(line_id, key, channel) for line_id, own in changed.items() for key, channel in own.items()]
            insert_rows(tx, sources, [dict(zip(("line_id", "key", "channel_id"), row, strict=True)) for row in said])


def load(tx: HandlerTx, batch: Sequence[LogEvent], rules: BudgetRules) -> Loaded:
    """What these events touch: lines locked in the order of their ids, people opened where they are new."""
    loaded = Loaded(Book(rules))
    book = loaded.book
    load_people(tx, book, {event.user_id: event for event in reversed(batch) if event.user_id is not None})
    load_orders(tx, book, batch)
    load_touches(tx, book, batch)
    facts = [event for event in batch if event.type in FACTS]
    paying = _paying(batch, book)
    if paying:
        book.begun = tx.row(sa.select(budgets.c.id).limit(1)) is not None
    if facts or paying:
        chosen = sorted({key for event in facts for key in named(event.properties)})
        of_budgets = sa.select(budgets.c.id).where(sa.or_(_whole_budgets(facts), *paying))
        alone = not paying and all(event.type in OF_ONE_LINE for event in facts)
        load_lines(tx, book, sa.or_(among(lines.c.id, chosen), lines.c.budget_id.in_(of_budgets)), alone=alone)
        load_commitments(tx, book, batch)
    loaded.keep()
    return loaded


def _whole_budgets(facts: Sequence[LogEvent]) -> sa.ColumnElement[bool]:
    """Budgets of which every line is needed: those whose funds or spending change, and those that others follow."""
    changing = [event.properties for event in facts if event.type not in OF_ONE_LINE]
    said = {id_of(fact, name) for fact in changing for name in ("budget", "previous") if fact.get(name)}
    return among(budgets.c.id, sorted(said))


def _paying(batch: Sequence[LogEvent], book: Book) -> list[sa.ColumnElement[bool]]:
    """Budgets that may pay for what events of the batch cost."""
    days = [book.day(event) for event in batch if event.type not in FACTS and cost_of(book, event)]
    return [sa.and_(budgets.c.opens_on <= max(days), budgets.c.ends_on > min(days))] if days else []


def load_lines(tx: Tx, book: Book, wanted: sa.ColumnElement[bool], *, alone: bool) -> None:
    """Lines with those that follow them, their budgets with those before, what they name and have crossed; or they `alone`."""
    known = _lock_lines(tx, book, wanted)
    if not known or alone:
        return
    while known:
        known = _lock_lines(tx, book, among(lines.c.previous_id, known))
    own = sorted({line.budget_id for line in book.lines.values()})
    before = sa.select(budgets.c.previous_id).where(among(budgets.c.id, own))
    for row in tx.rows(sa.select(budgets).where(sa.or_(among(budgets.c.id, own), budgets.c.id.in_(before)))):
        book.budgets[row.id] = Budget(**row._mapping)
    for row in tx.rows(sa.select(sources).where(among(sources.c.line_id, list(book.lines)))):
        book.sources.setdefault(row.line_id, {})[row.key] = row.channel_id
    for row in tx.rows(sa.select(crossings).where(among(crossings.c.budget_id, own))):
        book.crossed.add((row.budget_id, row.line_id, row.percent))


def _lock_lines(tx: Tx, book: Book, wanted: sa.ColumnElement[bool]) -> list[uuid.UUID]:
    """Lock lines, in the order of their ids; which of them are new to the book."""
    rows = tx.rows(sa.select(lines).where(wanted).order_by(lines.c.id).with_for_update())
    new = {row.id: Line(**row._mapping) for row in rows if row.id not in book.lines}
    book.lines |= new
    return list(new)


def load_commitments(tx: Tx, book: Book, batch: Sequence[LogEvent]) -> None:
    """Commitments that are named, those whose time is over by the last of these events, and all of a budget that is closed."""
    if not book.lines:
        return
    chosen = [uuid.UUID(said) for event in batch if event.type in FACTS and (said := event.properties.get("commitment"))]
    last = sa.literal(max(event.received_at for event in batch), commitments.c.expires_at.type)
    closing = [id_of(event.properties, "budget") for event in batch if event.type == CLOSED]
    closed = [line.id for line in book.lines.values() if line.budget_id in closing]
    over = sa.and_(among(commitments.c.line_id, list(book.lines)), commitments.c.expires_at <= last)
    opened = sa.and_(commitments.c.state == "OPEN", sa.or_(over, among(commitments.c.line_id, closed)))
    for row in tx.rows(sa.select(commitments).where(sa.or_(opened, among(commitments.c.id, chosen)))):
        book.commitments[row.id] = Commitment(**row._mapping)


def load_people(tx: Tx, book: Book, first: Mapping[uuid.UUID, LogEvent]) -> None:
    """The accounts of these people; `first` is the event that opens one for who is new."""
    if not first:
        return
    found = held_by(tx, first)
    known = {person.user_id for person in found}
    new = [user for user in sorted(first) if user not in known]
    if new:
        opened = [Person(derive_id(first[user].id, "person", user.hex), user, user) for user in new]
        tx.execute(upsert(tx, people).on_conflict_do_nothing(index_elements=["user_id"]), [as_row(one) for one in opened])
        found = held_by(tx, first)
    for person in sorted(found, key=lambda one: (one.user_id != one.holder_id, one.id)):
        book.people.setdefault(person.holder_id, []).append(person)


def held_by(tx: Tx, users: Iterable[uuid.UUID]) -> list[Person]:
    """The accounts that these people hold, locked in the order of their ids."""
    statement = sa.select(people).where(among(people.c.holder_id, sorted(users))).order_by(people.c.id).with_for_update()
    return [Person(**row._mapping) for row in tx.rows(statement)]


def load_touches(tx: HandlerTx, book: Book, batch: Sequence[LogEvent]) -> None:
    """The last touch before each order that comes after a newer one, which is the only one that an account remembers."""
    newest: dict[uuid.UUID, datetime] = {}
    late = []
    for event in batch:
        user = event.user_id
        if user is None:
            continue
        if event.type in book.rules.touches:
            newest[user] = max(newest.get(user, event.occurred_at), event.occurred_at)
        elif event.type == PAID and campaign_of(event) is None:
            known = [newest.get(user), *(one.touched_at for one in book.people[user])]
            if any(at is not None and at > event.occurred_at for at in known):
                late.append(event)
    if not late:
        return
    window = timedelta(days=book.rules.attribution_days)
    until = replace(late[-1], occurred_at=max(event.occurred_at for event in late))
    users = sorted({event.user_id for event in late if event.user_id is not None})
    log = tx.history(book.rules.touches, until=until, users=users, since=min(event.occurred_at for event in late) - window)
    said = sa.select(log.c.user_id, log.c.position, log.c.occurred_at, log.c.channel_id, log.c.properties)
    touched: dict[uuid.UUID, list[sa.Row[Any]]] = {}
    for row in tx.rows(said.order_by(log.c.occurred_at, log.c.position)):
        touched.setdefault(row.user_id, []).append(row)
    for event in late:
        since = event.occurred_at - window
        before = [row for row in touched.get(event.user_id or event.id, ()) if row.position < event.position]
        found = [(row.channel_id, campaign_in(row.properties)) for row in before if since <= row.occurred_at <= event.occurred_at]
        book.earlier[event.id] = next((one for one in reversed(found) if one != (None, None)), None)


def load_orders(tx: Tx, book: Book, batch: Sequence[LogEvent]) -> None:
    """What is known of the orders that these events speak of, by who holds their account and their id."""
    spoken = [event for event in batch if event.type in (PAID, REFUNDED) and event.user_id is not None]
    keys = sorted({(event.user_id, event.order_id) for event in spoken if event.user_id is not None})
    if not keys:
        return
    said = row_set(tx, "said", {"holder": Id, "key": Text}, [{"holder": user, "key": key} for user, key in keys])
    joined = sa.join(said, people, people.c.holder_id == said.c.holder).join(
        revenue, sa.and_(revenue.c.person_id == people.c.id, revenue.c.order_id == said.c.key)
    )
    for row in tx.rows(sa.select(people.c.holder_id, revenue).select_from(joined).order_by(revenue.c.occurred_at, revenue.c.id)):
        known = {name: value for name, value in row._mapping.items() if name != "holder_id"}
        book.orders.setdefault((row.holder_id, row.order_id), []).append(Revenue(**known))
