"""Rechecks: a stream ends when its caller may not listen any more, and only then."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlmodel import Field, Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    CallInfo,
    ConflictError,
    Context,
    ForbiddenError,
    Login,
    ReactiveRPC,
    Tenant,
    UnauthorizedError,
    by_tenant,
    define_reactive_function,
)
from reactive_rpc.testing import FakeClock, running
from tests.support.waiting import until, wait_until

from .in_process import InProcessStream
from .rooms import ROOMS, Base, Note, app_of, rpc_on, serving, who
from .streams import DEADLINE_SECONDS, Heard, heard, in_background, in_rooms

ANN = {"authorization": "Bearer ann@t"}
BOB = {"authorization": "Bearer bob@t"}


@define_reactive_function.use(by_tenant).query
async def mine(db: AsyncSession, ctx: Tenant) -> list[str]:
    """The texts of the caller's tenant."""
    return list((await db.exec(select(Note.text).where(Note.tenant == ctx.tenant))).all())


@define_reactive_function(public=True)
async def hello() -> str:
    """Greet."""
    return "hello"


class Gate(Base, table=True):
    id: str = Field(primary_key=True)


async def is_open(ctx: Context, db: AsyncSession) -> None:
    if (await db.exec(select(Gate))).first() is None:
        raise ForbiddenError("closed")


@define_reactive_function.use(is_open).query
async def texts(db: AsyncSession) -> list[str]:
    """Every text, for nobody in particular."""
    return list((await db.exec(select(Note.text))).all())


@define_reactive_function.use(is_open).query(public=True)
async def public_texts(db: AsyncSession) -> list[str]:
    """The same."""
    return list((await db.exec(select(Note.text))).all())


class Duty(Base, table=True):
    id: str = Field(primary_key=True)
    role: str
    room: str


@dataclass(frozen=True, kw_only=True)
class OnDuty(Login):
    role: str
    room: str


async def on_duty(ctx: Login, db: AsyncSession) -> OnDuty:
    duty = await db.get(Duty, ctx.identity)
    if duty is None:
        raise UnauthorizedError("not on the staff")
    return OnDuty(identity=duty.id, role=duty.role, room=duty.room)


def chiefs_only(ctx: OnDuty) -> None:
    if ctx.role != "chief":
        raise ForbiddenError("for chiefs")


def in_own_room(ctx: OnDuty, call: CallInfo) -> None:
    if ctx.room != call.input.room:
        raise ForbiddenError("not your room")


staff = define_reactive_function.use(on_duty)


@staff.use(chiefs_only).query
async def reports(db: AsyncSession) -> list[str]:
    """Every text, for chiefs."""
    return list((await db.exec(select(Note.text))).all())


@staff.query
async def rota(db: AsyncSession, ctx: OnDuty) -> list[str]:
    """The staff of the caller's room."""
    return list((await db.exec(select(Duty.id).where(Duty.room == ctx.room))).all())


@staff.use(in_own_room).query
async def shift(db: AsyncSession, room: str) -> list[str]:
    """The staff of a room."""
    return list((await db.exec(select(Duty.id).where(Duty.room == room))).all())


@dataclass
class Rights:
    """The application's own idea of who may do what, changed by tests while streams are open.

    Attributes:
        slow: who is let through, and then held on the way in until the event is set.
    """

    slow: dict[str, threading.Event] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def context(self, caller: Annotated[Login, Depends(who)]) -> Iterator[Login]:
        identity = str(caller.identity)
        self.asked.append(identity)
        if identity in self.refused:
            raise self.refused[identity]
        yield Login(identity=identity, tenant=self.tenants.get(identity, caller.tenant))
        if identity in self.slow:
            self.slow.pop(identity).wait(DEADLINE_SECONDS)


@dataclass
class Served:
    url: str
    rpc: ReactiveRPC
    login: Rights

    def add(self, text: str) -> None:
        answer = httpx.post(f"{self.url}/rpc/notes.add", json={"room": "a", "text": text}, headers={**ANN})
        assert answer.status_code == 200, answer.text


@contextmanager
def served(file: Path, *, recheck_seconds: float = 0.2, login: Rights | None = None) -> Iterator[Served]:
    login = login or Rights()

    @define_reactive_function.mutation(public=True)
    def revoke_in_a_thread(db: Session, identity: str, fails: bool = False) -> None:
        rpc.revoke(identity, db=db)
        if fails:
            raise ConflictError("not today")

    functions = {**ROOMS, "test": {"mine": mine, "hello": hello, "revoke": revoke_in_a_thread}}
    rpc = rpc_on(file, functions, context=login.context, settings={"recheck_seconds": recheck_seconds})
    app = app_of(rpc)

    @app.post("/revoke/{identity}")
    async def revoke(identity: str) -> None:
        await rpc.revoke(identity)

    with running(app) as url:
        yield Served(url, rpc, login)


@contextmanager
def opened(url: str, headers: dict[str, str], **request: Any) -> Iterator[Heard]:
    """Open a stream that has been connected."""
    with heard(url, headers=headers, json=request or in_rooms("a")) as stream:
        assert stream.next()[0] == "connected"
        yield stream


@pytest.mark.parametrize(
    "refusal",
    [
        HTTPException(401, "log in again"),
        HTTPException(403, "log in again"),
        UnauthorizedError("log in again"),
        ForbiddenError("log in again"),
    ],
)
def test_a_caller_who_is_refused_is_told(file: Path, refusal: Exception) -> None:
    """The stream ends with `revoked` and the context's own words; another caller's goes on."""
    with served(file) as server, opened(server.url, ANN) as anns, opened(server.url, BOB) as bobs:
        server.login.refused["ann"] = refusal
        assert anns.rest() == [("revoked", {"reason": "log in again"})]
        del server.login.refused["ann"]
        server.add("x")
        assert bobs.next()[0] == "invalidation"


def test_a_caller_whose_scope_changes_comes_back(file: Path) -> None:
    """The stream ends without a word; on a new one the caller sees the new tenant, and only its changes."""
    with served(file) as server:
        with opened(server.url, ANN, queries=[{"path": "test.mine"}]) as stream:
            server.login.tenants["ann"] = "other"
            assert stream.rest() == []
        with opened(
            server.url, ANN, queries=[{"path": "test.mine"}, {"path": "notes.in_room", "input": {"room": "a"}}]
        ) as stream:
            server.add("in tenant t")
            _, notice, _ = stream.next()
            assert [affected["path"] for affected in notice["affected"]] == ["notes.in_room"]


def test_what_the_queries_do_not_see_of_a_context_may_change(file: Path) -> None:
    """A set that does not depend on the tenant is kept when the tenant changes."""
    with served(file) as server, opened(server.url, ANN) as stream:
        server.login.tenants["ann"] = "other"
        asked = len(server.login.asked)
        wait_until(lambda: len(server.login.asked) > asked + 2)
        server.add("x")
        assert stream.next()[0] == "invalidation"


def test_a_context_that_fails_otherwise_costs_nobody_a_stream(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A login whose database is away is asked again; one line of the log says so."""
    with served(file) as server, opened(server.url, ANN) as stream:
        server.login.refused["ann"] = HTTPException(503, "the login is away")
        asked = len(server.login.asked)
        wait_until(lambda: len(server.login.asked) > asked + 2)
        server.login.refused["ann"] = RuntimeError("a bug of the login's")
        asked = len(server.login.asked)
        wait_until(lambda: len(server.login.asked) > asked + 2)
        server.login.refused.clear()
        server.add("x")
        assert stream.next()[0] == "invalidation"
    assert "1 of 1 streams could not be rechecked and are kept, retrying" in caplog.text
    assert "ERROR" not in {record.levelname for record in caplog.records}


def test_a_stream_of_public_queries_is_never_asked(file: Path) -> None:
    """There is no context to resolve again."""
    with served(file) as server, heard(server.url, json={"queries": [{"path": "test.hello"}]}) as stream:
        assert stream.next()[0] == "connected"
        with opened(server.url, ANN):
            wait_until(lambda: len(server.login.asked) > 3)
        assert set(server.login.asked) == {"ann"}


@pytest.mark.parametrize(("path", "context"), [("test.texts", None), ("test.public_texts", who)])
def test_a_stream_without_a_login_rests_on_its_steps(file: Path, path: str, context: Any) -> None:
    """What a step has read is written: it is asked again, and goes on; taken away, the stream ends untold."""
    functions = {"test": {"texts": texts, "public_texts": public_texts} if context else {"texts": texts}}
    rpc = rpc_on(file, functions, context=context, settings={"recheck_seconds": 3600})
    note = "INSERT INTO note (tenant, room, text) VALUES ('t', 'a', ?)"
    with running(app_of(rpc)) as url, closing(sqlite3.connect(file)) as connection:
        with connection:
            connection.execute("INSERT INTO gate VALUES ('a')")
        with heard(url, json={"queries": [{"path": path}]}) as stream:
            assert stream.next()[0] == "connected"
            with connection:
                connection.execute("INSERT INTO gate VALUES ('b')")
                connection.execute(note, ("first",))
            assert stream.next()[0] == "invalidation"
            with connection:
                connection.execute("DELETE FROM gate")
                connection.execute(note, ("second",))
            assert stream.rest() == []


@contextmanager
def of_staff(file: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Serve the queries of a staff; give the URL, and what writes to their file."""
    functions = {"staff": {"reports": reports, "rota": rota, "shift": shift}}
    rpc = rpc_on(file, functions, context=who, settings={"recheck_seconds": 3600})
    with running(app_of(rpc)) as url, closing(sqlite3.connect(file)) as connection:

        def write(statement: str) -> None:
            with connection:
                connection.execute(statement)

        write("INSERT INTO duty VALUES ('ann', 'chief', 'a'), ('bob', 'chief', 'a')")
        yield url, write


REPORTS = {"path": "staff.reports"}


def test_a_role_that_is_taken_away_is_told(file: Path) -> None:
    """The stream ends with `revoked` and the step's own words; whoever keeps the role is told of the next note."""
    with (
        of_staff(file) as (url, write),
        opened(url, ANN, queries=[REPORTS]) as anns,
        opened(url, BOB, queries=[REPORTS]) as bobs,
    ):
        write("UPDATE duty SET role = 'clerk' WHERE id = 'ann'")
        assert anns.rest() == [("revoked", {"reason": "for chiefs"})]
        write("INSERT INTO note (tenant, room, text) VALUES ('t', 'a', 'x')")
        assert bobs.next()[0] == "invalidation"


def test_whoever_may_see_something_still_comes_back(file: Path) -> None:
    """The stream ends without a word; on the next one the query that is lost is refused, and the other goes on."""
    queries = [REPORTS, {"path": "staff.rota"}]
    with of_staff(file) as (url, write):
        with opened(url, ANN, queries=queries) as stream:
            write("UPDATE duty SET role = 'clerk' WHERE id = 'ann'")
            assert stream.rest() == []
        with heard(url, headers=ANN, json={"queries": queries}) as stream:
            [refused] = stream.next()[1]["errors"]
            assert (refused["path"], refused["error"]["code"]) == ("staff.reports", "FORBIDDEN")
            write("DELETE FROM duty WHERE id = 'ann'")
            assert stream.rest() == [("revoked", {"reason": "not on the staff"})]


def test_a_refusal_of_this_input_alone_is_no_end_for_good(file: Path) -> None:
    """The stream ends without a word: the caller may see another room."""
    with (
        of_staff(file) as (url, write),
        opened(url, ANN, queries=[{"path": "staff.shift", "input": {"room": "a"}}]) as stream,
    ):
        write("UPDATE duty SET room = 'b' WHERE id = 'ann'")
        assert stream.rest() == []


def test_the_dependencies_of_the_router_are_asked_too(file: Path) -> None:
    """`include_router(dependencies=...)` guards streams that are open already."""
    is_open = True

    def guard() -> None:
        if not is_open:
            raise HTTPException(403, "closed for today")

    rpc = rpc_on(file, settings={"recheck_seconds": 0.2})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router, dependencies=[Depends(guard)])
    with running(app) as url, heard(url, json=in_rooms("a")) as stream:
        assert stream.next()[0] == "connected"
        is_open = False
        assert stream.rest() == [("revoked", {"reason": "closed for today"})]


def test_no_interval_asks_nobody(file: Path) -> None:
    """With `recheck_seconds=0` a context is resolved once, when the stream is opened."""
    with served(file, recheck_seconds=0) as server, opened(server.url, ANN) as stream:
        server.login.refused["ann"] = HTTPException(401, "log in again")
        with httpx.Client(timeout=DEADLINE_SECONDS) as client:
            for text in ("x", "y", "z"):
                assert (
                    client.post(
                        f"{server.url}/rpc/notes.add", json={"room": "a", "text": text}, headers=BOB
                    ).status_code
                    == 200
                )
                assert stream.next()[0] == "invalidation"
        assert server.login.asked.count("ann") == 1


def test_a_long_poll_that_waits_is_told_as_well(file: Path) -> None:
    """`revoked` is the last event of the answer, which does not wait for its time to be over."""
    with served(file) as server, httpx.Client(timeout=DEADLINE_SECONDS, headers=ANN) as client:
        first = client.post(f"{server.url}/rpc/events/poll", json=in_rooms("a")).json()

        def lock_out() -> None:
            wait_until(lambda: server.rpc.admin.stats()["streams"] == 1)
            server.login.refused["ann"] = HTTPException(401, "log in again")

        with in_background(lock_out):
            answer = client.post(f"{server.url}/rpc/events/poll", json={**in_rooms("a"), "cursor": first["cursor"]})
        events = answer.json()["events"]
        assert [event["event"] for event in events] == ["connected", "revoked"]
        assert events[-1]["data"] == {"reason": "log in again"}
        assert answer.json()["cursor"] == events[0]["id"]


def test_a_revocation_finds_those_on_their_way_in(file: Path) -> None:
    """Let through before it and open after it: the stream is asked again before it says anything."""
    with served(file, recheck_seconds=0) as server:
        held = server.login.slow["ann"] = threading.Event()

        def lock_out() -> None:
            wait_until(lambda: not server.login.slow)
            server.login.refused["ann"] = HTTPException(401, "you have been locked out")
            assert httpx.post(f"{server.url}/revoke/ann").status_code == 200
            held.set()

        with in_background(lock_out), heard(server.url, headers=ANN, json=in_rooms("a")) as stream:
            assert [name for name, _ in stream.rest()] == ["revoked"]  # `connected` would name what has changed


def test_revoke_ends_the_streams_of_one_identity(file: Path) -> None:
    """At once, without any recheck, and nobody else's."""
    with served(file, recheck_seconds=0) as server, opened(server.url, BOB) as bobs:
        with opened(server.url, ANN) as first, opened(server.url, ANN) as second:
            assert httpx.post(f"{server.url}/revoke/ann").status_code == 200
            assert [name for stream in (first, second) for name, _ in stream.rest()] == ["revoked"] * 2
        server.add("x")
        assert bobs.next()[0] == "invalidation"


def test_a_mutation_in_a_thread_revokes_when_it_is_committed(file: Path) -> None:
    """`rpc.revoke` with its `Session` is done on return, as a part of its transaction, or not at all."""
    with served(file, recheck_seconds=0) as server, opened(server.url, BOB) as bobs, opened(server.url, ANN) as anns:
        for identity, status in (({"identity": "bob", "fails": True}), 409), ({"identity": "ann"}, 200):
            assert httpx.post(f"{server.url}/rpc/test.revoke", json=identity).status_code == status
        assert [name for name, _ in anns.rest()] == ["revoked"]
        server.add("x")
        assert bobs.next()[0] == "invalidation"


def replace_by_a_copy(file: Path) -> None:
    """Put a copy in the place of a database, as a restore does: a new epoch begins."""
    copy = file.with_suffix(".copy")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.replace(file)


def test_a_flush_asks_everybody_again(file: Path) -> None:
    """A revocation may have been lost with the database's old file: whoever may not listen any more is told."""
    with served(file, recheck_seconds=0) as server, opened(server.url, ANN) as anns, opened(server.url, BOB) as bobs:
        server.login.refused["ann"] = HTTPException(401, "log in again")
        replace_by_a_copy(file)
        assert [name for name, _ in anns.rest() if name != "gap"] == ["revoked"]
        assert bobs.next()[0] == "gap"


@pytest.mark.anyio
async def test_who_may_have_been_shut_out_meanwhile_asks_again(file: Path) -> None:
    """Two commits shut everybody out and let them in again before the stream is asked: a call between was refused.

    One commit after which the caller may see the same was no such moment, and nothing is told of it.
    """
    async with serving(file, {"test": {"texts": texts}}, clock=FakeClock(), settings={"recheck_seconds": 0}) as server:
        log = server.rpc._freshness
        server.write("INSERT INTO gate VALUES ('a')")
        async with InProcessStream(server.app, [{"path": "test.texts"}], {}, note=lambda: None) as stream:
            await until(lambda: stream.names == ["connected"])
            server.write("INSERT INTO gate VALUES ('b')")
            await log.sync_to_head()
            await until(lambda: server.rpc.admin.stats()["rechecks"] == 1)
            server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
            await log.sync_to_head()
            await until(lambda: len(stream.sent) > 1)
            assert json.loads(stream.sent[1][1].data)["tables"] == ["note"]
            server.write("DELETE FROM gate")
            server.write("INSERT INTO gate VALUES ('c')")
            await log.sync_to_head()
            await until(lambda: len(stream.sent) > 2)
            assert stream.names == ["connected", "invalidation", "invalidation"]
            [affected] = json.loads(stream.sent[2][1].data)["affected"]
            assert affected["path"] == "test.texts"


@pytest.mark.anyio
async def test_whoever_leaves_after_any_event_is_told_of_what_was_answered_meanwhile(file: Path) -> None:
    """What waits while everybody is shut out and let in again has a cursor past that: it is not told alone."""
    async with serving(file, {"test": {"texts": texts}}, clock=FakeClock(), settings={"recheck_seconds": 0}) as server:
        server.write("INSERT INTO gate VALUES ('a')")
        queries = [{"path": "test.texts"}]
        async with InProcessStream(server.app, queries, {}, note=lambda: None) as stream:
            await until(lambda: stream.names == ["connected"])
            server.write("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'x')")
            server.write("DELETE FROM gate")
            server.write("INSERT INTO gate VALUES ('b')")
            await server.rpc._freshness.sync_to_head()
            last = server.rpc._log.cursor_at(server.rpc._log.version)
            await until(
                lambda: stream.sent[-1][1].id == str(last) and not json.loads(stream.sent[-1][1].data)["tables"]
            )
            for _, event in stream.sent[:-1]:
                async with InProcessStream(server.app, queries, {}, note=lambda: None, cursor=event.id) as resumed:
                    await until(lambda: resumed.names == ["connected"])
                    [stale] = json.loads(resumed.sent[0][1].data)["stale"]
                    assert stale["path"] == "test.texts"


@pytest.mark.anyio
async def test_who_may_have_been_shut_out_on_the_way_in_is_told_at_once(file: Path) -> None:
    """The cursor of `connected` lies past both commits: whoever leaves after it is told by nothing else."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    @define_reactive_function(public=True)
    async def slow(db: AsyncSession) -> int:
        begun.set()
        await go_on.wait()
        return len((await db.exec(select(Duty))).all())

    functions = {"test": {"texts": texts, "slow": slow}}
    async with serving(file, functions, clock=FakeClock(), settings={"recheck_seconds": 0}) as server:
        server.write("INSERT INTO gate VALUES ('a')")
        await server.rpc._freshness.sync_to_head()
        queries = [{"path": "test.texts"}, {"path": "test.slow"}]
        seen = str(server.rpc._log.cursor_at(server.rpc._log.version))
        stream = InProcessStream(server.app, queries, {}, note=lambda: None, cursor=seen)
        await begun.wait()
        server.write("DELETE FROM gate")
        server.write("INSERT INTO gate VALUES ('b')")
        await server.rpc._freshness.sync_to_head()
        go_on.set()
        async with stream:
            await until(lambda: bool(stream.names))
            [stale] = json.loads(stream.sent[0][1].data)["stale"]
            assert stale["path"] == "test.texts"


@pytest.mark.anyio
async def test_a_gap_is_told_whatever_the_right_has_been(file: Path) -> None:
    """It says more than an invalidation of what the stream shows: a query that was refused is asked for again, too."""
    async with serving(file, {"test": {"texts": texts}}, clock=FakeClock(), settings={"recheck_seconds": 0}) as server:
        server.write("INSERT INTO gate VALUES ('a')")
        async with InProcessStream(server.app, [{"path": "test.texts"}], {}, note=lambda: None) as stream:
            await until(lambda: stream.names == ["connected"])
            replace_by_a_copy(file)
            await server.rpc._freshness.sync_to_head()
            await until(lambda: server.rpc.admin.stats()["rechecks"] == 1)
            await until(lambda: len(stream.sent) > 1)
            assert stream.names == ["connected", "gap"]
