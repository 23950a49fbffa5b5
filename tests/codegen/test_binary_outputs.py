"""Bytes in the generated client: a file with its name and its media type, typed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from reactive_rpc import NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.client import ReceivedFile
from reactive_rpc.codegen import generate
from reactive_rpc.testing import running

from .test_uploads import checked

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
    generate(app.openapi(), folder / "prints_client")
    sys.path.insert(0, str(folder))
    with running(app) as url:
        yield url, importlib.import_module("prints_client")
    sys.path.remove(str(folder))


def test_files_are_strictly_typed(prints: tuple[str, ModuleType], pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """mypy --strict and pyright accept the package and its use; there is nothing to watch."""
    folder = Path(str(prints[1].__file__)).parents[1]
    cache = pytestconfig.cache.mkdir("mypy_typing") if pytestconfig.cache else tmp_path / "cache"
    mypy = ["mypy", "--strict", "--config-file=", "--no-error-summary", "--cache-dir", str(cache)]
    pyright = ["pyright", "--pythonpath", sys.executable]
    (folder / "use.py").write_text(USE)
    (folder / "misuse.py").write_text(MISUSE)
    assert checked(folder, *mypy, "-p", "prints_client", "-m", "use") == ""
    assert checked(folder, *pyright, "prints_client", "use.py") == ""
    for said in (checked(folder, *mypy, "-m", "misuse"), checked(folder, *pyright, "misuse.py")):
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
