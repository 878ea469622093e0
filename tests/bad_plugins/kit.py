"""What every test here needs: the plugins, what their docstrings promise, and ways to install or load them."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shutil
import sys
from ast import get_docstring, parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = Path(__file__).parent / "kinds"
KEYS = ("Outcome", "State", "Reason", "Check", "Name", "With", "Where", "Section", "Upgrade", "Failures", "Asks", "Fails")
NO_PROBLEMS = "no problems"


@dataclass(frozen=True)
class Kind:
    """One kind of bad plugin: its file, and what its docstring says will become of it."""

    path: Path
    does: str
    says: Mapping[str, str]

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.says.get("Name", self.path.stem)

    @property
    def group(self) -> str:
        """When it misbehaves."""
        return self.path.parent.name

    @property
    def state(self) -> str:
        """The state that it must come to."""
        return self.says["State"]

    @property
    def reason(self) -> str | None:
        """Why, with `…` for any text; None where there is none."""
        return self.says.get("Reason")

    @property
    def check(self) -> str:
        """What `scrm plugins check` must say of it."""
        return self.says.get("Check") or self.says.get("Upgrade") or self.says["Reason"]

    def package(self, directory: Path) -> Path:
        """Its source as its author has it."""
        module = f"scrm_{self.name}"
        _copy(self.path, directory, module)
        (directory / "pyproject.toml").write_text(
            f'[project]\nname = "{module}"\nversion = "1.0"\nentry-points."scrm.plugins".{self.name} = "{module}"\n'
        )
        return directory

    def install(self, site: Path) -> None:
        """Put it where the command line finds it, as pip would."""
        module = f"scrm_{self.name}"
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        _copy(self.path, site, module)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[scrm.plugins]\n{self.name} = {module}\n")

    def module(self) -> Any:
        """Imported into this process."""
        name = f"bad_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _copy(path: Path, directory: Path, module: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, directory / f"{module}.py")
    migrations = path.parent / f"{path.stem}_migrations"
    if migrations.is_dir():
        shutil.copytree(migrations, directory / migrations.name, dirs_exist_ok=True)


def read(path: Path) -> Kind:
    """A kind from its file."""
    text = inspect.cleandoc(get_docstring(parse(path.read_text(encoding="utf-8"))) or "")
    does, _, rest = text.partition("\n\n")
    says = dict(re.findall(r"^(\w+): (.+)$", rest, re.MULTILINE))
    unknown = says.keys() - set(KEYS)
    assert does, path
    assert {"Outcome", "State"} <= says.keys(), path
    assert not unknown, (path, unknown)
    return Kind(path, does, says)


def kinds(*groups: str) -> list[Kind]:
    """Every kind, or those of some groups, by name."""
    return sorted((read(path) for path in _files() if not groups or path.parent.name in groups), key=lambda kind: kind.name)


def _files() -> Iterator[Path]:
    yield from KINDS.glob("*.py")
    yield from (path for path in KINDS.glob("*/*.py") if not path.parent.name.endswith("_migrations"))


GOOD = read(KINDS / "good.py")


def modules(*found: Kind) -> dict[str, Any]:
    """Plugins by name, the good one among them, as `serving` takes them."""
    return {kind.name: kind.module() for kind in (GOOD, *found)}


def fits(said: object, promised: str | None) -> bool:
    """Whether a text is what was promised; `…` stands for any text."""
    if promised is None or said is None:
        return said is promised
    pattern = ".*".join(map(re.escape, promised.split("…")))
    return re.fullmatch(pattern, str(said), re.DOTALL) is not None
