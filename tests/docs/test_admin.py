"""docs/admin.md lists every setting, scope and command, and no other."""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from scrm.auth import CORE_SCOPES
from scrm.cli import app
from scrm.config import CostSettings, Limits, ServerSettings, Settings

PAGE = Path(__file__).parents[2] / "docs" / "admin.md"


def first_column(heading: str) -> set[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def names(model: type[BaseModel], prefix: str = "") -> set[str]:
    return {prefix + name for name in model.model_fields}


def commands(command: Any, prefix: str) -> set[str]:
    below = getattr(command, "commands", None)
    if below is None:
        return {prefix}
    return {name for key, each in below.items() for name in commands(each, f"{prefix} {key}")}


def test_every_setting_is_listed_and_no_other() -> None:
    server = names(ServerSettings, "server.") - {"server.limits", "server.cost"}
    below = names(Limits, "server.limits.") | names(CostSettings, "server.cost.")
    assert first_column("Settings") == (names(Settings) - {"server"}) | server | below


def test_every_scope_is_listed_and_no_other() -> None:
    assert first_column("Scopes") == {scope.name for scope in CORE_SCOPES}


def test_every_command_is_listed_and_no_other() -> None:
    assert first_column("Commands") == commands(get_command(app), "scrm")
