"""Who may share a look at the database: requests that a server has read, and nobody else."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from reactive_rpc.testing import running
from reactive_rpc.web.routing.conditions import is_server_request

app = FastAPI()


@app.get("/")
async def is_shared() -> bool:
    """Answer what the server says of this very request."""
    return is_server_request()


def test_a_request_that_uvicorn_read_is_a_servers() -> None:
    """If uvicorn names its coroutine otherwise one day, this fails, and reads are slower until it is mended."""
    with running(app) as url:
        assert httpx.get(url).json() is True


@pytest.mark.anyio
async def test_a_request_made_in_this_process_is_not() -> None:
    """An in-process transport runs in the caller's task, which may have written a moment ago."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        assert (await client.get("/")).json() is False
