"""What one request carries: who asks, when, in which language, and the services that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import strawberry

from scrm.auth import Principal
from scrm.config import Settings
from scrm.db import Database, Snapshot, Tx
from scrm.errors import ScrmError, UnavailableError, UserError
from scrm.events.consumers import Consumer, consumer_of, watched
from scrm.events.decide import Decided, decide_in
from scrm.events.handling import reading
from scrm.events.ingest import Ingest
from scrm.events.log import ask_owner
from scrm.events.tide import Tide
from scrm.graphql.compiler import Grants
from scrm.graphql.ids import node_id
from scrm.graphql.sources import BatchInfo
from scrm.plugin import Decision, EventType, Indicator, Rules
from scrm.plugin_set import PluginSet
from scrm.sql import Moment
from scrm.users.service import user_erased, user_not_found
from scrm.watch import Watch

if TYPE_CHECKING:
    from scrm.graphql.cost import Charged
    from scrm.graphql.gate import Gate
    from scrm.graphql.places import Place
    from scrm.graphql.plans import Plan, Plans

T = TypeVar("T")

ANY_KEY = "any"
"""The scope that every valid key has."""
PII = "pii:read"
RENEW = timedelta(seconds=5)
"""How long a subscription goes on before its key is looked at again."""


@dataclass(frozen=True)
class Services:
    """What resolvers may use; one per app."""

    settings: Settings
    db: Database
    plugins: PluginSet
    ingest: Ingest
    event_types: Mapping[str, EventType]
    indicators: Mapping[str, tuple[str, Indicator]]
    tide: Tide
    watch: Watch | None = None

    @cached_property
    def consumers(self) -> Mapping[str, Consumer]:
        """The active plugins as readers of the log, by name."""
        return {plugin.name: watched(consumer_of(plugin, self.settings), self.watch) for plugin in self.plugins}

    @cached_property
    def deciders(self) -> Mapping[Decision, Consumer]:
        """Whose each decision is."""
        return {one: self.consumers[plugin.name] for plugin in self.plugins for one in plugin.contribution.decisions}


class Context:
    """One request's context. `principal` is None until a caller is known."""

    def __init__(
        self, services: Services, plans: Plans, gate: Gate, now: datetime, language: str, principal: Principal | None
    ) -> None:
        self.services = services
        self.plans = plans
        self.gate = gate
        self.charged: Charged | None = None
        self.now = now
        self.language = language
        self.connection_params: dict[str, Any] | None = None
        self.who: Callable[[], Awaitable[Principal]] | None = None
        self.reads = Reads(services.db)
        self._named: dict[str, str] = {}
        """Survivors of merges by key: who the caller named instead."""
        self.refs: dict[Any, Any] = {}
        self.places: set[Place] = set()
        """What is being read; what was when the request was cancelled stays."""
        self._principal = principal
        self._grants: Grants | None = None
        self._asked = now

    @property
    def principal(self) -> Principal:
        """Who asks.

        Raises:
            ScrmError: UNAUTHENTICATED if nobody is known.
        """
        if self._principal is None:
            raise ScrmError("UNAUTHENTICATED", "a key is needed; send it as Authorization: Bearer KEY")
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal
        self._grants = None

    @property
    def grants(self) -> Grants:
        """What the caller may see, as plans need it."""
        if self._grants is None:
            principal = self.principal
            self._grants = _grants(principal.scopes, principal.has(PII), principal.user_id is not None)
        return self._grants

    def again(self) -> Context:
        """The same caller's next moment: a context of its own for each operation and each event of a connection."""
        other = Context(self.services, self.plans, self.gate, self.services.db.clock(), self.language, self._principal)
        other.connection_params, other.who = self.connection_params, self.who
        return other

    def require(self, scope: str | None, what: str, *, self_service: bool = True) -> None:
        """Let pass who has the scope; a person whose token names a user only to what is for oneself.

        Raises:
            ScrmError: FORBIDDEN.
        """
        if not self.grants.has(scope):
            raise ScrmError("FORBIDDEN", f"{what} needs the scope {scope}", params={"scope": scope})
        if self.grants.restricted and not self_service:
            raise ScrmError("FORBIDDEN", f"{what} is not for a token that names a user; ask with a key")

    async def renew(self) -> None:
        """Ask again whether the caller may be here, and what for.

        Raises:
            ScrmError: UNAUTHENTICATED where the key is revoked or has expired.
        """
        if self.who is not None:
            self.principal = await self.who()
            self._asked = self.services.db.clock()

    async def renew_when_due(self) -> None:
        """The same, where some seconds have passed since, or the caller's time is over.

        Raises:
            ScrmError: UNAUTHENTICATED where the key is revoked or has expired.
        """
        at, ends = self.services.db.clock(), self.principal.expires_at
        if not timedelta(0) <= at - self._asked < RENEW or (ends is not None and at >= ends):
            await self.renew()

    async def read(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function(tx, *args)` in one read-only snapshot."""
        return await self.services.db.read(lambda tx: function(reading(tx, self.services.indicators), *args))

    @contextmanager
    def reading(self, place: Place) -> Iterator[None]:
        """Read a place."""
        self.places.add(place)
        try:
            yield
        except Exception:
            self.places.discard(place)
            raise
        self.places.discard(place)

    def snapshot(self, plan: Plan, excluded: frozenset[str]) -> Snapshot:
        """Where a plan is run: on the request's own connection where others must agree with it, unless it is tried again without
        somebody's fields."""
        if plan.parts:
            self.reads.shared = True
        return self.reads if self.reads.shared and not excluded else self.services.db

    async def user(self, id: str, path: str = "userId", *, erased: bool = False) -> UUID:
        """The key of the user that a global id means; a merged one's survivor. Whether also one who was erased.

        For a token that names a user there is no other.

        Raises:
            ScrmError: INVALID_ID, USER_NOT_FOUND, USER_ERASED.
        """
        key = node_id("User", id, (path,))

        owner = await ask_owner(self.services.db, key)
        if owner is None or self.principal.user_id not in (None, owner.id):
            raise user_not_found(key, (path,))
        if owner.erased and not erased:
            raise user_erased(key, (path,))
        if owner.id != key:
            self._named[owner.id.hex] = key.hex
        return owner.id

    async def decide(self, decision: Decision, input: Mapping[str, Any], *, key: str) -> Decided:
        """Ask a plugin's decision, once for the caller's idempotency key, and apply what it decided.

        Raises:
            ScrmError: what the plugin refuses it for, or IDEMPOTENCY_CONFLICT.
        """
        [answer] = await self.decide_all([(decision, input)], key=key)
        return answer

    async def decide_all(self, asked: Sequence[tuple[Decision, Mapping[str, Any]]], *, key: str) -> list[Decided]:
        """Several decisions, also of several plugins, in one transaction: all of them, or none.

        Raises:
            ScrmError: what one of them is refused for, or IDEMPOTENCY_CONFLICT.
        """
        services = self.services

        def run(tx: Tx) -> list[Decided]:
            said = []
            for decision, input in asked:
                consumer = services.deciders[decision]
                more: Any = {"key": key, "at": self.now, "actor": self.actor, "asked": self._as_asked(input)}
                answer = decide_in(tx, consumer, decision, input, **more)
                if isinstance(answer, UserError):
                    raise ScrmError(answer.code, answer.message, path=answer.path, params=answer.params)
                said.append(answer)
            return said

        return await services.db.write(run)

    def _as_asked(self, input: Mapping[str, Any]) -> dict[str, Any]:
        """An input with the people as the caller named them."""
        return {name: self._named.get(value, value) if isinstance(value, str) else value for name, value in input.items()}

    async def rules(self, plugin: str) -> Rules:
        """The rules of an active plugin that are in force now, as decisions see them."""
        consumer = self.services.consumers.get(plugin)
        if consumer is None:
            raise ScrmError("UNKNOWN_PLUGIN", f"no enabled plugin is called {plugin!r}")
        return await self.services.db.read(lambda tx: consumer.timeline(tx).latest)

    @property
    def moment(self) -> Moment:
        """When this request is answered."""
        settings = self.services.settings
        return Moment(self.now, settings.currency, settings.zone)

    @property
    def actor(self) -> str:
        """The caller's name for the audit log and core events."""
        return self.principal.name

    def batch_info(self) -> BatchInfo:
        """What batch functions may use."""
        settings = self.services.settings
        return BatchInfo(self.read, self.now, self.language, settings.server.timeout_seconds / 3, settings.zone)


@lru_cache(maxsize=1_000)
def _grants(scopes: frozenset[str], pii: bool, restricted: bool) -> Grants:
    return Grants(scopes | {ANY_KEY}, pii, restricted)


class Reads:
    """The request's way to the database: one connection per statement, or one snapshot where several roots must agree."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stack: AsyncExitStack | None = None
        self._snapshot: Snapshot | None = None
        self._lock: asyncio.Lock | None = None
        self.shared = False

    async def fetch(self, sql: str, parameters: Any) -> list[tuple[Any, ...]]:
        """Answer one compiled statement."""
        if not self.shared:
            return await self._db.fetch(sql, parameters)
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._snapshot is None:
                self._stack = AsyncExitStack()
                self._snapshot = await self._stack.enter_async_context(self._db.snapshot())
            try:
                return await self._snapshot.fetch(sql, parameters)
            except BaseException:  # PostgreSQL answers nothing more in it: what follows reads in a new one
                await self.close()
                raise

    async def close(self) -> None:
        """End the snapshot, if there was one."""
        stack, self._stack, self._snapshot = self._stack, None, None
        if stack is not None:
            with suppress(UnavailableError):  # nothing was changed in it
                await stack.aclose()


Info = strawberry.Info[Context, None]
