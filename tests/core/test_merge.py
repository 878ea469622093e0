"""Merging two users and taking it back: sums stay, what came before goes back, what came after stays."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.errors import ScrmError
from scrm.events.models import events
from scrm.tags.models import tags, user_tags
from scrm.tags.service import create_tag, save_group
from scrm.tags.tagging import tag_users, untag_users
from scrm.users.merging import last_merge, merge, older_first, plan_merge, suggest_merge, unmerge
from scrm.users.models import identities, merge_suggestions, merges, users
from scrm.users.privacy import erase
from scrm.users.service import NewIdentity, find_user, find_users, link_identity, update_user, user_by_identity

Brand = Any


async def _join(brand: Brand, kept: uuid.UUID, absorbed: uuid.UUID) -> uuid.UUID:
    brand.at += timedelta(minutes=1)
    outcome = await brand.do(merge, kept, absorbed, reason="the same phone")
    brand.at += timedelta(minutes=1)
    merge_id: uuid.UUID = outcome.merge_id
    return merge_id


async def _part(brand: Brand, merge_id: uuid.UUID) -> Any:
    brand.at += timedelta(minutes=1)
    outcome = await brand.do(unmerge, merge_id)
    brand.at += timedelta(minutes=1)
    return outcome


async def _of(brand: Brand, user: uuid.UUID) -> tuple[list[str], list[str], list[str]]:
    """Somebody's identities, tags, and events from outside."""
    own = await brand.rows(
        sa.select(identities.c.external_id).where(identities.c.user_id == user).order_by(identities.c.external_id)
    )
    held = sa.select(tags.c.key).join(user_tags, user_tags.c.tag_id == tags.c.id).where(user_tags.c.user_id == user)
    has = await brand.rows(held.order_by(tags.c.key))
    did = sa.select(events.c.type).where(events.c.user_id == user, events.c.source == "test").order_by(events.c.external_id)
    return [row[0] for row in own], [row[0] for row in has], [row[0] for row in await brand.rows(did)]


async def _refused(code: str, path: tuple[str, ...], call: Any) -> ScrmError:
    with pytest.raises(ScrmError) as caught:
        await call
    assert (caught.value.code, caught.value.path) == (code, path)
    return caught.value


@pytest.fixture
async def tagged(brand: Brand) -> Brand:
    """With the tags `red`, `blue` (one of a colour), `big`, `small`."""
    await brand.do(save_group, key="colour", name="Colour", exclusive=True)
    for key, group in (("red", "colour"), ("blue", "colour"), ("big", None), ("small", None)):
        await brand.do(create_tag, key=key, name=key, group=group)
    return brand


async def test_everything_moves_and_comes_back(tagged: Brand) -> None:
    brand = tagged
    a = await brand.user("oa:a1", display_name="A", attributes={"x": 1})
    b = await brand.user("mini:b1", "oa:b2", display_name="B", phone="138", attributes={"x": 2, "y": 3})
    await brand.happen("page.viewed", a, "2026-01-05T12:00")
    await brand.happen("order.paid", b, "2026-01-02T12:00", amount=5)
    await brand.happen("order.refunded", b, "2026-01-07T12:00", amount=5)
    await brand.follow()
    await brand.do(tag_users, ["red"], [a])
    await brand.do(tag_users, ["blue", "big"], [b])
    merge_id = await _join(brand, a, b)
    assert await _of(brand, a) == (["a1", "b1", "b2"], ["big", "red"], ["page.viewed", "order.paid", "order.refunded"])
    assert await _of(brand, b) == ([], [], [])
    row = await brand.row(users, a)
    assert (row["display_name"], row["phone"], row["attributes"]) == ("A", "138", {"x": 1, "y": 3})
    assert row["first_seen_at"].isoformat() == "2026-01-02T04:00:00+00:00"
    assert await brand.read(find_user, b) == a
    assert await brand.changes("user.merged") == [("user.merged", a, {"kept": a.hex, "absorbed": b.hex})]
    assert (await brand.row(merges, merge_id))["event_id"] == merge_id

    await brand.happen("content.liked", a, "2026-01-08T12:00")
    await brand.do(link_identity, b, NewIdentity("oa", "c1"))
    await brand.do(tag_users, ["small"], [b])
    outcome = await _part(brand, merge_id)
    assert (outcome.kept, outcome.absorbed) == (a, b)
    assert await _of(brand, a) == (["a1", "c1"], ["red", "small"], ["page.viewed", "content.liked"])
    assert await _of(brand, b) == (["b1", "b2"], ["big", "blue"], ["order.paid", "order.refunded"])
    row = await brand.row(users, a)
    assert (row["display_name"], row["phone"], row["attributes"]) == ("A", None, {"x": 1})
    assert row["first_seen_at"].isoformat() == "2026-01-05T04:00:00+00:00"
    assert (await brand.row(users, b))["phone"] == "138"
    assert await brand.read(find_user, b) == b
    assert await brand.changes("user.unmerged") == [
        ("user.unmerged", a, {"kept": a.hex, "absorbed": b.hex, "merge": merge_id.hex})
    ]


async def test_a_dry_run_counts_what_a_merge_moves(tagged: Brand) -> None:
    brand = tagged
    a, b = await brand.user("oa:a1"), await brand.user("oa:b1", "mini:b2")
    await brand.do(tag_users, ["big", "red"], [b])
    await brand.happen("page.viewed", b)
    counters = {"points": lambda tx, user: 7 if user == b else 0}
    planned = await brand.read(plan_merge, a, b, counters)
    # 2 identities, 2 tags, and the events: created, tagged, page viewed.
    assert (planned.merge_id, planned.moved) == (None, {"core": 7, "points": 7})
    assert await _of(brand, b) == (["b1", "b2"], ["big", "red"], ["page.viewed"])
    done = await brand.do(merge, a, b, reason="", counters=counters)
    assert done.moved == planned.moved


async def test_sums_stay(tagged: Brand) -> None:
    brand = tagged
    a, b = await brand.user("oa:a1"), await brand.user("oa:b1", "mini:b2")
    for n in range(3):
        await brand.happen("order.paid", b, amount=n)
        await brand.happen("order.paid", a, amount=10)
    totals = sa.select(sa.func.count(), sa.func.sum(events.c.amount_minor)).where(events.c.source == "test")
    before = [await brand.rows(totals), await brand.rows(sa.select(sa.func.count()).select_from(identities))]
    merge_id = await _join(brand, a, b)
    mine = totals.where(events.c.user_id == a)
    assert await brand.rows(mine) == [(6, 33)]
    assert [await brand.rows(totals), await brand.rows(sa.select(sa.func.count()).select_from(identities))] == before
    await _part(brand, merge_id)
    assert await brand.rows(mine) == [(3, 30)]
    assert [await brand.rows(totals), await brand.rows(sa.select(sa.func.count()).select_from(identities))] == before


async def test_who_cannot_be_merged(brand: Brand) -> None:
    a, b, c, nobody = await brand.user(), await brand.user(), await brand.user(), uuid.uuid4()
    await _join(brand, a, b)
    await brand.do(erase, c)
    for call in (merge, plan_merge):
        said = {"reason": "x"} if call is merge else {}
        ask = brand.do if call is merge else brand.read
        await _refused("MERGE_WITH_ITSELF", ("absorbedId",), ask(call, a, a, **said))
        await _refused("USER_NOT_FOUND", ("absorbedId",), ask(call, a, nobody, **said))
        await _refused("USER_NOT_FOUND", ("keptId",), ask(call, nobody, a, **said))
        error = await _refused("USER_ALREADY_MERGED", ("absorbedId",), ask(call, a, b, **said))
        assert error.params == {"id": f"User_{b.hex}", "mergedInto": f"User_{a.hex}"}
        await _refused("USER_ERASED", ("keptId",), ask(call, c, a, **said))
    assert len(await brand.rows(sa.select(merges.c.id))) == 1


async def test_a_merge_is_undone_once(brand: Brand) -> None:
    a, b = await brand.user("oa:a1"), await brand.user("oa:b1")
    merge_id = await _join(brand, a, b)
    assert await brand.read(last_merge, b) == merge_id
    await _part(brand, merge_id)
    await _refused("MERGE_ALREADY_UNDONE", ("mergeId",), brand.do(unmerge, merge_id))
    await _refused("MERGE_NOT_FOUND", ("mergeId",), brand.do(unmerge, uuid.uuid4()))
    await _refused("MERGE_NOT_FOUND", ("absorbedId",), brand.read(last_merge, b))
    again = await _join(brand, a, b)
    assert again != merge_id
    await _part(brand, again)
    assert await _of(brand, b) == (["b1"], [], [])


@pytest.mark.parametrize("older_undone_first", [True, False])
async def test_nested_merges_come_apart_in_either_order(tagged: Brand, older_undone_first: bool) -> None:
    brand = tagged
    a, b, c = await brand.user("oa:a1"), await brand.user("oa:b1", phone="138", attributes={"k": 1}), await brand.user("oa:c1")
    await brand.do(tag_users, ["blue", "big"], [b])
    await brand.happen("page.viewed", b, "2026-01-02T12:00")
    first = await _join(brand, a, b)
    await brand.happen("content.read", a, "2026-01-03T12:00")
    second = await _join(brand, c, a)
    await brand.happen("content.liked", c, "2026-01-04T12:00")
    assert await brand.read(find_users, [a, b, c]) == {a: c, b: c, c: c}
    assert await _of(brand, c) == (["a1", "b1", "c1"], ["big", "blue"], ["page.viewed", "content.read", "content.liked"])
    assert (await brand.row(users, c))["phone"] == "138"
    if older_undone_first:
        assert (await _part(brand, first)).kept == c
        assert await _of(brand, b) == (["b1"], ["big", "blue"], ["page.viewed"])
        assert await _of(brand, c) == (["a1", "c1"], [], ["content.read", "content.liked"])
        assert [(await brand.row(users, user))["phone"] for user in (a, b, c)] == [None, "138", None]
        assert await brand.read(find_users, [a, b, c]) == {a: c, b: b, c: c}
        await _part(brand, second)
    else:
        assert (await _part(brand, second)).kept == c
        assert await _of(brand, a) == (["a1", "b1"], ["big", "blue"], ["page.viewed", "content.read"])
        assert [(await brand.row(users, user))["phone"] for user in (a, c)] == ["138", None]
        assert await brand.read(find_users, [a, b, c]) == {a: a, b: a, c: c}
        assert (await _part(brand, first)).kept == a
    assert await _of(brand, a) == (["a1"], [], ["content.read"])
    assert await _of(brand, b) == (["b1"], ["big", "blue"], ["page.viewed"])
    assert await _of(brand, c) == (["c1"], [], ["content.liked"])
    assert [(await brand.row(users, user))["phone"] for user in (a, b, c)] == [None, "138", None]
    assert [(await brand.row(users, user))["attributes"] for user in (a, b, c)] == [{}, {"k": 1}, {}]
    assert await brand.read(find_users, [a, b, c]) == {a: a, b: b, c: c}


async def test_what_was_changed_after_the_merge_is_not_taken_back(tagged: Brand) -> None:
    brand = tagged
    a, b = await brand.user(), await brand.user(phone="138", city="X", attributes={"k": 1})
    await brand.do(tag_users, ["big", "small"], [b])
    merge_id = await _join(brand, a, b)
    await brand.do(update_user, a, {"phone": "139", "attributes": {"k": 2}})
    await brand.do(untag_users, ["big", "small"], [a])
    brand.at += timedelta(minutes=1)
    await brand.do(tag_users, ["big"], [a])
    await _part(brand, merge_id)
    row = await brand.row(users, a)
    assert (row["phone"], row["city"], row["attributes"]) == ("139", None, {"k": 2})
    assert (await _of(brand, a))[1] == ["big"]
    assert (await _of(brand, b))[1] == ["big", "small"]


async def test_a_manual_tag_wins_over_a_rules_and_the_loser_comes_back(tagged: Brand) -> None:
    brand = tagged
    a, b = await brand.user(), await brand.user()
    await brand.do(tag_users, ["red", "big"], [a], source="PLUGIN", reason="mine")
    await brand.do(tag_users, ["blue", "big"], [b], reason="theirs")
    held = sa.select(tags.c.key, user_tags.c.source, user_tags.c.reason).join(tags, tags.c.id == user_tags.c.tag_id)
    merge_id = await _join(brand, a, b)
    mine = held.where(user_tags.c.user_id == a).order_by(tags.c.key)
    assert await brand.rows(mine) == [("big", "MANUAL", "theirs"), ("blue", "MANUAL", "theirs")]
    await _part(brand, merge_id)
    assert await brand.rows(mine) == [("big", "PLUGIN", "mine"), ("red", "PLUGIN", "mine")]
    theirs = held.where(user_tags.c.user_id == b).order_by(tags.c.key)
    assert await brand.rows(theirs) == [("big", "MANUAL", "theirs"), ("blue", "MANUAL", "theirs")]


async def test_the_older_user_is_kept_by_a_machine(brand: Brand) -> None:
    a = await brand.user()
    brand.at += timedelta(days=1)
    b, c = await brand.user(), await brand.user()
    assert await brand.read(older_first, b, a) == (a, b)
    await _join(brand, a, c)
    assert await brand.read(older_first, b, c) == (a, b)


async def test_a_suggestion_is_made_once_and_goes_with_the_merge(brand: Brand) -> None:
    a, b = await brand.user(), await brand.user()
    for pair in ((a, b), (b, a), (a, a)):
        await brand.db.write(suggest_merge, *pair, reason="unionId", at=brand.at)
    first, second = sorted((a, b))
    assert await brand.rows(sa.select(merge_suggestions.c.user_id, merge_suggestions.c.other_id)) == [(first, second)]
    await _join(brand, a, b)
    assert await brand.rows(sa.select(merge_suggestions.c.user_id)) == []


async def test_new_words_for_an_absorbed_user_reach_the_survivor(brand: Brand) -> None:
    a, b = await brand.user("oa:a1"), await brand.user("oa:b1")
    await _join(brand, a, b)
    assert await brand.do(update_user, b, {"city": "X"}) == a
    assert (await brand.row(users, a))["city"] == "X"
    assert await brand.read(user_by_identity, "oa", "b1") == a


async def test_what_a_later_survivor_had_itself_stays(brand: Brand) -> None:
    a, b, c = (
        await brand.user(),
        await brand.user(phone="138", attributes={"k": 1}),
        await brand.user(phone="138", attributes={"k": 1}),
    )
    first = await _join(brand, a, b)
    await _join(brand, c, a)
    await _part(brand, first)
    rows = [await brand.row(users, user) for user in (a, b, c)]
    assert [(row["phone"], row["attributes"]) for row in rows] == [(None, {}), ("138", {"k": 1}), ("138", {"k": 1})]


async def test_a_tag_that_gave_way_comes_back_through_a_later_merge(tagged: Brand) -> None:
    brand = tagged
    a, b, c = await brand.user(), await brand.user(), await brand.user()
    await brand.do(tag_users, ["red"], [a], source="PLUGIN")
    await brand.do(tag_users, ["blue"], [b])
    first = await _join(brand, a, b)
    second = await _join(brand, c, a)
    assert (await _of(brand, c))[1] == ["blue"]
    await _part(brand, first)
    assert [(await _of(brand, user))[1] for user in (b, c)] == [["blue"], ["red"]]
    await _part(brand, second)
    assert [(await _of(brand, user))[1] for user in (a, c)] == [["red"], []]
