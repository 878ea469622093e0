"""Counts a person's orders; nothing is wrong with it.

Outcome: it works, whatever the others do.
State: active
Check: no problems
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import sqlalchemy as sa
from starlette.responses import PlainTextResponse

from scrm.api import (
    Contribution,
    EventType,
    Handler,
    Id,
    Indicator,
    IndicatorUnit,
    Ratio,
    Route,
    Scope,
    User,
    Wiring,
    batch,
    expression,
    extend,
    hookimpl,
    plugin_metadata,
    rows,
    same_row,
    upsert,
)

tables = plugin_metadata()
counts = sa.Table(
    "good_counts", tables, sa.Column("user_id", Id, primary_key=True), sa.Column("orders", sa.Integer, nullable=False)
)


class GoodWiring(Wiring):
    greeting: str = "well"


def handle(tx, events, rules):
    people = Counter(event.user_id for event in events)
    known = {row.user_id: row.orders for row in tx.rows(sa.select(counts).where(counts.c.user_id.in_(people)))}
    for user_id, more in people.items():
        insert = upsert(tx, counts).values(user_id=user_id, orders=known.get(user_id, 0) + more)
        tx.execute(insert.on_conflict_do_update(index_elements=["user_id"], set_={"orders": insert.excluded.orders}))


def ordered(user):
    return sa.select(counts.c.orders).where(counts.c.user_id == user.c.id).scalar_subquery()


async def words(keys, info):
    return dict.fromkeys(keys, "well")


@rows(None, scope="good:read", public=True)
class GoodThing:
    "What it knows of a person."

    orders: int | None = expression("How many orders.", lambda row: row.c.orders)


@extend(User, scope="good:read")
class GoodUser:
    good_orders: int | None = expression("How many orders it has counted.", ordered)
    good_word: str | None = batch("A word from Python.", words, needs=["id"])
    good_thing: GoodThing | None = same_row("The same as an object.", lambda user: {"orders": ordered(user)})


async def greet(request, context):
    return PlainTextResponse(context.wiring.greeting)


@hookimpl
def contribute():
    return Contribution(
        name="good",
        version="1.0",
        tables=tables,
        migrations=Path(__file__).parent / "good_migrations",
        wiring=GoodWiring,
        types=[GoodThing],
        extends=[GoodUser],
        event_types=[EventType("good.greeted", "Somebody was greeted.")],
        handlers=[Handler(("order.paid",), handle)],
        scopes=[Scope("good:read", "See what is counted.")],
        indicators=[Indicator("good_number", "A number", IndicatorUnit.COUNT, "Always one.", number)],
        routes=[Route("/greet", ("GET",), greet, public=True)],
    )


def number(tx, periods, channel_id, as_of):
    return [Ratio(1) for _ in periods]


@hookimpl
def merge(tx, kept, absorbed):
    return 0


@hookimpl
def unmerge(tx, kept, absorbed):
    return 0


@hookimpl
def erase(tx, user):
    tx.execute(sa.delete(counts).where(counts.c.user_id == user))


@hookimpl
def export(tx, user):
    return {"orders": [{"orders": row.orders} for row in tx.rows(sa.select(counts).where(counts.c.user_id == user))]}
