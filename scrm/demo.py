"""`scrm demo`: a shop with a history, to look at: real purchases, made-up people, and three queries to begin with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path

from sqlalchemy.engine import make_url

from scrm.auth import EVERYTHING, Keys, create_key, list_keys, signing_secret
from scrm.channels.service import all_channels, create_channel
from scrm.config import Settings
from scrm.db import Database, Tx, instant_text
from scrm.errors import ScrmError, StartupError
from scrm.events.ingest import Ingest
from scrm.events.records import RecordStatus
from scrm.generator import DemoUser, generate
from scrm.importer import ImportOptions, import_events, progress_bar
from scrm.importing.ledger import ImportKind, ImportState, Tally, advance, begin, end, finished, first_start
from scrm.importing.people import upsert_users
from scrm.plugin import EventType
from scrm.tags.models import tags
from scrm.tags.service import create_tag, save_group

ACTOR = "demo"
KEY_FILE = "scrm.demo-key"
"""Holds the demo's API key beside the settings, for its owner only; another is made if it is gone."""

_SAMPLE = "CDNOW_sample.txt"
_VERSION = 1
"""Raise it when the generator makes other people of the same seed."""
_PEOPLE = 100

_SETTINGS = """\
# Settings of this scrm, written by `scrm demo`.
database_url = "sqlite:///scrm.db"
currency = "USD"            # the business currency: amounts in another enter no sum
timezone = "Asia/Shanghai"  # where business days begin and end
language = "zh-CN"          # of words that the server makes: zh-CN or en
"""
_PLUGIN = """
[plugins.{name}]
enabled = true
"""
_PLUGINS = ("loyalty",)

_CHANNELS = (  # key, name, kind, role, parent
    ("wechat-oa", "公众号", "WECHAT_OA", "MAIN", None),
    ("wecom", "企业微信", "WECOM", "MAIN", None),
    ("wecom-shanghai", "上海活码", "WECOM", "AUXILIARY", "wecom"),
    ("wecom-chengdu", "成都活码", "WECOM", "AUXILIARY", "wecom"),
    ("group-members", "会员社群", "GROUP", "AUXILIARY", "wecom"),
    ("group-new", "新品社群", "GROUP", "AUXILIARY", "wecom"),
    ("mini-program", "小程序商城", "MINI_PROGRAM", "MAIN", None),
    ("douyin", "抖音小店", "DOUYIN", "AUXILIARY", None),
    ("store", "门店", "STORE", "MAIN", None),
    ("store-xujiahui", "徐家汇店", "STORE", "AUXILIARY", "store"),
    ("store-chunxi", "春熙路店", "STORE", "AUXILIARY", "store"),
    ("cdnow", "CDNOW", "WEBSITE", "AUXILIARY", None),
)

_TAGS = (  # key, name, kind, group
    ("city-first", "一线城市", "BASIC", "city"),
    ("city-rising", "新一线城市", "BASIC", "city"),
    ("city-other", "其他城市", "BASIC", "city"),
    ("member-loyal", "忠诚会员", "BEHAVIOR", None),
    ("price-sensitive", "价格敏感", "BEHAVIOR", None),
    ("looks-only", "只逛不买", "BEHAVIOR", None),
)
_INTENT = {"eventType": "page.viewed", "sameProperty": "category", "count": 3, "withinDays": 7}


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How many people the generator makes, and from which seed."""

    users: int = 500
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Demo:
    """What a person needs to begin: a key, and queries with their titles."""

    api_key: str
    queries: tuple[tuple[str, str], ...]


def write_settings(path: Path) -> bool:
    """Write settings for the demo, with the plugins that are installed; False if there is a file already.

    Raises:
        StartupError: it cannot be written.
    """
    if path.exists():
        return False
    installed = {point.name for point in entry_points(group="scrm.plugins")}
    sections = "".join(_PLUGIN.format(name=name) for name in _PLUGINS if name in installed)
    try:
        path.write_text(_SETTINGS + sections, encoding="utf-8")
    except OSError as error:
        raise StartupError(f"settings file {path} cannot be written: {error.strerror}") from None
    return True


async def prepare(
    db: Database, settings: Settings, types: Mapping[str, EventType], plugins: Collection[str], options: DemoOptions
) -> Demo:
    """Fill a migrated database with the demo's data, unless it is there, and say how to begin. `plugins`: names of active ones.

    What an earlier run left undone is done now, and people are added if there are to be more.

    Raises:
        StartupError: the sample is not where it should be.
        ScrmError: something was refused: the database has other things under the demo's keys.
    """
    await db.write(_furnish, settings, db.clock())
    await _import_sample(db, settings, types)
    as_of = await _make_people(db, settings, types, options)
    return Demo(await _api_key(db, settings), queries(plugins, as_of, settings.currency))


def queries(plugins: Collection[str], as_of: datetime, currency: str) -> tuple[tuple[str, str], ...]:
    """Three requests to paste, each with what it shows; they ask for points only where there are any."""
    points = " points { balance pending }" if "loyalty" in plugins else ""
    wait = ' waitFor: ["loyalty"]' if points else ""
    return (
        ("people, with everything around them, in one request", _PEOPLE_QUERY.replace("POINTS", points)),
        ("women in Shanghai who bought at least twice, and what they like", _SHANGHAI_QUERY.replace("POINTS", points)),
        (
            "record an order and read what follows from it; paste it twice, it happens once",
            _ORDER_MUTATION.replace("WAIT", wait)
            .replace("POINTS", points)
            .replace("TIME", instant_text(as_of))
            .replace("USD", currency),
        ),
    )


_PEOPLE_QUERY = """\
{
  users(first: 5, filter: { channel: ["wecom"] }, orderBy: [{ lastSeenAt: DESC }]) {
    nodes {
      displayName city
      tags { tag { name } source }
      identities { channel { name } externalId }
      events(first: 3, filter: { source: ["demo"] }) { nodes { type occurredAt amount { formatted } } }POINTS
    }
    pageInfo { hasNextPage endCursor }
    totalCount
  }
}"""

_SHANGHAI_QUERY = """\
{
  users(filter: {
    city: { eq: "上海" }, gender: [FEMALE], event: { type: ["order.paid"], count: { gte: 2 } }
  }) {
    totalCount
    nodes { displayName attributes tags(filter: { kind: [INTENT, BEHAVIOR] }) { tag { name } }POINTS }
  }
}"""

_ORDER_MUTATION = """\
mutation {
  recordEvents(input: {WAIT events: [{
    type: "order.paid", source: "graphiql", externalId: "my-first-order", occurredAt: "TIME",
    identity: { channel: "cdnow", externalId: "00004" },
    amount: { amountMinor: 4200, currency: "USD" }, properties: { orderId: "my-first-order" }
  }] }) {
    accepted duplicates caughtUp
    results { status event { position user { id lastSeenAtPOINTS } } errors { code message } }
  }
}"""


def _furnish(tx: Tx, settings: Settings, at: datetime) -> None:
    """Channels and tags, where they are missing."""
    known = all_channels(tx)
    for key, name, kind, role, parent in _CHANNELS:
        if key not in known:
            create_channel(tx, key=key, name=name, kind=kind, role=role, parent=parent, at=at, actor=ACTOR)
    there = {row.key for row in tx.rows(tags.select())}
    if "city-first" not in there:
        save_group(tx, key="city", name="城市级别", exclusive=True, at=at, actor=ACTOR, zone=settings.zone)
    for key, name, kind, group in _TAGS:
        if key not in there:
            create_tag(tx, key=key, name=name, kind=kind, group=group, at=at, actor=ACTOR, zone=settings.zone)
    if "high-intent" not in there:
        create_tag(tx, key="high-intent", name="高意向", kind="INTENT", rule=_INTENT, at=at, actor=ACTOR, zone=settings.zone)


def _sample() -> Path:
    """Inside the package in a wheel, among the tests' data in a checkout."""
    package = Path(__file__).resolve().parent
    places = (package / "data" / _SAMPLE, package.parent / "tests" / "data" / _SAMPLE)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise StartupError(f"the demo's data is missing; expected {places[0]}")
    return found


async def _import_sample(db: Database, settings: Settings, types: Mapping[str, EventType]) -> None:
    options = ImportOptions(
        path=_sample(),
        format="fixed",
        columns="customer:1:5,date:12:8,cds:21:2,amount:24:7",
        map=("identity.externalId=customer", "occurredAt=date", "properties.quantity:int=cds"),
        set=("type=order.paid", "source=cdnow", "identity.channel=cdnow", f"currency={settings.currency}"),
        once=True,
        actor=ACTOR,
    )
    with progress_bar("purchases of CDNOW", options.path) as bar:
        report = await import_events(db, settings, types, options, bar)
    if report.errors:
        raise ScrmError(report.errors[0].code, f"row {report.errors[0].row} of {_SAMPLE}: {report.errors[0].message}")


async def _make_people(db: Database, settings: Settings, types: Mapping[str, EventType], options: DemoOptions) -> datetime:
    """All that people did ends with the day on which they were first made, so that later runs make the same."""
    fingerprint = hashlib.blake2b(f"demo:{_VERSION}:{options.seed}:{settings.currency}".encode(), digest_size=16).hexdigest()
    before = await db.read(finished, ImportKind.USERS, fingerprint)
    started = await db.read(first_start, ImportKind.USERS, fingerprint) or db.clock()
    as_of = started.astimezone(settings.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if before is not None and before.tally.rows_read >= options.users:
        return as_of
    name = f"demo people of seed {options.seed}"
    begun = await db.write(begin, ImportKind.USERS, name, fingerprint, options.users, at=db.clock(), actor=ACTOR)
    tally = begun.tally
    if before is not None:
        tally.rows_read = before.tally.rows_read
    people = generate(options.seed, options.users, as_of, settings.zone, settings.currency)
    people = islice(people, tally.rows_read, None)
    ingest = Ingest(db, settings, types)
    with progress_bar("people of the demo", total=options.users) as bar:
        while chunk := list(islice(people, _PEOPLE)):
            await _store_people(db, settings, ingest, chunk, tally)
            await db.write(advance, begun.id, tally, at=db.clock())
            bar(tally)
    await db.write(end, begun.id, ImportState.DONE, tally, at=db.clock())
    return as_of


async def _store_people(db: Database, settings: Settings, ingest: Ingest, people: Sequence[DemoUser], tally: Tally) -> None:
    outcomes = await upsert_users(db, settings, [person.profile for person in people], actor=ACTOR)
    events = sorted((event for person in people for event in person.events), key=lambda event: event.occurred_at)
    results = await ingest.record(events)
    problems = [error for outcome in outcomes for error in outcome.errors]
    problems += [error for result in results for error in result.errors]
    for problem in problems[:1]:
        raise ScrmError(problem.code, f"the demo's data was refused: {problem.message}", path=problem.path, params=problem.params)
    tally.rows_read += len(people)
    tally.accepted += sum(outcome.status is RecordStatus.ACCEPTED for outcome in outcomes)
    tally.duplicates += sum(outcome.status is RecordStatus.DUPLICATE for outcome in outcomes)


async def _api_key(db: Database, settings: Settings) -> str:
    """The key of the last run while it works, else a new one with every scope."""
    file = _key_file(settings)
    known = file.read_text(encoding="ascii").strip() if file.is_file() else ""
    if known and await Keys(db, settings).authenticate(f"Bearer {known}") is not None:
        return known
    taken = {key.name for key in await db.read(list_keys)}
    name = next(name for n in range(1, len(taken) + 2) if (name := ACTOR if n == 1 else f"{ACTOR}-{n}") not in taken)
    key = await db.write(create_key, signing_secret(settings), name, [EVERYTHING], at=db.clock(), actor=ACTOR)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(f"{key}\n")
    return key


def _key_file(settings: Settings) -> Path:
    if settings.path is not None:
        return settings.path.parent / KEY_FILE
    url = make_url(settings.database_url)
    directory = Path(url.database).resolve().parent if url.drivername == "sqlite" and url.database else Path.cwd()
    return directory / KEY_FILE
