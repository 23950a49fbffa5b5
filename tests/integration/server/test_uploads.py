"""Mutations that take files: multipart over HTTP, `UploadFile` in this process; its bounds, and hostile bodies."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import Body, Depends, File, HTTPException, Request, UploadFile
from fastapi.security import APIKeyCookie
from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import UploadFile as StarletteUploadFile

from reactive_rpc import (
    Answered,
    BadRequestError,
    CallInfo,
    Login,
    Next,
    NotFoundError,
    after_commit,
    define_reactive_function,
)
from reactive_rpc.statements.faults import OvertakenError
from reactive_rpc.tasks import background
from reactive_rpc.testing import running
from reactive_rpc.web.routing import multipart
from reactive_rpc.web.routing.multipart import SPOOL_BYTES
from tests.support.waiting import until

from .rooms import Note, Server, app_of, error_of, rpc_on, serving, who

pytestmark = pytest.mark.anyio

BOUNDARY = "reactive"
LARGE = 2 * SPOOL_BYTES
"""So large that it is written to disk."""
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
Files = list[tuple[str, Any]]

RUNS: list[str] = []
SEEN: list[object] = []


class About(BaseModel):
    title: str
    pages: int = 1


async def sized(file: StarletteUploadFile) -> str:
    return f"{file.filename}:{len(await file.read())}"


@define_reactive_function.mutation
async def add(db: AsyncSession, file: UploadFile, title: str = "") -> str:
    """Keep a plan."""
    content = await file.read()
    RUNS.append(title)
    db.add(Note(room="plans", text=f"{title} {file.filename} {sha256(content).hexdigest()[:8]}"))
    return f"{title} {file.filename} {file.content_type} {len(content)}"


@define_reactive_function.mutation
def add_sync(db: Session, file: UploadFile) -> int:
    return len(file.file.read())


@define_reactive_function.mutation
async def add_some(files: Annotated[list[UploadFile], File(description="The plans.")]) -> list[str]:
    return [await sized(file) for file in files]


@define_reactive_function.mutation
async def add_any(cover: UploadFile | None = None, files: list[StarletteUploadFile] | None = None) -> list[str]:
    return [await sized(file) for file in [*([cover] if cover else []), *(files or [])]]


@define_reactive_function.mutation
async def add_about(file: UploadFile, input: About) -> str:
    return f"{input.title} {input.pages} {await sized(file)}"


@define_reactive_function.mutation
async def add_later(file: UploadFile) -> str:
    """Read the file once the answer is sent."""

    async def store() -> None:
        await file.seek(0)
        SEEN.append(await file.read())

    after_commit(store)
    return "soon"


def table_of(file: UploadFile) -> list[list[str]]:
    """Read a file as somebody does who lets Python close it: the text around it is collected here."""
    return list(csv.reader(io.TextIOWrapper(file.file, encoding="utf-8")))


@define_reactive_function.mutation
async def add_at_the_second_attempt(db: AsyncSession, file: UploadFile) -> list[list[str]]:
    """Read it, close it, and be overtaken."""
    rows = table_of(file)
    await file.close()
    RUNS.append("")
    if len(RUNS) == 1:
        raise OvertakenError("by another write")
    return rows


@define_reactive_function.mutation
def add_at_the_second_attempt_sync(db: Session, file: UploadFile) -> list[list[str]]:
    rows = table_of(file)
    RUNS.append("")
    if len(RUNS) == 1:
        raise OvertakenError("by another write")
    return rows


async def see(call: CallInfo, next: Next) -> Answered:
    SEEN.append(call.input)
    return await next()


@define_reactive_function.wrap(see).mutation
async def add_seen(file: UploadFile, title: str) -> str:
    return title


def titled(title: Annotated[str, Body(embed=True)]) -> str:
    return title.upper()


@define_reactive_function.mutation
async def add_titled(shouted: Annotated[str, Depends(titled)], request: Request, file: UploadFile, title: str) -> str:
    return f"{shouted} {(await request.body()).decode()} {await sized(file)}"


@define_reactive_function.mutation
async def add_mine(ctx: Login, file: UploadFile) -> str:
    return f"{ctx.identity} {await sized(file)}"


@define_reactive_function.mutation
async def add_failing(file: UploadFile) -> str:
    raise NotFoundError("no room for it")


PLANS: dict[str, Any] = {
    "plans": {
        each.name: each
        for each in (
            add, add_sync, add_some, add_any, add_about, add_later, add_at_the_second_attempt,
            add_at_the_second_attempt_sync, add_seen, add_titled, add_failing,
        )
    }
}  # fmt: skip

MINE: dict[str, Any] = {"plans": {"add_mine": add_mine}}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    RUNS.clear()
    SEEN.clear()


@pytest.fixture
async def plans(file: Path, anyio_backend: str) -> AsyncIterator[Server]:
    async with serving(file, PLANS) as opened:
        yield opened


async def send(server: Server, name: str, files: Files, **headers: str) -> httpx.Response:
    return await server.client.post(f"/rpc/plans.{name}", files=files, headers=headers)


def json_part(text: str) -> tuple[str, Any]:
    return "input", (None, text, "application/json")


A = ("file", ("a.txt", b"abc", "text/plain"))


async def test_a_file_comes_beside_the_other_inputs(plans: Server) -> None:
    """The file with its name and type, the rest as one part of JSON, which may also be left out or be a file."""
    answer = await send(plans, "add", [json_part('{"title": "Attic"}'), A])
    assert (answer.status_code, answer.json()) == (200, "Attic a.txt text/plain 3")
    assert (await send(plans, "add", [A])).json() == " a.txt text/plain 3"
    assert (await send(plans, "add", [A, ("input", ("blob", b'{"title": "x"}'))])).json() == "x a.txt text/plain 3"
    assert (await send(plans, "add_sync", [A])).json() == 3
    assert (await send(plans, "add_about", [json_part('{"title": "T", "pages": 2}'), A])).json() == "T 2 a.txt:3"
    assert len(plans.rows()) == 3


async def test_several_files_and_none(plans: Server) -> None:
    """A list keeps its order; a file that may be left out is, also by a form in which nobody has chosen one."""
    several = [("files", (f"{number}.txt", b"x" * number)) for number in range(3)]
    assert (await send(plans, "add_some", several)).json() == ["0.txt:0", "1.txt:1", "2.txt:2"]
    fault = error_of(await send(plans, "add_some", [json_part("{}")]))
    assert fault["details"] == [{"loc": ["files"], "message": "a file is required", "type": "missing"}]
    assert (await send(plans, "add_any", [json_part("{}")])).json() == []
    unchosen = [("cover", ("", b"")), ("files", ("", b""))]
    assert (await send(plans, "add_any", unchosen)).json() == []
    assert (await send(plans, "add_any", [*several, ("cover", ("c", b"12"))])).json()[0] == "c:2"


async def test_a_large_file_is_whole(plans: Server) -> None:
    """Also one that is kept on disk."""
    content = bytes(range(256)) * 20_000
    await send(plans, "add", [("file", ("a", content))])
    assert plans.rows() == [("plans", f" a {sha256(content).hexdigest()[:8]}")]


async def test_calls_in_this_process(plans: Server) -> None:
    """By the function, with an UploadFile; it is read from where it stands, and stays open."""
    call = plans.rpc.caller(None)
    opened = io.BytesIO(b"--abc")
    opened.seek(2)
    assert await call(add, UploadFile(opened, filename="a.txt"), title="T") == "T a.txt None 3"
    assert await call(add_some, files=[UploadFile(io.BytesIO(b"x"), filename="a")]) == ["a:1"]
    assert await call(add_any) == []
    assert await call(add_about, UploadFile(io.BytesIO(b"x"), filename="a"), About(title="T")) == "T 1 a:1"
    assert await call(add_sync, file=UploadFile(opened)) == 0
    assert not opened.closed


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda call: call(add), "file: a file is required"),
        (lambda call: call(add, file=b"abc"), "file: no UploadFile, but of bytes"),
        (lambda call: call(add, file=[UploadFile(io.BytesIO())]), "file: one file is taken"),
        (lambda call: call(add_some, files=UploadFile(io.BytesIO())), "files: a list of files is taken"),
        (lambda call: call(add_some, files=[]), "files: a file is required"),
    ],
)
async def test_what_is_no_file_is_refused_in_this_process(
    plans: Server, give: Callable[[Any], Any], message: str
) -> None:
    """As over the wire."""
    with pytest.raises(BadRequestError, match=message):
        await give(plans.rpc.caller(None))


@pytest.mark.parametrize("name", ["add_at_the_second_attempt", "add_at_the_second_attempt_sync"])
async def test_each_attempt_reads_the_file_from_its_start(plans: Server, name: str) -> None:
    """Whatever the attempt before did with it: it has read it to its end, and closed it."""
    answer = await send(plans, name, [("file", ("a.csv", b"1,2\n3,4\n"))])
    assert answer.json() == [["1", "2"], ["3", "4"]]
    assert len(RUNS) == 2


async def test_the_file_is_there_after_the_commit_and_closed_then(plans: Server) -> None:
    """Work for after the commit may still read it."""
    assert (await send(plans, "add_later", [A])).json() == "soon"
    assert SEEN == [b"abc"]


async def test_steps_and_wrappers_see_the_input_without_files(plans: Server) -> None:
    """`CallInfo.input` is the model of the other inputs."""
    await send(plans, "add_seen", [json_part('{"title": "T"}'), A])
    [input] = SEEN
    assert isinstance(input, BaseModel)
    assert input.model_dump() == {"title": "T"}


async def test_a_dependency_reads_the_input_as_the_body(plans: Server) -> None:
    """`Body()` and `request.body()` are the JSON part."""
    answer = await send(plans, "add_titled", [A, json_part('{"title": "t"}')])
    assert answer.json() == 'T {"title": "t"} a.txt:3'


class TestIdempotency:
    """One key, one call: the files are part of the input."""

    KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"

    async def test_the_same_files_are_taken_once(self, plans: Server) -> None:
        """And answered the same."""
        answers = [await send(plans, "add", [A], **{"idempotency-key": self.KEY}) for _ in range(2)]
        assert [answer.json() for answer in answers] == [" a.txt text/plain 3"] * 2
        assert [answer.headers.get("reactive-replayed") for answer in answers] == [None, "true"]
        assert len(RUNS) == 1

    @pytest.mark.parametrize(
        "other",
        [
            [("file", ("a.txt", b"abd", "text/plain"))],
            [("file", ("b.txt", b"abc", "text/plain"))],
            [("file", ("a.txt", b"abc", "text/html"))],
            [A, json_part('{"title": "T"}')],
        ],
    )
    async def test_another_file_is_another_input(self, plans: Server, other: Files) -> None:
        """Content, name and type count, all of which the handler sees."""
        await send(plans, "add", [A], **{"idempotency-key": self.KEY})
        refused = error_of(await send(plans, "add", other, **{"idempotency-key": self.KEY}))
        assert refused["code"] == "UNPROCESSABLE_CONTENT"
        assert len(RUNS) == 1


def part(disposition: str, content: bytes = b"x", more: str = "") -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + content + b"\r\n"


FILE = 'form-data; name="file"; filename="a.txt"'
INPUT = 'form-data; name="input"'
END = f"--{BOUNDARY}--\r\n".encode()

HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "PARSE_ERROR"),
    "no part": (END, 400, "BAD_REQUEST"),
    "another boundary": (part(FILE).replace(b"reactive", b"another") + END, 400, "PARSE_ERROR"),
    "no last boundary": (part(FILE), 400, "PARSE_ERROR"),
    "cut off within a part": (part(FILE, b"x" * 100)[:-50], 400, "PARSE_ERROR"),
    "a part without a name": (part("form-data") + END, 400, "PARSE_ERROR"),
    "a part without a disposition": (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, 400, "PARSE_ERROR"),
    "a part of an unknown name": (part('form-data; name="other"; filename="a"') + END, 400, "BAD_REQUEST"),
    "one file twice": (part(FILE) * 2 + END, 400, "BAD_REQUEST"),
    "the input twice": (part(FILE) + part(INPUT, b"{}") * 2 + END, 400, "BAD_REQUEST"),
    "an input that is no JSON": (part(FILE) + part(INPUT, b"{") + END, 400, "PARSE_ERROR"),
    "an input that is no object": (part(FILE) + part(INPUT, b"[]") + END, 400, "BAD_REQUEST"),
    "an input that does not fit": (part(FILE) + part(INPUT, b'{"titel": ""}') + END, 400, "BAD_REQUEST"),
    "an input that is no text": (part(FILE) + part(INPUT, b"\xff") + END, 400, "PARSE_ERROR"),
    "a field in the place of the input": (part(FILE) + part('form-data; name="title"') + END, 400, "BAD_REQUEST"),
    "an input that is too large": (part(FILE) + part(INPUT, b" " * 3000) + END, 413, "PAYLOAD_TOO_LARGE"),
    "ten thousand parts": (part(FILE) * 10_000 + END, 400, "BAD_REQUEST"),
    "thousands of headers": (part(FILE, more="X: y\r\n" * 5000) + END, 400, "PARSE_ERROR"),
    "an endless header": (part(FILE, more=f"X: {'y' * 20_000}\r\n") + END, 400, "PARSE_ERROR"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused(file: Path, name: str) -> None:
    """In our own words, and the next call is served."""
    body, status, code = HOSTILE[name]
    async with serving(file, PLANS, settings={"max_body_bytes": 2000}) as plans:
        answer = await plans.client.post("/rpc/plans.add", content=body, headers=MULTIPART)
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
        assert RUNS == []
        assert (await send(plans, "add", [A])).status_code == 200


async def test_a_file_may_have_no_name(plans: Server) -> None:
    """`filename` is then None."""
    body = part('form-data; name="file"', b"abc") + END
    assert (await plans.client.post("/rpc/plans.add", content=body, headers=MULTIPART)).json() == " None None 3"


def named(sent: bytes) -> bytes:
    return part('form-data; name="file"; filename="#"').replace(b"#", sent) + END


@pytest.mark.parametrize("sent", [b"../../etc/passwd", b"/etc/passwd", rb"C:\etc\passwd", rb"..\/passwd"])
async def test_a_name_of_a_file_leads_nowhere(plans: Server, sent: bytes) -> None:
    """A handler is given the name without the folders before it."""
    answer = await plans.client.post("/rpc/plans.add", content=named(sent), headers=MULTIPART)
    assert answer.json() == " passwd None 1"


@pytest.mark.parametrize("sent", [b"a\0.txt", b"a\x1b[2J", b"..", b"folder/", b"../.", "a\x85".encode()])
async def test_a_name_that_no_file_can_have_is_refused(plans: Server, sent: bytes) -> None:
    """By the name of its part."""
    refused = error_of(await plans.client.post("/rpc/plans.add", content=named(sent), headers=MULTIPART))
    assert refused["code"] == "BAD_REQUEST"
    assert [fault["loc"] for fault in refused["details"]] == [["file"]]
    assert RUNS == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
    ],
)
async def test_another_content_type_is_refused(plans: Server, headers: dict[str, str]) -> None:
    """The message says how files are sent."""
    refused = error_of(await plans.client.post("/rpc/plans.add", content=b"{}", headers=headers))
    assert refused["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert "multipart/form-data" in refused["message"]


async def test_a_boundary_must_be_named(plans: Server) -> None:
    """And may not be endless."""
    for boundary in ("", "; boundary=", f"; boundary={'x' * 5000}"):
        headers = {"content-type": f"multipart/form-data{boundary}"}
        refused = error_of(await plans.client.post("/rpc/plans.add", content=END, headers=headers))
        assert refused["code"] == "PARSE_ERROR"


class TestLimits:
    """A body is refused as soon as it is seen to be too large."""

    async def test_a_declared_length_is_enough(self, file: Path) -> None:
        """Nothing of the body is read."""
        async with serving(file, PLANS, settings={"max_upload_bytes": 1000}) as plans:
            status, read, _ = await sent_by_hand(plans, [b"x" * 100] * 100, length=b"10000")
            assert (status, read) == (413, 0)

    async def test_a_body_without_a_length_is_counted(self, file: Path) -> None:
        """It is read as far as the limit, and no further."""
        async with serving(file, PLANS, settings={"max_upload_bytes": 1000}) as plans:
            chunks = [part(FILE)[:-3], *[b"x" * 100] * 100]
            status, read, answer = await sent_by_hand(plans, chunks)
            assert (status, read) == (413, 11)
            assert b"PAYLOAD_TOO_LARGE" in answer
            assert b"max_upload_bytes" in answer

    async def test_files_are_counted(self, file: Path) -> None:
        """`max_upload_files`."""
        async with serving(file, PLANS, settings={"max_upload_files": 2}) as plans:
            several = [("files", (f"{number}", b"")) for number in range(3)]
            assert (await send(plans, "add_some", several[:2])).status_code == 200
            refused = error_of(await send(plans, "add_some", several))
            assert refused["code"] == "PAYLOAD_TOO_LARGE"
            assert "max_upload_files" in refused["message"]

    async def test_a_stranger_is_refused_before_the_body_is_read(self, file: Path) -> None:
        """Who calls is asked first."""
        async with serving(file, MINE, context=who) as plans:
            status, read, _ = await sent_by_hand(plans, [part(FILE), END], path="plans.add_mine")
            assert (status, read) == (401, 0)
            answer = await send(plans, "add_mine", [A], authorization="Bearer ann@t")
            assert answer.json() == "ann a.txt:3"

    async def test_a_length_that_is_not_true_says_nothing(self, file: Path) -> None:
        """The bytes are counted whatever was declared, and a body that is shorter is whole by its last boundary."""
        async with serving(file, PLANS, settings={"max_upload_bytes": 1000}) as plans:
            chunks = [part(FILE)[:-3], *[b"x" * 100] * 100]
            for length in (b"10", b"-1", b"", b"1e3"):
                status, read, _ = await sent_by_hand(plans, chunks, length=length)
                assert (status, read) == (413, 11)
            assert (await sent_by_hand(plans, [part(FILE), END], length=b"999"))[0] == 200
            assert (await sent_by_hand(plans, [part(FILE)], length=b"999"))[0] == 400

    async def test_a_body_that_stalls_is_given_up(self, file: Path) -> None:
        """`upload_seconds`; its files are gone."""
        async with serving(file, PLANS, settings={"upload_seconds": 0.2}) as plans:
            with spooled() as files:
                status, _, answer = await sent_by_hand(plans, [part(FILE, b"x" * LARGE)], then="nothing")
            assert status == 408
            assert b"upload_seconds" in answer
            assert [each.closed for each in files] == [True]
            assert RUNS == []

    @pytest.mark.parametrize("size", [1, LARGE])
    async def test_a_client_that_goes_away_is_not_answered(self, plans: Server, size: int) -> None:
        """Nothing is called, and nothing left on disk."""
        with spooled() as files:
            status, read, _ = await sent_by_hand(plans, [part(FILE, b"x" * size)], then="disconnect")
        assert (status, read) == (0, 2)
        assert [each.closed for each in files] == [True]
        assert RUNS == []


ANN, BOB = {"authorization": "Bearer ann@t"}, {"authorization": "Bearer bob@t"}


@asynccontextmanager
async def uploading(
    server: Server, path: str, headers: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[None]:
    """Have an upload under way that has sent a part of its body, and stalls; end it by going away."""
    with spooled() as files:
        work = sent_by_hand(server, [part(FILE, b"x" * LARGE)[:-9]], path=path, then="nothing", headers=headers)
        async with background(work, "upload"):
            await until(lambda: files)
            yield
    assert all(each.closed for each in files)


class TestPlaces:
    """Each upload may hold `max_upload_bytes` of disk for `upload_seconds`, so they are counted."""

    async def test_a_caller_has_so_many_places(self, file: Path) -> None:
        """`max_uploads_per_identity`: one more is refused before its body is read, other callers have theirs."""
        async with serving(file, MINE, context=who, settings={"max_uploads_per_identity": 1}) as plans:
            async with uploading(plans, "plans.add_mine", ANN):
                status, read, answer = await sent_by_hand(plans, [part(FILE), END], path="plans.add_mine", headers=ANN)
                assert (status, read) == (429, 0)
                assert b"max_uploads_per_identity" in answer
                assert b"ann" not in answer
                assert (await send(plans, "add_mine", [A], **BOB)).status_code == 200
            assert (await send(plans, "add_mine", [A], **ANN)).status_code == 200

    async def test_a_worker_has_so_many_places(self, file: Path) -> None:
        """`max_uploads`, whoever has them; the answer says when to come again, and that the rest is not read."""
        async with serving(file, MINE, context=who, settings={"max_uploads": 1}) as plans:
            async with uploading(plans, "plans.add_mine", ANN):
                refused = await send(plans, "add_mine", [A], **BOB)
                assert (refused.status_code, error_of(refused)["code"]) == (503, "SERVICE_UNAVAILABLE")
                assert (refused.headers["retry-after"], refused.headers["connection"]) == ("5", "close")
            assert (await send(plans, "add_mine", [A], **BOB)).status_code == 200

    async def test_whom_nobody_knows_counts_by_its_address(self, file: Path) -> None:
        """Also where a dependency reads the body before anybody has asked who calls."""
        async with serving(file, PLANS, settings={"max_uploads_per_identity": 1}) as plans:
            for path in ("plans.add", "plans.add_titled"):
                async with uploading(plans, path):
                    assert (await sent_by_hand(plans, [part(FILE), END], path=path))[0] == 429

    async def test_a_place_is_given_back_whatever_the_answer(self, file: Path) -> None:
        """Also by bodies that are broken or too large, and by handlers that fail."""
        async with serving(file, PLANS, settings={"max_uploads": 1, "max_upload_bytes": 3 * SPOOL_BYTES}) as plans:
            large = ("file", ("a", b"x" * LARGE))
            for _ in range(2):
                await send(plans, "add_failing", [large])
                await send(plans, "add", [large, json_part("{")])
                await send(plans, "add", [large, large])
                await sent_by_hand(plans, [part(FILE)], then="disconnect")
                assert (await send(plans, "add_sync", [large])).json() == LARGE

    async def test_nothing_is_held_while_a_body_arrives(self, file: Path) -> None:
        """What `yield` dependencies hold is let go of: a session of the application's pool, for example."""
        held: list[str] = []

        async def by_session() -> AsyncIterator[Login]:
            held.append("a connection")
            yield Login(identity="ann")
            held.clear()

        async with serving(file, MINE, context=by_session) as plans:
            async with uploading(plans, "plans.add_mine"):
                assert held == []
            assert (await send(plans, "add_mine", [A])).json() == "ann a.txt:3"


@contextmanager
def spooled() -> Iterator[list[Any]]:
    """Give the spooled files that are opened meanwhile."""
    found: list[Any] = []

    class Spooled(multipart._SpooledFile):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            found.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multipart, "_SpooledFile", Spooled)
        yield found


async def sent_by_hand(
    server: Server,
    chunks: list[bytes],
    *,
    length: bytes | None = None,
    path: str = "plans.add",
    then: Literal["end", "disconnect", "nothing"] = "end",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, int, bytes]:
    """Send a body in chunks; return the status, how many messages were asked for, and the answer."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    lasts: dict[str, list[dict[str, Any]]] = {
        "end": [{"type": "http.request", "body": b"", "more_body": False}],
        "disconnect": [{"type": "http.disconnect"}],
        "nothing": [],
    }
    given: Iterator[dict[str, Any]] = iter([*messages, *lasts[then]])
    sent: list[Any] = []
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        found = next(given, None)
        return await asyncio.Event().wait() if found is None else found

    async def take(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in {**MULTIPART, **headers}.items()]
    raw += [] if length is None else [(b"content-length", length)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": f"/rpc/{path}", "raw_path": b"", "root_path": "", "query_string": b"", "headers": raw,
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    await server.app(scope, receive, take)
    status = sent[0]["status"] if sent else 0
    return status, read, b"".join(message.get("body", b"") for message in sent)


async def test_files_are_closed_whatever_the_answer(plans: Server) -> None:
    """So is the one that a broken body had begun."""
    large = ("file", ("a", b"x" * LARGE))
    with spooled() as files:
        await send(plans, "add", [large])
        await send(plans, "add_failing", [large])
        await send(plans, "add", [large, json_part("{")])
        await send(plans, "add", [large, large])
    assert [each.closed for each in files] == [True] * 4


session = APIKeyCookie(name="session", auto_error=False)


def by_cookie(cookie: Annotated[str | None, Depends(session)]) -> Login:
    if cookie is None:
        raise HTTPException(401, "log in")
    return Login(identity=cookie)


@asynccontextmanager
async def by_cookies(file: Path) -> AsyncIterator[Server]:
    async with serving(file, MINE, context=by_cookie) as plans:
        plans.client.cookies.set("session", "ann")
        yield plans


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "https://other.test"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_a_page_of_another_site_cannot_upload_with_a_visitors_cookies(
    file: Path, headers: dict[str, str]
) -> None:
    """A browser sends multipart across origins without asking us first. With a header that it asks about, it has."""
    async with by_cookies(file) as plans:
        assert error_of(await send(plans, "add_mine", [A], **headers))["code"] == "FORBIDDEN"
        key = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
        assert (await send(plans, "add_mine", [A], **headers, **key)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin", "origin": "http://proxied.example"},
        {"sec-fetch-site": "none"},
        {"origin": "http://test"},
    ],
)
async def test_a_page_of_ones_own_uploads(file: Path, headers: dict[str, str]) -> None:
    """And so does whatever is no browser."""
    async with by_cookies(file) as plans:
        assert (await send(plans, "add_mine", [A], **headers)).json() == "ann a.txt:3"


async def test_the_document_says_multipart(plans: Server) -> None:
    """So that the docs page shows a field for each file, and one for the JSON."""
    document = plans.app.openapi()

    def schema_of(name: str) -> dict[str, Any]:
        content = document["paths"][f"/rpc/plans.{name}"]["post"]["requestBody"]["content"]
        assert list(content) == ["multipart/form-data"]
        reference = content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
        found: dict[str, Any] = document["components"]["schemas"][reference]
        return found

    binary = {
        "type": "string", "format": "binary", "contentMediaType": "application/octet-stream", "x-reactive-type": "file",
    }  # fmt: skip
    added = schema_of("add")
    assert added["required"] == ["file"]
    assert {key: added["properties"]["file"][key] for key in binary} == binary
    assert added["properties"]["input"] == {"$ref": "#/components/schemas/AddInput"}
    several = schema_of("add_some")["properties"]["files"]
    assert (several["type"], several["items"], several["minItems"]) == ("array", binary, 1)
    assert several["description"] == "The plans."
    assert "required" not in schema_of("add_any")
    assert set(schema_of("add_about")["required"]) == {"file", "input"}
    encoding = document["paths"]["/rpc/plans.add"]["post"]["requestBody"]["content"]["multipart/form-data"]["encoding"]
    assert encoding == {"input": {"contentType": "application/json"}}


def test_over_real_http(file: Path) -> None:
    """Also an answer that is sent before the body was read."""
    app = app_of(rpc_on(file, PLANS, settings={"max_upload_bytes": 3_000_000}))
    with running(app) as url, httpx.Client(base_url=url) as client:
        content = b"x" * 2_000_000
        assert client.post("/rpc/plans.add", files={"file": ("a", content)}).json().endswith("2000000")
        refused = client.post("/rpc/plans.add", files={"file": ("a", content * 2)})
        assert error_of(refused)["code"] == "PAYLOAD_TOO_LARGE"
        assert client.post("/rpc/plans.add", files={"file": ("a", b"y")}).status_code == 200
