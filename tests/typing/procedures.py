"""How procedures are declared and called: each line marked `# error` is wrong, all others are right."""

# pyright: reportDeprecated=true

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, assert_type

from fastapi import BackgroundTasks, Depends, FastAPI, File, Header, Request, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel
from pydantic import Field as PydanticField
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Answered,
    Cache,
    Caller,
    CallInfo,
    Capture,
    Change,
    Context,
    DeclaredError,
    Definer,
    ForbiddenError,
    FoundResult,
    Login,
    Next,
    NotFoundError,
    ReactiveRPC,
    StoredResult,
    Tenant,
    UnauthorizedError,
    after_commit,
    by_tenant,
    combine_lifespans,
    define_reactive_function,
    now,
    reactive,
    topic,
)


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Agent(Base, table=True):
    id: str = Field(primary_key=True)
    organization_id: str


class AgentRef(BaseModel):
    agent_id: str


@dataclass(frozen=True, kw_only=True)
class User(Login):
    role: str


@dataclass(frozen=True, kw_only=True)
class Admin(User):
    can_bill: bool = False


@dataclass(frozen=True, kw_only=True)
class Organization(Context):
    organization: str | None


class SeatTaken(DeclaredError, code="CONFLICT"):
    """seat {seat} is taken"""

    seat: str
    taken_by: str | None = None
    row: Annotated[int, PydanticField(ge=1)] = 1
    tags: list[str] = PydanticField(default_factory=list)


class WindowTaken(SeatTaken):
    """the window at {seat} is taken"""

    sunny: bool


class Kept:
    async def open(self) -> None: ...

    async def aclose(self) -> None: ...

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        return "compute"

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None: ...


async def get_user(authorization: Annotated[str, Header()]) -> User:
    return User(identity=authorization, tenant="o", role="admin")


def require_login(ctx: Login) -> User:
    if ctx.identity is None:
        raise UnauthorizedError("log in")
    return User(identity=ctx.identity, tenant=ctx.tenant, role="user")


async def require_admin(ctx: User, db: AsyncSession) -> Admin:
    if ctx.role != "admin":
        raise ForbiddenError("for admins")
    return Admin(identity=ctx.identity, tenant=ctx.tenant, role=ctx.role)


def within_hours(ctx: Context, call: CallInfo) -> None: ...


async def member_of(ctx: User, db: AsyncSession, call: CallInfo) -> None:
    if call.input.organization != ctx.tenant:
        raise NotFoundError("no such organization")


def only_organization(ctx: User) -> Organization:
    return Organization(organization=ctx.tenant)


async def log(call: CallInfo, next: Next) -> Answered:
    answer = await next()
    assert_type(answer.seconds, float)
    return answer


user = define_reactive_function.use(require_login).use(within_hours).wrap(log)
admin = user.use(require_admin).defaults(tags=["admin"], query={"cache": Cache(ttl_seconds=60)})
organization = user.use(only_organization)
tenant = define_reactive_function.use(by_tenant)
machine = define_reactive_function.context(get_user)
assert_type(user, Definer[User])
assert_type(admin, Definer[Admin])
assert_type(organization, Definer[Organization])
assert_type(tenant, Definer[Tenant])
assert_type(machine, Definer[User])
assert_type(define_reactive_function.context(User), Definer[User])
assert_type(user.use(member_of), Definer[User])


@define_reactive_function
async def get_one(db: AsyncSession, agent_id: str) -> Agent:
    agent = await db.get(Agent, agent_id)
    if agent is None:
        raise NotFoundError(f"no agent {agent_id!r}")
    return agent


def concerns(change: Change, input: AgentRef) -> bool:
    return input.agent_id in change.keys


@define_reactive_function(dependencies=[Agent, "other"], invalidate_when={Agent: concerns})
async def by_model(db: AsyncSession, ctx: Login, input: AgentRef) -> Agent:
    raise NotImplementedError


@organization.query(cache=Cache(ttl_seconds=60, push="result"), raises=[NotFoundError])
async def page(db: AsyncSession, ctx: Organization, limit: int = 50, before: str | None = None) -> list[Agent]:
    assert_type(now(every=60), datetime)
    return list((await db.exec(select(Agent).where(Agent.organization_id == ctx.organization).limit(limit))).all())


@admin.query
def sync_list(db: Session, ctx: Admin, limit: int = 5) -> list[Agent]:
    raise NotImplementedError


@admin.query
async def of_supertype(db: AsyncSession, ctx: User) -> int:
    return 1


@admin.query
async def without_context(db: AsyncSession) -> int:
    return 1


SessionDep = Annotated[AsyncSession, Depends(get_user)]


@user.query
async def by_alias(session: SessionDep, current_user: User, limit: int = 3) -> list[Agent]:
    raise NotImplementedError


@user.query
async def plain_sqlalchemy(db: SQLAlchemyAsyncSession, ctx: User, limit: int = 3) -> list[int]:
    raise NotImplementedError


@define_reactive_function(cache=False)
async def ping() -> str:
    return "pong"


class Greeter:
    def __init__(self, accept_language: Annotated[str, Header()] = "en") -> None:
        self.language = accept_language


def greeter() -> Greeter:
    return Greeter()


@user.query
async def greet(db: AsyncSession, ctx: User, name: str, greeter: Greeter = Depends(greeter)) -> str:  # noqa: B008
    return name


@user.query
async def greet_annotated(db: AsyncSession, ctx: User, greeter: Annotated[Greeter, Depends()], name: str) -> str:
    return name


@user.query
def greet_sync(db: Session, ctx: User, name: str, *, greeter: Greeter = Depends(greeter)) -> str:  # noqa: B008
    return name


@define_reactive_function(cache=False)
async def whole(request: Request, name: str = "") -> str:
    return name


@user.mutation
async def greet_later(
    db: AsyncSession,
    ctx: User,
    name: str,
    *,
    tasks: BackgroundTasks,
    greeter: Greeter = Depends(greeter),  # noqa: B008
) -> int:
    return 1


@user.mutation
async def upload(db: AsyncSession, ctx: User, file: UploadFile, title: str = "") -> int:
    return 1


@define_reactive_function.mutation
async def upload_all(
    files: Annotated[list[UploadFile], File(description="The plans.")], cover: UploadFile | None = None
) -> int:
    return len(files)


@define_reactive_function(cache=False)
async def manual(name: str = "manual.pdf") -> FileResponse:
    return FileResponse(name)


async def files(me: User, file: UploadFile) -> None:
    call = rpc.caller(me)
    assert_type(await call(upload, file, title="Attic"), int)
    assert_type(await call(upload_all, files=[file], cover=file), int)
    assert_type(await call(manual), FileResponse)
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, wire_case="camel")
    await call(upload)  # error: file is missing
    await call(upload, file=b"plan")  # error: an UploadFile
    await call(upload_all, files=file)  # error: a list of them
    _ = (await call(manual)).content  # error: no bytes, but the response
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, wire_case="kebab")  # error: no such case


def send_mail(to: str, *, subject: str) -> None: ...


@user.mutation(isolation="serializable", attempts=5, raises=[NotFoundError, SeatTaken, WindowTaken])
async def book(db: AsyncSession, ctx: User, seat: str) -> Agent:
    after_commit(send_mail, str(ctx.identity), subject="booked")
    raise NotFoundError(seat)


@user.mutation
def book_sync(db: Session, ctx: User, seat: str) -> int:
    return 1


rpc = ReactiveRPC("sqlite+aiosqlite:///x.db", functions={"agents": {"get_one": get_one}}, context=get_user)
assert_type(rpc, ReactiveRPC[User])
assert_type(ReactiveRPC("sqlite+aiosqlite:///x.db", functions=[]), ReactiveRPC[Login])
assert_type(
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions=[], context=lambda: Login(identity=None)), ReactiveRPC[Login]
)
app = FastAPI(lifespan=combine_lifespans(rpc.lifespan, rpc.lifespan))


async def right(db: AsyncSession, session: Session, me: User, boss: Admin) -> None:
    """A decorated function keeps its own signature; a caller takes the inputs alone."""
    call = rpc.caller(me)
    assert_type(call, Caller)
    assert_type(await call(get_one, agent_id="a"), Agent)
    assert_type(await call(get_one, "a"), Agent)
    assert_type(await call(by_model, AgentRef(agent_id="a")), Agent)
    assert_type(await call(by_model, input=AgentRef(agent_id="a")), Agent)
    assert_type(await call(page), list[Agent])
    assert_type(await call(page, limit=3), list[Agent])
    assert_type(await call(sync_list, limit=3), list[Agent])
    assert_type(await call(of_supertype), int)
    assert_type(await call(without_context), int)
    assert_type(await call(ping), str)
    assert_type(await call(by_alias, limit=3), list[Agent])
    assert_type(await call(plain_sqlalchemy, limit=3), list[int])
    assert_type(await call(book, seat="4B"), Agent)
    assert_type(await call(book_sync, seat="4B"), int)
    assert_type(await call(greet, name="a"), str)
    assert_type(await call(greet, "a"), str)
    assert_type(await call(greet_sync, name="a"), str)
    assert_type(await greet(db, me, "a", greeter=Greeter("de")), str)
    assert_type(await greet_annotated(db, me, Greeter("de"), name="a"), str)
    assert_type(rpc.caller(me, overrides={greeter: lambda: Greeter("de"), require_login: only_organization}), Caller)
    rpc.overrides[greeter] = Greeter
    assert_type(rpc.admin.stats(), dict[str, float])
    assert_type(await rpc.invalidate(topic("weather"), db=db), None)
    rpc.invalidate(topic("weather"), db=session)
    rpc.revoke("ada", db=session)
    assert_type(await rpc.revoke("ada"), None)
    assert_type(await get_one(db, agent_id="a"), Agent)
    assert_type(await book(db, me, seat="4B"), Agent)
    assert_type(sync_list(session, boss, limit=3), list[Agent])


if TYPE_CHECKING:  # none of it can be run
    define_reactive_function.use(require_admin)  # error: it takes a User, and the root gives a Login
    organization.use(require_admin)  # error: an Organization is no User
    define_reactive_function.use(log)  # error: a wrapper is no step
    user.wrap(require_login)  # error: a step is no wrapper
    user.wrap(log, on="hit")  # error: no such moment
    user.use(lambda ctx: 1)  # error: a step returns a context

    def not_a_context(ctx: User) -> dict[str, str]:
        return {}

    def truthy(ctx: User) -> bool:
        return True

    async def not_next(call: CallInfo, next: Next) -> None: ...

    user.use(not_a_context)  # error: a step returns a context, or nothing
    user.use(truthy)  # error: a guard that returns a bool would be ignored
    user.wrap(not_next)  # error: a wrapper returns what next() gave

    @user.query(isolation="serializable")  # error: an option of mutations
    async def isolated(db: AsyncSession) -> int:
        return 1

    @user.mutation(cache=Cache(ttl_seconds=1))  # error: an option of queries
    async def cached(db: AsyncSession) -> int:
        return 1

    user.query(cache=True)  # error: False or a Cache
    user.query(cache=Cache(ttl=1))  # error: no such field
    user.query(depends=[Agent])  # error: no such option
    user.query(dependencies=Agent)  # error: not a list
    user.query(dependencies=[1])  # error: no table
    user.query(raises=[ValueError])  # error: no error of a call
    user.query(raises=NotFoundError)  # error: not a list
    user.query(invalidate_when={Agent: True})  # error: no function
    user.query(invalidate_when={Agent: lambda change: True})  # error: it takes the input too
    user.query(invalidate_when={Agent: lambda change, input: change.row})  # error: a change has no row
    user.mutation(isolation="snapshot")  # error: no such level
    user.mutation(kind="mutation")  # error: no such option
    user.query(scope="tenant")  # error: no such option
    _ = define_reactive_function.delete  # error: no such kind
    define_reactive_function("bare")  # error: no function

    @organization.query
    async def leak(db: AsyncSession, ctx: Organization) -> str | None:
        return ctx.identity  # error: an Organization has no identity: the result is shared by all of it

    @organization.query  # error: ctx is another one than its steps give
    async def wrong_context(db: AsyncSession, ctx: User) -> int:
        return 1

    @user.query  # error: the session comes first
    async def wrong_order(agent_id: str, db: AsyncSession) -> int:
        return 1

    @user.mutation  # error: the session comes first
    async def context_first(ctx: User, db: AsyncSession) -> int:
        return 1


async def wrong(db: AsyncSession, session: Session, me: User, them: Organization) -> None:
    call = rpc.caller(me)
    rpc.caller(them)  # error: this application's context is a User
    await call(get_one)  # error: agent_id is missing
    await call(get_one, agent=1)  # error: wrong name
    await call(get_one, agent_id=1)  # error: wrong type
    await call(get_one, db, agent_id="a")  # error: the session is the framework's
    await call(by_model, agent_id="a")  # error: its one input is a model
    _ = (await call(page, limit=2)).id  # error: it is a list
    _ = (await call(get_one, agent_id="a")).nam  # error: no such column
    await call(greet)  # error: name is missing
    await call(greet, name=1)  # error: wrong type
    await call(greet, "a", greeter="de")  # error: wrong type, and callers give no dependency
    await call(greet_annotated, name="a")  # error: only `= Depends(...)` may be left out, as checkers see it
    await call(whole, name="a")  # error: the request of this process is nobody's
    await greet_annotated(db, me, name="a")  # error: the function itself takes its greeter
    rpc.caller(me, overrides=[greeter])  # error: no mapping
    await rpc.open()  # error: rpc.admin.open()
    rpc.stats()  # error: rpc.admin.stats()
    await rpc.invalidate(topic("weather"), db=session)  # error: with a Session it is done on return
    rpc.invalidate_sync(topic("weather"), db=session)  # error: invalidate takes both sessions
    rpc.caller(me, overrides={"greeter": Greeter})  # error: by the function, not by its name
    await call("agents.get_one", agent_id="a")  # error: procedures are called by their functions
    await get_one(agent_id="a")  # error: the function itself takes its session
    _ = get_one.watch  # error: a procedure of the server is not watched


def errors() -> str | None:
    try:
        raise SeatTaken(seat="4B", taken_by="ada", tags=["front"])
    except WindowTaken as error:
        assert_type(error.sunny, bool)
    except SeatTaken as error:
        assert_type(error.code, str)
        assert_type(error.seat, str)
        return error.taken_by
    raise WindowTaken(seat="1A", sunny=True)


def wrong_errors(error: SeatTaken) -> None:
    SeatTaken()  # error: seat is missing
    SeatTaken(seat=4)  # error: wrong type
    SeatTaken("4B")  # error: by position
    SeatTaken(seat="4B", column=1)  # error: no such field
    WindowTaken(seat="4B")  # error: sunny is missing
    error.seat = "4C"  # error: frozen
    _ = error.column  # error: no such field
    _ = error.taken_by.upper()  # error: it may be None

    class OfNumber(DeclaredError, code=409):  # error: a code is a text
        """no"""

    class Named(DeclaredError, name="X"):  # error: no such argument
        """no"""


@reactive
def endpoint(session: Session, me: User, skip: int = 0) -> list[Agent]:
    return list(session.exec(select(Agent).offset(skip)).all())


@reactive(cache=Cache(ttl_seconds=60))
async def async_endpoint(session: AsyncSession, agent_id: str) -> Agent | None:
    return await session.get(Agent, agent_id)


async def endpoints(db: AsyncSession, session: Session, me: User) -> None:
    assert_type(endpoint(session, me, skip=1), list[Agent])
    assert_type(await async_endpoint(db, "a"), Agent | None)
    endpoint(session, me, skip="1")  # error: wrong type
    endpoint(session)  # error: me is missing
    await async_endpoint(session, "a")  # error: the wrong session
    _ = async_endpoint(db, "a").id  # error: it must be awaited


if TYPE_CHECKING:
    reactive(cache=60)  # error: a Cache
    reactive(cache=False)  # error: leave the decorator out
    reactive(ttl_seconds=60)  # error: a Cache has it
    reactive(rpc=ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}))  # error: a function that returns it
    after_commit(send_mail, "a")  # error: subject is missing
    after_commit(send_mail, "a", subject=1)  # error: wrong type
    after_commit(send_mail("a", subject="b"))  # error: a function, not its result
    now(60)  # error: by keyword
    now(every="minute")  # error: seconds

    ReactiveRPC("sqlite+aiosqlite:///x.db")  # error: functions are missing
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, context=not_a_context)  # error: a context is a Login
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, scope="tenant")  # error: no such option
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, capture=Capture(mode="installed"))
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, capture=Capture(mode="none"))  # error: no such mode
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, capture="installed")  # error: Capture(mode="installed")
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, store=Kept())
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, store=Kept)  # error: an object, not its class
    ReactiveRPC("sqlite+aiosqlite:///x.db", functions={}, store="redis://cache:6379/0")  # error: no store
    ReactiveRPC("sqlite:///x.db", functions={}, context=only_organization)  # error: who calls is not told
