"""The triggers of capture beside those of the application, on a running server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.server.rooms import lines, serving

pytestmark = pytest.mark.anyio


async def test_an_after_trigger_that_raises_ignore_hides_no_write(tmp_path: Path) -> None:
    """RAISE(IGNORE) in an AFTER trigger keeps the row and skips the triggers that come after it."""
    async with serving(tmp_path / "a.db") as server:
        server.write("CREATE TRIGGER hush AFTER INSERT ON note BEGIN SELECT RAISE(IGNORE); END")
        assert list(lines(await server.call("notes.in_room", {"room": "a"}))) == []
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
        assert server.rows() == [("a", "x")]
        assert list(lines(await server.call("notes.in_room", {"room": "a"}))) == ["x"]
