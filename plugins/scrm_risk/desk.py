"""The alerts that an event touches: rows, what the machine makes of them, their timeline, and who is told."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    Announcement,
    HandlerTx,
    LogEvent,
    Tx,
    among,
    derive_id,
    insert_rows,
    instant_text,
    update_rows,
)

from .events import CHANGED
from .machine import OPEN, Act, Alert, Failed, Sample, State, act, awake, reopened, snooze, step
from .models import alerts, scopes, transitions
from .rules import SEVERITIES, RiskRules, Rule

NOBODY = uuid.UUID(int=0)
SHOWN_SCOPES = ("channel", "user")


def rule_id(key: str) -> uuid.UUID:
    """A rule's id: the same wherever it has that key."""
    return derive_id(NOBODY, "rule", key)


def scope_key(scope: Mapping[str, Any]) -> str:
    """A scope as a word: empty for all together."""
    return next((f"{name}:{scope[name]}" for name in SHOWN_SCOPES if name in scope), "")


@dataclass
class ScopeRow:
    """One rule in one scope."""

    rule_key: str
    scope_key: str
    scope: Mapping[str, Any]
    user_id: uuid.UUID | None = None
    state: str = State.INACTIVE
    alert_id: uuid.UUID | None = None
    snoozed_until: datetime | None = None
    held_at: datetime | None = None
    fired: list[str] = field(default_factory=list)
    fired_on: date | None = None
    settled: date | None = None
    newest: date | None = None
    problem: str | None = None

    @property
    def machine(self) -> Alert:
        """What the machine knows."""
        fired = tuple(datetime.fromisoformat(at) for at in self.fired)
        return Alert(State(self.state), self.snoozed_until, self.held_at, fired, self.fired_on, self.settled)

    def keep(self, alert: Alert) -> None:
        """Take over what the machine made of it."""
        self.state, self.snoozed_until, self.held_at = alert.state.value, alert.snoozed_until, alert.held_at
        self.fired, self.fired_on, self.settled = [instant_text(at) for at in alert.fired], alert.fired_on, alert.settled


@dataclass
class AlertRow:
    """One alert."""

    id: uuid.UUID
    rule_id: uuid.UUID
    rule_key: str
    scope_key: str
    scope: Mapping[str, Any]
    user_id: uuid.UUID | None
    state: str
    severity: str
    reason: str
    started_at: datetime
    value: float | None = None
    threshold: float | None = None
    fired_at: datetime | None = None
    due_at: datetime | None = None
    breached_at: datetime | None = None
    escalations: int = 0
    assignee: str | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    resolved_at: datetime | None = None
    snoozed_until: datetime | None = None
    phase: str = "DETECT"
    points: int = 0
    changes: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen of a rule in a scope: the sample for the machine, and what is shown of it."""

    seen: Sample | Failed
    value: Fraction | None = None
    limit: Fraction | None = None
    reason: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    at: datetime | None = None
    """As of when, if it is not as of the evaluation: a period passed since the last one."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell: FIRING, ESCALATED or RESOLVED."""

    alert: AlertRow
    what: str


def plain(row: ScopeRow | AlertRow) -> dict[str, Any]:
    """A row by the names of its columns."""
    return {each.name: getattr(row, each.name) for each in fields(row)}


ALERT_CHANGING = tuple(each.name for each in fields(AlertRow) if each.name not in ("id", "rule_id", "rule_key", "started_at"))
SCOPE_CHANGING = tuple(each.name for each in fields(ScopeRow) if each.name not in ("rule_key", "scope_key"))


class Desk:
    """Alerts at work: load, change, store."""

    def __init__(self, tx: HandlerTx, event: LogEvent, rules: RiskRules, now: datetime) -> None:
        self.tx, self.event, self.rules, self.now = tx, event, rules, now
        self.scopes: dict[tuple[str, str], ScopeRow] = {}
        self.alerts: dict[uuid.UUID, AlertRow] = {}
        self.notices: list[Notice] = []
        self.timeline: list[dict[str, Any]] = []
        self.announced: list[Announcement] = []
        self._before: dict[tuple[str, str] | uuid.UUID, ScopeRow | AlertRow] = {}

    def load(self, *conditions: sa.ColumnElement[bool]) -> Desk:
        """Take up scopes with their open alerts, locked in the order of their keys. What is at work already stays as it is."""
        statement = sa.select(scopes).where(*conditions).order_by(scopes.c.rule_key, scopes.c.scope_key).with_for_update()
        for row in self.tx.rows(statement):
            place = row.rule_key, row.scope_key
            if place not in self.scopes:
                self.scopes[place], self._before[place] = ScopeRow(**row._mapping), ScopeRow(**row._mapping)
        self.load_alerts([scope.alert_id for scope in self.scopes.values() if scope.alert_id is not None])
        return self

    def load_alerts(self, ids: Sequence[uuid.UUID]) -> None:
        """Take up these alerts too; one that is at work already stays as it is."""
        for alert in read_alerts(self.tx, [each for each in ids if each not in self.alerts]):
            self.alerts[alert.id], self._before[alert.id] = alert, replace(alert)

    def scope(self, key: str, scope: Mapping[str, Any], user: uuid.UUID | None = None) -> ScopeRow:
        """A rule in a scope, new unless it is there."""
        place = key, scope_key(scope)
        if place not in self.scopes:
            self.scopes[place] = ScopeRow(*place, scope, user)
        return self.scopes[place]

    def feed(self, key: str, rule: Rule, scope: ScopeRow, reading: Reading) -> None:
        """Let the machine see a reading, and write down what it makes of it."""
        self.wake(rule, scope)
        scope.problem = reading.problem
        before = scope.machine
        after = step(before, reading.seen, reading.at or self.now, rule.policy)
        alert = self.alerts[scope.alert_id] if scope.alert_id is not None else None
        if before.state is State.INACTIVE and after.state in OPEN:
            alert = self._open(key, rule, scope, reading)
        if alert is not None and isinstance(reading.seen, Sample) and reading.value is not None and reading.seen.holds:
            self._show(alert, reading)
        if after.state is not before.state and alert is not None:
            self._move(rule, scope, alert, before, after, reading)
        scope.keep(reopened(after))

    def _open(self, key: str, rule: Rule, scope: ScopeRow, reading: Reading) -> AlertRow:
        number = sum(alert.rule_key == key and alert.scope_key == scope.scope_key for alert in self.alerts.values())
        made = AlertRow(
            derive_id(self.event.id, "alert", key, scope.scope_key, str(number)),
            rule_id(key),
            key,
            scope.scope_key,
            scope.scope,
            scope.user_id,
            State.PENDING.value,
            rule.severity,
            json.dumps(reading.reason, ensure_ascii=False, sort_keys=True),
            self.now,
            snoozed_until=scope.snoozed_until,
            assignee=rule.assignee,
        )
        self.alerts[made.id] = made
        scope.alert_id = made.id
        return made

    def _show(self, alert: AlertRow, reading: Reading) -> None:
        alert.value = float(reading.value) if reading.value is not None else None
        alert.threshold = float(reading.limit) if reading.limit is not None else None
        alert.reason = json.dumps(reading.reason, ensure_ascii=False, sort_keys=True)

    def _move(self, rule: Rule, scope: ScopeRow, alert: AlertRow, before: Alert, after: Alert, reading: Reading) -> None:
        comment = None
        if isinstance(reading.seen, Sample) and reading.seen.late:
            comment = f"late data for {reading.seen.period.isoformat()}"
        if after.state is State.FIRING:
            self._fire(rule, alert)
        value = float(reading.value) if reading.value is not None else None
        if after.state is State.RESOLVED:
            alert.reason = json.dumps({**json.loads(alert.reason), "over": reading.reason}, ensure_ascii=False, sort_keys=True)
            self.close(scope, alert, before.shown(self.now), value=value, comment=comment)
        else:
            shown = before.shown(self.now).value if before.state is not State.INACTIVE else None
            self.write(alert, shown, after.state, after.shown(self.now), value=value, comment=comment)
        if after.state is State.FIRING and after.shown(self.now) is State.FIRING:
            self.notices.append(Notice(alert, "FIRING"))

    def _fire(self, rule: Rule, alert: AlertRow) -> None:
        alert.fired_at, alert.severity = self.now, rule.severity
        alert.points = self.rules.user_points[rule.severity]
        alert.due_at = self.due(alert)

    def due(self, alert: AlertRow) -> datetime | None:
        """When it has to be acknowledged: so long after it fired, or after it was snoozed."""
        hours = self.rules.hours(alert.severity)
        start = max(self.now, alert.snoozed_until or self.now)
        return start + timedelta(hours=hours) if hours is not None else None

    def wake(self, rule: Rule | None, scope: ScopeRow) -> None:
        """Take off a snooze that is over; it ended when it ended, whenever that is noticed."""
        until = scope.snoozed_until
        if until is None or self.now < until:
            return
        scope.keep(awake(scope.machine, self.now))
        alert = self.alerts.get(scope.alert_id) if scope.alert_id is not None else None
        if alert is not None:
            alert.snoozed_until = None
            self.write(alert, State.SNOOZED.value, State(scope.state), State(scope.state), at=until)
            if scope.state == State.FIRING:
                self.notices.append(Notice(alert, "FIRING"))

    def close(
        self,
        scope: ScopeRow,
        alert: AlertRow,
        before: State,
        *,
        actor: str | None = None,
        value: float | None = None,
        comment: str | None = None,
    ) -> None:
        """End an alert."""
        alert.resolved_at, scope.alert_id = self.now, None
        self.write(alert, before.value, State.RESOLVED, State.RESOLVED, actor=actor, value=value, comment=comment)
        if alert.fired_at is not None:
            self.notices.append(Notice(alert, "RESOLVED"))

    def end(self, scope: ScopeRow, comment: str) -> None:
        """End whatever is open in a scope that is not watched any more."""
        if scope.alert_id is not None:
            self.close(scope, self.alerts[scope.alert_id], scope.machine.shown(self.now), comment=comment)
        scope.keep(Alert(snoozed_until=scope.snoozed_until))

    def write(
        self,
        alert: AlertRow,
        before: str | None,
        state: State,
        shown: State,
        *,
        at: datetime | None = None,
        actor: str | None = None,
        value: float | None = None,
        comment: str | None = None,
    ) -> None:
        """A line of the timeline, and the announcement of it."""
        alert.state = state.value
        alert.changes += 1
        moment = at or self.now
        row: dict[str, Any] = {
            "id": derive_id(self.event.id, "transition", alert.id.hex, str(alert.changes)),
            "alert_id": alert.id,
        }
        row |= {"number": alert.changes, "at": moment, "from_state": before, "to_state": shown.value, "phase": alert.phase}
        self.timeline.append({**row, "actor": actor, "value": value, "comment": comment, "event_id": self.event.id})
        said: dict[str, Any] = {
            "alert": alert.id.hex,
            "rule": alert.rule_key,
            "scope": dict(alert.scope),
            "from": before,
            "to": shown.value,
        }
        said |= {"severity": alert.severity, "value": alert.value, "at": instant_text(moment)}
        self.announced.append(Announcement(CHANGED, self.event, alert.user_id, said, key=f"{alert.id.hex}:{alert.changes}"))

    def note(self, alert: AlertRow, actor: str, comment: str | None) -> None:
        """A line of the timeline where the state stays."""
        asleep = alert.snoozed_until is not None and self.now < alert.snoozed_until and alert.state in OPEN
        shown = State.SNOOZED if asleep else State(alert.state)
        self.write(alert, shown.value, State(alert.state), shown, actor=actor, comment=comment)

    def escalate(self) -> None:
        """Raise what nobody acknowledged in time; each due time that is missed counts once."""
        for alert in self.alerts.values():
            asleep = alert.snoozed_until is not None and self.now < alert.snoozed_until
            missed = alert.due_at is not None and alert.due_at < self.now and alert.due_at != alert.breached_at
            if alert.state != State.FIRING or asleep or not missed:
                continue
            alert.breached_at, comment = alert.due_at, "overdue"
            place = SEVERITIES.index(alert.severity)
            if self.rules.escalation == "RAISE":
                alert.escalations += 1
                alert.assignee = self.rules.escalate_to or alert.assignee
                if place < len(SEVERITIES) - 1:
                    comment = f"overdue, {alert.severity} → {SEVERITIES[place + 1]}"
                    alert.severity = SEVERITIES[place + 1]
                    alert.due_at = self.due(alert)
            self.write(alert, State.FIRING.value, State.FIRING, State.FIRING, comment=comment)
            self.notices.append(Notice(alert, "ESCALATED"))

    def store(self) -> None:
        """Write what changed and what is new, in this order: a scope has one open alert at a time. And announce it."""
        before = self._before
        old = [plain(alert) for key, alert in self.alerts.items() if key in before and alert != before[key]]
        update_rows(self.tx, alerts, ALERT_CHANGING, old)
        insert_rows(self.tx, alerts, [plain(alert) for key, alert in self.alerts.items() if key not in before])
        insert_rows(self.tx, scopes, [plain(scope) for place, scope in self.scopes.items() if place not in before])
        for place, scope in self.scopes.items():
            if place in before and scope != before[place]:
                here = sa.and_(scopes.c.rule_key == place[0], scopes.c.scope_key == place[1])
                self.tx.execute(sa.update(scopes).where(here).values({name: getattr(scope, name) for name in SCOPE_CHANGING}))
        insert_rows(self.tx, transitions, self.timeline)
        for announcement in self.announced:
            self.tx.announce(announcement)


def read_alerts(tx: Tx, ids: Iterable[uuid.UUID]) -> list[AlertRow]:
    """These alerts, locked in the order of their ids."""
    wanted = sorted(set(ids))
    if not wanted:
        return []
    statement = sa.select(alerts).where(among(alerts.c.id, wanted)).order_by(alerts.c.id)
    return [AlertRow(**row._mapping) for row in tx.rows(statement.with_for_update())]


def act_on(desk: Desk, alert_id: uuid.UUID, what: Act, actor: str, comment: str | None) -> None:
    """Do what a person said to an open alert."""
    desk.load(scopes.c.alert_id == alert_id)
    for scope in desk.scopes.values():
        alert = desk.alerts[alert_id]
        before = scope.machine
        after = act(before, what, desk.now, scope.newest or desk.rules.day(desk.now))
        if after is None:
            continue
        shown = before.shown(desk.now)
        if what is Act.RESOLVE:
            desk.close(scope, alert, shown, actor=actor, comment=comment)
        else:
            after = Alert(after.state, None, after.held_at, after.fired, after.fired_on, after.settled)
            alert.acknowledged_at, alert.acknowledged_by, alert.snoozed_until = desk.now, actor, None
            alert.phase = "ASSESS" if alert.phase == "DETECT" else alert.phase
            desk.write(alert, shown.value, after.state, after.state, actor=actor, comment=comment)
        scope.keep(reopened(after))


def put_to_sleep(desk: Desk, key: str, said: Mapping[str, Any], until: datetime, actor: str, comment: str | None) -> None:
    """Tell nobody of a rule in a scope before an instant."""
    place = scope_key(said)
    desk.load(scopes.c.rule_key == key, scopes.c.scope_key == place)
    user = uuid.UUID(str(said["user"]).removeprefix("User_")) if "user" in said else None
    scope = desk.scope(key, said, user)
    sleep(desk, scope, until, actor, comment)


def sleep(desk: Desk, scope: ScopeRow, until: datetime, actor: str | None, comment: str | None) -> None:
    """Tell nobody of a scope before an instant; what has to be acknowledged is due so much later."""
    before = scope.machine.shown(desk.now)
    scope.keep(snooze(scope.machine, until))
    alert = desk.alerts.get(scope.alert_id) if scope.alert_id is not None else None
    if alert is not None:
        alert.snoozed_until = until
        if alert.state == State.FIRING:
            alert.due_at = desk.due(alert)
        desk.write(alert, before.value, State(alert.state), State.SNOOZED, actor=actor, comment=comment)
