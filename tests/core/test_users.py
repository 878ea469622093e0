"""Users and identities: what is kept, what is refused, and that nothing else changes then."""

from __future__ import annotations

import asyncio
import uuid
from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.models import events
from scrm.models import audit_log
from scrm.users.models import identities, users
from scrm.users.service import (
    Created,
    IdentityDraft,
    NewIdentity,
    UserDraft,
    create_user,
    create_users,
    find_identities,
    find_unions,
    find_user,
    find_users,
    link_identity,
    unlink_identity,
    update_user,
    user_by_identity,
)

Brand = Any


async def _refused(brand: Brand, code: str, path: tuple[str, ...], function: Any, *args: Any, **kwargs: Any) -> ScrmError:
    counts = [sa.select(sa.func.count()).select_from(table) for table in (users, identities, events, audit_log)]
    before = [await brand.rows(count) for count in counts]
    with pytest.raises(ScrmError) as caught:
        await brand.do(function, *args, **kwargs)
    assert (caught.value.code, caught.value.path) == (code, path)
    assert [await brand.rows(count) for count in counts] == before
    return caught.value


async def test_a_user_is_kept_as_said(brand: Brand) -> None:
    said = {
        "display_name": "  李雷 ",
        "phone": " +86 138-0000 ",
        "email": "lei@example.com",
        "gender": "MALE",
        "birthday": date(1990, 2, 28),
        "city": "",
        "language": "zh-CN",
        "attributes": {"b": [1, None], "a": {"x": True}},
    }
    user = await brand.user("oa-poster:o1:u1", "mini:m1:u1", **said)
    row = await brand.row(users, user)
    assert row["display_name"] == "李雷"
    assert (row["phone"], row["email"], row["gender"], row["birthday"]) == (
        "+86 138-0000",
        "lei@example.com",
        "MALE",
        date(1990, 2, 28),
    )
    assert (row["city"], row["language"]) == (None, "zh-CN")
    assert row["attributes"] == {"b": [1, None], "a": {"x": True}}
    assert list(row["attributes"]) == ["b", "a"]
    assert row["created_at"] == row["updated_at"] == brand.at
    fields = ["attributes", "birthday", "displayName", "email", "gender", "language", "phone"]
    assert await brand.changes("user.created") == [("user.created", user, {"fields": fields})]


async def test_an_identity_of_a_child_belongs_to_the_root_and_the_child_won_the_user(brand: Brand) -> None:
    user = await brand.user("oa-poster:o1")
    assert await brand.read(user_by_identity, "oa", "o1") == user
    assert await brand.read(user_by_identity, "oa-poster", " o1 ") == user
    assert await brand.read(user_by_identity, "mini", "o1") is None
    assert await brand.read(user_by_identity, "nowhere", "o1") is None
    won_on = (await brand.row(users, user))["acquisition_channel_id"]
    assert (await brand.row(channels, won_on))["key"] == "oa-poster"


@pytest.mark.parametrize("junk", ["", " ", "null", "NULL", "0", "undefined", "None", "a\x00b", "\ud800", "x" * 201])
async def test_junk_ids_make_nobody(brand: Brand, junk: str) -> None:
    path = ("identities", "0", "externalId")
    await _refused(brand, "INVALID_IDENTITY", path, create_user, identities=[NewIdentity("oa", junk)])
    path = ("identities", "0", "unionId")
    await _refused(brand, "INVALID_IDENTITY", path, create_user, identities=[NewIdentity("oa", "good", junk)])


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("display_name", "a\x00", "INVALID_TEXT"),
        ("display_name", "\udfff", "INVALID_TEXT"),
        ("display_name", "x" * 201, "INVALID_TEXT"),
        ("email", "nobody", "INVALID_EMAIL"),
        ("phone", "call me", "INVALID_PHONE"),
        ("gender", "M", "INVALID_GENDER"),
        ("language", "Chinese!", "INVALID_LANGUAGE"),
        ("birthday", date(2026, 2, 1), "INVALID_BIRTHDAY"),
        ("birthday", date(1899, 12, 31), "INVALID_BIRTHDAY"),
        ("attributes", [1], "INVALID_ATTRIBUTES"),
        ("attributes", {"a": "\x00"}, "INVALID_ATTRIBUTES"),
        ("attributes", {"a": float("nan")}, "INVALID_ATTRIBUTES"),
        ("attributes", {"": 1}, "INVALID_ATTRIBUTES"),
        ("attributes", {"a": "x" * 70_000}, "INVALID_ATTRIBUTES"),
    ],
)
async def test_what_a_field_cannot_hold_is_refused(brand: Brand, field: str, value: Any, code: str) -> None:
    path = ("displayName",) if field == "display_name" else (field,)
    await _refused(brand, code, path, create_user, fields={field: value})
    user = await brand.user()
    await _refused(brand, code, path, update_user, user, {field: value})


async def test_today_may_be_a_birthday(brand: Brand) -> None:
    user = await brand.user(birthday=date(2026, 1, 31))
    assert (await brand.row(users, user))["birthday"] == date(2026, 1, 31)


async def test_an_id_that_somebody_has_is_refused(brand: Brand) -> None:
    owner = await brand.user("oa:o1:u1")
    error = await _refused(
        brand, "IDENTITY_TAKEN", ("identities", "0", "externalId"), create_user, identities=[NewIdentity("oa-poster", "o1")]
    )
    assert error.params == {"userId": f"User_{owner.hex}"}
    path = ("identities", "1", "unionId")
    said = [NewIdentity("mini", "m1"), NewIdentity("mini", "m2", "u1")]
    await _refused(brand, "IDENTITY_TAKEN", path, create_user, identities=said)
    path = ("identities", "1", "externalId")
    await _refused(brand, "IDENTITY_TAKEN", path, create_user, identities=[NewIdentity("mini", "m"), NewIdentity("mini", " m ")])
    path = ("identities", "0", "channel")
    await _refused(brand, "UNKNOWN_CHANNEL", path, create_user, identities=[NewIdentity("fax", "m1")])


async def test_only_what_is_named_changes_and_null_clears(brand: Brand) -> None:
    user = await brand.user(display_name="a", city="Beijing", attributes={"x": 1})
    brand.at += timedelta(hours=1)
    assert await brand.do(update_user, user, {"city": None, "attributes": {"y": 2}, "display_name": "a"}) == user
    row = await brand.row(users, user)
    assert (row["display_name"], row["city"], row["attributes"]) == ("a", None, {"y": 2})
    assert row["updated_at"] == brand.at
    assert await brand.changes("user.updated") == [("user.updated", user, {"fields": ["attributes", "city"]})]
    brand.at += timedelta(hours=1)
    await brand.do(update_user, user, {"city": None})
    assert len(await brand.changes("user.updated")) == 1
    assert (await brand.row(users, user))["updated_at"] == brand.at - timedelta(hours=1)


async def test_an_unknown_user_is_said_by_its_id(brand: Brand) -> None:
    nobody = uuid.uuid4()
    error = await _refused(brand, "USER_NOT_FOUND", ("id",), update_user, nobody, {"city": "x"})
    assert error.params == {"id": f"User_{nobody.hex}"}
    with pytest.raises(ScrmError, match="no user has the id"):
        await brand.read(find_user, nobody)
    assert await brand.read(find_users, [nobody]) == {}


async def test_linking_and_unlinking(brand: Brand) -> None:
    user = await brand.user("oa:o1")
    other = await brand.user("mini:m1:u2")
    path = ("identity", "externalId")
    await _refused(brand, "IDENTITY_TAKEN", path, link_identity, user, NewIdentity("mini", "m1"))
    await _refused(brand, "IDENTITY_TAKEN", ("identity", "unionId"), link_identity, user, NewIdentity("mini", "m9", "u2"))
    await brand.do(link_identity, user, NewIdentity("mini", "m9", "u1"))
    await brand.do(link_identity, user, NewIdentity("oa-poster", "o1", "u1"))
    await brand.do(link_identity, user, NewIdentity("oa", "o1", "u1"))
    assert await brand.read(find_unions, ["u1", "u2", "u3"]) == {"u1": user, "u2": other}
    linked = [("identity.linked", user, {"channel": "mini"}), ("identity.linked", user, {"channel": "oa-poster"})]
    assert await brand.changes("identity.linked") == linked
    assert await brand.do(unlink_identity, channel="oa-poster", external_id="o1") == user
    assert await brand.read(user_by_identity, "oa", "o1") is None
    await _refused(brand, "IDENTITY_NOT_FOUND", path, unlink_identity, channel="oa", external_id="o1")
    assert await brand.do(unlink_identity, channel="mini", external_id="m9") == user
    assert await brand.changes("identity.unlinked") == [
        ("identity.unlinked", user, {"channel": "oa-poster"}),
        ("identity.unlinked", user, {"channel": "mini"}),
    ]


async def test_every_change_is_in_the_audit_without_values(brand: Brand) -> None:
    user = await brand.user("oa:secret-id", display_name="secret name")
    await brand.do(update_user, user, {"phone": "13800000000"})
    found = await brand.rows(sa.select(audit_log.c.actor, audit_log.c.action, audit_log.c.subject, audit_log.c.detail))
    mine = [row for row in found if row[2] == f"User_{user.hex}"]
    assert [row[:2] for row in mine] == [("test", "user.created"), ("test", "user.updated")]
    assert not any(word in str(found) for word in ("secret", "13800000000"))


async def test_a_batch_loses_only_whom_somebody_else_made(brand: Brand) -> None:
    owner = await brand.user("oa:o1")
    [(channel,)] = await brand.rows(sa.select(identities.c.channel_id))
    drafts = [
        UserDraft((IdentityDraft(channel, "o1"), IdentityDraft(channel, "o2"))),
        UserDraft((IdentityDraft(channel, "o3"),), {"city": "x"}),
        UserDraft((IdentityDraft(channel, "o3"),)),
        UserDraft(),
    ]
    lost, made, twin, bare = await brand.do(create_users, drafts)
    assert lost == Created(owner, False)
    assert (made.created, bare.created) == (True, True)
    assert twin == Created(made.user_id, False)
    known = await brand.read(find_identities, [(channel, key) for key in ("o1", "o2", "o3")])
    assert {key[1]: found.user_id for key, found in known.items()} == {"o1": owner, "o3": made.user_id}
    assert await brand.rows(sa.select(sa.func.count()).select_from(users)) == [(3,)]
    assert [change[1] for change in await brand.changes("user.created")] == [owner, made.user_id, bare.user_id]


async def test_twenty_at_once_make_one_user(brand: Brand) -> None:
    async def one() -> object:
        try:
            return await brand.do(create_user, identities=[NewIdentity("oa", "o1", "u1")])
        except ScrmError as error:
            return error.code

    answers = await asyncio.gather(*(one() for _ in range(20)))
    assert sorted(map(str, answers)).count("IDENTITY_TAKEN") == 19
    assert await brand.rows(sa.select(sa.func.count()).select_from(users)) == [(1,)]
    assert len(await brand.changes("user.created")) == 1


async def test_seen_and_acquisition_follow_the_log(brand: Brand) -> None:
    user = await brand.user()
    passive = await brand.user()
    await brand.happen("page.viewed", user, "2026-01-05T12:00")
    await brand.happen("page.viewed", user, "2026-01-03T12:00")
    await brand.happen("quiz.finished", user, "2026-01-09T00:30")
    await brand.happen("message.sent", user, "2026-01-20T12:00")
    await brand.happen("user.unfollowed", passive, "2026-01-20T12:00")
    await brand.follow()
    row = await brand.row(users, user)
    assert (row["first_seen_at"].isoformat(), row["last_seen_at"].isoformat()) == (
        "2026-01-03T04:00:00+00:00",
        "2026-01-08T16:30:00+00:00",
    )
    row = await brand.row(users, passive)
    assert (row["first_seen_at"], row["last_seen_at"], row["acquisition_channel_id"]) == (None, None, None)


async def test_the_first_channel_stays(brand: Brand) -> None:
    user = await brand.user()
    oa, mini = await brand.channel("later"), await brand.channel("latest")
    await brand.happen("page.viewed", user, "2026-01-05T12:00")
    await brand.happen("page.viewed", user, "2026-01-07T12:00", channel=mini)
    await brand.happen("page.viewed", user, "2026-01-06T12:00", channel=oa)
    await brand.follow()
    assert (await brand.row(users, user))["acquisition_channel_id"] == oa
    await brand.happen("page.viewed", user, "2026-01-04T12:00", channel=mini)
    await brand.follow()
    row = await brand.row(users, user)
    assert row["acquisition_channel_id"] == oa
    assert row["first_seen_at"].isoformat() == "2026-01-04T04:00:00+00:00"


async def test_what_was_seen_is_not_seen_again(brand: Brand) -> None:
    """Reading the same events twice writes nothing: the row's version on PostgreSQL, the count of changes on SQLite stay."""
    user = await brand.user()
    await brand.happen("page.viewed", user)
    await brand.follow()
    before = await brand.row(users, user)

    def again(tx: Tx) -> None:
        tx.execute(sa.text("update consumers set cursor = 0"))

    await brand.db.write(again)
    await brand.follow()
    assert await brand.row(users, user) == before
