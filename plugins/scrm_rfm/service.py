"""How a person stands, as SQL on the person's row; what runs say; and the decision to make one.

Everybody stands by the current run: who has no row in it has not bought within its window. `user` has `.c.id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import Fact, Instant, Moment, Text, Tx, UserError, exported, hookimpl, instant_text, member, of_moment, users

from .models import current, people, requests, run_cells, run_moves, run_segments, runs
from .presets import PROSPECT
from .rules import LONGEST_WINDOW, RfmRules, closing
from .runs import DONE, INSUFFICIENT, moved, rows_of

LATE = timedelta(hours=1)
"""How long after a period's end its run may take before what is shown is stale."""
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
COMPUTED = (DONE, INSUFFICIENT)


def _closing(every: str) -> Any:
    def convert(moment: Moment) -> datetime:
        return closing(every, moment.now - LATE, moment.zone)

    return of_moment(f"rfm_closing_{every.lower()}", Instant(), convert)


CLOSINGS = {every: _closing(every) for every in ("DAY", "WEEK", "MONTH")}


def _standings() -> sa.Subquery:
    """Everybody in every run, with the run; where the run has no row for them, as who has not bought."""
    kept = [column for column in people.c if column.name not in ("run_id", "user_id", "holder_id")]
    none = {"frequency": 0, "monetary": 0, "segment": PROSPECT, "value_layer": "LOW", "behavior_layer": "SILENT"}
    shown = [sa.func.coalesce(column, none[column.name], type_=column.type) if column.name in none else column for column in kept]
    of_run = ("as_of", "computed_at", "currency", "every", "previous_id", "standing")
    weights = [column for column in runs.c if column.name.startswith("weight_")]
    return (
        sa.select(
            users.c.id,
            users.c.id.label("user_id"),
            runs.c.id.label("run_id"),
            people.c.holder_id,
            *(runs.c[name] for name in of_run),
            *weights,
            *(column.label(kept[place].name) for place, column in enumerate(shown)),
        )
        .select_from(
            users.join(runs, runs.c.computed_at.is_not(None)).outerjoin(
                people, sa.and_(people.c.run_id == runs.c.id, people.c.holder_id == users.c.id)
            )
        )
        .subquery("standings")
    )


standings = _standings()


def current_run() -> sa.ScalarSelect[uuid.UUID]:
    """The run by which everybody stands; null before there is one."""
    return sa.select(current.c.run_id).correlate(None).scalar_subquery()


def stands(user: Any, standing: Any) -> sa.ColumnElement[bool]:
    """The row says how the person stands now."""
    return sa.and_(standing.c.user_id == user.c.id, standing.c.run_id == current_run())


def loads(standing: Any, ids: Any) -> sa.ColumnElement[bool]:
    """The rows that say how these persons stand now."""
    return sa.and_(standing.c.run_id == current_run(), member(standing.c.id, ids))


def was(standing: Any, other: Any) -> sa.ColumnElement[bool]:
    """The other row says how the same person stood by a run of the rules, then or before."""
    return sa.and_(other.c.holder_id == standing.c.user_id, other.c.standing, other.c.as_of <= standing.c.as_of)


def is_stale(standing: Any) -> sa.ColumnElement[bool]:
    """A run as of a later instant should be there."""
    due = sa.case(*((standing.c.every == every, value) for every, value in CLOSINGS.items()), else_=CLOSINGS["DAY"])
    return sa.cast(standing.c.as_of < due, sa.Boolean())


def score(row: Any) -> sa.ColumnElement[str]:
    """The three scores as digits."""
    return sa.cast(100 * row.c.r + 10 * row.c.f + row.c.m, sa.Text)


def previous_segment(standing: Any) -> sa.ColumnElement[str]:
    """Key of the segment by the run that this one is compared with; null where there is none whose rows are kept."""
    mine = (
        sa.select(people.c.segment)
        .where(people.c.run_id == runs.c.id, people.c.holder_id == standing.c.user_id)
        .correlate(runs)
        .scalar_subquery()
    )
    known = sa.func.coalesce(mine, sa.literal(PROSPECT, Text), type_=Text)
    found = sa.select(known).where(runs.c.id == standing.c.previous_id, runs.c.kept)
    return found.correlate(None).scalar_subquery()


def health_factors(standing: Any) -> sa.Select[Any]:
    """What the health score is the mean of: `place`, `key`, `value`, `percentile`, `weight`."""
    c = standing.c
    total = c.weight_interactions + c.weight_spending + c.weight_active_days
    made = [
        sa.select(
            sa.literal(place).label("place"),
            sa.literal(key, Text).label("key"),
            sa.cast(c[name], sa.BigInteger).label("value"),
            c[f"{name}_rank"].label("percentile"),
            (sa.cast(c[f"weight_{name}"], sa.Double) / total).label("weight"),
        ).where(c.health.is_not(None))
        for place, (name, key) in enumerate(
            (("interactions", "INTERACTIONS"), ("spending", "SPENDING"), ("active_days", "ACTIVE_DAYS"))
        )
    ]
    each = sa.union_all(*made).subquery("factors")
    return sa.select(each)


# ---- filters


def _mine(user: Any, column: Any) -> sa.ColumnElement[Any]:
    now = (people.c.run_id == current_run(), people.c.holder_id == user.c.id)
    return sa.select(column).where(*now).correlate(None).scalar_subquery()


def segment_of(user: Any) -> sa.ColumnElement[str]:
    """Key of the person's segment; null before there is a run."""
    return _or_else(_mine(user, people.c.segment), PROSPECT)


def score_of(user: Any) -> sa.ColumnElement[str]:
    """The person's scores as digits; null without."""
    return _mine(user, score(people))


def value_layer_of(user: Any) -> sa.ColumnElement[str]:
    """The person's value layer; null before there is a run."""
    return _or_else(_mine(user, people.c.value_layer), "LOW")


def behavior_layer_of(user: Any) -> sa.ColumnElement[str]:
    """The person's behaviour layer; null before there is a run."""
    return _or_else(_mine(user, people.c.behavior_layer), "SILENT")


def _or_else(mine: sa.ColumnElement[Any], word: str) -> sa.ColumnElement[str]:
    return sa.case((current_run().is_not(None), sa.func.coalesce(mine, sa.literal(word, Text), type_=Text)), else_=sa.null())


# ---- runs


def chosen(run: Any, id: Any, as_of: Any) -> sa.ColumnElement[bool]:
    """The run of an id; or the newest of the rules as of an instant; or the one by which everybody stands."""
    if id is not None:
        return _is(run.c.id, id)
    if as_of is None:
        return _is(run.c.id, current_run())
    newest = sa.select(runs.c.id).where(runs.c.as_of <= as_of, runs.c.standing, runs.c.state.in_(COMPUTED))
    newest = newest.order_by(runs.c.as_of.desc(), runs.c.position.desc(), runs.c.id).limit(1)
    return _is(run.c.id, newest.correlate(None).scalar_subquery())


def _is(column: Any, value: Any) -> sa.ColumnElement[bool]:
    same: sa.ColumnElement[bool] = column == value
    return same


def segments_of(run: Any) -> sa.Select[Any]:
    """The segments of a run: `segment`, `count`, `revenue`, `currency`, `share`, `change`, `entered`,
    `went`."""
    c = run_segments.c
    compared = run.c.previous_id.is_not(None)
    came = _moves(run, run_moves.c.to_segment, run_moves.c.from_segment)
    went = _moves(run, run_moves.c.from_segment, run_moves.c.to_segment)
    return sa.select(
        c.segment,
        c.count,
        c.revenue,
        run.c.currency.label("currency"),
        _share(c.count, run).label("share"),
        sa.case((compared, came - went), else_=sa.null()).label("change"),
        sa.case((compared, came), else_=sa.null()).label("entered"),
        sa.case((compared, went), else_=sa.null()).label("went"),
    ).where(c.run_id == run.c.id)


def _moves(run: Any, of: Any, other: Any) -> sa.ColumnElement[int]:
    counted = sa.select(sa.func.coalesce(sa.func.sum(run_moves.c.count), 0))
    found = counted.where(run_moves.c.run_id == run.c.id, of == run_segments.c.segment, other != of)
    return sa.cast(found.correlate(run_segments).scalar_subquery(), sa.Integer)


def cells_of(run: Any) -> sa.Select[Any]:
    """The R×F grid of a run: `r`, `f`, `count`, `revenue`, `currency`, `share`."""
    c = run_cells.c
    more = (run.c.currency.label("currency"), _share(c.count, run).label("share"))
    return sa.select(c.r, c.f, c.count, c.revenue, *more).where(c.run_id == run.c.id)


def _share(count: Any, run: Any) -> sa.ColumnElement[float]:
    all_of_them = sa.cast(run.c.population, sa.Double)
    return sa.case((run.c.population > 0, sa.cast(count, sa.Double) / all_of_them), else_=sa.cast(sa.literal(0), sa.Double))


def moves_of(run: Any) -> sa.Select[Any]:
    """How many went from which segment to which since the run before: `from_segment`, `to_segment`, `count`."""
    c = run_moves.c
    return sa.select(c.from_segment, c.to_segment, c.count).where(c.run_id == run.c.id)


def moves_between(before: Any, after: Any) -> sa.Select[Any]:
    """The same between any two runs whose rows are kept; by default the current one and the one before it."""
    after = current_run() if after is None else after
    if before is None:
        before = sa.select(runs.c.previous_id).where(runs.c.id == after).correlate(None).scalar_subquery()
    each = moved(before, after).subquery("each")
    both = sa.select(sa.func.count()).select_from(runs).where(runs.c.kept, sa.or_(runs.c.id == before, runs.c.id == after))
    keys = (each.c.from_segment, each.c.to_segment)
    counted = sa.select(*keys, sa.cast(sa.func.count(), sa.Integer).label("count"))
    return counted.where(both.correlate(None).scalar_subquery() == 2).group_by(*keys)


# ---- a run on demand


def ask_for_run(tx: Tx, input: Mapping[str, Any], rules: RfmRules, at: datetime) -> Fact | UserError:
    """Ask for a run as of an instant that is over, from 1900 on; now unless said.

    Refuses with INVALID_AS_OF, INVALID_WINDOW.
    """
    as_of = datetime.fromisoformat(input["asOf"]) if input["asOf"] is not None else at
    window = input["windowDays"]
    if not EARLIEST <= as_of <= at:
        message = f"asOf is {instant_text(as_of)}; ask for an instant that is over, from 1900 on"
        return UserError("INVALID_AS_OF", message, ("asOf",), {"asOf": instant_text(as_of)})
    if window is not None and not 0 <= window <= LONGEST_WINDOW:
        message = f"windowDays is {window}; give 1 to {LONGEST_WINDOW}, or 0 for all time"
        return UserError("INVALID_WINDOW", message, ("windowDays",), {"windowDays": window})
    return Fact(None, {"asOf": instant_text(as_of), "mode": input["mode"], "windowDays": window})


def asked_for(tx: Tx, event_id: uuid.UUID) -> uuid.UUID:
    """The run that an event asked for."""
    found: uuid.UUID = tx.scalar(sa.select(requests.c.run_id).where(requests.c.id == event_id))
    return found


def is_made(tx: Tx, run: uuid.UUID) -> bool:
    """Whether a run is as it was last asked for."""
    return bool(tx.scalar(sa.select(runs.c.wanted_id == runs.c.made_by_id).where(runs.c.id == run)))


# ---- people


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """In how many runs a person has a row."""
    return int(tx.scalar(sa.select(sa.func.count()).select_from(people).where(rows_of([user]))))


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """A person's scores and layers, oldest run first."""
    joined = people.join(runs, runs.c.id == people.c.run_id)
    asked = sa.select(runs.c.as_of, runs.c.mode, people).select_from(joined).where(rows_of([user]))
    return exported(tx, {"scores": asked.order_by(runs.c.as_of, runs.c.id)})
