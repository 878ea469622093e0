"""Rules evaluated as of an instant, from the log up to the place of the event that says so."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    HandlerTx,
    LogEvent,
    Period,
    PluginFailedError,
    ScrmError,
    Tx,
    complete_periods,
    insert_rows,
    known_indicators,
    read_indicator,
)

from .book import keep_rules, read_rules
from .conditions import Judged, Point, points_of, said_of
from .desk import Desk, Reading, ScopeRow
from .machine import FAILED, OPEN, Sample
from .models import evaluations, guard, samples, scopes
from .notices import tell
from .people import feed_people
from .rules import RiskRules, Rule

log = logging.getLogger("scrm.risk")

Wanted = tuple[str, str, str | None]
"""An indicator, a kind of period, and a channel or None for all."""


def evaluate(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> None:
    """Evaluate every rule that is enabled; one as of an instant before the newest is passed over."""
    as_of = datetime.fromisoformat(event.properties["asOf"]).astimezone(UTC)
    newest = last_evaluation(tx)
    if newest is not None and as_of < newest:
        return
    keep_rules(tx, rules)
    watched = {key: rule for key, rule in read_rules(tx).items() if rule.enabled}
    quiet = sa.and_(scopes.c.state == "INACTIVE", scopes.c.snoozed_until.is_(None), scopes.c.user_id.is_not(None))
    desk = Desk(tx, event, rules, as_of).load(sa.not_(quiet))
    # Who asked for now may have waited for an evaluation as of a later instant: this one sees what happened up to there.
    seen_to = replace(event, occurred_at=max(event.occurred_at, as_of))
    found = Found(tx, seen_to, as_of, rules, watched)
    seen: set[tuple[str, str]] = set()
    for key, rule in watched.items():
        if rule.per == "user":
            seen |= feed_people(desk, key, rule, found)
        else:
            seen |= _feed_all(desk, key, rule, found)
    for place, scope in desk.scopes.items():
        if place not in seen and (scope.state in OPEN or scope.snoozed_until is not None):
            desk.wake(None, scope)
            still = watched.get(place[0])
            if still is None or still.per != "user" or scope.user_id is None:
                desk.end(scope, "not watched any more")
    desk.escalate()
    fired = sum(notice.what == "FIRING" for notice in desk.notices)
    resolved = sum(line["to_state"] == "RESOLVED" for line in desk.timeline)
    desk.store()
    tell(desk)
    done = {"id": event.id, "as_of": as_of, "rules": len(watched), "fired": fired, "resolved": resolved}
    insert_rows(tx, evaluations, [{**done, "problems": found.problems}])


def take_turn(tx: Tx) -> None:
    """Wait until nobody else decides on alerts or rules, and let nobody before this transaction has ended; read after it."""
    tx.rows(sa.select(guard).with_for_update())


def read_ahead(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> dict[Wanted, tuple[int, list[Point] | str]]:
    """The series that an evaluation will need, each with how many periods it was read for."""
    as_of = datetime.fromisoformat(event.properties["asOf"]).astimezone(UTC)
    newest = last_evaluation(tx)
    if newest is not None and as_of < newest:
        return {}
    watched = {key: rule for key, rule in read_rules(tx).items() if rule.enabled}
    found = Found(tx, event, as_of, rules, watched)
    for rule in watched.values():
        for channel in () if rule.per == "user" else rule.channels or (None,):
            found.points((rule.indicator, rule.period, channel))
    return {wanted: (len(found.periods(wanted)), points) for wanted, points in found.series.items()}


def last_evaluation(tx: Tx) -> datetime | None:
    """As of when rules were evaluated last."""
    found: datetime | None = tx.scalar(sa.select(evaluations.c.as_of).order_by(evaluations.c.as_of.desc()).limit(1))
    return found


@dataclass
class Found:
    """The series that rules need: each is read once."""

    tx: HandlerTx
    event: LogEvent
    as_of: datetime
    rules: RiskRules
    watched: Mapping[str, Rule]
    problems: list[str] = field(default_factory=list)
    series: dict[Wanted, list[Point] | str] = field(default_factory=dict)

    def points(self, wanted: Wanted) -> list[Point] | str:
        """The series, or why it could not be read."""
        if wanted not in self.series:
            self.series[wanted] = self._read(wanted)
        return self.series[wanted]

    def _read(self, wanted: Wanted) -> list[Point] | str:
        indicator, _, channel = wanted
        periods = self.periods(wanted)
        given = self.event.properties.get("samples", {}).get(sample_key(wanted))
        if given is not None:
            return given if isinstance(given, str) else points_said(given)
        count, points = (self.tx.ahead(self.event) or {}).get(wanted, (None, ""))
        if count == len(periods):
            return points  # type: ignore[no-any-return]
        try:
            ratios = read_indicator(self.tx, indicator, periods, as_of=self.as_of, channel=channel, until=self.event)
        except (ScrmError, PluginFailedError) as error:
            return str(error)
        return points_of(periods, ratios)

    def periods(self, wanted: Wanted) -> list[Period]:
        """What is read of it: as much as any of its rules looks at."""
        indicator, period, _ = wanted
        sharing = [rule for rule in self.watched.values() if (rule.indicator, rule.period) == (indicator, period)]
        most = max(periods_needed(rule, self.rules) for rule in sharing)
        return complete_periods(self.as_of, self.rules.zone, period, most)

    def facts(self, rule: Rule) -> dict[str, Any]:
        """What is said of every reading of a rule."""
        known = known_indicators(self.tx).get(rule.indicator)
        name, unit = (known.name, known.unit.value) if known is not None else (rule.indicator, "COUNT")
        facts = {"indicator": rule.indicator, "name": name, "unit": unit, "period": rule.period}
        return {**facts, "currency": self.rules.currency}


def periods_needed(rule: Rule, rules: RiskRules) -> int:
    """How many periods an evaluation of it looks at."""
    return rules.late_periods + rule.for_periods + rule.condition.reach


def sample_key(wanted: Wanted) -> str:
    """The name of a series in `samples`."""
    return "|".join([wanted[0], wanted[1], wanted[2] or ""])


def samples_of(tx: Tx, watched: Mapping[str, Rule], as_of: datetime, rules: RiskRules) -> dict[str, Any]:
    """What the event of an evaluation carries: the series of indicators that are not of the log, and those of channels, which may
    be hung elsewhere later; or why they cannot be read."""
    known, found = known_indicators(tx), dict[str, Any]()
    for rule in watched.values():
        indicator = known.get(rule.indicator)
        if not rule.enabled or rule.per == "user" or indicator is None or (indicator.of_log and not rule.channels):
            continue
        count = max(
            periods_needed(other, rules)
            for other in watched.values()
            if (other.indicator, other.period) == (rule.indicator, rule.period)
        )
        periods = complete_periods(as_of, rules.zone, rule.period, count)
        for channel in rule.channels or (None,):
            wanted = rule.indicator, rule.period, channel
            if sample_key(wanted) not in found:
                found[sample_key(wanted)] = _sampled(tx, wanted, periods, as_of)
    return found


def _sampled(tx: Tx, wanted: Wanted, periods: Sequence[Period], as_of: datetime) -> list[list[Any]] | str:
    try:
        ratios = read_indicator(tx, wanted[0], periods, as_of=as_of, channel=wanted[2])
    except (ScrmError, PluginFailedError) as error:
        return str(error)
    return [
        [span.start.isoformat(), span.end.isoformat(), ratio.numerator, ratio.denominator]
        for span, ratio in zip(periods, ratios, strict=True)
    ]


def points_said(said: Sequence[Sequence[Any]]) -> list[Point]:
    """A series as an event carries it."""
    return [Point(date.fromisoformat(start), date.fromisoformat(end), above, below) for start, end, above, below in said]


@dataclass(frozen=True, slots=True)
class Streak:
    """For how many periods next to each other a rule's condition held. A missing value breaks it, but where the rule takes it as
    if it held."""

    count: int = 0
    cut: bool = False
    """Nothing before them was judged: there may be more."""
    told: int = 0
    """How many the words count: the last of them, as far back as each has a value."""
    least: bool = False
    """Whether those may be more."""

    @classmethod
    def opening(cls, earlier: Streak | None, *, missing: bool, alert: bool) -> Streak:
        """At the first period that is judged; what is remembered of one before does not say which of them had values."""
        known = earlier if earlier is not None and earlier.count else cls(1, cut=True)
        if alert:
            return cls(known.count, known.cut, 0 if missing else 1, not missing and (known.cut or known.count > 1))
        return cls(known.count, known.cut, known.count, known.cut)

    def longer(self, *, missing: bool) -> Streak:
        """With one more."""
        if missing:
            return Streak(self.count + 1, self.cut)
        return replace(self, count=self.count + 1, told=self.told + 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule says of one period."""

    point: Point
    judged: Judged
    streak: Streak

    @property
    def kept(self) -> tuple[bool | None, int, bool]:
        """What is remembered of it."""
        return self.judged.holds, self.streak.count, self.streak.cut

    @property
    def told(self) -> dict[str, Any]:
        """For how long, in words."""
        return {"streak": self.streak.told, "at_least": self.streak.least}


def outcomes(rule: Rule, points: Sequence[Point], count: int, earlier: Streak | None = None) -> list[Outcome]:
    """What a rule says of the last `count` periods; `earlier`: for how many in a row it held at the first of them, if known."""
    made: list[Outcome] = []
    first = max(len(points) - count, 0)
    streak = Streak()
    for place in range(first, len(points)):
        judged, alert = rule.condition.judge(points[: place + 1]), rule.missing == "ALERT"
        missing = judged.holds is None
        if not (alert if missing else judged.holds):
            streak = Streak()
        elif place == first:
            streak = Streak.opening(earlier, missing=missing, alert=alert)
        else:
            streak = streak.longer(missing=missing)
        made.append(Outcome(points[place], judged, streak))
    return made


def reading_of(
    outcome: Outcome, facts: Mapping[str, Any], *, late: bool, next_held: date | None = None, at: datetime | None = None
) -> Reading:
    """The same for the machine and for those who are told; `at`: as of when, if not now."""
    judged, point, streak = outcome.judged, outcome.point, outcome.streak
    reason = {**facts, "start": point.start.isoformat(), **outcome.told, **said_of(judged, point)}
    sample = Sample(point.start, judged.holds, streak.count, late, next_held)
    return Reading(sample, point.value, judged.limit, reason, at=at)


def _feed_all(desk: Desk, key: str, rule: Rule, found: Found) -> set[tuple[str, str]]:
    places = set()
    for channel in rule.channels or (None,):
        scope = desk.scope(key, {"channel": channel} if channel is not None else {})
        places.add((key, scope.scope_key))
        points = found.points((rule.indicator, rule.period, channel))
        if isinstance(points, str):
            log.warning("rule %s could not be evaluated: %s", key, points)
            found.problems.append(f"{key}: {points}")
            desk.feed(key, rule, scope, Reading(FAILED, problem=points))
        elif points:
            _feed_one(desk, key, rule, scope, points, found)
    return places


def _feed_one(desk: Desk, key: str, rule: Rule, scope: ScopeRow, points: Sequence[Point], found: Found) -> None:
    """Every period whose outcome is another one than before, oldest first; then those that passed since the last evaluation, each
    as of its end, and the newest in any case."""
    here = sa.and_(samples.c.rule_key == key, samples.c.scope_key == scope.scope_key)
    before = {row.start: (row.holds, row.streak, row.cut) for row in desk.tx.rows(sa.select(samples).where(here))}
    count = desk.rules.late_periods + rule.for_periods
    opening = before.get(points[-count].start) if len(points) >= count else None
    made = outcomes(rule, points, count, Streak(opening[1], opening[2]) if opening is not None else None)
    facts = found.facts(rule)
    held = [each.point.start for each in made if _long(rule, each.kept)]
    for outcome in made[:-1]:
        known, start = before.get(outcome.point.start), outcome.point.start
        if known is not None and _long(rule, known) != _long(rule, outcome.kept):
            behind = next((day for day in held if day > start), None)
            desk.feed(key, rule, scope, reading_of(outcome, facts, late=True, next_held=behind))
        elif known is None and before and scope.newest is not None and start > scope.newest:
            over = datetime.combine(outcome.point.end, time.min, desk.rules.zone).astimezone(UTC)
            desk.feed(key, rule, scope, reading_of(outcome, facts, late=False, at=over))
    desk.feed(key, rule, scope, reading_of(made[-1], facts, late=False))
    scope.newest = made[-1].point.start
    now = {each.point.start: each.kept for each in made}
    if now != before:
        desk.tx.execute(sa.delete(samples).where(here))
        names = {"rule_key": key, "scope_key": scope.scope_key}
        rows = [{**names, "start": at, "holds": holds, "streak": streak, "cut": cut} for at, (holds, streak, cut) in now.items()]
        insert_rows(desk.tx, samples, rows)


def _long(rule: Rule, kept: tuple[bool | None, int, bool]) -> bool:
    """Whether it held for long enough."""
    return kept[0] is not False and kept[1] >= rule.for_periods


def evaluated(tx: Tx, event_id: uuid.UUID) -> Mapping[str, Any] | None:
    """What an evaluation did; None for one that was passed over."""
    row = tx.row(sa.select(evaluations).where(evaluations.c.id == event_id))
    return row._mapping if row is not None else None  # type: ignore[return-value]
