"""Verifying the audit log's chain: every line against what was chained, every row of the chain against the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.audit_chain import BROKEN_SEAL, FIELDS, GENESIS, ID_TEXT, INSTANT_TEXT, digest_of, head_of, link, sealed, text_of
from scrm.db import Tx

NAMED = 1_000
"""Breaks that are named; further ones are counted."""

_PAGE = 1_000
CHANGED, MISSING, INSERTED, REORDERED, HEAD, SEAL = "changed", "missing", "inserted", "re-ordered", "head", "seal"

_ROWS = (
    "select c.seq, {id} as audit_id, {instant} as chained_at, {digest} as digest, {hash} as hash, {fields}"
    " from audit_chain c left join audit_log a on a.id = c.audit_id"
    " where c.seq > :after order by c.seq limit :page"
)
_UNCHAINED = (
    "select {fields} from audit_log a where not exists (select 1 from audit_chain c where c.audit_id = a.id)"
    " and not exists (select 1 from audit_pending p where p.audit_id = a.id) order by a.id limit :page"
)
_LOST = (
    "select {id} as id from audit_pending p where not exists (select 1 from audit_log a where a.id = p.audit_id)"
    " order by p.ord limit :page"
)


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that is not as it was: what, where in the chain, which line of the log."""

    kind: str
    message: str
    seq: int | None = None
    audit_id: str | None = None


@dataclass
class Verified:
    """What was found. `head` is the last hash, `since` when the first line was chained, `known_at` the row of the known head."""

    count: int = 0
    head: str = GENESIS.hex()
    since: str | None = None
    known_at: int | None = None
    breaks: list[Break] = field(default_factory=list)
    more: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks

    def add(self, kind: str, message: str, seq: int | None = None, audit_id: str | None = None) -> None:
        """Name a break, or count it where many have been named."""
        if len(self.breaks) < NAMED:
            self.breaks.append(Break(kind, message, seq, audit_id))
        else:
            self.more += 1


def verify(tx: Tx, secret: bytes, known: bytes | None = None) -> Verified:
    """Go through the chain and the log in one snapshot; `known` is a hash that was once the head and must be in the chain."""
    found = Verified()
    last, before, strangers = 0, GENESIS, []
    for row in _rows(tx):
        if row.seq < 1:
            line = text_of(row.audit_id)
            found.add(INSERTED, f"row {row.seq} of the chain, for line {line}, was inserted: the first is 1", row.seq, line)
            continue
        if row.seq == last + 1:
            _look_at_link(found, before, row)
        else:
            found.add(MISSING, f"rows {last + 1} to {row.seq - 1} of the chain are missing", last + 1)
        if row.id is None:
            line = text_of(row.audit_id)
            found.add(MISSING, f"line {line}, row {row.seq} of the chain, is missing from the log", row.seq, line)
        elif digest_of(row) != row.digest:
            strangers.append(row)
        if found.since is None:
            found.since = text_of(row.chained_at)
        if row.hash == known:
            found.known_at = row.seq
        last, before, found.count = row.seq, row.hash, found.count + 1
    found.head = before.hex()
    _name_strangers(tx, found, strangers)
    _look_beside(tx, found)
    _look_at_head(tx, found, secret, last, before)
    if known is not None and known != GENESIS and found.known_at is None:
        found.add(HEAD, f"the head {known.hex()} is not in the chain: it was rewritten, or this is another database")
    return found


def _rows(tx: Tx) -> Iterator[Row[Any]]:
    bytes_of = "cast({} as blob)" if tx.dialect == "sqlite" else "{}"
    parts = {"id": ID_TEXT[tx.dialect].format("c.audit_id"), "instant": INSTANT_TEXT[tx.dialect].format("c.chained_at")}
    parts |= {name: bytes_of.format(f"c.{name}") for name in ("digest", "hash")}
    statement = sa.text(_ROWS.format(**parts, fields=FIELDS[tx.dialect]))
    after = -(2**62)
    while page := tx.rows(statement, {"after": after, "page": _PAGE}):
        yield from page
        after = page[-1].seq


def _look_at_link(found: Verified, before: bytes, row: Row[Any]) -> None:
    if link(before, row.seq, text_of(row.audit_id) or "", text_of(row.chained_at) or "", row.digest) != row.hash:
        found.add(REORDERED, f"row {row.seq} of the chain does not follow the one before: re-ordered or rewritten", row.seq)


def _name_strangers(tx: Tx, found: Verified, strangers: list[Row[Any]]) -> None:
    """Lines that are not what was chained in their place: moved where another place has them, else changed."""
    same = sa.text("select seq from audit_chain where digest = :digest")
    for number, row in enumerate(strangers):
        line = text_of(row.id)
        place = tx.scalar(same, {"digest": digest_of(row)}) if number < NAMED else None
        if place is not None:
            found.add(REORDERED, f"line {line} was chained as row {place} and stands in row {row.seq}", row.seq, line)
        else:
            found.add(CHANGED, f"line {line}, row {row.seq} of the chain, was changed", row.seq, line)


def _look_beside(tx: Tx, found: Verified) -> None:
    """Lines that nobody chained, and lines that were to be chained and are gone."""
    for row in tx.rows(sa.text(_UNCHAINED.format(fields=FIELDS[tx.dialect])), {"page": NAMED}):
        line = text_of(row.id)
        found.add(INSERTED, f"line {line} was inserted past scrm: it is neither in the chain nor waits for it", None, line)
    for row in tx.rows(sa.text(_LOST.format(id=ID_TEXT[tx.dialect].format("p.audit_id"))), {"page": NAMED}):
        line = text_of(row.id)
        found.add(MISSING, f"line {line} is missing from the log: it went before it was chained", None, line)


def _look_at_head(tx: Tx, found: Verified, secret: bytes, last: int, before: bytes) -> None:
    head = head_of(tx)
    if head is None:
        found.add(HEAD, "the row that says where the chain ends is missing from audit_head")
        return
    if (head.seq, head.hash) != (last, before):
        found.add(HEAD, f"the chain ends in row {last}, but its head is row {head.seq}: rows were cut off, added or rewritten")
    if not sealed(tx, secret, head):
        found.add(SEAL, BROKEN_SEAL)
