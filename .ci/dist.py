#!/usr/bin/env python3
"""Build the wheel and the sdist into dist/, check what is in them, and use them as a stranger would: `make dist`.

The wheel is built from the sdist, which is thereby shown to be complete. It is installed into two environments that
have nothing else: one with the extras of a server, which serves the README's example, and one without extras, which
calls that server by the client that was generated from it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
UV = ROOT / ".venv/bin/uv"
TWINE = "twine==7.0.0"
MOST_BYTES = {".whl": 1_000_000, ".gz": 2_500_000}
NOT_FOR_CLIENTS = ("fastapi", "sqlalchemy", "sqlmodel", "starlette", "uvicorn", "redis", "typer")

CALL = """
import sys
import reactive_rpc
from generated_client import SyncNotebook

assert reactive_rpc.__file__.startswith(sys.prefix), reactive_rpc.__file__
with SyncNotebook(sys.argv[1]) as hub:
    added = hub.notes.add(room="kitchen", text="buy milk")
    (read,) = hub.notes.get_all(room="kitchen")
    assert read.id == added.id and read.text == "buy milk", (added, read)
"""
SERVE = """
import subprocess
import sys
import httpx
from reactive_rpc.testing import serving

with serving("main:app") as url:
    subprocess.run([sys.argv[1], "-c", sys.argv[2], url], check=True)
    httpx.get(f"{url}/rpc/health").raise_for_status()
"""


def main() -> None:
    """Do all of it; end with a message at the first thing that is wrong."""
    wheel, sdist = build()
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory() as folder:
        use(wheel, Path(folder))
    print(f"dist: {wheel.name} ({wheel.stat().st_size:,} bytes) and {sdist.name} ({sdist.stat().st_size:,} bytes) hold")


def build() -> tuple[Path, Path]:
    """Return the wheel and the sdist it was built from, both new and well described."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(UV, "build", "--quiet", "--out-dir", DIST, ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(UV, "tool", "run", "--quiet", "--from", TWINE, "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """Compare what is packed with what git tracks: the wheel is the package alone, the sdist is everything."""
    tracked = set(output("git", "-C", ROOT, "ls-files").splitlines())
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames()}
    expect_same("the sdist", packed - {"PKG-INFO"}, tracked)
    package = {name for name in tracked if name.startswith("reactive_rpc/")}
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expect_same("the wheel", installed, package)
    expect("reactive_rpc/py.typed" in installed, "the wheel has no py.typed: its types are not seen")
    for file in (wheel, sdist):
        size, most = file.stat().st_size, MOST_BYTES[file.suffix]
        expect(size <= most, f"{file.name} has {size:,} bytes, more than {most:,}: what came into it?")


def use(wheel: Path, folder: Path) -> None:
    """Serve the README's example from one environment, and call it from another that has no server's libraries."""
    server = environment(folder / "server", f"{wheel}[server,cli]")
    client = environment(folder / "client", str(wheel))
    installed = {line.split("==")[0].lower() for line in output(UV, "pip", "freeze", "--python", client).splitlines()}
    expect(not installed & {*NOT_FOR_CLIENTS}, f"a client installs {installed & {*NOT_FOR_CLIENTS}}")

    (example,) = re.findall(r"```python\n(# main\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (folder / "main.py").write_text(example)
    command = server.parent / "reactive-rpc"
    run(command, "export-openapi", "main:app", "--out", "openapi.json", folder=folder)
    run(command, "generate", "--openapi", "openapi.json", "--out", "generated_client", folder=folder)
    run(server, "-c", SERVE, client, CALL, folder=folder)


def environment(folder: Path, requirement: str) -> Path:
    """Return the Python of a new environment with one requirement, at the releases of constraints.txt."""
    run(UV, "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin/python"
    run(UV, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", requirement)
    return python


def expect_same(what: str, found: set[str], wanted: set[str]) -> None:
    """End where two sets of files differ."""
    expect(found == wanted, f"{what} lacks {listed(wanted - found)}; it has beside them {listed(found - wanted)}")


def listed(names: Iterable[str]) -> str:
    """Return names in one line."""
    return ", ".join(sorted(names)) or "nothing"


def expect(holds: bool, otherwise: str) -> None:
    """End with a message where something does not hold."""
    if not holds:
        sys.exit(f"dist: {otherwise}")


def run(*command: object, folder: Path = ROOT) -> None:
    """Run a command, and end where it fails."""
    done = subprocess.run([*map(str, command)], cwd=folder, env=clean_environment(), check=False)
    expect(done.returncode == 0, f"failed: {' '.join(map(str, command[:4]))} ...")


def output(*command: object) -> str:
    """Return what a command prints."""
    return subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True).stdout


def clean_environment() -> Mapping[str, str]:
    """Return our variables without those that would lead another Python back to this checkout."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


if __name__ == "__main__":
    main()
