"""A run: asked for, computed from the log by a statement, counted, compared with the one before, and announced.

A run's id follows from its instant and its settings, so that asking again is asking for the same run. It is made anew only where
the log has got something since that may change it; then its rows take the place of the old.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.api import (
    Announcement,
    HandlerTx,
    Id,
    LogEvent,
    NewFact,
    Tx,
    derive_id,
    events,
    insert_rows,
    instant_text,
    upsert,
)

from .events import CHANGED, DUE
from .models import current, erased, merges, people, requests, run_cells, run_moves, run_segments, runs
from .presets import PROSPECT
from .rules import FEWEST_BUYERS, Parameters, RfmRules, closing
from .scores import READ, Scoring, scores
from .words import keep_words

AFTER_MIDNIGHT = timedelta(minutes=15)
"""When the job finds that a period is over, so that what its last minutes brought is there."""
LATE, WHILE_FEW = timedelta(minutes=10), timedelta(minutes=1)
"""How long after a run it is made anew for what came late, at the soonest; sooner while there are too few buyers for one, as on
the day on which a history is imported."""
DONE, PENDING, INSUFFICIENT = "DONE", "PENDING", "INSUFFICIENT_DATA"
ONE = 1
SCORES = range(1, 6)
NOBODY = {"count": 0, "revenue": 0}
AXES = (("r", "recency_days"), ("f", "frequency"), ("m", "monetary"))


def run_id(as_of: datetime, parameters: Parameters) -> uuid.UUID:
    """A run's id: the same for the same instant and settings."""
    return derive_id(uuid.UUID(int=0), "rfm", instant_text(as_of), parameters.digest)


def due_run(tx: Tx, due: datetime, rules: RfmRules) -> list[NewFact]:
    """What the job records: that the newest period is over, unless its run was made; that everybody is to stand by a run that is
    there, where the rules were put back or are now what a run was asked for with; that something came since that belongs to it.
    The same again changes nothing."""
    closed = closing(rules.every, due - AFTER_MIDNIGHT, rules.zone)
    parameters = Parameters.of(rules, {})
    run = tx.row(sa.select(runs).where(runs.c.id == run_id(closed, parameters), runs.c.made_by_id.is_not(None)))
    if run is None:
        return [_due(closed, parameters, due)]
    stood = _stood(tx)
    alike = sa.select(runs.c.id, runs.c.as_of).where(runs.c.digest == parameters.digest, runs.c.made_by_id.is_not(None))
    newest = tx.row(alike.order_by(runs.c.as_of.desc()).limit(1))
    if newest is not None and (stood is None or stood.id != newest.id):
        return [_due(newest.as_of, parameters, due, stood.made_by_id.hex if stood is not None else "first")]
    wait = LATE if run.population >= FEWEST_BUYERS else WHILE_FEW
    if due < run.computed_at + wait or not _came_late(tx, run):
        return []
    return [_due(closed, parameters, due, instant_text(due))]


def _due(as_of: datetime, parameters: Parameters, due: datetime, *again: str) -> NewFact:
    """The fact that a run is due; `again` says what for, where it is there already."""
    said = instant_text(as_of)
    return NewFact(DUE, ":".join((said, parameters.digest, *again)), {"asOf": said}, due)


def _came_late(tx: Tx, run: Row[Any]) -> bool:
    """Whether something was recorded since a run that had happened by its instant."""
    since = sa.and_(events.c.position > run.position, events.c.occurred_at <= run.as_of, events.c.type.in_(READ))
    return tx.row(sa.select(events.c.id).where(since).limit(1)) is not None


def ask(tx: HandlerTx, event: LogEvent, rules: RfmRules) -> None:
    """Let a run be computed in its turn in the log; until then it is pending."""
    said = event.properties
    parameters = Parameters.of(rules, said)
    as_of = _instant(said["asOf"])
    asked = run_id(as_of, parameters)
    made = tx.announce(Announcement(DUE, event, None, properties={**said, "run": asked.hex}))
    _note(tx, asked, as_of, parameters, made)
    tx.execute(sa.insert(requests).values(id=event.id, run_id=asked))


def compute(tx: HandlerTx, event: LogEvent, rules: RfmRules) -> None:
    """Compute the run that is due."""
    started = perf_counter()
    said = event.properties
    parameters, as_of = Parameters.of(rules, said), _instant(said["asOf"])
    made = uuid.UUID(said["run"]) if said.get("run") else run_id(as_of, parameters)
    before = _note(tx, made, as_of, parameters, event.id)
    previous, newest = _previous(tx, made, as_of, parameters), _becomes_current(tx, event, made, as_of, parameters)
    if before is not None and _is_as_it_would_be(tx, event, before, parameters):
        tx.execute(sa.update(runs).where(runs.c.id == made).values(made_by_id=event.id))
        if newest:
            _announce(tx, event, made, previous, made, before.state)
            _stand_by(tx, made)
        return
    again = before is not None and before.made_by_id is not None
    fresh = derive_id(event.id, "fresh") if again else made
    tx.execute(scores(Scoring(tx, event, as_of, rules.day(as_of), parameters), fresh))
    groups = _groups(tx, fresh)
    state = DONE if _population(groups) and all(group.segment != INSUFFICIENT for group in groups) else INSUFFICIENT
    if newest:
        _announce(tx, event, fresh, previous, made, state)
    if again:
        _clear(tx, made)
        tx.execute(sa.update(people).where(people.c.run_id == fresh).values(run_id=made))
    _count(tx, made, groups, parameters.keys if state == DONE else ())
    if previous is not None and state == DONE:
        _count_moves(tx, made, previous)
    if again:
        _count_moves_since(tx, made)
    told = {"state": state, "made_by_id": event.id, "position": event.position, "computed_at": event.received_at}
    counted = {"population": _population(groups), "bounds": _bounds(groups), "previous_id": previous, "kept": True}
    other = {"other_currency_events": sum(group.other for group in groups)}
    took = {"duration_ms": round((perf_counter() - started) * 1000)}
    tx.execute(sa.update(runs).where(runs.c.id == made).values(**told, **counted, **other, **took))
    if newest:
        _stand_by(tx, made)
    _forget(tx, rules.keep_runs)


def _note(tx: HandlerTx, asked: uuid.UUID, as_of: datetime, parameters: Parameters, wanted: uuid.UUID) -> Row[Any] | None:
    """Let the run have a row, with what it is to be computed with; returns the row it had."""
    before = tx.row(sa.select(runs).where(runs.c.id == asked))
    rules, weights = parameters.rules, parameters.rules.health_weights
    keep_words(tx, rules)
    given = {
        "digest": parameters.digest,
        "standing": parameters.standing,
        "mode": parameters.mode.upper(),
        "every": rules.every,
        "currency": rules.currency,
        "settings": parameters.settings,
        "weight_interactions": weights.interactions,
        "weight_spending": weights.spending,
        "weight_active_days": weights.active_days,
        "wanted_id": wanted,
    }
    fresh = {"state": PENDING, "population": 0, "other_currency_events": 0, "bounds": {}, "kept": False}
    insert = upsert(tx, runs).values(id=asked, as_of=as_of, day=rules.day(as_of), **given, **fresh)
    kept = given | {"standing": sa.or_(runs.c.standing, sa.literal(parameters.standing))}
    tx.execute(insert.on_conflict_do_update(index_elements=["id"], set_=kept))
    return before


def _is_as_it_would_be(tx: HandlerTx, event: LogEvent, run: Row[Any], parameters: Parameters) -> bool:
    """Whether nothing has come since the run that may change it."""
    if run.made_by_id is None or not run.kept or run.digest != parameters.digest:
        return False
    log = tx.history(READ, until=event)
    late = sa.select(sa.literal(1)).where(log.c.position > run.position, log.c.occurred_at <= run.as_of).limit(1)
    moved = sa.select(sa.literal(1)).where(sa.or_(merges.c.position > run.position, merges.c.undone_at > run.position)).limit(1)
    return tx.scalar(late) is None and tx.scalar(moved) is None


def _previous(tx: Tx, made: uuid.UUID, as_of: datetime, parameters: Parameters) -> uuid.UUID | None:
    """The newest run before it that says how the same people stood: of those of the rules, or of those with its settings."""
    like = runs.c.standing if parameters.standing else runs.c.digest == parameters.digest
    since = runs.c.previous_id.is_not_distinct_from(made)  # of the same instant and other rules, and compared with this one
    earlier = (runs.c.id != made, like, runs.c.state == DONE, runs.c.kept, runs.c.as_of <= as_of, ~since)
    found: uuid.UUID | None = tx.scalar(
        sa.select(runs.c.id).where(*earlier).order_by(runs.c.as_of.desc(), runs.c.position.desc(), runs.c.id).limit(1)
    )
    return found


def _stood(tx: Tx) -> Row[Any] | None:
    """The run by which everybody stands."""
    return tx.row(sa.select(runs).join(current, current.c.run_id == runs.c.id))


def _becomes_current(tx: Tx, event: LogEvent, made: uuid.UUID, as_of: datetime, parameters: Parameters) -> bool:
    """Whether everybody stands by this run from now on: no other of the rules is of a later instant, and where a later one
    of other rules held until now, it is of the newest period at least."""
    if not parameters.standing:
        return False
    later = sa.select(runs.c.id).where(runs.c.digest == parameters.digest, runs.c.made_by_id.is_not(None), runs.c.as_of > as_of)
    if tx.row(later.limit(1)) is not None:
        return False
    stood = _stood(tx)
    if stood is None or stood.id == made or stood.as_of <= as_of:
        return True
    rules = parameters.rules
    return as_of >= closing(rules.every, event.occurred_at - AFTER_MIDNIGHT, rules.zone)


def _stand_by(tx: Tx, made: uuid.UUID) -> None:
    insert = upsert(tx, current).values(one=ONE, run_id=made)
    tx.execute(insert.on_conflict_do_update(index_elements=["one"], set_={"run_id": made}))


# ---- what is counted


def _groups(tx: Tx, made: uuid.UUID) -> Sequence[Row[Any]]:
    """How many people have each cell and segment, what they spent, and between which values they lie."""
    c = people.c
    ends = [
        column.label(f"{name}_{end}")
        for _, name in AXES
        for end, column in (("least", sa.func.min(c[name])), ("most", sa.func.max(c[name])))
    ]
    sums = [
        sa.func.count().label("number"),
        sa.cast(sa.func.sum(c.monetary), sa.BigInteger).label("revenue"),
        sa.cast(sa.func.sum(c.other_currency_events), sa.BigInteger).label("other"),
    ]
    keys = (c.r, c.f, c.m, c.segment)
    found = tx.rows(sa.select(*keys, *sums, *ends).where(c.run_id == made).group_by(*keys))
    return sorted(found, key=lambda row: (row.segment, row.r or 0, row.f or 0, row.m or 0))


def _population(groups: Sequence[Row[Any]]) -> int:
    return sum(group.number for group in groups if group.segment != PROSPECT)


def _bounds(groups: Sequence[Row[Any]]) -> dict[str, list[dict[str, int]]]:
    """For each axis and score: how many people have it, and the least and the most of what they have."""
    said: dict[str, list[dict[str, int]]] = {}
    for axis, name in AXES:
        scored = [group._mapping for group in groups if group._mapping[axis] is not None]
        said[name] = []
        for score in sorted({group[axis] for group in scored}):
            those = [group for group in scored if group[axis] == score]
            ends = {
                "least": min(group[f"{name}_least"] for group in those),
                "most": max(group[f"{name}_most"] for group in those),
            }
            said[name].append({"score": score, "count": sum(group["number"] for group in those), **ends})
    return {"recency": said["recency_days"], "frequency": said["frequency"], "monetary": said["monetary"]}


def _count(tx: Tx, made: uuid.UUID, groups: Sequence[Row[Any]], keys: Sequence[str]) -> None:
    """Keep how many are in each segment and cell, and what they spent; `keys` are segments that may be empty."""
    buyers = [group for group in groups if group.segment != PROSPECT]
    segmented = dict.fromkeys(keys, NOBODY) | _summed((group.segment, group) for group in buyers)
    celled = _summed(((group.r, group.f), group) for group in buyers if group.r is not None)
    insert_rows(tx, run_segments, [{"run_id": made, "segment": segment, **sums} for segment, sums in segmented.items()])
    if celled:
        grid = product(SCORES, SCORES)
        insert_rows(tx, run_cells, [{"run_id": made, "r": r, "f": f, **celled.get((r, f), NOBODY)} for r, f in grid])


def _summed(keyed: Iterable[tuple[Any, Row[Any]]]) -> dict[Any, dict[str, int]]:
    found: dict[Any, dict[str, int]] = {}
    for key, group in keyed:
        sums = found.setdefault(key, dict(NOBODY))
        sums["count"] += group.number
        sums["revenue"] += group.revenue
    return found


# ---- who moved


def moved(before: Any, after: Any) -> sa.Select[Any]:
    """Everybody who had bought by one of two runs, given by what their ids are: `holder_id`, `from_segment`, `to_segment`,
    `score` by the second.

    Who is in one of them only has not bought by the other. Who was absorbed or forgotten since is left out.
    """
    old, new = people.alias("old"), people.alias("new")
    nobody = sa.literal(PROSPECT, people.c.segment.type)
    score = sa.cast(100 * new.c.r + 10 * new.c.f + new.c.m, sa.Text).label("score")
    came = (
        sa.select(
            new.c.holder_id,
            sa.func.coalesce(old.c.segment, nobody, type_=people.c.segment.type).label("from_segment"),
            new.c.segment.label("to_segment"),
            score,
        )
        .select_from(new.outerjoin(old, sa.and_(old.c.run_id == before, old.c.holder_id == new.c.holder_id)))
        .where(new.c.run_id == after, sa.or_(new.c.segment != nobody, old.c.segment != nobody))
    )
    still = sa.exists().where(new.c.run_id == after, new.c.holder_id == old.c.holder_id)
    absorbed = sa.exists().where(merges.c.absorbed_id == old.c.holder_id, merges.c.undone_at.is_(None))
    went = sa.select(old.c.holder_id, old.c.segment, nobody, sa.cast(sa.null(), sa.Text)).where(
        old.c.run_id == before, old.c.segment != nobody, ~still, ~absorbed
    )
    return sa.union_all(came, went)  # type: ignore[return-value]


def _count_moves(tx: Tx, made: uuid.UUID, previous: uuid.UUID) -> None:
    """Keep how many went from which segment to which."""
    each = moved(sa.literal(previous, Id), sa.literal(made, Id)).subquery("each")
    keys = (each.c.from_segment, each.c.to_segment)
    counted = sa.select(sa.literal(made, Id), *keys, sa.func.count()).group_by(*keys)
    tx.execute(sa.insert(run_moves).from_select(["run_id", "from_segment", "to_segment", "count"], counted))


def _count_moves_since(tx: Tx, made: uuid.UUID) -> None:
    """Count the moves from a run that was made anew again, in the runs that are compared with it and whose rows are kept."""
    since = sa.select(runs.c.id).where(runs.c.previous_id == made, runs.c.state == DONE, runs.c.kept).order_by(runs.c.id)
    for row in tx.rows(since):
        tx.execute(sa.delete(run_moves).where(run_moves.c.run_id == row.id))
        _count_moves(tx, row.id, made)


def _announce(tx: HandlerTx, event: LogEvent, rows: uuid.UUID, previous: uuid.UUID | None, run: uuid.UUID, state: str) -> None:
    """Say who is in another segment by these rows of a run than by the one by which everybody stood until now; where that could
    score nobody, than by the run before."""
    stood = _stood(tx)
    before = stood.id if stood is not None and stood.state == DONE else previous
    if state != DONE or before is None or before == rows:
        return
    each = moved(sa.literal(before, Id), sa.literal(rows, Id)).subquery("each")
    changed = sa.select(each).where(each.c.from_segment != each.c.to_segment).order_by(each.c.holder_id)
    told = {"asOf": event.properties["asOf"], "run": run.hex}
    for row in tx.rows(changed):
        said: Mapping[str, Any] = {"from": row.from_segment, "to": row.to_segment, "score": row.score, **told}
        tx.announce(Announcement(CHANGED, event, row.holder_id, said, key=row.holder_id.hex))


# ---- what is forgotten


def _clear(tx: Tx, run: uuid.UUID) -> None:
    for table in (people, run_segments, run_cells, run_moves):
        tx.execute(sa.delete(table).where(table.c.run_id == run))


def _forget(tx: Tx, keep: int) -> None:
    """Let go of the rows of people of the oldest runs, by when they were made; never of those by which everybody stands."""
    kept = sa.select(runs.c.id).where(runs.c.kept).order_by(runs.c.position.desc(), runs.c.id)
    now = tx.scalar(sa.select(current.c.run_id))
    old = [row.id for row in tx.rows(kept.offset(keep)) if row.id != now]
    if not old:
        return
    tx.execute(sa.delete(people).where(people.c.run_id.in_(old)))
    tx.execute(sa.update(runs).where(runs.c.id.in_(old)).values(kept=False))


def rows_of(holders: Sequence[uuid.UUID]) -> sa.ColumnElement[bool]:
    """The rows of people that count as these persons'."""
    return people.c.run_id.in_(sa.select(runs.c.id).where(runs.c.kept)) & people.c.holder_id.in_(holders)


def forget_person(tx: Tx, users: Sequence[uuid.UUID]) -> None:
    """Take somebody out of all runs, those to come too."""
    tx.execute(sa.delete(people).where(rows_of(users)))
    tx.execute(upsert(tx, erased).on_conflict_do_nothing(index_elements=["user_id"]), [{"user_id": user} for user in users])


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
