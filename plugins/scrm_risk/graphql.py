"""Alerts, rules, people's risk and the register in GraphQL."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import sqlalchemy as sa
import strawberry

from scrm.api import (
    JSON,
    BatchInfo,
    Connection,
    DateTimeFilter,
    Direction,
    Event,
    IndicatorType,
    Node,
    Query,
    User,
    as_node_id,
    batch,
    column,
    enum,
    expression,
    extend,
    filter,
    filter_input,
    many,
    member,
    one,
    order_input,
    ordering,
    rows,
    same_row,
    shown_indicators,
    users,
    where,
)

from . import register as risks
from . import service
from .models import alerts, register, transitions
from .models import rules as rules_table
from .words import explain

READ, WRITE = "risk:read", "risk:write"


@enum(
    "How much an alert or a rule matters, the least first.",
    WATCH="To be watched; nobody has to respond.",
    GENERAL="一般: to be responded to, within 8 hours unless the settings say otherwise.",
    IMPORTANT="重要: within 4 hours.",
    URGENT="紧急: within 2 hours.",
)
class Severity(Enum):
    WATCH = "WATCH"
    GENERAL = "GENERAL"
    IMPORTANT = "IMPORTANT"
    URGENT = "URGENT"


@enum(
    "Where an alert is.",
    PENDING="Its condition holds, and has not for long enough.",
    FIRING="It has held for long enough.",
    ACKNOWLEDGED="Somebody took it on.",
    SNOOZED="Nobody is told before a time; then it is again what it would be.",
    RESOLVED="It is over.",
)
class AlertState(Enum):
    PENDING = "PENDING"
    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    SNOOZED = "SNOOZED"
    RESOLVED = "RESOLVED"


@enum(
    "How far the response to an alert has come.",
    DETECT="It was noticed.",
    ASSESS="It is looked at.",
    RESPOND="Something is done.",
    COMMUNICATE="Those who are concerned are told.",
    MONITOR="It is watched whether that helped.",
    REVIEW="What was learned is written down.",
)
class ResponsePhase(Enum):
    DETECT = "DETECT"
    ASSESS = "ASSESS"
    RESPOND = "RESPOND"
    COMMUNICATE = "COMMUNICATE"
    MONITOR = "MONITOR"
    REVIEW = "REVIEW"


@enum(
    "Of how long periods a rule's values are.",
    DAY="Business days.",
    WEEK="Weeks from Monday.",
    MONTH="Calendar months.",
)
class RulePeriod(Enum):
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


@enum(
    "What a rule watches.",
    ALL="Everybody together, or each of its channels.",
    USER="Each person.",
)
class RulePer(Enum):
    ALL = "all"
    USER = "user"


@enum(
    "How great a risk is, by probability × impact.",
    LOW="1 to 4.",
    MEDIUM="5 to 9.",
    HIGH="10 to 16.",
    EXTREME="20 to 25.",
)
class RiskBand(Enum):
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    EXTREME = "EXTREME"


@enum(
    "What is done about a risk.",
    OPEN="It has to be dealt with.",
    ACCEPTED="It is lived with until a day.",
    CLOSED="It is over.",
)
class RiskStatus(Enum):
    OPEN = "OPEN"
    ACCEPTED = "ACCEPTED"
    CLOSED = "CLOSED"


async def _named(keys: Sequence[tuple[str, str]], info: BatchInfo) -> Mapping[Any, str]:
    """Names in the request's language, where there is one: for `zh-CN` also the one for `zh`."""
    found = {}
    for name, names in keys:
        known = json.loads(names)
        found[name, names] = known.get(info.language) or known.get(info.language.split("-")[0]) or name
    return found


async def _explained(keys: Sequence[str], info: BatchInfo) -> Mapping[Any, str]:
    return {said: explain(json.loads(said), info.language) for said in keys}


async def _watched(keys: Sequence[str], info: BatchInfo) -> Mapping[str, IndicatorType]:
    found: Mapping[str, IndicatorType] = await info.read(shown_indicators, keys)
    return found


@rows(rules_table, scope=READ, public=True)
class RiskRule(Node):
    """What is watched, and when it alerts."""

    key: str = column("Stable key.")
    name: str = batch("Name, in the request's language where there is one.", _named, needs=["name", "names"])
    indicator: IndicatorType = batch("What it watches.", _watched, needs=["indicator"])
    condition: JSON = column("When it holds; its kinds are in the README.")
    severity: Severity = column("How much its alerts matter.")
    for_periods: int = column("For so many periods in a row its condition has to hold.")
    period: RulePeriod = column("Of how long periods its values are.")
    per: RulePer = column("Whether it watches everybody together or each person.")
    playbook: str | None = column("What is to be done when it alerts.")
    assignee: str | None = column("Who is responsible 责任人.")
    enabled: bool = column("Whether it is evaluated.")
    saved: bool = column("Whether a mutation wrote it; else it is the settings'.")


@rows(transitions, scope=READ, public=True)
class AlertTransition:
    """A line of an alert's timeline; never changed."""

    at: dt.datetime = column("When.")
    from_: AlertState | None = column("The state before; null: there was none.", name="from_state")
    to: AlertState = column("The state from then on; the same where only something else changed.", name="to_state")
    phase: ResponsePhase | None = column("How far the response had come.")
    actor: str | None = column("Who did it; null: the evaluation.")
    value: float | None = column("The indicator's value then.")
    comment: str | None = column("What was said of it.")
    event: Event | None = one("The event it follows from.", lambda line, event: event.c.id == line.c.event_id)


@filter_input
class RiskAlertFilter:
    """Which alerts; every field that is given must hold."""

    open: bool | None = where("Whether it is not over.", lambda alert, wanted: service.is_open(alert).is_(wanted), scope=READ)
    state: list[AlertState] | None = where(
        "In one of these states.", lambda alert, states: service.state(alert).in_([each.value for each in states]), scope=READ
    )
    severity: list[Severity] | None = where(
        "Of these.", lambda alert, severities: alert.c.severity.in_([each.value for each in severities]), scope=READ
    )
    rule: list[str] | None = where(
        "Of one of these rules, by key.", lambda alert, keys: member(alert.c.rule_key, keys), scope=READ
    )
    assignee: list[str] | None = where(
        "Of one of these people.", lambda alert, names: member(alert.c.assignee, names), scope=READ
    )
    user: strawberry.ID | None = where(
        "About this user; a merged one's id means its survivor.",
        lambda alert, user: service.about(alert, as_node_id(user, "User")),
        scope=READ,
    )
    breached: bool | None = where(
        "Whether it was acknowledged too late, or is overdue.",
        lambda alert, wanted: service.breached(alert).is_(wanted),
        scope=READ,
    )
    due_at: DateTimeFilter | None = filter("By when it has to be acknowledged.", lambda alert: alert.c.due_at, scope=READ)
    started_at: DateTimeFilter | None = filter("By when it began.", lambda alert: alert.c.started_at, scope=READ)


@order_input
class RiskAlertOrder:
    """What alerts are sorted by."""

    due_at: Direction | None = ordering("By when it has to be acknowledged.", lambda alert: alert.c.due_at, scope=READ)
    severity: Direction | None = ordering("By how much it matters.", service.severity_rank, nullable=False, scope=READ)
    started_at: Direction | None = ordering("By when it began.", lambda alert: alert.c.started_at, nullable=False, scope=READ)


@rows(alerts, scope=READ, owner=lambda alert: alert.c.user_id)
class RiskAlert(Node):
    """A rule's condition that holds, from its first evaluation to its last."""

    rule: RiskRule = one("The rule.", lambda alert, rule: rule.c.id == alert.c.rule_id)
    state: AlertState = expression("Where it is now.", service.state)
    severity: Severity = column("How much it matters; more than the rule says once it was escalated.")
    scope: JSON = column('Of what: `{}` for all together, `{"channel": …}` or `{"user": …}`.')
    user: User | None = one("The person it is about, if it is about one.", lambda alert, user: user.c.id == alert.c.user_id)
    value: float | None = column("The indicator's value when the condition held last; a rate as a share of 1.")
    threshold: float | None = column("The limit, in the same unit.")
    explanation: str = batch(
        "What was seen, when, and what the limit is, in words; and what was seen when it was over.", _explained, needs=["reason"]
    )
    started_at: dt.datetime = column("As of when its condition was first seen to hold.")
    fired_at: dt.datetime | None = column("When it had held for long enough.")
    due_at: dt.datetime | None = column("When it has to be acknowledged; null where nobody has to.")
    breached: bool = expression("Whether it was acknowledged too late, or is overdue.", service.breached)
    escalations: int = column("How often it was escalated.")
    assignee: str | None = column("Who is responsible 责任人.")
    acknowledged_at: dt.datetime | None = column("When somebody took it on.")
    acknowledged_by: str | None = column("Who.")
    resolved_at: dt.datetime | None = column("When it was over.")
    snoozed_until: dt.datetime | None = expression(
        "Until when nobody is told; null where that has passed.", service.snoozed_until
    )
    phase: ResponsePhase = column("How far the response has come.")
    timeline: list[AlertTransition] = many(
        "What became of it, oldest first.",
        lambda alert, line: line.c.alert_id == alert.c.id,
        order=[transitions.c.number],
        cap=1000,
    )


BY_DUE = [alerts.c.due_at.asc().nulls_last(), alerts.c.id]


@rows(None, public=True)
class UserRiskFactor:
    """An alert that adds to a person's risk."""

    key: str = column("Key of the rule.")
    name: str = batch("Name of the rule, in the request's language where there is one.", _named, needs=["name", "names"])
    points: int = column("What it adds; half, rounded down, once it is over.")
    explanation: str = batch("What was seen, in words.", _explained, needs=["reason"])
    fired_at: dt.datetime = column("When it fired.")
    resolved_at: dt.datetime | None = column("When it was over; null: it is open.")


@rows(users, scope=READ, owner=lambda user: user.c.id)
class UserRisk:
    """How risky a person is: the sum of what open alerts and those of the last 90 days add."""

    score: int = expression("The sum of the factors' points.", service.user_score, weight=1)
    factors: list[UserRiskFactor] = many(
        "What it is made of, the newest first.",
        select=service.user_factors,
        order=[sa.column("fired_at", alerts.c.fired_at.type).desc(), sa.column("id", alerts.c.id.type)],
        cap=1000,
    )


@extend(User)
class RiskUser:
    """A user's risk."""

    risk_alerts: Connection[RiskAlert] | None = many(
        "Alerts about the person, by when they are due.",
        lambda user, alert: alert.c.user_id == user.c.id,
        order=BY_DUE,
        filter=RiskAlertFilter,
        order_by=RiskAlertOrder,
        scope=READ,
    )
    risk: UserRisk | None = same_row("How risky the person is.", scope=READ)


@rows(None, public=True)
class RiskScore:
    """A probability and an impact, 1 to 5 each, and their product."""

    probability: int = column("1 to 5.")
    impact: int = column("1 to 5.")
    score: int = column("Their product.")
    band: RiskBand = column("Its band.")


@rows(None, public=True)
class RiskAcceptance:
    """That a risk is lived with."""

    by: str = column("Who accepted it.")
    at: dt.datetime = column("When.")
    until: dt.date = column("The last day on which that holds.")
    reason: str | None = column("Why.")


@rows(register, scope=READ, public=True)
class Risk(Node):
    """A risk of the register 风险清单."""

    key: str = column("Stable key.")
    title: str = column("What may happen.")
    category: str = column("Its category.")
    owner: str = column("Who is responsible 责任人.")
    description: str | None = column("More on it.")
    probability: int = column("How likely it is before anything is done, 1 to 5.")
    impact: int = column("How bad it is, 1 to 5.")
    score: int = expression("Probability × impact.", lambda risk: risk.c.probability * risk.c.impact)
    band: RiskBand = expression("Its band.", lambda risk: risks.band(risk.c.probability * risk.c.impact))
    residual: RiskScore | None = same_row("What is left once something is done.", risks.residual, null_without="probability")
    acceptance: RiskAcceptance | None = same_row("Who lives with it, while that holds.", risks.acceptance, null_without="until")
    status: RiskStatus = expression("What is done about it.", risks.status)
    created_at: dt.datetime = column("When it was written down.")
    updated_at: dt.datetime = column("When it was changed.")


@extend(Query)
class RiskQuery:
    """Alerts, rules and risks to read."""

    risk_rules: list[RiskRule] | None = many(
        "The rules, by key.", lambda rule: service.rule_shown(rule), order=[rules_table.c.key], scope=READ, cap=1000
    )
    risk_alerts: Connection[RiskAlert] | None = many(
        "Alerts, by when they are due.", order=BY_DUE, filter=RiskAlertFilter, order_by=RiskAlertOrder, scope=READ
    )
    risks: Connection[Risk] | None = many(
        "The register, the greatest risk first.",
        order=[(register.c.probability * register.c.impact).desc(), register.c.key],
        scope=READ,
    )
