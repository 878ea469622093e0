"""People with tags, identities, events and points, made by the database itself."""

from __future__ import annotations

import sqlalchemy as sa

from scrm.db import Tx


def fill(tx: Tx, users: int, events: int) -> str:
    """Put that many users and events into an empty PostgreSQL database; returns somebody's global id."""
    size = {"users": users, "events": events}
    for statement in STATEMENTS:
        tx.execute(sa.text(statement), {name: value for name, value in size.items() if f":{name}" in statement})
    return "User_" + str(tx.scalar(sa.text("select replace(id::text, '-', '') from users where display_name = '客户7'")))


STATEMENTS = (
    """insert into channels (id, key, name, kind, role, enabled, config, created_at)
    select gen_random_uuid(), 'channel-' || n, '渠道' || n, 'OTHER', 'MAIN', true, '{}', now() from generate_series(1, 6) n""",
    """insert into tags (id, key, name, kind, archived, created_at)
    select gen_random_uuid(), 'tag-' || n, '标签' || n, 'BASIC', false, now() from generate_series(1, 20) n""",
    """insert into users (id, display_name, gender, city, language, attributes, created_at, updated_at, last_seen_at)
    select gen_random_uuid(), '客户' || n, 'FEMALE',
      (array['上海', '北京', '广州', '深圳', '成都', '杭州', '武汉', '西安', '南京', '重庆'])[1 + n % 10],
      'zh-CN', '{"level": 3}', now() - n * interval '1 minute', now(), now()
    from generate_series(1, :users) n""",
    "create temp table numbered as select id, row_number() over () as n from users",
    """insert into identities (id, user_id, channel_id, external_id, linked_at)
    select gen_random_uuid(), u.id, c.id, 'x' || u.n || c.key, now()
    from numbered u join channels c on (u.n + right(c.key, 1)::int) % 3 = 0""",
    """insert into user_tags (user_id, tag_id, source, tagged_at) select u.id, t.id, 'MANUAL', now()
    from numbered u join tags t on (u.n * 7 + split_part(t.key, '-', 2)::int) % 5 = 0""",
    """insert into events (id, position, type, user_id, recorded_user_id, occurred_at, received_at, business_date, amount_minor,
      currency, properties, source, external_id, late, digest)
    select ('01900000-0000-7000-8000-' || lpad(to_hex(e), 12, '0'))::uuid, e, 'order.paid', u.id, u.id,
      now() - e * interval '1 minute', now(), current_date, e % 50000,
      'CNY', '{"orderId": "o"}', 'bench', e::text, false, ''
    from generate_series(1, :events) e join numbered u on u.n = 1 + e % (select count(*) from numbered)""",
    "update log_head set position = :events",
    "insert into loyalty_accounts (id, user_id, holder_id, debt) select gen_random_uuid(), id, id, 0 from users",
    """insert into loyalty_entries (id, account_id, kind, points, occurred_at, recorded_at, event_id)
    select gen_random_uuid(), a.id, 'EARN', n * 10, now() - n * interval '1 day', now(), gen_random_uuid()
    from loyalty_accounts a, generate_series(1, 3) n""",
    """insert into loyalty_lots
      (id, account_id, home_id, entry_id, original, remaining, earned_at, available_at, expires_at, expires_on)
    select gen_random_uuid(), account_id, account_id, id, points, points, occurred_at, occurred_at, now() + interval '1 year',
      current_date + 365 from loyalty_entries""",
    "drop table numbered",
    "analyze",
)
