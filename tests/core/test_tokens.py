"""An issuer's tokens: what is verified of them, whose keys verify it, and that every refusal looks the same."""

from __future__ import annotations

import base64
import hmac
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from scrm.config import Settings
from scrm.db import Database
from scrm.testing.client import Client, serving
from scrm.testing.issuer import Issuer
from scrm.token_keys import AGAIN, public_keys
from scrm.tokens import LONGEST, tokens_of
from tests.core.asking import NOW, Clock

VIEWER = "{ viewer { name kind scopes pii user { id } } }"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """An issuer with a key of each kind."""
    made = Issuer()
    for alg in ("RS256", "EdDSA", "Ed25519", "PS256", "ES384"):
        made.add(alg, alg)
    return made


@pytest.fixture
def url(sqlite_template: Path, tmp_path: Path) -> str:
    """A database; nothing here depends on the engine, since no row is asked for."""
    shutil.copyfile(sqlite_template, tmp_path / "scrm.db")
    return f"sqlite:///{tmp_path / 'scrm.db'}"


@pytest.fixture
async def client(url: str, issuer: Issuer, clock: Clock) -> AsyncIterator[Client]:
    """An app that takes the issuer's tokens."""
    async with serving(url, clock=clock, jwt=issuer.settings(), transport=issuer.transport) as client:
        yield client


async def opens(client: Client, token: str) -> bool:
    """Whether the token opens anything; if not, the answer is what it is for any key."""
    response = await client.with_key(token).http.post("/graphql", json={"query": VIEWER})
    if response.status_code == 200:
        assert "errors" not in response.json(), response.text
        return True
    wrong = await client.with_key("scrm_wrong").http.post("/graphql", json={"query": VIEWER})
    assert (wrong.status_code, wrong.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    assert (response.status_code, response.content, response.headers) == (401, wrong.content, wrong.headers)
    return False


def b64(said: Any) -> str:
    text = said if isinstance(said, bytes) else orjson.dumps(said)
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def test_a_token_opens_what_its_scopes_say_and_scrm_knows(client: Client, issuer: Issuer) -> None:
    scope = "openid users:read pii:read * any unknown:read"
    for kid in ("first", "RS256", "EdDSA"):
        data = await client.with_key(issuer.token(NOW, kid=kid, scope=scope)).data("{ viewer { name kind scopes pii } }")
        assert data["viewer"] == {
            "name": "token:alice", "kind": "TOKEN", "scopes": ["pii:read", "users:read"], "pii": True,
        }  # fmt: skip
    listed = client.with_key(issuer.token(NOW, scope=["tags:read", "openid"], sub=None, client_id="till", aud=["x", "scrm"]))
    assert (await listed.data(VIEWER))["viewer"] == {
        "name": "token:till", "kind": "TOKEN", "scopes": ["tags:read"], "pii": False, "user": None,
    }  # fmt: skip
    assert (await listed.graphql("{ users { totalCount } }"))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await listed.data("{ tags { totalCount } }"))["tags"] == {"totalCount": 0}
    assert (await client.data(VIEWER))["viewer"]["kind"] == "KEY"


SECOND = int(NOW.timestamp())
NOT_A_TIME = (float("nan"), float("inf"), -1, True, str(SECOND + 300), (SECOND + 300) * 1000, [SECOND + 300], 10**400)
CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": SECOND - 30},
    "without an end": {"exp": None},
    **{f"an end that is {value!r:.20}": {"exp": value} for value in NOT_A_TIME},
    **{f"a beginning that is {value!r:.20}": {"nbf": value} for value in NOT_A_TIME},
    "not yet valid": {"nbf": SECOND + 31},
    "given out in the future": {"iat": SECOND + 31},
    "given out after its end": {"iat": SECOND + 20, "exp": SECOND + 10},
    "another issuer": {"iss": "https://id.example/"},
    "no issuer": {"iss": None},
    "a list of issuers": {"iss": ["https://id.example"]},
    "another audience": {"aud": "scrm2"},
    "other audiences": {"aud": ["shop", "scrm2"]},
    "no audience": {"aud": None},
    "part of the audience": {"aud": "scr"},
    "nobody's": {"sub": None},
    "of a name in two lines": {"sub": "alice\nbob"},
    "of half a character": {"sub": "\ud800"},
    "of a long name": {"sub": "a" * 256},
    "scopes in an object": {"scope": {"users:read": True}},
    "scopes that are numbers": {"scope": [1]},
}


async def test_what_a_token_claims_is_checked(client: Client, issuer: Issuer) -> None:
    assert await opens(client, issuer.token(NOW))
    assert [name for name, claims in CLAIMS.items() if await opens(client, issuer.token(NOW, **claims))] == []


async def test_the_leeway_is_for_clocks_that_differ(client: Client, issuer: Issuer, clock: Clock) -> None:
    assert await opens(client, issuer.token(NOW, nbf=SECOND + 30, iat=SECOND + 30))
    token = issuer.token(NOW)
    clock.now = NOW + timedelta(seconds=329, milliseconds=999)
    assert await opens(client, token)
    clock.now = NOW + timedelta(seconds=330)
    assert not await opens(client, token), "a token that is remembered ends at its end"


def signing(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda said: hmac.digest(secret, said, "sha256")


def forged(issuer: Issuer, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    said = f"{b64(header)}.{b64(issuer.claims(NOW))}"
    return f"{said}.{b64(sign(said.encode()))}"


def wrong_forms(issuer: Issuer) -> dict[str, str]:
    """Tokens whose claims are right and whose form or signature is not."""
    good = issuer.token(NOW)
    head, payload, signature = good.split(".")
    rsa = issuer.keys["RS256"]
    assert isinstance(rsa, RSAKey)
    shared = {"PEM": rsa.as_pem(), "DER": rsa.as_der()}
    stranger = Issuer()
    stranger.add("RS256", "RS256")
    return {
        "alg none": f"{b64({'alg': 'none', 'kid': 'first'})}.{payload}.",
        "alg None": f"{b64({'alg': 'None', 'kid': 'first'})}.{payload}.{signature}",
        "alg none, signed": f"{b64({'alg': 'none', 'kid': 'first'})}.{payload}.{signature}",
        "no alg": f"{b64({'kid': 'first'})}.{payload}.{signature}",
        "a list of algs": f"{b64({'alg': ['ES256'], 'kid': 'first'})}.{payload}.{signature}",
        **{
            f"HS256 with the public key as {name}": forged(issuer, {"alg": "HS256", "kid": "RS256"}, signing(key))
            for name, key in shared.items()
        },
        "an algorithm that is not allowed": issuer.token(NOW, kid="ES384"),
        "the same under another name": issuer.token(NOW, kid="Ed25519"),
        "a key for another algorithm": jws.serialize_compact(
            {"alg": "RS256", "kid": "PS256"},
            orjson.dumps(issuer.claims(NOW)),
            RSAKey.import_key({k: v for k, v in issuer.keys["PS256"].as_dict(private=True).items() if k != "alg"}),
        ),
        "another key's id": f"{b64({'alg': 'ES256', 'kid': 'RS256'})}.{payload}.{signature}",
        "an unknown key's id": f"{b64({'alg': 'ES256', 'kid': 'x'})}.{payload}.{signature}",
        "no key's id": f"{b64({'alg': 'ES256'})}.{payload}.{signature}",
        "a number for a key's id": f"{b64({'alg': 'ES256', 'kid': 1})}.{payload}.{signature}",
        "a stranger's key of the same id": stranger.token(NOW),
        "a key that it brings along": forged(
            issuer,
            {"alg": "ES256", "kid": "first", "jwk": stranger.keys["first"].as_dict(private=False)},
            lambda said: b"x" * 64,
        ),
        "tampered claims": f"{head}.{b64(issuer.claims(NOW, scope='users:write'))}.{signature}",
        "a tampered header": f"{b64({'alg': 'ES256', 'kid': 'first', 'typ': 'x'})}.{payload}.{signature}",
        "no signature": f"{head}.{payload}.",
        "a signature of nothing": f"{head}.{payload}.{b64(bytes(64))}",
        "half a signature": f"{head}.{payload}.{signature[:40]}",
        "a demand nobody knows": issuer.token(NOW, header={"crit": ["b64"], "b64": True}),
        "a header that is no object": f"{b64('alg')}.{payload}.{signature}",
        "a header that is no JSON": f"{b64(b'{')}.{payload}.{signature}",
        "a header that is no text": f"####.{payload}.{signature}",
        "claims that are no object": issuer.sign(b"[1]"),
        "claims that are no JSON": issuer.sign(b"{"),
        "claims that are nested deep": issuer.sign(b"[" * 12_000),
        "a huge token": issuer.token(NOW, more="x" * LONGEST),
        "two parts": f"{head}.{payload}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{good}.{payload}.{signature}",
        "only points": "..",
    }


async def test_a_token_is_signed_by_the_issuer_as_the_settings_allow(client: Client, issuer: Issuer) -> None:
    assert await opens(client, issuer.token(NOW, header={"typ": "at+jwt", "x-of-the-issuer": 1}))
    assert [name for name, token in wrong_forms(issuer).items() if await opens(client, token)] == []


async def test_why_a_token_is_refused_is_in_the_log_once_in_a_while(
    client: Client, issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "scrm.tokens"):
        for _ in range(5):
            assert not await opens(client, issuer.token(NOW, aud="shop", sub="somebody"))
    assert [record.message for record in caplog.records] == ["a token was refused: its aud is not jwt.audience"]


# ---- the issuer's keys


@asynccontextmanager
async def reading(issuer: Issuer, clock: Clock, path: Path, **more: Any) -> AsyncIterator[Callable[[str], Any]]:
    """Tells whether a token opens anything, with a reader of its own."""
    db = Database(f"sqlite:///{path}", clock=clock)
    settings = Settings(jwt=issuer.settings(**more))
    tokens = tokens_of(settings, db, ["users:read"], issuer.transport)
    assert tokens is not None
    try:

        async def read(token: str) -> bool:
            return await tokens.authenticate(token) is not None

        yield read
    finally:
        await tokens.close()
        await db.close()


async def test_new_keys_are_asked_for_when_a_token_names_one(tmp_path: Path, clock: Clock) -> None:
    issuer = Issuer()
    async with reading(issuer, clock, tmp_path / "x.db", jwks_url="https://id.example/keys") as opens_:
        old = issuer.token(NOW, exp=SECOND + 3600)
        assert await opens_(old)
        assert issuer.asked == ["/keys"]
        issuer.add("second")
        new = issuer.token(NOW, kid="second")
        assert not await opens_(new), "the issuer was asked a moment ago"
        clock.now += AGAIN
        assert (await opens_(new), await opens_(old)) == (True, True)
        assert issuer.asked == ["/keys"] * 2
        del issuer.keys["first"]
        clock.now += timedelta(seconds=299)
        assert await opens_(old), "what is known is used for five minutes"
        clock.now += timedelta(seconds=301)
        assert not await opens_(old)
        assert issuer.asked == ["/keys"] * 3


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(tmp_path: Path, clock: Clock) -> None:
    issuer, stranger = Issuer(), Issuer()
    for number in range(20):
        stranger.add(f"k{number}")
    async with reading(issuer, clock, tmp_path / "x.db") as opens_:
        flood = [stranger.token(NOW, kid=f"k{number}") for number in range(20)]
        assert await opens_(issuer.token(NOW))
        before = len(issuer.asked)
        assert [await opens_(token) for token in flood] == [False] * 20
        clock.now += AGAIN
        assert [await opens_(token) for token in flood] == [False] * 20
        assert await opens_(issuer.token(NOW))
        assert len(issuer.asked) == before + 2, "the configuration and the keys, once"


async def test_known_keys_are_used_while_the_issuer_is_away(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer()
    async with reading(issuer, clock, tmp_path / "x.db") as opens_:
        issuer.away = True
        assert not await opens_(issuer.token(NOW))
        issuer.away = False
        clock.now += AGAIN
        assert await opens_(issuer.token(clock.now))
        issuer.away = True
        for _ in range(5):
            clock.now += timedelta(hours=6)
            assert await opens_(issuer.token(clock.now))
        issuer.add("second")
        clock.now += AGAIN
        assert not await opens_(issuer.token(clock.now, kid="second"))
        issuer.away = False
        clock.now += AGAIN
        assert await opens_(issuer.token(clock.now, kid="second"))
        del issuer.keys["first"]
    assert "the keys of https://id.example cannot be had: ConnectError: nobody answers; 0 are known" in caplog.text
    assert "1 are known" in caplog.text


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"issuer": "https://other.example", "jwks_uri": "https://id.example/keys"},
        {"issuer": "https://id.example", "jwks_uri": "http://id.example/keys"},
        {"issuer": "https://id.example", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "https://id.example", "jwks_uri": 1},
        {"issuer": "https://id.example"},
        httpx2.Response(302, headers={"location": "https://id.example/keys"}),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, content=orjson.dumps(Issuer().answers["/.well-known/openid-configuration"]) + b" " * 600_000),
        httpx2.Response(500),
    ],
    ids=lambda said: str(said)[:60],
)
async def test_a_configuration_that_is_not_the_issuers_gives_no_keys(tmp_path: Path, clock: Clock, said: Any) -> None:
    issuer = Issuer()
    issuer.answers["/.well-known/openid-configuration"] = said
    async with reading(issuer, clock, tmp_path / "x.db") as opens_:
        assert not await opens_(issuer.token(NOW))
    assert issuer.asked == ["/.well-known/openid-configuration"]


async def test_keys_from_a_file_beside_the_settings_are_read_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer("a shop of ours")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "keys.json"
    file.write_bytes(orjson.dumps(issuer.key_set))
    async with reading(issuer, clock, tmp_path / "x.db", jwks_file="keys.json") as opens_:
        assert await opens_(issuer.token(NOW))
        issuer.add("second")
        file.write_bytes(orjson.dumps(issuer.key_set))
        clock.now += AGAIN
        assert await opens_(issuer.token(NOW, kid="second"))
        file.unlink()
        clock.now += timedelta(hours=1)
        assert await opens_(issuer.token(clock.now, kid="second"))
    assert issuer.asked == []


def test_only_keys_that_can_verify_are_taken() -> None:
    issuer = Issuer()
    good = issuer.keys["first"].as_dict(private=False)
    weak = {"kty": "RSA", "kid": "weak", "n": b64(b"\xff" * 128), "e": "AQAB"}
    secret = {"kty": "oct", "kid": "secret", "k": b64(b"k" * 32)}
    rest: list[Any] = [weak, secret, {**good, "kid": "enc", "use": "enc"}, {**good, "kid": 1}, {**good, "kid": ""}, "x", None]
    rest += [{"kty": "EC", "kid": "half", "crv": "P-256", "x": good["x"]}, {**good, "kid": "off", "x": b64(b"1" * 32)}]
    rest += [{name: value for name, value in good.items() if name != "kid"}, {"kty": ["EC"], "kid": "list"}]
    found = public_keys({"keys": [*rest, issuer.keys["first"].as_dict(private=True)]})
    assert list(found) == ["first"]
    assert not found["first"].is_private
    nothings: tuple[Any, ...] = ({"keys": rest}, {"keys": {}}, {}, [], None)
    for nothing in nothings:
        with pytest.raises(ValueError, match="no JWK set"):
            public_keys(nothing)


async def test_without_the_setting_a_token_is_nothing(url: str, clock: Clock) -> None:
    issuer = Issuer()
    async with serving(url, clock=clock, transport=issuer.transport) as client:
        assert not await opens(client, issuer.token(NOW))
    assert issuer.asked == []
