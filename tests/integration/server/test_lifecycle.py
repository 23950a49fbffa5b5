"""An application that is closed and opened again in one process."""

from __future__ import annotations

from typing import Any

import pytest

from .postgresql_rooms import serving
from .rooms import lines

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("relayed", [False, True])
async def test_what_was_written_while_it_was_closed(
    postgresql_url: str, redis_server_url: str, redis_namespace: str, relayed: bool
) -> None:
    """It shows in the first answer: nothing that was stored before is served."""
    settings: dict[str, Any] = {"redis_url": redis_server_url, "redis_namespace": redis_namespace} if relayed else {}
    async with serving(postgresql_url, settings=settings) as server:
        assert list(lines(await server.call("notes.in_room", {"room": "r"}))) == []
        await server.rpc.admin.aclose()
        server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
        await server.rpc.admin.open()
        assert list(lines(await server.call("notes.in_room", {"room": "r"}))) == ["a"]
