"""`scrm audit`: what was changed past the triggers is named, and a head that was kept elsewhere shows the rest."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.audit import audit
from scrm.audit_chain import BATCH, chaining, link
from scrm.cli import run
from scrm.commands import serving
from scrm.db import Tx, instant_text, new_id
from scrm.models import audit_chain, audit_head, audit_log, audit_pending
from tests.core.auditing import AT, OTHER, SECRET, Brand, unguarded


@pytest.fixture
def brand(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Brand:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRM_DATABASE_URL", migrated_url)
    monkeypatch.setenv("SCRM_SECRET_KEY", SECRET)
    return Brand(migrated_url, capsys)


def test_a_log_that_nobody_touched_is_whole(brand: Brand) -> None:
    assert brand.verify() == {
        "count": 0, "head": "0" * 64, "since": None, "knownAt": None, "breaks": [], "more": 0,
    }  # fmt: skip
    brand.fill(3)
    first = brand.verify()
    assert (first["count"], len(first["head"]), first["since"] is not None) == (3, 64, True)
    brand.fill(2)
    said = brand("verify")
    second = brand.verify()
    assert (said.code, said.err) == (0, [])
    assert said.out == f"5 lines are chained, since {first['since']}; head {second['head']}\n"
    assert (second["since"], second["head"] != first["head"]) == (first["since"], True)


def test_a_batch_is_small_and_says_when_more_is_left(brand: Brand) -> None:
    brand.fill(2 * BATCH + 1)
    chore = chaining(SECRET.encode())
    assert [brand.write(lambda tx: chore.do(tx, lambda: AT)) for _ in range(4)] == [True, True, False, False]
    counts = brand.write(lambda tx: tx.row(sa.select(sa.func.count(), sa.func.max(audit_chain.c.seq))))
    assert tuple(counts) == (2 * BATCH + 1, 2 * BATCH + 1)
    assert brand.verify()["breaks"] == []


def test_a_line_inserted_past_scrm_is_named(brand: Brand) -> None:
    brand.fill(2)
    assert brand.breaks() == []
    forged = new_id()
    values = {"id": forged, "at": AT, "actor": "boss", "action": "user.erased", "subject": None, "detail": {}}
    brand.write(lambda tx: tx.execute(audit_log.insert().values(values)))
    assert brand.breaks() == [("inserted", None, forged.hex)]


def test_a_line_that_goes_before_it_is_chained_is_named(brand: Brand) -> None:
    brand.fill(1)
    assert brand.breaks() == []
    lines = brand.fill(2)
    gone = lines[-1]
    brand.write(lambda tx: unguarded(tx, f"delete from audit_log where id = '{gone}'"))
    found = brand.verify()
    assert (found["count"], [(each["kind"], each["auditId"]) for each in found["breaks"]]) == (2, [("missing", gone)])


def test_nonsense_in_the_log_is_a_change_and_no_crash(brand: Brand) -> None:
    if not brand.url.startswith("sqlite"):  # PostgreSQL keeps no nonsense; what it keeps is no change
        lines = brand.fill(1)
        assert brand.breaks() == []
        changed = "update audit_log set detail = '{ \"key\" :\"t0\"}', at = 'infinity' where id = "
        brand.write(lambda tx: unguarded(tx, f"{changed}'{lines[0]}'"))
        assert brand.breaks() == [("changed", 1, lines[0])]
        return
    lines = brand.fill(4)
    assert brand.breaks() == []

    def scribble(tx: Tx) -> None:
        unguarded(tx)
        for line, change in zip(lines, ("detail = '{'", "at = 'noon'", "actor = x'fffe00'", "action = x''"), strict=True):
            tx.execute(sa.text(f"update audit_log set {change} where id = '{line}'"))
        tx.execute(sa.text("update audit_chain set chained_at = 'noon', hash = 'none' where seq = 4"))
        tx.execute(sa.text("update audit_head set seq = 'none', hash = 'none', seal = 7"))

    brand.write(scribble)
    kinds = [("re-ordered", 4), *(("changed", seq) for seq in (1, 2, 3, 4)), ("head", None), ("seal", None)]
    assert [(kind, seq) for kind, seq, _ in brand.breaks()] == kinds


def test_a_detail_that_is_only_typed_otherwise_is_no_change(brand: Brand) -> None:
    [line] = brand.fill(1)
    assert brand.breaks() == []
    brand.write(lambda tx: unguarded(tx, f"update audit_log set detail = '{{ \"key\": \"t0\" }}' where id = '{line}'"))
    assert brand.breaks() == []


# ---- who rewrites all of it


def rewritten(tx: Tx) -> None:
    """Change the second line and compute every hash from there on, as anybody can who has the database."""
    unguarded(tx)
    rows = tx.rows(sa.select(audit_chain).order_by(audit_chain.c.seq))
    last = rows[0].hash
    for row in rows[1:]:
        digest = hashlib.sha256(b"forged").digest() if row.seq == 2 else row.digest
        last = link(last, row.seq, row.audit_id.hex, instant_text(row.chained_at), digest)
        tx.execute(audit_chain.update().where(audit_chain.c.seq == row.seq).values(digest=digest, hash=last))
    tx.execute(audit_head.update().values(hash=last))


def test_who_has_no_secret_cannot_seal_what_is_rewritten(brand: Brand) -> None:
    brand.fill(4)
    assert brand.breaks() == []
    brand.write(rewritten)
    kinds = [kind for kind, _, _ in brand.breaks()]
    assert kinds == ["changed", "seal"]  # the line too, as its content here is the old one
    brand.fill(1)
    assert brand.verify()["count"] == 4, "nothing is chained behind a head that scrm did not seal"


def begun_again(tx: Tx) -> None:
    """Take the chain away and let scrm chain the log, now without its last line, anew."""
    unguarded(tx)
    tx.execute(audit_chain.delete())
    tx.execute(sa.text("delete from audit_log where id = (select id from audit_log order by id desc limit 1)"))
    tx.execute(audit_head.update().values(seq=0, hash=bytes(32), seal=b""))
    tx.execute(audit_pending.insert().from_select(["audit_id"], sa.select(audit_log.c.id).order_by(audit_log.c.id)))


def test_a_head_that_was_kept_elsewhere_shows_what_was_rewritten_whole(brand: Brand) -> None:
    brand.fill(3)
    kept = brand.verify()["head"]
    brand.fill(2)
    assert brand.verify("--head", kept)["knownAt"] == 3
    assert brand("verify", "--head", kept).out.endswith("the head that was given is row 3\n")
    assert brand.breaks("--head", "00" * 32) == []
    brand.write(begun_again)
    assert brand.breaks() == []
    assert [kind for kind, _, _ in brand.breaks("--head", kept)] == ["head"]
    assert brand("verify", "--head", kept).err == [
        f"the head {kept} is not in the chain: it was rewritten, or this is another database"
    ]


def test_what_is_no_head_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("x", "ab", "", "zz" * 32, "ab" * 33):
        said = Brand("", capsys)("verify", "--head", text)
        assert (said.code, said.out) == (2, "")
        assert said.err == [f"option --head is {text!r}; expected the 64 hex digits that scrm audit verify prints"]


def test_another_secret_chains_nothing_until_the_chain_is_sealed_with_it(
    brand: Brand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    brand.fill(3)
    before = brand.verify()
    brand.fill(1)
    monkeypatch.setenv("SCRM_SECRET_KEY", OTHER)
    chore = chaining(OTHER.encode())
    with caplog.at_level(logging.ERROR, "scrm.audit"):
        assert [brand.write(lambda tx: chore.do(tx, lambda: AT)) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "run scrm audit reseal" in caplog.text
    found = brand.verify()
    assert (found["count"], [each["kind"] for each in found["breaks"]]) == (3, ["seal"])
    assert brand("reseal").err == ["the head is sealed with the present secret"]
    found = brand.verify("--head", before["head"])
    assert (found["count"], found["breaks"], found["knownAt"]) == (5, [], 3)
    assert json.loads(brand("list", "--limit", "1", "--json").out)[0]["action"] == "audit.resealed"
    assert brand("reseal").err == ["the head was sealed with this secret already"]
    assert brand.verify()["count"] == 5


def test_a_broken_chain_is_not_sealed_anew(brand: Brand, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = brand.fill(3)
    assert brand.breaks() == []
    brand.write(lambda tx: unguarded(tx, "update audit_log set actor = 'boss' where actor = 'shop'"))
    monkeypatch.setenv("SCRM_SECRET_KEY", OTHER)
    said = brand("reseal")
    assert (said.code, said.err) == (
        1,
        [f"line {line}, row {number} of the chain, was changed" for number, line in enumerate(lines, 1)],
    )
    assert [kind for kind, _, _ in brand.breaks()] == ["changed"] * 3 + ["seal"]


def test_the_worker_has_the_chore(brand: Brand, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    async def worked(*_: object, chores: Any, **__: object) -> None:
        names.extend(chore.name for chore in chores)

    monkeypatch.setattr(serving, "run_worker", worked)
    assert run(["worker"]) == 0
    assert names == ["expired tags", "audit chain"]


def test_the_list_is_newest_first_and_can_be_narrowed(brand: Brand) -> None:
    def lines(tx: Tx) -> None:
        for number, (actor, action) in enumerate([("shop", "user.created"), ("till", "user.created"), ("shop", "user.erased")]):
            audit(tx, actor, action, f"User_{number}", {"fields": ["city"]}, at=AT + timedelta(seconds=number))

    brand.write(lines)

    def shown(*arguments: str) -> list[str]:
        return [line["subject"] for line in json.loads(brand("list", "--json", *arguments).out)]

    assert shown() == ["User_2", "User_1", "User_0"]
    assert shown("--limit", "2") == ["User_2", "User_1"]
    assert shown("--actor", "shop") == ["User_2", "User_0"]
    assert shown("--actor", "shop", "--action", "user.created") == ["User_0"]
    assert shown("--action", "nothing.done") == []
    [newest] = json.loads(brand("list", "--json", "--limit", "1").out)
    assert {**newest, "id": ""} == {
        "id": "", "at": "2026-03-01T12:00:02.000000Z", "actor": "shop", "action": "user.erased",
        "subject": "User_2", "detail": {"fields": ["city"]},
    }  # fmt: skip
    said = brand("list", "--limit", "1")
    assert said.out.splitlines() == [
        "AT                    ACTOR  ACTION       SUBJECT  DETAIL",
        '2026-03-01 12:00:02Z  shop   user.erased  User_2   {"fields":["city"]}',
    ]
    assert brand("list", "--limit", "0").code == 2
