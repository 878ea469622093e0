"""Tries to write core tables and another plugin's, in every way there is.

Outcome: every way is refused; the tables stay as they are.
State: active
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, Handler, hookimpl, users

other = sa.table("good_counts", sa.column("user_id"), sa.column("orders"))
HIDDEN = {
    "postgresql": (
        r"with x as (select 1) /* /* */ ' */ update users set display_name = 'OWNED' where 'a' <> ''",
        "with x as (select 1) -- '\r update users set display_name = 'OWNED' where 'a' <> ''",
        r"with x as (select E'a'" + "\n" + r"'\'') update users set display_name = 'OWNED' where 'a' <> ''",
        r'with x as (select 1) update U&"\0075sers" set display_name = null',
    ),
    "sqlite": (
        r"with x as (select e'\' from (select 1 as e)) update users set display_name = 'OWNED' where 'a' <> ''",
        "with x as (select 1 as [ ' ]) update users set display_name = 'OWNED' where 'a' <> ''",
        "with x as (select 1) /* /* */ update users set display_name = 'OWNED' -- */",
        "with x as (select 1) \ufeffupdate users set display_name = 'OWNED'",
    ),
}
gone = sa.delete(users).returning(users.c.id).cte("gone")


def handle(tx, events, rules):
    ways = [
        lambda: tx.execute(sa.delete(users)),
        lambda: tx.execute(sa.text("delete from users")),
        lambda: tx.execute(sa.text("with gone as (delete from only public.users returning 1) select 1")),
        lambda: tx.execute(sa.select(gone)),
        lambda: tx.execute(sa.update(other).values(orders=0)),
        lambda: tx.execute(sa.text('UPDATE "good_counts" SET orders = 0')),
        lambda: tx.execute(sa.insert(other).from_select(["user_id", "orders"], sa.select(users.c.id, sa.literal(0)))),
        lambda: tx.execute(sa.text("drop table users")),
        lambda: tx.execute(sa.schema.DropTable(sa.Table("users", sa.MetaData()))),
        lambda: tx.execute(sa.text("create table trespassing_mine (id integer)")),
    ]
    ways += [lambda text=text: tx.execute(sa.text(text)) for text in HIDDEN[tx.dialect]]
    for number, way in enumerate(ways):
        try:
            way()
        except PermissionError:
            continue
        raise AssertionError(f"way {number} was open")


@hookimpl
def contribute():
    return Contribution(name="trespassing", version="1.0", handlers=[Handler(("order.paid",), handle)])
