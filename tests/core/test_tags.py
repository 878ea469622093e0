"""Tags: their keys and groups, who has them, and the rules by which they come and go."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from scrm.errors import ScrmError
from scrm.events.models import event_types
from scrm.tags.handlers import Held, RuleTag, fold, recompute_tag
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.tags.rules import parse_rule
from scrm.tags.service import create_tag, delete_tag, save_group, update_tag
from scrm.tags.tagging import Tagged, UserTag, sweep_expired, tag_users, untag_users
from scrm.users.merging import merge
from scrm.users.models import users
from scrm.users.privacy import erase

Brand = Any
ZONE = ZoneInfo("Asia/Shanghai")
VIEWS = {"eventType": "page.viewed", "sameProperty": "category", "count": 3, "withinDays": 7}


async def _held(brand: Brand, user: uuid.UUID) -> list[tuple[str, str]]:
    own = sa.select(tags.c.key, user_tags.c.source).join(tags, tags.c.id == user_tags.c.tag_id)
    found: list[tuple[str, str]] = await brand.rows(own.where(user_tags.c.user_id == user).order_by(tags.c.key))
    return found


async def _refused(brand: Brand, code: str, path: tuple[str, ...], function: Any, *args: Any, **kwargs: Any) -> ScrmError:
    tables = (tags, tag_groups, user_tags)
    before = [await brand.rows(sa.select(table)) for table in tables]
    with pytest.raises(ScrmError) as caught:
        await brand.do(function, *args, **kwargs)
    assert (caught.value.code, caught.value.path) == (code, path)
    assert [await brand.rows(sa.select(table)) for table in tables] == before
    return caught.value


async def _tag(brand: Brand, key: str, **said: Any) -> uuid.UUID:
    made: uuid.UUID = await brand.do(create_tag, key=key, name=key, **said)
    return made


async def _delete(brand: Brand, tag: uuid.UUID) -> None:
    await brand.db.write(delete_tag, tag, at=brand.at, actor="test")


# ---- tags and groups


async def test_a_tag_is_kept_as_said_and_changed_by_name(brand: Brand) -> None:
    group = await brand.do(save_group, key="value", name="价值")
    tag = await _tag(brand, "高价值", kind="INTENT", group="value")
    row = await brand.row(tags, tag)
    assert (row["key"], row["name"], row["kind"], row["group_id"], row["rule"], row["archived"]) == (
        "高价值",
        "高价值",
        "INTENT",
        group,
        None,
        False,
    )
    await brand.do(update_tag, tag, {"name": " High ", "group": None})
    row = await brand.row(tags, tag)
    assert (row["name"], row["group_id"], row["kind"]) == ("High", None, "INTENT")


async def test_what_a_tag_cannot_be(brand: Brand) -> None:
    tag = await _tag(brand, "vip")
    await _refused(brand, "TAG_KEY_TAKEN", ("key",), create_tag, key="vip", name="x")
    await _refused(brand, "INVALID_KEY", ("key",), create_tag, key="a b", name="x")
    await _refused(brand, "INVALID_KEY", ("key",), create_tag, key="", name="x")
    await _refused(brand, "INVALID_TEXT", ("name",), create_tag, key="a", name=" ")
    await _refused(brand, "INVALID_TAG_KIND", ("kind",), create_tag, key="a", name="x", kind="GOOD")
    await _refused(brand, "UNKNOWN_TAG_GROUP", ("group",), update_tag, tag, {"group": "none"})
    await _refused(brand, "TAG_NOT_FOUND", ("id",), update_tag, uuid.uuid4(), {"name": "x"})


async def test_a_tag_in_use_is_archived_not_deleted(brand: Brand) -> None:
    tag, user = await _tag(brand, "vip"), await brand.user()
    await brand.do(tag_users, ["vip"], [user])
    with pytest.raises(ScrmError, match='1 users have the tag "vip"; archive it instead') as caught:
        await _delete(brand, tag)
    assert caught.value.code == "TAG_IN_USE"
    await brand.do(update_tag, tag, {"archived": True})
    await _refused(brand, "TAG_ARCHIVED", ("tags",), tag_users, ["vip"], [user])
    assert await _held(brand, user) == [("vip", "MANUAL")]
    with pytest.raises(ScrmError, match="take it from them first"):
        await _delete(brand, tag)
    await brand.do(untag_users, ["vip"], [user])
    await _delete(brand, tag)
    assert await brand.rows(sa.select(tags.c.id)) == []


async def test_an_expired_tag_is_not_in_use(brand: Brand) -> None:
    tag, user = await _tag(brand, "vip"), await brand.user()
    await brand.do(tag_users, ["vip"], [user], expires_at=brand.at + timedelta(hours=1))
    brand.at += timedelta(hours=1)
    await _delete(brand, tag)
    assert await brand.rows(sa.select(user_tags.c.user_id)) == []


async def test_a_group_that_becomes_exclusive_leaves_each_user_one_tag(brand: Brand) -> None:
    await brand.do(save_group, key="g", name="G")
    for key in ("a", "b", "c"):
        await _tag(brand, key, group="g")
    one, two = await brand.user(), await brand.user()
    await brand.do(tag_users, ["a"], [one, two])
    brand.at += timedelta(hours=1)
    await brand.do(tag_users, ["b"], [one, two], source="PLUGIN")
    brand.at += timedelta(hours=1)
    await brand.do(tag_users, ["c"], [two])
    await brand.do(save_group, key="g", name="G", exclusive=True)
    assert (await _held(brand, one), await _held(brand, two)) == ([("a", "MANUAL")], [("c", "MANUAL")])
    lost = {user: properties["tags"] for _, user, properties in await brand.changes("user.untagged")}
    assert lost == {one: ["b"], two: ["a", "b"]}
    await brand.do(save_group, key="g", name="Renamed")
    assert await brand.rows(sa.select(tag_groups.c.name, tag_groups.c.exclusive)) == [("Renamed", True)]


# ---- giving and taking


async def test_tagging_tells_each_user_once(brand: Brand) -> None:
    await _tag(brand, "a"), await _tag(brand, "b")
    one, two, nobody = await brand.user(), await brand.user(), uuid.uuid4()
    assert await brand.do(tag_users, ["b", "a"], [one, two, one, nobody], reason=" why ") == Tagged(2, 2, (nobody,))
    assert await brand.do(tag_users, ["a"], [one, two]) == Tagged(2, 0)
    said = {user: properties for _, user, properties in await brand.changes("user.tagged")}
    assert said == {user: {"tags": ["a", "b"], "source": "MANUAL"} for user in (one, two)}
    rows = await brand.rows(sa.select(user_tags.c.actor, user_tags.c.reason, user_tags.c.expires_at).distinct())
    assert rows == [("test", "why", None)]
    assert await brand.do(untag_users, ["a"], [one]) == Tagged(1, 1)
    assert await brand.do(untag_users, ["a"], [one]) == Tagged(1, 0)
    assert [(user, properties["tags"]) for _, user, properties in await brand.changes("user.untagged")] == [(one, ["a"])]


async def test_strict_tagging_changes_nobody_for_one_unknown_user(brand: Brand) -> None:
    await _tag(brand, "a")
    user = await brand.user()
    await _refused(brand, "USER_NOT_FOUND", ("userIds",), tag_users, ["a"], [user, uuid.uuid4()], strict=True)
    await _refused(brand, "TAG_NOT_FOUND", ("tags",), tag_users, ["a", "none"], [user])
    await _refused(brand, "INVALID_EXPIRY", ("expiresAt",), tag_users, ["a"], [user], expires_at=brand.at)
    await _refused(brand, "INVALID_TEXT", ("reason",), tag_users, ["a"], [user], reason="\x00")


async def test_merged_users_are_tagged_as_their_survivor_and_erased_ones_not_at_all(brand: Brand) -> None:
    await _tag(brand, "a")
    kept, absorbed, gone = await brand.user(), await brand.user(), await brand.user()
    await brand.do(merge, kept, absorbed, reason="x")
    await brand.do(erase, gone)
    assert await brand.do(tag_users, ["a"], [absorbed, gone]) == Tagged(1, 1, (gone,))
    assert await brand.do(tag_users, ["a"], sa.select(users.c.id)) == Tagged(1, 0)
    assert await brand.rows(sa.select(user_tags.c.user_id)) == [(kept,)]


async def test_an_exclusive_group_holds_one(brand: Brand) -> None:
    await brand.do(save_group, key="g", name="G", exclusive=True)
    await _tag(brand, "a", group="g"), await _tag(brand, "b", group="g"), await _tag(brand, "c")
    user = await brand.user()
    await _refused(brand, "TAGS_EXCLUDE_EACH_OTHER", ("tags",), tag_users, ["a", "b"], [user])
    await brand.do(tag_users, ["a", "c"], [user])
    await brand.do(tag_users, ["b"], [user])
    assert await _held(brand, user) == [("b", "MANUAL"), ("c", "MANUAL")]
    told = [(type, properties["tags"]) for type, _, properties in await brand.changes("user.tagged", "user.untagged")]
    assert told == [("user.tagged", ["a", "c"]), ("user.untagged", ["a"]), ("user.tagged", ["b"])]


async def test_a_manual_tag_stays_manual_and_a_hand_makes_others_manual(brand: Brand) -> None:
    await _tag(brand, "a")
    user = await brand.user()
    await brand.do(tag_users, ["a"], [user], source="IMPORT")
    await brand.do(tag_users, ["a"], [user])
    assert await _held(brand, user) == [("a", "MANUAL")]
    assert await brand.do(tag_users, ["a"], [user], source="IMPORT", expires_at=brand.at + timedelta(1)) == Tagged(1, 0)
    assert await brand.rows(sa.select(user_tags.c.source, user_tags.c.expires_at)) == [("MANUAL", None)]


async def test_expiry_ends_at_its_instant(brand: Brand) -> None:
    await _tag(brand, "a")
    one, two = await brand.user(), await brand.user()
    end = brand.at + timedelta(hours=1)
    await brand.do(tag_users, ["a"], [one, two], expires_at=end)
    assert await brand.do(tag_users, ["a"], [one], expires_at=end) == Tagged(1, 0)
    await brand.do(tag_users, ["a"], [two], expires_at=end + timedelta(hours=1))
    brand.at = end - timedelta(microseconds=1)
    assert await brand.db.write(sweep_expired, at=brand.at, zone=ZONE, limit=9) == 0
    brand.at = end
    assert await brand.do(untag_users, ["a"], [one]) == Tagged(1, 0)
    await brand.do(tag_users, ["a"], [one], expires_at=end + timedelta(hours=1))
    brand.at = end + timedelta(hours=1)
    assert await brand.db.write(sweep_expired, at=brand.at, zone=ZONE, limit=9) == 2
    gone = {user: properties for _, user, properties in await brand.changes("user.untagged")}
    assert gone == {user: {"tags": ["a"], "source": "EXPIRY"} for user in (one, two)}


async def test_seventy_thousand_rows_are_a_few_statements(brand: Brand) -> None:
    await _tag(brand, "a"), await _tag(brand, "b")
    row = {"attributes": {}, "created_at": brand.at, "updated_at": brand.at}
    many = [{**row, "id": uuid.uuid4()} for _ in range(6_000)]
    await brand.db.write(lambda tx: tx.execute(users.insert(), many))
    counted = 0

    def tag(tx: Any) -> Tagged:
        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sa.event.listen(tx.connection, "before_cursor_execute", count)
        try:
            return tag_users(tx, ["a", "b"], sa.select(users.c.id), at=brand.at, actor="test", zone=ZONE)
        finally:
            sa.event.remove(tx.connection, "before_cursor_execute", count)

    assert await brand.db.write(tag) == Tagged(6_000, 6_000)
    assert counted <= 15
    assert await brand.rows(sa.select(sa.func.count()).select_from(user_tags)) == [(12_000,)]
    assert len(await brand.changes("user.tagged")) == 6_000


# ---- rules


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ([], ()),
        ({**VIEWS, "days": 3}, ("days",)),
        ({**VIEWS, "eventType": None}, ("eventType",)),
        ({**VIEWS, "eventType": []}, ("eventType",)),
        ({**VIEWS, "eventType": "Page Viewed"}, ("eventType",)),
        ({**VIEWS, "eventType": "user.tagged"}, ("eventType",)),
        ({**VIEWS, "count": 0}, ("count",)),
        ({**VIEWS, "count": True}, ("count",)),
        ({**VIEWS, "count": "3"}, ("count",)),
        ({**VIEWS, "withinDays": 0}, ("withinDays",)),
        ({"eventType": "page.viewed", "count": 1}, ("withinDays",)),
        ({**VIEWS, "sameProperty": ""}, ("sameProperty",)),
        ({**VIEWS, "filter": {}}, ("filter",)),
        ({**VIEWS, "filter": [{}]}, ("filter", "0")),
        ({**VIEWS, "filter": [{"key": "a"}]}, ("filter", "0", "key")),
        ({**VIEWS, "filter": [{"key": "a", "like": "x"}]}, ("filter", "0", "like")),
        ({**VIEWS, "filter": [{"key": "a", "gt": "x"}]}, ("filter", "0", "gt")),
        ({**VIEWS, "filter": [{"key": "a", "in": []}]}, ("filter", "0", "in")),
        ({**VIEWS, "filter": [{"key": "a", "eq": None}]}, ("filter", "0", "eq")),
    ],
)
async def test_a_rule_that_cannot_be_is_refused_where_it_is_wrong(brand: Brand, rule: Any, path: tuple[str, ...]) -> None:
    await _refused(brand, "INVALID_RULE", ("rule", *path), create_tag, key="a", name="a", rule=rule)


async def test_a_rule_may_not_look_at_what_is_personal(brand: Brand) -> None:
    row = {"type": "page.viewed", "owner": "x", "personal": ["phone"]}
    await brand.db.write(lambda tx: tx.execute(event_types.insert().values(row)))
    for rule in ({**VIEWS, "sameProperty": "phone"}, {**VIEWS, "filter": [{"key": "phone", "eq": "1"}]}):
        await _refused(brand, "PERSONAL_PROPERTY", ("rule", "filter"), create_tag, key="a", name="a", rule=rule)


async def test_three_views_of_one_category_within_a_week(brand: Brand) -> None:
    await _tag(brand, "keen", rule=VIEWS)
    keen, mixed, late = await brand.user(), await brand.user(), await brand.user()
    for day in ("2026-01-25", "2026-01-28", "2026-01-31"):
        await brand.happen("page.viewed", keen, f"{day}T00:00", category="shoes")
    for category in ("shoes", "hats", "shoes"):
        await brand.happen("page.viewed", mixed, "2026-01-31T10:00", category=category)
    for day in ("2026-01-24T23:59", "2026-01-28T00:00", "2026-01-31T00:00"):
        await brand.happen("page.viewed", late, day, category="shoes")
    brand.at = datetime(2026, 1, 31, 4, tzinfo=UTC)
    await _recompute(brand, "keen")
    assert [await _held(brand, user) for user in (keen, mixed, late)] == [[("keen", "RULE")], [], []]
    # The third newest was on the 25th: it leaves the window with the 1st of February in Shanghai.
    assert await brand.rows(sa.select(user_tags.c.expires_at)) == [(datetime(2026, 1, 31, 16, tzinfo=UTC),)]
    told = [(type, user, said["tags"]) for type, user, said in await brand.changes("user.tagged")]
    assert told == [("user.tagged", keen, ["keen"])]


async def _recompute(brand: Brand, key: str) -> int:
    [(tag,)] = await brand.rows(sa.select(tags.c.id).where(tags.c.key == key))
    changed: int = await brand.db.write(recompute_tag, tag, as_of=brand.at, zone=ZONE)
    return changed


async def test_events_after_as_of_do_not_count(brand: Brand) -> None:
    tag = await _tag(brand, "one", rule={"eventType": "page.viewed", "count": 1, "withinDays": 1})
    user = await brand.user()
    await brand.happen("page.viewed", user, "2026-01-31T12:01")
    brand.at = datetime(2026, 1, 31, 4, 0, tzinfo=UTC)
    assert await brand.db.write(recompute_tag, tag, as_of=brand.at, zone=ZONE) == 0
    brand.at = datetime(2026, 1, 31, 4, 1, tzinfo=UTC)
    assert await brand.db.write(recompute_tag, tag, as_of=brand.at, zone=ZONE) == 1
    brand.at = datetime(2026, 1, 31, 15, 59, 59, tzinfo=UTC)
    assert await brand.db.write(recompute_tag, tag, as_of=brand.at, zone=ZONE) == 0
    assert await _held(brand, user) == [("one", "RULE")]
    brand.at = datetime(2026, 1, 31, 16, tzinfo=UTC)
    await brand.db.write(recompute_tag, tag, as_of=brand.at, zone=ZONE)
    assert await _held(brand, user) == []


async def test_the_log_gives_extends_and_ends_a_rule_tag(brand: Brand) -> None:
    await _tag(brand, "keen", rule={"eventType": ["page.viewed", "content.read"], "count": 2, "withinDays": 7})
    user, other = await brand.user(), await brand.user()
    await brand.happen("page.viewed", user, "2026-01-05T12:00")
    await brand.happen("page.viewed", other, "2026-01-05T12:00")
    await brand.follow()
    assert await _held(brand, user) == []
    await brand.happen("content.read", user, "2026-01-06T12:00")
    await brand.follow()
    expiry = sa.select(user_tags.c.user_id, user_tags.c.expires_at)
    assert await brand.rows(expiry) == [(user, datetime(2026, 1, 11, 16, tzinfo=UTC))]
    await brand.happen("page.viewed", user, "2026-01-08T12:00")
    await brand.follow()
    assert await brand.rows(expiry) == [(user, datetime(2026, 1, 12, 16, tzinfo=UTC))]
    assert [(user_, said) for _, user_, said in await brand.changes("user.tagged")] == [
        (user, {"tags": ["keen"], "source": "RULE"})
    ]
    await brand.happen("page.viewed", user, "2026-01-20T12:00")
    await brand.follow()
    assert await brand.rows(expiry) == []
    # It had ended by itself: nobody is told a second time by the rule.
    assert await brand.changes("user.untagged") == []


async def test_reading_the_log_again_changes_nothing(brand: Brand) -> None:
    await _tag(brand, "keen", rule={"eventType": "page.viewed", "count": 1, "withinDays": 7})
    user = await brand.user()
    await brand.happen("page.viewed", user, "2026-01-31T12:00")
    await brand.follow()
    before = await brand.rows(sa.select(user_tags)), await brand.changes("user.tagged")
    await brand.db.write(lambda tx: tx.execute(sa.text("update consumers set cursor = 0")))
    await brand.follow()
    assert (await brand.rows(sa.select(user_tags)), await brand.changes("user.tagged")) == before


async def test_a_rule_never_touches_a_manual_tag(brand: Brand) -> None:
    tag = await _tag(brand, "keen", rule={"eventType": "page.viewed", "count": 1, "withinDays": 7})
    user = await brand.user()
    await brand.do(tag_users, ["keen"], [user])
    before = await brand.rows(sa.select(user_tags))
    await brand.happen("page.viewed", user, "2026-01-31T12:00")
    await brand.follow()
    await brand.db.write(recompute_tag, tag, as_of=brand.at + timedelta(days=30), zone=ZONE)
    assert await brand.rows(sa.select(user_tags)) == before
    await brand.do(update_tag, tag, {"rule": None})
    assert await brand.rows(sa.select(user_tags)) == before


async def test_a_changed_rule_is_computed_for_everybody(brand: Brand) -> None:
    one, two = await brand.user(), await brand.user()
    for user, count in ((one, 1), (two, 2)):
        for _ in range(count):
            await brand.happen("page.viewed", user, "2026-01-30T12:00", price=count)
    rule = {"eventType": "page.viewed", "count": 1, "withinDays": 7}
    tag = await _tag(brand, "keen", rule=rule)
    assert [await _held(brand, user) for user in (one, two)] == [[("keen", "RULE")], [("keen", "RULE")]]
    await brand.do(update_tag, tag, {"rule": {**rule, "count": 2}})
    assert [await _held(brand, user) for user in (one, two)] == [[], [("keen", "RULE")]]
    await brand.do(update_tag, tag, {"rule": {**rule, "filter": [{"key": "price", "lt": 2}]}})
    assert [await _held(brand, user) for user in (one, two)] == [[("keen", "RULE")], []]
    await brand.do(update_tag, tag, {"rule": None})
    assert [await _held(brand, user) for user in (one, two)] == [[], []]
    told = [(type, user) for type, user, _ in await brand.changes("user.tagged", "user.untagged")]
    assert sorted(told[:2]) == sorted([("user.tagged", one), ("user.tagged", two)])
    assert told[2] == ("user.untagged", one)
    assert sorted(told[3:5]) == sorted([("user.untagged", two), ("user.tagged", one)])
    assert told[5] == ("user.untagged", one)


CASES: list[tuple[dict[str, Any], list[Any]]] = [
    ({"eq": "a"}, ["a"]),
    ({"eq": 1}, [1, 1.0]),
    ({"eq": True}, [True]),
    ({"ne": "a"}, [1, 1.0, 2.5, True, "", "10", "ab%"]),
    ({"in": ["a", 2.5]}, ["a", 2.5]),
    ({"notIn": ["a", 1, True]}, [2.5, "", "10", "ab%"]),
    ({"gt": 1}, [2.5]),
    ({"gte": 1}, [1, 1.0, 2.5]),
    ({"lt": 1.5, "gt": 0}, [1, 1.0]),
    ({"contains": "%"}, ["ab%"]),
    ({"startsWith": "a"}, ["a", "ab%"]),
    ({"exists": True}, ["a", 1, 1.0, 2.5, True, "", "10", "ab%"]),
    ({"exists": False}, [None]),
]


@pytest.mark.parametrize(("test", "fitting"), CASES)
async def test_conditions_compare_by_type(brand: Brand, test: dict[str, Any], fitting: list[Any]) -> None:
    values = ["a", 1, 1.0, 2.5, True, "", "10", "ab%", None]
    people = [await brand.user() for _ in values]
    for user, value in zip(people, values, strict=True):
        await brand.happen("quiz.done", user, "2026-01-30T12:00", score=value)
    rule = {"eventType": "quiz.done", "count": 1, "withinDays": 7, "filter": [{"key": "score", **test}]}
    await _tag(brand, "fits", rule=rule)
    fit = [value for user, value in zip(people, values, strict=True) if await _held(brand, user)]
    assert [(type(value), value) for value in fit] == [
        (type(value), value) for value in values if any(type(value) is type(one) and value == one for one in fitting)
    ]


async def test_a_merged_user_is_counted_as_one_person(brand: Brand) -> None:
    await _tag(brand, "keen", rule={"eventType": "page.viewed", "count": 2, "withinDays": 30})
    one, two = await brand.user(), await brand.user()
    await brand.happen("page.viewed", one, "2026-01-30T12:00")
    await brand.happen("page.viewed", two, "2026-01-30T12:00")
    await brand.follow()
    assert (await _held(brand, one), await _held(brand, two)) == ([], [])
    await brand.do(merge, one, two, reason="x")
    await brand.follow()
    assert (await _held(brand, one), await _held(brand, two)) == ([("keen", "RULE")], [])


async def test_rules_of_one_exclusive_group_leave_one_tag(brand: Brand) -> None:
    await brand.do(save_group, key="g", name="G", exclusive=True)
    for key, type in (("reader", "content.read"), ("viewer", "page.viewed")):
        await _tag(brand, key, group="g", rule={"eventType": type, "count": 1, "withinDays": 30})
    await _tag(brand, "set", group="g")
    user, pinned = await brand.user(), await brand.user()
    await brand.do(tag_users, ["set"], [user], source="PLUGIN")
    await brand.do(tag_users, ["set"], [pinned])
    for person in (user, pinned):
        await brand.happen("content.read", person, "2026-01-20T12:00")
    await brand.follow()
    assert (await _held(brand, user), await _held(brand, pinned)) == ([("reader", "RULE")], [("set", "MANUAL")])
    await brand.happen("page.viewed", user, "2026-01-21T12:00")
    await brand.follow()
    assert await _held(brand, user) == [("viewer", "RULE")]
    await brand.happen("content.read", user, "2026-01-21T13:00")
    await brand.follow()
    assert await _held(brand, user) == [("reader", "RULE")]


def test_fold_says_only_what_changes() -> None:
    rule = parse_rule({"eventType": "page.viewed", "count": 1, "withinDays": 10})
    tag = RuleTag(uuid.UUID(int=1), "keen", rule, None)
    at = datetime(2026, 1, 11, 3, tzinfo=UTC)
    fits, gone, manual, late = (uuid.UUID(int=n) for n in range(10, 14))
    end = datetime(2026, 1, 19, 16, tzinfo=UTC)
    held = [
        Held(fits, tag.id, "keen", None, "RULE", end),
        Held(gone, tag.id, "keen", None, "RULE", at + timedelta(1)),
        Held(manual, tag.id, "keen", None, "MANUAL", None),
    ]
    days = {tag.id: {fits: date(2026, 1, 10), manual: date(2026, 1, 10), late: date(2026, 1, 1)}}
    changes = fold([tag], days, held, at, ZONE)
    assert (changes.given, changes.taken) == ([], [(gone, tag.id)])
    assert (dict(changes.tagged), dict(changes.untagged)) == ({}, {gone: ["keen"]})
    changes = fold([tag], {tag.id: {late: date(2026, 1, 2)}}, [], at, ZONE)
    assert changes.given == [UserTag(late, tag.id, datetime(2026, 1, 11, 16, tzinfo=UTC))]
