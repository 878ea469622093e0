"""What merging, parting and erasing people does to their alerts; and what is kept of one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, Tx, global_id, hookimpl, insert_rows, upsert

from .desk import Desk, ScopeRow, sleep
from .machine import Alert
from .models import alerts, held, moves, people, scopes, transitions
from .people import scope_place
from .rules import RiskRules

When = TypeVar("When", date, datetime)


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: RiskRules) -> int:
    """Let the survivor have the absorbed person's alerts; where both have one of a rule open, the survivor's goes on."""
    desk = Desk(tx, event, rules, event.occurred_at).load(scopes.c.user_id.in_([kept, absorbed]))
    for scope in [scope for scope in desk.scopes.values() if scope.user_id == absorbed]:
        mine = desk.scope(scope.rule_key, {"user": global_id("User", kept)}, kept)
        if scope.alert_id is not None and mine.alert_id is not None:
            desk.end(scope, "merged with another alert of the same person")
        else:
            _hand_over(desk, scope, mine)
    desk.store()
    theirs = [row.id for row in tx.rows(sa.select(alerts.c.id).where(alerts.c.user_id == absorbed).order_by(alerts.c.id))]
    insert_rows(tx, moves, [{"merge_id": event.id, "alert_id": alert} for alert in theirs])
    tx.execute(sa.update(alerts).where(alerts.c.user_id == absorbed).values(user_id=kept))
    _note(tx, absorbed, kept)
    return len(theirs)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: RiskRules) -> int:
    """Give the absorbed person's alerts back; what opened since stays with the survivor."""
    theirs = [row.alert_id for row in tx.rows(sa.select(moves.c.alert_id).where(moves.c.merge_id == merge))]
    desk = Desk(tx, event, rules, event.occurred_at).load(scopes.c.user_id.in_([kept, absorbed]))
    for scope in [scope for scope in desk.scopes.values() if scope.alert_id in theirs and scope.user_id == kept]:
        _hand_over(desk, scope, desk.scope(scope.rule_key, {"user": global_id("User", absorbed)}, absorbed))
    desk.store()
    tx.execute(sa.update(alerts).where(alerts.c.id.in_(theirs), alerts.c.user_id == kept).values(user_id=absorbed))
    tx.execute(sa.delete(moves).where(moves.c.merge_id == merge))
    _note(tx, absorbed, absorbed)
    return len(theirs)


def _hand_over(desk: Desk, scope: ScopeRow, to: ScopeRow) -> None:
    """Give a scope's open alert to another that has none, and what is remembered; of two snoozes the later one holds."""
    asleep = _later(scope.snoozed_until, to.snoozed_until)
    alert = desk.alerts.get(scope.alert_id) if scope.alert_id is not None else None
    if to.alert_id is None and alert is not None:
        to.keep(replace(scope.machine, settled=_later(scope.settled, to.settled)))
        to.alert_id, alert.scope_key, alert.scope = alert.id, to.scope_key, to.scope
    else:
        to.settled, to.fired = _later(scope.settled, to.settled), sorted({*scope.fired, *to.fired})
    if asleep is not None and desk.now < asleep and asleep != to.snoozed_until:
        sleep(desk, to, asleep, None, "snoozed before the merge")
    scope.alert_id = None
    scope.keep(Alert())


def _later(one: When | None, other: When | None) -> When | None:
    return max((when for when in (one, other) if when is not None), default=None)


def _note(tx: HandlerTx, user: uuid.UUID, holder: uuid.UUID, *, erased: bool = False) -> None:
    row = {"holder_id": holder, "erased": erased}
    tx.execute(upsert(tx, people).values(user_id=user, **row).on_conflict_do_update(index_elements=["user_id"], set_=row))


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """End what is open, forget what was written about it, and let the rest go on under the pseudonym."""
    desk = Desk(tx, event, RiskRules(), event.occurred_at).load(scopes.c.user_id == user)
    for scope in desk.scopes.values():
        desk.end(scope, "the person was erased")
    desk.store()
    theirs = sa.select(alerts.c.id).where(alerts.c.user_id == user)
    tx.execute(sa.delete(held).where(held.c.alert_id.in_(theirs)))
    written = transitions.c.actor.is_not(None)
    tx.execute(sa.update(transitions).where(transitions.c.alert_id.in_(theirs), written).values(comment=None))
    tx.execute(sa.delete(scopes).where(scopes.c.user_id == user))
    key = scope_place("", pseudonym)[1]
    tx.execute(sa.update(alerts).where(alerts.c.user_id == user).values(user_id=pseudonym, scope_key=key, scope={}))
    _note(tx, user, pseudonym, erased=True)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many alerts hang on a person."""
    return int(tx.scalar(sa.select(sa.func.count()).where(alerts.c.user_id == user)))


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> dict[str, Sequence[Mapping[str, Any]]]:
    """A person's alerts and what happened to them, oldest first."""
    own = sa.select(alerts.c.id).where(alerts.c.user_id == user)
    asked = {
        "alerts": sa.select(alerts).where(alerts.c.user_id == user).order_by(alerts.c.started_at, alerts.c.id),
        "timeline": sa.select(transitions)
        .where(transitions.c.alert_id.in_(own))
        .order_by(transitions.c.at, transitions.c.alert_id, transitions.c.number),
    }
    return {kind: [_plain(row._mapping) for row in tx.rows(statement)] for kind, statement in asked.items()}


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, uuid.UUID):
            said[str(name)] = value.hex
        else:
            said[str(name)] = value.isoformat() if isinstance(value, date) else value
    return said
