"""Decisions: what a caller must be answered at once, recorded and applied in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from scrm.audit import audit
from scrm.db import Database, Tx, new_id
from scrm.errors import PluginFailedError, ScrmError, UserError
from scrm.events.consumers import PAUSED, Consumer, out_of_turn_row
from scrm.events.handling import EVENT_COLUMNS, Applying, event_of, give, is_trouble, reading
from scrm.events.log import Entry, append, digest_of, owners, share_owners
from scrm.events.models import consumers, events, out_of_turn
from scrm.events.records import Event
from scrm.plugin import Decision, Fact, Rules
from scrm.users.service import find_users, user_erased

SOURCE = "mutation:"
"""A decision's event has the source `mutation:<name of the decision>`."""

_KEY_LENGTH = 200
_LOCK_KEY = sa.text("select pg_advisory_xact_lock(hashtextextended(:key, 0))")


@dataclass(frozen=True, slots=True)
class Decided:
    """The fact of a decision; `repeated` where the key had decided it before."""

    event_id: uuid.UUID
    properties: Mapping[str, Any]
    repeated: bool
    user_id: uuid.UUID | None
    occurred_at: datetime


async def decide(
    db: Database, consumer: Consumer, decision: Decision, input: Mapping[str, Any], *, key: str, at: datetime, actor: str
) -> Decided | UserError:
    """Decide once per `key`: the first fact again for the same input, the plugin's refusal as it is.

    Raises:
        ScrmError: the key was used for another input, the plugin does not take decisions now, or the person was erased.
        PluginFailedError: its code failed; nothing has happened.
    """
    return await db.write(decide_in, consumer, decision, input, key=key, at=at, actor=actor)


def decide_in(
    tx: Tx,
    consumer: Consumer,
    decision: Decision,
    input: Mapping[str, Any],
    *,
    key: str,
    at: datetime,
    actor: str,
    asked: Mapping[str, Any] | None = None,
) -> Decided | UserError:
    """The same inside a transaction that other decisions share. Who gets a `UserError` after another decision must roll back.

    `asked` is the input as the caller said it, which is what a key is compared by: people may have been merged since.
    """
    source, digest = f"{SOURCE}{decision.name}", digest_of(dict(input if asked is None else asked))
    if not key or len(key) > _KEY_LENGTH or "\x00" in key:
        raise ScrmError("INVALID_KEY", f"an idempotency key has 1 to {_KEY_LENGTH} characters", path=("idempotencyKey",))
    share_owners(tx)
    cursor, backfill_to = _place(tx, consumer)
    if tx.dialect != "sqlite":
        tx.execute(_LOCK_KEY, {"key": f"{source}\x1f{key}"})
    known = tx.row(sa.select(*EVENT_COLUMNS, events.c.digest).where(events.c.source == source, events.c.external_id == key))
    if known is not None:
        return _again(event_of(known), known.digest == digest, key)
    rules = consumer.timeline(tx).latest
    fact = _ask(tx, consumer, decision, input, rules, at)
    if isinstance(fact, UserError):
        return fact
    entry = _entry(tx, consumer, decision, fact, source=source, key=key, digest=digest, at=at)
    append(tx, [entry])
    scope = Applying(tx, consumer, after=cursor, backfill_to=backfill_to, at=at)
    try:
        give(consumer, scope, [(_event(entry), rules)])
    except ScrmError:
        raise
    except BaseException as error:
        if is_trouble(error):
            raise
        raise PluginFailedError(consumer.name, f"the handler of {decision.event_type}") from error
    scope.close()
    # Written last: of two decisions that want the same rows the second gets here when the first is over, so `n` is their order.
    tx.execute(sa.insert(out_of_turn).values(out_of_turn_row(consumer.name, entry.id, cursor)))
    audit(tx, actor, f"decision.{decision.name}", entry.id.hex, {"plugin": consumer.name}, at=at)
    return Decided(entry.id, entry.properties, False, entry.user_id, at)


def _place(tx: Tx, consumer: Consumer) -> tuple[int, int]:
    """The cursor, which stays where it is until the transaction ends, and where history ended when the plugin was enabled."""
    row = tx.row(
        sa.select(consumers.c.cursor, consumers.c.state, consumers.c.reason, consumers.c.backfill_to)
        .where(consumers.c.plugin == consumer.name)
        .with_for_update(read=True)
    )
    if row is None:
        raise ScrmError("PLUGIN_NOT_READY", f"plugin {consumer.name} has no place in the log yet; run scrm db upgrade")
    if row.state == PAUSED:
        raise ScrmError("PLUGIN_PAUSED", f"plugin {consumer.name} is paused ({row.reason}); try again when it runs")
    return row.cursor, row.backfill_to


def _again(event: Event, same: bool, key: str) -> Decided:
    if not same:
        message = f"idempotency key {key} was used for another input; use a new key for a new request"
        raise ScrmError("IDEMPOTENCY_CONFLICT", message, path=("idempotencyKey",), params={"key": key})
    return Decided(event.id, event.properties, True, event.user_id, event.occurred_at)


def _ask(
    tx: Tx, consumer: Consumer, decision: Decision, input: Mapping[str, Any], rules: Rules, at: datetime
) -> Fact | UserError:
    try:
        with consumer.around((), tx.end_statement):
            said: object = decision.decide(reading(tx, consumer.indicators), input, rules, at)
    except ScrmError:
        raise
    except BaseException as error:
        if is_trouble(error):
            raise
        raise PluginFailedError(consumer.name, f"the decision {decision.name}") from error
    if not isinstance(said, Fact | UserError):
        what = f"the decision {decision.name}, which returned a {type(said).__name__} and no Fact or UserError"
        raise PluginFailedError(consumer.name, what)
    return said


def _entry(
    tx: Tx, consumer: Consumer, decision: Decision, fact: Fact, *, source: str, key: str, digest: str, at: datetime
) -> Entry:
    owner = fact.user_id
    if owner is not None:
        known = owners(tx, [owner])
        if owner in known and not find_users(tx, [owner]):
            raise user_erased(owner, ("userId",))
        owner = known.get(owner, owner)
    return Entry(
        id=new_id(),
        type=decision.event_type,
        user_id=owner,
        channel_id=fact.channel_id,
        occurred_at=at,
        received_at=at,
        business_date=at.astimezone(consumer.zone).date(),
        amount_minor=fact.amount_minor,
        currency=fact.currency,
        properties=dict(fact.properties),
        source=source,
        external_id=key,
        late=False,
        digest=digest,
    )


def _event(entry: Entry) -> Event:
    """The decision's event as its handler sees it: it has no position yet."""
    return Event(
        id=entry.id,
        position=0,
        type=entry.type,
        user_id=entry.user_id,
        channel_id=entry.channel_id,
        occurred_at=entry.occurred_at,
        received_at=entry.received_at,
        business_date=entry.business_date,
        amount_minor=entry.amount_minor,
        currency=entry.currency,
        properties=entry.properties,
        source=entry.source,
        external_id=entry.external_id,
    )
