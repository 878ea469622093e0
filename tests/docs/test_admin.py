"""docs/admin.md lists every setting, scope and command, and no other."""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from scrm.auth import CORE_SCOPES
from scrm.cli import app
from scrm.config import CostSettings, JwtSettings, Limits, ServerSettings, Settings, load_settings

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
    below = names(Limits, "server.limits.") | names(CostSettings, "server.cost.") | names(JwtSettings, "jwt.")
    assert first_column("Settings") == (names(Settings) - {"server", "jwt"}) | server | below


def test_every_settings_file_of_the_page_is_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert load_settings(file).path == file


def test_every_scope_is_listed_and_no_other() -> None:
    assert first_column("Scopes") == {scope.name for scope in CORE_SCOPES}


def test_every_command_is_listed_and_no_other() -> None:
    assert first_column("Commands") == commands(get_command(app), "scrm")
