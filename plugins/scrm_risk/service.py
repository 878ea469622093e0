"""Alerts and rules as SQL on their rows, and the decisions on them. `alert`, `rule` and `user` have `.c`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    NOW,
    Fact,
    Instant,
    ScrmError,
    Tx,
    UserError,
    among,
    channels,
    global_id,
    instant_text,
    known_indicators,
    node_id,
    of_moment,
    users,
)

from .book import read_rules
from .desk import AlertRow, ScopeRow, read_alerts
from .evaluation import last_evaluation, samples_of, take_turn
from .machine import OPEN, Act, Alert, may
from .models import alerts, scopes
from .models import rules as rules_table
from .rules import SEVERITIES, RiskRules, check_key, parse_rule

PHASES = ("DETECT", "ASSESS", "RESPOND", "COMMUNICATE", "MONITOR", "REVIEW")
REMEMBERED = timedelta(days=90)
"""So long what is over adds to a person's risk."""
SINCE = of_moment("risk_since", Instant(), lambda moment: moment.now - REMEMBERED)
OPEN_STATES = tuple(state.value for state in OPEN)


def state(alert: Any) -> sa.ColumnElement[str]:
    """The state as of now: a snooze ends by itself."""
    asleep = sa.and_(alert.c.snoozed_until > NOW, alert.c.state.in_(OPEN_STATES))
    return sa.case((asleep, "SNOOZED"), else_=alert.c.state)


def is_open(alert: Any) -> sa.ColumnElement[bool]:
    """Whether it is not over."""
    return sa.cast(alert.c.resolved_at.is_(None), sa.Boolean())


def breached(alert: Any) -> sa.ColumnElement[bool]:
    """Whether it was, or is, acknowledged later than it was due."""
    responded = sa.func.coalesce(alert.c.acknowledged_at, alert.c.resolved_at, NOW, type_=Instant())
    return sa.cast(
        sa.or_(alert.c.breached_at.is_not(None), sa.func.coalesce(alert.c.due_at < responded, sa.false())), sa.Boolean()
    )


def snoozed_until(alert: Any) -> sa.ColumnElement[datetime]:
    """Until when nobody is told, if that is to come."""
    return sa.case((sa.and_(alert.c.snoozed_until > NOW, alert.c.resolved_at.is_(None)), alert.c.snoozed_until), else_=sa.null())


def about(alert: Any, user: Any) -> sa.ColumnElement[bool]:
    """Whether it is about the user of this key; a merged one's means the survivor."""
    known = users.alias("known")
    survivor = sa.select(known.c.merged_into).where(known.c.id == user).scalar_subquery()
    return sa.cast(alert.c.user_id == sa.func.coalesce(survivor, sa.type_coerce(user, users.c.id.type)), sa.Boolean())


def severity_rank(alert: Any) -> sa.ColumnElement[int]:
    """How heavy it is, WATCH the least."""
    return sa.case(*((alert.c.severity == name, rank) for rank, name in enumerate(SEVERITIES)), else_=0)


def rule_shown(rule: Any) -> sa.ColumnElement[bool]:
    """The rule is in force or could be."""
    return sa.cast(rule.c.removed.is_(False), sa.Boolean())


def _points(row: Any) -> sa.ColumnElement[int]:
    return sa.case((row.resolved_at.is_(None), row.points), else_=row.points / 2)


def _adding(user: Any) -> sa.ColumnElement[bool]:
    lately = sa.or_(alerts.c.resolved_at.is_(None), alerts.c.resolved_at > SINCE)
    return sa.and_(alerts.c.user_id == user.c.id, alerts.c.fired_at.is_not(None), lately)


def user_score(user: Any) -> sa.ColumnElement[int]:
    """The sum of a person's factors."""
    halves = sa.func.coalesce(sa.func.sum(_whole(_points(alerts.c))), 0)
    return sa.cast(sa.select(halves).where(_adding(user)).correlate(None).scalar_subquery(), sa.Integer())


def _whole(points: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.floor(points), sa.Integer())


def user_factors(user: Any) -> sa.Select[Any]:
    """What adds to it: an alert each."""
    joined = alerts.join(rules_table, rules_table.c.id == alerts.c.rule_id)
    columns = (
        alerts.c.id,
        rules_table.c.key,
        rules_table.c.name,
        rules_table.c.names,
        alerts.c.reason,
        alerts.c.fired_at,
        alerts.c.resolved_at,
    )
    return sa.select(*columns, _whole(_points(alerts.c)).label("points")).select_from(joined).where(_adding(user))


# ---- decisions


def evaluate_risks(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Say that rules are evaluated as of an instant.

    Refuses with EVALUATION_IN_THE_FUTURE or EVALUATION_OUT_OF_ORDER.
    """
    take_turn(tx)
    newest = last_evaluation(tx)
    if input["asOf"] is None:  # who asks for now may have waited for one as of a later instant
        as_of = at if newest is None else max(at, newest)
        return _evaluation(tx, as_of, rules)
    as_of = datetime.fromisoformat(input["asOf"])
    said = instant_text(as_of)
    if as_of > at:
        message = f"asOf is {said}, which is to come; nothing is known of it"
        return UserError("EVALUATION_IN_THE_FUTURE", message, ("asOf",), {"asOf": said})
    if newest is not None and as_of < newest:
        message = f"asOf is {said}, and alerts are as of {instant_text(newest)} already; a back-test shows what was before"
        return UserError("EVALUATION_OUT_OF_ORDER", message, ("asOf",), {"asOf": said, "newest": instant_text(newest)})
    return _evaluation(tx, as_of, rules)


def _evaluation(tx: Tx, as_of: datetime, rules: RiskRules) -> Fact:
    samples = samples_of(tx, read_rules(tx) or rules.effective, as_of, rules)
    return Fact(None, {"asOf": instant_text(as_of), "samples": samples})


def acknowledge(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Take an alert on.

    Refuses with ALERT_NOT_FOUND, ALERT_NOT_FIRING, ALERT_ACKNOWLEDGED or ALERT_RESOLVED.
    """
    return _act(tx, input, Act.ACKNOWLEDGE, at)


def resolve(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """End an alert.

    Refuses with ALERT_NOT_FOUND or ALERT_RESOLVED.
    """
    return _act(tx, input, Act.RESOLVE, at)


def _act(tx: Tx, input: Mapping[str, Any], what: Act, at: datetime) -> Fact | UserError:
    take_turn(tx)
    alert = _alert(tx, input["id"])
    if isinstance(alert, UserError):
        return alert
    scope = tx.row(sa.select(scopes).where(scopes.c.alert_id == alert.id).with_for_update())
    machine = ScopeRow(**scope._mapping).machine if scope is not None else Alert()
    if not may(machine, what, at):
        if alert.resolved_at is not None:
            return UserError("ALERT_RESOLVED", f"the alert was over at {instant_text(alert.resolved_at)}", ("id",))
        if alert.acknowledged_at is not None:
            said = f"the alert was acknowledged by {alert.acknowledged_by} at {instant_text(alert.acknowledged_at)}"
            return UserError("ALERT_ACKNOWLEDGED", said, ("id",), {"by": alert.acknowledged_by})
        return UserError("ALERT_NOT_FIRING", f"the alert is {alert.state}; only one that fires can be acknowledged", ("id",))
    return Fact(alert.user_id, {"alert": alert.id.hex, "actor": input["actor"], "comment": input["comment"]})


def _alert(tx: Tx, alert_id: str) -> AlertRow | UserError:
    found = read_alerts(tx, [uuid.UUID(alert_id)])
    return found[0] if found else UserError("ALERT_NOT_FOUND", "there is no such alert", ("id",))


def snooze_alert(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Tell nobody of an alert, or of a rule in a scope, before an instant.

    Refuses with ALERT_NOT_FOUND, ALERT_RESOLVED, RULE_NOT_FOUND, INVALID_SCOPE or INVALID_SNOOZE.
    """
    take_turn(tx)
    until = datetime.fromisoformat(input["until"])
    if until <= at:
        message = f"until is {input['until']}, which has passed; say when it ends"
        return UserError("INVALID_SNOOZE", message, ("until",), {"until": input["until"]})
    said = {"until": input["until"], "actor": input["actor"], "comment": input["comment"]}
    if input["id"] is None:
        known = read_rules(tx)
        if input["rule"] not in known:
            return rule_not_found(input["rule"])
        scope = checked_scope(tx, input["scope"], known[input["rule"]].per)
        whose = node_id("User", scope["user"]) if "user" in scope else None
        return Fact(whose, {"alert": None, "rule": input["rule"], "scope": scope, **said})
    alert = _alert(tx, input["id"])
    if isinstance(alert, UserError):
        return alert
    if alert.resolved_at is not None:
        return UserError("ALERT_RESOLVED", f"the alert was over at {instant_text(alert.resolved_at)}", ("id",))
    return Fact(alert.user_id, {"alert": alert.id.hex, "rule": alert.rule_key, "scope": dict(alert.scope), **said})


def checked_scope(tx: Tx, scope: Any, per: str) -> dict[str, str]:
    """A scope as a caller says it: empty, a channel, or a user.

    Raises:
        ScrmError: INVALID_SCOPE.
    """
    said = scope if scope is not None else {}
    names = set(said) if isinstance(said, dict) else {"?"}
    if names - {"user" if per == "user" else "channel"} or (per == "user" and not names):
        expected = '{"user": "User_…"}' if per == "user" else '{} or {"channel": "KEY"}'
        raise ScrmError("INVALID_SCOPE", f"scope is {scope!r}; for this rule it is {expected}", path=("scope",))
    if "user" in said:
        return {"user": global_id("User", node_id("User", str(said["user"]), ("scope", "user")))}
    if "channel" in said and tx.scalar(sa.select(channels.c.id).where(channels.c.key == str(said["channel"]))) is None:
        raise ScrmError("INVALID_SCOPE", f"scope is {scope!r}, and there is no such channel", path=("scope", "channel"))
    return {name: str(value) for name, value in said.items()}


def advance_alert(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Say that the response came to a later phase.

    Refuses with ALERT_NOT_FOUND or PHASE_NOT_LATER.
    """
    take_turn(tx)
    alert = _alert(tx, input["id"])
    if isinstance(alert, UserError):
        return alert
    now = PHASES.index(alert.phase)
    after = PHASES.index(input["phase"]) if input["phase"] is not None else now + 1
    if not now < after < len(PHASES):
        later = ", ".join(PHASES[now + 1 :]) or "none"
        message = f"the response is in {alert.phase}; phases behind it are {later}"
        return UserError("PHASE_NOT_LATER", message, ("phase",), {"phase": alert.phase})
    said = {"alert": alert.id.hex, "phase": PHASES[after], "actor": input["actor"], "comment": input["comment"]}
    return Fact(alert.user_id, said)


def save_rule(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Write a rule, in place of the one of that key: also of the settings' own, until it is deleted.

    Refuses with INVALID_RULE, or what is wrong with it, or UNKNOWN_INDICATOR or UNKNOWN_CHANNEL.
    """
    take_turn(tx)
    check_key(input["key"])
    rule = parse_rule(input["key"], input["rule"])
    known = known_indicators(tx)
    if rule.indicator not in known:
        message = f"rule {input['key']}: indicator is {rule.indicator!r}; known are {', '.join(sorted(known))}"
        return UserError("UNKNOWN_INDICATOR", message, ("indicator",), {"rule": input["key"]})
    there = {row.key for row in tx.rows(sa.select(channels.c.key).where(among(channels.c.key, rule.channels)))}
    for channel in rule.channels:
        if channel not in there:
            message = f"rule {input['key']}: no channel has the key {channel!r}; the query channels lists them"
            return UserError("UNKNOWN_CHANNEL", message, ("channels",), {"rule": input["key"]})
    return Fact(None, {"key": input["key"], "rule": rule.model_dump(mode="json")})


def delete_rule(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Take a saved rule away.

    Refuses with RULE_NOT_FOUND or RULE_OF_SETTINGS.
    """
    take_turn(tx)
    row = tx.row(sa.select(rules_table).where(rules_table.c.id == uuid.UUID(input["id"])))
    if row is None or row.removed:
        return rule_not_found(input["id"])
    if not row.saved:
        said = "take it out there, or save one in its place with enabled: false"
        message = f"the rule {row.key} is the settings' own, and none is saved in its place; {said}"
        return UserError("RULE_OF_SETTINGS", message, ("id",), {"rule": row.key})
    return Fact(None, {"key": row.key})


def rule_not_found(said: str) -> UserError:
    """There is none of that key."""
    return UserError("RULE_NOT_FOUND", f"there is no rule {said}; riskRules lists them", ("rule",), {"rule": said})


def alert_of_scope(tx: Tx, rule: str, place: str) -> uuid.UUID | None:
    """The open alert of a rule in a scope."""
    found: uuid.UUID | None = tx.scalar(
        sa.select(scopes.c.alert_id).where(scopes.c.rule_key == rule, scopes.c.scope_key == place)
    )
    return found
