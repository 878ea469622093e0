"""Settings: `scrm.toml` and the environment, strict; and every problem in them at once, in words."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from scrm.errors import StartupError
from scrm.money import is_code
from scrm.plugin import UNSET, BusinessRules, Rules, Wiring
from scrm.settings_problems import FILE, PREFIX, explain, unknown

OTHER_VARIABLES = (
    "SCRM_CONFIG",
    "SCRM_TEST_POSTGRES",
    "SCRM_UPDATE_SCHEMA",
    "SCRM_UPDATE_DOCS",
    "SCRM_EVERY_VALUE",
    "SCRM_KILLS",
)
"""Environment variables that begin like a setting's and are none: the command line's, and the tests'."""

_OF_KUBERNETES = re.compile(r"SCRM_(.+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)")
ANONYMOUS = "everyone who reaches this server may read and change everything"
"""The words that open a server to callers without a key."""

PERSONAL_PROPERTIES = ("phone", "mobile", "email", "address", "realName", "receiver", "idNumber")
"""Keys of events' properties that are personal wherever they stand, unless the settings say others."""


class Limits(BaseModel):
    """`[server.limits]`: what one GraphQL request may be at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    characters: int = Field(default=100_000, ge=100, description="Longest document; its variables do not count.")
    tokens: int = Field(default=2_000, ge=10, description="Most tokens of a document, comments included.")
    depth: int = Field(default=12, ge=1, le=100, description="Deepest selection.")
    fields: int = Field(default=1_000, ge=1, description="Most fields of an operation, its fragments spread.")
    aliases: int = Field(default=30, ge=0, description="Most aliases of an operation.")
    directives: int = Field(default=50, ge=0, description="Most directives of an operation.")
    list_items: int = Field(default=500, ge=1, description="Longest list in the variables.")
    nodes: int = Field(default=10_000, ge=1, description="Most objects that an operation may return, by its page sizes.")


class CostSettings(BaseModel):
    """`[server.cost]`: what a key may ask in a while, in points of cost. Each server process counts for itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maximum: int = Field(
        default=2_000_000, ge=1, description="Points of cost that a caller may spend at once; see [Cost](front-end.md#cost)."
    )
    restore_per_second: int = Field(
        default=1_000_000, ge=1, description="Points that come back each second; every server process counts for itself."
    )


class ServerSettings(BaseModel):
    """`[server]`: how `scrm serve` answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    allow_anonymous: str | None = Field(
        default=None,
        description="Lets callers without a key do everything; only with the exact sentence the error message gives.",
        json_schema_extra={UNSET: "nobody"},
    )
    ide: bool = Field(
        default=True, description="GraphiQL on `GET /graphql`, and errors that guess what was meant; off in production."
    )
    max_body_bytes: int = Field(default=1_048_576, ge=1_000, description="Largest body of a GraphQL request.")
    max_events_body_bytes: int = Field(
        default=10_000_000, ge=1_000, description="Largest JSON array for `POST /events`; NDJSON is streamed and has no limit."
    )
    timeout_seconds: float = Field(default=30, gt=0, description="How long a request may take.")
    init_timeout_seconds: float = Field(default=10, gt=0, description="How long a WebSocket may take to say who it is.")
    send_timeout_seconds: float = Field(
        default=30, gt=0, description="How long a subscriber may leave what it is sent unread before it is cut off."
    )
    max_streams: int = Field(
        default=1_000, ge=0, description="Most WebSockets and event streams of one server process at a time."
    )
    max_operations: int = Field(default=50, ge=1, description="Most subscriptions of one WebSocket.")
    limits: Limits = Limits()
    cost: CostSettings = CostSettings()

    @field_validator("allow_anonymous")
    @classmethod
    def _frightening(cls, value: str | None) -> str | None:
        if value is not None and value != ANONYMOUS:
            raise ValueError(f'exactly "{ANONYMOUS}", or nothing')
        return value


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""How a token may be signed: with a key whose other half is public. Never by none, never by a secret that both sides have."""

_HERE = ("localhost", "127.0.0.1", "::1")


def safe_address(text: str) -> bool:
    """Whether keys may be fetched there: over https, or from this machine."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE))


class JwtSettings(BaseModel):
    """`[jwt]`: the issuer whose tokens are taken beside keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(
        description="Whose tokens are taken beside keys, exactly as their `iss` says it.",
        json_schema_extra={UNSET: "has to be set in `[jwt]`"},
    )
    audience: str = Field(description="What their `aud` must hold.", json_schema_extra={UNSET: "has to be set in `[jwt]`"})
    jwks_url: str | None = Field(
        default=None,
        description="Where the issuer's keys are: `https://` only, or on this machine.",
        json_schema_extra={UNSET: "found by the issuer's `/.well-known/openid-configuration`"},
    )
    jwks_file: Path | None = Field(
        default=None, description="The same as a file, beside the settings file unless its path is absolute."
    )
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256", "EdDSA"], description="How a token may be signed.")
    leeway_seconds: int = Field(default=30, ge=0, le=300, description="By how much clocks may differ.")
    scope_claim: str = Field(default="scope", description="The claim with scopes: a list, or names with spaces between.")
    user_claim: str | None = Field(default=None, description="The claim that names a user, whom the token then sees alone.")
    user_channel: str | None = Field(
        default=None,
        description="The channel by whose ids `user_claim` names users; without it, it names them by their `User_…`.",
    )
    user_required: bool = Field(
        default=True, description="Refuses a token without `user_claim`; with `false` it sees everybody, as its scopes allow."
    )
    cache_seconds: int = Field(
        default=300, ge=10, le=86_400, description="How long the issuer's keys are used before they are asked for again."
    )

    @field_validator("issuer", "audience", "algorithms", "scope_claim", "user_claim", "user_channel")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if value is not None and not value:
            raise ValueError("something; it is empty")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is not None and not safe_address(value):
            raise ValueError("an address that begins with https:// (http:// only on this machine)")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("jwks_url or jwks_file, not both")
        if self.jwks_url is None and self.jwks_file is None and not safe_address(self.issuer):
            raise ValueError("jwks_url or jwks_file, since keys cannot be asked for at this issuer: it is no https:// address")
        if self.user_channel is not None and self.user_claim is None:
            raise ValueError("user_claim beside user_channel")
        return self


class PluginSection(BaseModel):
    """`[plugins.NAME]`: whether it runs, and its own settings, which the plugin's models check when it is loaded."""

    model_config = ConfigDict(extra="allow", frozen=True)

    enabled: bool = False

    @property
    def values(self) -> Mapping[str, Any]:
        """Everything but `enabled`."""
        return self.model_extra or {}


class Settings(BaseSettings):
    """What an admin decides. Environment variables named `SCRM_…` come before the file; `__` separates levels."""

    model_config = SettingsConfigDict(env_prefix="SCRM_", env_nested_delimiter="__", extra="forbid", frozen=True)

    database_url: str = Field(
        default=f"sqlite:///{Path('scrm.db')}",
        description="The database: `sqlite:///FILE` or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME`.",
    )
    database_pool: int = Field(
        default=10,
        ge=1,
        le=1_000,
        description=(
            "Most PostgreSQL connections of one process for changes, and as many again for queries; a worker "
            "has one more for each plugin."
        ),
    )
    currency: str = Field(
        default="CNY", description="The business currency, a code of ISO 4217: amounts in another are kept and enter no sum."
    )
    timezone: str = Field(default="Asia/Shanghai", description="Where business days begin and end.")
    language: Literal["zh-CN", "en"] = Field(
        default="zh-CN", description="The language of words that the server makes, unless the request asks for another."
    )
    auto_merge: bool = Field(
        default=True,
        description=(
            "An identity that reports another user's unionId merges the two; with `false` it only records the suggestion."
        ),
    )
    late_after_days: int = Field(default=90, ge=0, description="An event older than this is accepted and marked late.")
    max_ahead_hours: int = Field(default=24, ge=0, description="An event further in the future is refused.")
    announcement_depth: int = Field(default=8, ge=0, le=100, description="How long a chain of events that cause events may be.")
    personal_attributes: list[str] = Field(
        default=[], description="Keys of users' attributes that are personal: masked without `pii:read`."
    )
    personal_properties: list[str] = Field(
        default=list(PERSONAL_PROPERTIES),
        description=(
            "Keys of events' properties that are personal in events of any type, besides those that a type "
            "marks: masked without `pii:read`, removed when a person is erased."
        ),
    )
    on_plugin_error: Literal["fail", "skip"] = Field(
        default="fail",
        description=(
            "A plugin that cannot run stops the start, and every reason is said; `skip` starts without it, and "
            "`scrm db` says so with exit 0."
        ),
    )
    plugin_start_seconds: float = Field(
        default=30,
        gt=0,
        description="How long a plugin may take to be imported, and to open what it needs, before it counts as failed.",
    )
    handler_seconds: float | None = Field(
        default=None,
        gt=0,
        description="How long one call of a handler or a job may take before it is interrupted.",
        json_schema_extra={UNSET: "`10` on SQLite, `60` on PostgreSQL"},
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="The secret under which API keys are hashed; servers of one database share it.",
        json_schema_extra={UNSET: "made once, in `scrm.secret`"},
    )
    server: ServerSettings = ServerSettings()
    jwt: JwtSettings | None = None
    plugins: dict[str, PluginSection] = Field(
        default={}, description="`[plugins.NAME]` with `enabled = true`; the plugin's README lists what else goes there."
    )

    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file that these settings were read from, if there was one."""
        return self._path

    @property
    def zone(self) -> ZoneInfo:
        """The business zone."""
        return ZoneInfo(self.timezone)

    @property
    def house(self) -> Mapping[str, Any]:
        """What `BusinessRules` take from here."""
        return {"currency": self.currency, "timezone": self.timezone}

    @field_validator("database_url")
    @classmethod
    def _driver(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("sqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME") from None
        driver = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
        name = driver.get(url.drivername.partition("+")[0])
        if name is None:
            raise ValueError("sqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME")
        return url.set(drivername=name).render_as_string(hide_password=False)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("a zone such as Asia/Shanghai") from None
        return value

    @field_validator("currency")
    @classmethod
    def _code(cls, value: str) -> str:
        if not is_code(value):
            raise ValueError("an ISO 4217 code such as CNY")
        return value


class _FromFile(Settings):
    """The same with the environment before what is passed in, which is the file's."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load_settings(path: Path | None = None) -> Settings:
    """Settings from `path`, else from `scrm.toml` in the working directory if there is one, under the environment.

    A relative SQLite file in the settings file lies beside it.

    Raises: StartupError with every problem.
    """
    file = path or Path(FILE)
    if path is not None and not file.is_file():
        raise StartupError(f"settings file {path} does not exist; write one or leave out --config")
    data = read_toml(file) if file.is_file() else {}
    problems = unknown_variables(os.environ)
    try:
        settings: Settings = _FromFile(**data)
    except ValidationError as error:
        raise StartupError([*problems, *explain(error, Settings)]) from None
    if problems:
        raise StartupError(problems)
    if file.is_file():
        settings._path = file.resolve()
        if "database_url" not in {name.removeprefix("scrm_") for name in map(str.lower, os.environ)}:
            settings = _beside(settings, file.resolve().parent)
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, one line each with the nearest name; what Kubernetes sets for a service
    that is called scrm is nobody's mistake."""
    known = _variables(Settings, PREFIX)
    checked_inside = ("SCRM_SERVER__", "SCRM_PLUGINS__", "SCRM_JWT__")
    problems = []
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known or name in OTHER_VARIABLES or name.startswith(checked_inside):
            continue
        if _OF_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and value.startswith("tcp://")):
            continue
        near = difflib.get_close_matches(name, [*known, *OTHER_VARIABLES], 1)
        way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(_variables(Settings, PREFIX, deep=False))}"
        problems.append(f"the variable {variable} is no setting; {way_out}")
    return problems


def _variables(model: type[BaseModel], prefix: str, *, deep: bool = True) -> list[str]:
    """The environment variables of a model's settings, those within others too."""
    found = []
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        found.append(variable)
        inner = field.annotation
        if deep and isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _variables(inner, f"{variable}__")
    return found


def read_toml(file: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises: StartupError when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(f"settings file {file} is not TOML: {error}") from None
    except OSError as error:
        raise StartupError(f"settings file {file} cannot be read: {error.strerror}") from None


def _beside(settings: Settings, directory: Path) -> Settings:
    url = make_url(settings.database_url)
    if url.drivername != "sqlite" or not url.database or Path(url.database).is_absolute():
        return settings
    moved = settings.model_copy(update={"database_url": f"sqlite:///{directory / url.database}"})
    moved._path = settings.path
    return moved


def plugin_settings(
    name: str, section: PluginSection, rules: type[Rules], wiring: type[Wiring], house: Mapping[str, Any] | None = None
) -> tuple[Rules, Wiring]:
    """A plugin's section, split into its rules and its wiring by the names of their fields; `house` completes `BusinessRules`.

    Raises: StartupError with every problem.
    """
    place = ("plugins", name)
    known = [*rules.model_fields, *wiring.model_fields, "enabled"]
    problems = [unknown((*place, key), known) for key in section.values if key not in known]
    checked: list[Any] = []
    for model in (rules, wiring):
        try:
            said = {key: value for key, value in section.values.items() if key in model.model_fields}
            checked.append(model(**{**_house(model, house), **said}))
        except ValidationError as error:
            problems += explain(error, model, place)
    if not problems:
        problems += [f"[plugins.{name}]: {said}" for said in checked[1].problems(checked[0])]
    if problems:
        raise StartupError(problems)
    return checked[0], checked[1]


def _house(model: type[BaseModel], house: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return house or {} if issubclass(model, BusinessRules) else {}


def check_rules(name: str, rules: type[Rules], values: Mapping[str, Any], house: Mapping[str, Any] | None = None) -> Rules:
    """Rules that come from elsewhere than the settings, checked and completed alike.

    Raises: StartupError with every problem.
    """
    try:
        return rules(**{**_house(rules, house), **values})
    except ValidationError as error:
        raise StartupError(explain(error, rules, ("plugins", name))) from None
