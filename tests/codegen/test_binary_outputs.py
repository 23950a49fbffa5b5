"""Bytes in the generated client: a file with its name and its media type, typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from reactive_rpc import NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.client import ReceivedFile

from .generated import TypeCheckers, served

pytestmark = pytest.mark.anyio


@define_reactive_function(cache=False)
async def plan(name: str) -> Response:
    """The plan as a file."""
    if name == "none":
        raise NotFoundError("no such plan")
    headers = {"content-disposition": f'attachment; filename="{name}"'} if name else {}
    return Response(name.encode(), headers=headers, media_type="application/pdf")


@define_reactive_function.mutation
async def print_it() -> JSONResponse:
    return JSONResponse({"printed": True})


USE = """
from __future__ import annotations
from typing import assert_type
from reactive_rpc.client import ReceivedFile
from prints_client import Prints, SyncPrints

async def use(hub: Prints, sync: SyncPrints) -> None:
    assert_type(await hub.plans.plan(name="a"), ReceivedFile)
    assert_type(sync.plans.print_it(), ReceivedFile)
"""
MISUSE = """
from prints_client import Prints

async def misuse(hub: Prints) -> None:
    hub.plans.plan.watch(name="a")
"""


def application(file: Path) -> FastAPI:
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions={"plans": {"plan": plan, "print_it": print_it}})
    app = FastAPI(title="Prints", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app


@pytest.fixture(scope="module")
def prints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ModuleType]]:
    folder = tmp_path_factory.mktemp("prints")
    app = application(folder / "prints.db")
    schemathesis.openapi.from_dict(app.openapi()).validate()
    with served(app, folder, "prints_client") as (url, client):
        yield url, client


def test_files_are_strictly_typed(prints: tuple[str, ModuleType], type_checkers: TypeCheckers) -> None:
    """mypy --strict and pyright accept the package and its use; there is nothing to watch."""
    assert type_checkers.faults_of(prints[1], USE) == ""
    for said in type_checkers.said_of_misuse(prints[1], MISUSE):
        assert said.count("error:") == 1


async def test_a_file_comes_back(prints: tuple[str, ModuleType]) -> None:
    """With its name, without the folders before it, and its media type; JSON too is bytes here."""
    url, client = prints
    async with client.Prints(url, retry_mutations=True) as hub:
        assert await hub.plans.plan(name="../a.pdf") == ReceivedFile(b"../a.pdf", "application/pdf", "a.pdf")
        assert await hub.plans.plan(name="") == ReceivedFile(b"", "application/pdf", None)
        assert await hub.plans.print_it() == ReceivedFile(b'{"printed":true}', "application/json", None)
        with pytest.raises(NotFoundError, match="no such plan"):
            await hub.plans.plan(name="none")


def test_the_sync_client_gets_the_same(prints: tuple[str, ModuleType]) -> None:
    """From its own thread."""
    url, client = prints
    with client.SyncPrints(url, retry_mutations=True) as hub:
        assert hub.plans.plan(name="a").content == b"a"
        assert hub.plans.print_it().media_type == "application/json"
