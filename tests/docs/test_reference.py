"""Every plugin's README shows its settings and scopes as the code says them; so can a partner's."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from scrm.api import UNSET, BusinessRules, Contribution, Wiring
from scrm.reference import settings_of, settings_of_plugin, settings_table
from scrm.testing.pages import UPDATE, keep_scopes, keep_settings, keep_table
from tests.core.shell import answer

ROOT = Path(__file__).parents[2]
BUILT_IN = sorted(path.parent.name for path in (ROOT / "plugins").glob("scrm_*/__init__.py"))


@pytest.mark.parametrize("package", BUILT_IN)
def test_a_plugins_readme_shows_its_settings_and_scopes(package: str) -> None:
    brought: Contribution = import_module(package).contribute()
    assert [one.name for one in settings_of_plugin(brought) if not one.meaning] == []
    keep_settings(ROOT / "plugins" / package / "README.md", brought)
    keep_scopes(ROOT / "plugins" / package / "README.md", brought)


class Size(Enum):
    """A choice."""

    SMALL = "small"
    LARGE = "large"


class Inner(BaseModel):
    """Settings one level below."""

    days: Annotated[int, Field(ge=1)] = Field(default=3, le=9, description="How many days.")


class Round(BaseModel):
    """One of two."""

    kind: Literal["round"] = Field(default="round", description="Which.")
    width: int = Field(default=1, description="How wide.")


class Both(BaseModel):
    """The other, of which there may be more within."""

    kind: Literal["both"] = Field(default="both", description="Which.")
    parts: tuple[Shape, ...] = Field(default=(), description="Of what.")


Shape = Annotated[Round | Both, Field(discriminator="kind")]
Both.model_rebuild()


class Made(BusinessRules):
    """A setting of every kind."""

    word: str = Field(default="a|b", min_length=1, max_length=9, pattern="^a", description="A word.")
    size: Size = Size.SMALL
    only: Literal["one"] = "one"
    rate: Decimal = Field(gt=0, lt=1)
    on: bool = False
    some: list[Size] = Field(default=[])
    more: tuple[Annotated[int, Field(ge=0)], ...] = (1, 2)
    file: Path | int | None = None
    named: dict[str, int] = Field(default={})
    inner: Inner | None = None
    listed: list[Inner] = Field(default=[], description="Several.")
    shape: Shape = Round()


class Wired(Wiring):
    """Secrets and times."""

    key: SecretStr = SecretStr("hush")
    other: SecretStr | None = Field(default=None, json_schema_extra={UNSET: "made once"})
    pause: timedelta = timedelta(seconds=5)
    since: date = date(2026, 1, 2)


TABLE = """| setting | takes | default | meaning |
|---|---|---|---|
| `word` | text, no shorter than 1, no longer than 9, matching `^a` | `a\\|b` | A word. |
| `size` | `small` or `large` | `small` |  |
| `only` | `one` | `one` |  |
| `rate` | number, above 0, below 1 | has to be set |  |
| `on` | `true` or `false` | `false` |  |
| `some` | list of `small` or `large` | none |  |
| `more` | list of whole number, at least 0 | `1`, `2` |  |
| `file` | path of a file or whole number | none |  |
| `named` | table | none |  |
| `inner.days` | whole number, 1 to 9 | `3` | How many days. |
| `listed` | list of tables | none | Several. |
| `listed[].days` | whole number, 1 to 9 | `3` | How many days. |
| `shape` | table | see below |  |
| `shape(round).kind` | `round` | `round` | Which. |
| `shape(round).width` | whole number | `1` | How wide. |
| `shape(both).kind` | `both` | `both` | Which. |
| `shape(both).parts` | list of tables | none | Of what. |
| `shape(both).parts[](round).kind` | `round` | `round` | Which. |
| `shape(both).parts[](round).width` | whole number | `1` | How wide. |
| `key` | secret text | a secret |  |
| `other` | secret text | made once |  |
| `pause` | duration | `0:00:05` |  |
| `since` | date | `2026-01-02` |  |
| `currency` | text | the business currency | The currency that it computes with; amounts in another count for nothing. |
| `timezone` | text | the business zone | The zone in which days begin. |
"""


def test_a_setting_of_every_kind_is_said() -> None:
    made = settings_table(settings_of_plugin(Contribution(name="made", version="1", rules=Made, wiring=Wired)))
    assert made.splitlines() == TABLE.splitlines()


def test_a_page_is_held_to_the_code_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, table = tmp_path / "README.md", settings_table(settings_of(Inner))
    monkeypatch.delenv(UPDATE, raising=False)
    page.write_text("# A page\n")
    with pytest.raises(AssertionError, match="has no table that begins with"):
        keep_table(page, table)
    head, *rows = table.splitlines(keepends=True)
    kept = {
        f"before\n\n{head}{''.join(lines)}{after}" for lines in ([], rows[:1], [*rows, "| `gone` |\n"]) for after in ("", "\nx\n")
    }
    for text in kept:
        page.write_text(text)
        with pytest.raises(AssertionError, match=f"is not what the code says; run the test once with {UPDATE}=1"):
            keep_table(page, table)
        assert page.read_text() == text
        monkeypatch.setenv(UPDATE, "1")
        keep_table(page, table)
        monkeypatch.delenv(UPDATE)
        keep_table(page, table)
        assert page.read_text() in (f"before\n\n{table}", f"before\n\n{table}\nx\n")


def test_the_command_says_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loyalty = settings_of_plugin(import_module("scrm_loyalty").contribute())
    assert answer(capsys, ["plugins", "settings", "loyalty", "--markdown"]).out == settings_table(loyalty)
    said = answer(capsys, ["plugins", "settings", "loyalty"]).out
    assert [line.split()[0] for line in said.splitlines()] == ["SETTING", *(one.name for one in loyalty)]
    (tmp_path / "till").mkdir()
    (tmp_path / "till" / "pyproject.toml").write_text(
        '[project]\nname = "till"\nentry-points."scrm.plugins".till = "till_source"\n'
    )
    (tmp_path / "till" / "till_source.py").write_text(SOURCE)
    assert (
        "| `address` | text | has to be set | Where it is. |" in answer(capsys, ["plugins", "settings", "till", "--markdown"]).out
    )
    wrong = answer(capsys, ["plugins", "settings", "loyalti"])
    assert (wrong.code, wrong.out, wrong.err) == (2, "", ["plugin loyalti is not installed; did you mean loyalty?"])


SOURCE = """
from pydantic import Field
from scrm.api import Contribution, Wiring, hookimpl

class Till(Wiring):
    address: str = Field(description="Where it is.")

@hookimpl
def contribute():
    return Contribution(name="till", version="1", wiring=Till)
"""
