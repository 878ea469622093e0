"""A users page with what four plugins say of 50 people, over HTTP: scrm, and its statement behind a bare route, interleaved."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from bench.data import fill
from bench.load import wires
from bench.queries import Read
from bench.reads import CONNECTIONS, Bench, each_way, served, show
from bench.served import settings_for
from scrm.auth import create_key, signing_secret
from scrm.db import Database, Tx
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

PLUGINS = ("loyalty", "tiers", "rfm", "risk")
PEOPLE = """query($n: Int!) {{ users(first: $n) {{ nodes {{ id displayName points {{ balance }}
  membership {{ tier {{ key level }} since growth }}
  rfm {{ r f m score segment {{ key {more} }} monetary {{ amountMinor currency }} asOf stale }}
  layers {{ value behavior health }}
  riskAlerts(first: 3) {{ nodes {{ id state severity value dueAt {alert}}} }} }} }} }}"""
PAGE = Read("PAGE", PEOPLE.format(more="", alert=""), {"n": 50})
EXPLAINED = Read("PAGE and its batch fields", PEOPLE.format(more="name", alert="explanation rule { name } "), {"n": 50})
"""Three fields that Python computes: the name of a segment, the words of an alert, the name of its rule."""


def run(users: int, events: int, seconds: float, rounds: int) -> None:
    """Print the figures."""
    with postgres_server(on_disk=True) as server, server.database() as url:
        key = asyncio.run(prepare(url, users, events))
        with served(url, PLUGINS) as (port, process):
            asyncio.run(compare(Bench(port, process, key), seconds, rounds))


async def compare(bench: Bench, seconds: float, rounds: int) -> None:
    """The page in both ways, how many statements it takes, and what batch fields add."""
    async with wires(bench.port, CONNECTIONS) as opened:
        show("page", await each_way(bench, opened, PAGE, ("floor", "scrm"), seconds, rounds))
        for read in (PAGE, EXPLAINED):
            before = bench.watch("count", True)
            await bench.answer(opened[0], bench.request("scrm", read))
            print(f"page: {read.name}: {bench.watch('count', False).sent - before.sent} SQL statement(s) for 50 people")
        show("page with three batch fields", await each_way(bench, opened, EXPLAINED, ("scrm",), seconds, rounds))


async def prepare(url: str, users: int, events: int) -> str:
    """A filled database; a key for it."""
    settings = settings_for(url, PLUGINS)
    await provision(settings, load_plugins(settings))
    db = Database(url)
    try:
        await db.write(fill, users, events)
        await db.write(fill_plugins)
        return await db.write(create_key, signing_secret(settings), "bench", ["*"], at=db.clock(), actor="bench")
    finally:
        await db.close()


def fill_plugins(tx: Tx) -> None:
    """Everybody has a level, scores, and four alerts."""
    for statement in STATEMENTS:
        tx.execute(sa.text(statement))


_RUN = "'00000000-0000-0000-0000-000000000001'::uuid"
STATEMENTS = (
    """insert into tiers_accounts (id, user_id, holder_id, tier, since, failures, changes, seen_on, reviewed_on)
    select id, id, id, (array['silver', 'gold'])[1 + row_number() over () % 2], now(), 0, 1, current_date, current_date
    from users""",
    """insert into tiers_days (account_id, counted_on, known_on, spend, orders, points_earned, growth)
    select id, current_date - 7 * n, current_date - 7 * n, 100, 1, 1, 1 from tiers_accounts, generate_series(1, 10) n""",
    """insert into rfm_segments (key, place, name, names, description, descriptions)
    select 'CHAMPIONS', 1, '重要价值客户', '{"en": "Champions"}', '', '{}' on conflict do nothing""",
    f"""insert into rfm_runs (id, as_of, day, digest, standing, mode, every, currency, settings, state, wanted_id, made_by_id,
      position, computed_at, population, other_currency_events, bounds, weight_interactions, weight_spending,
      weight_active_days, kept)
    select {_RUN}, now(), current_date, '', true, 'QUINTILE', 'DAY', 'CNY', '{{}}', 'DONE', {_RUN}, {_RUN}, 1, now(), 1, 0,
      '{{}}', 1, 1, 1, true""",
    f"insert into rfm_current (one, run_id) select 1, {_RUN}",
    f"""insert into rfm_people (run_id, holder_id, user_id, recency_days, frequency, monetary, r, f, m, segment, value_layer,
      behavior_layer, health, interactions, spending, active_days, interactions_rank, spending_rank, active_days_rank,
      other_currency_events)
    select {_RUN}, id, id, 3, 4, 50000, 5, 4, 4, 'CHAMPIONS', 'HIGH', 'ACTIVE', 80, 3, 50000, 6, 80, 70, 90, 0 from users""",
    """insert into risk_rules (id, key, name, names, indicator, condition, severity, for_periods, period, per, enabled, saved,
      removed, said)
    select gen_random_uuid(), 'rule-' || n, '规则', '{"en": "Rule"}', 'refunds', '{}', 'GENERAL', 1, 'DAY', 'user', true, false,
      false, '{}' from generate_series(1, 4) n""",
    """insert into risk_alerts (id, rule_id, rule_key, scope_key, scope, user_id, state, severity, value, threshold, reason,
      started_at, fired_at, due_at, escalations, phase, points, changes)
    select gen_random_uuid(), r.id, r.key, 'user:' || u.id, '{}', u.id, 'FIRING', 'GENERAL', 7, 5,
      '{"indicator": "refunds", "name": "Refunds", "unit": "COUNT", "period": "DAY", "currency": "CNY", "days": 7,'
        || ' "start": "2026-06-01", "streak": 1, "said": [{"kind": "threshold", "value": "7", "limit": "5"}]}',
      now(), now(), now() + random() * interval '8 hours', 0, 'DETECT', 10, 1
    from users u, risk_rules r""",
    "analyze",
)
