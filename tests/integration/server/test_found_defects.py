"""Defects found by trying to break the server; each test says what should hold."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, RootModel
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    ConflictError,
    Context,
    DefinitionError,
    NotFoundError,
    ReactiveRPC,
    RPCError,
    define_reactive_function,
)
from reactive_rpc.procedures.canonical import canonical
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.testing import running

from .rooms import InRoom, NewNote, Note, NoteId, Server, Visit, add, app_of, error_of, in_room, rpc_on, serving

pytestmark = pytest.mark.anyio

ANSWER_SECONDS = 60.0


async def test_a_database_that_is_locked_answers_503(server: Server) -> None:
    """A mutation that does not get the write lock in time is told to try again, not that the server is broken."""
    with closing(sqlite3.connect(server.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = await server.call("notes.add", {"room": "a", "text": "x"})
        other.execute("ROLLBACK")
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "SERVICE_UNAVAILABLE"
    assert answer.headers["retry-after"] == "1"


async def test_a_dependency_may_read_the_body(file: Path) -> None:
    """A dependency that reads the request's body (to check a signature) leaves it to the procedure."""
    bodies: list[bytes] = []

    async def signed(request: Request) -> None:
        bodies.append(await request.body())

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, dependencies=[Depends(signed)])
        return app

    async with serving(file, make_app=make_app) as server, asyncio.timeout(ANSWER_SECONDS):
        answer = await server.call("notes.add", {"room": "a", "text": "x"})
    assert answer.status_code == 200
    assert bodies == [b'{"room":"a","text":"x"}']


async def test_a_cached_error_holds_no_frames_of_the_requests_it_answered(server: Server) -> None:
    """Answering from a cached error costs no memory: raised again and again, it would gather every request's frames."""

    def tracebacks() -> int:
        gc.collect()
        return sum(isinstance(found, TracebackType) for found in gc.get_objects())

    await server.client.get("/rpc/notes.one", params={"id": 7})
    before = tracebacks()
    for _ in range(100):
        assert (await server.client.get("/rpc/notes.one", params={"id": 7})).status_code == 404
    assert tracebacks() < before + 100


@define_reactive_function(kind="mutation")
async def clear(db: AsyncSession) -> int:
    notes = (await db.exec(select(Note))).all()
    for note in notes:
        await db.delete(note)
    return len(notes)


async def test_a_form_of_another_site_calls_no_mutation(file: Path) -> None:
    """An empty body declared to be a form is refused: a browser sends such a one with the visitor's cookies."""
    async with serving(file, {"notes": {"add": add, "clear": clear}}) as server:
        await server.call("notes.add", {"room": "a", "text": "x"})
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await server.client.post("/rpc/notes.clear", headers=form)
        assert server.rows() == [("a", "x")]
    assert answer.status_code == 415


async def test_a_request_without_a_content_type_calls_no_mutation(file: Path) -> None:
    """`fetch(url, {method: "POST", mode: "no-cors"})` of another site sends neither a body nor a content type."""
    async with serving(file, {"notes": {"add": add, "clear": clear}}) as server:
        await server.call("notes.add", {"room": "a", "text": "x"})
        answer = await server.client.post("/rpc/notes.clear", headers={"sec-fetch-site": "cross-site"})
        assert server.rows() == [("a", "x")]
    assert answer.status_code in {403, 415}


class Row(BaseModel):
    id: int
    room: str


@define_reactive_function(kind="mutation")
async def add_wrong_row(input: NewNote, db: AsyncSession) -> Note:
    note = Note(room=5, text=input.text)  # type: ignore[arg-type]  # table models do not validate: that is the point
    db.add(note)
    return note


@define_reactive_function(kind="mutation")
async def add_constructed(input: NewNote, db: AsyncSession) -> Row:
    db.add(Note(room=input.room, text=input.text))
    return Row.model_construct(id="x", room="y")  # type: ignore[arg-type]  # that is the point


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("name", ["add_wrong_row", "add_constructed"])
async def test_an_instance_is_no_proof_of_its_own_validity(file: Path, name: str) -> None:
    """A table model or a constructed one with a value of the wrong type answers 500, and nothing is written."""
    functions = {"notes": {"add_wrong_row": add_wrong_row, "add_constructed": add_constructed}}
    async with serving(file, functions) as server:
        answer = await server.call(f"notes.{name}", {"room": "a", "text": "x"})
        assert server.rows() == []
    assert answer.status_code == 500


async def test_a_table_model_as_input_is_validated_or_refused(file: Path) -> None:
    """`input: Note` with table=True is either checked like any model or refused when it is defined."""

    async def add_note(input: Note, db: AsyncSession) -> Note:
        db.add(input)
        return input

    try:
        procedure = define_reactive_function(kind="mutation")(add_note)
    except DefinitionError:
        return
    async with serving(file, {"notes": {"add": procedure}}) as server:
        answer = await server.call("notes.add", {})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "BAD_REQUEST"


async def test_a_database_that_is_gone_is_not_described(server: Server) -> None:
    """The path of the file and the system's words stay in the log."""
    away = server.path.with_suffix(".away")
    server.path.rename(away)
    answers = [
        await server.client.get("/rpc/notes.in_room", params={"room": "a"}),
        await server.call("events", {"queries": []}),
    ]
    away.rename(server.path)
    for answer in answers:
        assert answer.status_code == 503
        assert str(server.path.parent) not in answer.text
        assert "Errno" not in answer.text


@pytest.mark.parametrize("id", [2**63, -(2**63) - 1, 10**30])
async def test_a_number_beyond_the_database_is_the_callers_fault(server: Server, id: int) -> None:
    """An integer that no SQLite column can hold answers 4xx: it came from outside."""
    answer = await server.client.get("/rpc/notes.one", params={"id": id})
    assert 400 <= answer.status_code < 500


class OutOfStockError(RPCError):
    code = "OUT_OF_STOCK"

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what} is left")


@define_reactive_function
async def stock(db: AsyncSession) -> str:
    raise OutOfStockError("tea")


@define_reactive_function(kind="mutation")
async def take(db: AsyncSession) -> str:
    raise OutOfStockError("tea")


@pytest.mark.parametrize("name", ["stock", "take"])
async def test_an_application_may_have_errors_of_its_own(file: Path, name: str) -> None:
    """A subclass of RPCError with its own code and its own constructor reaches the caller as an envelope."""
    async with serving(file, {"shop": {"stock": stock, "take": take}}) as server:
        answer = await server.call(f"shop.{name}")
    error = error_of(answer)
    assert (error["code"], error["message"]) == ("OUT_OF_STOCK", "no tea is left")


@define_reactive_function(kind="mutation")
async def conflict(db: AsyncSession) -> str:
    raise ConflictError("twice", details={"of": object()})


@define_reactive_function(kind="mutation")
async def refuse(db: AsyncSession) -> str:
    raise HTTPException(409, {"of": object()})


@pytest.mark.parametrize("name", ["conflict", "refuse"])
async def test_details_that_are_no_json_do_not_lose_the_error(file: Path, name: str) -> None:
    """An error whose details cannot be encoded is still an envelope, under a request id."""
    async with serving(file, {"shop": {"conflict": conflict, "refuse": refuse}}) as server:
        answer = await server.call(f"shop.{name}")
    assert error_of(answer)["request_id"]


@define_reactive_function
async def throttled(input: NoteId, db: AsyncSession) -> str:
    raise NotFoundError("gone for an hour", headers={"retry-after": "3600"})


async def test_a_querys_error_keeps_its_headers(file: Path) -> None:
    """What a handler says in the headers of an error arrives, from a query as from a mutation."""
    async with serving(file, {"shop": {"throttled": throttled}}) as server:
        answer = await server.call("shop.throttled", {"id": 1})
    assert answer.headers.get("retry-after") == "3600"


async def test_a_context_may_set_cookies_and_leave_work_behind(file: Path) -> None:
    """`Response` and `BackgroundTasks` work in a dependency as in any FastAPI route: a sliding session needs them."""
    done: list[str] = []

    def context(response: Response, tasks: BackgroundTasks) -> Context:
        response.set_cookie("session", "renewed")
        tasks.add_task(done.append, "seen")
        return Context(identity="u", tenant="t")

    async with serving(file, context=context) as server:
        answer = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
    assert answer.status_code == 200
    assert answer.cookies.get("session") == "renewed"
    assert done == ["seen"]


class Number(RootModel[int]):
    """One number."""


async def double(input: Number) -> int:
    return 2 * input.root


async def test_an_input_that_is_one_value_is_refused_or_called_as_it_is_documented(file: Path) -> None:
    """A root model is refused when it is defined, or documented in a way that works."""
    try:
        procedure = define_reactive_function(double)
    except DefinitionError:
        return
    async with serving(file, {"math": {"double": procedure}}) as server:
        documented = server.app.openapi()["paths"]["/rpc/math.double"]
        if "get" in documented:
            name = documented["get"]["parameters"][0]["name"]
            answer = await server.client.get("/rpc/math.double", params={name: 4})
        else:
            answer = await server.call("math.double", 4)
    assert answer.json() == 8


class Ordered(BaseModel):
    fields: dict[str, int]


@define_reactive_function
async def order(input: Ordered) -> list[str]:
    return list(input.fields)


async def test_the_order_of_a_mapping_is_part_of_the_input(file: Path) -> None:
    """A handler sees the order of a dict, so two orders are two results."""
    async with serving(file, {"maps": {"order": order}}) as server:
        first = await server.call("maps.order", {"fields": {"a": 1, "b": 2}})
        second = await server.call("maps.order", {"fields": {"b": 2, "a": 1}})
    assert (first.json(), second.json()) == (["a", "b"], ["b", "a"])


@dataclass
class Person:
    identity: str


class Member(Person):
    """Not decorated itself, so `role` is no dataclass field."""

    def __init__(self, identity: str, role: str) -> None:
        super().__init__(identity)
        self.role = role


def test_the_whole_context_tells_callers_apart() -> None:
    """Two contexts that differ in an attribute which is no field have different keys, or none at all."""
    try:
        keys = {canonical(Member("u", "admin")), canonical(Member("u", "guest"))}
    except TypeError:
        return
    assert len(keys) == 2


async def test_the_router_at_the_root_leaves_other_routes_alone(file: Path) -> None:
    """With prefix="" a route that the application adds later is still found."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        app.get("/health")(lambda: "well")
        return app

    async with serving(file, make_app=make_app, prefix="") as server:
        answer = await server.client.get("/health")
    assert answer.json() == "well"


async def test_a_prefix_that_repeats_leaves_other_routes_alone(file: Path) -> None:
    """Under `/rpc/v1/rpc` only what begins so is the router's; `/rpc/health` is the application's."""

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, prefix="/rpc/v1")
        app.get("/rpc/health")(lambda: "well")
        return app

    async with serving(file, make_app=make_app) as server:
        answer = await server.client.get("/rpc/health")
        unknown = await server.client.get("/rpc/v1/rpc/notes.nope")
    assert answer.json() == "well"
    assert error_of(unknown)["path"] == "notes.nope"


async def test_acknowledgements_are_enforced_too(file: Path) -> None:
    """What `include_router(dependencies=...)` asks for is asked of an acknowledgement as of every other request."""

    def locked() -> None:
        raise HTTPException(403, "closed today")

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        app.include_router(rpc.router, dependencies=[Depends(locked)])
        return app

    async with serving(file, make_app=make_app) as server:
        answer = await server.call("events/ack", {"stream": "s", "cursor": "e:1"})
    assert answer.status_code == 403


@define_reactive_function
async def visits(db: AsyncSession) -> list[str]:
    return [visit.who for visit in (await db.exec(select(Visit))).all()]


def first_events(response: httpx.Response, decoder: SSEDecoder) -> Iterator[dict[str, Any]]:
    """Yield the data of each event as it comes."""
    for chunk in response.iter_raw():
        for event in decoder.feed(chunk):
            yield json.loads(event.data)


def test_an_event_names_no_table_that_only_others_watch(file: Path) -> None:
    """One commit writes two tables: a stream that shows one of them is not told that the other was written."""
    rpc = rpc_on(file, {"notes": {"in_room": in_room}, "visits": {"all": visits}})
    notes, others = {"path": "notes.in_room", "input": {"room": "a"}}, {"path": "visits.all"}
    with (
        running(app_of(rpc)) as url,
        httpx.stream("POST", f"{url}/rpc/events", json={"queries": [others]}) as theirs,
        httpx.stream("POST", f"{url}/rpc/events", json={"queries": [notes]}) as mine,
    ):
        for events in (first_events(theirs, SSEDecoder()), mine_events := first_events(mine, SSEDecoder())):
            assert "stream" in next(events)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
            connection.execute("INSERT INTO visit(who) VALUES ('ann')")
        told = next(mine_events)
    assert [affected["path"] for affected in told["affected"]] == ["notes.in_room"]
    assert told["tables"] == ["note"]


async def test_a_set_that_no_stream_could_carry_is_not_stored(server: Server) -> None:
    """Storing keeps to the limit of a stream, or 10,000 sets of 1 MB each are held for nothing."""
    answer = await server.call("events/sets", {"queries": [{"path": "notes.nope"}] * 1001})
    assert answer.status_code == 413


@define_reactive_function
async def now() -> float:
    return time.monotonic()


async def test_a_query_that_reads_no_table_is_not_kept_for_ever(file: Path) -> None:
    """Nothing would ever invalidate it: what it reads (the time, another service) cannot be told."""
    async with serving(file, {"clock": {"now": now}}) as server:
        first, second = [(await server.client.get("/rpc/clock.now")).json() for _ in range(2)]
    assert first != second


@define_reactive_function(kind="mutation")
async def add_again(input: NewNote, db: AsyncSession) -> str:
    db.add(Note(room=input.room, text=input.text))
    try:
        await db.flush()
    except IntegrityError:
        await db.rollback()
        db.add(Note(room=input.room, text=f"{input.text} again"))
    return "added"


async def test_a_mutation_may_roll_back_and_go_on(file: Path) -> None:
    """`db.rollback()` after a conflict, as SQLAlchemy asks for, begins anew within the same transaction."""
    async with serving(file, {"notes": {"add": add_again}}) as server:
        for _ in range(2):
            assert (await server.call("notes.add", {"room": "a", "text": "x"})).status_code == 200
        assert server.rows() == [("a", "x"), ("a", "x again")]


Decorate = Callable[[], object]


async def _bad(input: InRoom, db: AsyncSession) -> str:
    return ""


async def _syntax(db: AsyncSession) -> list[Any]:
    return []


_syntax.__annotations__["return"] = "list["


async def _attribute(db: AsyncSession) -> list[Any]:
    return []


_attribute.__annotations__["return"] = "asyncio.Missing"

WRONG: dict[str, Decorate] = {
    "a kind that is none": lambda: define_reactive_function(kind="mutatoin")(_bad),  # type: ignore[call-overload]
    "a scope that is none": lambda: define_reactive_function(scope="tennant")(_bad),  # type: ignore[call-overload]
    "dependencies that are no list": lambda: define_reactive_function(dependencies=Note)(_bad),  # type: ignore[call-overload]
    "dependencies that are a string": lambda: define_reactive_function(dependencies="note")(_bad),
    "a predicate that is no function": lambda: define_reactive_function(invalidate_when={Note: True})(_bad),  # type: ignore[dict-item]
    "an annotation that is no Python": lambda: define_reactive_function(_syntax),
    "an annotation that names nothing": lambda: define_reactive_function(_attribute),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_definition_is_told_by_name(fault: str) -> None:
    """What can be known to be wrong when a function is decorated is a DefinitionError that names the function."""
    with pytest.raises(DefinitionError) as raised:
        WRONG[fault]()
    assert any(name in str(raised.value) for name in ("_bad", "_syntax", "_attribute"))


def test_a_procedure_is_no_group(tmp_path: Path) -> None:
    """`notes.all` cannot be a procedure and hold `notes.all.new` at once: no client could spell both."""
    with pytest.raises(DefinitionError):
        rpc_on(tmp_path / "rooms.db", {"notes": {"all": in_room, "all.new": in_room}})


@pytest.mark.parametrize("relations", ["auto", {"note": "visit"}])
async def test_relations_of_a_wrong_shape_are_told(file: Path, relations: Any) -> None:
    """Relations are understood or refused with a DefinitionError that quotes what was given."""
    rpc = rpc_on(file, relations=relations)
    try:
        await rpc.open()
    except DefinitionError as exc:
        message = str(exc)
    else:
        message = repr(relations)
    finally:
        await rpc.aclose()
    assert str(relations) in message or "'visit'" in message


async def test_a_write_to_a_replaced_file_is_seen_at_once(server: Server) -> None:
    """Another file stands in the database's place, with one more row: the very next answer has it."""
    copy = server.path.with_suffix(".copy")
    for n in range(20):
        with closing(sqlite3.connect(server.path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            with target:
                target.execute("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', ?)", (f"z{n:02}",))
        read = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
        expected = [note["text"] for note in read.json()]
        copy.replace(server.path)
        read = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
        assert [note["text"] for note in read.json()] == [*expected, f"z{n:02}"]
