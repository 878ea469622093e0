"""`scrm keys`: who may call."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from scrm.auth import CORE_SCOPES, Key, check_scopes, create_key, list_keys, revoke_key, signing_secret
from scrm.commands.session import AsJson, note, say, say_json, session, table
from scrm.config import Settings
from scrm.db import Database, must_exist
from scrm.errors import StartupError

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
ACTOR = "cli"


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for; one key per name.")],
    scope: Annotated[list[str], typer.Option("--scope", help="What it may do, once per scope; '*' for everything.")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends: 90d, 12h, or a date or time such as 2027-01-31.")
    ] = None,
) -> None:
    """Make a key; standard output is the key alone, shown this once."""
    opened = session(ctx)
    settings = opened.settings()
    must_exist(settings.database_url)
    plugins = opened.plugins(settings, "skip")
    known = [one.name for one in CORE_SCOPES] + [one.name for plugin in plugins for one in plugin.contribution.scopes]
    check_scopes(scope, known)
    secret = signing_secret(settings)

    async def work(db: Database, settings: Settings) -> str:
        at = db.clock()
        ends = expiry(expires, at, settings) if expires is not None else None
        return await db.write(create_key, secret, name, scope, at=at, expires_at=ends, actor=ACTOR)

    say(opened.run(work))


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Every key with what it may do; never the key itself."""

    async def work(db: Database, _settings: Settings) -> tuple[list[Key], datetime]:
        return await db.read(list_keys), db.clock()

    keys, at = session(ctx).run(work)
    if as_json:
        say_json(keys)
        return
    rows = [(key.name, key.scopes, state(key, at), key.created_at, key.expires_at) for key in keys]
    table(("NAME", "SCOPES", "STATE", "CREATED", "EXPIRES"), rows)


@app.command("revoke")
def revoke(ctx: typer.Context, name: Annotated[str, typer.Argument(help="The key's name.")]) -> None:
    """End a key for ever, on every server within five seconds."""

    async def work(db: Database, settings: Settings) -> bool:
        return await db.write(revoke_key, name, at=db.clock(), zone=settings.zone, actor=ACTOR)

    note(f"key {name} is revoked" if session(ctx).run(work) else f"key {name} was revoked before")


def state(key: Key, at: datetime) -> str:
    """One word for whether a key works."""
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.works(at) else "expired"


def expiry(text: str, at: datetime, settings: Settings) -> datetime:
    """The instant that `90d`, `12h`, a date (its end, in the business zone) or a time names.

    Raises: StartupError.
    """
    span = re.fullmatch(r"([1-9]\d{0,4})([hd])", text)
    if span is not None:
        return at + int(span[1]) * (timedelta(days=1) if span[2] == "d" else timedelta(hours=1))
    try:
        ends = datetime.fromisoformat(text)
    except ValueError:
        raise StartupError(f"option --expires is {text!r}; expected 90d, 12h, or a date or time such as 2027-01-31") from None
    if len(text) == 10:
        ends += timedelta(days=1)
    ends = (ends if ends.tzinfo is not None else ends.replace(tzinfo=settings.zone)).astimezone(UTC)
    if ends <= at:
        raise StartupError(f"option --expires is {text!r}, which is over; give a time to come")
    return ends
