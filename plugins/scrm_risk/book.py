"""The rules in the plugin's own tables: those of the settings as they were last applied, and those that were saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from scrm.api import KEPT, HandlerTx, Tx, upsert

from .desk import rule_id
from .models import rules as table
from .models import samples, settings
from .rules import RiskRules, Rule

ONE = 1


def read_rules(tx: Tx) -> dict[str, Rule]:
    """Every rule that there is, by key."""
    statement = sa.select(table.c.key, table.c.said).where(table.c.removed.is_(False)).order_by(table.c.key)
    return {row.key: Rule.model_validate(row.said, context=KEPT) for row in tx.rows(statement)}


def keep_rules(tx: HandlerTx, rules: RiskRules) -> None:
    """Write the rules of the settings, unless they are there; one that was saved stays as it was saved."""
    said = {key: rule.model_dump(mode="json") for key, rule in rules.effective.items()}
    digest = hashlib.blake2b(_json(said).encode(), digest_size=16).hexdigest()
    if tx.scalar(sa.select(settings.c.digest).where(settings.c.one == ONE)) == digest:
        return
    kept = {row.key: row for row in tx.rows(sa.select(table.c.key, table.c.saved, table.c.said))}
    for key, rule in rules.effective.items():
        if key not in kept or (not kept[key].saved and kept[key].said != said[key]):
            write_rule(tx, key, rule, saved=False)
    for key in sorted(kept.keys() - said.keys()):
        if not kept[key].saved:
            remove_rule(tx, key)
    row = {"digest": digest}
    tx.execute(upsert(tx, settings).values(one=ONE, **row).on_conflict_do_update(index_elements=["one"], set_=row))


def write_rule(tx: HandlerTx, key: str, rule: Rule, *, saved: bool) -> None:
    """Put a rule in force; what was judged by another is forgotten."""
    whole: Mapping[str, Any] = rule.model_dump(mode="json")
    row = {name: whole[name] for name in ("name", "indicator", "condition", "severity", "for_periods", "period", "per")}
    row |= {name: whole[name] for name in ("playbook", "assignee", "enabled")}
    row |= {"names": _json(whole["names"]), "saved": saved, "removed": False, "said": whole}
    insert = upsert(tx, table).values(id=rule_id(key), key=key, **row)
    tx.execute(insert.on_conflict_do_update(index_elements=["key"], set_=row))
    tx.execute(sa.delete(samples).where(samples.c.rule_key == key))


def remove_rule(tx: HandlerTx, key: str) -> None:
    """Take a rule away; its row stays for its alerts."""
    tx.execute(sa.update(table).where(table.c.key == key).values(removed=True, enabled=False, saved=False))
    tx.execute(sa.delete(samples).where(samples.c.rule_key == key))


def save_rule(tx: HandlerTx, said: Mapping[str, Any], rules: RiskRules) -> None:
    """Put a rule in force that somebody wrote."""
    keep_rules(tx, rules)
    write_rule(tx, said["key"], Rule.model_validate(said["rule"], context=KEPT), saved=True)


def delete_rule(tx: HandlerTx, said: Mapping[str, Any], rules: RiskRules) -> None:
    """Take a saved rule away; the settings' of that key comes back."""
    keep_rules(tx, rules)
    key = said["key"]
    if key in rules.effective:
        write_rule(tx, key, rules.effective[key], saved=False)
    else:
        remove_rule(tx, key)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
