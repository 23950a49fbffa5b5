"""Handlers that return a response of their own: files, bytes, streams; over HTTP and in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import Response

from reactive_rpc import Login, NotFoundError, after_commit, define_reactive_function
from reactive_rpc.errors import InternalServerError
from reactive_rpc.statements.faults import OvertakenError
from reactive_rpc.testing import running

from .rooms import JSON, Note, Server, app_of, error_of, rpc_on, serving, who

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 1000
DONE: list[str] = []


def stored() -> Path:
    """Return the path of the file that is answered; replaced in tests."""
    raise NotImplementedError


Stored = Annotated[Path, Depends(stored)]
uncached = define_reactive_function.defaults(query={"cache": False})


@uncached(raises=[NotFoundError])
async def plan(path: Stored, name: str = "plan.pdf") -> FileResponse:
    """The plan as a file."""
    if name == "none":
        raise NotFoundError("no such plan")
    return FileResponse(path, filename=name, media_type="application/pdf")


@uncached
def plan_sync(db: Session, size: int) -> Response:
    return Response(CONTENT[:size], media_type="application/octet-stream", headers={"cache-control": "max-age=5"})


@uncached
async def lines(count: int = 3) -> StreamingResponse:
    async def written() -> AsyncIterator[str]:
        for number in range(count):
            DONE.append(f"line {number}")
            yield f"{number}\n"

    return StreamingResponse(written(), media_type="text/csv", background=BackgroundTask(DONE.append, "sent"))


@uncached
async def wrong() -> PlainTextResponse:
    return Response(b"")  # type: ignore[return-value]  # as somebody writes it who runs no checker


@uncached
async def mine(ctx: Login) -> PlainTextResponse:
    return PlainTextResponse(str(ctx.identity))


def marked(response: Response) -> None:
    response.headers["x-mark"] = "beside"
    response.headers["content-type"] = "text/html"
    response.set_cookie("seen", "1")


@uncached
async def with_headers(mark: Annotated[None, Depends(marked)]) -> Response:
    response = PlainTextResponse("here", status_code=201)
    response.set_cookie("own", "2")
    return response


@define_reactive_function.mutation
async def add(db: AsyncSession, file: UploadFile, room: str = "plans") -> Response:
    """Keep a file, and give it back."""
    db.add(Note(room=room, text=file.filename or ""))
    after_commit(DONE.append, "after the commit")
    if not DONE:
        DONE.append("tried")
        raise OvertakenError("by another write")
    return Response(await file.read(), media_type=file.content_type)


@define_reactive_function.mutation
async def print_all(db: AsyncSession) -> PlainTextResponse:
    db.add(Note(room="printed", text="x"))
    return PlainTextResponse("printed")


FILES: dict[str, Any] = {
    "files": {each.name: each for each in (plan, plan_sync, lines, wrong, with_headers, add, print_all)}
}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    DONE.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "stored"
    written.write_bytes(CONTENT)
    return written


@pytest.fixture
async def files(file: Path, path: Path, anyio_backend: str) -> AsyncIterator[Server]:
    async with serving(file, FILES) as opened:
        opened.rpc.overrides[stored] = lambda: path
        yield opened


async def get(server: Server, name: str, *, method: str = "GET", **headers: str) -> httpx.Response:
    return await server.client.request(method, f"/rpc/files.{name}", headers=headers)


async def test_the_response_is_the_answer(files: Server) -> None:
    """Its bytes, its media type, its headers; beside them, that nobody may share it."""
    answer = await get(files, "plan?name=attic.pdf")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == 'attachment; filename="attic.pdf"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-length"] == str(len(CONTENT))
    answer = await get(files, "plan_sync?size=3")
    assert (answer.content, answer.headers["cache-control"]) == (CONTENT[:3], "max-age=5")
    answer = await files.client.post("/rpc/files.plan_sync", json={"size": 2}, headers=JSON)
    assert answer.content == CONTENT[:2]


async def test_a_part_of_a_file(files: Server) -> None:
    """`Range` is answered as FileResponse does; a range that is none, too."""
    answer = await get(files, "plan", range="bytes=10-19")
    assert (answer.status_code, answer.content) == (206, CONTENT[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(CONTENT)}"
    assert (await get(files, "plan", range=f"bytes={len(CONTENT)}-")).status_code == 416


@pytest.mark.parametrize("name", ["plan", "plan_sync?size=3", "lines"])
async def test_the_head_alone(files: Server, name: str) -> None:
    """The headers of GET, and no body; of a stream nothing is made."""
    whole = await get(files, name)
    DONE.clear()
    head = await get(files, name, method="HEAD")
    assert (head.status_code, head.content) == (whole.status_code, b"")
    kept = {"content-type", "content-length", "cache-control", "content-disposition"}
    assert {key: head.headers.get(key) for key in kept} == {key: whole.headers.get(key) for key in kept}
    assert (["sent"] if name == "lines" else []) == DONE


async def test_a_stream_is_sent_in_parts(files: Server) -> None:
    """Its background work is done at its end."""
    assert (await get(files, "lines")).text == "0\n1\n2\n"
    assert DONE == ["line 0", "line 1", "line 2", "sent"]


async def test_an_error_is_raised_before_anything_is_sent(files: Server, path: Path) -> None:
    """As an envelope: the handler's own, a wrong input, a wrong result, and a file that is not there."""
    assert error_of(await get(files, "plan?name=none"))["message"] == "no such plan"
    assert error_of(await get(files, "plan_sync?size=x"))["code"] == "BAD_REQUEST"
    assert error_of(await get(files, "wrong"))["message"] == "wrong returned what its annotation does not allow"
    path.unlink()  # noqa: ASYNC240  # a test has time
    missing = await get(files, "plan")
    assert (missing.status_code, error_of(missing)["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert str(path) not in missing.text


async def test_a_failure_in_the_middle_breaks_the_answer_off(files: Server) -> None:
    """It has begun, so no envelope could follow."""

    @uncached
    async def breaks() -> StreamingResponse:
        def written() -> Iterator[bytes]:
            yield b"begun"
            raise ValueError("in the middle")

        return StreamingResponse(written())

    async with serving(files.path, {"files": {"breaks": breaks}}) as server:
        with pytest.raises(ValueError, match="in the middle"):
            await httpx.AsyncClient(transport=httpx.ASGITransport(app=server.app), base_url="http://test").get(
                "/rpc/files.breaks"
            )


async def test_what_dependencies_set_is_added(files: Server) -> None:
    """Headers that the response does not say itself, and every cookie."""
    answer = await get(files, "with_headers")
    assert (answer.status_code, answer.text) == (201, "here")
    assert (answer.headers["x-mark"], answer.headers["content-type"]) == ("beside", "text/plain; charset=utf-8")
    assert sorted(answer.cookies) == ["own", "seen"]


async def test_no_etag_of_nothing_is_met(files: Server) -> None:
    """There is no result that a client could hold."""
    whole = await get(files, "plan_sync?size=3")
    assert "etag" not in whole.headers
    for tag in ('"x"', "*"):
        assert (await get(files, "plan_sync?size=3", **{"if-none-match": tag})).status_code == 200


async def test_a_mutation_answers_after_its_commit(files: Server) -> None:
    """What the attempt before returned is gone; work for after the commit is done after the answer."""
    answer = await files.client.post("/rpc/files.add", files={"file": ("a.txt", b"abc", "text/plain")})
    assert (answer.status_code, answer.content) == (200, b"abc")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    assert "reactive-cursor" in answer.headers
    assert files.rows() == [("plans", "a.txt")]
    assert DONE == ["tried", "after the commit"]


async def test_an_idempotency_key_is_refused(files: Server) -> None:
    """The answer is not kept, so nothing is done."""
    key = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    refused = error_of(await files.client.post("/rpc/files.print_all", headers={**JSON, **key}))
    assert refused["code"] == "PRECONDITION_FAILED"
    assert files.rows() == []
    assert (await files.client.post("/rpc/files.print_all", headers=JSON)).text == "printed"
    assert (await get(files, "print_all", method="HEAD")).status_code == 405


async def test_it_cannot_be_watched(files: Server) -> None:
    """As nothing that is not kept."""
    answer = await files.client.post(
        "/rpc/events/poll", json={"queries": [{"path": "files.plan", "input": {}}], "wait": 0}, headers=JSON
    )
    assert "PRECONDITION_FAILED" in answer.text


async def test_calls_in_this_process_are_given_the_response(files: Server) -> None:
    """As the function returned it; nothing is sent."""
    call = files.rpc.caller(None)
    answer = await call(plan_sync, size=3)
    assert (type(answer), answer.body) == (Response, CONTENT[:3])
    assert isinstance(await call(lines), StreamingResponse)
    assert (await call(print_all)).body == b"printed"
    with pytest.raises(InternalServerError):
        await call(wrong)


async def test_callers_get_their_own(file: Path) -> None:
    """By their context, two at a time too."""
    async with serving(file, {"files": {"mine": mine}}, context=who) as server:
        for name in ("ann", "bob"):
            assert (await get(server, "mine", authorization=f"Bearer {name}@t")).text == name
        assert (await get(server, "mine", method="HEAD")).status_code == 401


async def test_the_document_says_bytes(files: Server) -> None:
    """By the media type of the class, where it has one."""
    paths = files.app.openapi()["paths"]
    binary = {"schema": {"type": "string", "format": "binary"}}
    found = paths["/rpc/files.plan"]["get"]
    assert found["responses"]["200"]["content"] == {"application/octet-stream": binary}
    assert found["x-reactive-rpc"] == {"kind": "query", "path": "files.plan", "binary": True}
    assert list(found["responses"]["404"]["content"]) == ["application/json"]
    assert "304" not in found["responses"]
    assert "parameters" not in paths["/rpc/files.print_all"]["post"]  # no key is taken
    assert paths["/rpc/files.print_all"]["post"]["responses"]["200"]["content"] == {"text/plain": binary}


def test_over_real_http(file: Path, path: Path) -> None:
    """A file, a part of it, its head; the connection is used again."""
    rpc = rpc_on(file, FILES)
    rpc.overrides[stored] = lambda: path
    with running(app_of(rpc)) as url, httpx.Client(base_url=url) as client:
        assert client.get("/rpc/files.plan").content == CONTENT
        assert client.head("/rpc/files.plan").headers["content-length"] == str(len(CONTENT))
        assert client.get("/rpc/files.plan", headers={"range": "bytes=0-1,3-4"}).status_code == 206
        assert client.head("/rpc/files.plan_sync?size=3").headers["content-length"] == "3"
        assert client.get("/rpc/files.lines").text == "0\n1\n2\n"
