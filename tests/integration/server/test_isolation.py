"""Mutations that run at once: what one may overwrite of another, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import DefinitionError, ForbiddenError, define_reactive_function
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.statements.isolation import ISOLATIONS, Isolation, level_of

from .postgresql_rooms import DRIVERS, Server, serving, with_driver
from .rooms import Note, NoteId, error_of
from .rooms import serving as serving_file

pytestmark = pytest.mark.anyio

CALLERS: Final = 31


@define_reactive_function.mutation
async def increment(db: AsyncSession, input: NoteId) -> str:
    """Read, add, write back."""
    note = await db.get_one(Note, input.id)
    note.text = str(int(note.text) + 1)
    return note.text


@define_reactive_function.mutation
def increment_sync(db: Session, input: NoteId) -> str:
    note = db.get_one(Note, input.id)
    note.text = str(int(note.text) + 1)
    return note.text


COUNTERS: Final[Mapping[str, Any]] = {"counters": {"increment": increment, "increment_sync": increment_sync}}


@pytest.fixture(params=DRIVERS)
async def server(request: pytest.FixtureRequest, postgresql_url: str, anyio_backend: str) -> AsyncIterator[Server]:
    patience = {"pool_timeout_seconds": 60.0}
    async with serving(with_driver(postgresql_url, request.param), COUNTERS, settings=patience) as opened:
        opened.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'a', '0')")
        yield opened


@pytest.mark.parametrize("name", ["counters.increment", "counters.increment_sync"])
async def test_no_increment_is_lost(server: Server, name: str) -> None:
    """Of many that read a row, add one and write it back at once, each counts, whoever has to run again."""
    answers = await asyncio.gather(*(server.answer(name, {"id": 1}) for _ in range(CALLERS)))
    assert sorted(map(int, answers)) == list(range(1, CALLERS + 1))
    assert server.rows("SELECT text FROM note") == [(str(CALLERS),)]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_mutation_has_the_isolation_it_declares(server: Server, isolation: Isolation) -> None:
    """The server runs a handler's transaction as declared, and the next on the same connection as that declares."""

    @define_reactive_function.mutation(isolation=isolation)
    async def level(db: AsyncSession) -> str:
        return str(await db.scalar(text("SHOW transaction_isolation")))

    @define_reactive_function.mutation(isolation=isolation)
    def level_sync(db: Session) -> str:
        return str(db.scalar(text("SHOW transaction_isolation")))

    @define_reactive_function.mutation
    async def default(db: AsyncSession) -> str:
        return str(await db.scalar(text("SHOW transaction_isolation")))

    functions: Mapping[str, Any] = {"more": {"level": level, "level_sync": level_sync, "default": default}}
    async with serving(server.url, functions, settings={"pool_size": 1}) as other:
        for name in ("level", "level_sync"):
            assert await other.answer(f"more.{name}") == level_of(isolation).lower()
        assert await other.answer("more.default") == "serializable"
    async with serving(server.url, functions, settings={"isolation": isolation}) as other:
        assert await other.answer("more.default") == level_of(isolation).lower()


def on_call(meeting: asyncio.Barrier, **options: Any) -> AnyProcedure:
    """Return a mutation that deletes a note where there is another one; two of them meet once both have looked."""
    looked = 0

    @define_reactive_function.mutation(**options)
    async def leave(db: AsyncSession, input: NoteId) -> int:
        nonlocal looked
        looked += 1
        left = (await db.exec(select(func.count()).select_from(Note))).one()
        if looked <= 2:
            await meeting.wait()
        if left < 2:
            raise ForbiddenError("somebody must stay")
        await db.delete(await db.get_one(Note, input.id))
        return left

    return leave


@pytest.mark.parametrize(("isolation", "stay"), [("serializable", 1), ("repeatable_read", 0)])
async def test_two_that_each_saw_the_other(server: Server, isolation: str, stay: int) -> None:
    """Serializable mutations keep a rule over several rows that each of them checked; a mere snapshot does not."""
    server.write("INSERT INTO note(id, tenant, room, text) VALUES (2, 't', 'a', '1')")
    functions: Mapping[str, Any] = {"more": {"leave": on_call(asyncio.Barrier(2), isolation=isolation)}}
    async with serving(server.url, functions) as other:
        answers = await asyncio.gather(*(other.call("more.leave", {"id": id}) for id in (1, 2)))
        assert sorted(answer.status_code for answer in answers) == [200, 403 if stay else 200]
        assert len(server.rows()) == stay


def overtaken(server: Server, times: int, **options: Any) -> tuple[AnyProcedure, list[str]]:
    """Return a mutation of note 1 that somebody else overtakes so often, and what each of its runs had read."""
    seen: list[str] = []

    @define_reactive_function.mutation(**options)
    async def slow(db: AsyncSession) -> str:
        note = await db.get_one(Note, 1)
        seen.append(note.text)
        if len(seen) <= times:
            server.write("UPDATE note SET text = %s WHERE id = 1", f"other {len(seen)}")
        note.text += ", mine"
        return note.text

    return slow, seen


async def test_a_handler_that_was_overtaken_runs_again(server: Server) -> None:
    """Each run has a fresh session, so it reads what the write that overtook the one before has left."""
    slow, seen = overtaken(server, 2)
    async with serving(server.url, {"more": {"slow": slow}}) as other:
        assert await other.answer("more.slow") == "other 2, mine"
        assert seen == ["0", "other 1", "other 2"]
        assert other.rpc.admin.stats()["mutations_repeated"] == 2
        assert server.rows("SELECT text FROM note") == [("other 2, mine",)]


async def test_a_handler_that_alters_its_input_runs_again_with_what_was_sent(server: Server) -> None:
    """Each run has a copy: what the one before made of it is gone with its transaction."""
    seen: list[int] = []

    @define_reactive_function.mutation
    async def alters(db: AsyncSession, input: NoteId) -> int:
        seen.append(input.id)
        input.id += 1
        if len(seen) < 3:
            await (await db.connection()).execute(text("DO $$ BEGIN RAISE serialization_failure; END $$"))
        return input.id

    async with serving(server.url, {"more": {"alters": alters}}) as other:
        assert await other.answer("more.alters", {"id": 1}) == 2
        assert seen == [1, 1, 1]


@pytest.mark.parametrize("attempts", [1, 3])
async def test_attempts_are_bounded(server: Server, attempts: int) -> None:
    """Who is overtaken each time is told so, and how often, and nothing is written; `attempts=1` runs once."""
    slow, seen = overtaken(server, 1000, attempts=attempts)
    async with serving(server.url, {"more": {"slow": slow}}) as other:
        error = error_of(await other.call("more.slow"))
        assert (error["code"], error["details"], len(seen)) == ("CONFLICT", {"retry": True}, attempts)
        assert ("at each of 3 attempts" in error["message"]) == (attempts == 3)
        assert server.rows("SELECT text FROM note") == [(f"other {attempts}",)]


async def test_an_error_that_grew_out_of_being_overtaken(server: Server) -> None:
    """A handler that turns the driver's error into its own runs again too, and its own error is told at the end."""
    runs = 0

    @define_reactive_function.mutation(attempts=3)
    async def mapping(db: AsyncSession, input: NoteId) -> int:
        nonlocal runs
        runs += 1
        note = await db.get_one(Note, 1)
        if runs <= input.id:
            server.write("UPDATE note SET text = %s WHERE id = 1", str(runs))
        note.text = f"mine {runs}"
        try:
            await db.flush()
        except DBAPIError as exc:
            raise ForbiddenError("not now") from exc
        return runs

    async with serving(server.url, {"more": {"mapping": mapping}}) as other:
        assert await other.answer("more.mapping", {"id": 1}) == 2
        runs = 0
        assert error_of(await other.call("more.mapping", {"id": 1000}))["code"] == "FORBIDDEN"
        assert runs == 3


async def test_an_error_of_the_handler_is_told_at_once(server: Server) -> None:
    """What has nothing to do with other writes is not tried again, a violated constraint neither."""
    runs = 0

    @define_reactive_function.mutation
    async def failing(db: AsyncSession, input: NoteId) -> None:
        nonlocal runs
        runs += 1
        if input.id == 0:
            raise ForbiddenError("no")
        db.add(Note(room="a", text="0"))

    async with serving(server.url, {"more": {"failing": failing}}) as other:
        assert [error_of(await other.call("more.failing", {"id": id}))["code"] for id in (0, 1)] == [
            "FORBIDDEN",
            "CONFLICT",
        ]
        assert runs == 2


class Sql(BaseModel):
    sql: str


@define_reactive_function.mutation(isolation="read_committed")
async def run(db: AsyncSession, input: Sql) -> None:
    await (await db.connection()).execute(text(input.sql))


@define_reactive_function.mutation(isolation="read_committed")
async def with_option(db: AsyncSession) -> None:
    await db.connection(execution_options={"isolation_level": "SERIALIZABLE"})


@define_reactive_function
async def run_in_query(db: AsyncSession, input: Sql) -> None:
    await (await db.connection()).execute(text(input.sql))


async def test_a_handler_that_sets_its_own_isolation_is_told_where_to(server: Server) -> None:
    """However it tries to, the error names the option that does it."""
    set_it = {"sql": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"}
    set_local = {"sql": "SET LOCAL transaction_isolation = 'serializable'"}
    functions: Mapping[str, Any] = {"more": {"run": run, "with_option": with_option, "run_in_query": run_in_query}}
    async with serving(server.url, functions) as other:
        for name, input in (("run", set_it), ("run", set_local), ("with_option", None)):
            error = error_of(await other.call(f"more.{name}", input))
            assert (error["code"], "isolation='serializable'" in error["message"]) == ("INTERNAL_SERVER_ERROR", True)
        assert "one snapshot" in error_of(await other.call("more.run_in_query", set_it))["message"]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_on_sqlite_each_is_serializable(tmp_path: Path, isolation: Isolation) -> None:
    """A file has one writer at a time, whatever is declared: no increment is lost, and none runs twice."""

    @define_reactive_function.mutation(isolation=isolation)
    async def add_one(db: AsyncSession) -> int:
        note = await db.get_one(Note, 1)
        note.text = str(int(note.text) + 1)
        return int(note.text)

    functions: Mapping[str, Any] = {"more": {"add_one": add_one, "increment_sync": increment_sync}}
    async with serving_file(tmp_path / "notes.db", functions, settings={"busy_timeout_seconds": 60.0}) as server:
        server.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'a', '0')")
        calls = [server.call("more.add_one") for _ in range(10)]
        calls += [server.call("more.increment_sync", {"id": 1}) for _ in range(10)]
        await asyncio.gather(*calls)
        assert server.rows("SELECT text FROM note") == [("20",)]
        assert server.rpc.admin.stats()["mutations_repeated"] == 0


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("mutation", {"isolation": "snapshot"}, "isolation='snapshot'"),
        ("mutation", {"attempts": 0}, "attempts=0"),
        ("query", {"isolation": "serializable"}, "isolation= is no option of a query"),
        ("query", {"attempts": 3}, "attempts= is no option of a query"),
    ],
)
def test_a_wrong_declaration(kind: str, options: dict[str, Any], words: str) -> None:
    """It stops the import, and says what may be said."""
    with pytest.raises(DefinitionError, match=words):
        getattr(define_reactive_function, kind)(**options)(lambda: None)
