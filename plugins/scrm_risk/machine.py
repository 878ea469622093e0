"""What becomes of an alert: a table of transitions and the pure functions that walk it.

The words are those of Prometheus: an alert is pending until its condition has held `for` so many periods, fires while it holds
and `keep_firing` beyond, and an evaluation that fails changes nothing. Acknowledging and snoozing are laid over that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """Where an alert is. INACTIVE: there is none."""

    INACTIVE = "INACTIVE"
    PENDING = "PENDING"
    FIRING = "FIRING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    SNOOZED = "SNOOZED"
    RESOLVED = "RESOLVED"


class Seen(StrEnum):
    """What an evaluation says, as far as the table cares."""

    SHORT = "SHORT"
    """The condition holds, and has not for long enough."""
    LONG = "LONG"
    """It has held for long enough."""
    KEPT = "KEPT"
    """It does not hold, and what fires is kept firing."""
    CLEAR = "CLEAR"
    """It does not hold."""
    MISSING = "MISSING"
    """A value is missing, and the rule keeps then what fires; what is pending begins anew, as no period is skipped."""
    ERROR = "ERROR"
    """It could not be evaluated."""
    LATE = "LATE"
    """With what came late, it had held for long enough in an earlier period."""
    WITHDRAWN = "WITHDRAWN"
    """With what came late, it had not held when the alert fired, nor in any period since."""
    BYGONE = "BYGONE"
    """What came late changes nothing that matters now."""


class Act(StrEnum):
    """What a person does."""

    ACKNOWLEDGE = "ACKNOWLEDGE"
    RESOLVE = "RESOLVE"


def _table(**rows: str) -> Mapping[tuple[State, Seen], State]:
    letters = {"I": State.INACTIVE, "P": State.PENDING, "F": State.FIRING, "A": State.ACKNOWLEDGED, "R": State.RESOLVED}
    return {(State[name], seen): letters[letter] for name, row in rows.items() for seen, letter in zip(Seen, row, strict=True)}


TABLE = _table(
    # one letter each for SHORT, LONG, KEPT, CLEAR, MISSING, ERROR, LATE, WITHDRAWN, BYGONE
    INACTIVE="PFIIIIFII",
    PENDING="PFRRRPFRP",
    FIRING="FFFRFFFRF",
    ACKNOWLEDGED="AAARAAARA",
)
"""The state after an evaluation, by the state before and what was seen. RESOLVED ends the alert; the next is another one."""

ACTS: Mapping[tuple[State, Act], State] = {
    (State.FIRING, Act.ACKNOWLEDGE): State.ACKNOWLEDGED,
    (State.PENDING, Act.RESOLVE): State.RESOLVED,
    (State.FIRING, Act.RESOLVE): State.RESOLVED,
    (State.ACKNOWLEDGED, Act.RESOLVE): State.RESOLVED,
}
"""The state after what a person did; what is not here is refused."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a rule says of its alerts."""

    periods: int = 1
    """So many periods in a row the condition has to hold."""
    keep_firing: timedelta = timedelta(0)
    missing: str = "KEEP"
    """`KEEP` what fires, `OK`: as if it did not hold, `ALERT`: as if it did."""
    flaps: int = 0
    """Fired so often within `flap_within`, an alert is kept firing until it has been quiet for as long; 0: however often."""
    flap_within: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One period's outcome: whether the condition holds (None: a value is missing), and for how many periods next to each other
    by then. `late`: it was judged before, and comes to another outcome."""

    period: date
    holds: bool | None
    streak: int
    late: bool = False
    next_held: date | None = None
    """Of one that is late: the first period behind it on which the condition holds for long enough."""


class Failed:
    """An evaluation that could not be made."""


FAILED = Failed()


@dataclass(frozen=True, slots=True)
class Alert:
    """What the machine knows of one rule in one scope."""

    state: State = State.INACTIVE
    snoozed_until: datetime | None = None
    """Until when nobody is told; may be set while there is no alert."""
    held_at: datetime | None = None
    """When the condition was last seen to hold."""
    fired: tuple[datetime, ...] = ()
    """When it fired lately."""
    fired_on: date | None = None
    """The period that the open alert stands on: on which it fired, or the first behind it where late data takes that away."""
    settled: date | None = None
    """The newest period when a person resolved it: only a newer one opens another."""

    def shown(self, now: datetime) -> State:
        """The state as people see it: SNOOZED while it is, INACTIVE and SNOOZED together are INACTIVE."""
        asleep = self.snoozed_until is not None and now < self.snoozed_until
        return State.SNOOZED if asleep and self.state in OPEN else self.state


OPEN = (State.PENDING, State.FIRING, State.ACKNOWLEDGED)


def awake(alert: Alert, now: datetime) -> Alert:
    """The same with a snooze that is over taken off."""
    over = alert.snoozed_until is not None and now >= alert.snoozed_until
    return replace(alert, snoozed_until=None) if over else alert


def step(alert: Alert, seen: Sample | Failed, now: datetime, policy: Policy) -> Alert:
    """What becomes of an alert when its rule has been evaluated at an instant; snoozing hides it and stops nothing."""
    alert = awake(alert, now)
    found = classify(alert, seen, now, policy)
    after = TABLE[alert.state, found]
    if isinstance(seen, Failed):
        return alert
    if found in (Seen.SHORT, Seen.LONG, Seen.LATE):
        alert = replace(alert, held_at=now)
    if after is State.FIRING and alert.state is not State.FIRING:
        lately = tuple(at for at in alert.fired if at > now - policy.flap_within)
        alert = replace(alert, fired=(*lately, now), fired_on=seen.period)
    if found is Seen.BYGONE and not _long(seen, policy) and alert.fired_on == seen.period:
        alert = replace(alert, fired_on=seen.next_held)
    if after is State.RESOLVED:
        alert = replace(alert, fired_on=None, held_at=None)
    return replace(alert, state=after)


def _long(seen: Sample, policy: Policy) -> bool:
    holds = seen.holds if seen.holds is not None else policy.missing == "ALERT"
    return holds and seen.streak >= policy.periods


def classify(alert: Alert, seen: Sample | Failed, now: datetime, policy: Policy) -> Seen:
    """What an evaluation says of this alert."""
    if isinstance(seen, Failed):
        return Seen.ERROR
    holds = seen.holds
    if holds is None and policy.missing == "KEEP" and not seen.late:
        return Seen.MISSING
    holds = holds if holds is not None else policy.missing == "ALERT"
    long = _long(seen, policy)
    if alert.state is State.INACTIVE and alert.settled is not None and seen.period <= alert.settled:
        return Seen.BYGONE if seen.late else Seen.CLEAR
    if seen.late:
        if alert.state in OPEN and alert.fired_on == seen.period:
            return Seen.BYGONE if long or seen.next_held is not None else Seen.WITHDRAWN
        return Seen.LATE if long and alert.state is State.INACTIVE else Seen.BYGONE
    if holds:
        return Seen.LONG if long else Seen.SHORT
    kept = alert.held_at is not None and now < alert.held_at + kept_for(alert, alert.held_at, policy)
    return Seen.KEPT if kept else Seen.CLEAR


def kept_for(alert: Alert, held_at: datetime, policy: Policy) -> timedelta:
    """For how long it is kept firing after its condition was last seen to hold."""
    lately = sum(at > held_at - policy.flap_within for at in alert.fired)
    flapping = 0 < policy.flaps <= lately
    return max(policy.keep_firing, policy.flap_within if flapping else timedelta(0))


def may(alert: Alert, what: Act, now: datetime) -> bool:
    """Whether a person can do something to an alert now."""
    return (awake(alert, now).state, what) in ACTS


def act(alert: Alert, what: Act, now: datetime, period: date) -> Alert | None:
    """What becomes of an alert when a person does something to it; None where that cannot be. `period` is the newest."""
    alert = awake(alert, now)
    after = ACTS.get((alert.state, what))
    if after is None:
        return None
    if after is State.RESOLVED:
        alert = replace(alert, fired_on=None, held_at=None, settled=period)
    return replace(alert, state=after)


def snooze(alert: Alert, until: datetime) -> Alert:
    """Tell nobody before an instant, whether or not there is an alert yet."""
    return replace(alert, snoozed_until=until)


def reopened(alert: Alert) -> Alert:
    """What is left for the next one when an alert is over."""
    return replace(alert, state=State.INACTIVE) if alert.state is State.RESOLVED else alert
