"""Migrations: every owner its own history, in one transaction each, safe beside another process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from scrm.db import Database, Id, Text, Tx, metadata, plugin_metadata
from scrm.errors import StartupError
from scrm.events.models import consumers, event_types, out_of_turn, parked_events
from scrm.migrate import HasContribution, Owner, check, migrations_directory, purge, revision, status, upgrade, upgrade_owner
from scrm.models import jobs
from scrm.plugin import Contribution

FIRST = '''"""The first table."""

import sqlalchemy as sa
from alembic import op

from scrm.db import Id, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("acme_notes", sa.Column("id", Id, primary_key=True), sa.Column("text", Text))
    op.create_table("acme_marks", sa.Column("id", Id, primary_key=True), sa.Column("note_id", Id, sa.ForeignKey("acme_notes.id")))
'''
SECOND = '''"""Another column, which rebuilds the table on SQLite."""

import sqlalchemy as sa
from alembic import op

from scrm.db import Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("acme_notes") as batch:
        batch.add_column(sa.Column("colour", Text, nullable=False, server_default="red"))
        batch.alter_column("text", nullable=False, existing_type=Text)
'''
BROKEN = '''"""Makes a table and fails."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table("acme_left", sa.Column("id", sa.Integer, primary_key=True))
    raise RuntimeError("no luck")
'''


CORE = sorted(path.name[:4] for path in (migrations_directory() / "versions").glob("*.py"))
"""The core's own revisions, oldest first."""
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Plugin:
    contribution: Contribution


def acme(directory: Path, *scripts: str, name: str = "acme", tables: sa.MetaData | None = None) -> HasContribution:
    directory.mkdir(exist_ok=True)
    for number, script in enumerate(scripts, 1):
        (directory / f"{number:04}.py").write_text(script.replace("acme", name))
    return Plugin(Contribution(name=name, version="1", migrations=directory, tables=tables))


def models(*, colour: bool = False) -> sa.MetaData:
    collection = plugin_metadata()
    more = [sa.Column("colour", Text, nullable=False, server_default="red")] if colour else []
    sa.Table("acme_notes", collection, sa.Column("id", Id, primary_key=True), sa.Column("text", Text, nullable=not colour), *more)
    sa.Table(
        "acme_marks", collection, sa.Column("id", Id, primary_key=True), sa.Column("note_id", Id, sa.ForeignKey("acme_notes.id"))
    )
    return collection


def table_names(tx: Tx) -> set[str]:
    return set(sa.inspect(tx.connection).get_table_names())


async def tables(url: str) -> set[str]:
    db = Database(url)
    try:
        return await db.read(table_names)
    finally:
        await db.close()


async def test_the_core_tables_agree_with_their_models(migrated_url: str) -> None:
    assert await check(migrated_url) == []
    [core] = await status(migrated_url)
    assert (core.owner, core.current, core.head, core.pending) == ("core", CORE[-1], CORE[-1], 0)


async def test_the_own_event_types_can_be_taken_back_and_come_again(database: Database, migrated_url: str) -> None:
    core = Owner("core", metadata, migrations_directory() / "versions")

    def columns(tx: Tx) -> set[str]:
        return {column["name"] for column in sa.inspect(tx.connection).get_columns("event_types")}

    await database.write(lambda tx: tx.execute(event_types.insert().values(type="a.b", owner="acme", personal=["c"], own=True)))
    await database.write(lambda tx: command.downgrade(core.config(tx.connection), "0003"))
    assert await database.read(columns) == {"type", "owner", "personal"}
    assert await purge(migrated_url, "acme", NOW) == []
    await upgrade(migrated_url)
    assert [tuple(row) for row in await database.read(Tx.rows, sa.select(event_types))] == [("a.b", "acme", ["c"], False)]
    assert await check(migrated_url) == []


async def test_a_migrated_database_has_an_empty_log(database: Database) -> None:
    head = await database.read(lambda tx: tx.scalar(sa.text("select position from log_head")))
    assert head == 0


async def test_an_empty_database_is_brought_up_and_again_changes_nothing(database_url: str, tmp_path: Path) -> None:
    plugin = acme(tmp_path / "m", FIRST)
    if "sqlite" in database_url:
        with pytest.raises(StartupError, match="there is no database"):
            await status(database_url, [plugin])
        (tmp_path / "scrm.db").touch()
    [before, _] = await status(database_url, [plugin])
    assert (before.current, before.pending) == (None, len(CORE))
    done = await upgrade(database_url, [plugin])
    assert [(one.owner, one.before, one.after, one.error) for one in done] == [
        ("core", None, CORE[-1], None),
        ("acme", None, "0001", None),
    ]
    again = await upgrade(database_url, [plugin])
    assert [(one.before, one.after) for one in again] == [(CORE[-1], CORE[-1]), ("0001", "0001")]
    assert {"users", "alembic_version", "alembic_version_acme", "acme_notes", "acme_marks"} <= await tables(database_url)


async def test_a_table_is_rebuilt_with_its_rows_and_those_that_point_to_it(migrated_url: str, tmp_path: Path) -> None:
    await upgrade(migrated_url, [acme(tmp_path / "m", FIRST)])
    db = Database(migrated_url)

    def fill(tx: Tx) -> None:
        note = sa.table("acme_notes", sa.column("id", Id), sa.column("text", Text))
        tx.execute(note.insert().values(id=Id.python_type(int=1), text="x"))
        tx.execute(
            sa.table("acme_marks", sa.column("id", Id), sa.column("note_id", Id))
            .insert()
            .values(id=Id.python_type(int=2), note_id=Id.python_type(int=1))
        )

    await db.write(fill)
    assert [one.error for one in await upgrade(migrated_url, [acme(tmp_path / "m", FIRST, SECOND)])] == [None, None]
    rows = await db.read(
        lambda tx: tx.rows(sa.text("select text, colour from acme_notes, acme_marks where note_id = acme_notes.id"))
    )
    await db.close()
    assert [tuple(row) for row in rows] == [("x", "red")]


async def test_a_failed_migration_leaves_nothing_and_the_others_go_on(migrated_url: str, tmp_path: Path) -> None:
    bad = acme(tmp_path / "m", FIRST, SECOND, BROKEN)
    other = acme(tmp_path / "o", FIRST, name="other")
    done = await upgrade(migrated_url, [bad, other])
    assert [(one.owner, one.after, one.error) for one in done] == [
        ("core", CORE[-1], None),
        ("acme", None, "migration of acme failed: no luck"),
        ("other", "0001", None),
    ]
    assert {name for name in await tables(migrated_url) if "acme" in name} == set()


def test_two_processes_upgrade_at_once(database_url: str, tmp_path: Path) -> None:
    acme(tmp_path / "m", FIRST, SECOND)
    program = (
        "import asyncio, sys, pathlib; from types import SimpleNamespace as N; from scrm.migrate import upgrade; "
        "from scrm.plugin import Contribution; "
        "plugin = N(contribution=Contribution(name='acme', version='1', migrations=pathlib.Path(sys.argv[2]))); "
        "sys.exit(any(one.error for one in asyncio.run(upgrade(sys.argv[1], [plugin]))))"
    )
    command = [sys.executable, "-c", program, database_url, str(tmp_path / "m")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0), ("", 0)]
    found = asyncio.run(status(database_url, [acme(tmp_path / "m")]))
    assert [(one.current, one.pending) for one in found] == [(CORE[-1], 0), ("0002", 0)]


async def test_a_difference_between_tables_and_models_is_found(migrated_url: str, tmp_path: Path) -> None:
    await upgrade(migrated_url, [acme(tmp_path / "m", FIRST)])
    assert await check(migrated_url, [acme(tmp_path / "m", tables=models())]) == []
    assert await check(migrated_url, [acme(tmp_path / "m", tables=models(colour=True))]) == [
        "acme: add column acme_notes colour",
        "acme: modify nullable acme_notes text",
    ]
    db = Database(migrated_url)
    await db.write(lambda tx: tx.execute(sa.text("alter table users add column shoe_size integer")))
    await db.close()
    assert await check(migrated_url) == ["core: remove column users shoe_size"]


async def test_a_written_migration_makes_the_tables_as_the_models_say(migrated_url: str, tmp_path: Path) -> None:
    plugin = acme(tmp_path / "m", tables=models(colour=True))
    [path] = await revision(migrated_url, [plugin], "acme", "the first tables")
    assert path.parent == tmp_path / "m"
    assert "from scrm.api import Id" in path.read_text()
    assert "scrm.db" not in path.read_text()
    assert "0001" in path.name
    assert [one.error for one in await upgrade(migrated_url, [plugin])] == [None, None]
    assert await check(migrated_url, [plugin]) == []
    with pytest.raises(StartupError, match="nobody is no owner of migrations here; known are core"):
        await revision(migrated_url, [plugin], "nobody", "x")


async def test_a_plugin_whose_package_is_gone_stands_in_nobodys_way(migrated_url: str, tmp_path: Path) -> None:
    await upgrade(migrated_url, [acme(tmp_path / "m", FIRST)])
    [core, gone] = await status(migrated_url)
    assert (core.pending, gone.owner, gone.current, gone.head, gone.pending) == (0, "acme", "0001", None, 0)
    assert gone.problem == "plugin acme is not loaded (see scrm plugins list); its tables stay as they are"
    assert await check(migrated_url) == []
    assert [one.owner for one in await upgrade(migrated_url)] == ["core"]
    assert "acme_notes" in await tables(migrated_url)


async def test_a_newer_database_than_the_package_is_said(migrated_url: str, tmp_path: Path) -> None:
    await upgrade(migrated_url, [acme(tmp_path / "m", FIRST, SECOND)])
    [_, stands] = await status(migrated_url, [acme(tmp_path / "old", FIRST)])
    assert stands.problem is not None
    assert "0002" in stands.problem


async def test_purge_drops_a_plugins_own_and_nothing_else(database: Database, migrated_url: str, tmp_path: Path) -> None:
    both = [acme(tmp_path / "m", FIRST), acme(tmp_path / "o", FIRST, name="acme_more"), acme(tmp_path / "p", FIRST, name="ac")]
    await upgrade(migrated_url, both)
    before = await tables(migrated_url)

    def place(tx: Tx) -> None:
        at = database.clock()
        for name in ("acme", "acme_more"):
            tx.execute(jobs.insert().values(name=f"{name}:nightly", next_run_at=at))
            tx.execute(consumers.insert().values(plugin=name, cursor=5, state="ACTIVE", since=at, backfill_to=0))
            tx.execute(out_of_turn.insert().values(plugin=name, event_id=Id.python_type(int=1), after=1))
            tx.execute(
                parked_events.insert().values(
                    plugin=name, event_id=Id.python_type(int=1), position=1, key="k", state="DEAD", attempts=8, parked_at=at
                )
            )

    await database.write(place)
    assert sorted(await purge(migrated_url, "acme", NOW)) == ["acme_marks", "acme_notes"]
    assert before - await tables(migrated_url) == {"acme_marks", "acme_notes", "alembic_version_acme"}
    for table in (consumers, parked_events, out_of_turn):
        assert [row.plugin for row in await database.read(Tx.rows, sa.select(table.c.plugin))] == ["acme_more"]
    assert [row.name for row in await database.read(Tx.rows, sa.select(jobs.c.name))] == ["acme_more:nightly"]
    assert await purge(migrated_url, "acme", NOW) == []
    for name in ("core", "users; drop", "Ä"):
        with pytest.raises(StartupError, match="is no plugin's name"):
            await purge(migrated_url, name, NOW)


async def test_a_plugins_tables_are_built_a_second_time_in_a_scratch(migrated_url: str, tmp_path: Path) -> None:
    plugin = acme(tmp_path / "m", FIRST, SECOND)
    await upgrade(migrated_url, [plugin])
    db = Database(migrated_url if "postgresql" in migrated_url else f"sqlite:///{tmp_path / 'scratch.db'}")

    def build(tx: Tx) -> list[str]:
        inspector = sa.inspect(tx.connection)
        if tx.dialect == "sqlite":
            upgrade_owner(tx.connection, plugin)
            return sorted(inspector.get_table_names())
        tx.execute(sa.text("create schema scratch"))
        tx.execute(sa.text("set local search_path to scratch, public"))
        upgrade_owner(tx.connection, plugin, "scratch")
        return sorted(inspector.get_table_names(schema="scratch"))

    assert await db.write(build) == ["acme_marks", "acme_notes", "alembic_version_acme"]
    await db.close()
