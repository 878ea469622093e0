"""The words of the segments in the plugin's own tables, so that they can be asked and joined with: as they were last applied."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, upsert

from .models import segments
from .rules import RfmRules


def keep_words(tx: HandlerTx, rules: RfmRules) -> None:
    """Write the segments, unless they are there; one that the map does not have any more keeps its words."""
    wanted = {one["key"]: {**_row(one), "place": place} for place, one in enumerate(rules.words, 1)}
    known = {row.key: dict(row._mapping) for row in tx.rows(sa.select(segments))}
    if all(known.get(key) == row for key, row in wanted.items()) and not any(
        row["place"] for key, row in known.items() if key not in wanted
    ):
        return
    tx.execute(sa.update(segments).values(place=0))
    for row in wanted.values():
        insert = upsert(tx, segments).values(row)
        tx.execute(insert.on_conflict_do_update(index_elements=["key"], set_=row))


def _row(one: Any) -> dict[str, Any]:
    said = {name: json.dumps(dict(one[name]), ensure_ascii=False, sort_keys=True) for name in ("names", "descriptions")}
    return {"key": one["key"], "name": one["name"], "description": one["description"], **said}
