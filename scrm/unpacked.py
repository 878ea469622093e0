"""Plugins in a directory of source, before anybody installs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from scrm.config import read_toml
from scrm.errors import StartupError

GROUP = "scrm.plugins"
"""The entry-point group in which a package names its plugins."""


def offered_by(directory: Path) -> dict[str, Callable[[], Any]]:
    """The plugins that the directory's pyproject.toml names: by name, what imports each.

    Raises: StartupError when there is no pyproject.toml, or it names no plugin.
    """
    file = directory / "pyproject.toml"
    if not file.is_file():
        raise StartupError(f"{directory} has no pyproject.toml; name the directory that pip would install")
    points = read_toml(file).get("project", {}).get("entry-points", {}).get(GROUP, {})
    if not points:
        raise StartupError(f'{file} names no plugin; add [project.entry-points."{GROUP}"] with name = "package"')
    return {name: _importing(directory, EntryPoint(name, value, GROUP)) for name, value in points.items()}


def _importing(directory: Path, point: EntryPoint) -> Callable[[], Any]:
    def load() -> Any:
        with _found_in(directory / "src", directory):
            return point.load()

    return load


@contextmanager
def _found_in(*directories: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(each.resolve()) for each in directories if each.is_dir()]
    try:
        yield
    finally:
        sys.path[:] = before
