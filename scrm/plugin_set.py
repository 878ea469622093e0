"""The plugins that were loaded: their states, and one typed method per hook."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

from scrm import hookspecs
from scrm.conformance import core_hooks, has_hook
from scrm.db import Database, Tx
from scrm.errors import PluginFailedError, ScrmError, UserError
from scrm.events.consumers import Consumer, ConsumerSettings, consumer_of
from scrm.events.decide import Decided, decide
from scrm.events.ingest import Ingest
from scrm.events.records import Event, NewEvent, RecordResult
from scrm.plugin import Contribution, Decision, HandlerTx, Health, Rules, Wiring

P = ParamSpec("P")
T = TypeVar("T")

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


class Context:
    """What a plugin may use while the server runs: its wiring, the clock, reads, and the door for events."""

    def __init__(
        self, plugin: Plugin, db: Database, ingest: Ingest | None = None, settings: ConsumerSettings | None = None
    ) -> None:
        self._plugin = plugin
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
        return await self._db.read(function, *args, **kwargs)

    async def record(self, events: Sequence[NewEvent]) -> list[RecordResult]:
        """Record what happened; each event once, an answer for each."""
        if self._ingest is None:
            raise RuntimeError(f"plugin {self._name} cannot record events here")
        return await self._ingest.record(events, actor=f"plugin:{self._name}")

    async def rules(self) -> Rules:
        """The plugin's rules that are in force now."""
        consumer = self._consumer()
        return await self._db.read(lambda tx: consumer.timeline(tx).latest)

    async def decide(self, decision: Decision, input: Mapping[str, Any], *, key: str, actor: str) -> Decided:
        """Ask one of the plugin's decisions, once for `key`.

        Raises:
            ScrmError: what it is refused for.
        """
        answer = await decide(self._db, self._consumer(), decision, input, key=key, at=self._db.clock(), actor=actor)
        if isinstance(answer, UserError):
            raise ScrmError(answer.code, answer.message, path=answer.path, params=answer.params)
        return answer

    def _consumer(self) -> Consumer:
        if self._settings is None:
            raise RuntimeError(f"plugin {self._name} has no rules to see here")
        return consumer_of(self._plugin, self._settings)


def bind_hooks(module: object) -> SimpleNamespace:
    """A plugin's hooks as functions that take all of the hook's arguments; one that declares fewer is given those."""
    bound = SimpleNamespace()
    for name in core_hooks():
        if has_hook(module, name):
            setattr(bound, name, _bind(getattr(hookspecs, name), getattr(module, name)))
    return bound


def _bind(spec: Callable[..., Any], implementation: Callable[..., Any]) -> Callable[..., Any]:
    given = inspect.signature(spec)
    wanted = list(inspect.signature(implementation).parameters)
    if wanted == list(given.parameters):
        return implementation

    def call(*args: Any, **kwargs: Any) -> Any:
        values = given.bind(*args, **kwargs).arguments
        return implementation(**{name: values[name] for name in wanted})

    return call


class PluginSet:
    """The active plugins in their order, and the state of every plugin that is known."""

    def __init__(self, active: Sequence[Plugin] = (), statuses: Sequence[PluginStatus] = ()) -> None:
        self.active = tuple(active)
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

    def without(self, out: Mapping[str, tuple[LoadState, str]], since: datetime) -> PluginSet:
        """The same with these plugins not active, in the given state for the given reason."""
        statuses = [
            replace(status, state=out[status.name][0], reason=out[status.name][1], since=since) if status.name in out else status
            for status in self.statuses
        ]
        return PluginSet([plugin for plugin in self.active if plugin.name not in out], statuses)

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
        """How many rows of each plugin hang on a user; plugins that do not say are left out.

        Raises: PluginFailedError.
        """
        return {plugin.name: int(self._call(plugin, "count", tx, user)) for plugin in self._with("count")}

    def export(self, tx: Tx, user: uuid.UUID) -> dict[str, Mapping[str, Sequence[Mapping[str, Any]]]]:
        """What each plugin keeps of a user.

        Raises: PluginFailedError.
        """
        return {plugin.name: self._call(plugin, "export", tx, user) for plugin in self._with("export")}

    @asynccontextmanager
    async def lifespan(
        self, db: Database, ingest: Ingest | None = None, settings: ConsumerSettings | None = None
    ) -> AsyncIterator[None]:
        """Every plugin's lifespan, entered in order and left in reverse.

        Raises: PluginFailedError when one cannot start.
        """
        async with AsyncExitStack() as stack:
            for plugin in self._with("lifespan"):
                manager = self._call(plugin, "lifespan", Context(plugin, db, ingest, settings))
                try:
                    await stack.enter_async_context(manager)
                except Exception as error:
                    raise PluginFailedError(plugin.name, "lifespan") from error
            yield

    async def health(self, db: Database) -> dict[str, Health]:
        """What each plugin says of itself; one that fails at saying it, or takes long, is not well."""
        asked = list(self._with("health"))
        said = await asyncio.gather(*(self._ask_health(plugin, db) for plugin in asked))
        return {plugin.name: health for plugin, health in zip(asked, said, strict=True)}

    async def _ask_health(self, plugin: Plugin, db: Database) -> Health:
        try:
            said = self._call(plugin, "health", Context(plugin, db))
            found: Health = await asyncio.wait_for(said, _HEALTH_WITHIN) if inspect.isawaitable(said) else said
        except PluginFailedError as error:
            return Health(ok=False, detail=f"{error}: {type(error.__cause__).__name__}")
        except Exception as error:
            return Health(ok=False, detail=f"plugin {plugin.name} failed in health: {type(error).__name__}")
        return found

    def _with(self, hook: str) -> Iterator[Plugin]:
        return (plugin for plugin in self.active if hasattr(plugin.hooks, hook))

    def _call(self, plugin: Plugin, hook: str, *args: Any) -> Any:
        function = getattr(plugin.hooks, hook, None)
        if function is None:
            return None
        try:
            return function(*args)
        except Exception as error:
            raise PluginFailedError(plugin.name, hook) from error
