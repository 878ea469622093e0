"""An issuer's tokens (JWT): who they speak for. Whatever is wrong with one, the caller is told the same; the log says why."""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry

from scrm.auth import CACHE_FOR, Principal
from scrm.changes import global_id
from scrm.config import JwtSettings, Settings
from scrm.db import Database, Tx
from scrm.token_keys import TokenKeys
from scrm.users.service import find_users, user_by_identity

LONGEST = 16_384
"""Characters of the longest token that is looked at."""

ACTOR = "token:"
"""What the name of a caller begins with whom a token names, so that it is no key's."""

_NAME = 255
_LAST_INSTANT = 253_000_000_000  # in the year 9987
_CACHE_SIZE = 4096
_TELL_AGAIN = timedelta(seconds=10)
_MALFORMED = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_USER = re.compile(r"User_([0-9a-f]{32})")

log = logging.getLogger("scrm.tokens")


class RefusedError(Exception):
    """Why a token opens nothing: words for the log, without what the token says."""


class _Registry(JWSRegistry):
    """The algorithms of the settings and no other; headers that nobody knows are left alone, as the standard says."""

    max_header_length = 4_096

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


class Tokens:
    """Tells who a token speaks for; remembers one for at most five seconds."""

    def __init__(self, db: Database, settings: JwtSettings, keys: TokenKeys, scopes: Iterable[str]) -> None:
        self._db = db
        self._settings = settings
        self._keys = keys
        self._scopes = frozenset(scopes)
        self._leeway = timedelta(seconds=settings.leeway_seconds)
        self._registry = _Registry(algorithms=settings.algorithms, strict_check_header=False)
        self._known: OrderedDict[bytes, tuple[datetime, Principal]] = OrderedDict()
        self._told: datetime | None = None

    async def authenticate(self, token: str) -> Principal | None:
        """Who the token speaks for; None when it opens nothing."""
        if len(token) > LONGEST or token.count(".") != 2:
            return None
        at = self._db.clock()
        digest = hashlib.blake2b(token.encode(), digest_size=32).digest()
        known = self._known.get(digest)
        if known is not None and timedelta(0) <= at - known[0] < CACHE_FOR:
            return known[1] if known[1].expires_at is None or at < known[1].expires_at else None
        self._known.pop(digest, None)
        try:
            principal = await self._principal(token, at)
        except RefusedError as refused:
            self._tell(str(refused), at)
            return None
        self._known[digest] = (at, principal)
        while len(self._known) > _CACHE_SIZE:
            self._known.popitem(last=False)
        return principal

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    async def _principal(self, token: str, at: datetime) -> Principal:
        claims = await self._verified(token)
        self._check_parties(claims)
        expires = self._check_times(claims, at)
        scopes = self._allowed(claims)
        user = await self._user(claims)
        name = global_id("User", user) if user is not None else ACTOR + _holder(claims)
        return Principal(name, "TOKEN", scopes, pii="pii:read" in scopes, user_id=user, expires_at=expires)

    async def _verified(self, token: str) -> Mapping[str, Any]:
        """The claims of a token whose signature is the issuer's."""
        key = await self._keys.find(self._kid(token))
        if key is None:
            raise RefusedError("the issuer has no key with the token's kid, as far as is known")
        try:
            return jwt.decode(token, key, registry=self._registry).claims
        except _MALFORMED as error:
            raise RefusedError(f"its signature or its form is wrong ({type(error).__name__})") from None

    def _kid(self, token: str) -> str:
        try:
            header = jws.extract_compact(token.encode(), registry=self._registry).headers()
        except _MALFORMED as error:
            raise RefusedError(f"it cannot be read ({type(error).__name__})") from None
        if not isinstance(header, dict) or header.get("alg") not in self._settings.algorithms:
            raise RefusedError("its alg is not among jwt.algorithms")
        if "crit" in header or "b64" in header:
            raise RefusedError("its header asks for what is not known here")
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise RefusedError("its header has no kid")
        return kid

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._settings.issuer:
            raise RefusedError("its iss is not jwt.issuer")
        audience = claims.get("aud")
        if self._settings.audience not in (audience if isinstance(audience, list) else [audience]):
            raise RefusedError("its aud is not jwt.audience")

    def _check_times(self, claims: Mapping[str, Any], at: datetime) -> datetime:
        """When it ends, the leeway included."""
        expires, since, issued = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
        if expires is None:
            raise RefusedError("it has no exp")
        if at >= expires + self._leeway:
            raise RefusedError("it has expired")
        if since is not None and since - self._leeway > at:
            raise RefusedError("its nbf is still to come")
        if issued is not None and (issued - self._leeway > at or issued > expires):
            raise RefusedError("its iat is still to come, or after its exp")
        return expires + self._leeway

    def _allowed(self, claims: Mapping[str, Any]) -> frozenset[str]:
        said = claims.get(self._settings.scope_claim, "")
        names = said.split() if isinstance(said, str) else said
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RefusedError("the claim jwt.scope_claim is neither text nor a list of names")
        return self._scopes & frozenset(names)

    async def _user(self, claims: Mapping[str, Any]) -> uuid.UUID | None:
        """The user whom the token names; None where it need not and does not."""
        claim = self._settings.user_claim
        if claim is None or (claim not in claims and not self._settings.user_required):
            return None
        said = claims.get(claim)
        if not isinstance(said, str) or not 0 < len(said) <= _NAME or not said.isprintable():
            raise RefusedError("the claim jwt.user_claim is missing or no text")
        user = await self._db.read(_named, said, self._settings.user_channel)
        if user is None:
            raise RefusedError("the claim jwt.user_claim names nobody")
        return user

    def _tell(self, why: str, at: datetime) -> None:
        """Say why in the log, but not once for each of a flood."""
        if self._told is None or not timedelta(0) <= at - self._told < _TELL_AGAIN:
            self._told = at
            log.info("a token was refused: %s", why)


def tokens_of(
    settings: Settings, db: Database, scopes: Iterable[str], transport: httpx2.AsyncBaseTransport | None = None
) -> Tokens | None:
    """What reads tokens as the settings say; None where they say nothing of tokens."""
    if settings.jwt is None:
        return None
    directory = settings.path.parent if settings.path is not None else Path()
    return Tokens(db, settings.jwt, TokenKeys(settings.jwt, directory, db.clock, transport), scopes)


def _named(tx: Tx, said: str, channel: str | None) -> uuid.UUID | None:
    """The living user with this id, or whom the channel knows by it."""
    if channel is not None:
        user = user_by_identity(tx, channel, said)
    else:
        match = _USER.fullmatch(said)
        user = uuid.UUID(hex=match[1]) if match is not None else None
    return find_users(tx, [user]).get(user) if user is not None else None


def _instant(claims: Mapping[str, Any], name: str) -> datetime | None:
    said = claims.get(name)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said < _LAST_INSTANT:
        raise RefusedError(f"its {name} is no time in seconds")
    return datetime.fromtimestamp(said, UTC)


def _holder(claims: Mapping[str, Any]) -> str:
    """Whose token it is, as the issuer calls them."""
    said = next((claims[name] for name in ("sub", "client_id", "azp") if claims.get(name) is not None), None)
    if not isinstance(said, str) or not 0 < len(said) <= _NAME or not said.isprintable():
        raise RefusedError("it has no sub, client_id or azp of one line")
    return said
