"""Keys open what they say, until they expire or are revoked, and cannot be read back."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from scrm.auth import CORE_SCOPES, Keys, Principal, check_scopes, create_key, list_keys, revoke_key, signing_secret
from scrm.config import ANONYMOUS, ServerSettings, Settings, load_settings
from scrm.db import Database
from scrm.errors import ScrmError, StartupError
from scrm.events.models import events
from scrm.models import api_keys, audit_log

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SETTINGS = Settings(secret_key=SecretStr("s" * 40))
SECRET = signing_secret(SETTINGS)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(database: Database) -> Clock:
    clock = Clock()
    database.clock = clock
    return clock


async def make(db: Database, name: str = "shop", scopes: tuple[str, ...] = ("users:read",), **more: datetime) -> str:
    return await db.write(create_key, SECRET, name, scopes, at=NOW, actor="cli", **more)


async def test_a_key_says_who_is_calling_and_what_they_may(database: Database, clock: Clock) -> None:
    key = await make(database, "shop", ("users:read", "tags:read", "users:read"))
    assert key.startswith("scrm_")
    assert len(key) == 48
    keys = Keys(database, SETTINGS)
    principal = await keys.authenticate(f"Bearer {key}")
    [shown] = await database.read(list_keys)
    assert principal == Principal("shop", "KEY", frozenset({"users:read", "tags:read"}), False, None, shown.id)
    assert (principal.has("users:read"), principal.has("users:write")) == (True, False)
    assert await keys.authenticate(f"bearer {key}") == principal


async def test_the_star_is_every_scope_and_pii(database: Database, clock: Clock) -> None:
    keys = Keys(database, SETTINGS)
    everything = await keys.authenticate(f"Bearer {await make(database, 'all', ('*',))}")
    reader = await keys.authenticate(f"Bearer {await make(database, 'reader', ('pii:read',))}")
    assert everything is not None
    assert everything.has("anything:write")
    assert everything.pii
    assert reader is not None
    assert reader.pii


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer scrm_nonsense", "Bearer scrm_é", "scrm_x"]
)
async def test_anything_else_opens_nothing(database: Database, header: str | None) -> None:
    assert await Keys(database, SETTINGS).authenticate(header) is None


async def test_the_key_is_not_kept_and_its_hash_needs_the_secret(database: Database, clock: Clock) -> None:
    key = await make(database)
    row = await database.read(lambda tx: tx.row(sa.select(api_keys)))
    assert row is not None
    assert len(row.hash) == 32
    assert key.encode() not in repr(row).encode()
    other = Keys(database, Settings(secret_key=SecretStr("t" * 40)))
    assert await other.authenticate(f"Bearer {key}") is None


async def test_a_key_expires_at_its_instant_even_while_remembered(database: Database, clock: Clock) -> None:
    key = await make(database, expires_at=NOW + timedelta(seconds=2))
    keys = Keys(database, SETTINGS)
    clock.now = NOW + timedelta(seconds=1, microseconds=999_999)
    assert await keys.authenticate(f"Bearer {key}") is not None
    clock.now = NOW + timedelta(seconds=2)
    assert await keys.authenticate(f"Bearer {key}") is None


async def test_a_revoked_key_is_remembered_for_less_than_five_seconds(database: Database, clock: Clock) -> None:
    key = await make(database)
    keys = Keys(database, SETTINGS)
    assert await keys.authenticate(f"Bearer {key}") is not None
    assert await database.write(revoke_key, "shop", at=NOW, zone=ZONE, actor="cli") is True
    clock.now = NOW + timedelta(seconds=4.9)
    assert await keys.authenticate(f"Bearer {key}") is not None
    clock.now = NOW + timedelta(seconds=5)
    assert await keys.authenticate(f"Bearer {key}") is None


async def test_a_revoked_key_is_dropped_at_once_where_the_event_is_seen(database: Database, clock: Clock) -> None:
    first, second = await make(database, "first"), await make(database, "second")
    keys = Keys(database, SETTINGS)
    for key in (first, second):
        assert await keys.authenticate(f"Bearer {key}") is not None
    await database.write(revoke_key, "first", at=NOW, zone=ZONE, actor="cli")
    event = await database.read(lambda tx: tx.row(sa.select(events).where(events.c.type == "key.revoked")))
    [shown, _] = await database.read(list_keys)
    assert event is not None
    assert event.properties == {"key": shown.id.hex}
    keys.forget(shown.id)
    assert await keys.authenticate(f"Bearer {first}") is None
    assert await keys.authenticate(f"Bearer {second}") is not None


async def test_revoking_twice_changes_nothing_and_a_missing_key_is_named(database: Database) -> None:
    await make(database)
    assert await database.write(revoke_key, "shop", at=NOW, zone=ZONE, actor="cli") is True
    assert await database.write(revoke_key, "shop", at=NOW + timedelta(days=1), zone=ZONE, actor="cli") is False
    [key] = await database.read(list_keys)
    assert key.revoked_at == NOW
    with pytest.raises(ScrmError, match="key shp does not exist") as caught:
        await database.write(revoke_key, "shp", at=NOW, zone=ZONE, actor="cli")
    assert caught.value.code == "KEY_NOT_FOUND"


async def test_creating_and_revoking_are_in_the_audit_log(database: Database) -> None:
    await make(database)
    await database.write(revoke_key, "shop", at=NOW, zone=ZONE, actor="cli")
    rows = await database.read(lambda tx: tx.rows(sa.select(audit_log).order_by(audit_log.c.id)))
    assert [(row.actor, row.action, row.detail) for row in rows] == [
        ("cli", "key.created", {"name": "shop", "scopes": ["users:read"]}),
        ("cli", "key.revoked", {"name": "shop"}),
    ]


@pytest.mark.parametrize(
    ("name", "scopes", "code"),
    [
        ("shop", ("users:read",), "KEY_EXISTS"),
        ("new", (), "NO_SCOPE"),
        ("", ("*",), "INVALID_KEY_NAME"),
        ("a\nb", ("*",), "INVALID_KEY_NAME"),
    ],
)
async def test_a_refused_key_is_not_made(database: Database, name: str, scopes: tuple[str, ...], code: str) -> None:
    await make(database)
    with pytest.raises(ScrmError) as caught:
        await make(database, name, scopes)
    assert caught.value.code == code
    assert [key.name for key in await database.read(list_keys)] == ["shop"]


def test_an_unknown_scope_is_refused_with_the_nearest() -> None:
    known = [scope.name for scope in CORE_SCOPES]
    check_scopes(["users:read", "*"], known)
    with pytest.raises(ScrmError, match=r"scope user:read is unknown; did you mean users:read\?"):
        check_scopes(["user:read"], known)


async def test_nobody_is_let_in_without_a_key_unless_the_settings_say_so(database: Database) -> None:
    assert await Keys(database, SETTINGS).authenticate(None) is None
    opened = Settings(secret_key=SecretStr("s" * 40), server=ServerSettings(allow_anonymous=ANONYMOUS))
    anonymous = await Keys(database, opened).authenticate(None)
    assert anonymous is not None
    assert (anonymous.kind, anonymous.has("users:write")) == ("ANONYMOUS", True)
    assert await Keys(database, opened).authenticate("Bearer scrm_wrong") is None


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text("")
    settings = load_settings(tmp_path / "scrm.toml")
    first = signing_secret(settings)
    file = tmp_path / "scrm.secret"
    assert len(first) >= 48
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert signing_secret(settings) == first
    assert [entry.name for entry in tmp_path.iterdir() if "secret" in entry.name] == ["scrm.secret"]
    file.write_text("short\n")
    with pytest.raises(StartupError, match="is too short to be safe"):
        signing_secret(settings)
