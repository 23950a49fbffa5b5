"""What an application sets for one caller beside the context is in no key, so no query may see it.

Each way in which code in the wild keeps its caller is tried: by it, ada fills the cache, and bob asks for the same.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
from fastapi import Depends, FastAPI
from opentelemetry import baggage, trace
from opentelemetry import context as telemetry
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc import Cache, Change, Login, ReactiveRPC, UnauthorizedError, define_reactive_function
from tests.support.calls import by_path
from tests.support.waiting import until

from .rooms import Note, Server, rpc_on, serving

pytestmark = pytest.mark.anyio

current_user: ContextVar[str] = ContextVar("current_user")
current_locale: ContextVar[str] = ContextVar("current_locale", default="nobody")
thread = threading.local()


async def notes_of(db: AsyncSession, owner: str) -> list[str]:
    return list((await db.exec(select(Note.text).where(Note.tenant == owner))).all())


@define_reactive_function
async def by_variable(db: AsyncSession) -> list[str]:
    return await notes_of(db, current_user.get())


@define_reactive_function
def by_variable_sync(db: Session) -> list[str]:
    return list(db.exec(select(Note.text).where(Note.tenant == current_user.get())).all())


@define_reactive_function
def by_thread(db: Session) -> list[str]:
    return list(db.exec(select(Note.text).where(Note.tenant == thread.user)).all())


@define_reactive_function
async def by_refusal(db: AsyncSession) -> list[str]:
    try:
        owner = current_user.get()
    except LookupError:
        raise UnauthorizedError("log in") from None
    return await notes_of(db, owner)


@define_reactive_function(cache=Cache(push="result"))
async def pushed(db: AsyncSession) -> list[str]:
    return await notes_of(db, current_user.get())


@define_reactive_function
async def inside(db: AsyncSession) -> list[str]:
    """Read by another call, which a caller inside a handler makes."""
    return await notes_of(db, current_user.get())


@define_reactive_function
async def with_default(db: AsyncSession) -> list[str]:
    await db.exec(select(Note))
    return [current_locale.get()]


class Echo(BaseModel):
    user: str


class Spying(BaseModel):
    """An output whose validator looks at the caller."""

    texts: list[str]

    def model_post_init(self, _context: object) -> None:
        self.texts.append(current_user.get())


@define_reactive_function
async def by_output(db: AsyncSession) -> Spying:
    await db.exec(select(Note))
    return {"texts": []}  # type: ignore[return-value]  # what it is made of runs the validator, after the handler


@define_reactive_function
async def by_ctx(db: AsyncSession, ctx: Login) -> list[str]:
    """The way out that the error names."""
    return await notes_of(db, str(ctx.identity))


@define_reactive_function.mutation
async def whoami(db: AsyncSession) -> str:
    return current_user.get()


@define_reactive_function.mutation
def whoami_sync(db: Session) -> str:
    return current_user.get()


FUNCTIONS = {
    "notes": {
        "by_variable": by_variable,
        "by_variable_sync": by_variable_sync,
        "by_thread": by_thread,
        "by_refusal": by_refusal,
        "by_output": by_output,
        "pushed": pushed,
        "with_default": with_default,
        "by_ctx": by_ctx,
        "whoami": whoami,
        "whoami_sync": whoami_sync,
    }
}

LOUD = ["by_variable", "by_variable_sync", "by_thread", "by_refusal", "by_output"]


class Who:
    """A middleware as applications write them: it keeps its caller in a `ContextVar`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            user = dict(scope["headers"]).get(b"x-user", b"").decode()
            current_user.set(user)
            current_locale.set(user)
        await self.app(scope, receive, send)


def set_thread() -> None:
    """A dependency that runs in the pool where handlers without a loop are run by FastAPI."""
    thread.user = current_user.get()


def context() -> Login:
    """Take over what the middleware has set: after this, it is in every key."""
    return Login(identity=current_user.get())


def app_of(rpc: ReactiveRPC) -> FastAPI:
    app = FastAPI(lifespan=rpc.lifespan)
    app.add_middleware(Who)
    app.include_router(rpc.router, dependencies=[Depends(set_thread)])
    return app


@asynccontextmanager
async def served(file: Path, functions: Any = FUNCTIONS, **options: Any) -> AsyncIterator[Server]:
    async with serving(file, functions, make_app=app_of, context=context, **options) as server:
        server.write("INSERT INTO note(tenant, room, text) VALUES ('ada', 'a', 'of ada'), ('bob', 'a', 'of bob')")
        yield server


async def ask(server: Server, name: str, user: str) -> httpx.Response:
    return await server.client.get(f"/rpc/notes.{name}", headers={"x-user": user})


async def poll(server: Server, name: str, user: str, input: object = None, **more: Any) -> dict[str, Any]:
    wanted = {"queries": [{"path": f"notes.{name}", "input": input}], **more}
    answer = await server.client.post("/rpc/events/poll", json=wanted, headers={"x-user": user})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]  # JSON


@pytest.mark.parametrize("name", LOUD)
async def test_nobody_is_given_the_rows_of_whoever_asked_first(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A query that reads its caller from beside the context fails for everybody; the log names it and the way out."""
    async with served(file) as server:
        for user in ("ada", "bob", "ada"):
            answer = await ask(server, name, user)
            assert answer.status_code == 500
            assert "of ada" not in answer.text
            assert "of bob" not in answer.text
    message = caplog.text
    assert f"{name} (test_context_isolation.py:" in message
    assert "'user' of a threading.local" in message or "ContextVar 'current_user'" in message
    assert f"let {name} take that" in message


async def test_one_computation_for_two_callers_fails_for_both(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who joins a run that another caller has begun gets none of that caller's rows."""
    caplog.set_level(logging.CRITICAL)
    async with served(file) as server:
        answers = await asyncio.gather(*(ask(server, "by_variable", user) for user in ("ada", "bob")))
        assert [answer.status_code for answer in answers] == [500, 500]


async def test_what_has_a_default_is_the_same_for_all(file: Path) -> None:
    """A variable with a default shows it, whoever asks: less than the author expects, and nothing of anybody."""
    async with served(file) as server:
        assert [(await ask(server, "with_default", user)).json() for user in ("ada", "bob")] == [["nobody"]] * 2


async def test_the_way_out_keeps_callers_apart(file: Path) -> None:
    """The variable read by the context dependency instead: each caller has their own rows, cached."""
    async with served(file) as server:
        for _ in range(2):
            assert (await ask(server, "by_ctx", "ada")).json() == ["of ada"]
            assert (await ask(server, "by_ctx", "bob")).json() == ["of bob"]
        assert server.rpc.admin.stats()["hits"] == 2


@pytest.mark.parametrize("name", ["whoami", "whoami_sync"])
async def test_a_mutation_sees_its_caller(file: Path, name: str) -> None:
    """Nobody else is given its result, so it runs where it was called."""
    async with served(file) as server:
        answers = [await server.call(f"notes.{name}", **{"x-user": user}) for user in ("ada", "bob")]
        assert [answer.json() for answer in answers] == ["ada", "bob"]


async def test_who_is_given_a_result_alone_may_be_seen_by_it(file: Path) -> None:
    """With `cache=False` a query runs where it is called, for its caller: the other way out that the error names."""
    mine = define_reactive_function(cache=False)(by_variable.function)
    async with served(file, {"notes": {"mine": mine}}) as server:
        callers = ["ada", "bob", "ada"]
        answers = await asyncio.gather(*(ask(server, "mine", user) for user in callers))
        assert [answer.json() for answer in answers] == [[f"of {user}"] for user in callers]


@pytest.mark.parametrize("name", ["by_variable", "pushed"])
async def test_a_watch_is_refused_and_not_filled_by_another_caller(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream is told that the query fails; what ada did before does not change what bob hears."""
    caplog.set_level(logging.CRITICAL)
    async with served(file) as server:
        for user in ("ada", "bob"):
            [connected] = (await poll(server, name, user))["events"]
            assert [error["error"]["code"] for error in connected["data"]["errors"]] == ["INTERNAL_SERVER_ERROR"]
            assert "of ada" not in str(connected)


async def test_a_pushed_result_is_computed_for_the_callers_who_get_it(file: Path) -> None:
    """Recomputed after another caller's mutation, in whose task the log was read, the result is its watcher's."""

    @define_reactive_function(cache=Cache(push="result"))
    async def mine(db: AsyncSession, ctx: Login) -> list[str]:
        return [current_locale.get(), *await notes_of(db, str(ctx.identity))]

    @define_reactive_function.mutation
    async def add(db: AsyncSession, input: Echo) -> None:
        db.add(Note(tenant=input.user, room="a", text=f"by {current_user.get()}"))

    async with served(file, {"notes": {"mine": mine, "add": add}}) as server:
        first = await poll(server, "mine", "bob")
        waiting = asyncio.create_task(poll(server, "mine", "bob", cursor=first["cursor"], wait=30))
        await until(lambda: server.rpc.admin.stats()["watched_queries"] == 1)
        await server.call("notes.add", {"user": "bob"}, **{"x-user": "ada"})
        heard = (await waiting)["events"]
        assert [event["event"] for event in heard] == ["connected", "result"]
        assert heard[1]["data"]["data"] == ["nobody", "of bob", "by ada"]


async def test_a_predicate_decides_without_the_caller_who_read_the_log(file: Path) -> None:
    """A predicate that looks at the caller ignores nothing: whoever happens to look first asks it, in their task."""

    def concerns(change: Change, _input: object) -> bool:
        return current_user.get() == "bob"

    @define_reactive_function(invalidate_when={Note: concerns})
    async def count(db: AsyncSession) -> int:
        return len((await db.exec(select(Note))).all())

    async with served(file, {"notes": {"count": count}}) as server:
        assert (await ask(server, "count", "bob")).json() == 2
        server.write("INSERT INTO note(tenant, room, text) VALUES ('bob', 'a', 'more')")
        assert (await ask(server, "count", "ada")).json() == 3


async def test_a_nested_call_is_isolated_from_its_mutation(file: Path) -> None:
    """A mutation sees its caller, and the cached query that it calls does not; the call itself works as ever."""

    @define_reactive_function
    async def count(db: AsyncSession) -> list[str]:
        return [current_locale.get(), str(len((await db.exec(select(Note))).all()))]

    @define_reactive_function.mutation
    async def both(db: AsyncSession) -> list[str]:
        return [current_locale.get(), *await by_path(rpc)("notes.count")]

    @define_reactive_function
    def nested_sync() -> list[str]:
        return list(anyio.from_thread.run(by_path(rpc), "notes.count"))

    rpc = rpc_on(file, {"notes": {"count": count, "both": both, "nested_sync": nested_sync}})
    await rpc.admin.open()
    token = current_locale.set("ada")
    try:
        assert await by_path(rpc)("notes.both") == ["ada", "nobody", "0"]
        assert await by_path(rpc)("notes.nested_sync") == ["nobody", "0"]
    finally:
        current_locale.reset(token)
        await rpc.admin.aclose()


async def test_a_tenant_filter_hung_on_every_session_fails(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that adds the caller's tenant to each statement, from a variable or `session.info`, finds neither."""

    def by_info(state: ORMExecuteState) -> None:
        state.statement = state.statement.where(Note.tenant == state.session.info["tenant"])  # type: ignore[attr-defined]

    def by_variable(state: ORMExecuteState) -> None:
        state.statement = state.statement.where(Note.tenant == current_user.get())  # type: ignore[attr-defined]

    @define_reactive_function
    async def all_notes(db: AsyncSession) -> list[str]:
        return list((await db.exec(select(Note.text))).all())

    listeners: list[Callable[[ORMExecuteState], None]] = [by_info, by_variable]
    for number, listener in enumerate(listeners):
        async with served(file.with_suffix(f".{number}"), {"notes": {"all": all_notes}}) as server:
            event.listen(SQLAlchemySession, "do_orm_execute", listener)
            try:
                assert [(await ask(server, "all", user)).status_code for user in ("ada", "bob")] == [500, 500]
            finally:
                event.remove(SQLAlchemySession, "do_orm_execute", listener)
    assert "KeyError: 'tenant'" in caplog.text
    assert "let all_notes take that" in caplog.text


async def test_a_session_keeps_nothing_of_the_call_before(file: Path) -> None:
    """`session.info` is empty at the beginning of each call, as the session is new."""

    @define_reactive_function
    async def remember(db: AsyncSession, input: Echo) -> list[str]:
        before = list(db.info)
        db.info["user"] = input.user
        await db.exec(select(Note))
        return before

    async with served(file, {"notes": {"remember": remember}}) as server:
        for user in ("ada", "bob"):
            assert (await server.call("notes.remember", {"user": user}, **{"x-user": user})).json() == []


async def test_telemetry_carries_the_span_and_no_baggage(file: Path) -> None:
    """A query's own spans belong to the call that computes it; what baggage says of the caller stays behind."""
    seen: list[tuple[int, object]] = []

    @define_reactive_function
    async def traced(db: AsyncSession) -> int:
        await db.exec(select(Note))
        seen.append((trace.get_current_span().get_span_context().span_id, baggage.get_baggage("user")))
        return 1

    rpc = rpc_on(file, {"notes": {"traced": traced}})
    await rpc.admin.open()
    span = trace.NonRecordingSpan(trace.SpanContext(trace_id=7, span_id=9, is_remote=False))
    token = telemetry.attach(baggage.set_baggage("user", "ada", trace.set_span_in_context(span)))
    try:
        assert await by_path(rpc)("notes.traced") == 1
    finally:
        telemetry.detach(token)
        await rpc.admin.aclose()
    assert seen == [(9, None)]


async def test_a_stream_is_rechecked_with_what_its_middlewares_had_set(file: Path) -> None:
    """The context that reads a variable comes out as it did at first, so the stream goes on; no recheck fails."""
    async with served(file, settings={"recheck_seconds": 0.01}) as server:
        first = await poll(server, "by_ctx", "ada")
        waiting = asyncio.create_task(poll(server, "by_ctx", "ada", cursor=first["cursor"], wait=30))
        await until(lambda: server.rpc.admin.stats()["rechecks"] >= 2)
        server.write("INSERT INTO note(tenant, room, text) VALUES ('ada', 'a', 'more')")
        heard = (await waiting)["events"]
        assert [event["event"] for event in heard] == ["connected", "invalidation"]
        assert server.rpc.admin.stats()["recheck_failures"] == 0


class Page(BaseModel):
    limit: int


@define_reactive_function(cache=Cache(push="result"))
async def page(db: AsyncSession, input: Page) -> list[str]:
    """As many texts as were asked for, of one more; by a handler that alters its input."""
    input.limit += 1
    texts = (await db.exec(select(Note.text).order_by(Note.text).limit(input.limit))).all()
    return list(texts[: input.limit - 1])


async def test_a_handler_that_alters_what_it_gets_alters_no_later_run(file: Path) -> None:
    """A watched query is computed again from what the client sent, however its handler has changed its arguments."""
    async with served(file, {"notes": {"page": page}}) as server:
        first = await poll(server, "page", "ada", input={"limit": 2})
        waiting = asyncio.create_task(poll(server, "page", "ada", input={"limit": 1}, cursor=first["cursor"], wait=30))
        await until(lambda: server.rpc.admin.stats()["watched_queries"] == 1)
        server.write("UPDATE note SET text = 'a first' WHERE tenant = 'ada'")
        heard = (await waiting)["events"]
        assert [event["event"] for event in heard] == ["connected", "result"]
        assert heard[1]["data"]["data"] == ["a first"]
