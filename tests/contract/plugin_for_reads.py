"""A plugin that uses every kind of source, with values that are awkward to compare, sort and print."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    JSON,
    NOW,
    BatchInfo,
    BigInt,
    Connection,
    Contribution,
    DateFilter,
    DateTimeFilter,
    Direction,
    EventType,
    Id,
    Instant,
    IntFilter,
    Json,
    Node,
    Query,
    Scope,
    StringFilter,
    Text,
    Tx,
    User,
    UserFilter,
    UserOrder,
    arg,
    batch,
    column,
    combine,
    expression,
    extend,
    filter,
    filter_input,
    hookimpl,
    many,
    one,
    order_input,
    ordering,
    plugin_metadata,
    rows,
    same_row,
    users,
    where,
)
from scrm.graphql.enums import enum

metadata = plugin_metadata()
note_table = sa.Table(
    "reads_notes",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("score", sa.BigInteger),
    sa.Column("weight", sa.Float),
    sa.Column("label", Text),
    sa.Column("mood", Text, nullable=False),
    sa.Column("pinned", sa.Boolean(create_constraint=False)),
    sa.Column("written_at", Instant),
    sa.Column("day", sa.Date),
    sa.Column("data", Json),
    sa.Index("ix_reads_notes_user_id", "user_id"),
)


@enum("How a note sounds.", GLAD="Glad.", GREY="Neither.", SORE="Not glad.")
class Mood(Enum):
    GLAD = "GLAD"
    GREY = "GREY"
    SORE = "SORE"


# ---- SQL


def score(user: Any, at_least: Any = None, mood: Any = None) -> sa.ColumnElement[Any]:
    """Sum of a user's scores; null without any."""
    conditions = [note_table.c.user_id == user.c.id]
    if at_least is not None:
        conditions.append(note_table.c.rank >= at_least)
    if mood is not None:
        conditions.append(note_table.c.mood == mood.value)
    return sa.select(sa.cast(sa.func.sum(note_table.c.score), sa.BigInteger)).where(*conditions).scalar_subquery()


def how_many(user: Any, since: Any = None, pinned: Any = None) -> sa.ColumnElement[int]:
    """Notes of a user written before now."""
    conditions = [note_table.c.user_id == user.c.id, sa.or_(note_table.c.written_at.is_(None), note_table.c.written_at <= NOW)]
    if since is not None:
        conditions.append(note_table.c.day >= since)
    if pinned is not None:
        conditions.append(note_table.c.pinned.is_(pinned))
    return sa.select(sa.func.count()).select_from(note_table).where(*conditions).scalar_subquery()


def mean_weight(user: Any) -> sa.ColumnElement[float]:
    return sa.select(sa.func.max(note_table.c.weight)).where(note_table.c.user_id == user.c.id).scalar_subquery()


def of_user(user: Any, note: Any) -> sa.ColumnElement[bool]:
    return note.c.user_id == user.c.id  # type: ignore[no-any-return]


def of_rank(user: Any, note: Any, rank: Any = None, moods: Any = None) -> sa.ColumnElement[bool]:
    conditions = [note.c.user_id == user.c.id]
    if rank is not None:
        conditions.append(note.c.rank == rank)
    if moods is not None:
        conditions.append(note.c.mood.in_([mood.value for mood in moods]))
    return sa.and_(*conditions)


def by_rank(user: Any, floor: Any = None) -> sa.Select[Any]:
    """A user's notes by rank: rows that no table holds."""
    wanted = sa.select(
        note_table.c.rank.label("rank"), sa.func.count().label("size"), sa.func.max(note_table.c.label).label("last_label")
    )
    wanted = wanted.where(note_table.c.user_id == user.c.id).group_by(note_table.c.rank)
    return wanted if floor is None else wanted.where(note_table.c.rank >= floor)


def summary(user: Any, mood: Any = None) -> Mapping[str, sa.ColumnElement[Any]]:
    return {"total": score(user, None, mood), "size": how_many(user), "city": user.c.city, "id": user.c.id}


# ---- Python


async def nicknames(keys: Sequence[Any], info: BatchInfo, prefix: str | None, loud: bool | None) -> Mapping[Any, str]:
    """A name made from the id; none for every third."""
    made = {key: f"{prefix or 'n'}-{str(key)[-4:]}" for key in keys if int(str(key)[-2:], 16) % 3}
    return {key: name.upper() for key, name in made.items()} if loud else made


async def places(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, str]:
    return {key: f"{key[1] or 'nowhere'}|{len(str(key[0]))}" for key in keys}


async def squares(keys: Sequence[Any], info: BatchInfo, times: int | None) -> Mapping[Any, int]:
    return {key: key * (times or 1) for key in keys if key is not None}


async def counted(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, int]:
    def read(tx: Tx) -> dict[int, int]:
        found = tx.rows(
            sa.select(note_table.c.rank, sa.func.count().label("size"))
            .where(note_table.c.rank.in_(list(keys)))
            .group_by(note_table.c.rank)
        )
        return {row.rank: row.size for row in found}

    return await info.read(read)  # type: ignore[no-any-return]


# ---- types


@filter_input
class NoteFilter:
    """Which notes."""

    and_: list[NoteFilter] | None = combine("All of these hold.", "and")
    or_: list[NoteFilter] | None = combine("At least one of these holds.", "or")
    not_: list[NoteFilter] | None = combine("None of these holds.", "not")
    rank: IntFilter | None = filter("By rank.", lambda note: note.c.rank, scope="reads:read")
    score: IntFilter | None = filter("By score.", lambda note: note.c.score, scope="reads:read")
    label: StringFilter | None = filter("By label.", lambda note: note.c.label, scope="reads:read")
    day: DateFilter | None = filter("By day.", lambda note: note.c.day, scope="reads:read")
    written_at: DateTimeFilter | None = filter("By when.", lambda note: note.c.written_at, scope="reads:read")
    moods: list[Mood] | None = where(
        "Of moods.", lambda note, moods: note.c.mood.in_([mood.value for mood in moods]), scope="reads:read"
    )
    pinned: bool | None = where("Pinned or not.", lambda note, pinned: note.c.pinned.is_(pinned), scope="reads:read")


@order_input
class NoteOrder:
    """What notes are sorted by."""

    rank: Direction | None = ordering("By rank.", lambda note: note.c.rank, nullable=False, scope="reads:read")
    score: Direction | None = ordering("By score.", lambda note: note.c.score, scope="reads:read")
    weight: Direction | None = ordering("By weight.", lambda note: note.c.weight, scope="reads:read")
    label: Direction | None = ordering("By label.", lambda note: note.c.label, scope="reads:read")
    pinned: Direction | None = ordering("By whether it is pinned.", lambda note: note.c.pinned, scope="reads:read")
    written_at: Direction | None = ordering("By when.", lambda note: note.c.written_at, scope="reads:read")
    day: Direction | None = ordering("By day.", lambda note: note.c.day, scope="reads:read")


@rows(note_table, scope="reads:read", owner=lambda note: note.c.user_id)
class Note(Node):
    """A note about a person."""

    rank: int = column("Rank.")
    score: BigInt | None = column("Score.")
    weight: float | None = column("Weight.")
    label: str | None = column("Label.")
    mood: Mood = column("How it sounds.")
    pinned: bool | None = column("Whether it is pinned.")
    written_at: dt.datetime | None = column("When.")
    day: dt.date | None = column("Day.")
    data: JSON | None = column("Anything.")
    author: User | None = one("Whose.", lambda note, user: user.c.id == note.c.user_id, scope="reads:read")
    siblings: Connection[Note] | None = many(
        "Of the same rank, by score.",
        lambda note, other: other.c.rank == note.c.rank,
        order=[note_table.c.score],
        filter=NoteFilter,
        order_by=NoteOrder,
    )
    square: BigInt | None = batch(
        "Score, multiplied in Python.", squares, needs=["score"], times=arg(int | None, "How often.", None)
    )
    same_rank: int | None = batch("How many have its rank.", counted, needs=["rank"])


@rows(None, scope="reads:read", public=True)
class NoteRank:
    """Notes of one rank."""

    rank: int = column("Rank.")
    size: int = column("How many.")
    last_label: str | None = column("The last label.")
    square: BigInt | None = batch("Rank, multiplied.", squares, needs=["rank"], times=arg(int | None, "How often.", None))


@rows(None, scope="reads:read", public=True)
class NoteSummary:
    """A person's notes in figures."""

    total: BigInt | None = column("Sum of scores.")
    size: int = column("How many.")
    city: str | None = column("The person's city.")
    place: str | None = batch("Where, in Python.", places, needs=["id", "city"])
    first: Note | None = one("The first.", of_user, order=[note_table.c.rank, note_table.c.id])


@rows(users, scope="reads:read", owner=lambda user: user.c.id)
class NoteBook:
    """A person's notes, on the person's row."""

    size: int = expression(
        "How many.", how_many, since=arg(dt.date | None, "Since a day.", None), pinned=arg(bool | None, "Pinned or not.", None)
    )
    notes: Connection[Note] = many(
        "All of them.", of_user, order=[note_table.c.rank.desc()], filter=NoteFilter, order_by=NoteOrder
    )
    latest: Note | None = one("The last written.", of_user, order=[note_table.c.written_at.desc(), note_table.c.id.desc()])


@extend(User, scope="reads:read")
class ReadsUser:
    """Notes on a person."""

    note_score: BigInt | None = expression(
        "Sum.", score, at_least=arg(int | None, "Rank at least.", None), mood=arg(Mood | None, "Mood.", None)
    )
    note_weight: float | None = expression("Largest weight.", mean_weight)
    notes: Connection[Note] | None = many("By rank.", of_user, order=[note_table.c.rank], filter=NoteFilter, order_by=NoteOrder)
    note_list: list[Note] | None = many(
        "Of a rank.",
        of_rank,
        order=[note_table.c.label, note_table.c.rank.desc()],
        rank=arg(int | None, "Rank.", None),
        moods=arg(list[Mood] | None, "Moods.", None),
        cap=4,
    )
    note_ranks: list[NoteRank] | None = many(
        "By rank.", select=by_rank, order=[sa.column("rank", sa.Integer).desc()], floor=arg(int | None, "Rank at least.", None)
    )
    first_note: Note | None = one("The first.", of_user, order=[note_table.c.rank, note_table.c.id])
    note_book: NoteBook | None = same_row("Notes on this row.")
    note_summary: NoteSummary | None = same_row(
        "In figures.", summary, null_without="total", mood=arg(Mood | None, "Mood.", None)
    )
    nickname: str | None = batch(
        "Made up.", nicknames, needs=["id"], prefix=arg(str | None, "In front.", None), loud=arg(bool | None, "Loud.", None)
    )
    place: str | None = batch("Where.", places, needs=["id", "city"])


@extend(UserFilter, scope="reads:read")
class ReadsUserFilter:
    """Users by their notes."""

    note_score: IntFilter | None = filter("By the sum.", score)
    note_count: IntFilter | None = filter("By how many.", how_many)


@extend(UserOrder, scope="reads:read")
class ReadsUserOrder:
    """Users by their notes."""

    note_score: Direction | None = ordering("By the sum.", score)


@extend(Query)
class ReadsQuery:
    """Notes to read."""

    notes: Connection[Note] | None = many(
        "All notes.", order=[note_table.c.written_at.desc()], filter=NoteFilter, order_by=NoteOrder, scope="reads:read"
    )


def _contribution() -> Contribution:
    return Contribution(
        name="reads",
        version="1.0.0",
        tables=metadata,
        migrations=Path(__file__).parent / "reads_migrations",
        types=[Note, NoteRank, NoteSummary, NoteBook],
        extends=[ReadsUser],
        query=[ReadsQuery],
        filters=[ReadsUserFilter],
        orderings=[ReadsUserOrder],
        scopes=[Scope("reads:read", "See notes.")],
        event_types=[EventType("reads.noted", "Somebody was noted.", personal=("whisper",))],
    )


@hookimpl
def _contribute() -> Contribution:
    return _contribution()


@hookimpl
def _merge(tx: Any, event: Any, kept: Any, absorbed: Any, rules: Any) -> int:
    return 0


@hookimpl
def _unmerge(tx: Any, event: Any, kept: Any, absorbed: Any, merge: Any, rules: Any) -> int:
    return 0


@hookimpl
def _erase(tx: Any, event: Any, user: Any, pseudonym: Any) -> None:
    return None


@hookimpl
def _export(tx: Any, user: Any) -> Mapping[str, Any]:
    return {}


plugin = SimpleNamespace(contribute=_contribute, merge=_merge, unmerge=_unmerge, erase=_erase, export=_export)
"""What `load_plugins(settings, extra={"reads": plugin})` takes."""
