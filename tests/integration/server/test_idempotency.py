"""Mutations that are sent again under one key: made once, answered the same, by any worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import pytest
from fastapi import Header
from pydantic import BaseModel, Field
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, Login, NotFoundError, define_reactive_function
from reactive_rpc.changes.answers import MAX_ANSWER_BYTES
from reactive_rpc.procedures.registry import Functions
from reactive_rpc.testing.postgresql import PostgreSQL

from . import postgresql_rooms, rooms
from .rooms import NewNote, Note, error_of

pytestmark = pytest.mark.anyio

KEY: Final = "8e03978e-40d5-43dd-bc93-6894a57f9324"
INPUT: Final = {"room": "a", "text": "x"}
AnyServer = rooms.Server | postgresql_rooms.Server


class Long(BaseModel):
    characters: int


class Numbered(BaseModel):
    number: float
    made_at: int = Field(default_factory=iter(range(1000)).__next__)


RUNS: list[str] = []


@define_reactive_function.mutation
async def add(db: AsyncSession, ctx: Login, input: NewNote) -> str:
    """Add a note; a second one of the same text is refused by the table."""
    RUNS.append(input.text)
    db.add(Note(room=input.room, text=f"{input.text} of {ctx.identity}"))
    return f"{len(RUNS)}"


@define_reactive_function.mutation
def add_sync(db: Session, input: NewNote) -> str:
    RUNS.append(input.text)
    db.add(Note(room=input.room, text=input.text))
    return f"{len(RUNS)}"


@define_reactive_function.mutation
async def add_after_rollback(db: AsyncSession, input: NewNote) -> str:
    """Begin anew within the transaction."""
    RUNS.append(input.text)
    db.add(Note(room=input.room, text="taken back"))
    await db.flush()
    await db.rollback()
    db.add(Note(room=input.room, text=input.text))
    return f"{len(RUNS)}"


@define_reactive_function.mutation
async def fail_once(db: AsyncSession, input: NewNote) -> str:
    RUNS.append(input.text)
    db.add(Note(room=input.room, text=input.text))
    await db.flush()
    if len(RUNS) == 1:
        raise NotFoundError("not yet")
    return "done"


@define_reactive_function.mutation
async def long(db: AsyncSession, input: Long) -> str:
    RUNS.append("")
    return "x" * input.characters


@define_reactive_function.mutation
async def numbered(db: AsyncSession, input: Numbered) -> int:
    RUNS.append("")
    return input.made_at


@define_reactive_function.mutation
async def touch() -> int:
    """Take no input."""
    RUNS.append("")
    return len(RUNS)


def who(x_user: Annotated[str | None, Header()] = None, x_token: Annotated[str, Header()] = "") -> Login:
    return Login(identity=x_user)


FUNCTIONS: Final[Functions] = {
    "notes": {
        each.name: each for each in (add, add_sync, add_after_rollback, fail_once, long, numbered, touch, rooms.in_room)
    }
}


@asynccontextmanager
async def serving(place: Path | str, functions: Functions = FUNCTIONS, **options: Any) -> AsyncIterator[AnyServer]:
    """Open a worker on a file, or on the PostgreSQL database at a URL."""
    options = {"context": who, **options}
    async with AsyncExitStack() as stack:
        if isinstance(place, Path):
            options["settings"] = {"busy_timeout_seconds": 30.0, **options.get("settings", {})}
            yield await stack.enter_async_context(rooms.serving(place, functions, **options))
        else:
            options["settings"] = {"pool_timeout_seconds": 30.0, **options.get("settings", {})}
            yield await stack.enter_async_context(postgresql_rooms.serving(place, functions, **options))


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgreSQL) -> Path | str:
    """Return an empty database."""
    RUNS.clear()
    if request.param == "sqlite":
        return tmp_path / "notes.db"
    return postgresql.new_database(driver=f"postgresql+{request.param}")


@pytest.fixture
async def server(place: Path | str, anyio_backend: str) -> AsyncIterator[AnyServer]:
    async with serving(place) as opened:
        yield opened


def headers(key: str = KEY, user: str | None = "ada", **more: str) -> Mapping[str, str]:
    return {"idempotency-key": key, **({} if user is None else {"x-user": user}), **more}


@pytest.mark.parametrize("name", ["notes.add", "notes.add_sync", "notes.add_after_rollback"])
async def test_what_is_sent_again_is_made_once(server: AnyServer, name: str) -> None:
    """The same key and input run once, and are answered the same; spelled otherwise, they are the same still."""
    first = await server.call(name, INPUT, **headers())
    again = await server.call(name, dict(reversed(INPUT.items())), **headers(key=f'"{KEY}"', **{"x-token": "newer"}))
    assert (first.status_code, again.status_code) == (200, 200), again.text
    assert first.content == again.content == b'"1"'
    assert (first.headers.get("reactive-replayed"), again.headers["reactive-replayed"]) == (None, "true")
    assert "reactive-cursor" in again.headers
    assert len(RUNS) == len(server.rows()) == 1


async def test_a_key_is_of_one_caller_and_one_procedure(server: AnyServer) -> None:
    """Another caller under the same key, and another procedure, are calls of their own."""
    answers = [
        await server.call("notes.add", INPUT, **headers()),
        await server.call("notes.add", INPUT, **headers(user="bob")),
        await server.call("notes.add_sync", INPUT, **headers()),
        await server.call("notes.add_sync", {"room": "a", "text": "y"}, **headers(key=KEY + "2")),
    ]
    assert [answer.json() for answer in answers] == ["1", "2", "3", "4"]


async def test_another_input_under_a_key_is_refused(server: AnyServer) -> None:
    """It is a mistake of the client's: neither answer would be right. Nothing is made."""
    await server.call("notes.add", INPUT, **headers())
    error = error_of(await server.call("notes.add", {"room": "b", "text": "x"}, **headers()))
    assert error["code"] == "UNPROCESSABLE_CONTENT"
    assert len(RUNS) == 1
    await server.call("notes.numbered", {"number": 1}, **headers())
    same = await server.call("notes.numbered", {"number": 1}, **headers())
    assert same.headers["reactive-replayed"] == "true"  # what the model fills in by itself is no other input


async def test_a_body_that_nobody_reads_is_none_of_the_keys(server: AnyServer) -> None:
    """A mutation without an input takes any, also under a key: one that is no JSON was answered by a 500."""
    bodies = (b"{", b"[" * 9000, b"9" * 5000)
    for number, body in enumerate(bodies):
        asked = {**headers(key=f"{KEY}{number}"), **rooms.JSON}
        answers = [await server.client.post("/rpc/notes.touch", content=body, headers=asked) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[1].headers["reactive-replayed"] == "true"
    assert len(RUNS) == len(bodies)


async def test_a_mutation_that_failed_runs_again(server: AnyServer) -> None:
    """It was rolled back, and its key with it."""
    answers = [await server.call("notes.fail_once", INPUT, **headers()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 200, 200]
    assert len(RUNS) == 2


async def test_a_key_that_cannot_be_one(server: AnyServer) -> None:
    """Empty, too long, or short enough to be guessed where nothing tells callers apart: refused, nothing is made."""
    for given in (headers(key=""), headers(key="x" * 300), headers(key="k-1", user=None)):
        assert error_of(await server.call("notes.add", INPUT, **given))["code"] == "BAD_REQUEST"
    assert (await server.call("notes.add", INPUT, **headers(key="k-1"))).status_code == 200
    assert (await server.call("notes.add", INPUT, **headers(user=None))).status_code == 200
    assert len(RUNS) == 2


async def test_a_header_that_is_no_key(server: AnyServer) -> None:
    """Given twice, of other letters, or nothing but quotes: refused, nothing is made."""
    for given in ([KEY.encode()] * 2, [f"{KEY}é".encode("latin-1")], [b'""']):
        headers = [(b"x-user", b"ada"), *((b"idempotency-key", key) for key in given)]
        answer = await server.client.post("/rpc/notes.add", json=INPUT, headers=headers)
        assert error_of(answer)["code"] == "BAD_REQUEST"
    assert not RUNS


async def test_an_answer_too_long_to_keep(server: AnyServer) -> None:
    """The call is not made again, and says that its answer is gone."""
    first = await server.call("notes.long", {"characters": MAX_ANSWER_BYTES}, **headers())
    again = await server.call("notes.long", {"characters": MAX_ANSWER_BYTES}, **headers())
    assert (first.status_code, error_of(again)["code"], len(RUNS)) == (200, "CONFLICT", 1)
    assert "too long to be kept" in error_of(again)["message"]


async def test_an_answer_is_kept_for_its_time(place: Path | str) -> None:
    """After that the key may be used anew, and pruning takes away what nobody has asked for again."""
    async with serving(place, settings={"idempotency_seconds": 1e-9}) as server:
        table = "_reactive_rpc_answers" if isinstance(place, Path) else "reactive_rpc.answers"
        for text in "xy":
            assert (await server.call("notes.add", {"room": "a", "text": text}, **headers())).status_code == 200
            if isinstance(place, Path):  # its clock has whole seconds
                server.write(f"UPDATE {table} SET at = at - 1")
        assert (len(RUNS), server.rows(f"SELECT count(*) FROM {table}")) == (2, [(1,)])
        answers = server.rpc._pruner._answers
        assert answers is not None
        await asyncio.to_thread(server.rpc._database.examine, answers.prune)
        assert server.rows(f"SELECT count(*) FROM {table}") == [(0,)]


async def test_many_that_are_sent_at_once_to_two_workers(place: Path | str) -> None:
    """Of all calls under one key one runs; the others are told that it is running, or what it answered."""
    async with serving(place) as one, serving(place) as two:
        for round in range(5):
            input, given = {"room": "a", "text": str(round)}, headers(key=f"{KEY}-{round}")
            calls = [server.call("notes.add", input, **given) for server in (one, two) * 8]
            answers = await asyncio.gather(*calls)
            assert {answer.status_code for answer in answers} <= {200, 409}, [answer.text for answer in answers]
            assert {answer.text for answer in answers if answer.status_code == 200} == {f'"{round + 1}"'}
            assert all(
                error_of(answer)["details"] == {"retry": True} for answer in answers if answer.status_code == 409
            )
            assert (await two.call("notes.add", input, **given)).text == f'"{round + 1}"'
        assert len(RUNS) == len(one.rows()) == 5


async def test_while_the_first_is_running(postgresql_url: str) -> None:
    """Whoever sends it again is told so at once, on another worker too, and does not wait for it to end."""
    RUNS.clear()
    started, go_on = asyncio.Event(), asyncio.Event()

    @define_reactive_function.mutation
    async def slow(db: AsyncSession) -> str:
        RUNS.append("")
        started.set()
        await go_on.wait()
        return "done"

    functions: Functions = {"notes": {"slow": slow}}
    async with serving(postgresql_url, functions) as one, serving(postgresql_url, functions) as two:
        first = asyncio.create_task(one.call("notes.slow", **headers()))
        await started.wait()
        refused = await two.call("notes.slow", **headers())
        assert (error_of(refused)["code"], refused.headers["retry-after"]) == ("CONFLICT", "1")
        go_on.set()
        assert (await first).text == (await two.call("notes.slow", **headers())).text == '"done"'
        assert len(RUNS) == 1


@pytest.mark.parametrize("driver", postgresql_rooms.DRIVERS)
async def test_keys_do_not_make_mutations_collide(postgresql_url: str, driver: str) -> None:
    """Serializable mutations at once, each under its own key, have nothing to do with each other; nor has a replay."""
    meeting = asyncio.Barrier(3)

    @define_reactive_function.mutation(attempts=1)
    async def meet(db: AsyncSession, input: NewNote) -> str:
        db.add(Note(room=input.room, text=input.text))
        await db.flush()
        if input.room == "together":
            await meeting.wait()
        return input.text

    url = postgresql_rooms.with_driver(postgresql_url, driver)
    async with serving(url, {"notes": {"meet": meet}}, context=None) as server:
        for number in range(20):  # few enough rows for PostgreSQL to read the table whole
            await server.call("notes.meet", {"room": "a", "text": str(number)}, **headers(f"{KEY}-{number}"))
        server.write("ANALYZE reactive_rpc.answers")
        inputs = [{"room": "together", "text": text} for text in "xyz"]
        answers = await asyncio.gather(
            *(server.call("notes.meet", input, **headers(f"{KEY}-{input['text']}")) for input in inputs)
        )
        assert [answer.status_code for answer in answers] == [200, 200, 200], [answer.text for answer in answers]


async def test_a_mutation_that_was_overtaken_is_made_once(postgresql_url: str) -> None:
    """Its runs are one call: the claim of one that was rolled back is in nobody's way."""
    runs = 0

    @define_reactive_function.mutation
    async def overtaken(db: AsyncSession) -> int:
        nonlocal runs
        runs += 1
        note = await db.get_one(Note, 1)
        if runs == 1:
            served.write("UPDATE note SET text = 'other' WHERE id = 1")
        note.text = f"{note.text}, mine"
        return runs

    async with serving(postgresql_url, {"notes": {"overtaken": overtaken}}, context=None) as served:
        served.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'a', '0')")
        answers = [await served.call("notes.overtaken", **headers()) for _ in range(2)]
        assert [answer.json() for answer in answers] == [2, 2]
        assert (runs, served.rows("SELECT text FROM note")) == (2, [("other, mine",)])


async def test_without_a_place_for_answers(place: Path | str) -> None:
    """A server without tables of its own refuses the key, loudly, and makes nothing of the call."""
    async with serving(place, capture=Capture(mode="session")) as server:
        error = error_of(await server.call("notes.add", INPUT, **headers()))
        assert (error["code"], RUNS) == ("PRECONDITION_FAILED", [])
        assert (await server.call("notes.add", INPUT)).status_code == 200


async def test_the_document_names_the_header(tmp_path: Path) -> None:
    """Every mutation has it, no query."""
    async with rooms.serving(tmp_path / "notes.db", FUNCTIONS, context=who) as server:
        paths = (await server.client.get("/openapi.json")).json()["paths"]
        (key,) = (p for p in paths["/rpc/notes.add"]["post"]["parameters"] if p["name"] == "Idempotency-Key")
        assert (key["in"], key["required"]) == ("header", False)
        schema = key["schema"]
        assert (schema["type"], schema["minLength"], schema["maxLength"]) == ("string", 20, 255)
        assert re.search(schema["pattern"], KEY)
        assert not any(re.search(schema["pattern"], none) for none in ("", '""', " " * 20, f"{KEY}é", f"{KEY}\n{KEY}"))
        assert "Idempotency-Key" not in str(paths["/rpc/notes.in_room"])
