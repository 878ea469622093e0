"""When a rule would have fired: `scrm risk backtest RULE --from DAY --to DAY`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import typer

from scrm.api import Command, PluginContext, ScrmError, Tx, complete_periods, known_indicators, read_indicator

from .book import read_rules
from .conditions import points_of
from .evaluation import Outcome, outcomes, reading_of
from .machine import Alert, Sample, State, reopened, step
from .notices import RiskWiring, deliver
from .rules import RiskRules, Rule, parse_rule
from .words import explain

MOST = 5_000
"""Periods of one back-test."""


@dataclass(frozen=True, slots=True)
class Line:
    """What would have become of an alert when a period was over."""

    at: datetime
    state: State
    words: str


def walk(rule: Rule, made: Sequence[Outcome], rules: RiskRules, facts: dict[str, Any], language: str) -> list[Line]:
    """The changes of state, each as of the instant at which its period was over."""
    alert, lines = Alert(), []
    for outcome in made:
        now = datetime.combine(outcome.point.end, time.min, rules.zone).astimezone(UTC)
        reading = reading_of(outcome, facts, late=False)
        assert isinstance(reading.seen, Sample)
        after = step(alert, reading.seen, now, rule.policy)
        if after.state is not alert.state:
            lines.append(Line(now, after.state, explain(reading.reason, language)))
        alert = reopened(after)
    return lines


def tested(tx: Tx, rule: Rule, rules: RiskRules, start: date, end: date, now: datetime, channel: str | None) -> list[Line]:
    """What would have become of an alert of this rule when the periods that begin on the days `[start, end)` were over, with all
    that is known by now.

    Raises:
        ScrmError: INVALID_RANGE, NOT_TESTABLE for a rule about people, or what reading the indicator is refused for.
    """
    if rule.per == "user":
        raise ScrmError("NOT_TESTABLE", "a rule about people has no series; back-test one of all together")
    last = min(now, datetime.combine(end, time.min, rules.zone))
    days = {"DAY": 1, "WEEK": 7, "MONTH": 28}[rule.period]
    count = (end - start).days // days + 1
    if start >= end or count > MOST:
        raise ScrmError("INVALID_RANGE", f"from {start} to {end} are not 1 to {MOST} periods; --to is the day after the last one")
    periods = complete_periods(last, rules.zone, rule.period, count + rule.condition.reach + rule.for_periods)
    ratios = read_indicator(tx, rule.indicator, periods, as_of=now, channel=channel)
    points = points_of(periods, ratios)
    inside = sum(point.start >= start for point in points)
    known = known_indicators(tx)[rule.indicator]
    facts = {"indicator": rule.indicator, "name": known.name, "unit": known.unit.value, "period": rule.period}
    return walk(rule, outcomes(rule, points, inside), rules, {**facts, "currency": rules.currency}, "en")


def rule_of(tx: Tx, said: str, rules: RiskRules) -> Rule:
    """The rule of a key, or of a TOML file that says one as `[plugins.risk.rules.KEY]` does.

    Raises:
        ScrmError: RULE_NOT_FOUND, or what is wrong with the file.
    """
    if said.endswith(".toml"):
        try:
            return parse_rule(said, tomllib.loads(Path(said).read_text(encoding="utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ScrmError("INVALID_RULE", f"the rule {said} cannot be read: {error}") from None
    found = {**rules.effective, **read_rules(tx)}.get(said)
    if found is None:
        raise ScrmError("RULE_NOT_FOUND", f"there is no rule {said}; name one of riskRules, or a .toml file")
    return found


async def backtest(
    context: PluginContext,
    rule: Annotated[str, typer.Argument(help="Key of a rule, or a .toml file with one.")],
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First business day.")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The day after the last.")],
    channel: Annotated[str | None, typer.Option(help="Only of this channel and those below it, by key.")] = None,
) -> None:
    """When a rule would have fired, on what is known by now; nothing changes and nobody is told."""
    rules: RiskRules = await context.rules()
    found: Rule = await context.read(rule_of, rule, rules)
    lines: list[Line] = await context.read(tested, found, rules, start.date(), end.date(), context.clock(), channel)
    for line in lines:
        typer.echo(f"{line.at.astimezone(rules.zone):%Y-%m-%d %H:%M}  {line.state.value:<9} {line.words}")
    fired = sum(line.state is State.FIRING for line in lines)
    typer.echo(f"{rule} would have fired {fired} time{'' if fired == 1 else 's'} from {start:%Y-%m-%d} to {end:%Y-%m-%d}")


async def notify_test(context: PluginContext, name: Annotated[str, typer.Argument(help="A name of plugins.risk.urls.")]) -> None:
    """Send a message to somebody who would be told of alerts, to see whether it arrives."""
    wiring: RiskWiring = context.wiring
    if name not in wiring.urls and not wiring.dry_run:
        known = f"those of {', '.join(sorted(wiring.urls))}" if wiring.urls else "none"
        raise ScrmError("NO_ADDRESS", f"plugins.risk.urls has no address of {name}, but {known}; add it there")
    try:
        await deliver({"to": name, "title": "scrm", "body": "a test message of scrm risk"}, wiring)
    except (ValueError, ConnectionError) as error:
        raise ScrmError("NOT_SENT", f"nothing was sent to {name}: {error}") from None
    typer.echo("written to the log (dry_run)" if wiring.dry_run else f"sent to {name}")


COMMANDS = (Command("backtest", backtest), Command("notify-test", notify_test))
