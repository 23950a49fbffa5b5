"""Unmodified clients of tRPC's, the newest and the pinned one, by every link, against a purpose-made application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from reactive_rpc.testing import running

from .desk import rpc_on
from .official_client import CLIENTS, faults_of


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("desk")
    rpc = rpc_on(folder / "desk.db", settings={"heartbeat_seconds": 1.0})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/posted", allow_method_override=True))
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    with running(app) as base:
        yield base


@pytest.mark.parametrize("client", CLIENTS)
def test_every_link_works_unmodified(client: str, url: str) -> None:
    """Calls, batches, streams of them, subscriptions, errors, forms and splits: each check says what was wrong."""
    found = faults_of(CLIENTS[client], f"{url}/trpc")
    assert len(found) == 17
    assert {name: fault for name, fault in found.items() if fault} == {}
