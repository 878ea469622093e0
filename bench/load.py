"""Load over HTTP: keep-alive connections that ask again as soon as they are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Rate:
    """Answers per second, the server process's CPU for each, and how long they took."""

    per_second: float
    cpu_ms: float
    median_ms: float
    p99_ms: float


class Wire:
    """One connection that speaks as much HTTP as a benchmark needs."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        """Call."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of an answer; a server that has hung up, for nothing was asked for some seconds, is called again."""
        if self._reader.at_eof():
            self.close()
            await self.open()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return status, await self._reader.readexactly(length)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@asynccontextmanager
async def wires(port: int, count: int) -> AsyncIterator[list[Wire]]:
    """So many connections."""
    opened = [Wire(port) for _ in range(count)]
    await asyncio.gather(*(each.open() for each in opened))
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


def post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A request's bytes."""
    said = {"Host": "bench", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def rate(server: psutil.Process, opened: list[Wire], request: bytes, expected: int, seconds: float) -> Rate:
    """Ask for so many seconds; every answer must be as long as expected, within what an error message would never be."""
    times: list[float] = []
    start, cpu = time.perf_counter(), sum(server.cpu_times()[:2])

    async def client(wire: Wire) -> None:
        while (began := time.perf_counter()) - start < seconds:
            status, body = await wire.ask(request)
            if status != 200 or abs(len(body) - expected) > 40:
                raise AssertionError(f"{status}, {len(body)} bytes instead of {expected}: {body[:300]!r}")
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(client(wire) for wire in opened))
    took = time.perf_counter() - start
    times.sort()
    used = sum(server.cpu_times()[:2]) - cpu
    count = len(times)
    return Rate(count / took, used / count * 1000, times[count // 2] * 1000, times[int(count * 0.99)] * 1000)
