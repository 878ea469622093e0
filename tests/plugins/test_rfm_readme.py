"""The plugin's README: its examples are computed, and its tables are what the code has."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import scrm_rfm
from scrm.testing.client import drain, serving
from tests.plugins.layering import Brand, opened
from tests.plugins.shop import ZONE

HOME = Path(scrm_rfm.__file__).parent
README = (HOME / "README.md").read_text(encoding="utf-8")
SAMPLE = Path(__file__).parents[1] / "data" / "CDNOW_sample.txt"


def section(heading: str) -> str:
    return README.split(f"## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables of a section, cell by cell."""
    found = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [
        row
        for place, row in enumerate(found)
        if set("".join(row)) != {"-"} and set("".join(found[(place + 1) % len(found)])) != {"-"}
    ]


def number(text: str) -> int:
    return int(text.replace(" ", "").replace(".", ""))


async def test_the_example_is_computed(migrated_url: str) -> None:
    lines = rows(section("An example"))
    assert len(lines) == 7
    async with opened(migrated_url, "2026-06-30T12:00") as brand:
        users = await brand.members(len(lines))
        happened = []
        for user, (days, purchases, money, *_) in zip(users, lines, strict=True):
            for n in range(int(purchases)):
                at = brand.now - timedelta(days=int(days) + n)
                happened.append(brand.paid(user, f"o{n}", number(money) if n == 0 else 0, at))
        await brand.send(*happened)
        await brand.compute()
        found = await brand.everybody(users, "rfm { score segment { key } } layers { value }")
        shown = [[each["rfm"]["score"], each["rfm"]["segment"]["key"], each["layers"]["value"]] for each in found]
        assert shown == [line[3:6] for line in lines]
        bands = [line[6] for line in lines]
        run = await brand.compute(mode="THRESHOLD")
        assert {each["segment"]["key"]: each["count"] for each in run["segments"]} == {
            band: bands.count(band) for band in ("HIGH_VALUE", "POTENTIAL", "ACTIVE", "LOST")
        }


async def import_sample(brand: Brand) -> None:
    """All purchases of the sample, at the beginning of their days."""
    await brand.client.data('mutation { createChannel(input: {key: "cdnow", name: "CDNOW", kind: WEBSITE}) { errors { code } } }')
    happened = []
    for n, line in enumerate(SAMPLE.read_text(encoding="ascii").splitlines()):
        _, who, day, _, amount = line.split()
        happened.append(
            {
                "type": "order.paid",
                "identity": {"channel": "cdnow", "externalId": who},
                "occurredAt": datetime.strptime(day, "%Y%m%d").replace(tzinfo=ZONE).isoformat(),
                "amount": {"amountMinor": number(amount), "currency": "USD"},
                "source": "cdnow",
                "externalId": str(n),
                "properties": {"orderId": str(n)},
            }
        )
    for start in range(0, len(happened), 1_000):
        assert (await brand.client.events(happened[start : start + 1_000]))["rejected"] == 0
    await drain(brand.client)


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)  # that both engines score alike is tried with fewer people
async def test_the_sample_of_cdnow(migrated_url: str) -> None:
    lines = [row for row in rows(section("CDNOW")) if row[0].isupper()]
    assert len(lines) == 11
    async with opened(migrated_url, "1998-07-01T12:00", serve={"currency": "USD"}) as brand:
        await import_sample(brand)
        run = await brand.compute("1998-06-30T23:59:59.999999")
        counted = {each["segment"]["key"]: (each["count"], each["revenue"]["amountMinor"]) for each in run["segments"]}
        assert counted == {key: (number(people), number(revenue)) for key, *_, people, revenue in lines}
        assert run["population"] == sum(people for people, _ in counted.values()) == 2_357
        assert sum(revenue for _, revenue in counted.values()) == 24_409_194
        assert {each["revenue"]["currency"] for each in run["segments"]} == {"USD"}
        assert [bin["score"] for bin in run["bounds"]["frequency"]] == [1, 3, 4, 5]


CODES = re.compile(r'(?:UserError|ScrmError|PydanticCustomError)\(\s*"([A-Z_]+)"|"(RFM_\w+)"')


def written() -> set[str]:
    """Every code that the plugin's code says."""
    return {
        next(filter(None, found.groups()))
        for path in HOME.glob("*.py")
        for found in CODES.finditer(path.read_text(encoding="utf-8"))
    }


def firsts(heading: str) -> set[str]:
    return {row[0] for row in rows(section(heading))}


CHECKS: list[tuple[str, Callable[[], set[str]], Callable[[], set[str]]]] = [
    ("codes", lambda: {name for name in firsts("Settings") | firsts("In GraphQL") if re.fullmatch("[A-Z]+_[A-Z_]+", name)},
     written),
    ("events", lambda: firsts("Events"), lambda: {kind.name for kind in scrm_rfm.contribute().event_types}),
    ("scopes", lambda: {name for name in firsts("In GraphQL") if ":" in name},
     lambda: {scope.name for scope in scrm_rfm.contribute().scopes}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "so"), [check[1:] for check in CHECKS], ids=[check[0] for check in CHECKS])
def test_the_tables_are_what_the_code_has(said: Callable[[], set[str]], so: Callable[[], set[str]]) -> None:
    assert said() == so()


async def test_the_fields_it_names_are_there(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path / 'scrm.db'}", modules={"rfm": scrm_rfm}) as client:
        data: Any = await client.data("""{ rfm: __type(name: "RfmScore") { fields { name } }
          layers: __type(name: "UserLayers") { fields { name } } plugins { name fields } }""")
        said = section("In GraphQL").split("| scope")[0]
        for name in ("rfm", "layers"):
            listed = re.findall(rf"`User.{name}` \((.*?)\)", said, re.DOTALL)[0]
            assert re.split(r",\s+", listed) == [each["name"] for each in data[name]["fields"]]
        [rfm] = [plugin for plugin in data["plugins"] if plugin["name"] == "rfm"]
        for name in rfm["fields"]:
            assert name.partition(".")[2] in said, name
        query = re.findall(r"```graphql\n(.*?)```", said, re.DOTALL)[0]
        assert await client.data(query) == {"rfmRun": None}
