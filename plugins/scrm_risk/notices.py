"""Who is told of what: grouped into one message for everybody who is to be told, so many an hour, through the outbox; and how
Apprise sends it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from apprise import Apprise
from pydantic import Field, SecretStr

from scrm.api import Deliverer, Wiring, derive_id, insert_rows, upsert

from .desk import AlertRow, Desk, Notice, read_alerts
from .machine import State
from .models import held, messages
from .models import rules as rules_table
from .rules import SEVERITIES, Notify, RiskRules
from .words import explain

log = logging.getLogger("scrm.risk")

HOUR = timedelta(hours=1)
MOST = 50
"""Alerts that one message names; of the others it says how many they are."""
HEADS = {
    "FIRING": ("告警", "Alert"),
    "ESCALATED": ("告警升级", "Escalated"),
    "RESOLVED": ("已恢复", "Resolved"),
    "PASSED": ("告警（已恢复）", "Alert, over by now"),
}


class RiskWiring(Wiring):
    """Where messages go."""

    urls: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")], SecretStr] = Field(
        default_factory=dict, description="Apprise addresses by the names in `notify`, such as `wecombot://KEY`."
    )
    dry_run: bool = Field(default=False, description="Whether messages are only written to the log.")

    def problems(self, rules: RiskRules) -> Sequence[str]:
        """Names in `notify` that have no address, but for a dry run."""
        missing = [each.to for each in rules.notify if each.to not in self.urls and not self.dry_run]
        return [f"notify names {name}, which urls has no address of; add it, or set dry_run" for name in missing]


def tell(desk: Desk) -> None:
    """Put one message into the outbox for everybody who is to be told something, as long as there is room in the hour; what finds
    none waits for the next evaluation."""
    waiting = desk.tx.rows(sa.select(held).order_by(held.c.at, held.c.to_name, held.c.alert_id))
    known = {alert.id: alert for alert in read_alerts(desk.tx, [row.alert_id for row in waiting])} if waiting else {}
    room = desk.rules.notify_per_hour - int(
        desk.tx.scalar(sa.select(sa.func.count()).where(messages.c.at > desk.now - HOUR, messages.c.at <= desk.now))
    )
    for target in desk.rules.notify:
        old = [Notice(known[row.alert_id], row.what) for row in waiting if row.to_name == target.to]
        new = [notice for notice in desk.notices if wanted(target, notice)]
        notices = latest([*old, *new])
        if not notices:
            continue
        if room > 0:
            room -= 1
            desk.tx.execute(sa.delete(held).where(held.c.to_name == target.to))
            insert_rows(desk.tx, messages, [{"id": derive_id(desk.event.id, "message", target.to), "at": desk.now}])
            desk.tx.send("notify", {"to": target.to, **written(desk, notices)}, cause=desk.event, key=target.to)
        else:
            for notice in notices:
                row = {"what": notice.what, "at": desk.now}
                insert = upsert(desk.tx, held).values(to_name=target.to, alert_id=notice.alert.id, **row)
                desk.tx.execute(insert.on_conflict_do_update(index_elements=["to_name", "alert_id"], set_=row))
    gone = [target.to for target in desk.rules.notify]
    desk.tx.execute(sa.delete(held).where(held.c.to_name.not_in(gone)))
    desk.tx.execute(sa.delete(messages).where(messages.c.at <= desk.now - HOUR))


def wanted(target: Notify, notice: Notice) -> bool:
    """Whether somebody is to be told."""
    heavy = SEVERITIES.index(notice.alert.severity) >= SEVERITIES.index(target.severity)
    return heavy and (target.resolved or notice.what != "RESOLVED")


def latest(notices: Sequence[Notice]) -> list[Notice]:
    """The last of each alert, heaviest first; but where one that nobody heard of is over by now, that it fired."""
    last: dict[Any, Notice] = {}
    for notice in notices:
        unheard = notice.what == "RESOLVED" and notice.alert.id in last and last[notice.alert.id].what == "FIRING"
        last[notice.alert.id] = last[notice.alert.id] if unheard else notice
    return sorted(last.values(), key=lambda notice: (-SEVERITIES.index(notice.alert.severity), notice.alert.id))


def written(desk: Desk, notices: Sequence[Notice]) -> dict[str, Any]:
    """A message: title and body in the language of the settings, and which alerts it is about."""
    chinese = desk.rules.language.startswith("zh")
    keys = sorted({notice.alert.rule_key for notice in notices})
    known = {row.key: row for row in desk.tx.rows(sa.select(rules_table).where(rules_table.c.key.in_(keys)))}
    lines = [_line(desk, notice, known[notice.alert.rule_key], chinese) for notice in notices[:MOST]]
    if len(notices) > MOST:
        lines.append(f"另有{len(notices) - MOST}条" if chinese else f"and {len(notices) - MOST} more")
    heaviest, count = notices[0].alert.severity, len(notices)
    title = f"【{heaviest}】风险预警 {count} 条" if chinese else f"[{heaviest}] {count} risk alert{'s' if count > 1 else ''}"
    return {"title": title, "body": "\n\n".join(lines), "alerts": [notice.alert.id.hex for notice in notices[:MOST]]}


def _line(desk: Desk, notice: Notice, rule: Any, chinese: bool) -> str:
    alert: AlertRow = notice.alert
    name = rule.name if chinese else rule.said["names"].get("en", rule.name)
    what = "PASSED" if notice.what == "FIRING" and alert.state == State.RESOLVED else notice.what
    parts = [f"{HEADS[what][not chinese]} {alert.severity} {name}", explain(json.loads(alert.reason), desk.rules.language)]
    if "user" in alert.scope:
        parts.append(str(alert.scope["user"]))
    if alert.due_at is not None and alert.state == State.FIRING:
        due = alert.due_at.astimezone(desk.rules.zone)
        parts.append(f"{'请于' if chinese else 'due'} {due:%Y-%m-%d %H:%M}{'前响应' if chinese else ''}")
    if alert.assignee is not None:
        parts.append(f"{'责任人' if chinese else 'assigned to'} {alert.assignee}")
    if rule.playbook is not None and notice.what != "RESOLVED":
        parts.append(rule.playbook)
    return "\n".join(parts)


async def deliver(payload: Mapping[str, Any], wiring: RiskWiring) -> None:
    """Send one message through Apprise; raising means trying again later."""
    url = wiring.urls.get(payload["to"])
    if wiring.dry_run:
        log.info("dry run: to %s: %s\n%s", payload["to"], payload["title"], payload["body"])
        return
    if url is None:
        raise LookupError(f"nothing is said of {payload['to']} in plugins.risk.urls; add its address")
    await send(url.get_secret_value(), payload["title"], payload["body"])


async def send(url: str, title: str, body: str) -> None:
    """Send a message to one address.

    Raises: ValueError for an address that Apprise does not know, ConnectionError where it could not be sent.
    """
    sender = Apprise()
    if not sender.add(url):
        raise ValueError("the address is none that Apprise knows; see its list of services")
    if not await sender.async_notify(title=title, body=body):
        raise ConnectionError("Apprise could not send the message")


DELIVERERS = (Deliverer("notify", deliver),)
