"""SIGTERM while there is work: what is begun is ended, nothing is lost or done twice, and it does not take for ever."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.commands.serving import GRACE, WORKER_GRACE, listen
from scrm.db import Tx
from scrm.events.models import consumers, events, workers
from scrm.testing.client import Client, drain, replayed
from scrm.worker import EXIT_HANGING
from tests.core.backups import Kept, order, process, read, serve

COMMAND = "import sys; from scrm.cli import main; sys.argv[0] = 'scrm'; main()"
HASTY = f"from scrm.commands import serving; serving.WORKER_GRACE = serving._LAST = 1; {COMMAND}"
HANGING = """
import asyncio, threading
from contextlib import asynccontextmanager
from scrm.plugin import Contribution, EventType, Handler, hookimpl

def handle(tx, events, rules):
    open("at work", "w").close()
    threading.Event().wait()

@hookimpl
@asynccontextmanager
async def lifespan(context):
    yield
    await asyncio.Event().wait()

@hookimpl
def contribute():
    return Contribution(name="hanging", version="1.0", handlers=[Handler(("order.paid",), handle)])

@hookimpl
def merge(): return 0
@hookimpl
def unmerge(): return 0
@hookimpl
def erase(): ...
@hookimpl
def export(): return {}
"""


def until(happened: Callable[[], Any]) -> Any:
    """What it says once that is something; looked at again and again for a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := happened():
            return found
        select.select([], [], [], 0.05)
    raise AssertionError("it did not happen")


def cursor(url: str, name: str) -> int:
    return int(read(url, lambda tx: tx.scalar(sa.select(consumers.c.cursor).where(consumers.c.plugin == name))) or 0)


def count(url: str, table: sa.Table, *where: Any) -> int:
    def ask(tx: Tx) -> int:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(*where)))

    return read(url, ask)


def test_both_together_are_less_than_half_a_minute() -> None:
    assert GRACE + WORKER_GRACE < 28


def test_a_worker_ends_what_it_has_begun(kept: Kept) -> None:
    async def sell(client: Client) -> None:
        assert (await client.events([order(n) for n in range(1000, 2500)]))["accepted"] == 1500

    serve(kept.url, sell)
    before = cursor(kept.url, "loyalty")
    with process(kept.url, COMMAND, "worker") as worker:
        try:
            until(lambda: cursor(kept.url, "loyalty") > before)
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()
    assert count(kept.url, workers) == 0

    async def check(client: Client) -> bool:
        await drain(client)
        return (await replayed(client, "loyalty")).equal

    assert serve(kept.url, check)
    assert count(kept.url, events, events.c.type == "points.earned") == 1505


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a plugin is installed, and enabled, that neither handles an event nor leaves its lifespan."""
    info = tmp_path / "site" / "hanging-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "hanging_plugin.py").write_text(HANGING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scrm.plugins]\nhanging = hanging_plugin\n")
    monkeypatch.setenv("SCRM_PLUGINS__HANGING__ENABLED", "true")
    return tmp_path / "site"


ENDED = "not done 1 s after the signal; ending now, and what is under way is undone"


def test_a_worker_that_cannot_end_is_ended(kept: Kept, hanging: Path) -> None:
    with process(kept.url, HASTY, "worker", path=hanging, stderr=subprocess.PIPE) as worker:
        try:
            until(lambda: worker.poll() is not None or Path("at work").exists())
            worker.terminate()
            said = worker.communicate(timeout=30)[1]
        finally:
            worker.kill()
    assert worker.returncode == EXIT_HANGING, said
    assert ENDED in said
    assert cursor(kept.url, "hanging") == 0


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_a_server_that_cannot_end_is_ended(kept: Kept, hanging: Path) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    arguments = ("serve", "--no-worker", "--port", str(port))
    with process(kept.url, HASTY, *arguments, path=hanging, stderr=subprocess.PIPE) as server:
        try:
            until(lambda: server.poll() is not None or not refuses(port))
            server.terminate()
            said = server.communicate(timeout=30)[1]
        finally:
            server.kill()
    assert server.returncode == EXIT_HANGING, said
    assert ENDED in said


def test_a_server_ends_the_requests_it_has_begun(kept: Kept) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    lines = [json.dumps(order(n)).encode() + b"\n" for n in range(1000, 2200)]
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {kept.key}\r\nContent-Type: application/x-ndjson\r\n"
    head += f"Content-Length: {sum(map(len, lines))}\r\nConnection: close\r\n\r\n"
    before = count(kept.url, events)
    with process(kept.url, COMMAND, "serve", "--port", str(port), stderr=subprocess.PIPE) as server:
        try:
            connection = until(lambda: connected(port))
            with connection:
                connection.sendall(head.encode() + b"".join(lines[:700]))
                until(lambda: count(kept.url, events) > before)
                server.terminate()
                until(lambda: refuses(port))
                connection.sendall(b"".join(lines[700:]))
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            said = server.communicate(timeout=30)[1]
        finally:
            server.kill()
    assert server.returncode == 0, said
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"accepted":1200,"duplicates":0,"rejected":0}' in answer
    assert count(kept.url, workers) == 0


def connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), 30)
    except ConnectionRefusedError:
        return None


def refuses(port: int) -> bool:
    connection = connected(port)
    if connection is not None:
        connection.close()
    return connection is None
