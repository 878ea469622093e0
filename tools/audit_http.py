"""Start a server on an empty database and let graphql-http's audits (npm) say whether it speaks GraphQL over HTTP."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".mjs")
SCRM = Path(sys.executable).with_name("scrm")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if server.poll() is not None:
                raise SystemExit("the server ended; what it said stands above") from None
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(SCRIPT, folder)
        subprocess.run(["npm", "install", "--silent", "graphql-http", "graphql"], cwd=folder, check=True)
        env = {**os.environ, "SCRM_DATABASE_URL": f"sqlite:///{folder / 'audit.db'}"}
        subprocess.run([SCRM, "db", "upgrade"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        made = subprocess.run(
            [SCRM, "keys", "create", "audit", "--scope", "*"], cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True
        )
        port = free_port()
        server = subprocess.Popen([SCRM, "serve", "--no-worker", "--port", str(port)], cwd=folder, env=env)
        try:
            wait(f"http://127.0.0.1:{port}/livez", server)
            url = f"http://127.0.0.1:{port}/graphql"
            return subprocess.run(["node", SCRIPT.name, url, made.stdout.strip()], cwd=folder, check=False).returncode
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    sys.exit(main())
