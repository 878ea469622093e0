"""Scores, segments and layers as a front end sees them; after every test the log must give the same rows again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.plugins.layering import Brand, opened

NOW = "2026-06-30T12:00"


def buy(brand: Brand, user: str, recency: int, frequency: int, monetary: int) -> list[Any]:
    """Purchases that make these values as of `NOW`'s day."""
    days = [brand.now.replace(hour=10) - timedelta(days=recency + n) for n in range(frequency)]
    amounts = [monetary - frequency + 1] + [1] * (frequency - 1)
    return [brand.paid(user, f"{user}-{n}", amount, at) for n, (at, amount) in enumerate(zip(days, amounts, strict=True))]


BANDS = [  # days, purchases, money, the band, and the band where all three must agree
    (90, 1, 100, "ACTIVE", "ACTIVE"),
    (91, 1, 100, "LOST", "LOST"),
    (91, 9, 900_000, "LOST", "LOST"),
    (7, 5, 500_000, "HIGH_VALUE", "HIGH_VALUE"),
    (8, 5, 500_000, "POTENTIAL", "UNCLASSIFIED"),
    (7, 4, 500_000, "POTENTIAL", "UNCLASSIFIED"),
    (7, 5, 499_999, "POTENTIAL", "UNCLASSIFIED"),
    (6, 6, 500_001, "HIGH_VALUE", "HIGH_VALUE"),
    (30, 2, 100_000, "POTENTIAL", "POTENTIAL"),
    (8, 4, 499_999, "POTENTIAL", "POTENTIAL"),
    (31, 2, 100_000, "ACTIVE", "UNCLASSIFIED"),
    (30, 1, 100_000, "ACTIVE", "UNCLASSIFIED"),
    (30, 2, 99_999, "ACTIVE", "UNCLASSIFIED"),
    (31, 1, 99_999, "ACTIVE", "ACTIVE"),
    (0, 1, 900_000, "ACTIVE", "UNCLASSIFIED"),
]


async def test_the_lines_of_the_threshold_mode(migrated_url: str) -> None:
    async with opened(migrated_url, NOW, mode="threshold") as brand:
        users = await brand.members(len(BANDS))
        await brand.send(*(event for user, band in zip(users, BANDS, strict=True) for event in buy(brand, user, *band[:3])))
        await brand.compute()
        assert await brand.segments(users) == [band[3] for band in BANDS]
    async with opened(migrated_url, NOW, mode="threshold", strict=True) as brand:
        await brand.compute()
        assert await brand.segments(users) == [band[4] for band in BANDS]
        await brand.check()


async def test_few_buyers(migrated_url: str) -> None:
    async with opened(migrated_url, NOW) as brand:
        users = await brand.members(6)
        assert (await brand.run(), await brand.rfm(users[0]), await brand.layers(users[0])) == (None, None, None)
        assert (await brand.compute())["state"] == "INSUFFICIENT_DATA"
        await brand.send(*(brand.paid(user, "o", 100) for user in users[:4]))
        run = await brand.compute("2026-06-30T11:59:59")
        assert (run["state"], run["population"], run["grid"], run["transitions"]) == ("INSUFFICIENT_DATA", 0, [], [])
        run = await brand.compute("2026-06-30T12:00", windowDays=7)
        assert (run["state"], run["population"], run["standing"]) == ("INSUFFICIENT_DATA", 4, False)
        run = await brand.compute()  # the same instant as at first: what came since counts
        assert (run["state"], run["population"], run["segments"][0]["segment"]) == (
            "INSUFFICIENT_DATA",
            4,
            {"key": "INSUFFICIENT_DATA"},
        )
        none = {"frequency": 0, "monetary": {"amountMinor": 0}, "r": None, "f": None, "m": None, "score": None}
        assert await brand.rfm(users[5]) == {"recencyDays": None, **none, "segment": {"key": "PROSPECT"}}
        some = {"frequency": 1, "monetary": {"amountMinor": 100}, "r": None, "f": None, "m": None, "score": None}
        assert await brand.rfm(users[0]) == {"recencyDays": 0, **some, "segment": {"key": "INSUFFICIENT_DATA"}}
        assert (await brand.layers(users[0]))["value"] == "HIGH"  # layers compare whoever there is
        assert (await brand.compute(mode="THRESHOLD"))["state"] == "DONE"
        assert (await brand.segments(users))[0] == "INSUFFICIENT_DATA"
        await brand.pay(users[4], "o", 100)
        run = await brand.compute()
        assert (run["state"], run["population"]) == ("DONE", 5)
        assert await brand.scores(users) == ["511"] * 5 + [None]  # all are equal: no fifth is worse than another
        assert await brand.changes() == []
        await brand.check()


async def test_what_counts(migrated_url: str) -> None:
    async with opened(migrated_url, NOW) as brand:
        a, b, c, d, e, f = users = await brand.members(6)
        pay = brand.paid

        def refund(user: str, order: str, amount: int, at: str, **more: Any) -> Any:
            return brand.event("order.refunded", user, order, amount, at, **more)

        await brand.send(
            pay(a, "1", 1_000, "2026-06-29T23:59"),
            pay(a, "2", 1_000, "2026-06-29T23:59"),  # equal to the first but for its key: another purchase on the same day
            pay(a, "3", 0, "2026-06-28T12:00"),  # worth nothing, and a purchase
            pay(b, "1", 700, "2026-06-30T00:01"),
            refund(b, "1", 200, "2026-06-30T00:02"),
            refund(b, "9", 600, "2026-06-30T00:03"),  # of an order that is not known
            pay(c, "1", 500, "2026-06-30T11:00"),
            pay(c, "2", 500, "2026-06-30T11:00:00.000001"),  # later than the run
            pay(d, "1", 500, "2026-06-30T10:00", currency="USD"),
            refund(d, "1", 500, "2026-06-30T10:00", currency="USD"),
            pay(e, "1", None, "2026-06-30T10:00"),
            refund(f, "1", 100, "2026-06-30T10:00"),  # a refund alone is no purchase
        )
        run = await brand.compute("2026-06-30T11:00", mode="THRESHOLD")
        assert (run["population"], run["otherCurrencyEvents"], run["standing"], run["previous"]) == (4, 2, False, None)
        await brand.send(*(pay(user, "x", 1, "2026-01-01T00:00") for user in await brand.members(3)))
        run = await brand.compute("2026-06-30T11:00")
        fields = "rfm { recencyDays frequency monetary { amountMinor } otherCurrencyEvents }"
        values = [node["rfm"] for node in await brand.everybody(users, fields)]
        assert [(v["recencyDays"], v["frequency"], v["monetary"]["amountMinor"]) for v in values] == [
            (1, 2, 2_000),
            (0, 1, -100),
            (0, 1, 500),
            (None, 0, 0),
            (0, 1, 0),
            (None, 0, 0),
        ]
        assert [v["otherCurrencyEvents"] for v in values] == [0, 0, 0, 2, 0, 0]
        assert run["bounds"]["recency"][-1] == {"score": 5, "count": 3, "least": 0, "most": 0}
        assert run["bounds"]["monetary"][0] == {"score": 1, "count": 2, "least": -100, "most": 0}
        assert sum(bin["count"] for bin in run["bounds"]["frequency"]) == run["population"] == 7
        assert sum(cell["count"] for cell in run["grid"]) == 7
        assert len(run["grid"]) == 25
        assert sum(cell["revenue"]["amountMinor"] for cell in run["grid"]) == 2_403
        assert sum(each["revenue"]["amountMinor"] for each in run["segments"]) == 2_403
        assert abs(sum(each["share"] for each in run["segments"]) - 1) < 1e-9
        await brand.check()


async def test_orders_windows_and_bounds_of_ones_own(migrated_url: str) -> None:
    rules: dict[str, Any] = {"frequency": "orders", "window_days": 30, "recency_bounds": [0, 1, 2, 3]}
    rules |= {"frequency_bounds": [2, 3, 4, 5], "monetary_bounds": [10, 20, 30, 40]}
    async with opened(migrated_url, NOW, **rules) as brand:
        a, b, c = users = await brand.members(3)
        await brand.send(
            brand.paid(a, "1", 9, "2026-06-30T01:00"),
            brand.paid(a, "1", 10, "2026-06-30T02:00"),  # the rest of the same order
            brand.paid(a, "2", 1, "2026-06-30T03:00"),
            brand.paid(b, "1", 39, "2026-06-01T00:00"),  # the first day of the window
            brand.paid(c, "1", 40, "2026-05-31T23:59"),  # the day before
        )
        run = await brand.compute()
        assert (run["state"], run["population"]) == ("DONE", 2)  # bounds compare nobody with another
        assert await brand.scores(users) == ["523", "114", None]
        assert [node["rfm"]["frequency"] for node in await brand.everybody(users, "rfm { frequency }")] == [2, 1, 0]
        assert (await brand.segments(users))[2] == "PROSPECT"
        run = await brand.compute(windowDays=0)
        assert (run["population"], run["standing"]) == (3, False)
        await brand.send(brand.paid(b, "2", 1, "2026-06-28T00:00"), brand.paid(c, "2", 1, "2026-06-27T00:00"))
        await brand.compute("2026-06-30T12:00")
        assert await brand.scores(users) == ["523", "325", "211"]
        await brand.check()


async def test_layers(migrated_url: str) -> None:
    async with opened(migrated_url, NOW) as brand:
        users = await brand.members(12)
        amounts = (900, 800, 800, 700, 600, 500, 400, 400, 300, 100)
        four, three, one, late = users[0], users[1], users[10], users[11]
        await brand.send(
            *(brand.paid(users[n], "o", amount, "2026-05-31T12:00") for n, amount in enumerate(amounts)),  # the day before the 30
            *(brand.act(four, f"2026-06-0{day}T00:00", "message.received") for day in (1, 2, 3, 4)),
            *(brand.act(three, f"2026-06-{day}T00:00", "group.spoke") for day in (28, 29, 30)),
            brand.act(three, "2026-06-30T11:00"),
            brand.act(one, "2026-06-01T00:00"),
            brand.act(late, "2026-05-31T23:59"),
            brand.act(late, "2026-06-30T12:00:00.000001"),
            brand.event("page.viewed", late, None, None, "2026-06-30T10:00") | {"properties": {"page": "p"}},
        )
        await brand.compute()
        layers = [node["layers"] for node in await brand.everybody(users, "layers { value behavior health }")]
        assert [each["value"] for each in layers] == ["HIGH", "HIGH", "HIGH", *["MID"] * 2, *["LOW"] * 7]
        behaviors = ["ACTIVE", "POTENTIAL", *["SILENT"] * 8, "POTENTIAL", "SILENT"]
        assert [each["behavior"] for each in layers] == behaviors
        assert [each["health"] for each in layers[-3:]] == [0, 53, None]  # (80 + 0 + 80) / 3
        factors = (await brand.layers(three))["healthFactors"]
        third = 0.3333333333333333
        assert factors == [
            {"key": "INTERACTIONS", "value": 4, "percentile": 90, "weight": third},
            {"key": "SPENDING", "value": 0, "percentile": 0, "weight": third},
            {"key": "ACTIVE_DAYS", "value": 3, "percentile": 90, "weight": third},
        ]
        data = await brand.client.data("""{
          high: users(filter: {valueLayer: [HIGH]}) { totalCount }
          rest: users(filter: {valueLayer: [MID, LOW], behaviorLayer: [SILENT]}) { totalCount }
          prospects: users(filter: {rfmSegment: {eq: "PROSPECT"}}) { totalCount }
          best: users(filter: {rfmScore: {in: ["515", "514"]}}) { nodes { id } }
          five: users(filter: {rfmScore: {startsWith: "5"}}) { totalCount }
          none: users(filter: {rfmScore: {isNull: true}}) { totalCount } }""")
        counts = {name: found["totalCount"] for name, found in data.items() if name != "best"}
        assert counts == {"high": 3, "rest": 8, "prospects": 2, "five": 10, "none": 2}
        assert sorted(node["id"] for node in data["best"]["nodes"]) == sorted(users[:4])
        await brand.check()


EVERYTHING = """{ users(first: 50) { nodes { id
  rfm { recencyDays frequency monetary { amountMinor currency } r f m score segment { key } asOf computedAt stale user { id }
    previousSegment { key } history(first: 3) { score asOf segment { key } } }
  layers { value behavior health healthFactors { key value percentile weight } asOf computedAt stale } } } }"""


async def test_a_page_of_people_is_one_statement(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url, NOW) as brand:
        await brand.send(*(brand.paid(user, "o", n, "2026-06-28T12:00") for n, user in enumerate(await brand.members(6))))
        for at in ("2026-06-29T12:00", NOW):
            await brand.compute(at)
        sent: list[str] = []
        db = brand.client.services.db
        fetch = type(db).fetch

        async def counted(self: Any, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return await fetch(self, sql, parameters)

        monkeypatch.setattr(type(db), "fetch", counted)
        nodes = (await brand.client.data(EVERYTHING))["users"]["nodes"]
        assert sorted(node["rfm"]["score"] for node in nodes) == ["511", "511", "512", "513", "514", "515"]
        assert [len(node["rfm"]["history"]) for node in nodes] == [2] * 6
        assert len(sent) == 1


async def test_names_follow_the_language_and_permissions_hold(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        asked = "{ rfmSegments { key name description } }"
        for language, name in (("en", "Champions"), ("en-GB", "Champions"), ("zh-CN", "核心客户"), ("fr", "核心客户")):
            brand.client.http.headers["Accept-Language"] = language
            found = (await brand.client.data(asked))["rfmSegments"]
            assert (found[0]["key"], found[0]["name"]) == ("CHAMPIONS", name)
        assert [one["key"] for one in found[-4:]] == ["ACTIVE", "UNCLASSIFIED", "INSUFFICIENT_DATA", "PROSPECT"]
        user = await brand.member()
        reader = brand.client.with_key(await brand.client.key("users:read", name="r"))
        answer = await reader.graphql("query($id: ID!) { user(id: $id) { id rfm { score } layers { value } } }", id=user)
        assert answer["data"] == {"user": {"id": user, "rfm": None, "layers": None}}
        for document in ("{ rfmRuns { totalCount } }", asked, "{ rfmTransitions { count } }", "{ rfmRun { id } }",
                         '{ users(filter: {rfmScore: {eq: "x"}}) { totalCount } }'):  # fmt: skip
            answer = await reader.graphql(document)
            assert answer["errors"][0]["extensions"]["params"] == {"scope": "rfm:read"}
        seeing = brand.client.with_key(await brand.client.key("users:read", "rfm:read", name="s"))
        answer = await seeing.graphql("mutation { computeRfm(input: {waitSeconds: 0}) { run { id } } }")
        assert answer["errors"][0]["extensions"]["params"] == {"scope": "rfm:write"}
        assert (await brand.client.data("{ rfmRuns { totalCount } }"))["rfmRuns"] == {"totalCount": 0}
