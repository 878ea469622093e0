"""The four reads over HTTP: scrm, the same statements behind a bare route, and the usual way, interleaved."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import psutil

from bench import batched
from bench.data import fill
from bench.load import Rate, Wire, post, rate, wires
from bench.queries import BATCHED, Read, reads
from bench.served import PLUGINS, settings_for
from scrm.auth import create_key, signing_secret
from scrm.db import Database
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

CONNECTIONS = 8


def run(users: int, events: int, seconds: float, rounds: int) -> None:
    """Print the figures."""
    with postgres_server(on_disk=True) as server, server.database() as url:
        key, somebody = asyncio.run(prepare(url, users, events))
        with served(url) as (port, process):
            print(f"reads: PostgreSQL, {users} users, {events} events, {CONNECTIONS} connections, median of {rounds} rounds")
            asyncio.run(compare(port, process, key, somebody, seconds, rounds))


async def prepare(url: str, users: int, events: int) -> tuple[str, str]:
    """A filled database, a key, and somebody's id."""
    settings = settings_for(url)
    plugins = load_plugins(settings, extra={"batched": batched})
    await provision(settings, plugins)
    db = Database(url)
    try:
        key = await db.write(create_key, signing_secret(settings), "bench", ["*"], at=db.clock(), actor="bench")
        return key, await db.write(fill, users, events)
    finally:
        await db.close()


@contextmanager
def served(url: str, names: Sequence[str] = PLUGINS) -> Iterator[tuple[int, psutil.Process]]:
    """The port and process of a server with these plugins."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    command = [sys.executable, "-m", "bench.served", str(port), *names]
    with subprocess.Popen(command, env={**os.environ, "BENCH_URL": url}) as process:
        try:
            _wait(f"http://127.0.0.1:{port}/livez", process)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise SystemExit("the server ended") from None
            time.sleep(0.1)
    raise SystemExit("the server does not answer")


@dataclass(frozen=True)
class Watched:
    """How many answers took the short way so far, and how many statements were sent while they were watched."""

    taken: int
    sent: int


class Bench:
    """One server, one key."""

    def __init__(self, port: int, process: psutil.Process, key: str) -> None:
        self.port = port
        self.process = process
        self.headers = {"Authorization": f"Bearer {key}"}

    def request(self, way: str, read: Read) -> bytes:
        """What is sent for a read."""
        body = orjson.dumps({"query": read.query, "variables": read.variables})
        path = {"scrm": "/graphql", "usual": "/usual/"}.get(way, f"/floor/{read.name.split()[0]}")
        return post(path, body, self.headers)

    async def answer(self, wire: Wire, request: bytes) -> Any:
        """One answer's JSON."""
        status, body = await wire.ask(request)
        if status != 200 or b'"errors"' in body[:12]:
            raise AssertionError(f"{status}: {body[:500]!r}")
        return orjson.loads(body)

    def watch(self, name: str, on: bool) -> Watched:
        """Remember the statement of the next answers for the floor; how many took the short way so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/watch/{name}{'?on=1' if on else ''}") as response:
            return Watched(**orjson.loads(response.read()))


async def compare(port: int, process: psutil.Process, key: str, somebody: str, seconds: float, rounds: int) -> None:
    """Every read in every way."""
    bench = Bench(port, process, key)
    async with wires(port, CONNECTIONS) as opened:
        found: dict[str, Mapping[str, list[Rate]]] = {}
        for read in reads(somebody):
            found[read.name] = await each_way(bench, opened, read, ("floor", "scrm", "usual"), seconds, rounds)
            show(read.name, found[read.name])
        both = await each_way(bench, opened, BATCHED, ("scrm",), seconds, rounds)
        print(f"Q1 with a batch field: {share(both['scrm'], found['Q1']['scrm']):.0%} of Q1")
    async with wires(port, 1) as alone:
        for read in reads(somebody):
            one = await each_way(bench, alone, read, ("floor", "scrm"), seconds / 2, 1)
            print(f"{read.name} alone: {one['scrm'][0].median_ms:.2f} ms, the floor {one['floor'][0].median_ms:.2f} ms")


async def each_way(
    bench: Bench, opened: list[Wire], read: Read, ways: tuple[str, ...], seconds: float, rounds: int
) -> Mapping[str, list[Rate]]:
    """The rates of a read, way by way in turn, after every way has said the same."""
    name = read.name.split()[0]
    before = bench.watch(name, True)
    said = await bench.answer(opened[0], bench.request("scrm", read))
    if bench.watch(name, False).taken != before.taken + 1:
        raise AssertionError(f"{read.name} did not take the short way")
    root = next(iter(said["data"].values()))
    lengths = {}
    for way in ways:
        request = bench.request(way, read)
        answer = await bench.answer(opened[0], request)
        if (answer if way == "floor" else _times(next(iter(answer["data"].values())))) != (
            root if way == "floor" else _times(root)
        ):
            raise AssertionError(f"{read.name}: {way} answers something else: {orjson.dumps(answer)[:600]!r}")
        lengths[way] = len((await opened[0].ask(request))[1])
    rates: dict[str, list[Rate]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            rates[way].append(await rate(bench.process, opened, bench.request(way, read), lengths[way], seconds))
    return rates


def _times(value: Any) -> Any:
    """Instants without their text: the usual way writes them as Python does."""
    if isinstance(value, dict):
        return {key: None if key.endswith("At") else _times(each) for key, each in value.items()}
    return [_times(each) for each in value] if isinstance(value, list) else value


def share(ours: list[Rate], theirs: list[Rate]) -> float:
    """Requests per second against another way's."""
    return statistics.median(each.per_second for each in ours) / statistics.median(each.per_second for each in theirs)


def show(name: str, rates: Mapping[str, list[Rate]]) -> None:
    """A line for each read."""
    parts = []
    for way, found in rates.items():
        per_second, cpu = (statistics.median(getattr(each, what) for each in found) for what in ("per_second", "cpu_ms"))
        p99 = statistics.median(each.p99_ms for each in found)
        parts.append(f"{way} {per_second:.0f}/s (CPU {cpu:.2f} ms, p99 {p99:.1f} ms)")
    shares = {"floor": "{:.0%} of the floor", "usual": "{:.1f} x the usual way"}
    against = ", ".join(said.format(share(rates["scrm"], rates[way])) for way, said in shares.items() if way in rates)
    print(f"{name}: {'; '.join(filter(None, [against, ', '.join(parts)]))}")
