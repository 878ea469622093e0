"""The issuer's keys: kept for a while, fetched again when that is over or a token names one that is not known.

What is known stays in use while the issuer is away. However many tokens name unknown keys, the issuer is asked once in ten
seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.util import base64_to_int

from scrm.config import JwtSettings, safe_address

PublicKey = RSAKey | ECKey | OKPKey

AGAIN = timedelta(seconds=10)
"""The shortest time between two requests to the issuer."""

TIMEOUT = 5.0
_LARGEST = 500_000
_PUBLIC = ("kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y")
_SMALLEST_RSA = 2048

log = logging.getLogger("scrm.tokens")


class TokenKeys:
    """The keys of one issuer, by their ids. `transport` is another way to it than the network's."""

    def __init__(
        self,
        settings: JwtSettings,
        directory: Path,
        clock: Callable[[], datetime],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._file = directory / settings.jwks_file if settings.jwks_file is not None else None
        self._clock = clock
        self._transport = transport
        self._lives = timedelta(seconds=settings.cache_seconds)
        self._keys: Mapping[str, PublicKey] = {}
        self._fetched: datetime | None = None
        self._asked: datetime | None = None
        self._away = False
        self._task: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> PublicKey | None:
        """The key with this id; None when the issuer has none, as far as is known."""
        at = self._clock()
        known = self._keys.get(kid)
        if known is not None and self._younger(at, self._lives):
            return known
        fetching = self._fetching(at)
        # A key that is only a little old is used while it is looked for again, and so is one whose issuer is away.
        if fetching is not None and not (known is not None and (self._away or self._younger(at, 2 * self._lives))):
            await asyncio.shield(fetching)
        return self._keys.get(kid)

    async def close(self) -> None:
        """Stop fetching."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _younger(self, at: datetime, age: timedelta) -> bool:
        return self._fetched is not None and timedelta(0) <= at - self._fetched < age

    def _fetching(self, at: datetime) -> asyncio.Task[None] | None:
        """The request that is under way, or a new one if it is time for one."""
        if self._task is not None and not self._task.done():
            return self._task
        if self._asked is not None and timedelta(0) <= at - self._asked < AGAIN:
            return None
        self._asked = at
        self._task = asyncio.create_task(self._fetch(at))
        return self._task

    async def _fetch(self, at: datetime) -> None:
        try:
            self._keys = public_keys(await self._said())
            self._fetched, self._away = at, False
        except Exception as error:  # whatever it is, what is known stays in use
            self._away = True
            said = f"{type(error).__name__}: {error}"
            log.warning("the keys of %s cannot be had: %s; %d are known", self._settings.issuer, said, len(self._keys))

    async def _said(self) -> object:
        if self._file is not None:
            return orjson.loads(await asyncio.to_thread(self._file.read_bytes))
        async with asyncio.timeout(2 * TIMEOUT):
            async with httpx2.AsyncClient(transport=self._transport, timeout=TIMEOUT, follow_redirects=False) as http:
                return await _json(http, self._settings.jwks_url or await self._discovered(http))

    async def _discovered(self, http: httpx2.AsyncClient) -> str:
        issuer = self._settings.issuer
        said = await _json(http, f"{issuer.removesuffix('/')}/.well-known/openid-configuration")
        if not isinstance(said, dict) or said.get("issuer") != issuer:
            raise ValueError(f"the configuration found there is not that of {issuer}")
        address = said.get("jwks_uri")
        if not isinstance(address, str) or not safe_address(address):
            raise ValueError(f"its jwks_uri is {address!r}, and no https:// address")
        return address


async def _json(http: httpx2.AsyncClient, address: str) -> Any:
    async with http.stream("GET", address, headers={"Accept": "application/json"}) as response:
        response.raise_for_status()
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _LARGEST:
                raise ValueError(f"{address} answers more than {_LARGEST} bytes")
    return orjson.loads(bytes(body))


def public_keys(said: object) -> dict[str, PublicKey]:
    """The keys of a JWK set that can verify a token, by their ids; what else it holds is left out.

    Raises: ValueError when there is none.
    """
    listed = said.get("keys") if isinstance(said, dict) else None
    found: dict[str, PublicKey] = {}
    for each in listed if isinstance(listed, list) else ():
        key = _public_key(each)
        if key is not None and key.kid:
            found.setdefault(key.kid, key)
    if not found:
        raise ValueError("it is no JWK set with a public key that has an id")
    return found


def _public_key(said: object) -> PublicKey | None:
    if not isinstance(said, dict) or said.get("use") not in (None, "sig") or said.get("kty") == "oct":
        return None
    try:
        if said.get("kty") == "RSA" and base64_to_int(said["n"]).bit_length() < _SMALLEST_RSA:
            return None
        key = JWKRegistry.import_key({name: said[name] for name in _PUBLIC if name in said})
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if isinstance(key, PublicKey) else None
