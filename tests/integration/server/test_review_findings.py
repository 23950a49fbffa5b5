"""Defects found by a review of the core; each test says what should hold, and fails where it does not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Header
from pydantic import BaseModel, PrivateAttr
from sqlalchemy import NullPool, column, create_engine, inspect, text
from sqlalchemy import select as core_select
from sqlalchemy.orm import registry, relationship
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    ConflictError,
    Context,
    DefinitionError,
    ReactiveRPC,
    RPCError,
    TooManyRequestsError,
    define_reactive_function,
)
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.dependencies.relations import parse_relations, widen
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.procedures.canonical import canonical, is_pure
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Connected, Invalidation, QueryRef, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.stream import Stream
from reactive_rpc.subscriptions.watched_query import Subscription
from tests.support.waiting import until

from .rooms import ROOMS, InRoom, Note, NoteId, Server, Visit, serving

pytestmark = pytest.mark.anyio


class Own(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata of the other tests."""


NOTE_TABLE: Any = Note.__table__  # type: ignore[attr-defined]  # a table model has one
INSERT = "INSERT INTO note(tenant, room, text) VALUES ('t', ?, ?)"


async def get(server: Server, name: str, /, **parameters: Any) -> Any:
    answer = await server.client.get(f"/rpc/{name}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def connect(
    server: Server, *queries: QueryRef, cursor: str | None = None, ctx: object = None
) -> tuple[Stream, Connected]:
    rpc = server.rpc
    subscriptions = [Subscription(ref, call=rpc._caller.subscribe(ref.path, ref.input, ctx)) for ref in queries]
    stream, frame = await rpc._hub.connect(subscriptions, Cursor.parse(cursor) if cursor else None, acks=False)
    connected = decode_event(SSEDecoder().feed(frame)[0])
    assert isinstance(connected, Connected)
    return stream, connected


@asynccontextmanager
async def heard(stream: Stream) -> AsyncIterator[list[Invalidation]]:
    events: list[Any] = []

    async def hear(frame: bytes) -> None:
        events.extend(decode_event(event) for event in SSEDecoder().feed(frame))

    task = asyncio.create_task(stream.write_to(hear))
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Stale answers: reads that the recorder does not see.


@define_reactive_function
async def title_by_bare_column(input: NoteId, db: AsyncSession) -> list[str]:
    statement: Any = core_select(column("text")).select_from(NOTE_TABLE).where(NOTE_TABLE.c.id == input.id)
    return list((await (await db.connection()).execute(statement)).scalars())


async def test_a_column_without_a_table_counts_as_read(file: Path) -> None:
    """`column("text")` renders a column of some table of the FROM: an update of it changes the result."""
    async with serving(file, {"n": {"q": title_by_bare_column}}) as server:
        server.write(INSERT, "a", "old")
        assert await get(server, "n.q", id=1) == ["old"]
        server.write("UPDATE note SET text = 'new'")
        assert await get(server, "n.q", id=1) == ["new"]


@define_reactive_function
async def by_engine(db: AsyncSession) -> int:
    await db.exec(select(Visit))
    async with AsyncSession(db.bind.engine) as other:  # type: ignore[union-attr, arg-type]  # a connection
        return len((await other.exec(select(Note))).all())


@define_reactive_function
def by_engine_sync(db: Session) -> int:
    db.exec(select(Visit))
    with Session(db.get_bind().engine) as other:
        return len(other.exec(select(Note)).all())


@define_reactive_function
async def by_driver(db: AsyncSession) -> int:
    await db.exec(select(Visit))
    raw = await (await db.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    async with raw.driver_connection.execute("SELECT count(*) FROM note") as cursor:
        return int((await cursor.fetchone())[0])


@define_reactive_function
def by_driver_sync(db: Session) -> int:
    db.exec(select(Visit))
    cursor = db.connection().connection.cursor()
    return int(cursor.execute("SELECT count(*) FROM note").fetchone()[0])


@pytest.mark.parametrize(
    "procedure",
    [by_engine, by_engine_sync, by_driver, by_driver_sync],
    ids=lambda procedure: procedure.name,
)
async def test_a_read_by_any_way_that_db_gives_is_seen(file: Path, procedure: Any) -> None:
    """A result that was read around the session, through what the session hands out, does not go stale."""
    async with serving(file, {"n": {"q": procedure}}) as server:
        assert await get(server, "n.q") == 0
        server.write(INSERT, "a", "x")
        assert await get(server, "n.q") == 1


HELD: list[Any] = []


@define_reactive_function
def peek_held(input: InRoom, db: Session) -> str | None:
    result = db.connection().execute(core_select(NOTE_TABLE.c.text).order_by(NOTE_TABLE.c.id.desc()))
    HELD.append(result)
    for row in result:
        return str(row[0])
    return None


@define_reactive_function
async def peek_stream(input: InRoom, db: AsyncSession) -> str | None:
    result = await (await db.connection()).stream(core_select(NOTE_TABLE.c.text).order_by(NOTE_TABLE.c.id.desc()))
    HELD.append(result)
    async for row in result:
        return str(row[0])
    return None


@pytest.mark.parametrize("procedure", [peek_held, peek_stream], ids=lambda procedure: procedure.name)
async def test_a_result_that_was_not_read_to_its_end_holds_no_snapshot(file: Path, procedure: Any) -> None:
    """The next call on the same pooled connection begins a snapshot of its own."""
    async with serving(file, {"n": {"q": procedure}}) as server:
        for n in range(3):
            server.write(INSERT, "a", str(n))
        for n in range(3, 6):
            await get(server, "n.q", room=f"r{n}")
            server.write(INSERT, "a", str(n))
            assert await get(server, "n.q", room=f"s{n}") == str(n)
    HELD.clear()


# Stale answers: joining.


async def test_a_read_of_an_uncaptured_table_joins_no_flight_from_before_the_request(file: Path) -> None:
    """A write to a virtual table moves no version: a request that comes after it must not get a result of before."""
    started, go = asyncio.Event(), asyncio.Event()

    @define_reactive_function
    async def found(db: AsyncSession) -> int:
        count = int((await (await db.connection()).execute(text("SELECT count(*) FROM doc"))).scalar_one())
        started.set()
        await go.wait()
        return count

    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE VIRTUAL TABLE doc USING fts5(body)")
    async with serving(file, {"n": {"q": found}}) as server:
        first = asyncio.create_task(get(server, "n.q"))
        await started.wait()
        server.write("INSERT INTO doc(body) VALUES ('x')")
        second = asyncio.create_task(get(server, "n.q"))
        await until(lambda: server.rpc.stats()["joined"] + server.rpc.stats()["misses"] == 2)
        go.set()
        assert await first == 0
        assert await second == 1


async def test_an_error_that_passes_with_time_is_not_cached(file: Path) -> None:
    """A handler that was over its rate once is asked again."""
    answers = [TooManyRequestsError("slow down"), None]

    @define_reactive_function
    async def limited(db: AsyncSession) -> str:
        await db.exec(select(Visit))
        error = answers.pop(0)
        if error is not None:
            raise error
        return "fine"

    async with serving(file, {"n": {"q": limited}}) as server:
        assert (await server.client.get("/rpc/n.q")).status_code == 429
        assert (await server.client.get("/rpc/n.q")).status_code == 200


class Asked(BaseModel):
    room: str
    _at: datetime = PrivateAttr(default_factory=lambda: datetime.now(UTC))


class Stamped(BaseModel):
    room: str
    at: str = ""

    def model_post_init(self, _context: Any) -> None:
        self.at = datetime.now(UTC).isoformat()


@pytest.mark.parametrize("model", [Asked, Stamped])
def test_a_model_that_runs_code_after_validation_is_not_pure(model: type[BaseModel]) -> None:
    """`model_post_init` and a private default factory look at the clock as a validator does."""
    one, two = model(room="a"), model(room="a")
    assert canonical(one) != canonical(two)
    assert not is_pure(model)


# Stale answers: predicates that silently see less than there is.


class LongKeyed(Own, table=True):
    id: str = Field(primary_key=True)
    n: int = 0


class LongId(BaseModel):
    id: str


@define_reactive_function(invalidate_when={LongKeyed: lambda change, input: not change.keys.isdisjoint({input.id})})
async def by_long_key(input: LongId, db: AsyncSession) -> int:
    found = await db.get(LongKeyed, input.id)
    return -1 if found is None else found.n


async def test_a_predicate_cannot_overlook_a_key_that_was_not_captured(file: Path) -> None:
    """`change.keys` raises for every question that an uncaptured key leaves open, not only for `in`."""
    key = "https://example.org/" + "x" * 60
    Own.metadata.create_all(create_engine(f"sqlite:///{file}", poolclass=NullPool))
    async with serving(file, {"n": {"q": by_long_key}}) as server:
        server.write("INSERT INTO longkeyed(id, n) VALUES (?, 1)", key)
        assert await get(server, "n.q", id=key) == 1
        server.write("UPDATE longkeyed SET n = 2")
        assert await get(server, "n.q", id=key) == 2


# Stale answers: capture.


async def test_an_after_trigger_that_raises_ignore_hides_no_write(file: Path) -> None:
    """RAISE(IGNORE) in an AFTER trigger keeps the row and skips the triggers that come after it."""
    async with serving(file) as server:
        server.write("CREATE TRIGGER hush AFTER INSERT ON note BEGIN SELECT RAISE(IGNORE); END")
        assert await get(server, "notes.in_room", room="a") == []
        server.write(INSERT, "a", "x")
        assert server.rows() == [("a", "x")]
        assert len(await get(server, "notes.in_room", room="a")) == 1


async def test_sync_query_that_writes_is_refused(file: Path) -> None:
    """A pending ORM write of a query is refused in a thread as on the loop, not answered and forgotten."""

    @define_reactive_function
    def rename(db: Session) -> str:
        note = db.exec(select(Note)).one()
        note.text = "renamed"
        return note.text

    async with serving(file, {"n": {"q": rename}}) as server:
        server.write(INSERT, "a", "x")
        assert (await server.client.get("/rpc/n.q")).status_code == 500


# Missed events.


class Pace:
    """Lets a handler through one run at a time, and tells how many runs began."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.runs = 0

    async def through(self) -> None:
        self.runs += 1
        await self.open.wait()


def slow_in_room(pace: Pace) -> Any:
    @define_reactive_function
    async def slow(input: InRoom, db: AsyncSession) -> list[str]:
        notes = (await db.exec(select(Note).where(Note.room == input.room))).all()
        await pace.through()
        return [note.text for note in notes]

    return slow


async def test_resuming_by_cursor_finds_what_a_refresh_had_still_to_tell(file: Path) -> None:
    """A cursor says that everything up to it was told; a query that is being computed again was told of less."""
    pace = Pace()
    async with serving(file, {"n": {"slow": slow_in_room(pace)}, **ROOMS}) as server:
        slow = QueryRef(path="n.slow", input={"room": "a"})
        quick = QueryRef(path="notes.in_room", input={"room": "a"})
        stream, _ = await connect(server, slow, quick)
        async with heard(stream) as events:
            pace.open.clear()
            server.write(INSERT, "a", "1")
            await until(lambda: len(events) >= 1 and pace.runs == 2)
            server.write(INSERT, "a", "2")
            await until(lambda: any("notes.in_room" in [a.path for a in e.affected] for e in events[1:]))
            last = events[-1].cursor
            assert "n.slow" not in [affected.path for affected in events[-1].affected]
        server.rpc._hub.disconnect(stream)
        pace.open.set()
        _, connected = await connect(server, slow, quick, cursor=last)
        assert "n.slow" in [affected.path for affected in connected.stale]


@dataclass
class Overtaking:
    """A query that a write overtakes in each of its next `left` runs."""

    left: int = 0
    look: Callable[[], object] = lambda: None
    seen: list[object] = field(default_factory=list)
    server: Server | None = None

    def procedure(self) -> Any:
        @define_reactive_function
        async def slow(input: InRoom, db: AsyncSession) -> list[str]:
            notes = (await db.exec(select(Note).where(Note.room == input.room))).all()
            if self.left and self.server is not None:
                self.left -= 1
                self.server.write(INSERT, "a", f"overtaking {self.left}")
                await self.server.rpc._log.fresh()
                self.seen.append(self.look())
            return [note.text for note in notes]

        return slow


async def test_a_query_under_steady_writes_is_told_of_again(file: Path) -> None:
    """Where each write overtakes the computation, its streams still hear of later commits, or of a gap."""
    overtaking = Overtaking()
    async with serving(file, {"n": {"slow": overtaking.procedure()}}) as server:
        stream, _ = await connect(server, QueryRef(path="n.slow", input={"room": "a"}))
        async with heard(stream) as events:
            overtaking.server, overtaking.left, overtaking.look = server, 30, lambda: len(events)
            server.write(INSERT, "a", "first")
            await until(lambda: overtaking.left == 0)
            assert overtaking.seen[-1] != 1


async def test_a_stream_opens_under_steady_writes(file: Path) -> None:
    """`connected` comes although each write overtakes the computation of a query of the set."""
    overtaking = Overtaking(left=30)
    async with serving(file, {"n": {"slow": overtaking.procedure()}}) as server:
        overtaking.server = server
        opening = asyncio.create_task(connect(server, QueryRef(path="n.slow", input={"room": "a"})))
        overtaking.look = opening.done
        await until(lambda: overtaking.left == 0 or opening.done())
        await opening
        assert len(overtaking.seen) < 30 or overtaking.seen[-1]


async def test_an_etag_older_than_the_cursor_does_not_vouch(file: Path) -> None:
    """A stored set keeps its ETags while EventSource resumes by cursor: A, then B, then A again is stale for B."""
    async with serving(file) as server:
        answer = await server.client.get("/rpc/notes.in_room", params={"room": "a"})
        ref = QueryRef(path="notes.in_room", input={"room": "a"}, etag=answer.headers["etag"])
        stream, _ = await connect(server, ref)
        async with heard(stream) as events:
            server.write(INSERT, "a", "x")
            await until(lambda: len(events) == 1)
        held = await get(server, "notes.in_room", room="a")
        assert len(held) == 1
        server.rpc._hub.disconnect(stream)
        server.write("DELETE FROM note")
        _, connected = await connect(server, ref, cursor=events[-1].cursor)
        assert [affected.path for affected in connected.stale] == ["notes.in_room"]


# Leaks across scope.


class Account(Own, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Grant(Own, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    account_id: int = Field(foreign_key="account.id")


# As `grants: list["Grant"] = Relationship()` declares where annotations are no strings.
inspect(Account).add_property("grants", relationship(Grant, lazy="selectin"))


@define_reactive_function
async def my_grants(db: AsyncSession, ctx: Account) -> list[str]:
    await db.exec(select(Visit))
    return [grant.name for grant in ctx.grants]  # type: ignore[attr-defined]  # added to the mapper


@define_reactive_function
async def my_name(db: AsyncSession, ctx: Account) -> str:
    await db.exec(select(Visit))
    return ctx.name


@pytest.mark.parametrize("procedure", [my_grants, my_name])
def test_a_context_that_is_a_row_is_refused(file: Path, procedure: Any) -> None:
    """Its attributes expire and its relations are loaded or not: two users could have one key."""
    with pytest.raises(DefinitionError, match="Account is a mapped class"):
        ReactiveRPC(f"sqlite:///{file}", functions={"n": {"q": procedure}}, context=lambda: None)
    with pytest.raises(TypeError, match="mapped class"):
        canonical(Account(id=1, name="ann"))


@dataclass(frozen=True, kw_only=True)
class TokenContext(Context):
    token: InitVar[str]

    def __post_init__(self, token: str) -> None:
        object.__setattr__(self, "role", token)


@define_reactive_function
async def my_role(db: AsyncSession, ctx: TokenContext) -> str:
    await db.exec(select(Visit))
    return str(ctx.role)  # type: ignore[attr-defined]  # set by __post_init__


async def test_an_attribute_that_is_no_field_keeps_contexts_apart(file: Path) -> None:
    """What `__post_init__` puts on a context is seen by the handler, so it is part of the key, or refused."""

    def who(role: Annotated[str, Header()]) -> TokenContext:
        return TokenContext(identity="ann", token=role)

    async with serving(file, {"n": {"q": my_role}}, context=who) as server:
        first = await server.client.get("/rpc/n.q", headers={"role": "admin"})
        second = await server.client.get("/rpc/n.q", headers={"role": "guest"})
        assert first.text != second.text or second.status_code >= 400


# Calls inside calls.


async def test_an_inner_call_that_fails_by_accident_counts_as_read(file: Path) -> None:
    """An outer query that catches what an inner one raised depends on what that one had read."""

    @define_reactive_function
    async def inner(db: AsyncSession) -> int:
        return 1 // len((await db.exec(select(Note))).all())

    @define_reactive_function
    async def outer(db: AsyncSession) -> int:
        await db.exec(select(Visit))
        try:
            return int(await server.rpc.caller()("n.inner"))
        except ZeroDivisionError:
            return -1

    async with serving(file, {"n": {"inner": inner, "outer": outer}}) as server:
        assert await get(server, "n.outer") == -1
        server.write(INSERT, "a", "x")
        assert await get(server, "n.outer") == 1


async def test_many_calls_with_calls_inside_do_not_wait_for_each_other(file: Path) -> None:
    """Outer calls that hold every connection of the pool leave some for the calls inside them."""
    gate = asyncio.Barrier(15)

    @define_reactive_function
    async def inner(input: InRoom, db: AsyncSession) -> int:
        return len((await db.exec(select(Note).where(Note.room == input.room))).all())

    @define_reactive_function
    async def outer(input: InRoom, db: AsyncSession) -> int:
        await db.exec(select(Visit))
        await gate.wait()
        return int(await server.rpc.caller()("n.inner", room=input.room))

    async with serving(file, {"n": {"inner": inner, "outer": outer}}) as server:
        calls = [asyncio.create_task(get(server, "n.outer", room=str(n))) for n in range(15)]
        _, waiting = await asyncio.wait(calls, timeout=60)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert not waiting


async def test_a_query_that_calls_itself_is_told_so(file: Path) -> None:
    """A call that would wait for its own flight fails, instead of waiting for ever."""

    @define_reactive_function
    async def again(db: AsyncSession) -> int:
        return int(await server.rpc.caller()("n.again"))

    async with serving(file, {"n": {"again": again}}) as server:
        async with asyncio.timeout(60):
            answer = await server.client.get("/rpc/n.again")
        assert answer.status_code == 500


# Answers that lose something.


async def test_a_cached_errors_details_belong_to_each_caller(file: Path) -> None:
    """A caller in this process who changes the details it got changes nobody else's."""

    @define_reactive_function
    async def refuse(db: AsyncSession) -> str:
        await db.exec(select(Visit))
        raise ConflictError("twice", details={"seen": []})

    async with serving(file, {"n": {"q": refuse}}) as server:
        for _ in range(2):
            with pytest.raises(RPCError) as raised:
                await server.rpc.caller()("n.q")
            assert raised.value.details == {"seen": []}
            raised.value.details["seen"].append("by the first")


async def test_what_is_held_for_an_entry_counts_its_read_set(file: Path) -> None:
    """`cache_max_bytes` bounds what is held: an entry with thousands of constraints weighs more than one with one."""

    @define_reactive_function
    async def many(input: InRoom, db: AsyncSession) -> int:
        for n in range(1000):
            await db.get(Note, n)
        return 1

    async with serving(file, {"n": {"q": many}}) as server:
        await get(server, "n.q", room="a")
        entry = next(iter(server.rpc._reader._live._store))
        assert len(entry.read_set.constraints) == 1000
        assert entry.size_bytes > 100_000


def test_a_relation_between_columns_of_two_kinds_widens() -> None:
    """`message.ref` is text and `agent.id` a number: a change of agent 5 counts as one of the messages of '5'."""
    tables = {
        "agent": Columns(("id", "n"), kinds={"id": "integer"}),
        "message": Columns(("id", "ref"), kinds={"ref": "text"}),
    }
    relations = parse_relations({"agent": ["message.ref"]}, tables)
    change = Change(table="agent", operation="update", before={"id": 5}, after={"id": 5}, changed=frozenset({"n"}))
    read = ReadSet((Constraint("message", None, {"ref": Equals(frozenset({"5"}))}),))
    assert read.touched_by(widen([change], relations))


@dataclass(frozen=True)
class Columns:
    """A table of a relation."""

    columns: tuple[str, ...]
    primary_key: tuple[str, ...] = ("id",)
    foreign_keys: tuple[tuple[str, str, str], ...] = ()
    kinds: Mapping[str, ColumnKind | None] = field(default_factory=dict)
