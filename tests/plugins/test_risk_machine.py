"""The state machine of alerts, cell by cell, and what it does over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product

import pytest

from scrm_risk import machine
from scrm_risk.machine import ACTS, FAILED, OPEN, TABLE, Act, Alert, Failed, Policy, Sample, Seen, State, act, awake, snooze, step

NOW = datetime(2026, 3, 10, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TODAY, BEFORE = date(2026, 3, 9), date(2026, 3, 5)
POLICY = Policy(periods=2, keep_firing=HOUR)
S, N = State, Seen

HELD = NOW - timedelta(minutes=30)
"""When it was last seen to hold, for what is kept firing; an hour earlier, for what is not."""
READINGS: dict[Seen, Sample | Failed] = {
    N.SHORT: Sample(TODAY, True, 1),
    N.LONG: Sample(TODAY, True, 2),
    N.KEPT: Sample(TODAY, False, 0),
    N.CLEAR: Sample(TODAY, False, 0),
    N.MISSING: Sample(TODAY, None, 0),
    N.ERROR: FAILED,
    N.LATE: Sample(BEFORE, True, 2, late=True),
    N.WITHDRAWN: Sample(BEFORE, False, 0, late=True),
    N.BYGONE: Sample(date(2026, 3, 6), False, 0, late=True),
}
EXPECTED = """
             SHORT LONG KEPT CLEAR MISSING ERROR LATE WITHDRAWN BYGONE
INACTIVE     P     F    I    I     I       I     F    I         I
PENDING      P     F    R    R     R       P     F    R         P
FIRING       F     F    F    R     F       F     F    R         F
ACKNOWLEDGED A     A    A    R     A       A     A    R         A
"""


def cells(text: str) -> list[tuple[State, Seen, State]]:
    head, *rows = [line.split() for line in text.strip().splitlines()]
    letters = {state.value[0]: state for state in State if state is not S.SNOOZED}
    return [(State(row[0]), Seen(seen), letters[to]) for row in rows for seen, to in zip(head, row[1:], strict=True)]


@pytest.mark.parametrize(("before", "seen", "after"), cells(EXPECTED))
def test_every_cell(before: State, seen: Seen, after: State) -> None:
    held = HELD if seen is N.KEPT else HELD - HOUR
    fired_on = BEFORE if before in OPEN and seen in (N.LATE, N.WITHDRAWN) else None
    alert = Alert(before, held_at=held if before in OPEN else None, fired_on=fired_on)
    reading = READINGS[seen]
    found = machine.classify(alert, reading, NOW, POLICY)
    impossible = (seen is N.KEPT and before is S.INACTIVE) or (before is S.INACTIVE and seen is N.WITHDRAWN)
    if seen is N.LATE and before in OPEN:
        assert found is N.BYGONE  # only what is not open can fire of what came late
    elif not impossible:
        assert found is seen
    assert TABLE[before, seen] is after
    if found is seen:
        assert step(alert, reading, NOW, POLICY).state is after


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(product((S.INACTIVE, *OPEN), Seen))
    assert {to for (_, seen), to in TABLE.items() if seen is N.ERROR} == {S.INACTIVE, *OPEN}
    assert all(to is before for (before, seen), to in TABLE.items() if seen in (N.ERROR, N.BYGONE))
    assert {before: to for (before, seen), to in TABLE.items() if seen is N.MISSING and to is not before} == {
        S.PENDING: S.RESOLVED
    }


@pytest.mark.parametrize(("before", "what"), list(product((S.INACTIVE, *OPEN, S.RESOLVED), Act)))
def test_what_people_may_do(before: State, what: Act) -> None:
    found = act(Alert(before, held_at=NOW), what, NOW, TODAY)
    assert (found.state if found else None) == ACTS.get((before, what))
    if what is Act.RESOLVE and found is not None:
        assert (found.settled, found.held_at) == (TODAY, None)


def run(policy: Policy, seen: Sequence[Sample | Failed], every: timedelta = DAY, alert: Alert | None = None) -> str:
    """The first letters of the states after each reading, one `every`."""
    letters, at = "", NOW
    alert = alert or Alert()
    for reading in seen:
        alert = step(alert, reading, at, policy)
        letters += alert.shown(at).value[0]
        alert, at = machine.reopened(alert), at + every
    return letters


def days(text: str, first: date = TODAY) -> list[Sample | Failed]:
    """One reading a letter: + holds, - does not, ? is missing, ! failed."""
    made: list[Sample | Failed] = []
    streak = 0
    for number, letter in enumerate(text):
        streak = streak + 1 if letter == "+" else streak if letter == "!" else 0
        holds = {"+": True, "-": False, "?": None}.get(letter)
        made.append(FAILED if letter == "!" else Sample(first + number * DAY, holds, streak))
    return made


@pytest.mark.parametrize(
    ("text", "policy", "states"),
    [
        ("+", Policy(), "F"),
        ("++-", Policy(), "FFR"),
        ("++-", Policy(periods=2), "PFR"),
        ("+-+", Policy(periods=2), "PRP"),  # pending that clears is over, and nobody was told
        ("+++", Policy(periods=3), "PPF"),
        ("+!-", Policy(), "FFR"),
        ("!!", Policy(), "II"),
        ("+?-", Policy(), "FFR"),
        ("+?+", Policy(periods=2), "PRP"),  # what is missing bridges nothing
        ("+?++", Policy(periods=2), "PRPF"),
        ("++?+", Policy(periods=2), "PFFF"),  # and ends nothing that fires
        ("+!+", Policy(periods=2), "PPF"),  # an error is no value that is missing
        ("+?-", Policy(missing="OK"), "FRI"),
        ("??", Policy(missing="ALERT"), "FF"),
        ("-?", Policy(missing="OK"), "II"),
        ("+--+", Policy(keep_firing=DAY), "FRIF"),  # kept for less than a day: over when the day is over
        ("+--+", Policy(keep_firing=DAY + HOUR), "FFRF"),
        ("+-+-+-----", Policy(flaps=3, flap_within=7 * DAY), "FRFRFFFFFF"),
        ("+-+-+--------", Policy(flaps=3, flap_within=7 * DAY), "FRFRFFFFFFFRI"),
        ("+-+-+-", Policy(flaps=0, flap_within=7 * DAY), "FRFRFR"),
    ],
)
def test_over_days(text: str, policy: Policy, states: str) -> None:
    alert_missing = [replace(each, streak=9) if isinstance(each, Sample) and each.holds is None else each for each in days(text)]
    assert run(policy, alert_missing) == states


def test_a_snooze_ends_by_itself_and_may_begin_before() -> None:
    asleep = snooze(Alert(), NOW + 2 * DAY)
    assert asleep.shown(NOW) is S.INACTIVE
    assert run(Policy(), days("+++"), alert=asleep) == "SSF"
    one = NOW + 2 * DAY
    fires = step(asleep, Sample(TODAY, True, 1), NOW, Policy())
    tick = timedelta(microseconds=1)
    assert [fires.shown(at) for at in (one - tick, one, one + tick)] == [S.SNOOZED, S.FIRING, S.FIRING]
    assert awake(fires, one - tick).snoozed_until == one
    assert awake(fires, one).snoozed_until is None
    over = step(fires, Sample(TODAY + DAY, False, 0), NOW + DAY, Policy())
    assert (over.state, over.snoozed_until) == (S.RESOLVED, one)  # what fires again before is silent too


def test_kept_firing_to_the_instant() -> None:
    fires = step(Alert(), Sample(TODAY, True, 1), NOW, Policy(keep_firing=HOUR))
    clear, tick = Sample(TODAY, False, 0), timedelta(microseconds=1)
    states = [step(fires, clear, NOW + HOUR + more, Policy(keep_firing=HOUR)).state for more in (-tick, 0 * tick, tick)]
    assert states == [S.FIRING, S.RESOLVED, S.RESOLVED]


def test_what_a_person_resolved_needs_a_newer_period() -> None:
    fires = step(Alert(), Sample(TODAY, True, 1), NOW, Policy())
    resolved = act(fires, Act.RESOLVE, NOW, TODAY)
    assert resolved is not None
    settled = machine.reopened(resolved)
    assert step(settled, Sample(TODAY, True, 1), NOW + HOUR, Policy()).state is S.INACTIVE
    assert step(settled, Sample(BEFORE, True, 1, late=True), NOW + HOUR, Policy()).state is S.INACTIVE
    assert step(settled, Sample(TODAY + DAY, True, 2), NOW + DAY, Policy()).state is S.FIRING


def test_late_data() -> None:
    fires = step(Alert(), Sample(TODAY, True, 1), NOW, Policy())
    withdrawn = step(fires, Sample(TODAY, False, 0, late=True), NOW + DAY, Policy())
    assert withdrawn.state is S.RESOLVED
    assert step(fires, Sample(BEFORE, False, 0, late=True), NOW, Policy()).state is S.FIRING
    assert step(Alert(), Sample(BEFORE, True, 1, late=True), NOW, Policy(periods=2)).state is S.INACTIVE
    assert step(Alert(), Sample(BEFORE, True, 2, late=True), NOW, Policy(periods=2)).state is S.FIRING


def faults() -> list[tuple[str, dict[tuple[State, Seen], State]]]:
    """The table with one cell wrong, each cell in turn."""
    return [
        (f"{before} {seen}", {**TABLE, (before, seen): S.RESOLVED if to is not S.RESOLVED else before})
        for (before, seen), to in TABLE.items()
    ]


@pytest.mark.parametrize(("name", "table"), faults(), ids=[name for name, _ in faults()])
def test_a_wrong_cell_is_noticed(name: str, table: dict[tuple[State, Seen], State], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TABLE", table)
    assert [(before, seen) for before, seen, after in cells(EXPECTED) if machine.TABLE[before, seen] is not after]
