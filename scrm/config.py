"""Settings: `scrm.toml` and the environment, strict; and every problem in them at once, in words."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from scrm.errors import StartupError
from scrm.money import is_code
from scrm.plugin import BusinessRules, Rules, Wiring

FILE = "scrm.toml"
PREFIX = "SCRM_"
OTHER_VARIABLES = ("SCRM_CONFIG", "SCRM_TEST_POSTGRES", "SCRM_UPDATE_SCHEMA", "SCRM_EVERY_VALUE", "SCRM_KILLS")
"""Environment variables that begin like a setting's and are none: the command line's, and the tests'."""

_OF_KUBERNETES = re.compile(r"SCRM_(.+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)")
ANONYMOUS = "everyone who reaches this server may read and change everything"
"""The words that open a server to callers without a key."""

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "decimal_parsing": "a number",
    "decimal_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "date_from_datetime_parsing": "a date",
    "date_parsing": "a date",
    "datetime_parsing": "a time with its zone",
    "time_delta_parsing": "a duration",
    "url_parsing": "an address such as https://example.com",
}


PERSONAL_PROPERTIES = ("phone", "mobile", "email", "address", "realName", "receiver", "idNumber")
"""Keys of events' properties that are personal wherever they stand, unless the settings say others."""


class Limits(BaseModel):
    """`[server.limits]`: what one GraphQL request may be at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(default=2_000, ge=10)
    depth: int = Field(default=12, ge=1, le=100)
    fields: int = Field(default=1_000, ge=1)
    aliases: int = Field(default=30, ge=0)
    directives: int = Field(default=50, ge=0)
    list_items: int = Field(default=500, ge=1)
    nodes: int = Field(default=10_000, ge=1)


class CostSettings(BaseModel):
    """`[server.cost]`: what a key may ask in a while, in points of cost. Each server process counts for itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maximum: int = Field(default=2_000_000, ge=1)
    restore_per_second: int = Field(default=1_000_000, ge=1)


class ServerSettings(BaseModel):
    """`[server]`: how `scrm serve` answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allow_anonymous: str | None = None
    ide: bool = True
    max_body_bytes: int = Field(default=1_048_576, ge=1_000)
    max_events_body_bytes: int = Field(default=10_000_000, ge=1_000)
    timeout_seconds: float = Field(default=30, gt=0)
    init_timeout_seconds: float = Field(default=10, gt=0)
    send_timeout_seconds: float = Field(default=30, gt=0)
    max_streams: int = Field(default=1_000, ge=0)
    max_operations: int = Field(default=50, ge=1)
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

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    algorithms: list[Algorithm] = ["RS256", "ES256", "EdDSA"]
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    scope_claim: str = "scope"
    user_claim: str | None = None
    user_channel: str | None = None
    user_required: bool = True
    cache_seconds: int = Field(default=300, ge=10, le=86_400)

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

    database_url: str = f"sqlite:///{Path('scrm.db')}"
    database_pool: int = Field(default=10, ge=1, le=1_000)
    currency: str = "CNY"
    timezone: str = "Asia/Shanghai"
    language: Literal["zh-CN", "en"] = "zh-CN"
    auto_merge: bool = True
    late_after_days: int = Field(default=90, ge=0)
    max_ahead_hours: int = Field(default=24, ge=0)
    announcement_depth: int = Field(default=8, ge=0, le=100)
    personal_attributes: list[str] = []
    personal_properties: list[str] = list(PERSONAL_PROPERTIES)
    on_plugin_error: Literal["fail", "skip"] = "fail"
    plugin_start_seconds: float = Field(default=30, gt=0)
    handler_seconds: float | None = Field(default=None, gt=0)
    secret_key: SecretStr | None = None
    server: ServerSettings = ServerSettings()
    jwt: JwtSettings | None = None
    plugins: dict[str, PluginSection] = {}

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
    problems = [_unknown((*place, key), known) for key in section.values if key not in known]
    checked: list[Any] = []
    for model in (rules, wiring):
        try:
            said = {key: value for key, value in section.values.items() if key in model.model_fields}
            checked.append(model(**{**_house(model, house), **said}))
        except ValidationError as error:
            problems += explain(error, model, place)
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


def explain(error: ValidationError, model: type[BaseModel], place: Sequence[str] = ()) -> list[str]:
    """Each problem as one line that names the setting, its value and what was expected; a secret's value is not shown."""
    return [_explain_one(problem, model, place) for problem in error.errors(include_url=False)]


def _explain_one(problem: ErrorDetails, model: type[BaseModel], place: Sequence[str]) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join([*place, *path])
    kind = problem["type"]
    if kind == "extra_forbidden":
        return _unknown((*place, *path), list(_model_at(model, path[:-1]).model_fields))
    if kind == "missing":
        return f"setting {name} is missing; add it to {FILE} or set SCRM_{'__'.join([*place, *path]).upper()}"
    expected = _EXPECTED.get(kind) or _plain(problem)
    if (variable := _variable_of([*place, *path])) is not None:
        name = f"{name}, from the variable {variable},"
    if _is_secret(model, path):
        return f"setting {name} is not what it should be (and not shown, as it may hold a secret); expected {expected}"
    return f"setting {name} is {json.dumps(problem['input'], ensure_ascii=False, default=str)}; expected {expected}"


def _variable_of(path: Sequence[str]) -> str | None:
    """The environment variable that says a setting, if one does."""
    names = {f"{PREFIX}{'__'.join(path[:length])}".upper() for length in range(1, len(path) + 1)}
    return next((variable for variable in os.environ if variable.upper() in names), None)


def _unknown(path: Sequence[str], known: Sequence[str]) -> str:
    near = difflib.get_close_matches(path[-1], known, 1)
    way_out = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"setting {'.'.join(path)} is unknown; {way_out}"


def _plain(problem: ErrorDetails) -> str:
    text = problem["msg"].removeprefix("Value error, ")
    for start in ("Input should be ", "input should be "):
        text = text.removeprefix(start)
    return text if text[:1] in "'\"" or text.isupper() else text[:1].lower() + text[1:]


def _model_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        said = field.annotation if field else None
        inner = next((each for each in (said, *get_args(said)) if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return model


def _is_secret(model: type[BaseModel], path: Sequence[str]) -> bool:
    field = _model_at(model, path[:-1]).model_fields.get(path[-1]) if path else None
    return field is not None and ("Secret" in str(field.annotation) or path[-1] == "database_url")
