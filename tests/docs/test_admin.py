"""docs/admin.md lists every setting, scope and command, and no other."""

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from scrm.auth import CORE_SCOPES
from scrm.cli import app
from scrm.config import Settings, load_settings
from scrm.reference import scopes_table, settings_of, settings_table
from scrm.testing.pages import keep_table

PAGE = Path(__file__).parents[2] / "docs" / "admin.md"


def first_column(heading: str) -> set[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def commands(command: Any, prefix: str) -> set[str]:
    below = getattr(command, "commands", None)
    if below is None:
        return {prefix}
    return {name for key, each in below.items() for name in commands(each, f"{prefix} {key}")}


def test_the_settings_are_those_of_the_code() -> None:
    keep_table(PAGE, settings_table(settings_of(Settings)))


def test_every_setting_says_what_it_means() -> None:
    assert [one.name for one in settings_of(Settings) if not one.meaning] == []
    assert len(settings_of(Settings)) > 40


def test_the_scopes_are_those_of_the_code() -> None:
    keep_table(PAGE, scopes_table(CORE_SCOPES))


def test_every_settings_file_of_the_page_is_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert load_settings(file).path == file


def test_every_command_is_listed_and_no_other() -> None:
    assert first_column("Commands") == commands(get_command(app), "scrm")
