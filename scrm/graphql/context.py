"""What one request carries: who asks, when, in which language, and the services that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import strawberry

from scrm.auth import Principal
from scrm.config import Settings
from scrm.db import Database, Snapshot
from scrm.errors import ScrmError
from scrm.events.ingest import Ingest
from scrm.graphql.compiler import Grants
from scrm.graphql.sources import BatchInfo
from scrm.plugin_set import PluginSet
from scrm.plugin import EventType, Handler, Indicator
from scrm.sql import Moment

if TYPE_CHECKING:
    from scrm.graphql.plans import Plans

ANY_KEY = "any"
"""The scope that every valid key has."""
PII = "pii:read"


@dataclass(frozen=True)
class Services:
    """What resolvers may use; one per app."""

    settings: Settings
    db: Database
    plugins: PluginSet
    ingest: Ingest
    event_types: Mapping[str, EventType]
    indicators: Mapping[str, tuple[str, Indicator]]
    core_handlers: tuple[Handler, ...] = ()


class Context:
    """One request's context. `principal` is None until a caller is known."""

    def __init__(self, services: Services, plans: Plans, now: datetime, language: str, principal: Principal | None) -> None:
        self.services = services
        self.plans = plans
        self.now = now
        self.language = language
        self.connection_params: dict[str, Any] | None = None
        self.reads = Reads(services.db)
        self.refs: dict[Any, Any] = {}
        self._principal = principal
        self._grants: Grants | None = None

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
            self._grants = Grants(principal.scopes | {ANY_KEY}, principal.has(PII), principal.user_id is not None)
        return self._grants

    @property
    def moment(self) -> Moment:
        """When this request is answered."""
        settings = self.services.settings
        return Moment(self.now, self.now.astimezone(settings.zone).date(), settings.currency)

    @property
    def actor(self) -> str:
        """The caller's name for the audit log and core events."""
        return self.principal.name

    @property
    def batch_info(self) -> BatchInfo:
        """What batch functions may use."""
        return BatchInfo(self.services.db.read, self.now, self.language)


class Reads:
    """The request's way to the database: one connection per statement, or one snapshot where several roots must agree."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stack = AsyncExitStack()
        self._snapshot: Snapshot | None = None
        self._lock = asyncio.Lock()
        self.shared = False

    async def fetch(self, sql: str, parameters: Any) -> list[tuple[Any, ...]]:
        """Answer one compiled statement."""
        if not self.shared:
            return await self._db.fetch(sql, parameters)
        async with self._lock:
            if self._snapshot is None:
                self._snapshot = await self._stack.enter_async_context(self._db.snapshot())
            return await self._snapshot.fetch(sql, parameters)

    async def close(self) -> None:
        """End the snapshot, if there was one."""
        await self._stack.aclose()


Info = strawberry.Info[Context, None]
