"""What a plugin brings, as data. `contribute()` returns a `Contribution`; the host checks it, composes it, and only then
runs any of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pluggy
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from scrm.db import Tx
from scrm.errors import UserError
from scrm.events.records import Announcement, Event, NewEvent, RecordResult
from scrm.money import is_code

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from scrm.events.decide import Decided

PROJECT = "scrm"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

UNSET = "unset"
"""In the `json_schema_extra` of a setting's `Field`: what holds while it is not set, where its default does not say it."""


KEPT: Mapping[str, bool] = MappingProxyType({"kept": True})
"""The context in which rules are validated that the log kept: they were checked when they came there. A check that a later
version adds passes over them, `if info.context is KEPT: return self`, else the plugin could not go on where somebody has such."""


class Rules(BaseModel):
    """Base of a plugin's rules: what its handlers compute with. Kept in the log, so never a secret; only grows, with defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def event_types(self) -> Sequence[str]:
        """Event types that these rules cannot do without: where neither the core nor an enabled plugin registers one, the
        plugin is not loaded."""
        return ()

    def indicators(self) -> Sequence[str]:
        """Indicators that these rules cannot do without: where neither the core nor an enabled plugin offers one, the plugin is
        not loaded."""
        return ()

    def reads(self) -> Mapping[str, Collection[str]] | None:
        """What a handler of `EVERY` is given under these rules: event types, each with the properties that the rules look at;
        None for every type. A type that nobody registers is a warning; a property about a person is refused at start."""
        return None

    def warnings(self, today: date) -> Sequence[str]:
        """What of these rules can never do anything, each in a line that names it; `today` is the business day."""
        return ()


class Wiring(BaseModel):
    """Base of a plugin's wiring: addresses, secrets (`SecretStr`), intervals. From the file and the environment, never in
    the log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def problems(self, rules: Any) -> Sequence[str]:
        """What the plugin's rules ask for that cannot be done with this wiring, each in a line that names the setting and the way
        out: where there is any, the plugin is not loaded."""
        return ()


class BusinessRules(Rules):
    """Rules that compute with the business currency and zone: the settings' unless the plugin's section says its own.

    They are in the log like all rules, so a handler knows those that were in force at its event.
    """

    currency: str = Field(
        default="CNY",
        description="The currency that it computes with; amounts in another count for nothing.",
        json_schema_extra={UNSET: "the business currency"},
    )
    timezone: str = Field(
        default="Asia/Shanghai",
        description="The zone in which days begin.",
        json_schema_extra={UNSET: "the business zone"},
    )

    @field_validator("currency")
    @classmethod
    def _code(cls, value: str) -> str:
        if not is_code(value):
            raise PydanticCustomError("INVALID_CURRENCY", "an ISO 4217 code such as CNY")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("a zone such as Asia/Shanghai") from None
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The zone that days are counted in."""
        return ZoneInfo(self.timezone)

    def day(self, at: datetime) -> date:
        """The business day of an instant."""
        return at.astimezone(self.zone).date()


class NoRules(Rules):
    """For a plugin without rules."""


class NoWiring(Wiring):
    """For a plugin without wiring."""


class HandlerTx(Tx):
    """The transaction that a handler writes its own tables in; the cursor moves in the same one."""

    log: sa.FromClause | None = None
    """What `log_of` gives; None: the whole log."""
    log_is_settled: bool = False
    """Whether in it everybody's events are whose they are now."""

    def announce(self, announcement: Announcement) -> uuid.UUID:
        """Record an event as an effect of the one being handled; doing it again changes nothing. Returns its id."""
        raise self._refused()

    def send(self, kind: str, payload: Mapping[str, Any], *, cause: Event, key: str = "0") -> None:
        """Put something into the outbox for the plugin's deliverer; nothing is sent for history that is being filled in."""
        raise self._refused()

    def leave_out(self, event: Event, why: str) -> None:
        """Say that a fact cannot be applied, for the plugin's tables are not as they were when it was decided. In a replay that
        supposes other rules it is counted and left out; else it is the event's failure.

        Raises:
            ValueError: what it lacks.
        """
        raise ValueError(f"{event.type} cannot be applied: {why}")

    def ahead(self, event: Event) -> Any:
        """What was read ahead for this event; None where nothing was."""
        return None

    def history(
        self,
        types: Sequence[str] | None,
        *,
        until: Event,
        users: Sequence[uuid.UUID] | None = None,
        since: datetime | None = None,
    ) -> sa.Subquery:
        """The log up to the position of `until` and its `occurred_at`, as a table to select from: for events that carry
        time, such as reviews. `types` None: of every type."""
        raise self._refused()

    def _refused(self) -> PermissionError:
        return PermissionError("a decision says a fact; announcing, sending and reading the log are its handler's")


HandlerFunction = Callable[[HandlerTx, Sequence[Event], Any], None]
"""`handle(tx, events, rules)`: load → fold → store. A plain function of its events, its own tables and its rules."""


AheadFunction = Callable[[HandlerTx, Event, Any], Any]
"""`ahead(tx, event, rules)`: reads the log up to the event and the plugin's own tables, and writes nothing. What it answers the
handler finds as `tx.ahead(event)`, where it was read in time: it must not need it."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Reads these event types, in batches of at most 2 000, in the order of the log. The type `EVERY` stands for all that no
    other handler of the plugin reads: where its rules name event types, those that they ever named (`Rules.reads`)."""

    types: tuple[str, ...]
    handle: HandlerFunction
    optional: tuple[str, ...] = ()
    """Types that it reads too where another plugin announces them; nobody need register them."""
    ahead: Mapping[str, AheadFunction] = field(default_factory=dict)
    """For types of which it reads much of the log: what it reads of it, done before others have to wait for what it writes."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a decision decided, with everything it chose; becomes the properties of its event."""

    user_id: uuid.UUID | None
    properties: Mapping[str, Any]
    amount_minor: int | None = None
    currency: str | None = None
    channel_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Something a caller must be answered at once. `decide(tx, input, rules, at)` locks, reads the plugin's own tables and
    says the fact
    or what is wrong; the host records the fact as an event of `event_type` and applies the plugin's own handler, in one
    transaction.
    `tx` reads and locks; writing is the handler's. `input` is a mapping that JSON can hold: it is compared when a key is
    used again.
    """

    name: str
    event_type: str
    decide: Callable[[Tx, Mapping[str, Any], Any, datetime], Fact | UserError]


@dataclass(frozen=True, slots=True)
class EventType:
    """A registered event type. `payload` is a msgspec/pydantic-free JSON Schema of the properties; `personal` names
    properties about a person."""

    name: str
    description: str
    payload: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    personal: tuple[str, ...] = ()
    without_user: bool = False
    own: bool = False


def payload_of(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of an event's properties: each by its name, and which of them are always there."""
    return {"type": "object", "required": list(required), "properties": properties}


@dataclass(frozen=True, slots=True)
class Scope:
    """A permission that a key may have, `noun:read` or `noun:write`."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class NewFact:
    """An event that a job records; `key` makes it once: the same key again changes nothing."""

    type: str
    key: str
    properties: Mapping[str, Any]
    occurred_at: datetime
    user_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Runs on a schedule, once however many workers there are. `run(tx, due, rules)` says which events to record.

    `every` is an interval or a cron line in the business zone.
    """

    name: str
    every: timedelta | str
    run: Callable[[Tx, datetime, Any], Sequence[NewFact]]


class IndicatorUnit(StrEnum):
    """What an indicator's number counts."""

    COUNT = "COUNT"
    RATE = "RATE"
    MONEY = "MONEY"
    POINTS = "POINTS"
    MULTIPLE = "MULTIPLE"
    INDEX = "INDEX"


@dataclass(frozen=True, slots=True)
class Period:
    """One half-open span of business days, `[start, end)`."""

    start: date
    end: date


@dataclass(frozen=True, slots=True)
class Ratio:
    """An indicator's value for one period; a rate's denominator may be 0, then the value is null."""

    numerator: int
    denominator: int | None = None


@dataclass(frozen=True, slots=True)
class Indicator:
    """A named series. `series(tx, periods, channel_id, as_of)` returns one `Ratio` per period, in order.

    `of_log` where it reads `log_of(tx)` and nothing else that changes: then a handler may read it too, as it was at its event.
    """

    key: str
    name: str
    unit: IndicatorUnit
    definition: str
    series: Callable[[Tx, Sequence[Period], uuid.UUID | None, datetime], Sequence[Ratio]]
    higher_is_better: bool | None = None
    of_log: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP endpoint under `/plugins/<name>/`: `endpoint(request)` or `endpoint(request, context)`, with a `PluginContext`.

    `public=True` where it checks its own signature; else it needs a key with `scope`. The body is as it was sent, within the
    server's
    limit. A `ScrmError` is answered with 400 and its code.
    """

    path: str
    methods: tuple[str, ...]
    endpoint: Callable[[Request], Awaitable[Response]] | Callable[[Request, PluginContext], Awaitable[Response]]
    scope: str | None = None
    public: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command under `scrm <plugin name> …`: a function with typed parameters and a docstring, as typer takes it."""

    name: str
    run: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Sends one kind of outbox message; raising means trying again later."""

    kind: str
    deliver: Callable[[Mapping[str, Any], Any], Awaitable[None]]


@dataclass(frozen=True)
class Contribution:
    """Everything a plugin adds, listed. Nothing here has run yet."""

    name: str
    version: str
    description: str = ""
    scrm: str = ">=0.1"
    requires: Sequence[str] = ()
    after: Sequence[str] = ()
    rules: type[Rules] = NoRules
    wiring: type[Wiring] = NoWiring
    tables: sa.MetaData | None = None
    migrations: Path | None = None
    types: Sequence[type] = ()
    extends: Sequence[type] = ()
    query: Sequence[type] = ()
    mutation: Sequence[type] = ()
    subscription: Sequence[type] = ()
    filters: Sequence[type] = ()
    orderings: Sequence[type] = ()
    event_types: Sequence[EventType] = ()
    handlers: Sequence[Handler] = ()
    decisions: Sequence[Decision] = ()
    jobs: Sequence[Job] = ()
    scopes: Sequence[Scope] = ()
    indicators: Sequence[Indicator] = ()
    commands: Sequence[Command] = ()
    routes: Sequence[Route] = ()
    deliverers: Sequence[Deliverer] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What a plugin says of itself."""

    ok: bool
    detail: str = ""


class PluginContext(Protocol):
    """What a plugin may use while the server runs."""

    @property
    def wiring(self) -> Any: ...
    @property
    def clock(self) -> Callable[[], datetime]: ...
    async def read(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(tx, *args)` in one read-only snapshot."""

    async def record(self, events: Sequence[NewEvent]) -> list[RecordResult]:
        """Record what happened, as `POST /events` does; each event once, an answer for each."""

    async def rules(self) -> Any:
        """The plugin's rules that are in force now."""

    async def decide(self, decision: Decision, input: Mapping[str, Any], *, key: str, actor: str) -> Decided:
        """Ask one of the plugin's decisions, once for `key`; a refusal is raised as `ScrmError`."""


Lifespan = Callable[[PluginContext], AbstractAsyncContextManager[None]]
LifespanResult = AsyncIterator[None]
