"""Files of events and users: what is read, what is kept, what is said about the rest."""

from __future__ import annotations

import asyncio
import csv
import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.channels.service import create_channel
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.errors import ScrmError, StartupError
from scrm.events.log import core_event_types
from scrm.events.models import events
from scrm.importer import ImportOptions, import_events, import_users
from scrm.importing.ledger import ImportState, Tally
from scrm.importing.run import ImportReport
from scrm.models import imports
from scrm.tags.models import tags, user_tags
from scrm.tags.service import create_tag
from scrm.users.models import identities, users

SAMPLE = Path(__file__).parent.parent / "data" / "CDNOW_sample.txt"
SETTINGS = Settings(currency="USD")
TYPES = {type.name: type for type in core_event_types}

CDNOW: dict[str, Any] = {
    "format": "fixed",
    "columns": "customer:1:5,date:12:8,cds:21:2,amount:24:7",
    "map": ("identity.externalId=customer", "occurredAt=date", "properties.cds:int=cds"),
    "set": ("type=order.paid", "source=cdnow", "identity.channel=shop"),
    "create_channel": "WEBSITE",
}


async def load(db: Database, path: Path, **options: Any) -> ImportReport:
    """Import events from a file."""
    return await import_events(db, SETTINGS, TYPES, ImportOptions(path=path, **options))


async def recorded(db: Database) -> list[Any]:
    """The events that came from files, oldest row first."""

    def query(tx: Tx) -> list[Any]:
        own = events.c
        rows = sa.select(events).where(own.source != "core").order_by(own.occurred_at, own.amount_minor, own.external_id)
        return list(tx.rows(rows))

    return await db.read(query)


async def count(db: Database, table: sa.Table) -> int:
    """How many rows a table has."""
    return int(await db.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(table))))


async def one(db: Database, statement: sa.Select[Any]) -> Any:
    """A statement's only row."""
    return await db.read(lambda tx: tx.execute(statement).one())


def figures(report: ImportReport) -> tuple[int, int, int, int]:
    """Read, accepted, duplicates, rejected."""
    tally = report.tally
    return tally.rows_read, tally.accepted, tally.duplicates, tally.rejected


async def channel(db: Database, *keys: str) -> None:
    """Channels that the rows speak of."""

    def create(tx: Tx) -> None:
        for key in keys:
            create_channel(tx, key=key, name=key, kind="WEBSITE", at=db.clock(), actor="test")

    await db.write(create)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a file and returns its path."""

    def written(name: str, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(line + end for line in lines).encode(encoding))
        return path

    return written


async def test_the_cdnow_sample_is_imported_whole_and_once(database: Database) -> None:
    first = await load(database, SAMPLE, **CDNOW)
    assert (first.state, figures(first), first.exit_code) == (ImportState.DONE, (6919, 6919, 0, 0), 0)
    rows = await recorded(database)
    assert len(rows) == 6919
    assert sum(row.amount_minor for row in rows) == 24_409_194
    assert {row.currency for row in rows} == {"USD"}
    assert len({row.user_id for row in rows}) == 2357
    assert await count(database, users) == 2357
    assert sum(row.properties["cds"] for row in rows) == 16_479
    assert {row.properties["orderId"] == row.external_id for row in rows} == {True}
    assert rows[0].business_date == date(1997, 1, 1)
    assert rows[0].occurred_at == datetime(1996, 12, 31, 16, tzinfo=UTC)
    assert (await one(database, sa.select(channels.c.key, channels.c.kind))) == ("shop", "WEBSITE")

    again = await load(database, SAMPLE, **CDNOW)
    assert (again.state, figures(again)) == (ImportState.DONE, (6919, 0, 6919, 0))
    assert await recorded(database) == rows
    assert await count(database, users) == 2357
    assert await count(database, imports) == 2
    known = await load(database, SAMPLE, **CDNOW, once=True)
    assert (known.id, figures(known), await count(database, imports)) == (again.id, (6919, 0, 6919, 0), 2)


async def test_equal_rows_are_kept_and_a_longer_export_adds_only_what_is_new(database: Database, write: Any) -> None:
    say = {"map": ("identity.externalId=who", "occurredAt=day"), "set": ("type=order.paid", "identity.channel=shop")}
    await channel(database, "shop")
    first = write("orders.csv", "who,day,amount", "ann,2026-01-02,5", "ann,2026-01-02,5", "bob,2026-01-02,5")
    assert figures(await load(database, first, **say)) == (3, 3, 0, 0)
    longer = write("orders.csv", "day;who;amount", "2026-01-02;ann;5", "2026-01-02;bob;5", "2026-01-02;ann;5", "2026-01-02;ann;5")
    assert figures(await load(database, longer, **say)) == (4, 1, 3, 0)
    other = write("shop-2.csv", "who,day,amount", "ann,2026-01-02,5")
    assert figures(await load(database, other, **say)) == (1, 1, 0, 0)
    renamed = write("orders-of-may.csv", "who,day,amount", "ann,2026-01-02,5")
    assert figures(await load(database, renamed, **say, name="orders.csv")) == (1, 0, 1, 0)
    keys = [row.external_id.split(":") for row in await recorded(database)]
    assert sorted(number for name, _, number in keys if name == "orders.csv") == ["1", "1", "2", "3"]


async def test_gzip_byte_order_mark_and_quotes(database: Database, write: Any) -> None:
    await channel(database, "shop")
    path = write(
        "orders.csv",
        "id,identity.externalId,occurredAt,amount,properties.note",
        '7,ann,2026/1/2,"1234.5","a, ""b""\nc"',
        end="\r\n",
    )
    zipped = path.with_name("orders.csv.gz")
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    options: dict[str, Any] = {"map": ("externalId=id",), "set": ("type=order.paid", "identity.channel=shop", "source=till")}
    report = await load(database, zipped, **options)
    assert figures(report) == (1, 1, 0, 0)
    [row] = await recorded(database)
    assert (row.source, row.external_id, row.amount_minor, row.business_date) == ("till", "7", 123450, date(2026, 1, 2))
    assert row.properties == {"note": 'a, "b"\nc', "orderId": "7"}
    assert figures(await load(database, path, **options)) == (1, 0, 1, 0)


async def test_ndjson_in_the_shape_of_the_api(database: Database, write: Any) -> None:
    await channel(database, "shop")
    event = {
        "type": "order.paid", "source": "till", "externalId": "1", "occurredAt": "2026-01-02T03:04:05+08:00",
        "identity": {"channel": "shop", "externalId": "ann"}, "amount": {"amountMinor": 1999, "currency": "USD"},
        "properties": {"orderId": "A1", "items": [{"sku": "x", "quantity": 2, "amount": 1999}], "gift": True, "weight": 1.5},
    }  # fmt: skip
    bare = {
        "type": "page.viewed",
        "occurredAt": "2026-01-03",
        "identity": {"channel": "shop", "externalId": "ann"},
        "amount": 0.29,
    }
    lines = [orjson.dumps(event).decode(), "", orjson.dumps(bare).decode(), "[1]", "{"]
    report = await load(database, write("log.ndjson", *lines))
    assert figures(report) == (4, 2, 0, 2)
    paid, viewed = await recorded(database)
    assert (paid.amount_minor, paid.currency, paid.external_id) == (1999, "USD", "1")
    assert paid.occurred_at == datetime(2026, 1, 1, 19, 4, 5, tzinfo=UTC)
    assert paid.properties == event["properties"]
    assert (viewed.amount_minor, viewed.source) == (29, "import")
    assert [(error.row, error.line, error.code) for error in report.errors] == [(3, 4, "MALFORMED_ROW"), (4, 5, "MALFORMED_ROW")]


async def test_every_bad_row_is_named_and_the_others_go_on(database: Database, write: Any, tmp_path: Path) -> None:
    await channel(database, "shop")
    path = write(
        "orders.csv",
        "customer,day,amount,channel_key",
        "ann,2026-01-02,10.00,shop",
        "bob,2026-13-02,10.00,shop",
        "cid,2026-01-02,10.005,shop",
        "null,2026-01-02,1,shop",
        "dan,2026-01-02,1,nowhere",
        "eve,,1,shop",
        "eve,2026-01-02,1",
        "fay,2026-01-02,1,shop",
    )
    said: dict[str, Any] = {
        "map": ("identity.externalId=customer", "identity.channel=channel_key", "occurredAt=day"),
        "set": ("type=order.paid", "properties.orderId={customer}/{day}"),
        "errors": tmp_path / "orders.errors.ndjson",
    }
    report = await load(database, path, **said)
    assert (figures(report), report.exit_code) == ((8, 2, 0, 6), 1)
    lines = [orjson.loads(line) for line in said["errors"].read_bytes().splitlines()]
    problems = [(line["#row"], line["#line"], *line["#errors"]) for line in lines]
    assert [(row, line, one["code"], one.get("field"), one.get("column")) for row, line, one in problems] == [
        (2, 3, "INVALID_TIME", "occurredAt", "day"),
        (3, 4, "INVALID_AMOUNT", "amount", "amount"),
        (4, 5, "INVALID_IDENTITY", "identity.externalId", "customer"),
        (5, 6, "UNKNOWN_CHANNEL", "identity.channel", "channel_key"),
        (6, 7, "MISSING_FIELD", "occurredAt", "day"),
        (7, 8, "MALFORMED_ROW", None, None),
    ]
    assert [row.properties["orderId"] for row in await recorded(database)] == ["fay/2026-01-02", "ann/2026-01-02"]
    state = await one(database, sa.select(imports.c.state, imports.c.rows_read, imports.c.rows_total, imports.c.rejected))
    assert state == ("DONE", 8, 8, 6)


async def test_an_import_that_was_stopped_goes_on_where_it_stopped(database: Database) -> None:
    options = ImportOptions(path=SAMPLE, batch=500, **CDNOW)

    def stop(tally: Tally) -> None:
        if tally.rows_read == 2000:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await import_events(database, SETTINGS, TYPES, options, stop)
    stopped = await one(database, sa.select(imports.c.state, imports.c.rows_read, imports.c.rows_total, imports.c.accepted))
    assert stopped == ("INTERRUPTED", 2000, 6919, 2000)
    report = await import_events(database, SETTINGS, TYPES, options)
    assert (report.resumed_after, figures(report)) == (2000, (6919, 6919, 0, 0))
    rows = await recorded(database)
    assert (len(rows), sum(row.amount_minor for row in rows)) == (6919, 24_409_194)
    assert await one(database, sa.select(imports.c.state, imports.c.rows_read)) == ("DONE", 6919)


async def test_refused_rows_are_in_the_file_once_though_the_import_was_cut_off(database: Database, tmp_path: Path) -> None:
    path, kept = tmp_path / "many.csv", tmp_path / "kept.ndjson"
    path.write_text("occurredAt\n" + "soon\n" * 30)
    given = ("type=page.viewed", "identity.externalId=ann", "identity.channel=shop")
    options = ImportOptions(path=path, batch=10, errors=kept, set=given, create_channel="WEBSITE")

    def stop(tally: Tally) -> None:
        if tally.rows_read == 20:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await import_events(database, SETTINGS, TYPES, options, stop)
    killed = imports.update().values(state="RUNNING", rows_read=10, rejected=10, finished_at=None)
    await database.write(lambda tx: tx.execute(killed).rowcount)
    report = await import_events(database, SETTINGS, TYPES, options)
    assert (report.resumed_after, figures(report)) == (10, (30, 0, 0, 30))
    assert [orjson.loads(line)["#row"] for line in kept.read_bytes().splitlines()] == list(range(1, 31))


async def test_an_import_that_was_killed_loses_and_doubles_nothing(database: Database) -> None:
    """A kill between a batch and its note: the row says RUNNING and less than there is."""
    options = ImportOptions(path=SAMPLE, batch=500, **CDNOW)

    def stop(tally: Tally) -> None:
        if tally.rows_read == 1500:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await import_events(database, SETTINGS, TYPES, options, stop)
    killed = imports.update().values(state="RUNNING", rows_read=1000, accepted=1000, finished_at=None)
    await database.write(lambda tx: tx.execute(killed).rowcount)
    report = await import_events(database, SETTINGS, TYPES, options)
    assert (report.resumed_after, figures(report)) == (1000, (6919, 6419, 500, 0))
    rows = await recorded(database)
    assert (len(rows), sum(row.amount_minor for row in rows)) == (6919, 24_409_194)
    restarted = await load(database, SAMPLE, **CDNOW, restart=True)
    assert figures(restarted) == (6919, 0, 6919, 0)


async def test_a_file_that_breaks_off_is_failed_and_says_so(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "broken.txt.gz"
    path.write_bytes(gzip.compress(SAMPLE.read_bytes())[:-2000])
    with pytest.raises(ScrmError) as raised:
        await load(database, path, **CDNOW)
    assert raised.value.code == "UNREADABLE_FILE"
    assert await count(database, imports) == 0


async def test_what_is_wrong_with_the_flags_is_said_at_once(database: Database, write: Any) -> None:
    path = write("orders.csv", "customer,day")
    with pytest.raises(StartupError) as raised:
        await load(
            database, path, map=("identity.externalId=custmer", "ammount=day", "properties.x:float=day"), set=("channel={dya}",)
        )
    known = "customer, day"
    assert (
        raised.value.problems[0]
        == f'there is no column "custmer" for identity.externalId; did you mean customer?; there are {known}'
    )
    assert raised.value.problems[1].startswith("the field ammount is unknown; did you mean amount?")
    assert raised.value.problems[2].startswith('the type "float" of properties.x is unknown')
    assert raised.value.problems[3:] == [
        "the value of channel names no column: dya",
        "no column gives type; say --map type=COLUMN or --set type=VALUE",
        "no column gives occurredAt; say --map occurredAt=COLUMN or --set occurredAt=VALUE",
    ]
    with pytest.raises(StartupError) as raised:
        await load(database, path.with_name("gone.txt"), format="fixed", columns="a:1,b:0:0")
    assert len(raised.value.problems) == 2
    with pytest.raises(StartupError, match="the channel kind"):
        await load(database, path, create_channel="WECHAT")
    with pytest.raises(StartupError, match=r"the format of orders\.txt is not plain"):
        await load(database, write("orders.txt", "x"))
    assert await count(database, imports) == 0


async def test_a_mapping_file_says_the_same_as_flags(database: Database, write: Any) -> None:
    mapping = write(
        "cdnow.toml",
        'format = "fixed"',
        f'columns = "{CDNOW["columns"]}"',
        "skip_lines = 6917",
        "minor = false",
        "[map]",
        'identity.externalId = "customer"',
        'occurredAt = "date"',
        "[set]",
        'type = "order.paid"',
        '"identity.channel" = "shop"',
    )
    report = await load(database, SAMPLE, mapping=mapping, set=("source=cdnow",), create_channel="WEBSITE")
    assert figures(report) == (2, 2, 0, 0)
    assert {row.source for row in await recorded(database)} == {"cdnow"}
    with pytest.raises(StartupError) as raised:
        await load(database, SAMPLE, mapping=write("bad.toml", 'formt = "csv"', "skip_lines = true"))
    assert [problem.split(" in ")[0] for problem in raised.value.problems] == ["formt", "skip_lines"]


async def test_amounts_are_exact_in_their_currency(database: Database, write: Any) -> None:
    await channel(database, "shop")
    path = write(
        "a.csv", "amount,currency", "0.29,", "1.10,USD", "1234567890123.45,CNY", "500,JPY", "1.005,KWD", "0.5,JPY", "1e3,USD"
    )
    given = ("type=page.viewed", "occurredAt=20260102", "identity.externalId=ann", "identity.channel=shop")
    report = await load(database, path, set=given)
    assert figures(report) == (7, 5, 0, 2)
    amounts = {(row.amount_minor, row.currency) for row in await recorded(database)}
    assert amounts == {(29, "USD"), (110, "USD"), (123456789012345, "CNY"), (500, "JPY"), (1005, "KWD")}
    minor = await load(database, write("b.csv", "amount", "29", "1.5"), set=given, minor=True)
    assert figures(minor) == (2, 1, 0, 1)


async def test_users_are_created_then_changed_then_left_alone(database: Database, write: Any) -> None:
    await channel(database, "wecom", "app")

    def tag(tx: Tx) -> None:
        create_tag(tx, key="vip", name="贵宾", kind="BASIC", at=database.clock(), actor="test", zone=SETTINGS.zone)

    await database.write(tag)
    names = "id,displayName,gender,birthday,city,unionId,tags,attributes.level:int"
    rows = ["a1,王芳,女,1990-05-06,上海,u1,vip,3", "a2,李伟,男,19881231,北京,,,", "null,x,,,,,,", "a3,赵敏,女,2999-01-01,,,,"]
    options: dict[str, Any] = {"map": ("identity.externalId=id",), "set": ("identity.channel=wecom",)}
    path = write("people.csv", names, *rows, encoding="gb18030")
    report = await import_users(database, SETTINGS, ImportOptions(path=path, encoding="gb18030", **options))
    assert figures(report) == (4, 2, 0, 2)
    assert [error.code for error in report.errors] == ["INVALID_IDENTITY", "INVALID_BIRTHDAY"]
    wang = await one(database, sa.select(users).where(users.c.display_name == "王芳"))
    assert (wang.gender, wang.birthday, wang.city, wang.attributes) == ("FEMALE", date(1990, 5, 6), "上海", {"level": 3})
    assert (await one(database, sa.select(user_tags.c.source, tags.c.key).join(tags))) == ("IMPORT", "vip")

    again = await import_users(database, SETTINGS, ImportOptions(path=path, encoding="gb18030", **options))
    assert figures(again) == (4, 0, 2, 2)
    moved = write("moved.csv", names, "a1,,,,杭州,,,", "b9,,,,,u1,,", "a2,李伟,,,,,,")
    report = await import_users(database, SETTINGS, ImportOptions(path=moved, **options))
    assert figures(report) == (3, 2, 1, 0)
    assert await count(database, users) == 2
    assert await count(database, identities) == 3
    now = await one(database, sa.select(users).where(users.c.id == wang.id))
    assert (now.display_name, now.city, now.attributes) == ("王芳", "杭州", {"level": 3})


async def test_an_export_of_the_table_can_be_imported(database: Database, tmp_path: Path) -> None:
    """A long CSV with several thousand rows keeps its line numbers across quoted line ends."""
    await channel(database, "shop")
    path = tmp_path / "long.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["type", "identity.channel", "identity.externalId", "occurredAt", "properties.text"])
        for n in range(2500):
            out.writerow(["survey.answered", "shop", f"c{n % 50}", "2026-01-02 10:00" if n != 2400 else "soon", "two\nlines"])
    report = await load(database, path)
    assert figures(report) == (2500, 2499, 0, 1)
    assert [(error.row, error.line) for error in report.errors] == [(2401, 4803)]
