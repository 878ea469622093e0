"""Install the files of strawberry's GraphiQL page next to the server, so that the page works without the internet.

The page itself, in the installed strawberry package, says which files in which versions with which hashes; npm fetches the
packages. A file keeps its path (`graphiql@3.8.3/graphiql.min.js`), so a server that has the folder replaces
`https://unpkg.com/` in the page by its own prefix and nothing else; the browser still checks the hashes.
"""

import base64
import hashlib
import importlib.resources
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "scrm" / "graphql" / "static" / "unpkg"
ORIGIN = "https://unpkg.com/"
ASSET = re.compile(
    rf'(?:src|href)="{re.escape(ORIGIN)}(?P<package>@?[^"@]+@[^"/]+)/(?P<file>[^"]+)"\s+integrity="sha384-(?P<digest>[^"]+)"'
)


@dataclass(frozen=True)
class Asset:
    package: str
    file: str
    digest: str


def assets(page: str) -> list[Asset]:
    found = [Asset(**match.groupdict()) for match in ASSET.finditer(page)]
    if not found or len(found) != page.count(ORIGIN):
        raise SystemExit(f"strawberry's page has {page.count(ORIGIN)} files from {ORIGIN}, of which {len(found)} could be read")
    return found


def fetch(packages: list[str], folder: Path) -> dict[str, Path]:
    """Each package's archive, fetched by npm."""
    archives = {}
    for package in packages:
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        if done.returncode:
            raise SystemExit(f"npm pack {package} failed")
        archives[package] = folder / done.stdout.split()[-1]
    return archives


def read(archive: Path, asset: Asset) -> bytes:
    """The asset's content, whose hash is the one in the page."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{asset.file}")
        content = member.read() if member else b""
    digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
    if digest != asset.digest:
        raise SystemExit(f"{asset.package}/{asset.file} has the hash {digest}; strawberry's page expects {asset.digest}")
    return content


def main() -> None:
    if not shutil.which("npm"):
        raise SystemExit("npm is not installed; without local files GraphiQL loads them from unpkg.com")
    page = importlib.resources.files("strawberry").joinpath("static/graphiql.html").read_text(encoding="utf-8")
    wanted = assets(page)
    with tempfile.TemporaryDirectory() as temporary:
        archives = fetch(sorted({asset.package for asset in wanted}), Path(temporary))
        contents = {f"{asset.package}/{asset.file}": read(archives[asset.package], asset) for asset in wanted}
    shutil.rmtree(TARGET, ignore_errors=True)
    for name, content in contents.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(contents)} files, hashes as expected, in {TARGET}")


if __name__ == "__main__":
    main()
