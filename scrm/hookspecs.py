"""Every hook a plugin may implement. `contribute` is required, and so are `merge`, `unmerge`, `erase` and `export` for a
plugin with tables."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from scrm.db import Tx
from scrm.events.records import Event
from scrm.plugin import Contribution, HandlerTx, Health, PluginContext, hookspec


@hookspec
def contribute() -> Contribution:  # type: ignore[empty-body]
    """Say what the plugin brings. Called once while the server starts; no database, no clock, no network."""


@hookspec
def merge(tx: HandlerTx, event: Event, kept: uuid.UUID, absorbed: uuid.UUID, rules: Any) -> int:  # type: ignore[empty-body]
    """Follow a merge in the plugin's own tables when its cursor reaches the event; returns how many rows moved."""


@hookspec
def unmerge(tx: HandlerTx, event: Event, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: Any) -> int:  # type: ignore[empty-body]
    """Give back what came before the merge (`merge` is that event's id); what came after stays with the survivor."""


@hookspec
def count(tx: Tx, user: uuid.UUID) -> int:  # type: ignore[empty-body]
    """How many of the plugin's rows hang on this user: shown by a dry run of a merge."""


@hookspec
def erase(tx: HandlerTx, event: Event, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Remove what is personal and point what must stay (ledgers) to the pseudonym."""


@hookspec
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:  # type: ignore[empty-body]
    """What the plugin keeps of this user, by kind, as JSON can hold it."""


@hookspec
def lifespan(context: PluginContext) -> AbstractAsyncContextManager[None]:  # type: ignore[empty-body]
    """Runs around the server's life: open connections before, close them after."""


@hookspec
def health(context: PluginContext) -> Health | Awaitable[Health]:  # type: ignore[empty-body]
    """Say whether the plugin can do its work; asked by `systemStatus` and `/readyz`. May be async."""
