"""Keeps the tables of a page as the code says them."""

from __future__ import annotations

import os
from pathlib import Path

from scrm.plugin import Contribution
from scrm.reference import scopes_table, settings_of_plugin, settings_table

UPDATE = "SCRM_UPDATE_DOCS"
"""Set, the page is written anew instead of being compared."""


def keep_settings(page: Path, brought: Contribution) -> None:
    """Hold the table of settings of a plugin's README to what the plugin brings, as `scrm plugins settings --markdown` says it;
    with the environment variable `SCRM_UPDATE_DOCS` write it there.

    Raises: AssertionError where the page has no such table, or another one.
    """
    keep_table(page, settings_table(settings_of_plugin(brought)))


def keep_scopes(page: Path, brought: Contribution) -> None:
    """The same with the table of scopes.

    Raises: AssertionError where the page has no such table, or another one.
    """
    keep_table(page, scopes_table(brought.scopes))


def keep_table(page: Path, table: str) -> None:
    """The same with any table in Markdown; the page's is the one with the same first line.

    Raises: AssertionError where the page has no such table, or another one.
    """
    text = page.read_text(encoding="utf-8")
    head = table.splitlines()[0]
    before, found, rest = f"\n{text}".partition(f"\n{head}\n")
    assert found, f"{page} has no table that begins with {head}; write this line where it belongs"
    lines = rest.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    kept = f"{head}\n{''.join(lines[:end])}"
    if kept == table:
        return
    assert os.environ.get(UPDATE), f"the table {head} of {page} is not what the code says; run the test once with {UPDATE}=1"
    page.write_text(f"{before}\n{table}{''.join(lines[end:])}".removeprefix("\n"), encoding="utf-8")
