"""Queries behind guards that are kept: what a stored outcome may spare, and what it may not.

Each is held twice: as it is, and with the bugs put in that would break it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Header, Response
from sqlmodel import Field, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Answered, Cache, CallInfo, Context, ForbiddenError, Login, Next, UnauthorizedError
from reactive_rpc import define_reactive_function as define
from reactive_rpc.cache.freshness import SYNCED, ByToken
from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.procedures import call, guarded_query
from reactive_rpc.procedures.call import KeptMade, made_by, query_key, step_key
from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.found_context import FoundContext
from reactive_rpc.procedures.guarded_query import GuardedQuery
from reactive_rpc.testing import FakeClock

from .rooms import Base, Note, serving, write

pytestmark = pytest.mark.anyio


class Pass(Base, table=True):
    id: str = Field(primary_key=True)
    role: str


@dataclass(frozen=True, kw_only=True)
class Holder(Login):
    role: str


@dataclass(frozen=True, kw_only=True)
class Role(Context):
    role: str


async def who(caller: Annotated[str, Header()]) -> Login:
    return Login(identity=caller)


async def holder(ctx: Login, db: AsyncSession) -> Holder:
    found = await db.get(Pass, ctx.identity)
    if found is None:
        raise UnauthorizedError("no pass")
    return Holder(identity=found.id, role=found.role)


async def holder_of_header(caller: Annotated[str, Header()], db: AsyncSession) -> Holder:
    return await holder(Login(identity=caller), db)


def its_role(ctx: Holder) -> Role:
    return Role(role=ctx.role)


async def texts(db: AsyncSession) -> list[str]:
    return list((await db.exec(select(Note.text).order_by(Note.text))).all())


def said(answer: httpx.Response) -> object:
    """Return the result that an answer holds, or the message of its error."""
    body = answer.json()
    return body if answer.status_code == 200 else body["error"]["message"]


LOSES = ("DELETE FROM pass", "INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'secret')")
"""A right is lost in the commit that writes what may not be seen any more."""


async def a_right_that_is_lost_after_the_guards(file: Path, guarded: Any) -> None:
    """The guards let the caller in; before the handler begins, the right is lost, and something secret is written."""
    losing = [True]

    def loses(ctx: Holder) -> None:
        if losing:
            losing.clear()
            write(file, *LOSES)

    functions = {"n": {"texts": guarded.use(loses).query(texts)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        answer = await server.call("n.texts", caller="ann")
        assert said(answer) == "no pass"


async def a_context_whose_right_is_lost(file: Path) -> None:
    """As `a_right_that_is_lost_after_the_guards`, of a context that reads the database."""
    await a_right_that_is_lost_after_the_guards(file, define.context(holder_of_header))


async def a_step_whose_right_is_lost(file: Path) -> None:
    """As `a_right_that_is_lost_after_the_guards`, of a step with a session."""
    await a_right_that_is_lost_after_the_guards(file, define.use(holder))


async def a_context_that_becomes_another(file: Path) -> None:
    """Whose role changes while the handler runs is answered as whoever it is then, and nothing is kept wrongly."""
    changing = [True]

    def changes(ctx: Holder) -> None:
        if changing:
            changing.clear()
            write(file, "UPDATE pass SET role = 'clerk'")

    async def role(db: AsyncSession, ctx: Holder) -> str:
        await db.exec(select(Note))
        return ctx.role

    functions = {"n": {"role": define.context(holder_of_header).use(changes).query(role)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        for _ in range(2):
            assert (await server.call("n.role", caller="ann")).json() == "clerk"


async def an_answer_that_is_made_again(file: Path) -> None:
    """What the first run has set on the response, and left to be done after it, was for whoever the caller was then."""
    left: list[str] = []

    async def demoted(ctx: Holder) -> None:
        if ctx.role == "chief":
            write(file, "UPDATE pass SET role = 'clerk'")

    async def role(db: AsyncSession, ctx: Holder, response: Response, tasks: BackgroundTasks) -> str:
        response.headers[f"x-{ctx.role}"] = "yes"
        tasks.add_task(left.append, ctx.role)
        if ctx.role == "chief":
            response.status_code = 203
        return ctx.role

    functions = {"n": {"role": define.use(holder).use(demoted).query(cache=False)(role)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        answer = await server.call("n.role", caller="ann")
        assert (answer.status_code, answer.json(), left) == (200, "clerk", ["clerk"])
        assert [name for name in answer.headers if name.startswith("x-")] == ["x-clerk"]


async def a_guard_of_results_by_token(file: Path) -> None:
    """A result may be as old as a token allows; a guard may not, be it kept or not."""
    functions = {"n": {"texts": define.use(holder).query(cache=Cache(freshness="token"))(texts)}}
    async with serving(file, functions, context=who, clock=FakeClock()) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        for _ in range(2):
            assert (await server.call("n.texts", caller="ann")).json() == []
        write(file, "DELETE FROM pass")
        assert said(await server.call("n.texts", caller="ann")) == "no pass"


async def a_refusal_that_is_kept(file: Path) -> None:
    """It refuses each call, and whoever is let in gets what was kept for others."""
    functions = {"n": {"texts": define.use(holder).use(its_role).query(texts)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        for _ in range(3):
            assert (await server.call("n.texts", caller="ann")).status_code == 200
            assert said(await server.call("n.texts", caller="bob")) == "no pass"


async def an_outcome_that_the_input_decides(file: Path) -> None:
    """A step that takes the call is kept by its input, and by the context before it."""

    async def of_room(ctx: Login, db: AsyncSession, call: CallInfo) -> None:
        if await db.get(Pass, f"{ctx.identity}:{call.input.room}") is None:
            raise ForbiddenError("not yours")

    async def in_room(db: AsyncSession, room: str) -> list[str]:
        return list((await db.exec(select(Note.text).where(Note.room == room))).all())

    async with serving(file, {"n": {"in_room": define.use(of_room).query(in_room)}}, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann:a', ''), ('bob:b', '')")
        for _ in range(3):
            for caller, room, status in (("ann", "a", 200), ("ann", "b", 403), ("bob", "b", 200), ("bob", "a", 403)):
                answer = await server.client.get("/rpc/n.in_room", params={"room": room}, headers={"caller": caller})
                assert answer.status_code == status, (caller, room)


async def a_step_that_changes_what_a_kept_one_made(file: Path) -> None:
    """The result is kept by the last context, and by no other on the way."""

    def acting(ctx: Holder, call: CallInfo) -> Holder:
        return Holder(identity=ctx.identity, role=call.headers.get("acts-as", ctx.role))

    async def role(db: AsyncSession, ctx: Holder) -> str:
        await db.exec(select(Note))
        return ctx.role

    async with serving(file, {"n": {"role": define.use(holder).use(acting).query(role)}}, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        for _ in range(3):
            assert said(await server.call("n.role", caller="ann")) == "chief"
            assert said(await server.call("n.role", caller="ann", **{"acts-as": "clerk"})) == "clerk"


async def a_guard_that_time_ends(file: Path) -> None:
    """A login that ends while the handler runs is asked for again, though nothing was written and no timer has run."""
    clock = FakeClock()
    waiting: list[float] = []
    end = datetime.fromtimestamp(clock.time() + 10, UTC)

    async def until_then(caller: Annotated[str, Header()], db: AsyncSession) -> Login:
        await db.get(Pass, caller)
        if clock.time() >= end.timestamp():
            raise UnauthorizedError("over")
        return Login(identity=caller, expires_at=end)

    def waits(ctx: Login) -> None:
        clock.advance(sum(waiting))

    functions = {"n": {"texts": define.context(until_then).use(waits).query(texts)}}
    async with serving(file, functions, context=who, clock=clock) as server:
        assert said(await server.call("n.texts", caller="ann")) == []
        waiting.append(11)
        assert said(await server.call("n.texts", caller="ann")) == "over"


async def a_call_inside_of_a_call(file: Path) -> None:
    """What the guards of the inner call read counts for the outer one, whether or not it is kept already."""
    inner = define.use(holder).use(its_role).query(role_of)

    @define.query
    async def outer(db: AsyncSession) -> str:
        await db.exec(select(Note))
        found: str = await rpcs[0].caller(Login(identity="ann"))(inner)
        return found

    rpcs: list[Any] = []
    async with serving(file, {"n": {"inner": inner, "outer": outer}}, context=who) as server:
        rpcs.append(server.rpc)
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        assert (await server.client.get("/rpc/n.inner", headers={"caller": "ann"})).json() == "chief"
        for role in ("chief", "clerk"):
            write(file, f"UPDATE pass SET role = '{role}'")
            for _ in range(2):
                assert (await server.client.get("/rpc/n.outer", headers={"caller": "ann"})).json() == role


async def role_of(db: AsyncSession, ctx: Role) -> str:
    await db.exec(select(Note))
    return ctx.role


async def wrappers_that_wait_after_the_result(file: Path) -> None:
    """A write in between lets go of what was stored: the caller is answered what the call has found."""
    order: list[str] = []

    async def slow(call: CallInfo, next: Next) -> Answered:
        order.append("<")
        answer = await next()
        write(file, f"INSERT INTO note(room, tenant, text) VALUES ('a', 't', 'text {len(order)}')")
        await server.rpc._freshness.sync_to_head()
        order.append(">")
        return answer

    def step(ctx: Context) -> None:
        order.append("step")

    functions = {"n": {"texts": define.wrap(slow).use(step).use(holder).query(texts)}}
    async with serving(file, functions, context=who) as server:
        write(file, "INSERT INTO pass VALUES ('ann', 'chief')")
        for count in range(3):
            answer = await server.client.get("/rpc/n.texts", headers={"caller": "ann"})
            assert (answer.status_code, len(answer.json())) == (200, count)
        assert order == ["<", "step", ">"] * 3


Scenario = Callable[[Path], Awaitable[None]]
Bug = Callable[[pytest.MonkeyPatch], None]


def rights_always_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is answered by what its guards had found, however long ago."""
    monkeypatch.setattr(GuardedQuery, "_holds", lambda self: True)


def contexts_always_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that reads the database is found once a call."""
    monkeypatch.setattr(FoundContext, "holds", True)


def answers_hold_what_every_run_has_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run adds to what the one before it has left behind."""
    begin = Exchange.begin
    monkeypatch.setattr(Exchange, "begin", lambda self: None if hasattr(self, "response") else begin(self))


def guards_are_as_old_as_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is not read for a guard if it was read a moment ago."""
    monkeypatch.setattr(guarded_query, "STRICT", ByToken(None))


def guards_need_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored outcome lets in, whatever was written since."""
    monkeypatch.setattr(guarded_query, "STRICT", SYNCED)


def refusals_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept outcome that is a refusal lets the context be."""

    def made(step: Any, result: CachedResult, outcome: Any) -> KeptMade:
        return KeptMade(None, None) if outcome.error is not None and result.cached else made_by(step, result, outcome)

    monkeypatch.setattr(guarded_query, "made_by", made)


def steps_are_kept_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome for one input serves another."""
    for module in (call, guarded_query):
        monkeypatch.setattr(module, "step_key", lambda step, spelled, call: step_key(step, spelled, None))


def steps_are_kept_without_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome for one caller serves another."""
    for module in (call, guarded_query):
        monkeypatch.setattr(module, "step_key", lambda step, spelled, call: step_key(step, b"", call))


def results_are_found_by_a_context_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step with a session has made stands for whatever steps make of it."""
    keys: dict[str, bytes] = {}

    def made(step: Any, result: CachedResult, outcome: Any) -> KeptMade:
        found = made_by(step, result, outcome)
        keys["last"] = found.spelled or b""
        return found

    def key(path: str, procedure: Any, canonical_input: bytes, *, ctx: Any, **options: Any) -> Any:
        return query_key(path, procedure, canonical_input, ctx=ctx, **{**options, "spelled": keys["last"]})

    monkeypatch.setattr(guarded_query, "made_by", made)
    monkeypatch.setattr(guarded_query, "query_key", key)


def time_ends_no_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a write does."""
    monkeypatch.setattr(Reader, "holds", lambda self, result: result.live)


def inner_guards_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found by its key alone is not noted for the call around it."""
    monkeypatch.setattr(guarded_query, "current_call", lambda: None)


def wrapped_results_keep_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that waits is left with a result that a write has taken the bytes from."""
    monkeypatch.setattr(GuardedQuery, "_with_own_bytes", lambda self, result: result)


BUGS: list[tuple[Bug, Scenario]] = [
    (rights_always_hold, a_step_whose_right_is_lost),
    (rights_always_hold, a_context_whose_right_is_lost),
    (contexts_always_hold, a_context_whose_right_is_lost),
    (contexts_always_hold, a_context_that_becomes_another),
    (answers_hold_what_every_run_has_added, an_answer_that_is_made_again),
    (guards_are_as_old_as_results, a_guard_of_results_by_token),
    (guards_need_no_log, a_guard_of_results_by_token),
    (refusals_are_passed_by, a_refusal_that_is_kept),
    (steps_are_kept_without_the_call, an_outcome_that_the_input_decides),
    (steps_are_kept_without_the_context, a_refusal_that_is_kept),
    (results_are_found_by_a_context_before, a_step_that_changes_what_a_kept_one_made),
    (time_ends_no_right, a_guard_that_time_ends),
    (inner_guards_do_not_count, a_call_inside_of_a_call),
    (wrapped_results_keep_no_bytes, wrappers_that_wait_after_the_result),
]


@pytest.mark.parametrize("scenario", dict.fromkeys(scenario for _, scenario in BUGS), ids=lambda each: each.__name__)
async def test_no_kept_outcome_skips_a_guard(file: Path, scenario: Scenario) -> None:
    """As the scenario says."""
    await scenario(file)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(("bug", "scenario"), BUGS, ids=lambda each: each.__name__)
async def test_a_seeded_bug_is_found(file: Path, bug: Bug, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its scenario, and not by a failure of another kind."""
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        await scenario(file)
