"""Changing `scrm.toml` without losing what a person wrote in it."""

from __future__ import annotations

import os
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from scrm.config import Settings
from scrm.errors import StartupError
from scrm.settings_problems import FILE


def set_enabled(settings: Settings, file: Path | None, plugin: str, value: bool) -> Path:
    """Write `enabled` into a plugin's section, made if there is none; comments and order stay. Returns the file.

    Raises: StartupError when the file cannot be changed.
    """
    path = settings.path or (file or Path(FILE)).resolve()
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        sections = document.setdefault("plugins", tomlkit.table(is_super_table=True))
        if plugin not in sections:
            sections[plugin] = tomlkit.table()
        sections[plugin]["enabled"] = value
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(tomlkit.dumps(document), encoding="utf-8")
        if path.exists():
            draft.chmod(path.stat().st_mode)
        os.replace(draft, path)
    except (OSError, TOMLKitError, TypeError) as error:
        raise StartupError(f"settings file {path} cannot be changed: {error}") from None
    return path
