"""The rules of the house, read from the code itself; each rule is shown to catch what it forbids."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("scrm", "plugins", "migrations", "tests", "tools", "bench")
PROGRAM = ("scrm", "plugins", "tools", "bench")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
FILE_LINES, FUNCTION_LINES, WIRING_LINES = 500, 60, 80

Rule = Callable[[Path], Iterator[str]]


def sources(root: Path, *folders: str) -> Iterator[tuple[Path, str]]:
    """Every Python file below the folders, with its path as shown to people."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path, path.relative_to(root).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(root: Path, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a file imports; `from a import b` is `a.b`, which may be a module or a name."""
    parts = path.relative_to(root).with_suffix("").parts
    package = parts[1:-1] if parts[0] == "plugins" else parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def required(folder: Path) -> set[str]:
    """The packages of the plugins that a plugin names in `requires`."""
    nodes = ast.walk(tree(folder / "__init__.py")) if (folder / "__init__.py").exists() else ()
    lists = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "requires"]
    values = [item.value for found in lists for item in ast.walk(found) if isinstance(item, ast.Constant)]
    return {f"scrm_{value}" for value in values if isinstance(value, str)}


def core_imports_no_plugin(root: Path) -> Iterator[str]:
    for path, shown in sources(root, "scrm", "migrations"):
        for line, name in imports(root, path):
            if name.startswith(("scrm_", "plugins.")) or name == "plugins":
                yield f"{shown}:{line}: imports {name}; scrm never imports a plugin"


def core_does_not_use_its_public_surface(root: Path) -> Iterator[str]:
    for path, shown in sources(root, "scrm", "migrations"):
        if not shown.startswith("scrm/testing/"):
            for line, name in imports(root, path):
                if within(name, "scrm.api"):
                    yield f"{shown}:{line}: imports scrm.api, which is for plugins; import the module itself"


def the_program_does_not_need_the_test_kit(root: Path) -> Iterator[str]:
    for path, shown in sources(root, "scrm", "migrations"):
        if not shown.startswith("scrm/testing/"):
            for line, name in imports(root, path):
                if within(name, "scrm.testing"):
                    yield f"{shown}:{line}: imports scrm.testing, which needs packages that only tests have"


def plugins_use_the_public_surface_only(root: Path) -> Iterator[str]:
    for path, shown in sources(root, "plugins", "tests/plugins", "tests/bad_plugins"):
        surface = ["scrm.api", "scrm.testing"] if "tests" in path.relative_to(root).parts else ["scrm.api"]
        for line, name in imports(root, path):
            if within(name, "scrm") and not within(name, *surface):
                yield f"{shown}:{line}: imports {name}; a plugin sees {' and '.join(surface)} only"


def plugins_know_each_other_by_api_and_requires(root: Path) -> Iterator[str]:
    for path, shown in sources(root, "plugins"):
        own = path.relative_to(root).parts[1]
        for line, name in imports(root, path):
            other = name.split(".")[0]
            if not other.startswith("scrm_") or other == own:
                continue
            if not within(name, f"{other}.api"):
                yield f"{shown}:{line}: imports {name}; another plugin is seen through {other}.api only"
            elif other not in required(root / "plugins" / own):
                yield f"{shown}:{line}: imports {name}, but {own} does not name {other.removeprefix('scrm_')} in requires"


def names_say_what_is_inside(root: Path) -> Iterator[str]:
    for path, shown in sources(root, *FOLDERS):
        for part in path.relative_to(root).with_suffix("").parts:
            if part in VAGUE:
                yield f"{shown}:1: {part} says nothing; name the module after the noun it holds"


def files_are_short(root: Path) -> Iterator[str]:
    for path, shown in sources(root, *FOLDERS):
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > FILE_LINES:
            yield f"{shown}:{FILE_LINES + 1}: {length} lines; a file has {FILE_LINES} at most"


def functions_are_short(root: Path) -> Iterator[str]:
    for path, shown in sources(root, *PROGRAM):
        if "migrations" in path.parts:
            continue  # a list of tables, generated and never edited again
        for node in ast.walk(tree(path)):
            if isinstance(node, FUNCTIONS) and node.end_lineno:
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES:
                    yield f"{shown}:{node.lineno}: {node.name} has {length} lines; a function has {FUNCTION_LINES} at most"


def imports_stand_at_the_top(root: Path) -> Iterator[str]:
    for path, shown in sources(root, *FOLDERS):
        functions = [node for node in ast.walk(tree(path)) if isinstance(node, FUNCTIONS)]
        for line in sorted({n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}):
            yield f"{shown}:{line}: an import inside a function; move it to the top of the file"


def plugins_only_wire_in_init(root: Path) -> Iterator[str]:
    for path in sorted((root / "plugins").glob("*/__init__.py")):
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > WIRING_LINES:
            shown = path.relative_to(root).as_posix()
            yield f"{shown}:{WIRING_LINES + 1}: {length} lines; a plugin's __init__.py only wires, in {WIRING_LINES} at most"


RULES: list[Rule] = [
    core_imports_no_plugin,
    core_does_not_use_its_public_surface,
    the_program_does_not_need_the_test_kit,
    plugins_use_the_public_surface_only,
    plugins_know_each_other_by_api_and_requires,
    names_say_what_is_inside,
    files_are_short,
    functions_are_short,
    imports_stand_at_the_top,
    plugins_only_wire_in_init,
]

LONG = "async def long():\n" + "    pass\n" * 60
# Rule, file, its text, and the line that the rule must name (none where all is well).
SEEDED: list[tuple[Rule, str, str, int | None]] = [
    (core_imports_no_plugin, "scrm/app.py", "import os\nimport scrm_loyalty", 2),
    (core_imports_no_plugin, "scrm/app.py", "from plugins import x\nimport scrm.x", 1),
    (core_does_not_use_its_public_surface, "scrm/app.py", "from scrm import api", 1),
    (core_does_not_use_its_public_surface, "scrm/users/service.py", "from ..api import x", 1),
    (core_does_not_use_its_public_surface, "scrm/testing/kit.py", "import scrm.api", None),
    (the_program_does_not_need_the_test_kit, "scrm/cli.py", "import scrm.testing", 1),
    (plugins_use_the_public_surface_only, "plugins/scrm_a/service.py", "from scrm.api import x\nfrom . import c", None),
    (plugins_use_the_public_surface_only, "plugins/scrm_a/service.py", "from scrm.db import x", 1),
    (plugins_use_the_public_surface_only, "plugins/scrm_a/service.py", "import scrm", 1),
    (plugins_use_the_public_surface_only, "plugins/scrm_a/service.py", "import scrm.testing", 1),
    (plugins_use_the_public_surface_only, "tests/plugins/test_a.py", "import scrm.testing\nimport scrm_a.rules", None),
    (plugins_use_the_public_surface_only, "tests/bad_plugins/a.py", "import scrm.app", 1),
    (plugins_know_each_other_by_api_and_requires, "plugins/scrm_a/__init__.py", "import scrm_b.api\nC(requires=['b'])", None),
    (plugins_know_each_other_by_api_and_requires, "plugins/scrm_a/__init__.py", "import scrm_b.api\nC(requires=['c'])", 1),
    (plugins_know_each_other_by_api_and_requires, "plugins/scrm_a/__init__.py", "C(requires=['b'])\nfrom scrm_b import x", 2),
    (names_say_what_is_inside, "scrm/utils.py", "", 1),
    (names_say_what_is_inside, "plugins/scrm_a/common/x.py", "", 1),
    (files_are_short, "tests/core/test_x.py", "\n" * 500, None),
    (files_are_short, "tests/core/test_x.py", "\n" * 501, 501),
    (functions_are_short, "scrm/x.py", "class A:\n    " + LONG.replace("\n", "\n    ").rstrip(), 2),
    (functions_are_short, "scrm/x.py", LONG.removesuffix("    pass\n"), None),
    (functions_are_short, "plugins/scrm_a/migrations/x.py", LONG, None),
    (imports_stand_at_the_top, "bench/x.py", "def f():\n    if f:\n        from os import path", 3),
    (imports_stand_at_the_top, "bench/x.py", "if True:\n    import os", None),
    (plugins_only_wire_in_init, "plugins/scrm_a/__init__.py", "\n" * 80, None),
    (plugins_only_wire_in_init, "plugins/scrm_a/__init__.py", "\n" * 81, 81),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule) -> None:
    broken = list(rule(ROOT))
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(("rule", "file", "text", "line"), SEEDED)
def test_a_rule_catches(rule: Rule, file: str, text: str, line: int | None, tmp_path: Path) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    found = list(rule(tmp_path))
    assert [said.partition(": ")[0] for said in found] == ([] if line is None else [f"{file}:{line}"])


def test_every_rule_has_something_to_catch() -> None:
    assert {rule for rule, _, _, line in SEEDED if line} == set(RULES)
