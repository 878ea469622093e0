"""The command line: its answers, its exit codes, and mistakes as lines without a traceback."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.main import get_group

import scrm
from scrm.auth import Keys
from scrm.cli import PLACES, app
from scrm.commands.session import COMMANDS
from scrm.config import load_settings
from scrm.db import Database, Tx
from scrm.events.models import consumers, event_types, events
from tests.core.shell import CORE, Command

ACME = '''
from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from pydantic import SecretStr

from scrm.db import Id, plugin_metadata
from scrm.plugin import Command, Contribution, EventType, Handler, PluginContext, Rules, Scope, Wiring, hookimpl

tables = plugin_metadata()
sa.Table("acme_notes", tables, sa.Column("id", Id, primary_key=True))


class AcmeRules(Rules):
    bonus: int = 1


class AcmeWiring(Wiring):
    token: SecretStr = SecretStr("")


def handle(tx, events, rules): ...


async def greet(context: PluginContext, name: str = "you") -> None:
    """Say hello."""
    print("hello", name, await context.read(lambda tx: tx.dialect), context.wiring.token.get_secret_value())


@hookimpl
def contribute():
    return Contribution(
        name="acme",
        version="2.0",
        rules=AcmeRules,
        wiring=AcmeWiring,
        tables=tables,
        migrations=Path(__file__).parent / "acme_migrations",
        event_types=[EventType("acme.noted", "x", personal=("text",))],
        handlers=[Handler(("acme.noted",), handle)],
        scopes=[Scope("acme:read", "x")],
        commands=[Command("greet", greet)],
    )


@hookimpl
def merge(): return 0
@hookimpl
def unmerge(): return 0
@hookimpl
def erase(): ...
@hookimpl
def export(): return {}
'''
MIGRATION = """
import sqlalchemy as sa
from alembic import op
from scrm.db import Id

revision = "0001"
down_revision = None

def upgrade():
    op.create_table("acme_notes", sa.Column("id", Id, primary_key=True))
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a plugin in it."""
    site = tmp_path / "site"
    info = site / "acme_scrm-2.0.dist-info"
    (site / "acme_migrations").mkdir(parents=True)
    info.mkdir()
    (site / "acme_plugin.py").write_text(ACME)
    (site / "acme_migrations" / "0001.py").write_text(MIGRATION)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scrm\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[scrm.plugins]\nacme = acme_plugin\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "acme_plugin", raising=False)
    return site


def test_the_commands_are_those_that_plugins_may_not_hide() -> None:
    assert set(get_group(app).commands) == set(PLACES) == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "No such command 'nonsense'."),
        (["key"], "No such command 'key'. Did you mean 'keys'?"),
        (["keys", "create"], "Missing argument 'name'."),
        (["keys", "create", "x"], "Missing option '--scope'."),
        (
            ["serve", "--port", "x"],
            "Invalid value for '--port': Input should be a valid integer, unable to parse string as an integer",
        ),
        (["--config", "none.toml", "keys", "list"], "settings file none.toml does not exist; write one or leave out --config"),
        (["plugins", "show", "none"], "plugin none is not installed; installed are: loyalty"),
    ],
)
def test_wrong_usage_is_one_line_and_2(scrm_: Command, arguments: list[str], line: str) -> None:
    said = scrm_(*arguments)
    assert (said.code, said.out) == (2, "")
    [only] = said.err
    assert only.split("; installed are")[0] == line.split("; installed are")[0]


def test_every_problem_of_the_settings_is_a_line(scrm_: Command) -> None:
    Path("scrm.toml").write_text('curency = "CNY"\nlate_after_days = "two"\n')
    said = scrm_("keys", "list")
    assert (said.code, said.out, len(said.err)) == (2, "", 2)
    assert "setting curency is unknown; did you mean currency?" in said.err


def test_the_version(scrm_: Command) -> None:
    assert scrm_("--version").out == f"{scrm.__version__}\n"


@pytest.mark.parametrize(
    "line",
    [
        "db status",
        "db check",
        "db revision core -m x",
        "keys list",
        "keys create shop --scope *",
        "keys revoke shop",
        "plugins pause loyalty",
        "plugins resume loyalty",
        "plugins retry loyalty",
        "plugins replay loyalty",
        "plugins purge acme --yes",
        "config apply",
        "serve",
        "worker",
        "import events orders.csv",
        "import users people.csv",
    ],
)
def test_where_there_is_no_database_none_is_made(scrm_: Command, tmp_path: Path, line: str) -> None:
    Path("scrm.toml").write_text("[plugins.loyalty]\nenabled = true\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    said = scrm_(*line.split())
    lines = [f"there is no database {tmp_path / 'scrm.db'}; run scrm db upgrade to make it, or name your settings with --config"]
    assert (said.code, said.out, said.err) == (2, "", lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_plugins_are_seen_and_enabled_before_there_is_a_database(scrm_: Command, acme: Path) -> None:
    [listed] = [one for one in json.loads(scrm_("plugins", "list", "--json").out) if one["name"] == "acme"]
    assert (listed["state"], listed["runningIn"]) == ("disabled", [])
    assert scrm_("plugins", "enable", "acme").code == 0
    assert json.loads(scrm_("plugins", "show", "acme", "--json").out)["state"] == "active"
    assert not Path("scrm.db").exists()


def test_an_enabled_plugin_that_is_not_there_or_does_not_load_is_said(on: Command, acme: Path) -> None:
    Path("scrm.toml").write_text("[plugins.acme]\nenabled = true\n[plugins.nowhere]\nenabled = true\n")
    gone = "plugin nowhere is enabled, but no installed package offers it; "
    said = on("db", "upgrade")
    assert (said.code, said.out) == (1, "core: up to date\nacme: nothing → 0001\n")
    assert said.err == [gone + "its tables stay as they are"]
    (acme / "acme_plugin.py").write_text("raise RuntimeError('no luck')\n")
    sys.modules.pop("acme_plugin")
    broken = "plugin acme cannot be imported: RuntimeError: no luck"
    said = on("db", "status", "--json")
    found = {one["owner"]: (one["current"], one["problem"]) for one in json.loads(said.out)}
    assert (said.code, found["acme"]) == (1, ("0001", broken))
    assert found["nowhere"] == (None, gone + "install its package or take its section out")
    assert on("db", "check").err == [broken, gone + "install its package or take its section out"]
    assert on("db", "upgrade").code == 2

    Path("scrm.toml").write_text('on_plugin_error = "skip"\n' + Path("scrm.toml").read_text())
    said = on("db", "status", "--json")
    assert (said.code, {one["owner"] for one in json.loads(said.out)}) == (0, {"core", "acme", "nowhere"})
    said = on("db", "upgrade")
    assert (said.code, said.err) == (0, [gone + "its tables stay as they are", broken])


def test_a_database_that_is_not_ready_is_said(scrm_: Command) -> None:
    Path("scrm.db").touch()
    said = scrm_("keys", "list")
    assert (said.code, said.out) == (2, "")
    assert said.err == ["the database is not ready: api_keys; run scrm db upgrade"]
    for command in (["serve"], ["worker"], ["config", "apply"]):
        said = scrm_(*command)
        assert (said.code, said.err) == (
            2,
            [f"the database is not ready: {len(CORE)} migrations are pending; run scrm db upgrade"],
        )


def test_upgrade_status_and_check(scrm_: Command, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRM_DATABASE_URL", database_url)
    if "sqlite" in database_url:
        Path("scrm.db").touch()
    assert scrm_("db", "status").code == 1
    assert scrm_("db", "check").code == 1
    said = scrm_("db", "upgrade")
    assert (said.code, said.out, said.err) == (0, f"core: nothing → {CORE[-1]}\n", [])
    assert scrm_("db", "upgrade").out == "core: up to date\n"
    said = scrm_("db", "status", "--json")
    assert (said.code, json.loads(said.out)) == (
        0,
        [{"owner": "core", "current": CORE[-1], "head": CORE[-1], "pending": 0, "problem": None}],
    )
    assert scrm_("db", "check").code == 0


def test_a_key_is_alone_on_standard_output_and_works_until_revoked(on: Command, migrated_url: str) -> None:
    said = on("keys", "create", "shop", "--scope", "users:read", "--scope", "*")
    key = said.out.strip()
    assert (said.code, said.err, said.out) == (0, [], f"{key}\n")

    async def principal() -> object:
        db = Database(migrated_url)
        try:
            return await Keys(db, load_settings()).authenticate(f"Bearer {key}")
        finally:
            await db.close()

    assert asyncio.run(principal()) is not None
    [listed] = json.loads(on("keys", "list", "--json").out)
    assert (listed["name"], listed["scopes"], listed["revokedAt"]) == ("shop", ["*", "users:read"], None)
    assert key not in on("keys", "list").out
    assert on("keys", "revoke", "shop").code == 0
    assert asyncio.run(principal()) is None
    assert json.loads(on("keys", "list", "--json").out)[0]["revokedAt"] is not None
    assert on("keys", "revoke", "shop").err == ["key shop was revoked before"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["create", "shop", "--scope", "user:read"], "scope user:read is unknown; did you mean users:read?"),
        (
            ["create", "shop", "--scope", "*", "--expires", "soon"],
            "option --expires is 'soon'; expected 90d, 12h, or a date or time such as",
        ),
        (["create", "shop", "--scope", "*", "--expires", "2001-01-01"], "option --expires is '2001-01-01', which is over"),
        (["revoke", "shop"], "key shop does not exist; see scrm keys list"),
    ],
)
def test_a_refused_key(on: Command, arguments: list[str], line: str) -> None:
    said = on("keys", *arguments)
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    assert said.err[0].startswith(line)
    assert json.loads(on("keys", "list", "--json").out) == []


def test_an_expiry_is_kept(on: Command) -> None:
    assert on("keys", "create", "a", "--scope", "*", "--expires", "2999-01-31").code == 0
    assert on("keys", "create", "b", "--scope", "*", "--expires", "30d").code == 0
    [a, b] = json.loads(on("keys", "list", "--json").out)
    assert a["expiresAt"] == "2999-01-31T16:00:00.000000Z"
    assert b["expiresAt"] > b["createdAt"]


def test_a_plugins_life(on: Command, migrated_url: str, acme: Path) -> None:
    settings = Path("scrm.toml")
    settings.write_text('# my shop\ncurrency = "CNY"  # yuan\n\n[plugins.acme]\nenabled = false  # not yet\nbonus = 3\n')
    settings.chmod(0o640)
    [listed] = [one for one in json.loads(on("plugins", "list", "--json").out) if one["name"] == "acme"]
    assert (listed["state"], listed["version"], listed["package"]) == ("disabled", "2.0", "acme-scrm")
    assert on("acme", "greet").code == 2

    assert on("plugins", "enable", "acme").code == 0
    assert settings.read_text() == '# my shop\ncurrency = "CNY"  # yuan\n\n[plugins.acme]\nenabled = true  # not yet\nbonus = 3\n'
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640
    assert on("worker").err == ["plugin acme is not ready: 1 migration is pending; run scrm db upgrade"]
    said = on("db", "upgrade")
    assert (said.code, said.out) == (0, "core: up to date\nacme: nothing → 0001\n")
    assert seen(migrated_url) == (
        ["acme"],
        [("acme.noted", "acme", ["text"], False)],
        [{"plugin": "acme", "rules": {"bonus": 3}}],
    )

    settings.write_text(settings.read_text().replace("bonus = 3", "bonus = 5"))
    assert on("config", "apply", "--dry-run").out == "acme: bonus 3 → 5\n"
    assert json.loads(on("config", "apply", "--json").out) == {"acme": {"bonus": {"before": 3, "after": 5}}}
    assert on("config", "apply").out == "nothing changes\n"

    assert on("plugins", "purge", "acme", "--yes").err == ["plugin acme is enabled; run scrm plugins disable acme first"]
    assert on("plugins", "retry", "acme").err == ["0 events of plugin acme will be tried again"]
    assert on("plugins", "disable", "acme").code == 0
    refused = on("plugins", "retry", "acme")
    assert (refused.code, refused.err) == (2, ["plugin acme is disabled; enable it first"])
    assert on("plugins", "retry", "nobody").code == 2
    assert on("plugins", "retry", "core").code == 0
    assert "enabled = false  # not yet" in settings.read_text()
    said = on("db", "status", "--json")
    assert [(one["owner"], one["pending"]) for one in json.loads(said.out)] == [("core", 0), ("acme", 0)]
    assert on("plugins", "purge", "acme").code == 2
    assert seen(migrated_url)[0] == ["acme"]
    assert on("plugins", "purge", "acme", "--yes").err == ["plugin acme is purged; dropped acme_notes"]
    assert seen(migrated_url)[0] == []


def seen(url: str) -> tuple[list[str], list[tuple[str, str, list[str], bool]], list[object]]:
    def look(tx: Tx) -> tuple[list[str], list[tuple[str, str, list[str], bool]], list[object]]:
        places = [row.plugin for row in tx.rows(sa.select(consumers))]
        types = [tuple(row) for row in tx.rows(sa.select(event_types).where(event_types.c.owner != "core"))]
        configured = sa.select(events.c.properties).where(events.c.type == "plugin.configured")
        return places, types, [row.properties for row in tx.rows(configured)]

    async def ask() -> tuple[list[str], list[tuple[str, str, list[str], bool]], list[object]]:
        db = Database(url)
        try:
            return await db.read(look)
        finally:
            await db.close()

    return asyncio.run(ask())


def test_an_enabled_plugins_settings_and_commands(scrm_: Command, acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("scrm.toml").write_text("[plugins.acme]\nenabled = true\ntoken = 'shh'\n")
    assert scrm_("db", "upgrade").code == 0
    said = scrm_("acme", "greet", "--name", "Wei")
    assert (said.code, said.out) == (0, "hello Wei sqlite shh\n")
    assert "greet" in scrm_("acme", "--help").out
    shown = json.loads(scrm_("config", "show", "--json").out)
    assert shown["plugins"]["acme"] == {"enabled": True, "bonus": 1, "token": "**********"}
    shown = json.loads(scrm_("plugins", "show", "acme", "--json").out)
    assert (shown["state"], shown["cursor"], shown["failures"]) == ("active", 0, [])
    assert "shh" not in scrm_("plugins", "show", "acme").out
    assert scrm_("keys", "create", "x", "--scope", "acme:read").code == 0
    monkeypatch.setenv("SCRM_PLUGINS__ACME__BONUS", "many")
    said = scrm_("plugins", "list")
    wrong = 'setting plugins.acme.bonus, from the variable SCRM_PLUGINS__ACME__BONUS, is "many"; expected a whole number'
    assert wrong in said.out
    said = scrm_("db", "upgrade")
    assert (said.code, said.err) == (2, [wrong])


def test_enabling_what_is_not_there_or_does_not_load_changes_nothing(scrm_: Command, acme: Path) -> None:
    said = scrm_("plugins", "enable", "acmee")
    assert (said.code, said.err) == (2, ["plugin acmee is not installed; did you mean acme?"])
    (acme / "acme_plugin.py").write_text("raise RuntimeError('no luck')\n")
    said = scrm_("plugins", "enable", "acme")
    assert (said.code, len(said.err)) == (2, 1)
    assert said.err[0] == "plugin acme cannot be enabled: acme cannot be imported: RuntimeError: no luck"
    assert not Path("scrm.toml").exists()


def test_checking_a_plugin_that_fails_is_1(scrm_: Command, acme: Path) -> None:
    module = acme / "acme_plugin.py"
    module.write_text(ACME.replace('"acme_notes"', '"notes"'))
    said = scrm_("plugins", "check", "acme")
    assert (said.code, said.out, said.err) == (1, "", ["acme: table notes of acme must be named acme_…"])


def test_checking_a_plugin_that_is_not_enabled(scrm_: Command, acme: Path) -> None:
    said = scrm_("plugins", "check", "acme")
    assert (said.code, said.out, said.err) == (0, "no problems\n", [])
    assert scrm_("plugins", "check", "none").code == 2


def test_the_schema_is_printed(scrm_: Command) -> None:
    said = scrm_("schema")
    assert (said.code, said.err) == (0, [])
    assert "type Query {" in said.out.splitlines()
