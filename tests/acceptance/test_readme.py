"""The README is run as it stands: its installation, its application, its commands, its client."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from reactive_rpc.protocol.events import Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.testing import serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
IDEMPOTENCY = (ROOT / "docs/how-to/idempotency.md").read_text(encoding="utf-8")
WRITTEN_FOR = "http://127.0.0.1:8000"
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
DEADLINE_SECONDS = 60.0
RUN_WITH_AWAIT = """
import ast, asyncio, pathlib
source = pathlib.Path("use.py").read_text()
asyncio.run(eval(compile(source, "use.py", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's `main.py`."""
    [main] = [block for block in PYTHON if block.startswith("# main.py\n")]
    (tmp_path / "main.py").write_text(main, encoding="utf-8")
    return tmp_path


async def _next_invalidation(response: httpx.Response) -> Invalidation:
    decoder = SSEDecoder()
    async for chunk in response.aiter_bytes():
        for event in map(decode_event, decoder.feed(chunk)):
            if isinstance(event, Invalidation):
                return event
    raise AssertionError("the stream ended")


def test_the_example_serves_caches_and_tells(folder: Path) -> None:
    """A note is written, read, written by another connection, told of, and read again."""

    async def use(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            assert (await client.get("/rpc/notes.get_all", params={"room": "kitchen"})).json() == []
            added = await client.post("/rpc/notes.add", json={"room": "kitchen", "text": "buy milk"})
            assert added.json() == {"id": 1, "room": "kitchen", "text": "buy milk"}
            wanted = {"queries": [{"path": "notes.get_all", "input": {"room": "kitchen"}}]}
            async with client.stream("POST", "/rpc/events", json=wanted) as stream:
                invalidation = asyncio.create_task(_next_invalidation(stream))
                with sqlite3.connect(folder / "notes.db") as connection:
                    connection.execute("INSERT INTO note (room, text) VALUES ('kitchen', 'sweep')")
                connection.close()
                event = await asyncio.wait_for(invalidation, 60)
            assert event.affected[0].path == "notes.get_all"
            notes = (await client.get("/rpc/notes.get_all", params={"room": "kitchen"})).json()
            assert [note["text"] for note in notes] == ["buy milk", "sweep"]

    with serving("main:app", folder=folder) as url:
        asyncio.run(use(url))


@contextmanager
def _output(command: list[str], folder: Path) -> Iterator[Iterator[str]]:
    """Give the lines that a command prints, while it runs; it is killed in the end, or when it takes too long."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    impatience = threading.Timer(DEADLINE_SECONDS, process.kill)
    impatience.start()
    try:
        yield iter(process.stdout)
    finally:
        impatience.cancel()
        process.kill()
        process.stdout.close()
        process.wait()


def _printed(script: str, folder: Path, url: str) -> str:
    """Return all that a shell prints for a script, which must succeed."""
    command = ["bash", "-euc", script.replace(WRITTEN_FOR, url)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS
    ).stdout


def test_the_commands_answer(folder: Path) -> None:
    """Each `curl` of the README and of the page on idempotency, in order; the stream is connected, and hears a note."""
    [block] = [block for block in SHELL if block.startswith("uvicorn main:app\n")]
    read, add, listen = re.findall(r"^curl(?:.*\\\n)*.*$", block, re.MULTILINE)
    [add_once] = re.findall(r"```sh\n(curl.*?)```", IDEMPOTENCY, re.DOTALL)
    note = '{"id":1,"room":"kitchen","text":"buy milk"}'
    with serving("main:app", folder=folder) as url:
        assert _printed(read, folder, url) == "[]"
        assert _printed(add, folder, url) == note
        assert _printed(read, folder, url) == f"[{note}]"
        assert _printed(add_once, folder, url) == _printed(add_once, folder, url) == note.replace("1", "2")
        with _output(["bash", "-c", listen.replace(WRITTEN_FOR, url)], folder) as lines:
            assert next(line for line in lines if line.startswith("event:")) == "event: connected\n"
            _printed(add, folder, url)
            assert next(line for line in lines if line.startswith("event:")) == "event: invalidation\n"


def test_the_client_shows_what_changes(folder: Path) -> None:
    """It is generated by the README's commands, and its program prints the note that it adds, and one that is added."""
    [generate] = [block for block in SHELL if "reactive-rpc generate" in block]
    [program] = [block for block in PYTHON if "generated_client" in block]
    path = f"PATH={Path(sys.executable).parent}:$PATH\n"
    with serving("main:app", folder=folder) as url:
        _printed(path + generate, folder, url)
        (folder / "use.py").write_text(program.replace(WRITTEN_FOR, url), encoding="utf-8")
        with _output([sys.executable, "-uWerror", "-c", RUN_WITH_AWAIT], folder) as lines:
            assert any("buy milk" in line and line.endswith(" False\n") for line in lines)
            httpx.post(f"{url}/rpc/notes.add", json={"room": "kitchen", "text": "sweep"}).raise_for_status()
            assert any("sweep" in line and line.endswith(" False\n") for line in lines)


def test_the_package_installs_from_this_folder(folder: Path) -> None:
    """By the README's command, into an environment that has nothing; the application is then served from there."""
    [install] = [block for block in SHELL if block.startswith("pip install")]
    source = folder / "checkout"
    shutil.copytree(ROOT / "reactive_rpc", source / "reactive_rpc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    # The pip of this environment installs into the other one, which saves putting one there.
    pip = f"{sys.executable} -m pip --python {python} --quiet --disable-pip-version-check"
    subprocess.run(
        ["bash", "-euc", install.replace("pip install", f"{pip} install --no-compile")], cwd=source, check=True
    )
    answered = "import main; from starlette.testclient import TestClient as Client"
    ask = f"{answered}\nwith Client(main.app) as client: print(client.get('/rpc/notes.get_all?room=kitchen').json())"
    ran = subprocess.run([str(python), "-c", ask], cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


def test_the_example_is_short() -> None:
    """What a user types is about twenty lines, imports and tables included."""
    [block] = [block for block in PYTHON if block.startswith("# main.py\n")]
    lines = [line for line in block.splitlines()[1:] if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) <= 25


def test_the_page_is_short() -> None:
    """It says what this is, why to believe it, how to begin, and where to go next; the docs have the rest."""
    assert len(README.splitlines()) < 150


def test_no_program_of_the_page_is_left_out() -> None:
    """Each Python block is the application or the client, which are both run."""
    assert len(PYTHON) == 2
