"""Steps and wrappers: no stored result skips a guard, and results are shared by the context that a handler gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import Header
from sqlmodel import Field, Session, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Answered,
    CallInfo,
    ConflictError,
    Context,
    DefinitionError,
    ForbiddenError,
    Login,
    Next,
    NotFoundError,
    ReactiveRPC,
    Tenant,
    UnauthorizedError,
    after_commit,
    by_tenant,
    define_reactive_function,
)
from reactive_rpc.testing import FakeClock
from tests.support.calls import by_path
from tests.support.waiting import until

from .rooms import Base, Server, error_of, serving

pytestmark = pytest.mark.anyio


class Person(Base, table=True):
    id: str = Field(primary_key=True)
    org: str
    role: str


class Seat(Base, table=True):
    id: str = Field(primary_key=True)
    org: str
    taken_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Member(Login):
    role: str


class Runs:
    """How often each function ran, and what a wrapper saw."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.answers: list[tuple[str, str, str, str]] = []
        self.sent: list[str] = []

    def note(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def of(self, name: str) -> int:
        return self.counts.get(name, 0)


RUNS = Runs()


@pytest.fixture(autouse=True)
def runs() -> Runs:
    """Count anew."""
    RUNS.__init__()  # type: ignore[misc]  # the same object, empty
    return RUNS


async def who(caller: str = Header()) -> Login:
    return Login(identity=caller)


async def member(ctx: Login, db: AsyncSession) -> Member:
    RUNS.note("member")
    person = await db.get(Person, ctx.identity)
    if person is None:
        raise UnauthorizedError("log in again")
    return Member(identity=person.id, tenant=person.org, role=person.role)


def admins_only(ctx: Member) -> None:
    RUNS.note("admins_only")
    if ctx.role != "admin":
        raise ForbiddenError("for admins")


async def log(call: CallInfo, next: Next) -> Answered:
    answer = await next()
    RUNS.answers.append((call.path, call.kind, call.transport, answer.source))
    return answer


procedure = define_reactive_function.wrap(log).use(member)
admin = procedure.use(admins_only)
shared = procedure.use(by_tenant)


@shared.query
async def seats(db: AsyncSession, ctx: Tenant, free_only: bool = False) -> list[Seat]:
    """The seats of the organization."""
    RUNS.note("seats")
    found = select(Seat).where(Seat.org == ctx.tenant).order_by(col(Seat.id))
    return list((await db.exec(found.where(col(Seat.taken_by).is_(None)) if free_only else found)).all())


@admin.query
async def people(db: AsyncSession) -> list[Person]:
    """Everybody."""
    RUNS.note("people")
    return list((await db.exec(select(Person).order_by(Person.id))).all())


@procedure.query
async def mine(db: AsyncSession, ctx: Member) -> list[str]:
    """The caller's own."""
    RUNS.note("mine")
    return list((await db.exec(select(Seat.id).where(Seat.taken_by == ctx.identity))).all())


@procedure.mutation
async def book(db: AsyncSession, ctx: Member, seat: str) -> Seat:
    """Take a seat."""
    row = await db.get(Seat, seat)
    if row is None:
        raise NotFoundError(f"no seat {seat!r}")
    if row.taken_by is not None:
        raise ConflictError("taken")
    row.taken_by = ctx.identity
    after_commit(RUNS.sent.append, seat)
    return row


FUNCTIONS: dict[str, Any] = {
    "seats": {"all": seats, "book": book, "mine": mine},
    "people": {"all": people},
}


@asynccontextmanager
async def office(file: Path, functions: dict[str, Any] = FUNCTIONS, **options: Any) -> AsyncIterator[Server]:
    """An office of two organizations, with an admin and a user each."""
    async with serving(file, functions, context=who, **options) as server:
        for name, org, role in (("ada", "o", "admin"), ("bob", "o", "user"), ("eve", "p", "admin")):
            server.write("INSERT INTO person VALUES (?, ?, ?)", name, org, role)
        for seat, org in (("1", "o"), ("2", "o"), ("3", "p")):
            server.write("INSERT INTO seat VALUES (?, ?, NULL)", seat, org)
        yield server


async def ids(server: Server, path: str, caller: str, input: object = None) -> list[str]:
    answer = await server.call(path, input, caller=caller)
    assert answer.status_code == 200, answer.text
    return [row if isinstance(row, str) else row["id"] for row in answer.json()]


async def test_results_are_shared_by_the_context_that_the_handler_gets(file: Path) -> None:
    """By the tenant, by everybody who is let in, and by nobody else's member."""
    async with office(file) as server:
        for caller, found in (("ada", ["1", "2"]), ("bob", ["1", "2"]), ("eve", ["3"])):
            assert await ids(server, "seats.all", caller) == found
        assert RUNS.of("seats") == 2  # of two tenants
        assert await ids(server, "people.all", "ada") == await ids(server, "people.all", "eve")
        assert RUNS.of("people") == 1
        for caller in ("ada", "bob", "ada"):
            await ids(server, "seats.mine", caller)
        assert RUNS.of("mine") == 2


async def test_no_stored_result_skips_a_guard(file: Path) -> None:
    """Who is refused is refused after the result was stored by somebody else, too; who is unknown likewise."""
    async with office(file) as server:
        await ids(server, "people.all", "ada")
        for caller, code in (("bob", "FORBIDDEN"), ("nobody", "UNAUTHORIZED"), ("bob", "FORBIDDEN")):
            assert error_of(await server.call("people.all", caller=caller))["code"] == code
        assert RUNS.of("people") == 1


async def test_a_step_with_a_session_is_kept_until_its_rows_change(file: Path) -> None:
    """On a hit it does not run; another process takes the role away, and the next call is refused."""
    async with office(file) as server:
        for _ in range(3):
            await ids(server, "people.all", "ada")
        assert (RUNS.of("member"), RUNS.of("admins_only"), RUNS.of("people")) == (1, 3, 1)
        server.write("UPDATE person SET role = 'user' WHERE id = 'ada'")
        assert error_of(await server.call("people.all", caller="ada"))["code"] == "FORBIDDEN"
        server.write("UPDATE person SET role = 'admin' WHERE id = 'ada'")
        assert await ids(server, "people.all", "ada") == ["ada", "bob", "eve"]
        assert RUNS.of("member") == 3


async def test_a_refusal_is_kept_as_long_as_its_rows(file: Path) -> None:
    """A step that raises is an outcome like another: who is let in later is let in then."""
    async with office(file) as server:
        for _ in range(2):
            assert error_of(await server.call("seats.all", caller="new"))["code"] == "UNAUTHORIZED"
        assert RUNS.of("member") == 1
        server.write("INSERT INTO person VALUES ('new', 'p', 'user')")
        assert await ids(server, "seats.all", "new") == ["3"]


async def test_a_mutations_steps_run_in_its_transaction(file: Path) -> None:
    """The role is checked where the seat is taken; what follows the commit is done once it is committed."""
    async with office(file) as server:
        answer = await server.call("seats.book", {"seat": "1"}, caller="ada")
        assert (answer.json()["taken_by"], RUNS.sent) == ("ada", ["1"])
        assert error_of(await server.call("seats.book", {"seat": "1"}, caller="bob"))["code"] == "CONFLICT"
        assert error_of(await server.call("seats.book", {"seat": "2"}, caller="nobody"))["code"] == "UNAUTHORIZED"
        assert RUNS.sent == ["1"]
        assert await ids(server, "seats.all", "bob", {"free_only": True}) == ["2"]


async def test_an_answer_that_is_given_again_passes_the_guards_again(file: Path) -> None:
    """A replay under an idempotency key is no way around a role that was taken away."""
    async with office(file) as server:
        key = {"idempotency-key": "k" * 40, "caller": "ada"}
        first = await server.call("seats.book", {"seat": "1"}, **key)
        again = await server.call("seats.book", {"seat": "1"}, **key)
        assert (first.status_code, again.json(), again.headers["reactive-replayed"]) == (200, first.json(), "true")
        server.write("DELETE FROM person WHERE id = 'ada'")
        assert error_of(await server.call("seats.book", {"seat": "1"}, **key))["code"] == "UNAUTHORIZED"
        assert RUNS.sent == ["1"]


async def test_a_wrapper_sees_how_each_call_has_ended(file: Path) -> None:
    """By the handler, by the cache, by an error; over HTTP and in this process."""
    async with office(file) as server:
        await server.call("seats.all", caller="ada")
        await server.call("seats.all", caller="bob")
        await server.call("people.all", caller="bob")
        await server.call("seats.book", {"seat": "1"}, caller="bob")
        await server.rpc.caller(Login(identity="ada"))(seats)
        assert RUNS.answers == [
            ("seats.all", "query", "http", "handler"),
            ("seats.all", "query", "http", "cache"),
            ("people.all", "query", "http", "error"),
            ("seats.book", "mutation", "http", "handler"),
            ("seats.all", "query", "local", "handler"),
        ]


async def test_order_is_as_written(file: Path) -> None:
    """A wrapper encloses what stands after it; steps run in their order."""
    order: list[str] = []

    def step(name: str) -> Any:
        def run(ctx: Context) -> None:
            order.append(name)

        return run

    def wrapper(name: str) -> Any:
        async def run(call: CallInfo, next: Next) -> Answered:
            order.append(f"<{name}")
            answer = await next()
            order.append(f"{name}>")
            return answer

        return run

    define = define_reactive_function.use(step("a")).wrap(wrapper("W")).use(step("b")).wrap(wrapper("V")).use(step("c"))

    @define.query(cache=False)
    async def ordered() -> None:
        order.append("handler")

    @define.mutation
    async def changing(db: AsyncSession) -> None:
        order.append("handler")

    expected = ["a", "<W", "b", "<V", "c", "handler", "V>", "W>"]
    async with serving(file, {"n": {"ordered": ordered, "changing": changing}}) as server:
        for path in ("n.ordered", "n.changing"):
            assert (await server.call(path)).status_code == 200
            assert order == expected
            order.clear()


async def test_a_wrapper_may_answer_another_error(file: Path) -> None:
    """An error of a step, and one that the handler was kept for."""

    async def conceal(call: CallInfo, next: Next) -> Answered:
        answer = await next()
        if isinstance(answer.error, ForbiddenError):
            raise NotFoundError("no such thing") from answer.error
        return answer

    def nobody(ctx: Context) -> None:
        raise ForbiddenError("go away")

    @define_reactive_function.wrap(conceal).use(nobody).query
    async def guarded() -> None: ...

    @define_reactive_function.wrap(conceal).query
    async def refusing(db: AsyncSession) -> None:
        await db.exec(select(Seat))
        raise ForbiddenError("go away")

    async with serving(file, {"n": {"guarded": guarded, "refusing": refusing}}) as server:
        for path in ("n.guarded", "n.refusing", "n.refusing"):
            assert error_of(await server.call(path))["code"] == "NOT_FOUND"


async def test_a_wrapper_of_computations_runs_with_the_handler_alone(file: Path) -> None:
    """Not on a hit; the error that it maps to is kept as the outcome."""
    seen: list[tuple[str, Any]] = []

    async def watch(call: CallInfo, next: Next) -> Answered:
        with pytest.raises(DefinitionError, match="sees path, kind and input alone"):
            _ = call.headers
        seen.append((call.path, call.input.room))
        answer = await next()
        if answer.error is not None:
            raise ConflictError("mapped") from answer.error
        return answer

    watched = define_reactive_function.wrap(watch, on="compute")

    @watched.query
    async def ok(db: AsyncSession, room: str) -> list[str]:
        return list((await db.exec(select(Seat.id))).all())

    @watched.query
    async def failing(db: AsyncSession, room: str) -> list[str]:
        await db.exec(select(Seat.id))
        raise NotFoundError("nothing")

    async with serving(file, {"n": {"ok": ok, "failing": failing}}) as server:
        for _ in range(2):
            assert (await server.call("n.ok", {"room": "a"})).json() == []
            assert error_of(await server.call("n.failing", {"room": "a"}))["code"] == "CONFLICT"
        assert seen == [("n.ok", "a"), ("n.failing", "a")]


@pytest.mark.parametrize("fault", ["another answer", "nothing", "twice"])
async def test_a_wrapper_that_returns_something_else_is_refused(
    file: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It would answer what nobody has computed; the log says which one it was."""

    async def wrong(call: CallInfo, next: Next) -> Any:
        answer = await next()
        if fault == "twice":
            await next()
        return None if fault == "nothing" else Answered(answer.source, None, 0.0)

    @define_reactive_function.wrap(wrong).query
    async def get(db: AsyncSession) -> list[str]:
        return list((await db.exec(select(Seat.id))).all())

    async with serving(file, {"n": {"get": get}}) as server:
        assert error_of(await server.call("n.get"))["code"] == "INTERNAL_SERVER_ERROR"
    assert "wrong" in caplog.text
    assert "next() twice" in caplog.text or "a wrapper returns what next() gave" in caplog.text


async def test_a_step_sees_the_call(file: Path) -> None:
    """Headers and the validated input; beside a session only what its outcome is kept by, and it is kept by that."""
    asked: list[tuple[str, str]] = []

    def of_region(ctx: Context, call: CallInfo) -> None:
        if call.headers.get("X-Region") != "eu":
            raise ForbiddenError(f"not in {call.transport}")

    async def of_org(ctx: Context, db: AsyncSession, call: CallInfo) -> None:
        with pytest.raises(DefinitionError, match="Read client in a step without a session"):
            _ = call.client
        asked.append((call.path, call.input.org))
        if (await db.exec(select(Seat).where(Seat.org == call.input.org))).first() is None:
            raise NotFoundError(f"no organization {call.input.org!r}")

    @define_reactive_function.use(of_region).use(of_org).query
    async def count(db: AsyncSession, org: str) -> int:
        return len((await db.exec(select(Seat).where(Seat.org == org))).all())

    async with serving(file, {"n": {"count": count}}) as server:
        server.write("INSERT INTO seat VALUES ('1', 'o', NULL)")
        for org, code in (("o", 200), ("p", 404), ("o", 200), ("p", 404)):
            assert (await server.call("n.count", {"org": org}, **{"x-region": "eu"})).status_code == code
        assert asked == [("n.count", "o"), ("n.count", "p")]
        assert error_of(await server.call("n.count", {"org": "o"}))["message"] == "not in http"


async def test_steps_of_plain_functions_may_take_a_session(file: Path) -> None:
    """In a query they run in a thread, in a mutation on its own session, be it a coroutine or not."""

    def exists(ctx: Context, db: Session) -> None:
        if db.exec(select(Seat)).first() is None:
            raise NotFoundError("no seats at all")

    define = define_reactive_function.use(exists)

    @define.query
    def count(db: Session) -> int:
        return len(db.exec(select(Seat)).all())

    @define.mutation
    async def clear(db: AsyncSession) -> int:
        found = (await db.exec(select(Seat))).all()
        for seat in found:
            await db.delete(seat)
        return len(found)

    @define.mutation
    def clear_sync(db: Session) -> int:
        return len(db.exec(select(Seat)).all())

    async with serving(file, {"n": {"count": count, "clear": clear, "clear_sync": clear_sync}}) as server:
        server.write("INSERT INTO seat VALUES ('1', 'o', NULL)")
        assert [(await server.call(f"n.{name}")).json() for name in ("count", "clear_sync", "clear")] == [1, 1, 1]
        for name in ("count", "clear_sync", "clear"):
            assert error_of(await server.call(f"n.{name}"))["code"] == "NOT_FOUND"


async def test_two_steps_of_one_name_are_kept_apart(file: Path) -> None:
    """A factory makes several; each has results of its own."""

    def of_org(org: str) -> Any:
        async def check(ctx: Context, db: AsyncSession) -> None:
            if (await db.exec(select(Seat).where(Seat.org == org))).first() is None:
                raise NotFoundError(org)

        return check

    async def nothing(db: AsyncSession) -> str:
        await db.exec(select(Seat))
        return "in"

    functions = {name: define_reactive_function.use(of_org(name)).query(nothing) for name in ("o", "p")}
    async with serving(file, {"n": functions}) as server:
        server.write("INSERT INTO seat VALUES ('1', 'o', NULL)")
        assert (await server.call("n.o")).json() == "in"
        assert error_of(await server.call("n.p"))["message"] == "p"


@dataclass(frozen=True, kw_only=True)
class Marked(Login):
    token: InitVar[str]

    def __post_init__(self, token: str) -> None:
        object.__setattr__(self, "role", token)


async def test_a_context_with_an_attribute_that_is_no_field_is_refused(file: Path) -> None:
    """A handler sees what `__post_init__` puts on a context, and no key would have it: nobody gets another's result."""

    @define_reactive_function.context(Marked)
    async def my_role(db: AsyncSession, ctx: Marked) -> str:
        await db.exec(select(Seat))
        return str(ctx.role)  # type: ignore[attr-defined]  # set by __post_init__

    def marked(role: str = Header()) -> Marked:
        return Marked(identity="ann", token=role)

    async with serving(file, {"n": {"q": my_role}}, context=marked) as server:
        for role in ("admin", "guest"):
            answer = await server.client.get("/rpc/n.q", headers={"role": role})
            assert (answer.status_code, role in answer.text) == (500, False)


async def test_a_step_that_returns_a_truth_value_lets_nobody_through(file: Path) -> None:
    """What its annotation does not say, it may not return: a coroutine that nobody awaited, for example."""

    def guard(ctx: Context) -> None:
        return member  # type: ignore[return-value]  # the fault

    @define_reactive_function.use(guard).query
    async def get() -> str:
        return "secret"

    async with serving(file, {"n": {"get": get}}) as server:
        answer = await server.call("n.get")
        assert (answer.status_code, "secret" in answer.text) == (500, False)


async def test_an_expired_login_is_refused_and_a_fresh_one_shares_results(file: Path) -> None:
    """`expires_at` bounds a login, is no part of the key, and is None for whoever asks."""
    clock = FakeClock()
    now = datetime.fromtimestamp(clock.time(), UTC)

    async def of_token(expires: int = Header()) -> Login:
        return Login(identity="ada", expires_at=now + timedelta(seconds=expires))

    @define_reactive_function
    async def expiry(db: AsyncSession, ctx: Login) -> str:
        RUNS.note("expiry")
        await db.exec(select(Seat))
        return str(ctx.expires_at)

    async with serving(file, {"n": {"expiry": expiry}}, context=of_token, clock=clock) as server:
        for seconds in ("10", "20"):
            assert (await server.call("n.expiry", expires=seconds)).json() == "None"
        assert RUNS.of("expiry") == 1
        clock.advance(15)
        assert error_of(await server.call("n.expiry", expires="10"))["code"] == "UNAUTHORIZED"
        assert (await server.call("n.expiry", expires="20")).status_code == 200


async def test_another_dependency_makes_the_context_of_some_procedures(file: Path) -> None:
    """With `.context(dependency)`; the application's own is not asked."""

    async def machine(key: str = Header()) -> Login:
        if key != "k":
            raise UnauthorizedError("no such machine")
        return Login(identity="machine")

    @define_reactive_function.context(machine)
    async def name(ctx: Login) -> str:
        return str(ctx.identity)

    async with serving(file, {"n": {"name": name}}, context=who) as server:
        assert (await server.call("n.name", key="k")).json() == "machine"
        assert error_of(await server.call("n.name", key="x"))["code"] == "UNAUTHORIZED"


async def test_calls_in_this_process_run_the_steps(file: Path) -> None:
    """Typed by the function, by position or by name; what callers give is checked as over the wire."""
    async with office(file) as server:
        call = server.rpc.caller(Login(identity="bob"))
        assert [seat.id for seat in await call(seats)] == ["1", "2"]
        assert (await call(book, "1")).taken_by == "bob"
        assert RUNS.sent == ["1"]
        assert [seat.id for seat in await call(seats, free_only=True)] == ["2"]
        with pytest.raises(ForbiddenError):
            await call(people)
        with pytest.raises(TypeError, match="by position"):
            await call(seats, True, False)  # type: ignore[call-overload]  # the fault
        with pytest.raises(UnauthorizedError):
            await server.rpc.caller(Login(identity="x"))(seats)
        with pytest.raises(DefinitionError, match="no procedure of this application"):
            await call(define_reactive_function(people.function))


async def test_work_after_the_commit_fails_alone(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The caller has been answered; the log names the procedure, and what follows is done."""
    done: list[str] = []

    def fails() -> None:
        raise OSError("the mail server is away")

    async def later(name: str) -> None:
        done.append(name)

    @define_reactive_function.mutation
    async def act(db: AsyncSession) -> str:
        after_commit(fails)
        after_commit(later, "second")
        return "done"

    @define_reactive_function.mutation
    async def undone(db: AsyncSession) -> str:
        after_commit(later, "never")
        raise ConflictError("rolled back")

    async with serving(file, {"n": {"act": act, "undone": undone}}) as server:
        assert (await server.call("n.act")).json() == "done"
        await until(lambda: done == ["second"])
        assert (await server.call("n.undone")).status_code == 409
        assert done == ["second"]
    assert "n.act: work after its commit failed" in caplog.text


async def test_a_query_may_not_leave_work(file: Path) -> None:
    """It is run for nobody in particular, whenever its rows change."""

    @define_reactive_function
    async def get(db: AsyncSession) -> None:
        after_commit(print, "x")

    rpc: ReactiveRPC
    async with serving(file, {"n": {"get": get}}) as server:
        rpc = server.rpc
        with pytest.raises(Exception, match="after_commit"):
            await by_path(rpc)("n.get")
