"""What is done about alerts, rules and risks, and what happens to alerts, in GraphQL."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import strawberry

from scrm.api import (
    JSON,
    Decision,
    DeletePayload,
    Info,
    Mutation,
    Query,
    Subscription,
    Tx,
    UserErrorType,
    condition_of,
    errors_field,
    events,
    extend,
    follow,
    global_id,
    instant_text,
    mutation,
    new_id,
    node_id,
    query,
    ref,
    subscription,
)

from . import register, service
from .desk import rule_id, scope_key
from .evaluation import evaluated
from .events import ACCEPTED, ACKNOWLEDGED, ADVANCED, CHANGED, DUE, RESOLVED, RULE_DELETED, RULE_SAVED, SCORED, SNOOZED
from .graphql import (
    READ,
    WRITE,
    ResponsePhase,
    Risk,
    RiskAlert,
    RiskAlertFilter,
    RiskBand,
    RiskRule,
    RulePer,
    RulePeriod,
    Severity,
)
from .models import alerts

evaluate_risks = Decision("evaluateRisks", DUE, service.evaluate_risks)
acknowledge_alert = Decision("acknowledgeAlert", ACKNOWLEDGED, service.acknowledge)
resolve_alert = Decision("resolveAlert", RESOLVED, service.resolve)
snooze_alert = Decision("snoozeAlert", SNOOZED, service.snooze_alert)
advance_alert = Decision("advanceAlert", ADVANCED, service.advance_alert)
save_risk_rule = Decision("saveRiskRule", RULE_SAVED, service.save_rule)
delete_risk_rule = Decision("deleteRiskRule", RULE_DELETED, service.delete_rule)
save_risk = Decision("saveRisk", SCORED, register.save_risk)
accept_risk = Decision("acceptRisk", ACCEPTED, register.accept_risk)
DECISIONS = (
    evaluate_risks,
    acknowledge_alert,
    resolve_alert,
    snooze_alert,
    advance_alert,
    save_risk_rule,
    delete_risk_rule,
    save_risk,
    accept_risk,
)

USER_ID = re.compile("User_[0-9a-f]{32}")
KEY = "The same key again changes nothing and answers the same; each call is one of its own without it."
COMMENT = "For the timeline; about a person, it is forgotten with the person."


@strawberry.input(description="An evaluation to make now.")
class EvaluateRisksInput:
    as_of: dt.datetime | None = strawberry.field(
        description="As of this instant, not before the last evaluation's; unless said now, or the last's where that is later.",
        default=None,
    )
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="An alert to do something to.")
class AlertActionInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    comment: str | None = strawberry.field(description=COMMENT, default=None)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="An alert, or a rule in a scope before it fires, to be silent about until a time.")
class SnoozeAlertInput:
    id: strawberry.ID | None = strawberry.field(description="Which alert; or say rule and scope.", default=None)
    rule: str | None = strawberry.field(description="Key of the rule.", default=None)
    scope: JSON | None = strawberry.field(
        description='Where: `{}` for all together, `{"channel": KEY}`, or `{"user": ID}` for a rule about people.', default=None
    )
    until: dt.datetime = strawberry.field(description="When it ends by itself.")
    comment: str | None = strawberry.field(description=COMMENT, default=None)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="How far the response to an alert has come.")
class AdvanceAlertInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    phase: ResponsePhase | None = strawberry.field(description="A later phase; the next unless said.", default=None)
    comment: str | None = strawberry.field(description=COMMENT, default=None)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="A rule to write, in place of the one of that key, also of the settings', until it is deleted.")
class SaveRiskRuleInput:
    key: str = strawberry.field(description="Stable key: small letters, digits, `-` and `_`.")
    name: str = strawberry.field(description="Name.")
    names: JSON | None = strawberry.field(description="Names by language tag.", default=None)
    indicator: str = strawberry.field(description="Key of what is watched.")
    condition: JSON = strawberry.field(description="When it holds; its kinds are in the README.")
    severity: Severity = strawberry.field(description="How much its alerts matter.")
    for_periods: int = strawberry.field(description="For so many periods in a row the condition has to hold.", default=1)
    period: RulePeriod = strawberry.field(description="Of how long periods its values are.", default=RulePeriod.DAY)
    per: RulePer = strawberry.field(description="Whether it watches everybody together or each person.", default=RulePer.ALL)
    days: int | None = strawberry.field(description="Within how many days, for a rule about people.", default=None)
    channels: list[str] | None = strawberry.field(description="Of each of these channels, by key, and not of all.", default=None)
    options: JSON | None = strawberry.field(
        description="`keep_firing_hours`, `flaps`, `flap_days` and `missing`, as in the settings.", default=None
    )
    playbook: str | None = strawberry.field(description="What is to be done when it alerts.", default=None)
    assignee: str | None = strawberry.field(description="Who is responsible.", default=None)
    enabled: bool = strawberry.field(description="Whether it is evaluated.", default=True)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="A saved rule to take away; the settings' of that key comes back.")
class DeleteRiskRuleInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="A risk to write down, in place of the one of that key.")
class SaveRiskInput:
    key: str = strawberry.field(description="Stable key.")
    title: str = strawberry.field(description="What may happen.")
    category: str = strawberry.field(description="One of the categories of the settings.")
    owner: str = strawberry.field(description="Who is responsible.")
    description: str | None = strawberry.field(description="More on it.", default=None)
    probability: int = strawberry.field(description="How likely it is before anything is done, 1 to 5.")
    impact: int = strawberry.field(description="How bad it is, 1 to 5.")
    residual_probability: int | None = strawberry.field(description="How likely it still is, 1 to 5.", default=None)
    residual_impact: int | None = strawberry.field(description="How bad it still is, 1 to 5.", default=None)
    closed: bool = strawberry.field(description="Whether it is over.", default=False)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.input(description="A risk to live with until a day.")
class AcceptRiskInput:
    id: strawberry.ID = strawberry.field(description="Which.")
    until: dt.date = strawberry.field(description="The last day on which that holds.")
    reason: str | None = strawberry.field(description="Why.", default=None)
    idempotency_key: str | None = strawberry.field(description=KEY, default=None)


@strawberry.type(description="What an evaluation did, or why not.")
class RiskEvaluationPayload:
    as_of: dt.datetime | None = strawberry.field(description="As of when.", default=None)
    rules: int | None = strawberry.field(description="How many rules were evaluated.", default=None)
    fired: int | None = strawberry.field(description="How many alerts fired.", default=None)
    resolved: int | None = strawberry.field(description="How many were over.", default=None)
    problems: list[str] | None = strawberry.field(description="What could not be evaluated, and why.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="The alert as it is now, or why not.")
class RiskAlertPayload:
    alert: RiskAlert | None = strawberry.field(description="The alert; null where there is none yet.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="The rule as it is now, or why not.")
class RiskRulePayload:
    rule: RiskRule | None = strawberry.field(description="The rule.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="The risk as it is now, or why not.")
class RiskPayload:
    risk: Risk | None = strawberry.field(description="The risk.", default=None)
    errors: list[UserErrorType] = errors_field()


def _key(input: Any) -> str:
    return input.idempotency_key if input.idempotency_key is not None else new_id().hex


@extend(Mutation)
class RiskMutation:
    """Alerts, rules and risks to change."""

    @mutation("Evaluate every rule, without waiting for the clock.", scope=WRITE, weight=50)
    async def evaluate_risks(self, info: Info, input: EvaluateRisksInput) -> RiskEvaluationPayload | None:
        said = {"asOf": instant_text(input.as_of) if input.as_of is not None else None}
        decided = await info.context.decide(evaluate_risks, said, key=_key(input))
        done = await info.context.read(evaluated, decided.event_id)
        if done is None:
            return RiskEvaluationPayload(
                as_of=dt.datetime.fromisoformat(decided.properties["asOf"]), rules=0, fired=0, resolved=0
            )
        return RiskEvaluationPayload(**{name: done[name] for name in ("as_of", "rules", "fired", "resolved", "problems")})

    @mutation("Take an alert on.", scope=WRITE)
    async def acknowledge_alert(self, info: Info, input: AlertActionInput) -> RiskAlertPayload | None:
        return await _acted(info, acknowledge_alert, input, {})

    @mutation("End an alert; another opens when a newer period is over the limit.", scope=WRITE)
    async def resolve_alert(self, info: Info, input: AlertActionInput) -> RiskAlertPayload | None:
        return await _acted(info, resolve_alert, input, {})

    @mutation("Say that the response to an alert has come to a later phase.", scope=WRITE)
    async def advance_alert(self, info: Info, input: AdvanceAlertInput) -> RiskAlertPayload | None:
        return await _acted(info, advance_alert, input, {"phase": input.phase.value if input.phase is not None else None})

    @mutation("Tell nobody of an alert, or of a rule in a scope before it fires, until a time.", scope=WRITE)
    async def snooze_alert(self, info: Info, input: SnoozeAlertInput) -> RiskAlertPayload | None:
        said: dict[str, Any] = {
            "id": node_id("RiskAlert", input.id).hex if input.id is not None else None,
            "rule": input.rule,
            "scope": await _survivors(info, input.scope),
        }
        said |= {"until": instant_text(input.until), "actor": info.context.actor, "comment": input.comment}
        decided = await info.context.decide(snooze_alert, said, key=_key(input))
        fact = decided.properties
        found = await info.context.read(service.alert_of_scope, fact["rule"], scope_key(fact["scope"]))
        return RiskAlertPayload(alert=ref(RiskAlert, found) if found is not None else None)

    @mutation("Write a rule.", scope=WRITE)
    async def save_risk_rule(self, info: Info, input: SaveRiskRuleInput) -> RiskRulePayload | None:
        plain = ("name", "names", "indicator", "condition", "for_periods", "days", "channels", "playbook", "assignee", "enabled")
        given = {name: value for name in plain if (value := getattr(input, name)) is not None}
        options: dict[str, Any] = input.options if isinstance(input.options, dict) else {}
        enums = {"severity": input.severity.value, "period": input.period.value, "per": input.per.value}
        await info.context.decide(save_risk_rule, {"key": input.key, "rule": {**options, **given, **enums}}, key=_key(input))
        return RiskRulePayload(rule=ref(RiskRule, rule_id(input.key)))

    @mutation("Take a saved rule away.", scope=WRITE)
    async def delete_risk_rule(self, info: Info, input: DeleteRiskRuleInput) -> DeletePayload | None:
        key = node_id("RiskRule", input.id)
        await info.context.decide(delete_risk_rule, {"id": key.hex}, key=_key(input))
        return DeletePayload(deleted_id=input.id)

    @mutation("Write a risk down; where it is scored otherwise than before, its acceptance is over.", scope=WRITE)
    async def save_risk(self, info: Info, input: SaveRiskInput) -> RiskPayload | None:
        said = {name: getattr(input, name) for name in register.SAID}
        await info.context.decide(save_risk, {"key": input.key, "risk": said}, key=_key(input))
        return RiskPayload(risk=ref(Risk, register.risk_id(input.key)))

    @mutation("Live with a risk until a day.", scope=WRITE)
    async def accept_risk(self, info: Info, input: AcceptRiskInput) -> RiskPayload | None:
        key = node_id("Risk", input.id)
        said = {"id": key.hex, "until": input.until.isoformat(), "reason": input.reason, "actor": info.context.actor}
        await info.context.decide(accept_risk, said, key=_key(input))
        return RiskPayload(risk=ref(Risk, key))


async def _survivors(info: Info, scope: Any) -> Any:
    """The same scope, where it names somebody who was merged, that of the survivor."""
    if not isinstance(scope, dict) or scope.keys() != {"user"} or not USER_ID.fullmatch(str(scope["user"])):
        return scope
    return {"user": global_id("User", await info.context.user(scope["user"], "scope"))}


async def _acted(info: Info, decision: Decision, input: Any, more: dict[str, Any]) -> RiskAlertPayload:
    alert = node_id("RiskAlert", input.id)
    said = {"id": alert.hex, "actor": info.context.actor, "comment": input.comment, **more}
    await info.context.decide(decision, said, key=_key(input))
    return RiskAlertPayload(alert=ref(RiskAlert, alert))


@strawberry.type(description="How many risks have one probability and one impact.")
class RiskMatrixCell:
    probability: int = strawberry.field(description="1 to 5.")
    impact: int = strawberry.field(description="1 to 5.")
    score: int = strawberry.field(description="Their product.")
    band: RiskBand = strawberry.field(description="Its band.")
    count: int = strawberry.field(description="How many risks that are not closed.")


@extend(Query)
class RiskMatrixQuery:
    """The register at a glance."""

    @query("The 25 cells of the register's matrix, the greatest score first.", scope=READ)
    async def risk_matrix(
        self,
        info: Info,
        residual: Annotated[bool, strawberry.argument(description="Of what is left of them, where that is known.")] = False,
    ) -> list[RiskMatrixCell] | None:
        counted = await info.context.read(register.matrix, residual)
        cells = [(probability, impact) for probability in range(1, 6) for impact in range(1, 6)]
        return [
            RiskMatrixCell(
                probability=probability,
                impact=impact,
                score=probability * impact,
                band=RiskBand(register.band_of(probability * impact)),
                count=counted.get((probability, impact), 0),
            )
            for probability, impact in sorted(cells, key=lambda cell: (-cell[0] * cell[1], -cell[0]))
        ]


@extend(Subscription)
class RiskSubscription:
    """Alerts, as they change."""

    @subscription("Alerts that match, whenever something becomes of them.", scope=READ)
    async def risk_alert_changed(
        self,
        info: Info,
        filter: Annotated[RiskAlertFilter | None, strawberry.argument(description="Only what matches then.")] = None,
    ) -> AsyncIterator[RiskAlert]:
        condition = condition_of(info, alerts, "filter")
        async for event_id in follow(info.context, events.c.type == CHANGED, plugin="risk"):
            found = await info.context.read(_alert_of, event_id, condition)
            if found is not None:
                yield ref(RiskAlert, found)


def _alert_of(tx: Tx, event_id: UUID, condition: sa.ColumnElement[bool] | None) -> UUID | None:
    said = tx.scalar(sa.select(events.c.properties).where(events.c.id == event_id))
    wanted = sa.select(alerts.c.id).where(alerts.c.id == UUID(said["alert"]))
    found: UUID | None = tx.scalar(wanted if condition is None else wanted.where(condition))
    return found
