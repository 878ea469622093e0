"""An evaluation of 50 rules over two years of daily series against bare SQL for the same series, interleaved in one process; on
both engines.

The bare SQL is one statement for each of the ten indicators, written by hand for all days at once (`group by business_date`);
that both say the same numbers is looked at first. The evaluation also judges 50 conditions and keeps what it saw.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from bench.rfm import caught_up, timed
from bench.years import LAST_DAY, UNTIL, fill
from scrm.config import PluginSection, Settings
from scrm.db import Database, Tx
from scrm.events.consumers import Consumer, consumer_of
from scrm.events.handling import reading
from scrm.events.log import append, core_event
from scrm.events.sequencer import sequence
from scrm.indicators.periods import complete_periods, read_indicator
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

WEEKS = 104
DAYS = 7 * WEEKS + 8
"""What a rule looks at: so many weeks of the same weekday, and seven days in which something may come late."""


def run(users: int, events: int, rounds: int, engine: str) -> None:
    """Print the figures of `sqlite`, of `postgresql` or of `both`."""
    if engine != "sqlite":
        with postgres_server(on_disk=True) as server, server.database() as url:
            asyncio.run(measure("PostgreSQL", url, users, events, rounds))
    if engine != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure("SQLite", f"sqlite:///{folder}/bench.db", users, events, rounds))


async def measure(engine: str, url: str, users: int, events: int, rounds: int) -> None:
    """One engine: the bare statements and an evaluation as of another instant, in turns."""
    section = PluginSection.model_validate({"enabled": True, "presets": False, "rules": rules()})
    settings = Settings(database_url=url, plugins={"risk": section}, handler_seconds=3600)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    db = Database(url)
    consumer = consumer_of(plugins.active[0], settings)
    try:
        await db.write(fill, users, events, TYPES)
        if db.dialect == "postgresql":
            await db.write(lambda tx: tx.execute(sa.text("analyze")))
        await caught_up(db, consumer)
        apart = await db.read(compare, consumer, settings)
        bare, made = [], []
        for n in range(rounds):
            bare.append(await timed(lambda: db.read(all_series)))
            await db.write(due, UNTIL - timedelta(microseconds=rounds - n), settings)
            await sequence(db)
            made.append(await timed(lambda: caught_up(db, consumer)))
        done = await db.read(lambda tx: tx.scalar(sa.text("select max(rules) from risk_evaluations")))
        asked, took = statistics.median(bare), statistics.median(made)
        print(
            f"risk: {engine:10}  {users} users, {events} events, {done} rules on {DAYS} days: bare {asked:.2f} s, evaluation"
            f" {took:.2f} s ({took / asked:.2f} times); median of {rounds}; by indicator, s and bare s: {apart}"
        )
    finally:
        await db.close()


def rules() -> dict[str, Any]:
    """Five for each indicator, all with the mean of two years."""
    mean = {"window": WEEKS, "same_weekday": True}
    conditions = [
        *({"kind": "deviation", "sigmas": sigmas, **mean} for sigmas in ("2", "3")),
        *({"kind": "off_mean", "by": by, "direction": "below", **mean} for by in ("0.2", "0.3", "0.4")),
    ]
    more = {"name": "x", "severity": "WATCH", "period": "DAY"}
    return {
        f"{key}-{n}": {"indicator": key, "condition": condition, **more}
        for key in SERIES
        for n, condition in enumerate(conditions)
    }


def due(tx: Tx, as_of: datetime, settings: Settings) -> None:
    """An evaluation is due."""
    event = core_event("risk.evaluation_due", None, {"asOf": as_of.isoformat(), "samples": {}}, as_of, settings.zone)
    append(tx, [replace(event, source="job:risk")])


def compare(tx: Tx, consumer: Consumer, settings: Settings) -> str:
    """What each series takes and took by hand; both must say the same."""
    said = []
    for key in SERIES:
        start = time.perf_counter()
        periods = complete_periods(UNTIL, settings.zone, "DAY", DAYS)
        ours = read_indicator(reading(tx, consumer.indicators), key, periods, as_of=UNTIL)
        took, start = time.perf_counter() - start, time.perf_counter()
        theirs = series(tx, key)
        said.append(f"{key} {took:.2f} and {time.perf_counter() - start:.2f}")
        for period, ratio in zip(periods, ours, strict=True):
            by_hand = theirs.get(period.start, (0, None if ratio.denominator is None else 0))
            if by_hand != (ratio.numerator, ratio.denominator):
                raise AssertionError(f"{key} of {period.start}: {ratio}, by hand {by_hand}")
    return ", ".join(said)


def all_series(tx: Tx) -> None:
    """Every series by hand."""
    for key in SERIES:
        series(tx, key)


def series(tx: Tx, key: str) -> dict[date, tuple[int, int | None]]:
    """One of them, by day."""
    text = SERIES[key]
    later = "({} + {})" if tx.dialect == "postgresql" else "date({}, '+{} days')"
    for name in ("day", "bought"):
        for count in (1, 90):
            text = text.replace(f"{{{name}+{count}}}", later.format(name, count))
    last = date.fromisoformat(LAST_DAY)
    given: dict[str, Any] = {"as_of": UNTIL, "first": last - timedelta(days=DAYS), "last": last}
    if tx.dialect == "sqlite":
        given = {name: value.isoformat() for name, value in given.items()}
    rows: list[Any] = list(
        tx.rows(sa.text(text.replace("{within}", WITHIN).replace("{known}", "occurred_at <= :as_of")), _named(given, text))
    )
    return {_day(row[0]): (int(row[1] or 0), None if row[2] is None else int(row[2])) for row in rows}


def _named(given: dict[str, Any], text: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if "{within}" in text or name == "as_of" or f":{name}" in text}


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


TYPES = """case when e % 100 < 60 then 'order.paid' when e % 100 < 64 then 'order.refunded'
  when e % 100 < 65 then 'dispute.opened'
  when e % 100 < 66 then 'complaint.filed' when e % 100 < 90 then 'content.read' when e % 100 < 97 then 'content.liked'
  else 'content.shared' end"""
WITHIN = "business_date >= :first and business_date < :last and occurred_at <= :as_of"
_SHOWN = "type not in ('message.sent', 'user.unfollowed', 'group.left', 'order.refunded') and source = 'bench'"
_BUYERS = "count(distinct case when type = 'order.paid' then user_id end)"
_DAYS = "select distinct user_id, business_date as day from events where type = 'order.paid' and {known}"
_CHURN = f"""
with days as ({_DAYS}),
spans as (select user_id, day as bought, lead(day) over (partition by user_id order by day) as following from days),
gone as (select {{bought+90}} as day, count(*) as number from spans where following is null or following > {{bought+90}}
  group by 1),
changes as (select {{bought+1}} as day, 1 as change from spans
  union all select case when following < {{bought+90}} then following else {{bought+90}} end, -1 from spans),
shifted as (select case when change = 1 then day else {{day+1}} end as day, change from changes),
counted as (select day, sum(change) as change from shifted group by day),
buyers as (select day, sum(change) over (order by day) as number from counted)
select buyers.day, gone.number, buyers.number from buyers left join gone on gone.day = buyers.day
where buyers.day >= :first and buyers.day < :last"""
SERIES = {
    "revenue": """select business_date, sum(case when type = 'order.refunded' then -amount_minor else amount_minor end), null
    from events where type in ('order.paid', 'order.refunded') and currency = 'CNY' and {within} group by 1""",
    "active_users": f"select business_date, count(distinct user_id), null from events where {_SHOWN} and {{within}} group by 1",
    "conversion_rate": f"""select business_date, {_BUYERS}, count(distinct user_id) from events where {_SHOWN} and {{within}}
    group by 1""",
    "refund_user_rate": f"""select business_date, count(distinct case when type = 'order.refunded' then user_id end), {_BUYERS}
    from events where type in ('order.paid', 'order.refunded') and {{within}} group by 1""",
    "dispute_rate": """select business_date, sum(case when type = 'dispute.opened' then 1 else 0 end),
      sum(case when type = 'order.paid' then 1 else 0 end)
    from events where type in ('order.paid', 'dispute.opened') and {within} group by 1""",
    "complaints": """select business_date, count(*), null from events where type = 'complaint.filed' and {within} group by 1""",
    "content_interaction_rate": """select business_date, sum(case when type <> 'content.read' then 1 else 0 end),
      sum(case when type = 'content.read' then 1 else 0 end)
    from events where type in ('content.read', 'content.liked', 'content.shared', 'content.commented') and {within} group by 1""",
    "new_users": """select day, count(*), null from (select user_id, min(business_date) as day from events where {known}
    group by user_id) firsts where day >= :first and day < :last group by 1""",
    "repurchase_rate": f"""select day, sum(case when day > earliest then 1 else 0 end), count(*)
    from (select user_id, day, min(day) over (partition by user_id) as earliest from ({_DAYS}) days) bought
    where day >= :first and day < :last group by 1""",
    "churn_rate": _CHURN,
}
"""By indicator: day, numerator, denominator."""
