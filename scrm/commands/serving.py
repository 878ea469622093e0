"""`scrm serve`, `scrm worker` and `scrm schema`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import uvicorn

from scrm.audit_chain import chaining
from scrm.auth import signing_secret
from scrm.commands.session import Session, late, note, say, session
from scrm.config import Settings
from scrm.db import Database
from scrm.errors import StartupError
from scrm.loader import refuse
from scrm.memory import settle
from scrm.plugin_set import LoadState, PluginSet
from scrm.provision import keep_event_types, note_disabled
from scrm.users.handlers import core_chores, core_handlers
from scrm.watch import Hang, read_hang
from scrm.worker import EXIT_HANGING, run_worker

log = logging.getLogger("scrm.serve")

CREATE_APP = "scrm.app:create_app"
FIT = "scrm.app:fit_schema"
START = "scrm.start:start_plugins"
SafeMode = Annotated[bool, typer.Option("--safe-mode", help="Import no plugin: the core alone.")]
GRACE = 10
"""Seconds that requests under way have after a signal to end."""
WORKER_GRACE = 15
"""Seconds that a worker has after a signal; what it has not ended then is undone, and done by the next."""
_LAST = GRACE + WORKER_GRACE + 3
_LONG_LIFE = 60.0
_LONGEST_WAIT = 30.0


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; else server.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; else server.port.")] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Do not start a worker beside the server.")] = False,
    safe_mode: SafeMode = False,
) -> None:
    """Answer requests, with a worker as a child process that is started again when it ends."""
    opened = session(ctx)
    settings = opened.settings()
    run_server(opened, settings, host, port, worker=not no_worker, safe=safe_mode)


def run_server(
    opened: Session, settings: Settings, host: str | None, port: int | None, *, worker: bool, safe: bool = False
) -> None:
    """Serve until a signal comes; the child ends with it. In the `safe` mode no plugin is imported, in the child neither.

    Raises: StartupError when something is missing or the port is taken.
    """
    _log_to_stderr()
    plugins = _started(opened, settings, safe)
    app = late(CREATE_APP)(settings, plugins=plugins)
    listening = listen(settings.server.host if host is None else host, settings.server.port if port is None else port)
    child = worker_command(opened.config, safe=safe) if worker else None
    settle()
    try:
        asyncio.run(_serve(app, listening, child))
    finally:
        listening.close()


def _started(opened: Session, settings: Settings, safe: bool) -> PluginSet:
    plugins: PluginSet = asyncio.run(late(START)(settings, core=opened.core(), safe=safe))
    for status in plugins.statuses:
        for warning in status.warnings:
            note(f"warning: {warning}")
        if status.state not in (LoadState.ACTIVE, LoadState.DISABLED):
            note(f"plugin {status.name} is {status.state}: {status.reason}")
    return plugins


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises: StartupError when it cannot.
    """
    opened: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except (OSError, UnicodeError, OverflowError) as error:
        if opened is not None:
            opened.close()
        raise StartupError(f"cannot listen on {host} port {port}: {_refusal(error)}") from None
    opened.set_inheritable(False)
    return opened


def _refusal(error: OSError | UnicodeError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "a port is a number from 0 to 65535; choose another with --port"
    if isinstance(error, UnicodeError):
        return "that is no host name; choose another with --host"
    of_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
    return f"{error.strerror or error}; choose another with {'--host' if of_host else '--port'}"


def worker_command(config: Path | None, *, safe: bool = False, with_parent: bool = True, hung: Hang | None = None) -> list[str]:
    """The command line of a worker, by default one that ends when its parent does; `hung` is why it has to start again."""
    chosen = ["--config", str(config)] if config is not None else []
    options = ["--with-parent"] if with_parent else []
    options += ["--safe-mode"] if safe else []
    options += ["--hung", str(hung)] if hung is not None else []
    return [sys.executable, "-m", "scrm.cli", *chosen, "worker", *options]


class _Server(uvicorn.Server):
    """uvicorn's, with an end: a plugin's lifespan that does not return holds nothing up."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            end_after(_LAST)
        super().handle_exit(sig, frame)


def end_after(seconds: float) -> None:
    """End this process by then, whatever it is at: transactions under way are undone."""

    def end() -> None:
        log.critical("not done %g s after the signal; ending now, and what is under way is undone", seconds)
        os._exit(EXIT_HANGING)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _serve(app: Any, listening: socket.socket, child: Sequence[str] | None) -> None:
    server = _Server(uvicorn.Config(app, lifespan="on", timeout_graceful_shutdown=GRACE, log_config=None, server_header=False))
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        server.handle_exit(number, frame)

    # uvicorn sends itself the signal again when it is done; by then the child has to be ended here, not by the signal.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, stop)
    supervisor = asyncio.create_task(supervise(child, stopping=lambda: server.should_exit)) if child is not None else None
    try:
        await server.serve([listening])
    finally:
        if supervisor is not None:
            supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervisor
    if not server.started and not signals:
        raise StartupError("the server did not start; what is above says why")


async def supervise(
    command: Sequence[str],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Keep a child running: started again when it ends, later each time it ends soon. Ends it when cancelled.

    A signal for all processes of a group ends the child while the parent is still `stopping`: then it stays away.
    """
    loop = asyncio.get_running_loop()
    wait = 1.0
    while not stopping():
        started = loop.time()
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        try:
            code = await process.wait()
        finally:
            await _end(process)
        if stopping():
            return
        wait = 1.0 if loop.time() - started > _LONG_LIFE else wait
        log.warning("the worker ended with status %s; starting it again in %g s", code, wait)
        await sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), WORKER_GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()


def worker(
    ctx: typer.Context,
    safe_mode: SafeMode = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
    hung: Annotated[str | None, typer.Option("--hung", hidden=True)] = None,
) -> None:
    """Let the plugins follow the log, run jobs and deliver messages; several workers share the work."""
    opened = session(ctx)
    settings = opened.settings()
    _log_to_stderr()
    plugins = _started(opened, settings, safe_mode)
    settle()
    again = partial(worker_command, opened.config, safe=safe_mode, with_parent=with_parent)
    asyncio.run(_work(settings, plugins, with_parent, read_hang(hung) if hung is not None else None, again))


async def _work(
    settings: Settings, plugins: PluginSet, with_parent: bool, hung: Hang | None, again: Callable[..., list[str]]
) -> None:
    stop = asyncio.Event()

    def on_hang(hang: Hang) -> None:
        log.critical("%s does not return; the worker starts again without it, so that the others go on", hang)
        if stop.is_set():
            os._exit(EXIT_HANGING)
        command = again(hung=hang)
        os.execv(command[0], command)

    loop = asyncio.get_running_loop()

    def finish() -> None:
        if not stop.is_set():
            end_after(WORKER_GRACE)
        stop.set()

    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, finish)
    if with_parent:
        threading.Thread(target=_follow_parent, args=(loop, finish), daemon=True).start()
    chores = (*core_chores(settings.zone), chaining(signing_secret(settings)))
    db = Database(settings.database_url, pool_size=settings.database_pool)
    try:
        await db.write(keep_event_types, plugins)
        await db.write(note_disabled, plugins, db.clock())
        await run_worker(
            db,
            settings,
            plugins,
            core_handlers(settings.zone),
            stop,
            chores=chores,
            hangs_after=settings.handler_seconds,
            on_hang=on_hang,
            hung=hung,
        )
    finally:
        await db.close()


def _follow_parent(loop: asyncio.AbstractEventLoop, finish: Callable[[], None]) -> None:
    """The parent holds the other end of standard input, which closes with it however it ends."""
    while os.read(0, 1024):
        pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(finish)


def schema(ctx: typer.Context) -> None:
    """Print the GraphQL schema of this configuration; needs no database."""
    opened = session(ctx)
    settings = opened.settings()
    fitting, frozen = late(FIT)(settings, opened.plugins(settings, "skip"))
    if settings.on_plugin_error == "fail":
        refuse(fitting.statuses)
    say(frozen.sdl().rstrip("\n"))


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
