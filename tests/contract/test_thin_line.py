"""From an event that is sent to an answer that shows it."""

from scrm.testing.client import serving


async def test_an_event_that_is_sent_is_in_the_answer(migrated_url: str) -> None:
    async with serving(migrated_url) as client:
        made = await client.data(
            """mutation { createChannel(input: {key: "oa", name: "公众号", kind: WECHAT_OA}) { channel { id key kind } errors {
            code message } } }"""
        )
        assert made["createChannel"]["errors"] == []
        answer = await client.events(
            [
                {
                    "type": "order.paid",
                    "identity": {"channel": "oa", "externalId": f"openid-{n}"},
                    "occurredAt": f"2026-01-0{n}T03:04:05.000006Z",
                    "amount": {"amountMinor": 1000 * n, "currency": "CNY"},
                    "properties": {"orderId": f"o{n}"},
                    "source": "shop",
                    "externalId": f"o{n}",
                }
                for n in (1, 2, 3)
            ]
        )
        assert answer["accepted"] == 3
        data = await client.data(
            """query Q($first: Int!, $city: String) {
              users(first: $first, filter: {not: [{city: {eq: $city}}]}, orderBy: [{createdAt: ASC}]) {
                totalCount pageInfo { hasNextPage hasPreviousPage endCursor }
                edges { cursor node { id city } }
                nodes { id displayName identities { channel { key } externalId }
                  acquisitionChannel { name kind userCount }
                  tags { tag { key } }
                  events(first: 2) { totalCount nodes {
                    type occurredAt amount { amountMinor currency formatted(locale: "en") } properties user { id } } } } } }""",
            first=2,
            city="上海",
        )
        users = data["users"]
        assert users["totalCount"] == 3
        assert users["pageInfo"]["hasNextPage"] is True
        assert [each["identities"] for each in users["nodes"]] == [
            [{"channel": {"key": "oa"}, "externalId": f"openid-{n}"}] for n in (1, 2)
        ]
        event = next(e for e in users["nodes"][0]["events"]["nodes"] if e["type"] == "order.paid")
        assert event["amount"] == {"amountMinor": 1000, "currency": "CNY", "formatted": "CN¥10.00"}
        assert event["occurredAt"] == "2026-01-01T03:04:05.000006Z"
        assert event["user"]["id"] == users["nodes"][0]["id"]
        again = await client.data(
            """query($c: String) { users(first: 2, after: $c, orderBy: [{createdAt: ASC}]) {
              nodes { identities { externalId } } pageInfo { hasNextPage hasPreviousPage } } }""",
            c=users["pageInfo"]["endCursor"],
        )
        assert again["users"] == {
            "nodes": [{"identities": [{"externalId": "openid-3"}]}],
            "pageInfo": {"hasNextPage": False, "hasPreviousPage": True},
        }
