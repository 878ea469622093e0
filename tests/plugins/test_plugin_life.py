"""A plugin's life through the command line in processes: installed, enabled, checked, replayed, disabled, removed, purged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.api import Tx
from scrm.testing.client import drain, serving
from scrm.testing.commands import Said
from tests.plugins.conftest import EVERYTHING, Commands

PLUGIN = """
import strawberry
from scrm.api import Contribution, EventType, Scope, User, expression, extend, hookimpl
import sqlalchemy as sa

@extend(User, scope="NAME:read")
class More:
    shoe_size: int | None = expression("Size of shoes.", lambda user: sa.literal(1))

@hookimpl
def contribute():
    return Contribution(name="NAME", version="1.0", extends=[More],
                        scopes=[Scope("NAME:read", "See shoes."), Scope("shoes:write", "Change shoes.")],
                        event_types=[EventType("shoes.bought", "Shoes.")])
"""


def package(site: Path, name: str, text: str) -> None:
    """Put a package with a plugin where the command line finds it."""
    info = site / f"scrm_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"scrm_{name}.py").write_text(text.replace("NAME", name))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: scrm-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[scrm.plugins]\n{name} = scrm_{name}\n")


def enabled(*names: str, **settings: str) -> str:
    top = "".join(f'{key} = "{value}"\n' for key, value in settings.items())
    return top + "".join(f"[plugins.{name}]\nenabled = true\n" for name in names)


def of_plugin(listed: Said, name: str = "everything") -> dict[str, Any]:
    [found] = [one for one in json.loads(listed.out) if one["name"] == name]
    assert isinstance(found, dict)
    return found


async def tables(url: str) -> set[str]:
    def names(tx: Tx) -> set[str]:
        return set(sa.inspect(tx.connection).get_table_names())

    async with serving(url) as client:
        return await client.services.db.read(names)


async def fill(url: str) -> None:
    """Some marks, through the plugin; and a table that is somebody else's."""
    async with serving(url, modules={}, sections={"everything": {"enabled": True, "book": "/dev/null"}}) as client:
        await client.data('mutation { createChannel(input: {key: "store", name: "门店", kind: STORE}) { errors { code } } }')
        event = {
            "type": "order.paid",
            "identity": {"channel": "store", "externalId": "ann"},
            "occurredAt": "2026-03-01T04:00:00Z",
            "amount": {"amountMinor": 1000, "currency": "CNY"},
            "properties": {"orderId": "o1"},
            "source": "till",
            "externalId": "1",
        }
        assert (await client.events([event]))["accepted"] == 1
        await drain(client)
        await client.services.db.write(lambda tx: tx.execute(sa.text("create table everythings (id integer primary key)")))


async def test_life_and_death(everything: Path, migrated_url: str, scrm: Commands, tmp_path: Path) -> None:
    mine = {"everything_marks", "everything_moves", "everything_reviews", "alembic_version_everything"}
    there = {"packages": everything, "SCRM_DATABASE_URL": migrated_url}
    gone: dict[str, Any] = {"SCRM_DATABASE_URL": migrated_url}
    toml = tmp_path / "scrm.toml"
    toml.write_text('# the shop\n[plugins.everything]\nsecret = "hush"\n')
    (tmp_path / "still.toml").write_text(enabled("everything"))

    listed, done, status, upgraded = scrm("plugins list --json", "plugins enable everything", "db status", "db upgrade", **there)
    assert of_plugin(listed)["state"] == "disabled"
    assert done.code == 0
    assert toml.read_text() == '# the shop\n[plugins.everything]\nsecret = "hush"\nenabled = true\n'
    assert status.code == 1
    assert upgraded.out.splitlines()[:2] == ["core: up to date", "everything: nothing → 0001"]
    await fill(migrated_url)

    (tmp_path / "if.toml").write_text("per_order = 7\n")
    lines = [
        "show everything --json",
        "check everything",
        "replay everything",
        "replay everything --rules if.toml",
        "disable everything",
    ]
    before, show, checked, replay, other, done, after = scrm("schema", *(f"plugins {line}" for line in lines), "schema", **there)
    shown = json.loads(show.out)
    assert (shown["state"], shown["lag"], shown["failures"]) == ("active", 0, [])
    assert (shown["settings"]["secret"], shown["settings"]["per_order"]) == ("**********", 1)
    assert [one.code for one in (before, checked, replay, other, done, after)] == [0] * 6
    assert "markWeight(" in before.out
    assert replay.out.splitlines()[-1] == "equal"
    assert other.out.splitlines()[-1] == "not equal"
    assert "markWeight" not in after.out
    assert mine <= await tables(migrated_url)

    database = ["db upgrade", "db status", "db check"]
    said = scrm(*database, *(f"--config still.toml {line}" for line in database), **gone)
    assert [one.code for one in said] == [0, 0, 0, 1, 1, 0]
    assert said[3].err == ["plugin everything is enabled, but no installed package offers it; its tables stay as they are"]
    lines = ["--config still.toml plugins list --json", "--config still.toml serve", "plugins purge everything"]
    listed, served, refused = scrm(*lines, **gone)
    assert of_plugin(listed)["state"] == "load_error"
    assert [served.code, refused.code] == [2, 2]
    kept = await tables(migrated_url)
    assert mine <= kept

    purged, checked = scrm("plugins purge everything --yes", "db check", **gone)
    assert [purged.code, checked.code] == [0, 0]
    assert kept - await tables(migrated_url) == mine


def test_a_directory_of_source_is_checked_before_anybody_installs_it(scrm: Commands, tmp_path: Path) -> None:
    [said] = scrm(f"plugins check {EVERYTHING}")
    assert (said.code, said.out, said.err) == (0, "no problems\n", [])
    copy = tmp_path / "copy"
    shutil.copytree(EVERYTHING, copy)
    models = copy / "scrm_everything" / "models.py"
    people = 'Column("people", Integer'
    models.write_text(models.read_text().replace(people, f'Column("weather", Integer), {people}'))
    [said] = scrm("plugins check ./copy")
    assert (said.code, said.out, len(said.err)) == (1, "", 1)
    assert "everything_reviews" in said.err[0]
    assert "weather" in said.err[0]
    (copy / "scrm_everything" / "handlers.py").write_text("raise RuntimeError('no luck')")
    (tmp_path / "empty").mkdir()
    said, nothing, nowhere = scrm("plugins check ./copy", "plugins check ./empty", "plugins check ./nowhere")
    assert (said.code, said.err) == (1, ["everything: everything cannot be imported: RuntimeError: no luck"])
    assert (nothing.code, nothing.err) == (2, ["empty has no pyproject.toml; name the directory that pip would install"])
    assert (nowhere.code, len(nowhere.err)) == (2, 1)


def test_a_collision_names_both_owners(scrm: Commands, tmp_path: Path) -> None:
    for name in ("north", "south", "west"):
        own = PLUGIN.replace("shoes.bought", "hats.bought").replace("shoes:write", "hats:write") if name == "west" else PLUGIN
        package(tmp_path / "site", name, own)
    (tmp_path / "scrm.toml").write_text(enabled("north", "south"))
    (tmp_path / "other.toml").write_text(enabled("north", "west"))
    names, fields = scrm("schema", "--config other.toml schema", packages=tmp_path / "site")
    assert (names.code, names.out) == (2, "")
    assert names.err == [
        "event type shoes.bought is defined by north and by south; disable one",
        "scope shoes:write is defined by north and by south; disable one",
    ]
    assert (fields.code, fields.err) == (2, ["User.shoeSize is defined by north and by west; disable one"])


def test_what_is_wrong_is_said_all_at_once_or_left_out(everything: Path, scrm: Commands, tmp_path: Path) -> None:
    site = tmp_path / "site"
    package(site, "north", PLUGIN)
    package(site, "broken", "raise RuntimeError('no luck')")
    shutil.copytree(everything, site, dirs_exist_ok=True)
    wrong = enabled("north", "broken", "nowhere", "everything") + "per_oder = 3\n"
    (tmp_path / "scrm.toml").write_text(wrong)
    (tmp_path / "skip.toml").write_text('on_plugin_error = "skip"\n' + wrong)
    said, skipped, listed = scrm("schema", "--config skip.toml schema", "--config skip.toml plugins list --json", packages=site)
    assert (said.code, said.out) == (2, "")
    assert sorted(said.err) == [
        "plugin broken cannot be imported: RuntimeError: no luck",
        "plugin nowhere is enabled, but no installed package offers it; install its package or take its section out",
        "setting plugins.everything.per_oder is unknown; did you mean per_order?",
    ]
    assert skipped.code == 0
    assert "shoeSize" in skipped.out
    assert "markWeight" not in skipped.out
    states = {name: of_plugin(listed, name)["state"] for name in ("north", "broken", "nowhere", "everything")}
    assert states == {"north": "active", "broken": "load_error", "nowhere": "load_error", "everything": "load_error"}


@pytest.mark.parametrize("name", ["loyalty"])
def test_the_tables_of_a_built_in_plugin_are_as_its_models_say(
    migrated_url: str, scrm_here: Commands, tmp_path: Path, name: str
) -> None:
    (tmp_path / "scrm.toml").write_text(enabled(name))
    upgraded, said = scrm_here("db upgrade", "db check", SCRM_DATABASE_URL=migrated_url)
    assert upgraded.code == 0
    assert (said.code, said.out, said.err) == (0, "the tables are as the models say\n", [])
