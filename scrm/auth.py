"""API keys: who is calling and what they may do. (An issuer's tokens are read in `scrm.tokens`.)"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import secrets
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from scrm.audit import audit
from scrm.config import ANONYMOUS, Settings
from scrm.db import Database, Tx, new_id
from scrm.errors import ScrmError, StartupError
from scrm.events.log import append, core_event
from scrm.models import api_keys
from scrm.plugin import Scope

PREFIX = "scrm_"
EVERYTHING = "*"
SECRET_FILE = "scrm.secret"
CACHE_FOR = timedelta(seconds=5)
_NOW = timedelta(0)
_CACHE_SIZE = 4096
_NAME = re.compile(r"[^\s\x00-\x1f\x7f](.{0,98}[^\s\x00-\x1f\x7f])?")

CORE_SCOPES: tuple[Scope, ...] = (
    Scope("users:read", "See users and identities."),
    Scope("users:write", "Create, change, merge and link users."),
    Scope("tags:read", "See tags, their groups and who has them."),
    Scope("tags:write", "Change tags and who has them."),
    Scope("channels:read", "See channels and their figures."),
    Scope("channels:write", "Create and change channels."),
    Scope("events:read", "See events."),
    Scope("events:write", "Record events."),
    Scope("indicators:read", "See indicators."),
    Scope("imports:read", "See imports."),
    Scope("plugins:read", "See plugins' settings, failures and progress, and the system's state."),
    Scope("plugins:write", "Retry what plugins failed at."),
    Scope("schema:read", "Ask about the schema itself (introspection)."),
    Scope("pii:read", "See names, phones, e-mail addresses, birthdays and external ids in clear, filter and sort by them."),
    Scope("pii:write", "Export and erase what is kept of a person."),
)
"""What a key may be allowed to do in the core; plugins add theirs."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling."""

    name: str
    kind: str
    scopes: frozenset[str]
    pii: bool = False
    user_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None
    expires_at: datetime | None = None

    def has(self, scope: str) -> bool:
        """Whether the caller may do what needs `scope`."""
        return scope in self.scopes or EVERYTHING in self.scopes


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it can be shown: without its text."""

    id: uuid.UUID
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def works(self, at: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


def signing_secret(settings: Settings) -> bytes:
    """The secret under which keys are hashed: `secret_key` if it is set, else one made once and kept in a file.

    The file is `scrm.secret` beside the settings file, or without one beside the SQLite database; only its owner reads it.
    Servers that share a database share it.

    Raises: StartupError when it can be neither read nor written.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    file = _secret_file(settings)
    try:
        if not file.exists():
            _write_once(file, secrets.token_urlsafe(48))
        said = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StartupError(f"secret file {file} cannot be used: {reason}; mend it or set SCRM_SECRET_KEY") from None
    if len(said) < 32:
        raise StartupError(f"secret file {file} is too short to be safe; delete it, and every key must be made again")
    return said.encode()


def secret_mark(settings: Settings) -> str | None:
    """A short text by which two secrets can be told apart, and nothing else learned; None where there is none to be read."""
    try:
        there = settings.secret_key is not None or _secret_file(settings).exists()
        return key_hash(signing_secret(settings), "mark").hex()[:16] if there else None
    except (StartupError, OSError):
        return None


def _secret_file(settings: Settings) -> Path:
    if settings.path is not None:
        return settings.path.parent / SECRET_FILE
    url = make_url(settings.database_url)
    if url.drivername == "sqlite" and url.database:
        return Path(url.database).resolve().parent / SECRET_FILE
    return Path(SECRET_FILE).resolve()


def _write_once(file: Path, text: str) -> None:
    """Put the whole text there at once, unless another process was first."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{text}\n")
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def key_hash(secret: bytes, key: str) -> bytes:
    """What is kept of a key: without the secret nobody can tell it from a random number."""
    return hashlib.blake2b(key.encode(), key=_hashed(secret), digest_size=32).digest()


@lru_cache(maxsize=8)
def _hashed(secret: bytes) -> bytes:
    return hashlib.blake2b(secret).digest()


def check_scopes(scopes: Sequence[str], known: Iterable[str]) -> None:
    """Refuse scopes that nobody asks for.

    Raises: ScrmError UNKNOWN_SCOPE.
    """
    names = sorted({*known, EVERYTHING})
    for scope in scopes:
        if scope not in names:
            near = difflib.get_close_matches(scope, names, 1)
            way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise ScrmError("UNKNOWN_SCOPE", f"scope {scope} is unknown; {way_out}", path=["scopes"], params={"scope": scope})


def create_key(
    tx: Tx, secret: bytes, name: str, scopes: Sequence[str], *, at: datetime, expires_at: datetime | None = None, actor: str
) -> str:
    """Make a key and return its text, which cannot be had again.

    Raises: ScrmError INVALID_KEY_NAME, NO_SCOPE, KEY_EXISTS.
    """
    if not _NAME.fullmatch(name):
        raise ScrmError("INVALID_KEY_NAME", f"key name {name!r} is not 1 to 100 characters of one line", path=["name"])
    if not scopes:
        raise ScrmError("NO_SCOPE", f"key {name} has no scope and would open nothing; name one, or * for all", path=["scopes"])
    if tx.scalar(sa.select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
        raise ScrmError("KEY_EXISTS", f"key {name} exists, or did; choose another name", path=["name"], params={"name": name})
    key = f"{PREFIX}{secrets.token_urlsafe(32)}"
    key_id = new_id()
    values = {"id": key_id, "name": name, "hash": key_hash(secret, key), "scopes": sorted(set(scopes))}
    tx.execute(api_keys.insert().values(**values, created_at=at, expires_at=expires_at))
    audit(tx, actor, "key.created", key_id.hex, {"name": name, "scopes": values["scopes"]}, at=at)
    return key


def list_keys(tx: Tx) -> list[Key]:
    """Every key that was ever made, oldest first."""
    return [_key(row) for row in tx.rows(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))]


def revoke_key(tx: Tx, name: str, *, at: datetime, zone: ZoneInfo, actor: str) -> bool:
    """End a key for ever; the event `key.revoked` tells every process. False when it was revoked before.

    Raises: ScrmError KEY_NOT_FOUND.
    """
    row = tx.row(sa.select(api_keys.c.id, api_keys.c.revoked_at).where(api_keys.c.name == name).with_for_update())
    if row is None:
        raise ScrmError("KEY_NOT_FOUND", f"key {name} does not exist; see scrm keys list", path=["name"], params={"name": name})
    if row.revoked_at is not None:
        return False
    tx.execute(api_keys.update().where(api_keys.c.id == row.id).values(revoked_at=at))
    append(tx, [core_event("key.revoked", None, {"key": row.id.hex}, at, zone)])
    audit(tx, actor, "key.revoked", row.id.hex, {"name": name}, at=at)
    return True


def find_key(tx: Tx, digest: bytes) -> Key | None:
    """The key with this hash."""
    row = tx.row(sa.select(api_keys).where(api_keys.c.hash == digest))
    return _key(row) if row is not None else None


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    return Key(row.id, row.name, tuple(row.scopes), row.created_at, row.expires_at, row.revoked_at)


class ReadsTokens(Protocol):
    """What knows an issuer's tokens."""

    async def authenticate(self, token: str) -> Principal | None: ...

    async def close(self) -> None: ...


class Keys:
    """Tells who a request is from; remembers a key for at most five seconds. With `tokens` an issuer's are taken too."""

    def __init__(self, db: Database, settings: Settings, tokens: ReadsTokens | None = None) -> None:
        self._db = db
        self._tokens = tokens
        self.secret = signing_secret(settings)
        self._open = settings.server.allow_anonymous == ANONYMOUS
        self._known: OrderedDict[bytes, tuple[datetime, Key, Principal]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> Principal | None:
        """Who an `Authorization: Bearer KEY` header speaks for, or one with a token; None when it opens nothing.

        Without a header that is nobody, unless the settings let everybody in.
        """
        if authorization is None:
            return Principal("anonymous", "ANONYMOUS", frozenset({EVERYTHING}), pii=True) if self._open else None
        scheme, _, text = authorization.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text.isascii():
            return None
        if self._tokens is not None and not text.startswith(PREFIX):
            return await self._tokens.authenticate(text)
        if not text.startswith(PREFIX) or len(text) > 100:
            return None
        at = self._db.clock()
        digest = key_hash(self.secret, text)
        known = self._known.get(digest)
        if known is None or not _NOW <= at - known[0] < CACHE_FOR:
            known = await self._look_up(digest, at)
        return known[2] if known is not None and known[1].works(at) else None

    async def _look_up(self, digest: bytes, at: datetime) -> tuple[datetime, Key, Principal] | None:
        key = await self._db.read(find_key, digest)
        self._known.pop(digest, None)
        if key is None:
            return None
        scopes = frozenset(key.scopes)
        pii = bool(scopes & {EVERYTHING, "pii:read"})
        principal = Principal(key.name, "KEY", scopes, pii=pii, key_id=key.id, expires_at=key.expires_at)
        found = self._known[digest] = (at, key, principal)
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return found

    async def close(self) -> None:
        """Let go of what is under way."""
        if self._tokens is not None:
            await self._tokens.close()

    def forget(self, key_id: uuid.UUID | None = None) -> None:
        """Look a key up again at its next use, or every key: for `key.revoked`."""
        for digest, (_, key, _) in list(self._known.items()):
            if key_id in (None, key.id):
                del self._known[digest]
