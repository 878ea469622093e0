"""The host loads what is enabled, in order, and says of everything else why not, naming both sides of a collision."""

from __future__ import annotations

import contextlib
import tomllib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

import scrm
from scrm import hookspecs
from scrm.config import PluginSection, Settings
from scrm.conformance import core_hooks
from scrm.db import Database, Id, Tx, metadata, plugin_metadata
from scrm.errors import PluginFailedError, StartupError
from scrm.events.models import consumers
from scrm.loader import LoadState, live_statuses, load_plugins, with_migrations
from scrm.migrate import OwnerStatus
from scrm.plugin import (
    Contribution,
    Decision,
    Deliverer,
    EventType,
    Fact,
    Handler,
    HandlerTx,
    Health,
    Indicator,
    IndicatorUnit,
    Job,
    PluginContext,
    Ratio,
    Route,
    Rules,
    Scope,
    Wiring,
    hookimpl,
    hookspec,
)
from scrm.plugin_set import PluginSet

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOBODY = uuid.UUID(int=0)


class Anything:
    """Arguments whose types do not matter to the test."""

    def __getitem__(self, names: Any) -> Any:
        return names


ANY = Anything()


def handle(tx: HandlerTx, events: Sequence[Any], rules: Any) -> None: ...


def decide(tx: Tx, input: Mapping[str, Any], rules: Any, at: datetime) -> Fact:
    raise NotImplementedError


def series(tx: Tx, periods: Sequence[Any], channel: Any, as_of: datetime) -> list[Ratio]:
    return []


def indicator(key: str) -> Indicator:
    return Indicator(key, "x", IndicatorUnit.POINTS, "x", partial(series))


def run(tx: Tx, due: datetime, rules: Any) -> list[Any]:
    return []


async def deliver(payload: Mapping[str, Any], wiring: Any) -> None: ...


async def endpoint(request: Any) -> Any: ...


def plugin(
    name: str, version: str = "1.0.0", hooks: Mapping[str, Callable[..., Any]] | None = None, **brings: Any
) -> SimpleNamespace:
    """A plugin as an object: what a module with these functions would be."""

    @hookimpl
    def contribute() -> Contribution:
        return Contribution(name=name, version=version, **brings)

    return SimpleNamespace(contribute=contribute, **{key: hookimpl(value) for key, value in (hooks or {}).items()})


def load(*plugins: SimpleNamespace, settings: Settings | None = None, on_error: Any = "skip") -> PluginSet:
    named = {one.contribute().name: one for one in plugins}
    return load_plugins(settings or Settings(), named, on_error=on_error, at=NOW)


def names(loaded: PluginSet) -> list[str]:
    return [one.name for one in loaded]


def why(loaded: PluginSet, name: str) -> tuple[str, str | None]:
    status = loaded.status(name)
    assert status is not None
    return status.state.value, status.reason


def refused(*plugins: SimpleNamespace, settings: Settings | None = None) -> list[str]:
    with pytest.raises(StartupError) as caught:
        load(*plugins, settings=settings, on_error="fail")
    return caught.value.problems


def tables(*names: str, **columns: Any) -> sa.MetaData:
    collection = plugin_metadata()
    for name in names:
        sa.Table(
            name, collection, sa.Column("id", Id, primary_key=True), *(sa.Column(key, *value) for key, value in columns.items())
        )
    return collection


FOUR: dict[str, Callable[..., Any]] = {
    "merge": lambda tx: 0,
    "unmerge": lambda tx: 0,
    "erase": lambda tx: None,
    "export": lambda tx, user: {},
}


def test_order_is_by_need_then_by_name() -> None:
    loaded = load(
        plugin("a", after=["z"]), plugin("c"), plugin("b", requires=["d"]), plugin("d"), plugin("z"), plugin("e", after=["none"])
    )
    assert names(loaded) == ["c", "d", "b", "e", "z", "a"]
    assert why(loaded, "a") == ("active", None)
    status = loaded.status("a")
    assert status is not None
    assert (status.since, status.version) == (NOW, "1.0.0")


def test_the_settings_reach_the_plugin_checked_and_the_wrong_ones_are_named() -> None:
    class Points(Rules):
        points_per_yuan: int = 1

    class Gateway(Wiring):
        url: str = ""

    one = plugin("loyalty", rules=Points, wiring=Gateway)
    section = PluginSection(enabled=True, points_per_yuan=3, url="https://x")
    loaded = load(one, settings=Settings(plugins={"loyalty": section}))
    found = loaded.get("loyalty")
    assert found is not None
    assert (found.rules, found.wiring) == (Points(points_per_yuan=3), Gateway(url="https://x"))
    wrong = Settings(plugins={"loyalty": PluginSection(enabled=True, points_per_yuan="two")})
    assert refused(one, settings=wrong) == ['setting plugins.loyalty.points_per_yuan is "two"; expected a whole number']
    assert why(load(one, settings=wrong), "loyalty")[0] == "load_error"


def test_a_disabled_plugin_is_not_even_asked_what_it_brings() -> None:
    @hookimpl
    def contribute() -> Contribution:
        raise AssertionError("must not run")

    settings = Settings(plugins={"loyalty": PluginSection(enabled=False, nonsense=1)})
    loaded = load_plugins(settings, {"loyalty": SimpleNamespace(contribute=contribute)}, at=NOW)
    assert (names(loaded), why(loaded, "loyalty")) == ([], ("disabled", None))


@pytest.mark.parametrize("error", [RuntimeError("no luck"), SystemExit(3), GeneratorExit(), RuntimeError("one\ntwo")])
def test_whatever_a_plugin_raises_while_it_is_loaded_is_its_own_failure(error: BaseException) -> None:
    @hookimpl
    def contribute() -> Contribution:
        raise error

    loaded = load_plugins(
        Settings(), {"bad": SimpleNamespace(contribute=contribute), "good": plugin("good")}, on_error="skip", at=NOW
    )
    assert names(loaded) == ["good"]
    said = (str(error) or "no message").splitlines()[0]
    assert why(loaded, "bad") == ("load_error", f"bad cannot be imported: {type(error).__name__}: {said}")


def test_enabled_but_not_installed() -> None:
    settings = Settings(plugins={"loyaltyy": PluginSection(enabled=True), "gone": PluginSection(enabled=False)})
    [line] = refused(settings=settings)
    assert line.startswith("plugin loyaltyy is enabled, but no installed package offers it; ")
    assert load(settings=settings).status("gone") is None


def test_what_a_missing_need_takes_with_it() -> None:
    settings = Settings(plugins={"a": PluginSection(enabled=False)})
    loaded = load(
        plugin("a"), plugin("b", requires=["a"]), plugin("c", requires=["b"]), plugin("d", requires=["x"]), settings=settings
    )
    assert names(loaded) == []
    assert why(loaded, "b") == ("incompatible", "b requires a, which is disabled")
    assert why(loaded, "c") == ("incompatible", "c requires b, which is incompatible")
    assert why(loaded, "d") == ("incompatible", "d requires x, which is not installed")


def test_a_circle_is_named_and_the_rest_runs() -> None:
    loaded = load(plugin("a", after=["b"]), plugin("b", after=["c"]), plugin("c", after=["b"]), plugin("d", after=["a"]))
    assert names(loaded) == ["a", "d"]
    assert why(loaded, "b") == ("incompatible", "plugins that come after each other in a circle: b → c → b; break it")


def test_a_version_that_does_not_fit() -> None:
    assert refused(plugin("old", scrm=">=9")) == [f"plugin old 1.0.0 needs scrm >=9; this is {scrm.__version__}"]
    assert why(load(plugin("old", scrm=">=9")), "old")[0] == "incompatible"


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == scrm.__version__


def test_every_problem_of_every_plugin_is_said_at_once() -> None:
    problems = refused(plugin("a", scrm="nonsense"), plugin("b", version="x"), plugin("c", requires=["d"]))
    assert problems == [
        "plugin a asks for scrm 'nonsense', which is no version range; write one such as >=0.1,<1",
        "version 'x' of b is no version; write one such as 1.0.0",
        "plugin c requires d, which is not installed",
    ]


def test_hooks_misspelt_unmarked_missing_or_with_other_arguments() -> None:
    [misspelt] = refused(plugin("a", hooks={"exprot": lambda tx, user: {}}))
    assert misspelt == "hook exprot of a is unknown; did you mean export?"
    [other] = refused(plugin("a", hooks={"count": lambda tx, person: 0}))
    assert other == "hook count of a has the argument person, which it is not given; it takes tx, user, or fewer of them"
    unmarked = plugin("a")
    unmarked.count = lambda tx, user: 0
    assert refused(unmarked) == ["a.count is not marked as a hook; put @hookimpl above it"]
    with pytest.raises(StartupError, match="empty has no hook contribute"):
        load_plugins(Settings(), {"empty": SimpleNamespace()}, at=NOW)


def test_tables_keep_to_their_owner(tmp_path: Path) -> None:
    (tmp_path / "0001.py").touch()
    assert refused(plugin("a", tables=tables("a_rows"), migrations=tmp_path)) == [
        f"plugin a has tables and no hook {hook}; write one, be it empty" for hook in ("merge", "unmerge", "erase", "export")
    ]
    assert refused(plugin("a", tables=tables("rows", "users"), migrations=tmp_path, hooks=FOUR)) == [
        "table rows of a must be named a_…",
        "table users of a must be named a_…",
    ]
    pointing = tables("a_rows", user_id=(Id, sa.ForeignKey("users.id")))
    assert refused(plugin("a", tables=pointing, migrations=tmp_path, hooks=FOUR)) == [
        "a_rows.user_id of a is a foreign key to users, which is not a's; keep the id without a foreign key"
    ]
    assert refused(plugin("a", tables=tables("a_rows"), hooks=FOUR)) == [
        "plugin a has tables and no migrations; give its Contribution a migrations directory"
    ]
    both = (
        plugin("a", tables=tables("a_b_rows"), migrations=tmp_path, hooks=FOUR),
        plugin("a_b", tables=tables("a_b_rows"), migrations=tmp_path, hooks=FOUR),
    )
    assert refused(*both) == [
        "table a_b_rows of a has the prefix of a_b; disable one",
        "table a_b_rows is defined by a and by a_b; disable one",
    ]


def test_callbacks_are_functions_that_take_what_they_are_given() -> None:
    async def slow(tx: HandlerTx, events: Sequence[Any], rules: Any) -> None: ...

    def short(tx: HandlerTx) -> None: ...

    wrong: list[Any] = [slow, short, run]

    problems = refused(
        plugin(
            "a",
            handlers=[Handler(("order.paid",), wrong[0]), Handler(("order.placed",), wrong[1]), Handler((), handle)],
            jobs=[Job("nightly", "61 * * * *", run), Job("never", timedelta(0), run)],
            routes=[
                Route("hook", ("POST",), endpoint, public=True),
                Route("/x", ("GET",), endpoint),
                Route("/y", ("GET",), wrong[2]),
            ],
            deliverers=[Deliverer("sms", wrong[2])],
            decisions=[Decision("redeem", "points.redeemed", decide)],
            scopes=[Scope("points", "x")],
        )
    )
    assert problems == [
        "scope 'points' of a is not noun:read or noun:write",
        "handler handle of a reads no event type; name some or take it out",
        "decision redeem of a records points.redeemed, which its handlers do not read; add one",
        "handler slow of a must be a plain function, not an async function",
        "handler short of a is short(tx: 'HandlerTx') -> 'None'; it is called with 3 arguments",
        "deliverer sms of a must be an async function of a payload and the wiring",
        "job nightly of a runs every '61 * * * *'; give a duration or a cron line",
        "job never of a runs every datetime.timedelta(0); give a duration or a cron line",
        "route 'hook' of a must begin with /",
        "route /x of a must name a scope or be public, one of the two",
        "route /y of a must be an async function, not a function",
        "route /y of a must name a scope or be public, one of the two",
    ]


def test_rules_hold_no_secret_and_share_no_name_with_wiring() -> None:
    class Leaky(Rules):
        token: SecretStr = SecretStr("")

    class Same(Wiring):
        token: str = ""

    assert refused(plugin("a", rules=Leaky, wiring=Same)) == [
        "setting token is in both rules and wiring of a; keep one",
        "rules.token of a is a secret, and rules are kept in the log; move it to wiring",
    ]


def test_collisions_name_both_owners() -> None:
    brings: dict[str, Any] = {
        "event_types": [EventType("points.earned", "x")],
        "scopes": [Scope("points:read", "x")],
        "indicators": [indicator("points_issued")],
    }
    core = plugin(
        "c", event_types=[EventType("order.paid", "x")], scopes=[Scope("users:read", "x")], indicators=[indicator("revenue")]
    )
    assert refused(plugin("a", **brings), plugin("b", **brings), core) == [
        "event type points.earned is defined by a and by b; disable one",
        "scope points:read is defined by a and by b; disable one",
        "indicator points_issued is defined by a and by b; disable one",
        "event type order.paid is defined by core and by c; rename it in c",
        "scope users:read is defined by core and by c; rename it in c",
        "indicator revenue is defined by core and by c; rename it in c",
    ]
    assert names(load(plugin("a", **brings), plugin("b", **brings), core)) == ["a"]
    twice = replace(plugin("a", **brings).contribute(), scopes=[Scope("x:read", ""), Scope("x:read", "")])
    assert refused(plugin("a", scopes=twice.scopes)) == ["scope x:read is declared twice by a; keep one"]


def test_an_event_type_that_nobody_registers_is_a_warning() -> None:
    loaded = load(plugin("a", handlers=[Handler(("order.paid", "ordr.paid"), handle)]), on_error="fail")
    status = loaded.status("a")
    assert status is not None
    assert status.warnings == ("event type ordr.paid, which a uses, is registered by nobody; check its spelling",)


def test_a_plugin_may_offer_hooks_to_those_that_require_it() -> None:
    @hookspec
    def a_earn(amount: int) -> int:
        raise NotImplementedError

    offering = plugin("a")
    offering.a_earn = a_earn
    taking = plugin("b", requires=["a"], hooks={"a_earn": lambda amount: amount})
    assert names(load(offering, taking, on_error="fail")) == ["a", "b"]
    [line] = refused(plugin("a"), taking)
    assert line.startswith("hook a_earn of b is unknown; ")


def test_hook_contribute() -> None:
    assert load(plugin("a", "3.1")).get("a") is not None
    with pytest.raises(StartupError, match="contribute\\(\\) of a returned a dict; return a Contribution"):
        load_plugins(Settings(), {"a": SimpleNamespace(contribute=hookimpl(lambda: {}))}, at=NOW)


def test_hook_merge() -> None:
    loaded = load(plugin("a", hooks={"merge": lambda tx, kept, absorbed, rules: [tx, kept, absorbed, rules].index("rules")}))
    one = loaded.active[0]
    assert loaded.merge(one, *ANY["tx", "event", "kept", "absorbed", "rules"]) == 3
    assert one.hooks.merge("tx", "event", "kept", "absorbed", "rules") == 3  # type: ignore[attr-defined]


def test_hook_unmerge() -> None:
    loaded = load(plugin("a", hooks={"unmerge": lambda merge, kept: {"merge": 2}[merge]}), plugin("b"))
    assert loaded.unmerge(loaded.active[0], *ANY["tx", "event", "kept", "absorbed", "merge", "rules"]) == 2
    assert loaded.unmerge(loaded.active[1], *ANY["tx", "event", "kept", "absorbed", "merge", "rules"]) == 0


def test_hook_erase() -> None:
    seen: list[Any] = []
    loaded = load(plugin("a", hooks={"erase": lambda user, pseudonym: seen.append((user, pseudonym))}))
    loaded.erase(loaded.active[0], *ANY["tx", "event", "user", "pseudonym"])
    assert seen == [("user", "pseudonym")]


async def test_hook_count(database: Database) -> None:
    loaded = load(
        plugin("a", hooks={"count": lambda user: 2}),
        plugin("b", hooks={"count": lambda tx: tx.scalar(sa.text("select 5"))}),
        plugin("bad", hooks={"count": lambda: 1 / 0}),
        plugin("c"),
    )
    assert await database.read(loaded.count, NOBODY) == {"a": 2, "b": 5}
    assert not hasattr(loaded.active[3].hooks, "count")


async def test_hook_export(database: Database) -> None:
    loaded = load(plugin("a", hooks={"export": lambda tx, user: {"rows": [{user.hex: tx.dialect}]}}), plugin("b"))
    assert await database.read(loaded.export, NOBODY) == {"a": {"rows": [{NOBODY.hex: database.dialect}]}}
    for junk in (lambda: {1, 2}, lambda tx: tx.execute(sa.text("delete from users"))):
        with pytest.raises(PluginFailedError, match="plugin a failed in export"):
            await database.read(load(plugin("a", hooks={"export": junk})).export, NOBODY)


async def test_hook_lifespan(database: Database) -> None:
    steps: list[str] = []

    def around(name: str) -> Callable[..., Any]:
        @contextlib.asynccontextmanager
        async def lifespan(context: PluginContext) -> AsyncIterator[None]:
            steps.append(
                f"{name} {await context.read(lambda tx: tx.scalar(sa.text('select 1')))} {context.clock is database.clock}"
            )
            yield
            steps.append(f"{name} ends")

        return lambda context: lifespan(context)

    loaded = load(
        plugin("b", hooks={"lifespan": around("b")}), plugin("a", after=["b"], hooks={"lifespan": around("a")}), plugin("c")
    )
    async with loaded.lifespan(database):
        assert steps == ["b 1 True", "a 1 True"]
    assert steps[2:] == ["a ends", "b ends"]


async def test_hook_health(database: Database) -> None:
    class Gateway(Wiring):
        url: str = "https://x"

    loaded = load(
        plugin("a", wiring=Gateway, hooks={"health": lambda context: Health(True, context.wiring.url)}),
        plugin("b", hooks={"health": lambda: 1 / 0}),
        plugin("c"),
    )
    assert await loaded.health(database) == {
        "a": Health(True, "https://x"),
        "b": Health(False, "plugin b failed in health: ZeroDivisionError"),
    }


def test_a_hook_that_fails_names_its_plugin() -> None:
    def broken(tx: Tx, user: Any) -> int:
        raise ValueError("x")

    loaded = load(plugin("a", hooks={"erase": broken}))
    with pytest.raises(PluginFailedError, match="plugin a failed in erase"):
        loaded.erase(loaded.active[0], *ANY["tx", "event", "user", "pseudonym"])


def test_the_plugin_set_has_a_method_for_every_hook() -> None:
    assert set(core_hooks()) == {name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "scrm_spec")}
    assert [hook for hook in core_hooks() if hook != "contribute" and not hasattr(PluginSet, hook)] == []


def test_pending_migrations_stop_a_plugin_and_those_that_require_it() -> None:
    loaded = load(plugin("a"), plugin("b", requires=["a"]), plugin("c"), plugin("d"))
    stands = [
        OwnerStatus("a", None, "0001", 1),
        OwnerStatus("c", "0001", "0001", 0),
        OwnerStatus("d", "9", None, 0, "no such revision 9"),
    ]
    after = with_migrations(loaded, stands, NOW)
    assert names(after) == ["c"]
    assert why(after, "a") == ("migration_required", "1 migration is pending; run scrm db upgrade")
    assert why(after, "b") == ("incompatible", "b requires a, which is migration_required")
    assert why(after, "d") == ("migration_error", "no such revision 9")


async def test_states_of_running_plugins_come_from_the_database(database: Database) -> None:
    loaded = load(plugin("a"), plugin("b"))
    since = NOW + timedelta(hours=1)

    def degrade(tx: Tx) -> None:
        row = {"cursor": 0, "since": since, "backfill_to": 0}
        tx.execute(consumers.insert().values(plugin="a", state="DEGRADED", reason="8 batches failed", **row))
        tx.execute(consumers.insert().values(plugin="b", state="ACTIVE", **row))

    await database.write(degrade)
    a, b = (one for one in await database.read(live_statuses, loaded, database.clock()) if one.name in "ab")
    assert (a.state, a.reason, a.since) == (LoadState.DEGRADED, "8 batches failed", since)
    assert (b.state, b.since) == (LoadState.ACTIVE, NOW)


def test_the_cores_tables_bear_no_plugins_prefix() -> None:
    assert "users" in metadata.tables
    assert not [name for name in metadata.tables if name.startswith(("loyalty_", "tiers_", "rfm_", "risk_", "budget_"))]
