"""A scope says who shares a result, and the handler sees exactly what they have in common."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import Header
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Context, DefinitionError, define_reactive_function

from .rooms import Note, serving

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, kw_only=True)
class Member(Context):
    role: str = "user"


def member(caller: str = Header()) -> Member:
    """Read `user@tenant/role`."""
    identity, _, rest = caller.partition("@")
    tenant, _, role = rest.partition("/")
    return Member(identity=identity, tenant=tenant, role=role)


def role_of(ctx: Member) -> tuple[str | None, str]:
    return ctx.tenant, ctx.role


async def texts(db: AsyncSession, *more: object) -> list[str]:
    return [*(await db.exec(select(Note.text))).all(), *map(str, more)]


@define_reactive_function(scope=lambda ctx: ctx.tenant)
async def by_value(db: AsyncSession, ctx: str) -> list[str]:
    return await texts(db, ctx)


@define_reactive_function(scope=role_of)
async def by_role(db: AsyncSession, ctx: tuple[str, str]) -> list[str]:
    return await texts(db, *ctx)


@define_reactive_function(scope=role_of)
async def apart(db: AsyncSession) -> list[str]:
    return await texts(db)


@define_reactive_function(scope=lambda ctx: ctx.tenant)
async def peeks(db: AsyncSession, ctx: Any) -> list[str]:
    return await texts(db, ctx.identity)


@define_reactive_function(scope=lambda ctx: ctx.tenant)
def peeks_sync(ctx: Any) -> list[str]:
    return [str(ctx.identity)]


@define_reactive_function(scope=lambda ctx: {"tenant": ctx.tenant})
async def alters(db: AsyncSession, ctx: dict[str, str]) -> list[str]:
    found = await texts(db, ctx["tenant"])
    ctx["tenant"] = "another"
    return found


FUNCTIONS: Any = {
    "notes": {
        "by_value": by_value,
        "by_role": by_role,
        "apart": apart,
        "peeks": peeks,
        "peeks_sync": peeks_sync,
        "alters": alters,
    }
}

ADA, BOB, EVE = "ada@t/admin", "bob@t/user", "eve@other/user"


async def test_the_handler_sees_what_the_function_returned(file: Path) -> None:
    """`ctx` is that value; callers for whom it is the same share a result, and others do not."""
    async with serving(file, FUNCTIONS, context=member) as server:
        for name, caller, answer in [
            ("by_value", ADA, ["t"]), ("by_value", BOB, ["t"]), ("by_value", EVE, ["other"]),
            ("by_role", ADA, ["t", "admin"]), ("by_role", BOB, ["t", "user"]), ("by_role", EVE, ["other", "user"]),
            ("apart", ADA, []), ("apart", EVE, []),
        ]:  # fmt: skip
            assert (await server.call(f"notes.{name}", caller=caller)).json() == answer
        assert server.rpc.stats()["hits"] == 1


@pytest.mark.parametrize("name", ["peeks", "peeks_sync"])
async def test_what_the_function_left_out_cannot_be_read(
    file: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that reads more of its caller fails for the first caller already; the log says what it may do."""
    async with serving(file, FUNCTIONS, context=member) as server:
        for caller in (ADA, BOB):
            answer = await server.call(f"notes.{name}", caller=caller)
            assert answer.status_code == 500
            assert "ada" not in answer.text
    assert "ctx is what that function returned, a str, and the handler reads ctx.identity" in caplog.text


async def test_a_handler_that_alters_its_view_alters_nobody_elses(file: Path) -> None:
    """What the function returned is copied for each run, and is the key as it was returned."""
    async with serving(file, FUNCTIONS, context=member) as server:
        call = server.rpc._caller.bind("notes.alters", alters, None, Member(identity="ada", tenant="t"))
        assert [(await call.compute()).body for _ in range(2)] == [b'["t"]'] * 2


@dataclass(frozen=True, kw_only=True)
class TokenContext(Context):
    token: InitVar[str]

    def __post_init__(self, token: str) -> None:
        object.__setattr__(self, "role", token)


@define_reactive_function
async def my_role(db: AsyncSession, ctx: TokenContext) -> str:
    return str([*await texts(db), ctx.role])  # type: ignore[attr-defined]  # set by __post_init__


async def test_a_context_with_an_attribute_that_is_no_field_is_refused(file: Path) -> None:
    """A handler sees what `__post_init__` puts on a context, and no key would have it: nobody gets another's result."""

    def token_of(role: str = Header()) -> TokenContext:
        return TokenContext(identity="ann", token=role)

    async with serving(file, {"n": {"q": my_role}}, context=token_of) as server:
        for role in ("admin", "guest"):
            answer = await server.client.get("/rpc/n.q", headers={"role": role})
            assert (answer.status_code, role in answer.text) == (500, False)


def test_a_scope_that_would_have_to_be_awaited_is_refused() -> None:
    """It is asked on each hit, where nothing is awaited."""

    async def scope(ctx: Any) -> object:
        return ctx

    with pytest.raises(DefinitionError, match="scope is an async def"):

        @define_reactive_function(scope=scope)
        async def query() -> int:
            return 1
