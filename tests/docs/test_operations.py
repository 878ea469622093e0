"""docs/operations.md holds to the code: its limits, commands, states, codes, settings and queries are those that exist."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema, parse, validate
from typer.main import get_command

from scrm import outbox, watch
from scrm.backup.figures import Figures
from scrm.backup.manifest import Manifest
from scrm.cli import app
from scrm.commands import serving
from scrm.config import ServerSettings, Settings
from scrm.db import Database
from scrm.events import checks, graphql, http, parked
from scrm.graphql import pages
from scrm.importing.ledger import ImportState
from scrm.routes import _READY_WITHIN
from scrm.system.service import STATES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
SCHEMA = Path(__file__).parents[1] / "schema.graphql"
ELSEWHERE = {"PATH", "SIGTERM", "SIGINT", "SIGKILL", "SCRM_SECRET_KEY", "NAME", "POST"}
LIMITS = {
    "body of a GraphQL request": ServerSettings().max_body_bytes,
    "JSON array for `POST /events`": ServerSettings().max_events_body_bytes,
    "line of NDJSON": http.MAX_LINE,
    "events in one `recordEvents`": graphql.MAX_ITEMS,
    "items on a page": pages.PAGE_LIMIT,
    "amount of an event": checks.MAX_AMOUNT,
    "time for a request": int(ServerSettings().timeout_seconds),
    "time for one call of a plugin's handler, SQLite": int(watch.HANGS_AFTER["sqlite"]),
    "time for one call of a plugin's handler, PostgreSQL": int(watch.HANGS_AFTER["postgresql"]),
    "attempts at an event that fails": parked.ATTEMPTS,
    "attempts at a message of the outbox": outbox.ATTEMPTS,
    "time after a signal, server": serving.GRACE,
    "time after a signal, worker": serving.WORKER_GRACE,
}


def section(heading: str) -> str:
    return PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]


def quoted(text: str) -> set[str]:
    """Everything between backticks on a line."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_limit_is_the_codes() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\d+)[^|]*\|", section("Limits"), re.MULTILINE)
    told = {name: int(value) for name, value in rows}
    assert told.pop("connections to PostgreSQL") == 2 * inspect.signature(Database).parameters["pool_size"].default
    assert told == LIMITS


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def check_command(line: str) -> None:
    command: Any = get_command(app)
    words = line.split()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), line
    assert {word for word in words if word.startswith("--")} <= options(command), line


def test_every_command_it_names_exists() -> None:
    lines = [line.removeprefix("scrm ") for block in blocks("console") for line in block.splitlines() if line.startswith("scrm ")]
    lines += [said.removeprefix("scrm ") for said in quoted(PAGE) if said.startswith("scrm ")]
    assert len(lines) > 15
    for line in lines:
        check_command(line)


@pytest.mark.parametrize("line", ["plugins", "plugin show", "backup --yes"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check_command(line)


def test_every_state_and_code_it_names_exists() -> None:
    codes = set(re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "front-end.md").read_text(encoding="utf-8"), re.MULTILINE))
    failures = {parked.RETRYING, parked.DEAD, parked.BEHIND, parked.SKIPPED}
    known = codes | set(STATES) | failures | {state.value for state in ImportState} | ELSEWHERE
    told = {word for said in quoted(PAGE) for word in re.findall(r"\b[A-Z][A-Z_]{3,}\b", said)}
    assert {"UNAVAILABLE", "DEGRADED", "DEAD", "BACKUP_DAMAGED"} <= told
    assert told <= known


def test_every_setting_it_names_exists() -> None:
    told = {said for said in quoted(PAGE) if said.startswith("server.") or said in ("on_plugin_error", "database_pool")}
    assert len(told) > 3
    assert told <= {*Settings.model_fields, *(f"server.{name}" for name in ServerSettings.model_fields)}


def test_what_to_watch_can_be_asked() -> None:
    [query] = blocks("graphql")
    schema = build_schema(SCHEMA.read_text(encoding="utf-8"))
    assert validate(schema, parse(query)) == []
    watched = {word for said in re.findall(r"^\| (`.*?) \|", section("What to watch"), re.MULTILINE) for word in quoted(said)}
    assert {name for name in watched if name != "/readyz"} <= set(re.findall(r"\w+", query))


def test_the_manifest_has_what_it_says() -> None:
    told = quoted(section("Backup and restore"))
    assert {field.name for field in dataclasses.fields(Manifest)} - {"format"} <= told
    assert {field.name for field in dataclasses.fields(Figures)} <= told


def test_the_answer_of_readyz_is_as_shown() -> None:
    [said] = blocks("json")
    assert json.loads(said) == {
        "ok": False,
        "notReady": ["database"],
        "why": {"database": f"it does not answer within {_READY_WITHIN:g} s, or not at all"},
        "code": "UNAVAILABLE",
    }
