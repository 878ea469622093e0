"""`scrm serve` as a process: its worker, its port, how it stops, and who is seen to run a plugin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.commands.serving import listen, supervise
from scrm.db import Database, Tx, new_id
from scrm.errors import StartupError
from scrm.events.models import workers
from scrm.testing.client import serving
from tests.core.shell import Command


def test_serve_keeps_a_worker_and_takes_it_along(scrm_: Command, tmp_path: Path) -> None:
    assert scrm_("db", "upgrade").code == 0
    with started(free_port()) as server:
        try:
            first = await_worker(0)
            os.kill(first, signal.SIGKILL)
            second = await_worker(first)
            server.terminate()
            said = server.communicate(timeout=30)[1]
        finally:
            server.kill()
    assert server.returncode == 0, said
    assert "the worker ended with status -9; starting it again in 1 s" in said
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def free_port() -> int:
    """A port that nobody listens on."""
    with listen("127.0.0.1", 0) as free:
        return int(free.getsockname()[1])


def started(port: int) -> subprocess.Popen[str]:
    """`scrm serve` on that port, the first of a group of processes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "scrm.cli", "serve", "--port", str(port)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def await_worker(other: int) -> int:
    """The process id of a worker that is not `other`, once it has reported."""
    for _ in range(1200):
        with contextlib.closing(sqlite3.connect("scrm.db", timeout=30)) as connection:
            for (pid,) in connection.execute("select pid from workers where kind = 'WORKER' and pid <> ?", [other]):
                return int(pid)
        select.select([], [], [], 0.05)
    raise AssertionError("no worker came")


def test_a_signal_for_the_whole_group_starts_no_worker_again(scrm_: Command) -> None:
    assert scrm_("db", "upgrade").code == 0
    key = scrm_("keys", "create", "shop", "--scope", "*").out.strip()
    port = free_port()
    with started(port) as server:
        try:
            worker = await_worker(0)
            with await_connection(port) as half_sent:  # keeps the server from ending while its worker ends
                head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n"
                half_sent.sendall(f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n".encode())
                assert half_sent.recv(1000).startswith(b"HTTP/1.1 100 ")
                os.killpg(server.pid, signal.SIGTERM)
                await_end(worker)
            said = server.communicate(timeout=30)[1]
        finally:
            server.kill()
    assert server.returncode == 0, said
    assert "starting it again" not in said


def await_connection(port: int) -> socket.socket:
    """A connection to the server, once it listens."""
    for _ in range(1200):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        select.select([], [], [], 0.05)
    raise AssertionError("no server came")


def await_end(pid: int) -> None:
    """Until a process is gone."""
    for _ in range(1200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        select.select([], [], [], 0.05)
    raise AssertionError("the process goes on")


async def test_a_plugin_is_not_purged_under_a_process_that_runs_it(on: Command, migrated_url: str) -> None:
    host, pid = socket.gethostname(), os.getpid()
    async with serving(migrated_url, modules={}, sections={"loyalty": {"enabled": True}}) as client:
        listed = await asyncio.to_thread(on, "plugins", "list")
        [row] = [line for line in listed.out.splitlines() if line.startswith("loyalty")]
        assert f"disabled, still running in {host}:{pid} until it restarts" in row
        said = await asyncio.to_thread(on, "plugins", "list", "--json")
        [loyalty] = [one for one in orjson.loads(said.out) if one["name"] == "loyalty"]
        assert (loyalty["state"], loyalty["runningIn"]) == ("disabled", [f"{host}:{pid}"])
        refused = await asyncio.to_thread(on, "plugins", "purge", "loyalty", "--yes")
        assert (refused.code, len(refused.err)) == (2, 1)
        assert refused.err[0].startswith(f"plugin loyalty still runs in the server {pid} on {host}, seen ")
        assert "; restart it first" in refused.err[0]
        assert (await client.data("{ users { nodes { points { balance } } } }"))["users"] == {"nodes": []}
        assert (await client.data("{ systemStatus { workers } }"))["systemStatus"] == {"workers": 0}

    killed = {"id": new_id(), "kind": "WORKER", "host": "north", "pid": 7, "plugins": ["loyalty"]}
    assert await age(migrated_url, killed, 15) == 1
    refused = await asyncio.to_thread(on, "plugins", "purge", "loyalty", "--yes")
    assert [line.split(", seen")[0] for line in refused.err] == ["plugin loyalty still runs in the worker 7 on north"]
    assert await age(migrated_url, killed, 21) == 1
    assert "still running" not in (await asyncio.to_thread(on, "plugins", "list")).out
    purged = await asyncio.to_thread(on, "plugins", "purge", "loyalty", "--yes")
    assert (purged.code, len(purged.err)) == (0, 1)


async def age(url: str, row: dict[str, Any], seconds: int) -> int:
    """Write down that a process was last seen so long ago; how many processes there are."""

    def write(tx: Tx) -> int:
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        tx.execute(sa.delete(workers).where(workers.c.id == row["id"]))
        tx.execute(sa.insert(workers).values(**row, started_at=at, seen_at=at))
        return int(tx.scalar(sa.select(sa.func.count()).select_from(workers)))

    db = Database(url)
    try:
        return await db.write(write)
    finally:
        await db.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "Invalid value for '--port': Input should be less than or equal to 65535"),
        (("--port", "-1"), "Invalid value for '--port': Input should be greater than or equal to 0"),
        (("--host", "nowhere.invalid"), "cannot listen on nowhere.invalid port 0: ; choose another with --host"),
        (("--host", "a..b"), "cannot listen on a..b port 0: that is no host name; choose another with --host"),
        (("--host", ""), "cannot listen on  port 0: ; choose another with --host"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1 port 0: ; choose another with --host"),
    ],
)
def test_where_nobody_can_listen_is_one_line(scrm_: Command, arguments: tuple[str, ...], words: str) -> None:
    assert scrm_("db", "upgrade").code == 0
    said = scrm_("serve", "--no-worker", *(() if "--port" in arguments else ("--port", "0")), *arguments)
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    start, _, end = words.partition(": ")
    assert said.err[0].startswith(start)
    assert said.err[0].endswith(end)


def test_the_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"cannot listen on 127.0.0.1 port {port}: .*; choose another with --port"):
            listen("127.0.0.1", port)


async def test_a_child_is_started_again_later_each_time_and_ends_with_its_parent(tmp_path: Path) -> None:
    waits: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 7:
            enough.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(supervise(["sh", "-c", f"echo x >> {tmp_path / 'starts'}; exit 3"], sleep))
    await asyncio.wait_for(enough.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert (tmp_path / "starts").read_text() == "x\n" * 7
