"""What `scrm plugins check` finds in every bad plugin without running a server, and the table that says what becomes of each."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.bad_plugins.conftest import Commands, Said
from tests.bad_plugins.kit import GOOD, NO_PROBLEMS, Kind, fits, kinds

TABLE = Path(__file__).parent / "README.md"
CHECKED = [kind for kind in kinds() if kind.check != "the process ends"]


def line(kind: Kind, directory: Path) -> str:
    """The command that checks it, with those it collides with."""
    others = [each for each in kinds() if each.name in kind.says.get("With", "").split() and each != kind]
    paths = [each.package(directory / each.name) for each in (kind, *others)]
    return f"plugins check {' '.join(map(str, paths))} --json"


def test_a_check_finds_what_there_is_to_find(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "mistaken.toml").write_text("[plugins.mistaken]\nbonsu = 1\n")
    lines = [
        f"--config mistaken.toml {line(kind, tmp_path)}" if "Section" in kind.says else line(kind, tmp_path) for kind in CHECKED
    ]
    answers = commands(*lines, SCRM_PLUGIN_START_SECONDS="2")
    wrong = {kind.name: told for kind, answer in zip(CHECKED, answers, strict=True) if (told := _otherwise(kind, answer))}
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False)


def _otherwise(kind: Kind, answer: Said) -> list[object]:
    """What was said where it was not what was promised."""
    found = [each for each in json.loads(answer.out) if each["plugin"] == kind.name]
    said = "; ".join(f"warning: {each['text']}" if each["level"] == "warning" else each["text"] for each in found)
    code = 0 if kind.check == NO_PROBLEMS or kind.check.startswith("warning: ") else 1
    return [] if (answer.code, fits(said or NO_PROBLEMS, kind.check)) == (code, True) else [answer.code, said]


def test_what_is_found_is_said_in_lines_too(commands: Commands, tmp_path: Path) -> None:
    bad = next(kind for kind in kinds() if kind.name == "misspelt").package(tmp_path / "bad")
    fine = GOOD.package(tmp_path / "good")
    wrong, right = commands(f"plugins check {bad}", f"plugins check {fine}")
    assert (wrong.code, wrong.out, wrong.err) == (1, "", ["misspelt: hook exprot of misspelt is unknown; did you mean export?"])
    assert (right.code, right.out, right.err) == (0, "no problems\n", [])


def test_the_table_lists_every_kind_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (kind.name, kind.does, kind.says["Outcome"]) for kind in sorted(kinds(), key=lambda kind: (kind.group, kind.name))
    ]
