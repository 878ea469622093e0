"""A small brand with loyalty on a database of its own, a backup of it, and how to run commands on them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from scrm.backup.figures import Figures, read_figures
from scrm.cli import run
from scrm.db import Database, Tx
from scrm.testing.client import Client, drain, serving
from tests.core.shell import Answer

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
EVENTS = 15
SECRET = "for tests only " * 4
KILLED = """
import os, signal, sys
from scrm.backup import {module}
from scrm.cli import main

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

{module}.{name} = {replacement}
sys.argv = ["scrm", *sys.argv[1:]]
main()
"""


@dataclass
class Kept:
    """A small brand with loyalty on a database of its own, and a backup of it named `first` in the working directory."""

    url: str
    empty_url: str
    key: str
    call: Callable[..., Answer]

    @property
    def on_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def __call__(self, *arguments: str, at: str | None = None) -> Answer:
        """Run a command on its database, or on another."""
        return self.call(at or self.url, *arguments)


@dataclass
class Template:
    """What a brand is copied from."""

    url: str
    backup: Path
    key: str


def made_template(url: str, directory: Path) -> Template:
    key = serve(url, fill)
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, url)
        assert run(["backup", str(directory / "first")]) == 0
    return Template(url, directory / "first", key)


def configure(patch: pytest.MonkeyPatch, url: str) -> None:
    patch.setenv("SCRM_DATABASE_URL", url)
    patch.setenv("SCRM_SECRET_KEY", SECRET)
    patch.setenv("SCRM_PLUGINS__LOYALTY__ENABLED", "true")


def order(n: int, **said: Any) -> dict[str, Any]:
    return {
        "type": "order.paid",
        "source": "shop",
        "externalId": f"o-{n}",
        "occurredAt": "2026-05-01T12:00:00+08:00",
        "identity": {"channel": "shop", "externalId": f"card-{n % 3}"},
        "amount": {"amountMinor": 1050 + n, "currency": "CNY"},
        "properties": {"orderId": f"o-{n}"},
        **said,
    }


def serve(url: str, ask: Callable[[Client], Any]) -> Any:
    """What a server on this database answers."""

    async def inside() -> Any:
        async with serving(url, modules={}, sections={"loyalty": {"enabled": True}}) as client:
            return await ask(client)

    return asyncio.run(inside())


async def fill(client: Client) -> str:
    """Some people and their orders in two currencies, with their points; returns a key that may see them."""
    await client.data('mutation { createChannel(input: {key: "shop", name: "Shop", kind: STORE}) { errors { code } } }')
    orders = [order(n) for n in range(5)] + [order(9, amount={"amountMinor": 700, "currency": "USD"})]
    assert (await client.events(orders))["accepted"] == 6
    await drain(client)
    return await client.key("*", name="shop")


def read(url: str, function: Callable[..., T]) -> T:
    async def inside() -> T:
        db = Database(url)
        try:
            return await db.read(function)
        finally:
            await db.close()

    return asyncio.run(inside())


def write(url: str, *statements: str) -> None:
    def each(tx: Tx) -> None:
        for statement in statements:
            tx.execute(sa.text(statement))

    async def inside() -> None:
        db = Database(url)
        try:
            await db.write(each)
        finally:
            await db.close()

    asyncio.run(inside())


def figures(url: str) -> Figures:
    return read(url, read_figures)


def process(url: str, code: str, *arguments: str, path: Path | None = None, stderr: int | None = None) -> subprocess.Popen[str]:
    """A process of its own that runs this code, with what is installed in `path`."""
    paths = [str(ROOT), str(ROOT / "plugins"), *([str(path)] if path is not None else [])]
    env = {**os.environ, "SCRM_DATABASE_URL": url, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)


def killed(url: str, module: str, name: str, replacement: str, *arguments: str) -> None:
    """A command that is ended by force where it comes to a function of a module."""
    code = KILLED.format(module=module, name=name, replacement=replacement)
    with process(url, code, *arguments) as ended:
        ended.communicate(timeout=60)
    assert ended.returncode == -signal.SIGKILL


def data_of(backup: Path) -> Path:
    return next(path for path in backup.iterdir() if path.name.startswith("data."))
