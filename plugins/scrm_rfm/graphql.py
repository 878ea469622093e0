"""Scores, layers, runs and segments in GraphQL."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import sqlalchemy as sa
import strawberry

from scrm.api import (
    JSON,
    BigInt,
    Connection,
    Id,
    Money,
    Node,
    Query,
    StringFilter,
    User,
    UserFilter,
    arg,
    as_node_id,
    column,
    enum,
    expression,
    extend,
    filter,
    many,
    money,
    one,
    rows,
    where,
    worded,
)

from . import service
from .models import run_moves, runs, segments

READ, WRITE = "rfm:read", "rfm:write"
ALL_MOVES = 400
PLACE = sa.column("place", sa.Integer())


@enum(
    "How customers are scored.",
    QUINTILE="Compared with each other: by fifths, or by bounds that the rules give.",
    THRESHOLD="Compared with fixed lines: high value, potential, active, lost.",
)
class RfmMode(Enum):
    QUINTILE = "QUINTILE"
    THRESHOLD = "THRESHOLD"


@enum(
    "How far a run is.",
    PENDING="It was asked for and waits for its turn in the log.",
    DONE="Everybody is scored.",
    INSUFFICIENT_DATA="Nobody could be scored: too few have bought.",
)
class RfmRunState(Enum):
    PENDING = "PENDING"
    DONE = "DONE"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@enum(
    "A person's worth by what was spent within the window; the rules may say other shares.",
    HIGH="Fewer than 20 per cent of the buyers spent more.",
    MID="Fewer than 50 per cent of the buyers spent more.",
    LOW="Everybody else, and who has not bought.",
)
class ValueLayer(Enum):
    HIGH = "HIGH"
    MID = "MID"
    LOW = "LOW"


@enum(
    "How active a person is of late, in the last 30 days unless the rules say otherwise.",
    ACTIVE="Interacted or bought on 4 days or more, unless the rules say otherwise.",
    POTENTIAL="On fewer days, but on one.",
    SILENT="On none.",
)
class BehaviorLayer(Enum):
    ACTIVE = "ACTIVE"
    POTENTIAL = "POTENTIAL"
    SILENT = "SILENT"


@rows(segments, scope=READ, public=True, visible=lambda segment: segment.c.place > 0)
class RfmSegment:
    """A segment that customers are put in."""

    key: str = column("Stable key, UPPER_SNAKE.")
    name: str = worded("Name, in the request's language where there is one.", "name", "names")
    description: str = worded("Who is in it, in the request's language.", "description", "descriptions")


def _nobody(_row: Any) -> Any:
    """What the house earns is shown to nobody whose token names a user."""
    return sa.cast(sa.null(), Id)


def _is(key: Any, segment: Any) -> Any:
    return segment.c.key == key


@rows(service.standings, scope=READ, owner=lambda standing: standing.c.user_id, loads=service.loads)
class RfmScore:
    """How a person stands by a run. Who has not bought within the window is a prospect, without scores."""

    recency_days: int | None = column("Days from the last purchase to the run's day; null without a purchase.")
    frequency: int = column("How many days with a purchase, or orders, as the rules say.")
    monetary: Money = money("Paid less refunded.", lambda row: row.c.monetary, lambda row: row.c.currency)
    r: int | None = column("Score of recency, 5 best; null where nobody could be scored.")
    f: int | None = column("Score of frequency, 5 best.")
    m: int | None = column("Score of money, 5 best.")
    score: str | None = expression("The three scores as digits, such as 543.", service.score)
    segment: RfmSegment = one("The segment.", lambda row, segment: _is(row.c.segment, segment))
    as_of: dt.datetime = column("The instant as of which it holds.")
    computed_at: dt.datetime = column("When it was computed.")
    stale: bool = expression("Whether a newer run should be there: the last period is over for an hour.", service.is_stale)
    user: User | None = one("Whose.", lambda row, user: user.c.id == row.c.user_id)
    previous_segment: RfmSegment | None = one(
        "The segment by the run before; null where there is none.",
        lambda row, segment: _is(service.previous_segment(row), segment),
    )
    history: list[RfmScore] = many(
        "How the person stood by the runs of the rules then and before, newest first. Those without a row "
        "of this person are left out.",
        service.was,
        order=[service.standings.c.as_of.desc(), service.standings.c.run_id],
        first=arg(int | None, "How many, 1 to 100.", 12),
    )
    other_currency_events: int = expression(
        "Orders and refunds in another currency, which entered no number.",
        lambda row: sa.func.coalesce(row.c.other_currency_events, 0),
    )


@rows(None, public=True)
class HealthFactor:
    """One of the numbers that the health score is made of."""

    key: str = column("INTERACTIONS, SPENDING (in minor units) or ACTIVE_DAYS, of the behaviour layer's days.")
    value: BigInt = column("The number.")
    percentile: int = column("How many per cent of the others are below it, 0 to 100.")
    weight: float = column("Its share of the score, 0 to 1.")


@rows(service.standings, scope=READ, owner=lambda standing: standing.c.user_id, loads=service.loads)
class UserLayers:
    """A person's layers by the current run."""

    value: ValueLayer = column("By what was spent.", name="value_layer")
    behavior: BehaviorLayer = column("By how active of late.", name="behavior_layer")
    health: int | None = column(
        "Health score 健康度, 0 to 100: the weighted mean of the factors' percentiles; null where there is nothing to compare."
    )
    health_factors: list[HealthFactor] = many("What the health score is made of.", select=service.health_factors, order=[PLACE])
    as_of: dt.datetime = column("The instant as of which they hold.")
    computed_at: dt.datetime = column("When they were computed.")
    stale: bool = expression("Whether a newer run should be there.", service.is_stale)


@rows(None, public=True)
class RfmSegmentSummary:
    """A segment in a run: how many, how much, and what has changed since the run before."""

    segment: RfmSegment = one("The segment.", lambda row, segment: _is(row.c.segment, segment))
    count: int = column("How many buyers are in it.")
    share: float = column("Their share of all buyers, 0 to 1.")
    revenue: Money = money("What they spent within the window.", lambda row: row.c.revenue, lambda row: row.c.currency)
    change: int | None = column("How many came less how many left since the run before; null without one.")
    entered: int | None = column("How many came into it since the run before.")
    left: int | None = column("How many left it since.", name="went")


@rows(None, public=True)
class RfmCell:
    """A cell of the grid of recency by frequency."""

    r: int = column("Score of recency.")
    f: int = column("Score of frequency.")
    count: int = column("How many buyers.")
    share: float = column("Their share of all buyers, 0 to 1.")
    revenue: Money = money("What they spent within the window.", lambda row: row.c.revenue, lambda row: row.c.currency)


@rows(None, scope=READ, owner=_nobody)
class RfmTransition:
    """How many people went from one segment to another; staying is one too. Who had bought by neither run is in none."""

    from_: RfmSegment | None = one("The segment before.", lambda row, segment: _is(row.c.from_segment, segment))
    to: RfmSegment | None = one("The segment after.", lambda row, segment: _is(row.c.to_segment, segment))
    count: int = column("How many.")


MOVES = [sa.column("from_segment", run_moves.c.from_segment.type), sa.column("to_segment", run_moves.c.to_segment.type)]
CELLS = [sa.column("r", sa.SmallInteger()).desc(), sa.column("f", sa.SmallInteger()).desc()]
MOST_FIRST = [sa.column("count", sa.Integer()).desc(), sa.column("segment", segments.c.key.type)]


@rows(runs, scope=READ, owner=_nobody)
class RfmRun(Node):
    """A snapshot of everybody as of an instant."""

    as_of: dt.datetime = column("The instant: what happened later does not count.")
    state: RfmRunState = column("How far it is.")
    mode: RfmMode = column("How customers are scored.")
    population: int = column("How many buyers were compared.")
    bounds: JSON = column("By axis (recency in days, frequency, monetary in minor units) and score: count, least and most.")
    settings: JSON = column("All that the result depends on besides the log.")
    standing: bool = column("Whether mode and window are those of the rules, so that it may say how customers stand.")
    other_currency_events: BigInt = column("Orders and refunds in another currency, which entered no number.")
    position: BigInt | None = column("The place in the log up to which it was read.")
    computed_at: dt.datetime | None = column("When it was computed; null while it is pending.")
    duration_ms: int | None = column("How long it took, in milliseconds.")
    previous: RfmRun | None = one("The run that it is compared with.", lambda run, other: other.c.id == run.c.previous_id)
    transitions: list[RfmTransition] = many(
        "Who went where since the run before.", select=service.moves_of, order=MOVES, cap=ALL_MOVES
    )
    segments: list[RfmSegmentSummary] = many(
        "The segments, the largest first, those with nobody in them too.", select=service.segments_of, order=MOST_FIRST
    )
    grid: list[RfmCell] = many("Buyers by recency and frequency, the best first.", select=service.cells_of, order=CELLS)


@extend(User)
class RfmUser:
    """How a user stands."""

    rfm: RfmScore | None = one(
        "The person's RFM scores by the current run; null before there is one.", service.stands, scope=READ
    )
    layers: UserLayers | None = one(
        "The person's layers by the current run; null before there is one.", service.stands, scope=READ
    )


def _among(build: Any) -> Any:
    return lambda user, wanted: build(user).in_([each.value for each in wanted])


@extend(UserFilter)
class RfmFilter:
    """Users by how they stand."""

    rfm_segment: StringFilter | None = filter("By the key of the segment.", service.segment_of, scope=READ)
    rfm_score: StringFilter | None = filter("By the three scores as digits, such as 555.", service.score_of, scope=READ)
    value_layer: list[ValueLayer] | None = where("By the value layer: any of these.", _among(service.value_layer_of), scope=READ)
    behavior_layer: list[BehaviorLayer] | None = where(
        "By the behaviour layer: any of these.", _among(service.behavior_layer_of), scope=READ
    )


def _chosen(run: Any, id: Any, as_of: Any) -> Any:
    return service.chosen(run, None if id is None else as_node_id(id, "RfmRun"), as_of)


def _between(from_: Any, to: Any) -> Any:
    before, after = (None if each is None else as_node_id(each, "RfmRun") for each in (from_, to))
    return service.moves_between(before, after)


@extend(Query)
class RfmQuery:
    """Runs and segments to read."""

    rfm_run: RfmRun | None = one(
        "A run: of this id, or the newest of the rules as of an instant, or the one by which everybody stands.",
        _chosen,
        id=arg(strawberry.ID | None, "The run's id."),
        as_of=arg(dt.datetime | None, "The newest run as of this instant."),
        scope=READ,
    )
    rfm_runs: Connection[RfmRun] | None = many(
        "All runs, those as of the latest instant first.", order=[runs.c.as_of.desc(), runs.c.id.desc()], scope=READ
    )
    rfm_transitions: list[RfmTransition] | None = many(
        "Who went where between two runs whose rows are kept.",
        select=_between,
        order=MOVES,
        cap=ALL_MOVES,
        from_=arg(strawberry.ID | None, "The run before; by default the one that the other is compared with."),
        to=arg(strawberry.ID | None, "The run after; by default the current one."),
        scope=READ,
    )
    rfm_segments: list[RfmSegment] | None = many(
        "The segments: those of the map, then the others.", order=[segments.c.place], scope=READ
    )
