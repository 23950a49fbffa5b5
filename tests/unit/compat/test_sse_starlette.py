"""The private names of sse-starlette still mean what `compat/sse_starlette.py` says."""

from __future__ import annotations

import asyncio

import pytest
from sse_starlette.sse import AppStatus

from reactive_rpc.compat.sse_starlette import server_exit


def test_the_exit_of_the_server_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """sse-starlette sets it when uvicorn is told to stop; each loop hears of it."""

    async def main() -> None:
        waiting = asyncio.create_task(server_exit())
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        monkeypatch.setattr(AppStatus, "should_exit", True)
        async with asyncio.timeout(30):
            await waiting

    asyncio.run(main())
