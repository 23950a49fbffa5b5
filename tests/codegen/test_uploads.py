"""Files in the generated client: bytes, paths or open files, typed, and sent again where an answer was lost."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI, File, UploadFile
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import BadRequestError, ReactiveRPC, define_reactive_function

from .generated import TypeCheckers, served

pytestmark = pytest.mark.anyio


class About(BaseModel):
    title: str


class Received(BaseModel):
    name: str | None
    type: str | None
    content: str


async def received(file: UploadFile) -> Received:
    return Received(name=file.filename, type=file.content_type, content=(await file.read()).decode())


@define_reactive_function.mutation
async def add(db: AsyncSession, file: UploadFile, title: str = "") -> Received:
    """Keep a plan."""
    return await received(file)


@define_reactive_function.mutation
async def add_all(
    about: About,
    files: Annotated[list[UploadFile], File(description="The plans,\nin order.")],
    cover: UploadFile | None = None,
) -> list[Received]:
    """Keep several."""
    return [await received(file) for file in [*([] if cover is None else [cover]), *files]]


USE = """
from __future__ import annotations
import io
from pathlib import Path
from typing import assert_type
from reactive_rpc.client import FileInput
from plans_client import Plans, SyncPlans, models

async def use(hub: Plans, opened: io.BufferedReader, spooled: io.BytesIO) -> None:
    assert_type(await hub.plans.add(file=b"abc"), models.Received)
    await hub.plans.add(file=Path("a.txt"), title="T")
    await hub.plans.add(file=opened)
    await hub.plans.add(file=("a.txt", spooled))
    await hub.plans.add(file=("a.txt", b"abc", "text/plain"))
    given: list[FileInput] = [b"abc", Path("a.txt")]
    await hub.plans.add_all(about=models.About(title="T"), files=given, cover=None)

def use_sync(hub: SyncPlans) -> None:
    assert_type(hub.plans.add(file=b"abc"), models.Received)
"""
MISUSE = """
from plans_client import Plans, SyncPlans, models

async def misuse(hub: Plans, sync: SyncPlans) -> None:
    await hub.plans.add()
    await hub.plans.add(file="a.txt")
    await hub.plans.add_all(about=models.About(title="T"), files=b"abc")
    sync.plans.add(file=None)
"""


def application(file: Path) -> FastAPI:
    functions = {"plans": {"add": add, "add_all": add_all}}
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{file}", functions=functions)
    app = FastAPI(title="Plans", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ModuleType]]:
    folder = tmp_path_factory.mktemp("plans")
    app = application(folder / "plans.db")
    with served(app, folder, "plans_client") as (url, client):
        yield url, client


def test_the_document_is_valid(tmp_path: Path) -> None:
    """OpenAPI 3.1, as Schemathesis says."""
    schemathesis.openapi.from_dict(application(tmp_path / "x.db").openapi()).validate()


def test_files_are_strictly_typed(plans: tuple[str, ModuleType], type_checkers: TypeCheckers) -> None:
    """mypy --strict and pyright accept the package and its right use; each wrong use is an error."""
    assert type_checkers.faults_of(plans[1], USE) == ""
    for said in type_checkers.said_of_misuse(plans[1], MISUSE):
        assert [line in said for line in (":5", ":6", ":7", ":8")] == [True] * 4
        assert said.count("error:") == 4


def test_arguments_are_documented(plans: tuple[str, ModuleType]) -> None:
    """By what `File(description=...)` says."""
    assert "files: The plans, in order." in (plans[1].client.PlansAddAll.__call__.__doc__ or "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "a.txt"
    written.write_bytes(b"abc")
    return written


async def test_each_way_to_give_a_file(plans: tuple[str, ModuleType], path: Path) -> None:
    """The name is that of the file, else of the argument; the type is guessed by the name, or said."""
    url, client = plans
    async with client.Plans(url) as hub:

        async def sent(file: Any) -> tuple[Any, ...]:
            found = await hub.plans.add(file=file)
            return found.name, found.type, found.content

        assert await sent(path) == ("a.txt", "text/plain", "abc")
        assert await sent(b"abc") == ("file", "application/octet-stream", "abc")
        assert await sent(("b.csv", b"abc")) == ("b.csv", "text/csv", "abc")
        assert await sent(("b", path, "x/y")) == ("b", "x/y", "abc")
        assert await sent(io.BytesIO(b"abc")) == ("file", "application/octet-stream", "abc")
        with path.open("rb") as opened:
            opened.read(1)
            assert await sent(opened) == ("a.txt", "text/plain", "abc")
            assert not opened.closed


async def test_several_files(plans: tuple[str, ModuleType], path: Path) -> None:
    """In order; a tuple of them too."""
    url, client = plans
    about = client.About(title="T")
    async with client.Plans(url) as hub:
        found = await hub.plans.add_all(about=about, files=[("1", b"1"), path])
        assert [(each.name, each.content) for each in found] == [("1", "1"), ("a.txt", "abc")]
        found = await hub.plans.add_all(about=about, files=(b"1", b"2"), cover=("c", b"3"))
        assert [each.content for each in found] == ["3", "1", "2"]
        with pytest.raises(BadRequestError, match="a file is required"):
            await hub.plans.add_all(about=about, files=[])


def test_the_sync_client_sends_the_same(plans: tuple[str, ModuleType], path: Path) -> None:
    """From its own thread."""
    url, client = plans
    with client.SyncPlans(url) as hub:
        assert hub.plans.add(file=path, title="T").content == "abc"


@pytest.mark.parametrize("file", ["a.txt", 1, [b"abc"], (), ("a.txt",), ("a.txt", "b.txt")])
async def test_what_is_no_file_is_not_sent(plans: tuple[str, ModuleType], file: Any) -> None:
    """The error says what may be given."""
    url, client = plans
    async with client.Plans(url) as hub:
        with pytest.raises(BadRequestError, match=r"give bytes, a Path, or a file opened by open\(\.\.\., 'rb'\)"):
            await hub.plans.add(file=file)


class LosesAnswers(httpx.AsyncHTTPTransport):
    """A network that loses the first answer to each request."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        response = await super().handle_async_request(request)
        if self.requests == 1:
            await response.aclose()
            raise httpx.ReadError("lost")
        return response


@pytest.mark.parametrize("opens", [True, False])
async def test_a_file_is_sent_again_whole(plans: tuple[str, ModuleType], path: Path, opens: bool) -> None:
    """Under the same key; the server compares the files, and answers as it did."""
    url, client = plans
    network = LosesAnswers()
    async with httpx.AsyncClient(transport=network) as http, client.Plans(url, http=http, retry_mutations=True) as hub:
        with path.open("rb") as opened:
            opened.read(1)
            found = await hub.plans.add(file=opened if opens else path)
    assert found.content == "abc"
    assert network.requests == 2
