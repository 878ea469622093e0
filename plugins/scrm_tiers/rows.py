"""The plugin's rows: reading those that a batch touches, and writing what became of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    FoundRows,
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

from .book import PAID, REFUNDED, Account, Book, Order, Person, came_at
from .models import accounts, days, orders, tasks, transition_values, transitions
from .periods import last_review, opens_after
from .rules import EARNED, METRICS, TiersRules

CHANGING = ("tier", "since", "valid_until", "pin", "pinned_until", "failures", "changes", "announced", "seen_on", "reviewed_on")

_ACCOUNT = [accounts.c[each.name] for each in fields(Account)]
_DAY = [days.c[name] for name in ("account_id", "counted_on", "known_on", *METRICS)]


@dataclass
class Loaded:
    """A book with its rows as they were found."""

    book: Book
    rows: FoundRows = field(default_factory=FoundRows)

    @classmethod
    def of(cls, tx: Tx, rules: TiersRules, first: Mapping[uuid.UUID, LogEvent]) -> Loaded:
        """These people, each with a row; `first` is the event that opens one for somebody new."""
        loaded = cls(Book(rules, load_people(tx, first, rules)))
        loaded.rows.keep(person.main for person in loaded.book.people.values())
        return loaded

    def store(self, tx: HandlerTx) -> None:
        """Write what is new and what changed, and announce it."""
        book = self.book
        self.rows.store(tx, accounts, [person.main for person in book.people.values()], CHANGING)
        kept = ("account_id", "counted_on", "paid", "refunded", "refunded_on", "points")
        self.rows.store(tx, orders, book.orders.values(), kept)
        store_days(tx, book)
        done = [{"account_id": key[0], "task": key[1], "day": key[2], "times": times} for key, times in book.done.items()]
        _add(tx, tasks, ["account_id", "task", "day"], ["times"], done)
        store_moves(tx, book)


def store_days(tx: Tx, book: Book) -> None:
    """Add what was counted."""
    keys = ("account_id", "counted_on", "known_on")
    rows = [dict(zip((*keys, *METRICS), (*key, *values), strict=True)) for key, values in book.counted.items()]
    _add(tx, days, keys, METRICS, rows)


def store_moves(tx: HandlerTx, book: Book) -> None:
    """Write down which levels changed, and announce it."""
    insert_rows(tx, transitions, book.transitions)
    insert_rows(tx, transition_values, book.values)
    for announcement in book.announcements:
        tx.announce(announcement)


def _add(tx: Tx, table: sa.Table, keys: Sequence[str], numbers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        insert = upsert(tx, table)
        more = {name: table.c[name] + insert.excluded[name] for name in numbers}
        tx.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=more), list(rows))


def load(tx: Tx, batch: Sequence[LogEvent], rules: TiersRules) -> Loaded:
    """Everybody these events are about, with a row for those who are new, and the orders and tasks they speak of."""
    first = {event.user_id: event for event in reversed(batch) if event.user_id is not None}
    loaded = Loaded.of(tx, rules, first)
    keys = {(event.user_id, event.order_id) for event in batch if event.type in (PAID, REFUNDED, EARNED) and event.user_id}
    if keys:
        loaded.book.orders = load_orders(tx, sorted(keys))
        loaded.rows.keep(loaded.book.orders.values())
    if any(task.fits(event.type, event.properties) for task in rules.tasks for event in batch):
        load_times(tx, loaded.book)
    return loaded


def load_people(tx: Tx, first: Mapping[uuid.UUID, LogEvent], rules: TiersRules) -> dict[uuid.UUID, Person]:
    """People by who they are, their accounts locked in the order of their ids; `first` is the event that opens one."""
    held = load_accounts(tx, first)
    known = {account.user_id for account in held}
    new = [user for user in sorted(first) if user not in known]
    if new:
        insert = upsert(tx, accounts).on_conflict_do_nothing(index_elements=["user_id"])
        tx.execute(insert, [as_row(_opened(user, first[user], rules)) for user in new])
        held = load_accounts(tx, first)
    people = {account.user_id: Person(account) for account in held if account.user_id == account.holder_id}
    whose = {}
    for account in held:
        whose[account.id] = people[account.holder_id]
        people[account.holder_id].held.append(account)
    oldest = min((account.reviewed_on for account in held if account.user_id == account.holder_id), default=date.max)
    counted = days.c.counted_on > opens_after(rules.window, oldest - timedelta(days=1))
    said = sa.select(*_DAY).where(among(days.c.account_id, list(whose)), counted)
    for row in tx.rows(said):
        account_id, counted_on, known_on, spend, count, points, growth = tuple(row)
        whose[account_id].days[account_id, counted_on, known_on] = spend, count, points, growth
    return people


def _opened(user: uuid.UUID, event: LogEvent, rules: TiersRules) -> Account:
    seen_on, reviewed_on = rules.day(event.occurred_at), last_review(rules.review, rules.day(came_at(event)))
    return Account(derive_id(event.id, "account", user.hex), user, user, seen_on, reviewed_on)


def load_accounts(tx: Tx, users: Iterable[uuid.UUID]) -> list[Account]:
    """The accounts that these people hold, locked in the order of their ids."""
    mine = sa.select(*_ACCOUNT).where(among(accounts.c.holder_id, sorted(users)))
    return [Account(*tuple(row)) for row in tx.rows(mine.order_by(accounts.c.id).with_for_update())]


def load_orders(tx: Tx, keys: Sequence[tuple[uuid.UUID, str]]) -> dict[tuple[uuid.UUID, str], Order]:
    """Orders by who holds their account and their id; of two with one id the one that was paid comes first, then the own."""
    said = row_set(tx, "said", {"holder": Id, "key": Text}, [{"holder": user, "key": key} for user, key in keys])
    joined = sa.join(said, accounts, accounts.c.holder_id == said.c.holder).join(
        orders, sa.and_(orders.c.account_id == accounts.c.id, orders.c.order_id == said.c.key)
    )
    rows = tx.rows(sa.select(accounts.c.holder_id, accounts.c.user_id, orders).select_from(joined).order_by(orders.c.id))
    found: dict[tuple[uuid.UUID, str], Order] = {}
    for row in sorted(rows, key=lambda row: (row.paid == 0, row.user_id != row.holder_id)):
        known = {name: value for name, value in row._mapping.items() if name not in ("holder_id", "user_id")}
        found.setdefault((row.holder_id, row.order_id), Order(**known))
    return found


def load_times(tx: Tx, book: Book) -> None:
    """How often tasks were counted for everybody in the book."""
    whose = {account.id: person.main.user_id for person in book.people.values() for account in person.held}
    for row in tx.rows(sa.select(tasks).where(among(tasks.c.account_id, list(whose)))):
        times = book.times.setdefault((whose[row.account_id], row.task), {})
        times[row.day] = times.get(row.day, 0) + row.times
