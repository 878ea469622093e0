"""The usual way, written well: strawberry types, SQLAlchemy's ORM, one DataLoader for each relation, one session a request."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import strawberry
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from strawberry.extensions import ParserCache, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types.info import Info

from scrm.channels.models import channels
from scrm.events.models import events
from scrm.graphql.scalars import JSON, SCALARS, BigInt
from scrm.tags.models import tags, user_tags
from scrm.users.models import identities, users
from scrm_loyalty.models import accounts, lots


class Base(DeclarativeBase):
    """The tables as classes."""


class UserRow(Base):
    __table__ = users


class TagRow(Base):
    __table__ = tags


class UserTagRow(Base):
    __table__ = user_tags


class IdentityRow(Base):
    __table__ = identities


class ChannelRow(Base):
    __table__ = channels


class EventRow(Base):
    __table__ = events


class Loaders:
    """One request's session and loaders."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.session = AsyncSession(engine, expire_on_commit=False)
        self._lock = asyncio.Lock()
        self.tags = DataLoader(self._tags)
        self.identities = DataLoader(self._identities)
        self.channels = DataLoader(self._channels)
        self.events = DataLoader(self._events)
        self.points = DataLoader(self._points)

    async def all(self, statement: Any) -> Sequence[Any]:
        """Rows of a statement; one at a time on the session."""
        async with self._lock:
            return (await self.session.execute(statement)).all()

    async def _tags(self, keys: list[uuid.UUID]) -> list[list[Any]]:
        statement = sa.select(UserTagRow, TagRow).join(TagRow, tags.c.id == user_tags.c.tag_id)
        statement = statement.where(user_tags.c.user_id.in_(keys)).order_by(user_tags.c.tagged_at.desc(), user_tags.c.tag_id)
        return _grouped(keys, ((row[0].user_id, row) for row in await self.all(statement)))

    async def _identities(self, keys: list[uuid.UUID]) -> list[list[Any]]:
        statement = sa.select(IdentityRow).where(identities.c.user_id.in_(keys)).order_by(identities.c.linked_at, identities.c.id)
        return _grouped(keys, ((row[0].user_id, row[0]) for row in await self.all(statement)))

    async def _channels(self, keys: list[uuid.UUID]) -> list[Any]:
        found = {row[0].id: row[0] for row in await self.all(sa.select(ChannelRow).where(channels.c.id.in_(keys)))}
        return [found[key] for key in keys]

    async def _events(self, keys: list[tuple[uuid.UUID, int]]) -> list[list[Any]]:
        first = max(count for _, count in keys)
        wanted = sa.values(sa.column("id", sa.Uuid), name="wanted").data([(key,) for key, _ in keys])
        newest = sa.select(events).where(events.c.user_id == wanted.c.id)
        lateral = newest.order_by(events.c.occurred_at.desc(), events.c.id.desc()).limit(first).lateral("newest")
        entity = sa.orm.aliased(EventRow, lateral)
        found = _grouped([key for key, _ in keys], ((row[0].user_id, row[0]) for row in await self.all(_from(wanted, entity))))
        return [rows[:count] for rows, (_, count) in zip(found, keys, strict=True)]

    async def _points(self, keys: list[uuid.UUID]) -> list[int]:
        now = dt.datetime.now(dt.UTC)
        held = sa.select(accounts.c.holder_id, sa.func.sum(lots.c.remaining)).join(lots, lots.c.account_id == accounts.c.id)
        spendable = (lots.c.available_at <= now, sa.or_(lots.c.expires_at.is_(None), lots.c.expires_at > now))
        statement = held.where(accounts.c.holder_id.in_(keys), *spendable).group_by(accounts.c.holder_id)
        found = {row[0]: int(row[1]) for row in await self.all(statement)}
        return [found.get(key, 0) for key in keys]


def _from(wanted: Any, entity: Any) -> Any:
    return sa.select(entity).select_from(wanted).join(entity, sa.true())


def _grouped(keys: Sequence[Any], rows: Any) -> list[list[Any]]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for key, row in rows:
        found[key].append(row)
    return [found[key] for key in keys]


def _id(kind: str, key: uuid.UUID) -> strawberry.ID:
    return strawberry.ID(f"{kind}_{key.hex}")


@strawberry.type
class Tag:
    key: str
    name: str


@strawberry.type
class UserTag:
    tag: Tag
    source: str
    tagged_at: dt.datetime


@strawberry.type
class Channel:
    key: str
    name: str
    kind: str


@strawberry.type
class Identity:
    row: strawberry.Private[Any]
    external_id: str
    linked_at: dt.datetime

    @strawberry.field
    async def channel(self, info: Info[Loaders, None]) -> Channel:
        row = await info.context.channels.load(self.row.channel_id)
        return Channel(key=row.key, name=row.name, kind=row.kind)


@strawberry.type
class Money:
    amount_minor: BigInt
    currency: str


@strawberry.type
class Event:
    id: strawberry.ID
    type: str
    occurred_at: dt.datetime
    amount: Money | None


@strawberry.type
class Events:
    nodes: list[Event]


@strawberry.type
class Points:
    balance: BigInt


@strawberry.type
class User:
    row: strawberry.Private[Any]
    id: strawberry.ID
    display_name: str | None
    gender: str | None
    city: str | None
    language: str | None
    created_at: dt.datetime
    last_seen_at: dt.datetime | None
    attributes: JSON

    @strawberry.field
    async def tags(self, info: Info[Loaders, None]) -> list[UserTag]:
        found = await info.context.tags.load(self.row.id)
        return [UserTag(tag=Tag(key=tag.key, name=tag.name), source=own.source, tagged_at=own.tagged_at) for own, tag in found]

    @strawberry.field
    async def identities(self, info: Info[Loaders, None]) -> list[Identity]:
        found = await info.context.identities.load(self.row.id)
        return [Identity(row=row, external_id=row.external_id, linked_at=row.linked_at) for row in found]

    @strawberry.field
    async def events(self, info: Info[Loaders, None], first: int = 20) -> Events:
        return Events(nodes=[_event(row) for row in await info.context.events.load((self.row.id, first))])

    @strawberry.field
    async def points(self, info: Info[Loaders, None]) -> Points | None:
        return Points(balance=BigInt(await info.context.points.load(self.row.id)))


def _event(row: Any) -> Event:
    amount = None if row.amount_minor is None else Money(amount_minor=row.amount_minor, currency=row.currency)
    return Event(id=_id("Event", row.id), type=row.type, occurred_at=row.occurred_at, amount=amount)


def _user(row: Any) -> User:
    return User(
        row=row, id=_id("User", row.id), display_name=row.display_name, gender=row.gender, city=row.city, language=row.language,
        created_at=row.created_at, last_seen_at=row.last_seen_at, attributes=row.attributes,
    )  # fmt: skip


@strawberry.type
class Users:
    nodes: list[User]


@strawberry.input
class TagMatch:
    keys: list[str]


@strawberry.input
class Text:
    eq: str


@strawberry.input
class UserFilter:
    tag: TagMatch | None = None
    city: Text | None = None


@strawberry.type
class Query:
    @strawberry.field
    async def users(self, info: Info[Loaders, None], first: int = 20, filter: UserFilter | None = None) -> Users:
        statement = sa.select(UserRow).where(users.c.merged_into.is_(None)).order_by(users.c.created_at.desc(), users.c.id.desc())
        if filter is not None and filter.city is not None:
            statement = statement.where(users.c.city == filter.city.eq)
        if filter is not None and filter.tag is not None:
            tagged = (
                sa.select(user_tags.c.user_id).join(tags, tags.c.id == user_tags.c.tag_id).where(tags.c.key.in_(filter.tag.keys))
            )
            statement = statement.where(users.c.id.in_(tagged))
        return Users(nodes=[_user(row[0]) for row in await info.context.all(statement.limit(first))])

    @strawberry.field
    async def user(self, info: Info[Loaders, None], id: strawberry.ID) -> User | None:
        key = uuid.UUID(hex=id.partition("_")[2])
        found = await info.context.all(sa.select(UserRow).where(users.c.id == key))
        return _user(found[0][0]) if found else None


class Usual(GraphQL[Loaders, None]):
    """The endpoint."""

    def __init__(self, engine: AsyncEngine) -> None:
        extensions: list[Any] = [lambda: ParserCache(maxsize=100), lambda: ValidationCache(maxsize=100)]
        super().__init__(strawberry.Schema(Query, extensions=extensions, config=StrawberryConfig(scalar_map=SCALARS)))
        self._engine = engine

    async def get_context(self, request: Any, response: Any) -> Loaders:
        request.state.loaders = Loaders(self._engine)
        return request.state.loaders  # type: ignore[no-any-return]

    async def run(self, request: Any, *args: Any, **more: Any) -> Any:
        try:
            return await super().run(request, *args, **more)
        finally:
            await request.state.loaders.session.close()
