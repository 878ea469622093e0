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
from scrm.events.log import SHARING, Entry, append, digest_of, owner_since
from scrm.events.models import consumers, events, out_of_turn
from scrm.events.records import Event
from scrm.events.rules import config_source, last_change
from scrm.plugin import Decision, Fact, Rules
from scrm.users.service import user_erased

SOURCE = "mutation:"
"""A decision's event has the source `mutation:<name of the decision>`."""

_KEY_LENGTH = 200
# Built once: to build a statement costs more than to run it. The locks are taken, and the cursor stays where it is, until the
# transaction ends; what the second statement sees was committed before that.
_PLACE = sa.select(consumers.c.cursor, consumers.c.state, consumers.c.reason, consumers.c.backfill_to).where(
    consumers.c.plugin == sa.bindparam("name")
)
_PLACE_LOCKED = _PLACE.add_columns(
    SHARING, sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(sa.bindparam("key", type_=sa.Text()), 0))
).with_for_update(read=True)
_one = sa.select(sa.literal(1).label("one")).subquery()
_KNOWN = sa.select(*EVENT_COLUMNS, events.c.digest, last_change(sa.bindparam("config")).label("configured")).select_from(
    _one.outerjoin(events, sa.and_(events.c.source == sa.bindparam("source"), events.c.external_id == sa.bindparam("key")))
)
_OUT_OF_TURN = sa.insert(out_of_turn)


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
    cursor, backfill_to = _place(tx, consumer, f"{source}\x1f{key}")
    known = tx.rows(_KNOWN, {"source": source, "key": key, "config": config_source(consumer.name)})[0]
    if known.id is not None:
        return _again(event_of(known), known.digest == digest, key)
    rules = consumer.rules_of(tx, known.configured)
    fact = _ask(tx, consumer, decision, input, rules, at)
    if isinstance(fact, UserError):
        return fact
    entry = _entry(tx, consumer, decision, fact, cursor, source=source, key=key, digest=digest, at=at)
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
    tx.execute(_OUT_OF_TURN, out_of_turn_row(consumer.name, entry.id, cursor))
    audit(tx, actor, f"decision.{decision.name}", entry.id.hex, {"plugin": consumer.name}, at=at)
    return Decided(entry.id, entry.properties, False, entry.user_id, at)


def _place(tx: Tx, consumer: Consumer, key: str) -> tuple[int, int]:
    """The cursor and where history ended when the plugin was enabled; whoever decides by the same key waits from here on."""
    lite = tx.dialect == "sqlite"
    row = tx.row(_PLACE if lite else _PLACE_LOCKED, {"name": consumer.name} if lite else {"name": consumer.name, "key": key})
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
    tx: Tx, consumer: Consumer, decision: Decision, fact: Fact, cursor: int, *, source: str, key: str, digest: str, at: datetime
) -> Entry:
    owner = fact.user_id
    present = owner_since(tx, owner, cursor) if owner is not None else None
    if owner is not None and present is not None:
        if present.erased:
            raise user_erased(owner, ("userId",))
        if present.moved and consumer.follows_people:
            said = f"plugin {consumer.name} has not followed yet what this person was merged with or parted from"
            raise ScrmError("PLUGIN_BEHIND", f"{said}; ask again in a moment", params={"plugin": consumer.name})
        owner = present.id
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
