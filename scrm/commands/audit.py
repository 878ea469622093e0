"""`scrm audit`: who did what, and whether the log of it is as it was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from scrm.audit import AuditLine, audit_lines
from scrm.audit_chain import SealBrokenError, chain, reseal
from scrm.audit_verify import SEAL, Verified, verify
from scrm.auth import signing_secret
from scrm.commands.session import AsJson, note, say, say_json, session, table
from scrm.config import Settings
from scrm.db import Database, dumps
from scrm.errors import StartupError

app = typer.Typer(help="Read the audit log and verify it.", no_args_is_help=True)
ACTOR = "cli"


@app.command("list")
def list_(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many lines.")] = 50,
    actor: Annotated[str | None, typer.Option("--actor", help="Only what this key, token or command did.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this, such as user.erased.")] = None,
    as_json: AsJson = False,
) -> None:
    """Who did what to whom, newest first."""

    async def work(db: Database, _settings: Settings) -> Sequence[AuditLine]:
        return await db.read(audit_lines, limit=limit, actor=actor, action=action)

    found = session(ctx).run(work)
    if as_json:
        say_json(found)
        return
    rows = [(line.at, line.actor, line.action, line.subject, dumps(line.detail) if line.detail else None) for line in found]
    table(("AT", "ACTOR", "ACTION", "SUBJECT", "DETAIL"), rows)


@app.command("verify")
def verify_(
    ctx: typer.Context,
    head: Annotated[str | None, typer.Option("--head", help="A head that was kept elsewhere; it must be in the chain.")] = None,
    as_json: AsJson = False,
) -> None:
    """Chain what is committed, then compare the log with its chain; exit 1 with one line for each break."""
    opened = session(ctx)
    known = _hash(head) if head is not None else None
    found = opened.run(lambda db, settings: _verified(db, signing_secret(settings), known))
    if as_json:
        say_json(found)
    else:
        since = f", since {found.since}" if found.since else ""
        say(f"{found.count} lines are chained{since}; head {found.head}")
        if found.known_at is not None:
            say(f"the head that was given is row {found.known_at}")
        for one in found.breaks:
            note(one.message)
        if found.more:
            note(f"and {found.more} more")
    if not found.whole:
        raise typer.Exit(1)


@app.command("reseal")
def reseal_(ctx: typer.Context) -> None:
    """Seal the head with the present secret, after the secret was changed; refused unless the chain is whole."""

    async def work(db: Database, settings: Settings) -> Verified:
        secret = signing_secret(settings)
        found = await _verified(db, secret, None)
        if [one.kind for one in found.breaks] == [SEAL]:
            await db.write(reseal, secret, at=db.clock(), actor=ACTOR)
        return found

    found = session(ctx).run(work)
    others = [one for one in found.breaks if one.kind != SEAL]
    for one in others:
        note(one.message)
    if others:
        raise typer.Exit(1)
    note("the head is sealed with the present secret" if found.breaks else "the head was sealed with this secret already")


async def _verified(db: Database, secret: bytes, known: bytes | None) -> Verified:
    try:
        while await db.write(chain, secret, at=db.clock(), wait=True):
            pass
    except SealBrokenError:
        pass  # said by verify
    return await db.read(verify, secret, known)


def _hash(text: str) -> bytes:
    try:
        known = bytes.fromhex(text)
    except ValueError:
        known = b""
    if len(known) != 32:
        raise StartupError(f"option --head is {text!r}; expected the 64 hex digits that scrm audit verify prints")
    return known
