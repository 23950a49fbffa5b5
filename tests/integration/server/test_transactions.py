"""Queries read, mutations are whole: what is refused writes nothing."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import NotFoundError, define_reactive_function
from reactive_rpc.procedures.procedure import AnyProcedure
from tests.support.calls import by_path

from .rooms import NewNote, Note, Server, Visit, error_of, serving

pytestmark = pytest.mark.anyio

NOTE = {"room": "a", "text": "x"}


@define_reactive_function
async def by_orm(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    return "written"


@define_reactive_function
async def by_orm_and_commit(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    await db.commit()
    return "written"


@define_reactive_function
async def by_core(db: AsyncSession, input: NewNote) -> str:
    await db.exec(insert(Note).values(tenant="t", room=input.room, text=input.text))
    return "written"


@define_reactive_function
async def by_text(db: AsyncSession, input: NewNote) -> str:
    connection = await db.connection()
    await connection.execute(text("INSERT INTO note(tenant, room, text) VALUES ('t', :room, :text)"), dict(input))
    return "written"


@define_reactive_function
async def by_driver(db: AsyncSession, input: NewNote) -> str:
    connection = await db.connection()
    await connection.exec_driver_sql("CREATE TABLE mine(x)")
    return "written"


@define_reactive_function
def by_thread(db: Session, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    db.commit()
    return "written"


@define_reactive_function
async def in_a_savepoint(db: AsyncSession, input: NewNote) -> str:
    async with db.begin_nested():
        db.add(Note(room=input.room, text=input.text))
    return "written"


WRITERS: dict[str, AnyProcedure] = {
    each.name: each for each in (by_orm, by_orm_and_commit, by_core, by_text, by_driver, by_thread, in_a_savepoint)
}


@pytest.mark.parametrize("name", WRITERS)
async def test_a_query_that_writes_is_refused(file: Path, name: str) -> None:
    """However it writes, the database refuses; the caller is told the way out, and nothing is written or cached."""
    async with serving(file, {"notes": dict(WRITERS)}) as server:
        for _ in range(2):
            answer = await server.call(f"notes.{name}", NOTE)
            assert answer.status_code == 500
            assert "define_reactive_function.mutation" in error_of(answer)["message"]
        assert server.rows() == []
        assert server.rows("SELECT name FROM sqlite_master WHERE name = 'mine'") == []
        assert server.rpc.admin.stats()["stored"] == 0


async def test_a_query_that_changes_a_row_in_a_thread_is_refused(file: Path) -> None:
    """A pending ORM write is refused in a thread as on the loop, not answered and forgotten."""

    @define_reactive_function
    def rename(db: Session) -> str:
        note = db.exec(select(Note)).one()
        note.text = "renamed"
        return note.text

    async with serving(file, {"n": {"q": rename}}) as server:
        server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
        assert (await server.client.get("/rpc/n.q")).status_code == 500


@define_reactive_function
async def swallowing(db: AsyncSession, input: NewNote) -> str:
    try:
        await db.exec(insert(Note).values(tenant="t", room=input.room, text=input.text))
    except Exception:
        return "swallowed"
    return "written"


async def test_a_query_that_hides_its_refusal_still_writes_nothing(file: Path) -> None:
    """Catching the refusal changes nothing but the answer, which is not cached."""
    async with serving(file, {"notes": {"swallowing": swallowing}}) as server:
        assert (await server.call("notes.swallowing", NOTE)).json() == "swallowed"
        assert server.rows() == []
        assert server.rpc.admin.stats()["stored"] == 0


@define_reactive_function.mutation
async def by_accident(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    await db.flush()
    raise ValueError("oh")


@define_reactive_function.mutation
async def on_purpose(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    await db.flush()
    raise NotFoundError("no such room")


@define_reactive_function.mutation
async def after_a_commit(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    await db.commit()
    db.add(Note(room=input.room, text=f"{input.text} again"))
    await db.commit()
    raise ValueError("oh")


@define_reactive_function.mutation
def in_a_thread(db: Session, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    db.commit()
    raise ValueError("oh")


class Answer(BaseModel):
    id: int


@define_reactive_function.mutation
async def with_a_wrong_output(db: AsyncSession, input: NewNote) -> Answer:
    db.add(Note(room=input.room, text=input.text))
    return {"id": "secret of the handler"}  # type: ignore[return-value]  # that is the point


@define_reactive_function.mutation
def with_a_wrong_output_in_a_thread(db: Session, input: NewNote) -> Answer:
    db.add(Note(room=input.room, text=input.text))
    return {"id": "secret of the handler"}  # type: ignore[return-value]  # that is the point


class Row(BaseModel):
    id: int
    room: str


@define_reactive_function.mutation
async def with_a_wrong_row(db: AsyncSession, input: NewNote) -> Note:
    note = Note(room=5, text=input.text)  # type: ignore[arg-type]  # table models do not validate: that is the point
    db.add(note)
    return note


@define_reactive_function.mutation
async def with_a_constructed_model(db: AsyncSession, input: NewNote) -> Row:
    db.add(Note(room=input.room, text=input.text))
    return Row.model_construct(id="x", room="y")  # type: ignore[arg-type]  # that is the point


FAILING: dict[str, tuple[AnyProcedure, int]] = {
    "by_accident": (by_accident, 500),
    "on_purpose": (on_purpose, 404),
    "after_a_commit": (after_a_commit, 500),
    "in_a_thread": (in_a_thread, 500),
    "with_a_wrong_output": (with_a_wrong_output, 500),
    "with_a_wrong_output_in_a_thread": (with_a_wrong_output_in_a_thread, 500),
    "with_a_wrong_row": (with_a_wrong_row, 500),
    "with_a_constructed_model": (with_a_constructed_model, 500),
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("name", FAILING)
async def test_a_mutation_that_fails_writes_nothing(file: Path, name: str) -> None:
    """An exception, an error on purpose or an output that does not fit undoes everything, `db.commit()` or not.

    Nor is an instance of the output's class proof that it fits: a table model and a constructed one are not validated.
    """
    procedure, status = FAILING[name]
    async with serving(file, {"notes": {name: procedure}}) as server:
        answer = await server.call(f"notes.{name}", NOTE)
        assert answer.status_code == status
        assert "secret" not in answer.text
        assert server.rows() == []


async def test_a_commit_in_a_mutation_is_the_mutations_own(file: Path) -> None:
    """`db.commit()` publishes nothing: another connection sees the rows when the call has returned, not before."""
    seen: list[int] = []

    @define_reactive_function.mutation
    async def add_and_look(db: AsyncSession, input: NewNote) -> int:
        db.add(Note(room=input.room, text=input.text))
        await db.commit()
        with sqlite3.connect(file) as other:
            seen.append(other.execute("SELECT count(*) FROM note").fetchone()[0])
        other.close()
        return len((await db.exec(select(Note))).all())

    async with serving(file, {"notes": {"add": add_and_look}}) as server:
        assert (await server.call("notes.add", NOTE)).json() == 1
        assert seen == [0]
        assert server.rows() == [("a", "x")]


async def test_a_savepoint_saves_a_mutation_from_a_conflict(file: Path) -> None:
    """`begin_nested` undoes its own part; what stands around it is committed."""

    @define_reactive_function.mutation
    async def add_once(db: AsyncSession, input: NewNote) -> str:
        db.add(Visit(who=input.room))
        try:
            async with db.begin_nested():
                db.add(Note(room=input.room, text=input.text))
        except IntegrityError:
            return "there already"
        return "added"

    async with serving(file, {"notes": {"add": add_once}}) as server:
        answers = [(await server.call("notes.add", NOTE)).json() for _ in range(2)]
        assert answers == ["added", "there already"]
        assert server.rows() == [("a", "x")]
        assert server.rows("SELECT count(*) FROM visit") == [(2,)]


@define_reactive_function.mutation
async def add_again(db: AsyncSession, input: NewNote) -> str:
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
            assert (await server.call("notes.add", NOTE)).status_code == 200
        assert server.rows() == [("a", "x"), ("a", "x again")]


@define_reactive_function(dependencies=[Note])
async def undeclared(db: AsyncSession) -> list[str]:
    return [visit.who for visit in (await db.exec(select(Visit).order_by(Visit.who))).all()]


async def test_reading_an_undeclared_table_fails_in_development(file: Path) -> None:
    """The error names the procedure, the table, what is declared, and both ways out; nothing is cached."""
    async with serving(file, {"visits": {"all": undeclared}}) as server:
        answer = await server.call("visits.all")
        message = error_of(answer)["message"]
    assert answer.status_code == 500
    assert all(word in message for word in ("visits.all", "'visit'", "(note)", "add it", "leave dependencies out"))


async def test_reading_an_undeclared_table_widens_in_production(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is warned of once, and a write to that table counts all the same."""
    with caplog.at_level(logging.WARNING):
        async with serving(file, {"visits": {"all": undeclared}}, settings={"environment": "production"}) as server:
            assert (await server.call("visits.all")).json() == []
            server.write("INSERT INTO visit(who) VALUES ('ann')")
            assert (await server.call("visits.all")).json() == ["ann"]
            server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
            assert (await server.call("visits.all")).json() == ["ann"]
            assert server.rpc.admin.stats()["misses"] == 3
    warnings = [record.getMessage() for record in caplog.records if "widened" in record.getMessage()]
    assert len(warnings) == 1
    assert "visits.all reads 'visit'" in warnings[0]


async def test_a_write_by_any_means_is_seen_by_the_next_read(file: Path) -> None:
    """A mutation, another connection, an in-process call: each is reflected by the read that follows it."""
    async with serving(file) as server:
        read: Any = ("/rpc/notes.in_room?room=a",)
        expected = []
        for n in range(5):
            await server.call("notes.add", {"room": "a", "text": f"{n} mutation"})
            server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', ?)", f"{n} other")
            await by_path(server.rpc)("notes.add", room="a", text=f"{n} caller")
            expected += [f"{n} caller", f"{n} mutation", f"{n} other"]
            assert [note["text"] for note in (await server.client.get(*read)).json()] == expected
        assert (await server.call("notes.in_room_sync", {"room": "a"})).json() == (
            await server.client.get(*read)
        ).json()


async def test_a_write_to_a_replaced_file_is_seen_by_the_next_read(server: Server) -> None:
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


@pytest.mark.parametrize("kind", ["engine", "connection", "after a write"])
async def test_a_mutation_that_waits_for_its_own_lock_is_told_so(file: Path, kind: str) -> None:
    """A handler that writes by another connection waits for itself; the error says that, and the way out."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", connect_args={"timeout": 0.05})

    @define_reactive_function.mutation
    async def by_own_engine(db: AsyncSession, input: NewNote) -> str:
        async with engine.begin() as own:
            await own.execute(insert(Note).values(tenant="t", room=input.room, text=input.text))
        return "written"

    @define_reactive_function.mutation
    def by_own_connection(db: Session, input: NewNote) -> str:
        with closing(sqlite3.connect(file, timeout=0.05)) as own:
            own.execute("DELETE FROM note")
        return "written"

    @define_reactive_function.mutation
    async def after_a_write(db: AsyncSession, input: NewNote) -> str:
        db.add(Note(room=input.room, text=input.text))
        await db.commit()
        async with AsyncSession(engine) as own:
            own.add(Visit(who="me"))
            await own.commit()
        return "written"

    procedures = {"engine": by_own_engine, "connection": by_own_connection, "after a write": after_a_write}
    async with serving(file, {"notes": {"add": procedures[kind]}}) as server:
        answer = await server.call("notes.add", NOTE)
        assert answer.status_code == 503
        assert "probably its handler writes by another connection" in error_of(answer)["message"]
        assert "the session that the handler is given" in error_of(answer)["message"]
        assert server.rows() == []
        assert server.rows("SELECT who FROM visit") == []
    await engine.dispose()


@define_reactive_function.mutation
async def written(db: AsyncSession, input: NewNote) -> str:
    db.add(Note(room=input.room, text=input.text))
    return "written"


async def test_a_lock_of_somebody_else_is_not_taken_for_the_mutations_own(file: Path) -> None:
    """Who waits for another writer to begin holds nothing yet, and may try again."""
    async with serving(file, {"notes": {"add": written}}) as server:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await server.call("notes.add", NOTE)
        assert answer.status_code == 503
        assert error_of(answer)["message"] == "the database is locked or cannot be reached; try again"
        assert (await server.call("notes.add", NOTE)).json() == "written"
