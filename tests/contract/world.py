"""The people, tags and events that the contract's tests ask about: made once, the same rows on both engines."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import sqlalchemy as sa
from pydantic import SecretStr

from scrm.app import build_services, create_app
from scrm.channels.models import channels
from scrm.channels.service import create_channel
from scrm.config import Limits, ServerSettings, Settings
from scrm.db import Database, Tx, new_id
from scrm.events.models import events, log_head
from scrm.events.records import IdentityRef, NewEvent
from scrm.events.sequencer import sequence
from scrm.graphql.context import Services
from scrm.loader import load_plugins
from scrm.migrate import upgrade
from scrm.models import imports
from scrm.plugin_set import PluginSet
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.tags.service import create_tag, save_group, update_tag
from scrm.tags.tagging import tag_users
from scrm.testing.client import Client
from scrm.users.merging import merge
from scrm.users.models import identities, users
from scrm.users.service import NewIdentity, create_user
from tests.contract.plugin_for_reads import note_table, plugin

ZONE = ZoneInfo("Asia/Shanghai")
TODAY = datetime(2026, 3, 10, 4, tzinfo=UTC)
START = datetime(2026, 1, 1, 3, 4, 5, 6, tzinfo=UTC)
PERSONAL = ["secret", "wechat id"]
TABLES = (channels, users, identities, tag_groups, tags, user_tags, events, imports, note_table)

NAMES = [
    'O\'Brien "Bob"',
    "李雷😀",
    'a\\b\n\tc"',
    "Ünï",
    "Z",
    "a",
    "B",
    "</script>\u2028",
    "%_*",
    None,
    "李",
    "é",
    "e\u0301",
    "🀄",
]
CITIES = ["上海", "Shanghai", "shanghai", "北京", None, "O'Fallon", "São Paulo", "100%", "a_b"]
DAYS = [None, date(1990, 3, 12), date(1992, 2, 29), date(1985, 12, 31), date(2000, 3, 10)]
ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"n": 9007199254740993, "vip": True, "none": None, "s": 'it\'s "q" 😀'},
    {"n": -5, "vip": False, "list": [1, {"a": []}, None], "day": "2026-01-05", "secret": "hush"},
    {"n": 1.5, "s": "", "day": "2026-03-01T10:00:00Z", "wechat id": {"deep": ["x"]}, "nested": {"n": {"n": {}}}},
    {"n": "5", "s": "%_", "day": "soon", "vip": "true", "big": 1e300, "zero": 0},
    {"n": 1e300, "s": "\\\n\t/", "day": "😀", "secret": None, "a\"b'c": "\u2028"},
]
TYPES = ["order.paid", "order.refunded", "shop.visited", "user.unfollowed", "message.received"]


def settings(url: str) -> Settings:
    server = ServerSettings(limits=Limits(depth=60, fields=10_000, aliases=500, directives=500, nodes=10**9, tokens=20_000))
    secret = SecretStr("for tests only " * 4)
    return Settings(database_url=url, secret_key=secret, personal_attributes=PERSONAL, server=server)


def plugins(url: str) -> PluginSet:
    return load_plugins(settings(url), extra={"reads": plugin}, at=START)


async def build(url: str) -> None:
    """Make the rows, through ingest and services, on a database that is empty."""
    loaded = plugins(url)
    await upgrade(url, loaded)
    database = Database(url, clock=lambda: TODAY)
    try:
        services = build_services(settings(url), loaded, database)
        maker = _Maker(services, Random(20260310))
        await maker.all()
    finally:
        await database.close()


class _Maker:
    def __init__(self, services: Services, random: Random) -> None:
        self.services = services
        self.random = random
        self.said: dict[str, Any] = {"actor": "test", "zone": ZONE}
        self.people: list[uuid.UUID] = []

    async def do(self, function: Any, *args: Any, at: datetime = START, **kwargs: Any) -> Any:
        return await self.services.db.write(function, *args, at=at, **kwargs)

    async def all(self) -> None:
        await self._channels()
        await self._people()
        await self._events()
        await self._tags()
        kept, absorbed, third = self.people[0], self.people[7], self.people[13]
        for other in (absorbed, third):
            await self.do(merge, kept, other, reason="the same", at=TODAY - timedelta(days=1), **self.said)
        await sequence(self.services.db)
        await self.services.db.write(self._plain_rows)

    async def _channels(self) -> None:
        rows = [
            ("oa", "公众号", "WECHAT_OA", None, {"appId": "wx1", "n": [1, {"x": None}]}),
            ("mini", "a'b\"c", "MINI_PROGRAM", None, {}),
            ("oa-poster", "海报😀", "OTHER", "oa", {}),
            ("oa-shelf", "B", "STORE", "oa", {"secret?": False}),
            ("shelf-1", "a", "STORE", "oa-shelf", {}),
            ("empty", "Empty", "SMS", None, {}),
        ]
        for index, (key, name, kind, parent, config) in enumerate(rows):
            given: dict[str, Any] = {
                "key": key,
                "name": name,
                "kind": kind,
                "parent": parent,
                "config": config,
                "enabled": index != 3,
            }
            await self.do(create_channel, **given, role="AUXILIARY" if index % 2 else "MAIN", actor="test")

    async def _people(self) -> None:
        for number in range(36):
            fields = {
                "display_name": NAMES[number % len(NAMES)],
                "phone": f"+86 1380000{number:04}" if number % 3 else None,
                "email": f"u{number}@example.com" if number % 4 == 1 else None,
                "gender": [None, "FEMALE", "MALE", "OTHER"][number % 4],
                "birthday": DAYS[number % len(DAYS)],
                "country": ["中国", None, "BR"][number % 3],
                "region": ["上海市", None][number % 2],
                "city": CITIES[number % len(CITIES)],
                "language": [None, "zh-CN", "en"][number % 3],
                "attributes": ATTRIBUTES[number % len(ATTRIBUTES)],
            }
            known = [
                NewIdentity(
                    ["oa", "mini", "oa-poster"][number % 3], f"open'{number}", f"union-{number}" if number % 5 == 0 else None
                )
            ]
            known += [NewIdentity("mini", f"second {number}")] if number % 3 == 0 else []
            at = START + timedelta(days=number // 4)  # four at a time: ties in their order
            channel = [None, "oa-poster", "mini", "shelf-1"][number % 4]
            made = await self.do(
                create_user, identities=known if number % 6 else [], fields=fields, channel=channel, at=at, **self.said
            )
            self.people.append(made)

    async def _events(self) -> None:
        given = []
        for number in range(260):
            kind = TYPES[number % len(TYPES)]
            money = kind.startswith("order.") or number % 7 == 0
            properties: dict[str, Any] = {
                "orderId": f"o{number}",
                "": "empty",
                **ATTRIBUTES[number % len(ATTRIBUTES)],
                "whisper": "quiet",
            }
            who = (
                {"identity": IdentityRef("oa", f"guest-{number % 5}")}
                if number % 13 == 0
                else {"user_id": self.people[self.random.randrange(30)]}
            )
            given.append(
                NewEvent(
                    type=kind if number % 11 else "reads.noted",
                    source=["shop", "pos", "o'source"][number % 3],
                    external_id=f'e"{number}',
                    occurred_at=TODAY - timedelta(days=(number * 7) % 150, seconds=(number % 3) * 3600),
                    channel=[None, "mini", "shelf-1", "oa-poster"][number % 4] or ("oa" if "identity" in who else None),
                    amount_minor=[0, 100, 10**15, 2500][number % 4] if money else None,
                    currency=["CNY", "CNY", "USD"][number % 3] if money else None,
                    properties=properties,
                    **who,
                )
            )
        results = await self.services.ingest.record(given)
        assert not (bad := [each.errors for each in results if each.errors]), bad[:3]

    async def _tags(self) -> None:
        await self.do(save_group, key="level", name="级别", exclusive=True, **self.said)
        await self.do(save_group, key="plain", name="o'plain", **self.said)
        for key, name, kind, group in (
            ("gold", "金卡", "BASIC", "level"),
            ("silver", '银"卡', "BASIC", "level"),
            ("vip", "VIP 😀", "BEHAVIOR", "plain"),
            ("new", "new", "INTENT", None),
            ("old", "Old", "BEHAVIOR", "plain"),
            ("none", "nobody's", "BASIC", None),
        ):
            rule = {"eventType": "order.paid", "count": 3, "withinDays": 30} if key == "new" else None
            await self.do(create_tag, key=key, name=name, kind=kind, group=group, rule=rule, **self.said)
        for key, every, expires in (
            ("gold", 3, None),
            ("silver", 5, TODAY + timedelta(days=2)),
            ("vip", 2, TODAY - timedelta(days=1)),
            ("new", 4, None),
            ("old", 4, TODAY + timedelta(seconds=1)),
        ):
            for source in ("MANUAL", "IMPORT"):
                picked = self.people[::every] if source == "MANUAL" else self.people[1::every]
                reason = 'it\'s "why"' if every % 2 else None
                at = START + timedelta(days=60 + every)
                said: dict[str, Any] = {"reason": reason, "expires_at": expires, "source": source, "at": at}
                await self.do(tag_users, [key], picked, **said, **self.said)
        archived = await self.services.db.read(lambda tx: tx.scalar(sa.select(tags.c.id).where(tags.c.key == "old")))
        await self.do(update_tag, archived, {"archived": True}, **self.said)

    def _plain_rows(self, tx: Tx) -> None:
        choose, people = self.random.choice, self.people[:24]
        for _ in range(140):
            row = {
                "id": uuid.UUID(int=self.random.getrandbits(128)),
                "user_id": choose(people),
                "rank": choose([-2, 0, 1, 1, 2, 3]),
                "score": choose([None, 0, -1, 7, 2**53, 2**53 - 1, 1 - 2**53, -(2**53), 2**60]),
                "weight": choose([None, 0.1, -2.5, 1e16, 1.0, 0.3333333333333333, 123456789.125]),
                "label": choose([*NAMES, "", " "]),
                "mood": choose(["GLAD", "GREY", "SORE"]),
                "pinned": choose([None, True, False]),
                "written_at": choose([None, START, START, TODAY, TODAY + timedelta(days=1), START + timedelta(microseconds=1)]),
                "day": choose([None, date(2026, 1, 1), date(2026, 1, 2), date(1999, 12, 31)]),
                "data": choose([None, {}, [], [None], "text", 5, True, {"a": [1, {"b": "😀\"'"}]}, 9007199254740993]),
            }
            tx.execute(sa.insert(note_table).values(row))
        for number, state in enumerate(["DONE", "FAILED", "DONE", "RUNNING", "RUNNING", "RUNNING"]):
            counts = {"rows_read": 2**53 + number, "accepted": number, "duplicates": 0, "rejected": 0}
            ended = {"finished_at": TODAY if number else None, "error": None if number else "bad", "started_at": START}
            named = {
                "alive_until": {3: TODAY + timedelta(days=2), 4: TODAY - timedelta(seconds=1)}.get(number),
                "name": f"f'{number}.csv",
                "kind": ["USERS", "EVENTS"][number % 2],
                "state": state,
                "fingerprint": f"{number}",
            }
            tx.execute(sa.insert(imports).values(id=uuid.UUID(int=number + 1), **named, **counts, **ended))


async def copy(source: str, target: str) -> None:
    """Put the rows of one database into another that is empty."""
    await upgrade(target, plugins(target))
    old, new = Database(source), Database(target)
    try:
        for table in TABLES:
            rows = await old.read(lambda tx, table=table: [dict(row._mapping) for row in tx.rows(sa.select(table))])  # type: ignore[misc]
            await new.write(_insert, table, rows)
        head = sa.select(sa.func.max(events.c.position)).scalar_subquery()
        await new.write(lambda tx: tx.execute(sa.update(log_head).values(position=head)))
    finally:
        await old.close()
        await new.close()


def _insert(tx: Tx, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    pending = rows
    while pending:  # those whose parent is there already
        there = {row["id"] for row in rows if "id" in row and row not in pending}
        ready = [
            row for row in pending if all(row.get(name) is None or row[name] in there for name in ("merged_into", "parent_id"))
        ]
        for row in ready:
            tx.execute(sa.insert(table).values(row))
        pending = [row for row in pending if row not in ready]


@dataclass
class World:
    """One engine's app, with a key that may do everything and one without personal values; and the clock."""

    client: Client
    careful: Client
    clock: Clock

    @property
    def db(self) -> Database:
        return self.client.services.db

    async def bytes(self, query: str, variables: Mapping[str, Any], *, pii: bool = True) -> bytes:
        """The answer as it went over the wire."""
        http = (self.client if pii else self.careful).http
        response = await http.post("/graphql", json={"query": query, "variables": dict(variables)})
        return bytes(response.content)


class Clock:
    """Tells the time that a test says it is."""

    def __init__(self) -> None:
        self.now = TODAY

    def __call__(self) -> datetime:
        return self.now


READS = ("users:read", "tags:read", "channels:read", "events:read", "imports:read", "reads:read", "plugins:read")


@asynccontextmanager
async def opened(url: str, loaded: PluginSet | None = None) -> AsyncIterator[World]:
    """An app on a database that has the rows."""
    clock = Clock()
    app = create_app(settings(url), plugins=loaded or plugins(url), clock=clock)
    async with app.router.lifespan_context(app):
        first = Client(app, httpx2.AsyncClient())
        client = first.with_key(await first.key("*", name=f"all {new_id().hex}"))
        careful = first.with_key(await first.key(*READS, name=f"careful {new_id().hex}"))
        yield World(client, careful, clock)
