"""A plugin of its own for the tests of the log: every row depends on the order in which events were applied."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import make_url

from scrm.channels.service import create_channel
from scrm.db import Database, Id, Text, Tx, plugin_metadata
from scrm.errors import UserError
from scrm.events.consumers import Consumer, consumer_of, core_consumer, enable
from scrm.events.log import append, core_event, share_owners
from scrm.events.models import consumers, events, parked_events
from scrm.events.records import Announcement, Event
from scrm.events.sequencer import sequence
from scrm.events.steps import Step, step
from scrm.migrate import upgrade
from scrm.plugin import Contribution, Decision, Fact, Handler, HandlerTx, Indicator, NoWiring, Rules, Wiring
from scrm.testing import PostgresServer
from scrm.users.handlers import core_handlers
from scrm.users.models import users
from scrm.users.service import NewIdentity, create_user
from tests.core import shell
from tests.core.backups import Kept, Template, configure, made_template

ZONE = ZoneInfo("Asia/Shanghai")
START = datetime(2026, 1, 1, tzinfo=UTC)

_MIGRATION = '''"""The toy's tables; its entries are never changed."""
import sqlalchemy as sa
from msgspec.structs import replace
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("toy_accounts", sa.Column("user_id", sa.Uuid(), primary_key=True),
        sa.Column("amount", sa.BigInteger(), nullable=False), sa.Column("chain", sa.Text(), nullable=False))
    op.create_table("toy_entries", sa.Column("event_id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), nullable=False), sa.Column("amount", sa.BigInteger(), nullable=False))
    op.create_index("ix_toy_entries_user_id", "toy_entries", ["user_id"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("create trigger toy_entries_kept before delete on toy_entries begin select raise(abort, 'kept'); end")
    else:
        op.execute("create function toy_kept() returns trigger language plpgsql as $$ begin raise exception 'kept'; end $$")
        op.execute("create trigger toy_entries_kept before delete on toy_entries for each row execute function toy_kept()")
'''


class ToyRules(Rules):
    """What the toy computes with."""

    factor: int = 1


@dataclass(frozen=True)
class ToyPlugin:
    """What the loader would hand over."""

    name: str
    contribution: Contribution
    rules: Rules
    hooks: object
    wiring: Wiring = field(default_factory=NoWiring)
    indicators: Mapping[str, tuple[str, Indicator]] = field(default_factory=dict)


@dataclass(frozen=True)
class ToySettings:
    """The settings that the log needs."""

    zone: ZoneInfo = ZONE
    currency: str = "CNY"
    announcement_depth: int = 3


metadata = plugin_metadata()
accounts = sa.Table(
    "toy_accounts",
    metadata,
    sa.Column("user_id", Id, primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("chain", Text, nullable=False),
)
entries = sa.Table(
    "toy_entries",
    metadata,
    sa.Column("event_id", Id, primary_key=True),
    sa.Column("user_id", Id, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
)


class Toy:
    """The plugin, the database it lives in, and what a test does with them."""

    accounts = accounts
    entries = entries
    start = START
    zone = ZONE

    def __init__(self, db: Database, directory: Path) -> None:
        self.db = db
        self.broken: set[str] = set()
        self.raises: Callable[[], BaseException] = lambda: ValueError("personal words")
        self.calls: list[list[Event]] = []
        self.settings = ToySettings()
        self.spend = Decision("spendToy", "toy.spent", self._decide)
        contribution = Contribution(
            name="toy",
            version="1",
            rules=ToyRules,
            tables=metadata,
            migrations=directory,
            handlers=(Handler(("order.paid", "toy.spent"), self._handle),),
            decisions=(self.spend,),
        )
        hooks = SimpleNamespace(merge=self._merge)
        self.plugin = ToyPlugin("toy", contribution, ToyRules(), hooks)
        self.consumer: Consumer = consumer_of(self.plugin, self.settings)

    def _handle(self, tx: HandlerTx, batch: Sequence[Event], rules: ToyRules) -> None:
        self.calls.append(list(batch))
        for event in batch:
            if event.external_id in self.broken:
                tx.execute(sa.insert(entries).values(event_id=event.id, user_id=event.user_id, amount=0))
                raise self.raises()
            assert event.user_id is not None
            amount = -event.properties["points"] if event.type == "toy.spent" else (event.amount_minor or 0) * rules.factor
            tx.execute(sa.insert(entries).values(event_id=event.id, user_id=event.user_id, amount=amount))
            self._add(tx, event.user_id, amount, event.external_id)
            if event.type == "order.paid":
                tx.announce(Announcement("toy.earned", event, event.user_id, {"points": amount}))

    def _merge(self, tx: HandlerTx, event: Event, kept: uuid.UUID, absorbed: uuid.UUID, rules: ToyRules) -> int:
        old = tx.row(sa.select(accounts).where(accounts.c.user_id == absorbed))
        if old is None:
            return 0
        tx.execute(sa.update(accounts).where(accounts.c.user_id == absorbed).values(amount=0))
        self._add(tx, kept, old.amount, old.chain)
        return 1

    def _add(self, tx: Tx, user: uuid.UUID, amount: int, said: str) -> None:
        old = tx.row(sa.select(accounts).where(accounts.c.user_id == user).with_for_update())
        before, chain = (old.amount, old.chain) if old is not None else (0, "")
        values = {"amount": before + amount, "chain": hashlib.sha256(f"{chain}{amount}{said}".encode()).hexdigest()[:12]}
        if old is None:
            tx.execute(sa.insert(accounts).values(user_id=user, **values))
        else:
            tx.execute(sa.update(accounts).where(accounts.c.user_id == user).values(values))

    def _decide(self, tx: Tx, input: Mapping[str, Any], rules: ToyRules, at: datetime) -> Fact | UserError:
        user = uuid.UUID(input["user"])
        have = tx.scalar(sa.select(accounts.c.amount).where(accounts.c.user_id == user).with_for_update()) or 0
        if have < input["points"]:
            return UserError("TOO_FEW", f"has {have}")
        return Fact(user, {"points": input["points"], "had": have})

    async def open(self) -> None:
        """Make the toy's tables and its place in the log."""
        await upgrade(self.db.url.render_as_string(hide_password=False), [self.plugin])
        await self.db.write(enable, self.consumer, START)
        await sequence(self.db)

    async def user(self) -> uuid.UUID:
        """A new person."""
        made = uuid.uuid4()
        row = {"id": made, "attributes": {}, "created_at": START, "updated_at": START}
        await self.db.write(lambda tx: tx.execute(sa.insert(users).values(row)))
        return made

    async def paid(self, user: uuid.UUID | None, amount: int, key: str, *, minute: int = 0) -> uuid.UUID:
        """Record an order; returns the event's id."""
        entry = core_event("order.paid", user, {"orderId": key}, START + timedelta(minutes=minute), ZONE)
        return await self.append(replace(entry, source="test", external_id=key, amount_minor=amount, currency="CNY"))

    async def append(self, entry: Any) -> uuid.UUID:
        """Record one event and give it its position."""

        def write(tx: Tx) -> uuid.UUID:
            share_owners(tx)
            return append(tx, [entry])[0].event_id

        event_id = await self.db.write(write)
        await sequence(self.db)
        return event_id

    async def step(self, at: datetime = START, limit: int = 500) -> Step:
        """One step."""
        return await self.db.write(step, self.consumer, at=at, limit=limit)

    async def run(self, at: datetime = START, limit: int = 500) -> int:
        """Steps until there is nothing more to do; returns how many events were applied."""
        applied = 0
        while True:
            await sequence(self.db)
            done = await self.step(at, limit)
            applied += done.applied
            if done.idle and not done.applied:
                return applied

    async def rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """What a query finds, as plain tuples."""
        return [tuple(row) for row in await self.db.read(lambda tx: list(tx.rows(statement)))]

    async def amounts(self) -> dict[uuid.UUID, int]:
        """Everybody's amount."""
        return dict(await self.rows(sa.select(accounts.c.user_id, accounts.c.amount)))

    async def place(self) -> sa.Row[Any]:
        """The toy's place in the log."""
        row = await self.db.read(lambda tx: tx.row(sa.select(consumers).where(consumers.c.plugin == "toy")))
        assert row is not None
        return row

    async def parked(self) -> list[tuple[str, str]]:
        """What is parked: external id and state, in order."""
        joined = parked_events.join(events, events.c.id == parked_events.c.event_id)
        found = await self.rows(
            sa.select(events.c.external_id, parked_events.c.state).select_from(joined).order_by(parked_events.c.position)
        )
        return [(key, state) for key, state in found]

    def keys(self, batch: Iterable[Event]) -> list[str]:
        """The external ids of events."""
        return [event.external_id for event in batch]


@pytest.fixture
async def toy(database: Database, tmp_path: Path) -> Toy:
    """A plugin that is enabled, on a database of its own."""
    directory = tmp_path / "toy_migrations"
    directory.mkdir()
    (directory / "0001_toy.py").write_text(_MIGRATION)
    made = Toy(database, directory)
    await made.open()
    return made


class Brand:
    """A database with channels, users and what happens to them; the core reads the log when `follow` is called."""

    zone = ZONE

    def __init__(self, db: Database) -> None:
        self.db = db
        self.at = datetime(2026, 1, 31, 4, tzinfo=UTC)
        self.consumer = core_consumer(core_handlers(ZONE), ToySettings())
        self._count = 0

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a service in a transaction that writes, now, by the test, in the business zone."""
        return await self.db.write(function, *args, **{"at": self.at, "actor": "test", "zone": self.zone, **kwargs})

    async def read(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a service in a transaction that reads."""
        return await self.db.read(function, *args, **kwargs)

    async def rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """What a query finds, as plain tuples."""
        return await self.db.read(lambda tx: [tuple(row) for row in tx.rows(statement)])

    async def row(self, table: sa.Table, key: uuid.UUID) -> Mapping[str, Any]:
        """One row by its id."""
        found = await self.db.read(lambda tx: tx.rows(sa.select(table).where(table.c.id == key)))
        return dict(found[0]._mapping)

    async def channel(self, key: str, parent: str | None = None, kind: str = "OTHER") -> uuid.UUID:
        """A new channel."""
        made = await self.db.write(create_channel, key=key, name=key, kind=kind, parent=parent, at=self.at, actor="test")
        return uuid.UUID(str(made))

    async def user(self, *said: str, **fields: Any) -> uuid.UUID:
        """A new user with identities said as `channel:id` or `channel:id:union`."""
        given = [NewIdentity(*identity.split(":")) for identity in said]
        made = await self.do(create_user, identities=given, fields=fields)
        return uuid.UUID(str(made))

    async def happen(
        self,
        type: str,
        user: uuid.UUID | None,
        when: str = "2026-01-05T12:00",
        *,
        channel: uuid.UUID | None = None,
        amount: int | None = None,
        currency: str = "CNY",
        **properties: Any,
    ) -> uuid.UUID:
        """Record an event at a time of the business zone, reported at once; returns its id."""
        self._count += 1
        moment = datetime.fromisoformat(when).replace(tzinfo=ZONE).astimezone(UTC)
        entry = replace(
            core_event(type, user, properties, moment, ZONE),
            source="test",
            external_id=f"event {self._count}",
            channel_id=channel,
            amount_minor=amount,
            currency=currency if amount is not None else None,
        )

        def write(tx: Tx) -> uuid.UUID:
            share_owners(tx)
            return append(tx, [entry])[0].event_id

        return await self.db.write(write)

    async def follow(self) -> None:
        """Let the core read the log to its end."""
        await self.db.write(enable, self.consumer, self.at)
        idle = False
        while not idle:
            await sequence(self.db)
            done = await self.db.write(step, self.consumer, at=self.at)
            assert not done.parked
            idle = done.idle and not done.applied

    async def changes(self, *types: str) -> list[tuple[str, uuid.UUID, Mapping[str, Any]]]:
        """What was recorded of these types, oldest first: type, user, properties."""
        wanted = sa.select(events.c.type, events.c.user_id, events.c.properties).where(events.c.type.in_(types))
        return [(row[0], row[1], row[2]) for row in await self.rows(wanted.order_by(events.c.received_at, events.c.id))]


@pytest.fixture
async def brand(database: Database) -> Brand:
    """A brand with the channels `oa`, its child `oa-poster`, and `mini`."""
    made = Brand(database)
    for key, parent in (("oa", None), ("oa-poster", "oa"), ("mini", None)):
        await made.channel(key, parent)
    return made


@pytest.fixture(scope="session")
def sqlite_kept(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tmp_path_factory.mktemp("kept")
    shutil.copyfile(sqlite_template, directory / "scrm.db")
    return made_template(f"sqlite:///{directory / 'scrm.db'}", directory)


@pytest.fixture(scope="session")
def postgres_kept(
    postgres: PostgresServer, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Template]:
    with postgres.database(postgres_template) as url:
        yield made_template(url, tmp_path_factory.mktemp("kept"))


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Kept]:
    """A brand on each engine."""
    monkeypatch.chdir(tmp_path)

    def call(url: str, *arguments: str) -> shell.Answer:
        configure(monkeypatch, url)
        return shell.answer(capsys, arguments)

    made: Template = request.getfixturevalue("sqlite_kept" if request.param == "sqlite" else "postgres_kept")
    shutil.copytree(made.backup, "first")
    if request.param == "sqlite":
        shutil.copyfile(make_url(made.url).database or "", "scrm.db")
        Path("other").mkdir()
        url, empty_url = f"sqlite:///{tmp_path / 'scrm.db'}", f"sqlite:///{tmp_path / 'other' / 'scrm.db'}"
        configure(monkeypatch, url)
        yield Kept(url, empty_url, made.key, call)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(made.url) as url, server.database() as empty_url:
        configure(monkeypatch, url)
        yield Kept(url, empty_url, made.key, call)


@pytest.fixture
def scrm_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> shell.Command:
    """Runs a command in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: shell.answer(capsys, arguments)


@pytest.fixture
def on(scrm_: shell.Command, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> shell.Command:
    """The same on a migrated database of each engine."""
    monkeypatch.setenv("SCRM_DATABASE_URL", migrated_url)
    monkeypatch.setenv("SCRM_SECRET_KEY", "s" * 40)
    return scrm_
