"""The desk, open, and a client that calls it in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from .desk import rpc_on

ADA = {"authorization": "Bearer ada"}


@asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an application on a file; two further mounts have options of their own."""
    rpc = rpc_on(path, **options)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/posted", allow_method_override=True, max_batch_size=2))
    app.include_router(rpc.trpc_router(prefix="/single", allow_batching=False))
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.headers.update(ADA)
        yield client


@pytest.fixture
async def desk(tmp_path: Path, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tmp_path / "desk.db") as client:
        yield client
