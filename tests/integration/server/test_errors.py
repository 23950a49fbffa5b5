"""Errors that handlers raise: whole for whoever called, nobody else's, and kept only while they are right."""

from __future__ import annotations

import gc
from pathlib import Path
from types import TracebackType

import pytest
from fastapi import HTTPException
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ConflictError, NotFoundError, RPCError, TooManyRequestsError, define_reactive_function
from tests.support.calls import by_path

from .rooms import NoteId, Server, Visit, error_of, serving

pytestmark = pytest.mark.anyio


class OutOfStockError(RPCError):
    code = "OUT_OF_STOCK"

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what} is left")


@define_reactive_function
async def stock(db: AsyncSession) -> str:
    raise OutOfStockError("tea")


@define_reactive_function.mutation
async def take(db: AsyncSession) -> str:
    raise OutOfStockError("tea")


@pytest.mark.parametrize("name", ["stock", "take"])
async def test_an_application_may_have_errors_of_its_own(file: Path, name: str) -> None:
    """A subclass of RPCError with its own code and its own constructor reaches the caller as an envelope."""
    async with serving(file, {"shop": {"stock": stock, "take": take}}) as server:
        answer = await server.call(f"shop.{name}")
    error = error_of(answer)
    assert (error["code"], error["message"]) == ("OUT_OF_STOCK", "no tea is left")


@define_reactive_function.mutation
async def conflict(db: AsyncSession) -> str:
    raise ConflictError("twice", details={"of": object()})


@define_reactive_function.mutation
async def refuse(db: AsyncSession) -> str:
    raise HTTPException(409, {"of": object()})


@pytest.mark.parametrize("name", ["conflict", "refuse"])
async def test_details_that_are_no_json_do_not_lose_the_error(file: Path, name: str) -> None:
    """An error whose details cannot be encoded is still an envelope, under a request id."""
    async with serving(file, {"shop": {"conflict": conflict, "refuse": refuse}}) as server:
        answer = await server.call(f"shop.{name}")
    assert error_of(answer)["request_id"]


@define_reactive_function
async def throttled(db: AsyncSession, input: NoteId) -> str:
    raise NotFoundError("gone for an hour", headers={"retry-after": "3600"})


async def test_an_error_of_a_query_keeps_its_headers(file: Path) -> None:
    """What a handler says in the headers of an error arrives, from a query as from a mutation."""
    async with serving(file, {"shop": {"throttled": throttled}}) as server:
        answer = await server.call("shop.throttled", {"id": 1})
    assert answer.headers.get("retry-after") == "3600"


async def test_a_cached_error_holds_no_frames_of_the_requests_it_answered(server: Server) -> None:
    """Answering from a cached error costs no memory: raised again and again, it would gather every request's frames."""

    def tracebacks() -> int:
        gc.collect()
        return sum(isinstance(found, TracebackType) for found in gc.get_objects())

    await server.client.get("/rpc/notes.one", params={"id": 7})
    before = tracebacks()
    for _ in range(100):
        assert (await server.client.get("/rpc/notes.one", params={"id": 7})).status_code == 404
    assert tracebacks() < before + 100


async def test_the_details_of_a_cached_error_belong_to_each_caller(file: Path) -> None:
    """A caller in this process who changes the details it got changes nobody else's."""

    @define_reactive_function
    async def refuse(db: AsyncSession) -> str:
        await db.exec(select(Visit))
        raise ConflictError("twice", details={"seen": []})

    async with serving(file, {"n": {"q": refuse}}) as server:
        for _ in range(2):
            with pytest.raises(RPCError) as raised:
                await by_path(server.rpc)("n.q")
            assert raised.value.details == {"seen": []}
            raised.value.details["seen"].append("by the first")


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
