"""Plugins whose fields fail: these are null and named, and whatever else was asked comes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scrm.testing.client import Client, drain, serving
from tests.bad_plugins.asking import counted, open_shop, otherwise, plugins, sell
from tests.bad_plugins.kit import GOOD, Kind, kinds, modules

FOUND = kinds("reads")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The server's."""
    return Clock()


@pytest.fixture
async def shop(migrated_url: str, clock: Clock) -> AsyncIterator[Client]:
    """A server with all of them, and two people with an order each."""
    async with serving(migrated_url, modules=modules(*FOUND), clock=clock, server={"timeout_seconds": 6}) as client:
        await open_shop(client)
        await sell(client, "ann:1", "ben:1")
        await drain(client)
        yield client


def nulls(value: Any, name: str = "") -> set[str]:
    """The names of the fields that are null, wherever they are."""
    if isinstance(value, dict):
        return {found for key, each in value.items() for found in nulls(each, key)}
    if isinstance(value, list):
        return {found for each in value for found in nulls(each, name)}
    return {name} if value is None else set()


def wrong(kind: Kind, answer: dict[str, Any]) -> list[object]:
    """What is otherwise than promised in an answer."""
    promised = {name.rpartition(".")[2] for name in kind.says["Fails"].split()} - {"nothing"}
    errors = answer.get("errors", [])
    told = {[step for step in error["path"] if isinstance(step, str)][-1] for error in errors}
    codes = {(error["extensions"]["code"], error["extensions"].get("plugin")) for error in errors}
    forgotten = {"batchForgets"} if "batchForgets" in kind.says["Asks"] else set()
    fine = (
        told == promised
        and nulls(answer["data"]) == promised | forgotten
        and codes <= {("PLUGIN_FIELD_FAILED", kind.name)}
        and "name" not in str(codes)
    )
    return [] if fine else [answer]


async def test_what_fails_is_null_and_the_rest_comes_out(shop: Client) -> None:
    assert otherwise([GOOD, *FOUND], await plugins(shop)) == {}
    answers = {kind.name: wrong(kind, await shop.graphql(kind.says["Asks"])) for kind in FOUND}
    assert {name: said for name, said in answers.items() if said} == {}
    listed = await shop.data("{ floodingThousand users(first: 1) { nodes { lengthyList { number } } } }")
    assert len(listed["floodingThousand"]) == 1000
    assert [one["number"] for one in listed["users"]["nodes"][0]["lengthyList"]] == list(range(1, 101))
    assert await counted(shop) == {"ann": 1, "ben": 1}


async def test_several_that_fail_at_once_are_told_apart(shop: Client) -> None:
    fields = "id missingNumber buildRaises batchRaises goodOrders goodWord"
    answer = await shop.graphql(
        f"{{ raisingNumber quittingNow users(first: 2) {{ totalCount nodes {{ {fields} }} }} viewer {{ name }} }}"
    )
    failed = {"raisingNumber", "quittingNow", "missingNumber", "buildRaises", "batchRaises"}
    assert nulls(answer["data"]) == failed
    said = {(error["path"][-1], error["extensions"]["plugin"]) for error in answer["errors"]}
    assert said == {
        ("raisingNumber", "raising"),
        ("quittingNow", "quitting"),
        ("missingNumber", "missing"),
        ("buildRaises", "misbuilding"),
        ("batchRaises", "misbatching"),
    }
    assert "a person's name" not in str(answer)
    assert [person["goodOrders"] for person in answer["data"]["users"]["nodes"]] == [1, 1]


async def called(shop: Client, person: str, name: str) -> str:
    """The id of somebody who is now called so."""
    found = await shop.data("{ users { nodes { id identities { externalId } } } }")
    [key] = [each["id"] for each in found["users"]["nodes"] if each["identities"][0]["externalId"] == person]
    renamed = "mutation($id: ID!, $name: String) { updateUser(input: {id: $id, displayName: $name}) { errors { code } } }"
    assert (await shop.data(renamed, id=key, name=name))["updateUser"]["errors"] == []
    return str(key)


async def test_what_never_ends_is_left_out_when_that_is_known(migrated_url: str) -> None:
    [kind] = kinds("slow")
    async with serving(migrated_url, modules=modules(kind), server={"timeout_seconds": 1}) as client:
        await open_shop(client)
        await sell(client, "ann:1", "ben:1")
        await drain(client)
        for query in (kind.says["Asks"], "{ ...All } fragment All on Query " + kind.says["Asks"]):
            answer = await client.graphql(query)
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["TIMEOUT"]
            async with asyncio.timeout(60):
                while "data" not in answer or wrong(kind, answer):
                    assert {error["extensions"]["code"] for error in answer["errors"]} <= {"TIMEOUT", "PLUGIN_FIELD_FAILED"}
                    answer = await client.graphql(query)
            assert [person["goodOrders"] for person in answer["data"]["users"]["nodes"]] == [1, 1]


ONE = "query($id: ID!) { user(id: $id) { id overflowingNumber overflowingOther goodOrders } }"


async def test_what_fails_on_one_persons_data_is_there_for_the_others(shop: Client) -> None:
    ann, ben = await called(shop, "ann", "Large"), await called(shop, "ben", "Small")
    for _ in range(2):
        answer = await shop.graphql(ONE, id=ann)
        assert answer["data"]["user"] == {"id": ann, "overflowingNumber": None, "overflowingOther": 2, "goodOrders": 1}
        assert [(each["path"], each["extensions"]["code"]) for each in answer["errors"]] == [
            (["user", "overflowingNumber"], "PLUGIN_FIELD_FAILED")
        ]
        found = await shop.data(ONE, id=ben)
        assert found["user"] == {"id": ben, "overflowingNumber": 1, "overflowingOther": 2, "goodOrders": 1}
    await called(shop, "ann", "Small")
    assert (await shop.data(ONE, id=ann))["user"]["overflowingNumber"] == 1


async def test_what_a_mutation_answers_with_is_looked_at_alike(shop: Client) -> None:
    ann = await called(shop, "ann", "Ann")
    renamed = """mutation($id: ID!) { updateUser(input: {id: $id, displayName: "Anna"}) {
        user { displayName missingFirst missingNumber missingLast } errors { code } } }"""
    answer = await shop.graphql(renamed, id=ann)
    assert answer["data"]["updateUser"]["user"] == {
        "displayName": "Anna",
        "missingFirst": 1,
        "missingNumber": None,
        "missingLast": 3,
    }
    assert [each["path"] for each in answer["errors"]] == [["updateUser", "user", "missingNumber"]]


async def test_the_culprit_is_looked_for_once_a_minute(shop: Client, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    asked = "{ users(first: 2) { nodes { missingFirst missingNumber } } }"
    searches = []
    with caplog.at_level(logging.ERROR, "scrm.graphql"):
        for seconds in (0, 30, 29, 2, 1):
            clock.now += timedelta(seconds=seconds)
            assert nulls((await shop.graphql(asked))["data"]) == {"missingNumber"}
            searches.append(sum("User.missingNumber" in record.getMessage() for record in caplog.records))
    assert searches == [1, 1, 1, 2, 2]
