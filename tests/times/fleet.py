"""Servers, workers and imports in processes of their own, which a test may kill at any moment."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.times.till import until

SECRET = "for tests only " * 4
ROWS = 1_000
IMPORT = [
    *("--map", "externalId=id", "--map", "identity.externalId=customer", "--map", "occurredAt=at", "--map", "amount=yuan"),
    *("--map", "properties.orderId=id", "--set", "type=order.paid", "--set", "source=till", "--set", "identity.channel=store"),
]


class Fleet:
    """The processes of one brand. Whoever is killed is started again."""

    def __init__(self, directory: Path, url: str) -> None:
        (directory / "scrm.toml").write_text("[plugins.loyalty]\nenabled = true\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self.imported: list[str] = []
        self.kills: list[str] = []
        self._directory = directory
        self._environment = {**os.environ, "SCRM_DATABASE_URL": url, "SCRM_SECRET_KEY": SECRET}
        self._log = (directory / "log").open("wb")
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._commands = {"serve": ["serve", "--port", str(self.port)], "worker": ["worker"]}

    async def start(self, name: str) -> None:
        """Start a process, or another in place of one that has ended."""
        self._running[name] = await self._run(*self._commands[name])

    async def _run(self, *words: str) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "scrm.cli", *words]
        return await asyncio.create_subprocess_exec(
            *command, cwd=self._directory, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    async def answers(self) -> None:
        """Wait until the server does."""
        async with httpx2.AsyncClient() as http:

            async def alive() -> bool:
                try:
                    return (await http.get(f"{self.address}/livez")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(alive, 60)

    async def import_until(self, enough: asyncio.Event) -> None:
        """Import one file after the other; a run that is killed is begun again, with the same words."""
        number = 0
        while not enough.is_set():
            file, keys = self._file(number)
            while True:
                self._running["import"] = await self._run("import", "events", file.name, *IMPORT)
                code = await self._running["import"].wait()
                if code == 0:
                    break
                assert code == -signal.SIGKILL, self.log()
            self.imported += keys
            number += 1

    def _file(self, number: int) -> tuple[Path, list[str]]:
        keys = [f"i{number}-{row}" for row in range(ROWS)]
        file = self._directory / f"orders-{number}.csv"
        rows = "".join(
            f"{key},m{row % 23},2026-03-01T12:{row % 60:02}:00+08:00,{1 + row % 9}.00\n" for row, key in enumerate(keys)
        )
        file.write_text(f"id,customer,at,yuan\n{rows}")
        return file, keys

    async def kill(self, name: str, chance: random.Random) -> None:
        """Kill a process, and start it again; an import, and the server's own worker, are started by others."""
        await asyncio.sleep(chance.uniform(0, 0.3))
        victim = self._running.get("serve" if name == "its worker" else name)
        if victim is None or victim.returncode is not None:
            return
        pid = victim.pid if name != "its worker" else next(iter(_children(victim.pid)), None)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        self.kills.append(name)
        if name in self._commands:
            await victim.wait()
            await self.start(name)

    async def end(self) -> None:
        """End all that run, as an admin does."""
        for process in self._running.values():
            if process.returncode is None:
                process.terminate()
        ended = [await asyncio.wait_for(process.wait(), 60) for process in self._running.values()]
        self._log.close()
        assert set(ended) <= {0, -signal.SIGKILL}, self.log()

    def abandon(self) -> None:
        """Leave nothing behind, however the test ends."""
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
        self._log.close()

    async def command(self, *words: str) -> str:
        """What a command answers."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scrm.cli", *words), cwd=self._directory, env=self._environment, stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said
        return said.decode()

    def log(self) -> str:
        """The end of what they have said."""
        return (self._directory / "log").read_text()[-5_000:]


def _children(pid: int) -> list[int]:
    """The processes that this one has started, where the system tells."""
    said = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in said.read_text().split()] if said.exists() else []
