"""The plugins that were loaded: their states, and one typed method per hook."""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

from scrm import hookspecs
from scrm.conformance import core_hooks, has_hook
from scrm.db import Database, Tx, dumps, loads
from scrm.errors import PluginFailedError, ScrmError, UserError, name_of
from scrm.events.consumers import Consumer, ConsumerSettings, consumer_of, watched
from scrm.events.decide import Decided, decide
from scrm.events.handling import is_cancelled, is_trouble, reading
from scrm.events.ingest import Ingest
from scrm.events.records import Event, NewEvent, RecordResult
from scrm.plugin import Contribution, Decision, HandlerTx, Health, Indicator, Rules, Wiring
from scrm.watch import Watch

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("scrm.plugins")

_HEALTH_WITHIN = 5.0
"""Seconds that a plugin may take to say how it is."""


class LoadState(StrEnum):
    """How far a plugin came."""

    DISCOVERED = "discovered"
    DISABLED = "disabled"
    INCOMPATIBLE = "incompatible"
    LOAD_ERROR = "load_error"
    MIGRATION_REQUIRED = "migration_required"
    MIGRATION_ERROR = "migration_error"
    ACTIVE = "active"
    DEGRADED = "degraded"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One plugin's state, why, and since when. `version` is None while nothing of it was imported and no package names one."""

    name: str
    state: LoadState
    reason: str | None
    since: datetime
    version: str | None = None
    package: str | None = None
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """The reason, one line each."""
    running_in: tuple[str, ...] = ()
    """HOST:PID of processes that run it though it is not enabled any more."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that was loaded: what it brings, its checked settings, and its hooks as plain functions.

    `hooks` has an attribute for each hook that the plugin implements, which takes all of the hook's arguments by position.
    """

    name: str
    contribution: Contribution
    rules: Rules = field(default_factory=Rules)
    wiring: Wiring = field(default_factory=Wiring)
    hooks: object = field(default_factory=SimpleNamespace)
    indicators: Mapping[str, tuple[str, Indicator]] = field(default_factory=dict)
    """Those of all active plugins by key, each with who offers it."""


class Context:
    """What a plugin may use while the server runs: its wiring, the clock, reads, and the door for events."""

    def __init__(
        self,
        plugin: Plugin,
        db: Database,
        ingest: Ingest | None = None,
        settings: ConsumerSettings | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._plugin = plugin
        self._watch = watch
        self._name = plugin.name
        self._wiring = plugin.wiring
        self._settings = settings
        self._db = db
        self._ingest = ingest

    @property
    def wiring(self) -> Any:
        """The plugin's own wiring."""
        return self._wiring

    @property
    def clock(self) -> Callable[[], datetime]:
        """Tells the time, aware UTC."""
        return self._db.clock

    async def read(self, function: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(tx, …)` in one read-only snapshot."""
        indicators = self._consumer.indicators if self._settings is not None else None
        return await self._db.read(lambda tx: function(reading(tx, indicators), *args, **kwargs))

    async def record(self, events: Sequence[NewEvent]) -> list[RecordResult]:
        """Record what happened; each event once, an answer for each."""
        if self._ingest is None:
            raise RuntimeError(f"plugin {self._name} cannot record events here")
        return await self._ingest.record(events, actor=f"plugin:{self._name}")

    async def rules(self) -> Rules:
        """The plugin's rules that are in force now."""
        consumer = self._consumer
        return await self._db.read(lambda tx: consumer.timeline(tx).latest)

    async def decide(self, decision: Decision, input: Mapping[str, Any], *, key: str, actor: str) -> Decided:
        """Ask one of the plugin's decisions, once for `key`.

        Raises:
            ScrmError: what it is refused for.
        """
        answer = await decide(self._db, self._consumer, decision, input, key=key, at=self._db.clock(), actor=actor)
        if isinstance(answer, UserError):
            raise ScrmError(answer.code, answer.message, path=answer.path, params=answer.params)
        return answer

    @cached_property
    def _consumer(self) -> Consumer:
        if self._settings is None:
            raise RuntimeError(f"plugin {self._name} has no rules to see here")
        return watched(consumer_of(self._plugin, self._settings), self._watch)


def bind_hooks(module: object) -> SimpleNamespace:
    """A plugin's hooks as functions that take all of the hook's arguments; one that declares fewer is given those."""
    bound = SimpleNamespace()
    for name in core_hooks():
        if has_hook(module, name):
            setattr(bound, name, _bind(getattr(hookspecs, name), getattr(module, name)))
    return bound


def _bind(spec: Callable[..., Any], implementation: Callable[..., Any]) -> Callable[..., Any]:
    given = inspect.signature(spec)
    wanted = [name for name in inspect.signature(implementation).parameters if name in given.parameters]
    if wanted == list(given.parameters) == list(inspect.signature(implementation).parameters):
        return implementation

    def call(*args: Any, **kwargs: Any) -> Any:
        values = given.bind(*args, **kwargs).arguments
        return implementation(**{name: values[name] for name in wanted})

    return call


class PluginSet:
    """The active plugins in their order, and the state of every plugin that is known."""

    def __init__(self, active: Sequence[Plugin] = (), statuses: Sequence[PluginStatus] = ()) -> None:
        offered = {each.key: (plugin.name, each) for plugin in active for each in plugin.contribution.indicators}
        self.active = tuple(replace(plugin, indicators=offered) for plugin in active)
        self.statuses = tuple(statuses)
        self._by_name = {plugin.name: plugin for plugin in self.active}

    def get(self, name: str) -> Plugin | None:
        """The active plugin of that name."""
        return self._by_name.get(name)

    def status(self, name: str) -> PluginStatus | None:
        """The state of that plugin, active or not."""
        return next((status for status in self.statuses if status.name == name), None)

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self.active)

    def __len__(self) -> int:
        return len(self.active)

    def without(self, out: Mapping[str, tuple[LoadState, Sequence[str]]], since: datetime) -> PluginSet:
        """The same with these plugins not active, each in a state for its reasons, and without those that require them."""
        gone = dict(out)
        for plugin in self.active:  # what a plugin requires comes before it
            for other in plugin.contribution.requires:
                if other in gone and plugin.name not in gone:
                    said = f"{plugin.name} requires {other}, which is {gone[other][0]}"
                    gone[plugin.name] = (LoadState.INCOMPATIBLE, [said])
        statuses = [
            self._left_out(status, *gone[status.name], since) if status.name in gone else status for status in self.statuses
        ]
        return PluginSet([plugin for plugin in self.active if plugin.name not in gone], statuses)

    def _left_out(self, status: PluginStatus, state: LoadState, problems: Sequence[str], since: datetime) -> PluginStatus:
        return replace(status, state=state, reason="; ".join(problems), problems=tuple(problems), since=since)

    def merge(self, plugin: Plugin, tx: HandlerTx, event: Event, kept: uuid.UUID, absorbed: uuid.UUID, rules: Any) -> int:
        """Let one plugin follow a merge; how many rows moved.

        Raises: PluginFailedError.
        """
        return int(self._call(plugin, "merge", tx, event, kept, absorbed, rules) or 0)

    def unmerge(
        self, plugin: Plugin, tx: HandlerTx, event: Event, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: Any
    ) -> int:
        """Let one plugin give back what came before a merge; how many rows moved.

        Raises: PluginFailedError.
        """
        return int(self._call(plugin, "unmerge", tx, event, kept, absorbed, merge, rules) or 0)

    def erase(self, plugin: Plugin, tx: HandlerTx, event: Event, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
        """Let one plugin remove what is personal.

        Raises: PluginFailedError.
        """
        self._call(plugin, "erase", tx, event, user, pseudonym)

    def count(self, tx: Tx, user: uuid.UUID) -> dict[str, int]:
        """How many rows of each plugin hang on a user; plugins that do not say, or fail at it, are left out."""
        counted = {plugin.name: count_rows(plugin, tx, user) for plugin in self._with("count")}
        return {name: count for name, count in counted.items() if count is not None}

    def export(self, tx: Tx, user: uuid.UUID) -> dict[str, Mapping[str, Sequence[Mapping[str, Any]]]]:
        """What each plugin keeps of a user.

        Raises: PluginFailedError, also for what JSON cannot hold.
        """
        found: dict[str, Mapping[str, Sequence[Mapping[str, Any]]]] = {}
        for plugin in self._with("export"):
            said = self._call(plugin, "export", reading(tx), user)
            try:
                found[plugin.name] = loads(dumps(said))
            except BaseException as error:  # what it answered may do anything where it is read
                raise PluginFailedError(plugin.name, "export") from error
        return found

    @asynccontextmanager
    async def lifespan(
        self,
        db: Database,
        ingest: Ingest | None = None,
        settings: ConsumerSettings | None = None,
        *,
        seconds: float = 30.0,
        skip: bool = False,
    ) -> AsyncIterator[None]:
        """Every plugin's lifespan, entered in order and left in reverse, each within so many seconds.

        With `skip` one that cannot start leaves its plugin degraded, and the others go on.

        Raises: PluginFailedError when one cannot start.
        """
        async with AsyncExitStack() as stack:
            for plugin in self._with("lifespan"):
                try:
                    manager = self._call(plugin, "lifespan", Context(plugin, db, ingest, settings))
                    await stack.enter_async_context(_Lifespan(plugin.name, manager, seconds))
                except PluginFailedError as error:
                    if not skip:
                        raise
                    log.error("%s; the others go on", error, exc_info=error)
                    self._degrade(plugin.name, f"its lifespan failed: {name_of(error.__cause__ or error)}", db.clock())
            yield

    def _degrade(self, name: str, reason: str, at: datetime) -> None:
        self.statuses = tuple(
            replace(each, state=LoadState.DEGRADED, reason=reason, problems=(reason,), since=at) if each.name == name else each
            for each in self.statuses
        )

    async def health(self, db: Database) -> dict[str, Health]:
        """What each plugin says of itself; one that fails at saying it, or takes long, is not well."""
        asked = list(self._with("health"))
        said = await asyncio.gather(*(self._ask_health(plugin, db) for plugin in asked))
        return {plugin.name: health for plugin, health in zip(asked, said, strict=True)}

    async def _ask_health(self, plugin: Plugin, db: Database) -> Health:
        try:
            said = self._call(plugin, "health", Context(plugin, db))
            async with asyncio.timeout(_HEALTH_WITHIN):
                found: object = await said if inspect.isawaitable(said) else said
            if isinstance(found, Health):
                return Health(bool(found.ok), str.__str__(str(found.detail)))
        except PluginFailedError as error:
            return Health(ok=False, detail=f"{error}: {name_of(error.__cause__ or error)}")
        except BaseException as error:
            if is_cancelled(error):
                raise
            return Health(ok=False, detail=f"plugin {plugin.name} failed in health: {name_of(error)}")
        return Health(ok=False, detail=f"health() of {plugin.name} returned a {type(found).__name__}; return a Health")

    def _with(self, hook: str) -> Iterator[Plugin]:
        return (plugin for plugin in self.active if hasattr(plugin.hooks, hook))

    def _call(self, plugin: Plugin, hook: str, *args: Any) -> Any:
        function = getattr(plugin.hooks, hook, None)
        if function is None:
            return None
        try:
            return function(*args)
        except BaseException as error:  # even an attempt to exit
            raise PluginFailedError(plugin.name, hook) from error


def count_rows(plugin: Plugin, tx: Tx, user: uuid.UUID) -> int | None:
    """How many rows of a plugin hang on a user, or None where it fails at saying so: nobody waits for that."""
    try:
        with tx.connection.begin_nested():
            return int(plugin.hooks.count(reading(tx), user))  # type: ignore[attr-defined]
    except BaseException as error:
        if is_trouble(error):
            raise
        log.exception("plugin %s failed in count", plugin.name)
        return None


class _Lifespan:
    """One plugin's lifespan: what it raises is its own failure, at the end a line in the log; and it has so many seconds."""

    def __init__(self, plugin: str, manager: Any, seconds: float) -> None:
        self._plugin = plugin
        self._manager = manager
        self._seconds = seconds

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await type(self._manager).__aenter__(self._manager)
        except BaseException as error:
            if is_cancelled(error):
                raise
            raise PluginFailedError(self._plugin, "lifespan") from error

    async def __aexit__(self, *raised: Any) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await type(self._manager).__aexit__(self._manager, *raised)
        except BaseException as error:
            if is_cancelled(error) or error is raised[1]:
                raise
            log.exception("plugin %s failed at the end of its lifespan", self._plugin)
