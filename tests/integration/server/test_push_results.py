"""`Cache(push="result")` over a real connection: the result itself, as the answer to a call would have it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, DefinitionError, Login, NotFoundError, ReactiveRPC, define_reactive_function
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.subscriptions.reconciler import MAX_RESULT_BYTES
from reactive_rpc.testing import running
from tests.support.waiting import wait_until

from .rooms import InRoom, Note, NoteId, app_of, rpc_on, who
from .streams import heard


@define_reactive_function(cache=Cache(push="result"))
async def in_room(db: AsyncSession, ctx: Login, input: InRoom) -> list[Note]:
    """The notes of a room that are the caller's tenant's."""
    notes = select(Note).where(Note.room == input.room, Note.tenant == ctx.tenant).order_by(Note.text)
    return list((await db.exec(notes)).all())


@define_reactive_function(cache=Cache(push="result"))
async def one(db: AsyncSession, input: NoteId) -> Note:
    """One note."""
    note = await db.get(Note, input.id)
    if note is None:
        raise NotFoundError(f"no note {input.id}")
    return note


FUNCTIONS: Functions = {"notes": {"in_room": in_room, "one": one}}


class Served:
    """A served application on a file that somebody else writes."""

    def __init__(self, file: Path, rpc: ReactiveRPC, url: str) -> None:
        self.rpc = rpc
        self.url = url
        self._file = file

    def write(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute(statement, values)

    def add(self, text: str, *, tenant: str = "t", room: str = "a") -> None:
        self.write("INSERT INTO note(tenant, room, text) VALUES (?, ?, ?)", tenant, room, text)

    def stream(self, caller: str, path: str, input: object, **more: object) -> Any:
        content = {"queries": [{"path": path, "input": input}], **more}
        return heard(self.url, json=content, headers={"authorization": f"Bearer {caller}"})

    def call(self, caller: str, path: str, **input: Any) -> httpx.Response:
        return httpx.get(
            f"{self.url}/rpc/{path}", params=input, headers={"authorization": f"Bearer {caller}"}, timeout=60
        )


@contextmanager
def serving(file: Path) -> Iterator[Served]:
    rpc = rpc_on(file, FUNCTIONS, context=who)
    with running(app_of(rpc)) as url:
        yield Served(file, rpc, url)


@pytest.fixture
def served(file: Path) -> Iterator[Served]:
    with serving(file) as found:
        yield found


def test_a_result_is_what_a_call_would_be_answered(served: Served) -> None:
    """Data, ETag and input are the same; nothing needs to be fetched."""
    with served.stream("ann@t", "notes.in_room", {"room": "a"}) as stream:
        _, connected, _ = stream.next()
        served.add('line one\nline two\r\n{"}\\u2028')
        name, result, cursor = stream.next()
    answer = served.call("ann@t", "notes.in_room", room="a")
    assert name == "result"
    assert result["data"] == answer.json()
    assert result["etag"] == answer.headers["etag"]
    assert (result["path"], result["input"], result["key"]) == ("notes.in_room", {"room": "a"}, connected["queries"][0])
    assert result["cursor"] == cursor
    assert answer.headers["reactive-cursor"].startswith(cursor)


def test_a_result_is_its_tenants_alone(served: Served) -> None:
    """Callers of two tenants watch the same query of the same room: each is sent its own notes."""
    with (
        served.stream("ann@t", "notes.in_room", {"room": "a"}) as anns,
        served.stream("bob@u", "notes.in_room", {"room": "a"}) as bobs,
    ):
        for stream in (anns, bobs):
            stream.next()
        served.add("for u", tenant="u")
        name, result, _ = bobs.next()
        assert (name, [note["text"] for note in result["data"]]) == ("result", ["for u"])
        served.add("for t", tenant="t")
        name, result, _ = anns.next()
        assert (name, [note["text"] for note in result["data"]]) == ("result", ["for t"])


def test_a_result_is_computed_once_for_all_who_share_it(served: Served) -> None:
    """Ten streams of one caller, one run of the handler."""
    runs = 0

    def count(observation: object) -> None:
        nonlocal runs
        runs += 1

    streams = [served.stream("ann@t", "notes.in_room", {"room": "a"}) for _ in range(10)]
    opened = [stream.__enter__() for stream in streams]
    for stream in opened:
        stream.next()
    served.rpc.admin.observe(count)
    served.add("one")
    assert [stream.next()[0] for stream in opened] == ["result"] * 10
    assert runs == 1
    for context in streams:
        context.__exit__(None, None, None)


def test_an_error_and_what_is_too_large_are_told_of_as_invalidations(served: Served) -> None:
    """The note grows past the bound, and goes: each time there is something to fetch."""
    served.add("short")
    with served.stream("ann@t", "notes.one", {"id": 1}) as stream:
        stream.next()
        served.write("UPDATE note SET text = ? WHERE id = 1", "x" * MAX_RESULT_BYTES)
        assert stream.next()[0] == "invalidation"
        served.write("UPDATE note SET text = 'short again' WHERE id = 1")
        assert stream.next()[1]["data"]["text"] == "short again"
        served.write("DELETE FROM note")
        assert stream.next()[0] == "invalidation"
        assert served.call("ann@t", "notes.one", id=1).status_code == 404


def test_a_stream_resumes_from_a_result(served: Served) -> None:
    """Its cursor says that everything up to it has been told; what came since is stale."""
    with served.stream("ann@t", "notes.in_room", {"room": "a"}) as stream:
        stream.next()
        served.add("one")
        _, _, cursor = stream.next()
    with served.stream("ann@t", "notes.in_room", {"room": "a"}, cursor=cursor) as stream:
        assert stream.next()[1]["stale"] == []
    served.add("two")
    with served.stream("ann@t", "notes.in_room", {"room": "a"}, cursor=cursor) as stream:
        assert [query["path"] for query in stream.next()[1]["stale"]] == ["notes.in_room"]


def test_nothing_is_kept_of_streams_that_have_gone(served: Served) -> None:
    """The watch ends with its last stream."""
    with served.stream("ann@t", "notes.in_room", {"room": "a"}) as stream:
        stream.next()
    wait_until(lambda: served.rpc.admin.stats()["streams"] == served.rpc.admin.stats()["watched_queries"] == 0)


def test_what_is_pushed_is_declared_well() -> None:
    """A query's results, by one of two words."""

    async def note(db: AsyncSession) -> str:
        return ""

    with pytest.raises(DefinitionError, match="say 'invalidation' or 'result'"):
        Cache(push="data")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(DefinitionError, match="cache= is no option of a mutation"):
        define_reactive_function.mutation(cache=Cache(push="result"))(note)  # type: ignore[call-overload]  # refused
