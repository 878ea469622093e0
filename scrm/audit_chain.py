"""The audit log's chain: each committed line is hashed with the hash before it, so what is changed later shows.

Lines are chained after their commit, in the order in which they become visible and, among those, in that of their writing; one
process at a time does it. The head carries a seal under the servers' secret: who has the database but not the secret can compute
hashes, but cannot say where the chain ends.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.audit import audit
from scrm.db import Tx, instant_text
from scrm.models import audit_chain, audit_head, audit_pending
from scrm.worker import Chore

BATCH = 100
"""Lines per transaction: a few milliseconds on SQLite, where everybody else who writes waits."""

SECONDS = 1.0
GENESIS = bytes(32)
"""The hash before the first."""

log = logging.getLogger("scrm.audit")

LINE = ("id", "at", "actor", "action", "subject", "detail")
ID_TEXT = {"sqlite": "cast({} as blob)", "postgresql": "replace(cast({} as text), '-', '')"}
INSTANT_TEXT = {
    "sqlite": "cast({} as blob)",
    "postgresql": r"""to_char(timezone('UTC', {}), 'YYYY-MM-DD"T"HH24\:MI\:SS.US"Z"')""",
}
FIELDS = {
    "sqlite": ", ".join(f"cast(a.{name} as blob) as {name}" for name in LINE),
    "postgresql": f"{ID_TEXT['postgresql'].format('a.id')} as id, {INSTANT_TEXT['postgresql'].format('a.at')} as at,"
    " a.actor, a.action, a.subject, cast(a.detail as text) as detail",
}
"""A line as text on both engines, the same on both, and whatever somebody wrote there."""

_WAITING = (
    "select p.ord, p.audit_id, {fields} from audit_pending p join audit_log a on a.id = p.audit_id"
    " where not exists (select 1 from audit_chain c where c.audit_id = p.audit_id) order by p.ord limit :limit"
)


class SealBrokenError(Exception):
    """The head of the chain is not what this secret sealed."""


def chain(tx: Tx, secret: bytes, *, at: datetime, wait: bool = False, limit: int = BATCH) -> int:
    """Chain committed lines, at most `limit`; how many. 0 too while another process is at it, unless `wait`.

    Raises:
        SealBrokenError: the head carries another seal; nothing is chained.
    """
    if tx.scalar(sa.select(audit_pending.c.ord).limit(1)) is None:
        return 0
    head = head_of(tx, "for update" if wait else "for update skip locked")
    if head is None:
        return 0
    if not sealed(tx, secret, head):
        raise SealBrokenError
    waiting = tx.rows(_waiting(tx.dialect), {"limit": limit})
    if not waiting:
        return 0
    seq, last, rows = head.seq, head.hash, []
    for line in waiting:
        seq, digest = seq + 1, digest_of(line)
        last = link(last, seq, line.audit_id.hex, instant_text(at), digest)
        rows.append({"seq": seq, "audit_id": line.audit_id, "chained_at": at, "digest": digest, "hash": last})
    tx.execute(audit_chain.insert(), rows)
    tx.execute(audit_pending.delete().where(audit_pending.c.ord.in_([line.ord for line in waiting])))
    _set_head(tx, secret, seq, last)
    return len(rows)


def chaining(secret: bytes) -> Chore:
    """What a worker does about it, once a second."""
    told: list[bool] = []

    def do(tx: Tx, clock: Callable[[], datetime]) -> bool:
        try:
            return chain(tx, secret, at=clock()) == BATCH
        except SealBrokenError:
            if not told:
                log.error("the audit log is not chained: %s", BROKEN_SEAL)
                told.append(True)
            return False

    return Chore("audit chain", SECONDS, do)


BROKEN_SEAL = (
    "the head of the chain was not sealed with this secret: use the one of the other servers and workers (scrm.secret or"
    " SCRM_SECRET_KEY), else the head was changed; if the secret was changed on purpose, run scrm audit reseal"
)


def _waiting(dialect: str) -> sa.TextualSelect:
    text = sa.text(_WAITING.format(fields=FIELDS[dialect]))
    return text.columns(sa.column("ord"), sa.column("audit_id", audit_chain.c.audit_id.type), *map(sa.column, LINE))


def head_of(tx: Tx, lock: str = "") -> Row[Any] | None:
    """Where the chain ends and the seal on it; None where another process holds it, or somebody took it away."""
    blobs = "cast(hash as blob) as hash, cast(seal as blob) as seal" if tx.dialect == "sqlite" else "hash, seal"
    return tx.row(sa.text(f"select seq, {blobs} from audit_head where one = 1 {'' if tx.dialect == 'sqlite' else lock}"))


def reseal(tx: Tx, secret: bytes, *, at: datetime, actor: str) -> None:
    """Seal the chain, where it ends now, with this secret, and say so in the log. The caller has verified the chain."""
    head_of(tx, "for update")
    last = tx.row(sa.select(audit_chain.c.seq, audit_chain.c.hash).order_by(audit_chain.c.seq.desc()).limit(1))
    if last is not None:
        _set_head(tx, secret, last.seq, last.hash)
    audit(tx, actor, "audit.resealed", None, {"seq": last.seq if last is not None else 0}, at=at)


def _set_head(tx: Tx, secret: bytes, seq: int, last: bytes) -> None:
    tx.execute(audit_head.update().where(audit_head.c.one == 1).values(seq=seq, hash=last, seal=seal_of(secret, seq, last)))


def sealed(tx: Tx, secret: bytes, head: Row[Any]) -> bool:
    """Whether the head is what this secret sealed; that of a chain without lines has no seal."""
    if head.seq == 0 and head.seal == b"":
        return bool(head.hash == GENESIS) and tx.scalar(sa.select(audit_chain.c.seq).limit(1)) is None
    return hmac.compare_digest(head.seal, seal_of(secret, head.seq, head.hash))


def seal_of(secret: bytes, seq: int, last: bytes) -> bytes:
    """What only who has the secret can say of a head."""
    key = hashlib.blake2b(secret, person=b"scrm audit head").digest()
    return hashlib.blake2b(f"{seq}:".encode() + last, key=key, digest_size=32).digest()


def digest_of(line: Row[Any]) -> bytes:
    """The SHA-256 of a line's canonical JSON: sorted keys, the detail as what it means and not as it was typed."""
    said = {name: text_of(getattr(line, name)) for name in LINE}
    detail = said["detail"]
    try:
        meant = orjson.loads(detail or "")
    except orjson.JSONDecodeError:
        meant = {"unreadable": detail}
    return hashlib.sha256(orjson.dumps({**said, "detail": meant}, option=orjson.OPT_SORT_KEYS)).digest()


def link(before: bytes, seq: int, audit_id: str, chained_at: str, digest: bytes) -> bytes:
    """The hash of a row of the chain, from the hash before it."""
    return hashlib.sha256(before + orjson.dumps([seq, audit_id, chained_at, digest.hex()])).digest()


def text_of(value: str | bytes | None) -> str | None:
    """A value as text, also where it is none."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
