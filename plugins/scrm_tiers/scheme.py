"""The scheme in the plugin's own tables, so that it can be asked and joined with: as it was last applied."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, derive_id, insert_rows, upsert

from .models import benefits, bounds, levels, scheme
from .rules import METRICS, Level, TiersRules

ONE = 1


def level_id(key: str) -> uuid.UUID:
    """A level's id: the same wherever it has that key."""
    return derive_id(uuid.UUID(int=0), "level", key)


def keep_scheme(tx: HandlerTx, rules: TiersRules) -> None:
    """Write the scheme, unless it is there; a level that it does not have any more keeps its names."""
    digest = hashlib.blake2b(_json(rules.model_dump(mode="json")).encode(), digest_size=16).hexdigest()
    if tx.scalar(sa.select(scheme.c.digest).where(scheme.c.one == ONE)) == digest:
        return
    said = {
        "digest": digest,
        "match_kind": rules.match,
        "window_kind": rules.window,
        "currency": rules.currency,
        "base": rules.key(rules.base),
        "lowest": rules.levels[0].key,
    }
    tx.execute(upsert(tx, scheme).values(one=ONE, **said).on_conflict_do_update(index_elements=["one"], set_=said))
    tx.execute(sa.update(levels).values(rank=0))
    for rank, level in enumerate(rules.levels, 1):
        row = {"name": level.name, "names": _json(dict(level.names)), "rank": rank}
        insert = upsert(tx, levels).values(id=level_id(level.key), key=level.key, **row)
        tx.execute(insert.on_conflict_do_update(index_elements=["key"], set_=row))
    keys = [level.key for level in rules.levels]
    tx.execute(sa.delete(bounds))
    asked = [
        {"level": level.key, "metric": metric.upper(), "place": METRICS.index(metric), "bound": bound}
        for level in rules.levels
        for metric, bound in level.bounds.items()
    ]
    insert_rows(tx, bounds, asked)
    tx.execute(sa.delete(benefits).where(benefits.c.level.in_(keys)))
    insert_rows(tx, benefits, [row for level in rules.levels for row in _benefits(level)])


def _benefits(level: Level) -> list[dict[str, Any]]:
    multiplier: dict[str, Any] = {
        "key": "multiplier",
        "name": "积分倍数",
        "names": _json({"en": "Points multiplier"}),
        "value": str(level.multiplier),
    }
    given: list[dict[str, Any]] = [
        {"key": each.key, "name": each.name, "names": _json(dict(each.names)), "value": each.value} for each in level.benefits
    ]
    return [{"level": level.key, "place": place, **row} for place, row in enumerate([multiplier, *given])]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
