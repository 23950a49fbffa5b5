"""The TypeScript client over tRPC's wire, by Node, against a purpose-made application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from reactive_rpc.testing import running

from .desk import rpc_on
from .official_client import faults_of


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("desk")
    rpc = rpc_on(folder / "desk.db")
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    with running(app) as base:
        yield base


def test_files_and_links_of_the_page_work(url: str) -> None:
    """Each check says what was wrong."""
    found = faults_of("trpc/runtime.ts", url)
    assert len(found) == 6
    assert {name: fault for name, fault in found.items() if fault} == {}
