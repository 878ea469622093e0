"""An issuer of tokens in the test's own process: it signs them, and answers where an app asks for its keys."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2
import orjson
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry

_KINDS: Mapping[str, tuple[str, str | int]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
    "RS256": ("RSA", 2048),
    "PS256": ("RSA", 2048),
}


class Issuer:
    """Give `transport` and the settings to `serving(url, jwt=issuer.settings(), transport=issuer.transport)`."""

    def __init__(self, issuer: str = "https://id.example", audience: str = "scrm") -> None:
        self.issuer = issuer
        self.audience = audience
        self.keys: dict[str, Key] = {}
        self.asked: list[str] = []
        self.away = False
        self.answers: dict[str, Any] = {"/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}}
        """What it answers beside its keys, by path."""
        self.transport = httpx2.MockTransport(self._answer)
        self.add("first")

    def add(self, kid: str, alg: str = "ES256") -> Key:
        """A new key of this id, for this algorithm."""
        kind, size = _KINDS[alg]
        self.keys[kid] = JWKRegistry.generate_key(kind, size, {"kid": kid, "use": "sig", "alg": alg})
        return self.keys[kid]

    def settings(self, **more: Any) -> dict[str, Any]:
        """`[jwt]` for this issuer."""
        return {"issuer": self.issuer, "audience": self.audience, **more}

    def claims(self, at: datetime, **claims: Any) -> dict[str, Any]:
        """What a token says that is given out at this time for five minutes; what is given as None is left out."""
        now = int(at.timestamp())
        said = {"iss": self.issuer, "aud": self.audience, "sub": "alice", "iat": now, "exp": now + 300, **claims}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, at: datetime, *, kid: str = "first", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A signed token with these claims."""
        return self.sign(json.dumps(self.claims(at, **claims)).encode(), kid, header)

    def sign(self, payload: bytes, kid: str = "first", header: Mapping[str, Any] | None = None) -> str:
        """Anything, signed as a token is."""
        key = self.keys[kid]
        said = {"alg": key.alg, "kid": kid, **(header or {})}
        registry = JWSRegistry(algorithms=[said["alg"]], strict_check_header=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            return jws.serialize_compact(said, payload, key, registry=registry)

    @property
    def key_set(self) -> dict[str, Any]:
        """The public halves."""
        return {"keys": [key.as_dict(private=False) for key in self.keys.values()]}

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append(path)
        if self.away:
            raise httpx2.ConnectError("nobody answers", request=request)
        said = self.answers.get(path, self.key_set if path == "/keys" else None)
        if isinstance(said, httpx2.Response):
            return said
        return httpx2.Response(404) if said is None else httpx2.Response(200, content=orjson.dumps(said))
