"""Erasing a person, and handing over what is kept."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.errors import ScrmError
from scrm.events.models import event_types, events
from scrm.models import audit_log
from scrm.tags.models import user_tags
from scrm.tags.service import create_tag
from scrm.tags.tagging import tag_users, untag_users
from scrm.users.merging import merge, unmerge
from scrm.users.models import identities, merges, users
from scrm.users.privacy import erase, export
from scrm.users.service import NewIdentity, create_user, find_users, link_identity, update_user, user_by_identity

Brand = Any


async def _register(brand: Brand, type: str, *personal: str) -> None:
    await brand.db.write(lambda tx: tx.execute(event_types.insert().values(type=type, owner="forms", personal=list(personal))))


async def test_nothing_personal_is_left(brand: Brand) -> None:
    await _register(brand, "form.sent", "phone", "name")
    await _register(brand, "user.untagged", "untagReason")
    await brand.do(create_tag, key="big", name="big")
    said = {"display_name": "SECRET", "phone": "13800138000", "city": "SECRET", "attributes": {"x": "SECRET"}}
    user = await brand.user("oa:SECRET:SECRET-U", **said)
    other = await brand.user("mini:SECRET-2", display_name="SECRET 2")
    bystander = await brand.user("oa:kept", display_name="Kept")
    mine = await brand.happen("form.sent", user, phone="SECRET", form="f1", name="SECRET")
    theirs = await brand.happen("form.sent", bystander, phone="kept", form="f1")
    paid = await brand.happen("order.paid", user, amount=100, orderId="o1", shelf="not marked")
    await brand.do(tag_users, ["big"], [user, bystander], reason="SECRET reason")
    await brand.do(create_tag, key="old", name="old")
    await brand.do(tag_users, ["old"], [user])
    await brand.do(untag_users, ["old"], [user], reason="SECRET reason")
    [(_, _, told)] = await brand.changes("user.untagged")
    assert told["untagReason"] == "SECRET reason"
    await brand.do(merge, user, other, reason="SECRET")
    before = await brand.row(events, mine)
    erased, pseudonym = await brand.do(erase, other)
    assert erased == user

    row = await brand.row(users, user)
    empty = {name: row[name] for name in ("display_name", "phone", "email", "gender", "birthday", "city", "attributes")}
    assert empty == {**dict.fromkeys(empty), "attributes": {}}
    assert row["erased_at"] == brand.at
    after = await brand.row(events, mine)
    assert after["properties"] == {"form": "f1"}
    assert {**after, "properties": None} == {**before, "properties": None}
    assert (await brand.row(events, theirs))["properties"] == {"phone": "kept", "form": "f1"}
    assert (await brand.row(events, paid))["properties"] == {"orderId": "o1", "shelf": "not marked"}
    assert await brand.rows(sa.select(user_tags.c.user_id)) == [(bystander,)]
    found = await brand.rows(sa.select(identities.c.external_id, identities.c.union_id).where(identities.c.user_id == user))
    assert len(found) == 2
    assert all(external.startswith("erased:") and union is None for external, union in found)
    assert await brand.changes("user.erased") == [("user.erased", user, {"user": user.hex, "pseudonym": pseudonym.hex})]
    for table in (users, identities, events, merges, audit_log):
        assert "SECRET" not in str(await brand.rows(sa.select(table)))


async def test_an_erased_user_is_not_found_and_comes_back_as_somebody_else(brand: Brand) -> None:
    user = await brand.user("oa:o1")
    await brand.do(erase, user)
    assert await brand.read(find_users, [user]) == {}
    assert await brand.read(user_by_identity, "oa", "o1") is None
    again = await brand.do(create_user, identities=[NewIdentity("oa", "o1")])
    assert again != user
    for call, args in ((update_user, ({"city": "x"},)), (link_identity, (NewIdentity("oa", "o2"),)), (erase, ())):
        with pytest.raises(ScrmError) as caught:
            await brand.do(call, user, *args)
        assert caught.value.code == "USER_ERASED"


async def test_a_merge_of_an_erased_user_is_not_undone(brand: Brand) -> None:
    a, b = await brand.user("oa:a1"), await brand.user("oa:b1")
    outcome = await brand.do(merge, a, b, reason="x")
    await brand.do(erase, a)
    with pytest.raises(ScrmError) as caught:
        await brand.do(unmerge, outcome.merge_id)
    assert caught.value.code == "USER_ERASED"


async def test_an_unknown_user_cannot_be_erased(brand: Brand) -> None:
    for call in (brand.do(erase, uuid.uuid4()), brand.read(export, uuid.uuid4())):
        with pytest.raises(ScrmError) as caught:
            await call
        assert caught.value.code == "USER_NOT_FOUND"


async def test_an_export_says_everything(brand: Brand) -> None:
    await brand.do(create_tag, key="big", name="Big")
    user = await brand.user("oa:o1:u1", display_name="Li", attributes={"x": 1})
    other = await brand.user("mini:m1")
    event = await brand.happen("order.paid", other, amount=100, orderId="o1")
    await brand.do(tag_users, ["big"], [user], reason="r")
    await brand.do(merge, user, other, reason="phone")
    said = await brand.read(export, other, lambda tx, who: {"loyalty": {"entries": [{"points": 3}]}} if who == user else {})
    assert orjson.loads(orjson.dumps(said)) == said
    assert (said["profile"]["id"], said["profile"]["displayName"], said["profile"]["attributes"]) == (user.hex, "Li", {"x": 1})
    assert [(row["channel"], row["externalId"], row["unionId"]) for row in said["identities"]] == [
        ("oa", "o1", "u1"),
        ("mini", "m1", None),
    ]
    assert [(row["key"], row["source"], row["reason"]) for row in said["tags"]] == [("big", "MANUAL", "r")]
    paid = next(row for row in said["events"] if row["id"] == event.hex)
    assert (paid["occurredAt"], paid["amountMinor"], paid["properties"]) == (
        "2026-01-05T04:00:00.000000Z",
        100,
        {"orderId": "o1"},
    )
    assert [row["type"] for row in said["events"]] == ["order.paid", "user.created", "user.created", "user.tagged", "user.merged"]
    assert [(row["keptId"], row["absorbedId"], row["reason"]) for row in said["merges"]] == [(user.hex, other.hex, "phone")]
    assert said["plugins"] == {"loyalty": {"entries": [{"points": 3}]}}


async def test_a_handover_is_in_the_audit(brand: Brand) -> None:
    user = await brand.user()
    await brand.db.write(export, user, at=brand.at, actor="auditor")
    found = sa.select(audit_log.c.actor, audit_log.c.subject).where(audit_log.c.action == "user.exported")
    assert await brand.rows(found) == [("auditor", f"User_{user.hex}")]
