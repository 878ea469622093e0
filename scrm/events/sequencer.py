"""Gives committed events their positions: no gap, no loss, no stall."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from scrm.db import Database, Tx
from scrm.errors import UnavailableError

_log = logging.getLogger(__name__)

_CHUNK = 20_000

_SQLITE_HEAD = sa.text("select coalesce(max(position), 0) from events")
_HEAD = sa.text("select position from log_head where one = 1")
_WAITING = sa.text("select exists (select from events where position is null)")
_TAKE_HEAD = sa.text("select position from log_head where one = 1 for update skip locked")
# A statement of its own, after the head is held: its snapshot then shows every row that an earlier holder numbered.
_NUMBER = sa.text(
    "with waiting as (select id, row_number() over (order by ord) as n from"
    " (select id, ord from events where position is null order by ord limit :chunk) as first),"
    " numbered as (update events set position = :head + waiting.n from waiting where events.id = waiting.id returning 1),"
    " total as (select count(*) as n from numbered)"
    " update log_head set position = position + total.n from total where one = 1 returning total.n"
)


def head(tx: Tx) -> int:
    """The position of the newest numbered event; 0 in an empty log."""
    return int(tx.scalar(_SQLITE_HEAD if tx.dialect == "sqlite" else _HEAD) or 0)


def number(tx: Tx, chunk: int = _CHUNK) -> int | None:
    """Number committed events in the order they were written; how many, or None while another transaction numbers them."""
    if tx.dialect == "sqlite":
        return 0
    if not tx.scalar(_WAITING):  # whoever writes and numbers at once finds the head free
        return 0
    held = tx.scalar(_TAKE_HEAD)
    if held is None:
        return None
    return int(tx.scalar(_NUMBER, {"head": int(held), "chunk": chunk}))


async def sequence(db: Database, *, chunk: int = _CHUNK) -> int:
    """Number what is committed and not numbered yet; returns the head.

    Where another process is at it, nothing is waited for: what it does not see is left to the next call.
    """
    if db.dialect != "sqlite":
        while await db.write(number, chunk) == chunk:
            pass
    return await db.read(head)


class Nudge:
    """Calls the sequencer for whoever committed events; callers that come while it runs share one further run.

    It is a hint: what is committed stays so, and a failure here is left to the next call.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._running = False
        self._again = False

    async def __call__(self) -> None:
        if self._db.dialect == "sqlite":
            return
        self._again = True
        if self._running:
            return
        self._running = True
        try:
            while self._again:
                self._again = False
                while await self._db.write(number) == _CHUNK:
                    pass
        except (UnavailableError, sa.exc.SQLAlchemyError, OSError):
            _log.warning("numbering events failed; the next call tries again", exc_info=True)
        finally:
            self._running = False
