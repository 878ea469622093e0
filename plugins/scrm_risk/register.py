"""The risk register 风险清单: what may happen, how likely and how bad it is, and for how long it is accepted."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from scrm.api import TODAY, Fact, HandlerTx, LogEvent, Tx, UserError, derive_id, upsert

from .desk import NOBODY
from .models import register
from .rules import KEY, RiskRules

SCORES = ("probability", "impact", "residual_probability", "residual_impact")
SAID = ("title", "category", "owner", "description", *SCORES, "closed")
LONGEST = {"title": 200, "owner": 200, "description": 2_000}
"""Characters of its texts."""


def risk_id(key: str) -> uuid.UUID:
    """A risk's id: the same wherever it has that key."""
    return derive_id(NOBODY, "risk", key)


def band(score: Any) -> sa.ColumnElement[str]:
    """The band of a score: 1–4 LOW, 5–9 MEDIUM, 10–16 HIGH, 20–25 EXTREME."""
    known = [(score.is_(None), sa.null()), (score <= 4, "LOW"), (score <= 9, "MEDIUM"), (score <= 16, "HIGH")]
    return sa.case(*known, else_="EXTREME")


def band_of(score: int) -> str:
    """The same of a number."""
    return "LOW" if score <= 4 else "MEDIUM" if score <= 9 else "HIGH" if score <= 16 else "EXTREME"


def residual(risk: Any) -> dict[str, sa.ColumnElement[Any]]:
    """What is left of it once something is done."""
    probability, impact = risk.c.residual_probability, risk.c.residual_impact
    return {"probability": probability, "impact": impact, "score": probability * impact, "band": band(probability * impact)}


def acceptance(risk: Any) -> dict[str, sa.ColumnElement[Any]]:
    """Who accepted it until when; gone when that day is over."""
    holds = risk.c.accepted_until >= TODAY
    columns = {"by": "accepted_by", "at": "accepted_at", "until": "accepted_until", "reason": "acceptance_reason"}
    return {name: sa.case((holds, risk.c[column]), else_=sa.null()) for name, column in columns.items()}


def status(risk: Any) -> sa.ColumnElement[str]:
    """Whether it is open, accepted for now, or closed."""
    return sa.case((risk.c.closed, "CLOSED"), (risk.c.accepted_until >= TODAY, "ACCEPTED"), else_="OPEN")


def save_risk(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Write a risk down.

    Refuses with INVALID_RISK, UNKNOWN_CATEGORY or INVALID_SCORE.
    """
    said = input["risk"]
    if not re.fullmatch(KEY, input["key"]):
        message = f"key is {input['key']!r}; take small letters, digits, - and _, beginning with a letter, 60 at most"
        return UserError("INVALID_RISK", message, ("key",), {"limit": 60})
    for name, limit in LONGEST.items():
        if said[name] is not None and not 1 <= len(said[name]) <= limit:
            message = f"{name} has {len(said[name])} characters; give 1 to {limit}"
            return UserError("INVALID_RISK", message, (name,), {"limit": limit})
    if said["category"] not in rules.categories:
        known = ", ".join(rules.categories)
        message = f"category is {said['category']!r}; the register has {known}"
        return UserError("UNKNOWN_CATEGORY", message, ("category",), {"known": list(rules.categories)})
    for name in SCORES:
        value = said[name]
        if value is not None and not 1 <= value <= 5:
            return UserError("INVALID_SCORE", f"{name} is {value}; give 1 to 5", (name,), {"value": value})
    if (said["residual_probability"] is None) != (said["residual_impact"] is None):
        message = "one of residualProbability and residualImpact is missing; give both or none"
        return UserError("INVALID_SCORE", message, ("residualImpact",), {})
    return Fact(None, {"key": input["key"], "risk": dict(said)})


def accept_risk(tx: Tx, input: Mapping[str, Any], rules: RiskRules, at: datetime) -> Fact | UserError:
    """Live with a risk until a day.

    Refuses with RISK_NOT_FOUND, RISK_CLOSED or INVALID_ACCEPTANCE.
    """
    row = tx.row(sa.select(register).where(register.c.id == uuid.UUID(input["id"])).with_for_update())
    if row is None:
        return UserError("RISK_NOT_FOUND", "the register has no such risk", ("id",))
    if row.closed:
        return UserError("RISK_CLOSED", f"the risk {row.key} is closed; save it open to accept it", ("id",))
    until = date.fromisoformat(input["until"])
    if until < rules.day(at):
        message = f"until is {until}, which is over; name the last day on which the risk is accepted"
        return UserError("INVALID_ACCEPTANCE", message, ("until",), {"until": until.isoformat()})
    return Fact(None, {"key": row.key, "until": input["until"], "actor": input["actor"], "reason": input["reason"]})


def score(tx: HandlerTx, event: LogEvent) -> None:
    """Keep a risk; where it is scored otherwise than before, nobody has accepted that."""
    key, said = event.properties["key"], event.properties["risk"]
    row = {name: said[name] for name in SAID} | {"updated_at": event.occurred_at}
    old = tx.row(sa.select(register).where(register.c.key == key).with_for_update())
    if old is None or any(old._mapping[name] != said[name] for name in SCORES):
        row |= dict.fromkeys(("accepted_at", "accepted_by", "accepted_until", "acceptance_reason"))
    insert = upsert(tx, register).values(id=risk_id(key), key=key, created_at=event.occurred_at, **row)
    tx.execute(insert.on_conflict_do_update(index_elements=["key"], set_=row))


def accept(tx: HandlerTx, event: LogEvent) -> None:
    """Keep that a risk is accepted."""
    said = event.properties
    row = {"accepted_at": event.occurred_at, "accepted_by": said["actor"], "acceptance_reason": said["reason"]}
    row |= {"accepted_until": date.fromisoformat(said["until"]), "updated_at": event.occurred_at}
    tx.execute(sa.update(register).where(register.c.key == said["key"]).values(row))


def matrix(tx: Tx, of_residual: bool) -> dict[tuple[int, int], int]:
    """How many open and accepted risks have which probability and impact; residual where that is known, if asked."""
    row: Any = SimpleNamespace(c=register.c)
    pair = [row.c.probability, row.c.impact]
    if of_residual:
        pair = [sa.func.coalesce(row.c.residual_probability, pair[0]), sa.func.coalesce(row.c.residual_impact, pair[1])]
    probability, impact = pair[0].label("probability"), pair[1].label("impact")
    counted = sa.select(probability, impact, sa.func.count().label("number")).where(register.c.closed.is_(False))
    return {(each.probability, each.impact): each.number for each in tx.rows(counted.group_by(probability, impact))}
