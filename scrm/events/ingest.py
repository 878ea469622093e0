"""Getting events in: one way for every door, batch by batch, an answer for every item."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from scrm.audit import audit
from scrm.db import Database, Tx
from scrm.errors import ScrmError, UserError
from scrm.events.checks import Checked, Checker, IngestSettings, reserved
from scrm.events.log import Entry, NumberedTwiceError, append, find_events, lock_owners, new_ids, share_owners
from scrm.events.models import event_types
from scrm.events.owners import Claim, IdentityKey, MergeNeededError, Terms, find_channels, find_known, resolve
from scrm.events.records import LikeNewEvent, RecordResult, RecordStatus
from scrm.events.sequencer import Nudge
from scrm.plugin import EventType
from scrm.users.service import erased_users, find_unions, find_users, user_erased

BATCH = 500
"""How many events are written in one transaction."""

_ATTEMPTS = 8
_LOST_RACES = frozenset({"40P01", "40001"})
_NO_LOCK = "55P03"
_CUSTOM_PLANS = sa.text("select set_config('plan_cache_mode', 'force_custom_plan', true)")
_WAIT_SHORTLY = sa.text("select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('lock_timeout', '1s', true)")


class BulkErrorPolicy(StrEnum):
    """What one bad item does to the others."""

    REJECT_EVERYTHING = "REJECT_EVERYTHING"
    REJECT_FAILED_ROWS = "REJECT_FAILED_ROWS"


@dataclass(frozen=True, slots=True)
class Undecoded:
    """An item of which a door could make no event; it is answered in its place among the others."""

    errors: tuple[UserError, ...]


Item = LikeNewEvent | Undecoded
Stored = tuple[uuid.UUID, str]
"""An event's id and the digest of what its caller said."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that are recorded in one transaction: those that may be, and what is wrong with the others by index. `unregistered`
    are the types among them of which only the database may know whose they are."""

    at: datetime
    size: int
    checked: tuple[Checked, ...]
    rejected: Mapping[int, tuple[UserError, ...]]
    all_or_nothing: bool
    create_users: bool
    first: int = 0
    actor: str | None = None
    unregistered: frozenset[str] = frozenset()


class _RefusedError(Exception):
    """A batch that is all or nothing, and is nothing."""

    def __init__(self, results: list[RecordResult]) -> None:
        super().__init__()
        self.results = results


class _AgainError(Exception):
    """Somebody else recorded one of the keys meanwhile, after something was made for it."""


class Ingest:
    """Records events. `types` are those that core and plugins registered, by name."""

    def __init__(self, db: Database, settings: IngestSettings, types: Mapping[str, EventType]) -> None:
        self._db = db
        self._settings = settings
        self._checker = Checker(settings, types)
        self._nudge = Nudge(db)

    async def record(
        self,
        items: Sequence[Item],
        *,
        policy: str = BulkErrorPolicy.REJECT_FAILED_ROWS,
        create_users: bool = True,
        first: int = 0,
        actor: str | None = None,
    ) -> list[RecordResult]:
        """Record the items in their order and answer each; when it returns, what it accepted is committed.

        Batches of 500 are committed one after the other; with `REJECT_EVERYTHING` all items are one. An identity that nobody has
        becomes a user, unless `create_users` is False. `first` is the index of the first item, for a door that calls it in
        parts; with an
        `actor`, an audit line says who sent what was accepted.
        """
        policy = BulkErrorPolicy(policy)
        size = len(items) if policy is BulkErrorPolicy.REJECT_EVERYTHING else BATCH
        results: list[RecordResult] = []
        for start in range(0, len(items), size or 1):
            part = items[start : start + size]
            batch = self._check(part, first + start, policy is BulkErrorPolicy.REJECT_EVERYTHING, create_users, actor)
            results.extend(await self._write(batch))
        if any(result.status is RecordStatus.ACCEPTED for result in results):
            await self._nudge()
        return results

    async def record_all(
        self, parts: AsyncIterator[Sequence[Item]], *, create_users: bool = True, actor: str | None = None
    ) -> AsyncGenerator[list[RecordResult]]:
        """Record what comes in parts of at most `BATCH`, in its order, and answer part by part: while one is written, the next is
        read and checked.

        What was begun is ended and answered before an error of reading is raised.
        """
        writing: asyncio.Task[list[RecordResult]] | None = None
        nudging: set[asyncio.Task[None]] = set()
        index = 0
        try:
            try:
                async for items in parts:
                    batch = self._check(items, index, False, create_users, actor)
                    index += len(items)
                    if writing is not None:
                        done, writing = writing, None
                        yield await self._settled(done, nudging)
                    writing = asyncio.create_task(self._write(batch))
                    await asyncio.sleep(0)  # it begins before the next part is read
            except ScrmError:
                if writing is not None:
                    done, writing = writing, None
                    yield await self._settled(done, nudging)
                raise
            if writing is not None:
                done, writing = writing, None
                yield await self._settled(done, nudging)
        finally:
            left = {*nudging, *([writing] if writing is not None else [])}
            if left:
                await asyncio.wait(left)

    async def _settled(self, writing: asyncio.Task[list[RecordResult]], nudging: set[asyncio.Task[None]]) -> list[RecordResult]:
        results = await writing
        if any(result.status is RecordStatus.ACCEPTED for result in results):
            task = asyncio.create_task(self._nudge())
            nudging.add(task)
            task.add_done_callback(nudging.discard)
        return results

    def _check(self, items: Sequence[Item], first: int, all_or_nothing: bool, create_users: bool, actor: str | None) -> Batch:
        at = self._db.clock()
        checked: list[Checked] = []
        rejected: dict[int, tuple[UserError, ...]] = {}
        for index, item in enumerate(items, first):
            answer = item.errors if isinstance(item, Undecoded) else self._checker.check(index, item, at)
            if isinstance(answer, Checked):
                checked.append(answer)
            else:
                rejected[index] = answer
        unregistered = frozenset(item.type for item in checked if not self._checker.knows(item.type))
        return Batch(at, len(items), tuple(checked), rejected, all_or_nothing, create_users, first, actor, unregistered)

    async def _write(self, batch: Batch) -> list[RecordResult]:
        if batch.all_or_nothing and batch.rejected:
            return _refused(batch, batch.rejected)
        if not batch.checked:
            return _results(batch, {}, batch.rejected)
        exclusive, number = False, True
        for attempt in range(_ATTEMPTS):
            terms = Terms(batch.at, self._settings.zone, self._settings.auto_merge, exclusive)
            try:
                return await self._db.write(record_batch, batch, terms, number=number)
            except _RefusedError as refused:
                return refused.results
            except MergeNeededError:
                exclusive = True
            except _AgainError:
                pass
            except NumberedTwiceError:
                number = False
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in (_LOST_RACES | {_NO_LOCK} if number else _LOST_RACES) or attempt == _ATTEMPTS - 1:
                    raise
                number = number and state != _NO_LOCK
        raise RuntimeError(f"a batch of {batch.size} events did not settle in {_ATTEMPTS} attempts")


def record_batch(tx: Tx, batch: Batch, terms: Terms, *, number: bool = False) -> list[RecordResult]:
    """Write one batch in the caller's transaction, which ends then; with `number` as `append` does it."""
    (lock_owners if terms.exclusive else share_owners)(tx)
    if tx.dialect != "sqlite":
        # A plan kept from when the log was small would read all of it for every batch. And who keeps the others from being
        # numbered does not wait long for somebody else.
        tx.execute(_WAIT_SHORTLY if number else _CUSTOM_PLANS)
    owned = _owned(tx, batch.unregistered)
    recording = _Recording(tx, batch, terms, number)
    recording.rejected.update((item.index, (reserved(item.type),)) for item in batch.checked if item.type in owned)
    waiting: Sequence[Checked] = [item for item in batch.checked if item.type not in owned]
    while waiting:
        waiting = recording.round(waiting)
    if batch.all_or_nothing and recording.rejected:
        raise _RefusedError(_refused(batch, recording.rejected))
    accepted = sum(status is RecordStatus.ACCEPTED for status, _ in recording.answers.values())
    if batch.actor is not None and accepted:
        audit(tx, batch.actor, "events.recorded", None, {"accepted": accepted}, at=batch.at)
    return _results(batch, recording.answers, {**batch.rejected, **recording.rejected})


def _owned(tx: Tx, types: frozenset[str]) -> frozenset[str]:
    """Those of these types that are the own facts of a plugin that does not run here."""
    if not types:
        return frozenset()
    statement = sa.select(event_types.c.type).where(event_types.c.own, event_types.c.type.in_(sorted(types)))
    return frozenset(row.type for row in tx.rows(statement))


@dataclass(slots=True)
class _Recording:
    """One batch on its way into the log."""

    tx: Tx
    batch: Batch
    terms: Terms
    number: bool
    answers: dict[int, tuple[RecordStatus, uuid.UUID]] = field(default_factory=dict)
    rejected: dict[int, tuple[UserError, ...]] = field(default_factory=dict)
    settled: dict[tuple[str, str], Stored] = field(default_factory=dict)

    def round(self, items: Sequence[Checked]) -> list[Checked]:
        """Answer the first item of every key; returns the others that another round must answer."""
        leaders: dict[tuple[str, str], Checked] = {}
        followers = [item for item in items if leaders.setdefault(item.key, item) is not item]
        self._write(_Round(self.tx, list(leaders.values())))
        waiting: dict[tuple[str, str], list[Checked]] = {}
        for item in followers:
            leader = leaders[item.key]
            if item.key in self.settled:
                self._repeat(item, self.settled[item.key])
            elif item.digest == leader.digest and item.key not in waiting:
                self.rejected[item.index] = self.rejected[leader.index]
            else:
                waiting.setdefault(item.key, []).append(item)
        return list(itertools.chain.from_iterable(waiting.values()))

    def _write(self, said: _Round) -> None:
        items: Sequence[Checked] = said.items
        problems, news = said.look(self.batch.create_users)
        if problems or news:
            items = self._answer_known(items, problems)
            if not news.isdisjoint(item.key for item in items):
                said.settle(resolve(self.tx, said.claims(items), self.terms))
        for item, appended in zip(items, append(self.tx, said.entries(items, self.batch.at), number=self.number), strict=True):
            if appended.inserted:
                self.answers[item.index] = RecordStatus.ACCEPTED, appended.event_id
                self.settled[item.key] = appended.event_id, appended.digest
            elif problems or news:
                # A user may have been made for an event that is another's by now.
                raise _AgainError
            else:
                self._repeat(item, (appended.event_id, appended.digest))

    def _answer_known(self, items: Sequence[Checked], problems: Mapping[int, tuple[UserError, ...]]) -> list[Checked]:
        """Answer what is recorded already and what must be refused; returns the rest. A repeat comes first: it makes nobody."""
        stored = find_events(self.tx, [item.key for item in items])
        rest = []
        for item in items:
            if item.key in stored:
                self._repeat(item, stored[item.key])
            elif item.index in problems:
                self.rejected[item.index] = problems[item.index]
            else:
                rest.append(item)
        if self.batch.all_or_nothing and self.rejected:
            raise _RefusedError(_refused(self.batch, self.rejected))
        return rest

    def _repeat(self, item: Checked, stored: Stored) -> None:
        self.settled[item.key] = stored
        if stored[1] == item.digest:
            self.answers[item.index] = RecordStatus.DUPLICATE, stored[0]
            return
        source, external_id = item.key
        said = f'the key "{external_id}" of {source} is another event\'s; send the content it had, or a key of its own'
        params = {"source": source, "externalId": external_id}
        self.rejected[item.index] = (UserError("IDEMPOTENCY_CONFLICT", said, ("externalId",), params),)


class _Round:
    """What some items say, and what the database knows of it."""

    def __init__(self, tx: Tx, items: Sequence[Checked]) -> None:
        self._tx = tx
        self.items = items
        named = {item.channel for item in items} | {item.identity[0] for item in items if item.identity is not None}
        self._channels = find_channels(tx, [key for key in named if key is not None])
        users = {item.user_id for item in items if item.user_id is not None}
        self._users = find_users(tx, list(users)) if users else {}
        self._erased = erased_users(tx, users - self._users.keys())
        said = {item.identity: None for item in items if item.identity is not None and item.identity[0] in self._channels}
        known = find_known(tx, [(self._channels[key], external_id) for key, external_id in said])
        self._known = {identity: found for identity, found in zip(said, known, strict=True) if found is not None}
        self._owners = {identity: found.user_id for identity, found in self._known.items()}

    def look(self, create_users: bool) -> tuple[dict[int, tuple[UserError, ...]], set[tuple[str, str]]]:
        """What is wrong with items, by index, and the keys of those for which users or identities must change first."""
        problems: dict[int, tuple[UserError, ...]] = {}
        news: set[tuple[str, str]] = set()
        strangers = []
        for item in self.items:
            if item.channel is not None and item.channel not in self._channels:
                problems[item.index] = _unknown_channel(item.channel, ("channel",))
            if item.identity is None:
                if item.user_id is not None and item.user_id not in self._users:
                    problems[item.index] = (*problems.get(item.index, ()), self._no_user(item.user_id))
                continue
            known = self._known.get(item.identity)
            if known is None and item.identity[0] not in self._channels:
                problems[item.index] = _unknown_channel(item.identity[0], ("identity", "channel"))
            elif known is None or (item.union_id is not None and item.union_id != known.union_id):
                news.add(item.key)
                if known is None and not create_users:
                    strangers.append(item)
        if strangers:
            unions = find_unions(self._tx, [item.union_id for item in strangers if item.union_id is not None])
            problems.update((item.index, _unknown_identity(item)) for item in strangers if item.union_id not in unions)
        return problems, news

    def _no_user(self, user_id: uuid.UUID) -> UserError:
        return user_erased(user_id, ("userId",)).as_user_error() if user_id in self._erased else _unknown_user(user_id)

    def claims(self, items: Iterable[Checked]) -> list[Claim]:
        """What these items say of people."""
        claims = []
        for item in items:
            if item.identity is not None and item.channel is not None:
                root = self._channels[item.identity[0]]
                identity = root.root_id, item.identity[1]
                claims.append(Claim(identity, item.union_id, root.root_key, self._channels[item.channel].id))
        return claims

    def settle(self, owners: Mapping[IdentityKey, uuid.UUID]) -> None:
        """Take over who everybody is, now that it is known."""
        for item in self.items:
            if item.identity is not None and item.identity[0] in self._channels:
                owner = owners.get((self._channels[item.identity[0]].root_id, item.identity[1]))
                if owner is not None:
                    self._owners[item.identity] = owner

    def entries(self, items: Sequence[Checked], at: datetime) -> list[Entry]:
        """The items as they go into the log."""
        users, owners, channels = self._users, self._owners, self._channels
        return [
            Entry(
                id=event_id,
                type=item.type,
                user_id=owners[item.identity] if item.identity is not None else users[item.user_id] if item.user_id else None,
                channel_id=channels[item.channel].id if item.channel is not None else None,
                occurred_at=item.occurred_at,
                received_at=at,
                business_date=item.business_date,
                amount_minor=item.amount_minor,
                currency=item.currency,
                properties=item.properties,
                source=item.key[0],
                external_id=item.key[1],
                late=item.late,
                digest=item.digest,
            )
            for item, event_id in zip(items, new_ids(len(items)), strict=True)
        ]


def _unknown_channel(key: str, path: tuple[str, ...]) -> tuple[UserError, ...]:
    said = f'there is no channel "{key}"; create it, or name one that is there'
    return (UserError("UNKNOWN_CHANNEL", said, path, {"channel": key}),)


def _unknown_user(user_id: uuid.UUID) -> UserError:
    said = f"there is no user User_{user_id.hex}; name one that is there, or an identity"
    return UserError("UNKNOWN_USER", said, ("userId",))


def _unknown_identity(item: Checked) -> tuple[UserError, ...]:
    channel = item.identity[0] if item.identity is not None else None
    said = f"nobody on the channel {channel} has this identity; create the user first, or allow createUsers"
    return (UserError("UNKNOWN_IDENTITY", said, ("identity",), {"channel": channel}),)


def _results(
    batch: Batch, answers: Mapping[int, tuple[RecordStatus, uuid.UUID]], rejected: Mapping[int, tuple[UserError, ...]]
) -> list[RecordResult]:
    results = []
    for index in range(batch.first, batch.first + batch.size):
        if index in rejected:
            results.append(RecordResult(index, RecordStatus.REJECTED, None, rejected[index]))
        else:
            results.append(RecordResult(index, *answers[index]))
    return results


def _refused(batch: Batch, rejected: Mapping[int, tuple[UserError, ...]]) -> list[RecordResult]:
    others = (UserError("BATCH_REJECTED", "another event of this batch was rejected, so nothing of it is recorded"),)
    indexes = range(batch.first, batch.first + batch.size)
    return [RecordResult(index, RecordStatus.REJECTED, None, rejected.get(index, others)) for index in indexes]
