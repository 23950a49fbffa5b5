"""An application with one of everything that tRPC's wire carries: what `tests/typescript/trpc/` calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from fastapi import Header, Request, UploadFile
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    DeclaredError,
    Login,
    NotFoundError,
    ReactiveRPC,
    Settings,
    Tracked,
    UnauthorizedError,
    current_caller,
    define_reactive_function,
    tracked,
)
from tests.support.waiting import forever

CANCELLED: list[str] = []
"""Which handlers that wait for ever were cancelled."""


class Base(SQLModel, registry=registry()):
    """Keeps these tables out of the metadata that all of a test run's modules share."""


class Memo(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    desk: str
    text: str
    author: str = ""


class DeskFull(DeclaredError, code="CONFLICT"):
    """desk {desk} is full"""

    desk: str


async def get_login(authorization: Annotated[str, Header()] = "") -> Login:
    if not authorization.startswith("Bearer "):
        raise UnauthorizedError("log in")
    return Login(identity=authorization.removeprefix("Bearer "))


@define_reactive_function(public=True)
async def ping() -> str:
    """Answer without asking who calls."""
    return "pong"


@define_reactive_function
async def whoami(ctx: Login) -> str:
    """Say who calls."""
    return str(ctx.identity)


@define_reactive_function
async def memos(db: AsyncSession, ctx: Login, desk: str) -> list[Memo]:
    """The memos of a desk."""
    return list((await db.exec(select(Memo).where(Memo.desk == desk).order_by(Memo.id))).all())  # type: ignore[arg-type]  # a column


@define_reactive_function
async def one(db: AsyncSession, ctx: Login, id: int) -> Memo:
    """One memo."""
    memo = await db.get(Memo, id)
    if memo is None:
        raise NotFoundError(f"no memo {id}")
    return memo


@define_reactive_function(public=True)
async def many(ids: list[int]) -> int:
    """A query whose input fits no query string."""
    return sum(ids)


@define_reactive_function.mutation(raises=[DeskFull])
async def add(db: AsyncSession, ctx: Login, desk: str, text: str) -> Memo:
    """Put a memo onto a desk."""
    if desk == "full":
        raise DeskFull(desk=desk)
    memo = Memo(desk=desk, text=text, author=str(ctx.identity))
    db.add(memo)
    return memo


@define_reactive_function.mutation(public=True)
async def touch() -> None:
    """Do nothing, without an input."""


class Values(BaseModel):
    """Values of types that JSON has not."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    at: datetime
    local: datetime | None = None
    big: Annotated[int, Ge(2**60)]
    raw: bytes
    tags: set[str]
    by_day: dict[int, datetime]
    inner: list[Values] = []


@define_reactive_function(public=True)
async def echo(values: Values, times: int = 1) -> list[Values]:
    """Answer with the values, as often as is said."""
    return [values] * times


@define_reactive_function(public=True, cache=False)
async def echoed(values: Values) -> AsyncIterator[Values]:
    """Yield the values."""
    yield values


@define_reactive_function.subscription(public=True)
async def echoes(values: Values) -> AsyncIterator[Tracked[Values]]:
    """Yield the values, with an id."""
    yield tracked("1", values)


@define_reactive_function(public=True, cache=False)
async def broken() -> str:
    """Fail by accident."""
    raise ValueError("the password is hunter2")


@define_reactive_function(public=True, cache=False)
async def method(request: Request) -> str:
    """Say by which method it was called: on each call anew."""
    return request.method


@define_reactive_function(public=True, cache=False)
async def wait() -> str:
    """Never answer."""
    try:
        await forever()
    finally:
        CANCELLED.append("wait")
    return "never"


@define_reactive_function(public=True, cache=False)
async def count(upto: int, fail_at: int = -1) -> AsyncIterator[int]:
    """Yield numbers from 0 on; fail at one of them."""
    for number in range(upto):
        if number == fail_at:
            raise NotFoundError(f"no number {number}")
        yield number


@define_reactive_function.subscription
async def added(ctx: Login, desk: str, last_event_id: str | None = None) -> AsyncIterator[Tracked[Memo]]:
    """The memos of a desk, and those that are added to it."""
    last = int(last_event_id or 0)
    async for current in current_caller().live(memos, desk=desk):
        for memo in current:
            if memo.id is not None and memo.id > last:
                last = memo.id
                yield tracked(str(memo.id), memo)


@define_reactive_function.subscription(public=True)
async def ticks(upto: int, fail: bool = False) -> AsyncIterator[int]:
    """Numbers without ids; then the end, or an error."""
    for number in range(upto):
        yield number
    if fail:
        raise NotFoundError("no more")


@define_reactive_function.subscription
async def me(ctx: Login) -> AsyncIterator[str]:
    """Say who listens, and end."""
    yield str(ctx.identity)


@define_reactive_function.subscription(public=True)
async def silent() -> AsyncIterator[int]:
    """Nothing, for ever."""
    await forever()
    yield 0


@define_reactive_function.mutation
async def attach(ctx: Login, file: UploadFile, title: str = "") -> str:
    """Take a file."""
    return f"{title}:{file.filename}:{len(await file.read())}"


PROCEDURES: dict[str, Any] = {
    "desk": {
        each.name: each
        for each in (
            ping, whoami, memos, one, many, add, touch, broken, method, wait, count, added, ticks, me, silent, echo,
            echoed, echoes, attach,
        )
    }
}  # fmt: skip


def rpc_on(path: Path, **options: Any) -> ReactiveRPC:
    """Return the procedures on a file."""
    settings = options.pop("settings", {})
    return ReactiveRPC(
        f"sqlite+aiosqlite:///{path}",
        functions=options.pop("functions", PROCEDURES),
        metadata=Base.metadata,
        context=get_login,
        settings=Settings(**settings),
        **options,
    )
