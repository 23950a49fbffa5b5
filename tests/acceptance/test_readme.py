"""The README's example is run as it stands."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import httpx
import pytest

from reactive_rpc.protocol.events import Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.testing import serving

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's `main.py`."""
    blocks = re.findall(r"```python\n(# main\.py\n.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "main.py").write_text(blocks[0], encoding="utf-8")
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
                told = asyncio.create_task(_next_invalidation(stream))
                with sqlite3.connect(folder / "notes.db") as connection:
                    connection.execute("INSERT INTO note (room, text) VALUES ('kitchen', 'sweep')")
                connection.close()
                event = await asyncio.wait_for(told, 20)
            assert event.affected[0].path == "notes.get_all"
            notes = (await client.get("/rpc/notes.get_all", params={"room": "kitchen"})).json()
            assert [note["text"] for note in notes] == ["buy milk", "sweep"]

    with serving("main:app", folder=folder) as url:
        asyncio.run(use(url))


def test_the_example_is_short() -> None:
    """What a user types is about twenty lines, imports and tables included."""
    (block,) = re.findall(r"```python\n# main\.py\n(.*?)```", README, re.DOTALL)
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) <= 25
