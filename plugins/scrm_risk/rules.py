"""The settings: rules, how soon is answered, who is told, and how people's risk is scored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import KEPT, BusinessRules, ScrmError

from .conditions import DEEPEST, Aim, Condition, Number, Part, Target, Threshold, depth
from .machine import Policy
from .measures import MEASURES
from .presets import PRESETS

Severity = Literal["WATCH", "GENERAL", "IMPORTANT", "URGENT"]
SEVERITIES: tuple[Severity, ...] = ("WATCH", "GENERAL", "IMPORTANT", "URGENT")
RESPONSE = {"default": (8, 4, 2), "as_printed": (2, 4, 8)}
"""Hours for GENERAL, IMPORTANT and URGENT."""
CATEGORIES = {
    "enterprise": ("compliance", "technical", "operational", "financial"),
    "community": ("user_activity", "content", "interaction", "compliance"),
}

DAYS = 7
"""Of a rule about people, unless said."""
KEY = r"^[a-z][a-z0-9_-]{0,59}$"
Key = Annotated[str, Field(pattern=KEY)]
Words = Annotated[str, Field(min_length=1, max_length=200)]
Long = Annotated[str, Field(min_length=1, max_length=2_000)]
Hours = Annotated[int, Field(strict=True, ge=1, le=10_000)]
Points = Annotated[int, Field(strict=True, ge=0, le=10_000)]


class Rule(Part):
    """What is watched, when it alerts, and what is to be done then."""

    name: Words
    names: Mapping[str, Words] = Field(default_factory=dict, description="Names by language tag.")
    indicator: Key
    condition: Condition
    severity: Severity
    period: Literal["DAY", "WEEK", "MONTH"] = "DAY"
    for_periods: Annotated[int, Field(strict=True, ge=1, le=60)] = 1
    keep_firing_hours: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 0
    flaps: Annotated[int, Field(strict=True, ge=0, le=100)] = 3
    flap_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 7
    missing: Literal["KEEP", "OK", "ALERT"] = "KEEP"
    channels: tuple[Words, ...] = ()
    per: Literal["all", "user"] = "all"
    days: Annotated[int, Field(strict=True, ge=1, le=366)] = DAYS
    playbook: Long | None = None
    assignee: Words | None = None
    enabled: bool = True

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Rule:
        if info.context is KEPT:
            return self
        if depth(self.condition) > DEEPEST:
            raise PydanticCustomError(
                "CONDITION_TOO_DEEP", "conditions in each other at most {n} deep (CONDITION_TOO_DEEP)", {"n": DEEPEST}
            )
        if self.per == "user":
            self._check_about_people()
        elif getattr(self.condition, "same_weekday", False) and self.period != "DAY":
            raise PydanticCustomError("RULE_OF_DAYS", "the period DAY where weekdays are compared (RULE_OF_DAYS)")
        elif self.days != DAYS:
            words = "no days: these are for a rule about people, per = user; all together are judged by period (NOT_ABOUT_PEOPLE)"
            raise PydanticCustomError("NOT_ABOUT_PEOPLE", words)
        return self

    def _check_about_people(self) -> None:
        if self.indicator not in MEASURES:
            words = "for a rule about people one of {known}; {said} is not counted by person (NOT_BY_PERSON)"
            raise PydanticCustomError("NOT_BY_PERSON", words, {"known": ", ".join(MEASURES), "said": self.indicator})
        plain = isinstance(self.condition, Threshold) and self.condition.below is None and self.condition.at_most is None
        if not plain or self.for_periods != 1 or self.channels or self.period != "DAY":
            words = (
                "for a rule about people a threshold `above` or `at_least`, no channels, no period, and no for_periods "
                "(RULE_ABOUT_PEOPLE)"
            )
            raise PydanticCustomError("RULE_ABOUT_PEOPLE", words)

    @cached_property
    def policy(self) -> Policy:
        """What the machine needs of it."""
        return Policy(
            self.for_periods, timedelta(hours=self.keep_firing_hours), self.missing, self.flaps, timedelta(days=self.flap_days)
        )


class Notify(Part):
    """Who is told; the address is the wiring's, under the same name."""

    to: Key = Field(description="The name of the address in `urls`.")
    severity: Severity = Field(default="GENERAL", description="From which severity on.")
    resolved: bool = Field(default=True, description="Whether also when an alert is over.")


class RiskRules(BusinessRules):
    """Rules and responses; `timezone` is the business's unless said."""

    presets: bool = Field(default=True, description="Whether the rules of the list below are there without being written.")
    rules: Mapping[Key, Rule] = Field(
        default_factory=dict, description="Rules by key; see below. One with a preset's key takes its place."
    )
    targets: Mapping[Key, Aim] = Field(
        default_factory=dict, description="Targets by indicator: each makes a rule that alerts at `target_off` or more off it."
    )
    target_off: Annotated[Number, Field(gt=0, le=10)] = Field(default=Decimal("0.05"), description="As a share of the target.")
    evaluate_minutes: Annotated[int, Field(strict=True, ge=5, le=1440)] = Field(
        default=60, description="Rules are evaluated so often, and when an alert is overdue."
    )
    late_periods: Annotated[int, Field(strict=True, ge=0, le=60)] = Field(
        default=7, description="For so many periods back what comes late is looked at again."
    )
    response: Literal["default", "as_printed"] = Field(
        default="default",
        description="Hours to respond for `GENERAL`, `IMPORTANT`, `URGENT`: 8, 4, 2; `as_printed` has 2, 4, 8, as the source.",
    )
    escalation: Literal["RAISE", "MARK"] = Field(
        default="RAISE",
        description="What becomes of an alert that nobody acknowledged in time: raised by one severity, or only marked.",
    )
    escalate_to: Words | None = Field(
        default=None, description="Who is responsible for what was escalated; unless said nothing changes."
    )
    notify: tuple[Notify, ...] = Field(default=(), description="Who is told of what; see below.")
    notify_per_hour: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=12, description="Messages an hour at most, of all; what is more is told with the next."
    )
    language: Literal["zh-CN", "en"] = Field(default="zh-CN", description="Of messages.")
    user_points: Mapping[Severity, Points] = Field(
        default={"WATCH": 5, "GENERAL": 10, "IMPORTANT": 20, "URGENT": 40},
        description="What an open alert adds to a person's risk, by severity; one that is over adds half, rounded down.",
    )
    taxonomy: Literal["enterprise", "community"] = Field(
        default="enterprise",
        description="Categories of the register: compliance, technical, operational, financial; "
        "or user_activity, content, interaction, compliance.",
    )

    @field_validator("user_points")
    @classmethod
    def _every_severity(cls, points: Mapping[Severity, int]) -> Mapping[Severity, int]:
        missing = [each for each in SEVERITIES if each not in points]
        if missing:
            raise PydanticCustomError(
                "POINTS_MISSING", "points of every severity: {name} has none (POINTS_MISSING)", {"name": missing[0]}
            )
        return points

    @field_validator("notify")
    @classmethod
    def _once(cls, notify: tuple[Notify, ...]) -> tuple[Notify, ...]:
        names = [each.to for each in notify]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise PydanticCustomError("NOTIFY_TWICE", "everybody once: {name} is there twice (NOTIFY_TWICE)", {"name": name})
        return notify

    def indicators(self) -> Sequence[str]:
        """What its rules watch."""
        return sorted({rule.indicator for rule in self.effective.values() if rule.enabled})

    @cached_property
    def effective(self) -> Mapping[str, Rule]:
        """Every rule of the settings by key: presets, targets, and those that were written."""
        presets = PRESET_RULES if self.presets else {}
        targets = {f"target_{key.replace('-', '_')}"[:60]: self._target(key, value) for key, value in self.targets.items()}
        return {**presets, **targets, **self.rules}

    def _target(self, indicator: str, target: Any) -> Rule:
        return Rule(
            name=f"{indicator} 偏离目标",
            names={"en": f"{indicator} off its target"},
            indicator=indicator,
            condition=Target(kind="target", target=target, by=self.target_off),
            severity="WATCH",
            period="MONTH",
            playbook="偏离目标 5% 以上：核对口径，找出原因，调整计划或目标。"
            "Check the figures, find the cause, adjust the plan or the target.",
        )

    def hours(self, severity: str) -> int | None:
        """Hours to respond; None for what only has to be watched."""
        return None if severity == "WATCH" else RESPONSE[self.response][SEVERITIES.index(severity) - 1]

    @property
    def categories(self) -> tuple[str, ...]:
        """Of the register."""
        return CATEGORIES[self.taxonomy]


def check_key(key: str) -> None:
    """Refuse what is no key.

    Raises:
        ScrmError: INVALID_RULE.
    """
    if not re.fullmatch(KEY, key):
        message = f"key is {key!r}; take small letters, digits, - and _, beginning with a letter, 60 at most"
        raise ScrmError("INVALID_RULE", message, path=("key",), params={"rule": key})


def parse_rule(key: Any, said: Any) -> Rule:
    """A rule as `[plugins.risk.rules.KEY]` says it.

    Raises:
        ScrmError: INVALID_RULE, or the code of what is wrong with it; the message names the rule, the key and the value.
    """
    try:
        return Rule.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        code = first["type"] if first["type"].isupper() else "INVALID_RULE"
        where = ".".join(str(part) for part in first["loc"]) or "it"
        shown = "" if first["type"] == "missing" else f" is {first['input']!r}"
        message = f"rule {key}: {where}{shown}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise ScrmError(code, message, path=tuple(map(str, first["loc"])), params={"rule": key}) from None


PRESET_RULES = {key: Rule.model_validate(said) for key, said in PRESETS.items()}
