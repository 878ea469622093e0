"""Events per second and resident memory of `scrm import events`: a long file must not need more memory than a short one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import psutil

from bench.ingest import PEOPLE, event
from scrm.config import PluginSection, Settings
from scrm.db import Database
from scrm.importer import ImportOptions, import_events
from scrm.importing.ledger import Tally
from scrm.loader import load_plugins
from scrm.memory import settle
from scrm.provision import all_event_types, provision
from scrm.testing import postgres_server


def run(events: int) -> None:
    """Print the figures; each engine's import is a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.ndjson"
        with file.open("wb") as lines:
            lines.writelines(orjson.dumps(event("file", number, PEOPLE)) + b"\n" for number in range(events))
        measure("SQLite", f"sqlite:///{folder}/bench.db", file)
        with postgres_server(on_disk=True) as server, server.database() as url:
            measure("PostgreSQL", url, file)


def measure(engine: str, url: str, file: Path) -> None:
    """One engine."""
    print(f"import: {engine:10}  ", end="", flush=True)
    subprocess.run([sys.executable, "-m", "bench.imports", url, str(file)], check=True)


async def import_file(url: str, file: Path) -> str:
    """What `scrm import events FILE` does, looking at its own memory on the way."""
    settings = Settings(database_url=url, plugins={"loyalty": PluginSection(enabled=True)})
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    seen: list[tuple[int, int]] = []
    process = psutil.Process()

    def look(tally: Tally) -> None:
        seen.append((tally.rows_read, process.memory_info().rss))

    fields = (
        "type",
        "occurredAt",
        "source",
        "identity.channel",
        "identity.externalId",
        "amount",
        "currency",
        "properties.orderId",
    )
    columns = {"amount": "amount.amountMinor", "currency": "amount.currency"}
    options = ImportOptions(
        path=file,
        map=[f"{name}={columns.get(name, name)}" for name in (*fields, "externalId")],
        minor=True,
        create_channel="STORE",
    )
    db = Database(url)
    settle()
    start, cpu = time.perf_counter(), time.process_time()
    report = await import_events(db, settings, all_event_types(plugins), options, look)
    took, used = time.perf_counter() - start, time.process_time() - cpu
    await db.close()
    count = report.tally.accepted
    if count != report.tally.rows_read or not count:
        raise AssertionError(report)
    tenth = next(memory for rows, memory in seen if rows >= count // 10)
    return (
        f"{count / took:.0f} of {count} events/s; CPU per event: {used / count * 1e6:.0f} µs of the import; "
        f"{tenth / 2**20:.0f} MiB at a tenth, {seen[-1][1] / 2**20:.0f} MiB at the end"
    )


if __name__ == "__main__":
    print(asyncio.run(import_file(sys.argv[1], Path(sys.argv[2]))))
