"""People and what they did over two years, some much and most little, made by the database itself; on both engines."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from scrm.db import Tx

UNTIL = datetime(2026, 6, 30, 15, 59, 59, 999999, tzinfo=UTC)
"""The end of the last business day on which something may happen."""
LAST_DAY = "2026-06-30"
ORDERS = "'order.paid'"
"""The type of every event, as SQL on its number `e`."""


def fill(tx: Tx, users: int, events: int, type_: str = ORDERS) -> None:
    """Put so many people and events into an empty database."""
    size = {"users": users, "events": events}
    statements = POSTGRESQL if tx.dialect == "postgresql" else SQLITE
    dropped = _without_indexes(tx) if tx.dialect == "postgresql" else []
    for statement in statements:
        said = {name: value for name, value in size.items() if f":{name}" in statement}
        tx.execute(sa.text(statement.replace("{type}", type_)), said)
    for index in dropped:
        tx.execute(sa.text(index))


def _without_indexes(tx: Tx) -> list[str]:
    """Take the indexes of the log away, which are made quicker of all rows at once; returns what makes them again."""
    found = tx.rows(sa.text("select indexname, indexdef from pg_indexes where tablename = 'events' and indexname like 'ix%'"))
    tx.execute(sa.text("set local maintenance_work_mem = '256MB'"))
    for row in found:
        tx.execute(sa.text(f'drop index "{row.indexname}"'))
    return [row.indexdef for row in found]


COLUMNS = """insert into events (id, position, type, user_id, recorded_user_id, occurred_at, received_at, business_date,
  amount_minor, currency, properties, source, external_id, late, digest) """
POSTGRESQL = (
    """insert into users (id, attributes, created_at, updated_at)
    select ('01900000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, '{}', now(), now()
    from generate_series(0, cast(:users as bigint) - 1) n""",
    f"""{COLUMNS}
    select ('01900000-0000-7000-8000-' || lpad(to_hex(e), 12, '0'))::uuid, e + 1000, {{type}}, whose, whose, at, now(),
      (at at time zone 'Asia/Shanghai')::date, 100 + (e * 7919) % 100000, 'CNY',
      json_build_object('orderId', 'o' || e, 'store', 'x'), 'bench', e::text, false, ''
    from (select e, ('01900000-0000-7000-9000-' || lpad(to_hex((cast(:users as bigint)
        * power(((e * 7907::bigint) % 1000003) / 1000003::float, 2))::bigint % cast(:users as bigint)), 12, '0'))::uuid as whose,
      timestamptz '2026-06-30 12:00+08' - ((e * 104729::bigint) % 1051200) * interval '1 minute' as at
      from generate_series(1, cast(:events as bigint)) e) made""",
    "update log_head set position = :events + 1000",
)
SQLITE = (
    """insert into users (id, attributes, created_at, updated_at)
    with recursive n(n) as (select 0 union all select n + 1 from n where n + 1 < :users)
    select printf('0190000000007000a000%012x', n), '{}', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z' from n""",
    f"""{COLUMNS}
    with recursive e(e) as (select 1 union all select e + 1 from e where e < :events),
    made as materialized (select e, printf('0190000000007000a000%012x',
      cast(:users * ((e * 7907) % 1000003 / 1000003.0) * ((e * 7907) % 1000003 / 1000003.0) as integer) % :users) as whose,
      (e * 104729) % 1051200 as ago from e)
    select printf('01900000000070008000%012x', e), e + 1000, {{type}}, whose, whose,
      strftime('%Y-%m-%dT%H:%M:00.000000Z', '2026-06-30 04:00', (-ago) || ' minutes'), '2026-07-01T00:00:00.000000Z',
      date('2026-06-30 12:00', (-ago) || ' minutes'), 100 + (e * 7919) % 100000, 'CNY',
      '{{"orderId":"o' || e || '","store":"x"}}', 'bench', cast(e as text), 0, '' from made""",
    "analyze",
)
