"""Steps, wrappers and limits hold over tRPC's wire as over `/rpc`, once for each call; and what who leaves leaves."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Answered,
    CallInfo,
    Login,
    Next,
    Tracked,
    define_reactive_function,
    rate_limit,
    tracked,
)
from reactive_rpc.testing import running
from tests.support.waiting import DEADLINE_SECONDS, until

from .desk import Memo, rpc_on

pytestmark = pytest.mark.anyio

ADA = {"authorization": "Bearer ada"}
LINES = ADA | {"trpc-accept": "application/jsonl"}
CALLS = 3

stepped: Counter[str] = Counter()
wrapped: Counter[str] = Counter()
begun: Counter[str] = Counter()
ended: Counter[str] = Counter()
cancelled: Counter[str] = Counter()
doors: dict[str, asyncio.Event] = {}


def noted(ctx: Login, call: CallInfo) -> None:
    """Count who is let in."""
    stepped[f"{call.path} for {ctx.identity}"] += 1


async def timed(call: CallInfo, next: Next) -> Answered:
    """Count what is answered."""
    answered = await next()
    wrapped[call.path] += 1
    return answered


checked = define_reactive_function.use(noted).wrap(timed)
limited = define_reactive_function.use(rate_limit(CALLS))


@checked.query
async def read(ctx: Login, number: int) -> int:
    """Answer with the number."""
    return number


@checked.mutation
async def write(ctx: Login, number: int) -> int:
    """Answer with the number."""
    return number


@checked.subscription
async def listen(ctx: Login, number: int) -> AsyncIterator[int]:
    """Yield the number."""
    yield number


@limited.query
async def scarce(ctx: Login, number: int) -> int:
    """Answer with the number, to whoever has not asked too often."""
    return number


@limited.subscription
async def scarce_events(ctx: Login, number: int) -> AsyncIterator[int]:
    """Yield the number, to whoever has not asked too often."""
    yield number


async def behind(door: str) -> None:
    """Wait until a door is opened, and note how it went."""
    begun[door] += 1
    try:
        await doors.setdefault(door, asyncio.Event()).wait()
    except asyncio.CancelledError:
        cancelled[door] += 1
        raise
    ended[door] += 1


@define_reactive_function(public=True)
async def slow(db: AsyncSession, door: str) -> int:
    """Count the memos of a desk once the door is open."""
    await behind(door)
    return len((await db.exec(select(Memo).where(Memo.desk == door))).all())


@define_reactive_function(public=True, cache=False)
async def slow_once(door: str) -> str:
    """Answer once the door is open, whoever asks anew."""
    await behind(door)
    return door


@define_reactive_function.mutation
async def slow_add(db: AsyncSession, ctx: Login, door: str) -> Memo:
    """Put a memo onto a desk once the door is open."""
    await behind(door)
    memo = Memo(desk=door, text="made to its end")
    db.add(memo)
    return memo


@define_reactive_function.subscription(public=True)
async def slow_events(door: str) -> AsyncIterator[Tracked[str]]:
    """Say something once the door is open."""
    yield tracked("1", "begun")
    await behind(door)


FUNCTIONS: dict[str, Any] = {
    "steps": {
        each.name: each
        for each in (read, write, listen, scarce, scarce_events, slow, slow_once, slow_add, slow_events)
    }
}  # fmt: skip


@pytest.fixture
async def client(tmp_path: Path, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server, whose handlers run on this process's other thread."""
    rpc = rpc_on(tmp_path / "steps.db", functions=FUNCTIONS)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    for noted_things in (stepped, wrapped, begun, ended, cancelled, doors):
        noted_things.clear()
    with running(app) as url:
        async with httpx.AsyncClient(base_url=url, headers=ADA, timeout=DEADLINE_SECONDS) as client:
            yield client


def asked(path: str, *inputs: object, batch: bool = True) -> str:
    """Return the address of a call, or of a batch with a call for each input."""
    given = {str(number): each for number, each in enumerate(inputs)} if batch else inputs[0]
    paths = ",".join([path] * len(inputs))
    return f"/trpc/{paths}?{'batch=1&' if batch else ''}input={quote(json.dumps(given))}"


def open_door(name: str) -> None:
    door = doors[name]
    door._loop.call_soon_threadsafe(door.set)  # type: ignore[attr-defined]  # the server's loop


async def test_each_call_passes_its_steps_and_wrappers_once(client: httpx.AsyncClient) -> None:
    """Alone, in a batch, in a batch that is streamed, as a mutation and as a subscription; stored results too."""
    await client.get(asked("steps.read", {"number": 1}, batch=False))
    await client.get(asked("steps.read", {"number": 1}, batch=False))
    assert (stepped, wrapped) == ({"steps.read for ada": 2}, {"steps.read": 2})
    await client.get(asked("steps.read", {"number": 1}, {"number": 2}))
    assert (stepped, wrapped) == ({"steps.read for ada": 4}, {"steps.read": 4})
    await client.get(asked("steps.read", {"number": 1}, {"number": 3}), headers=LINES)
    assert (stepped, wrapped) == ({"steps.read for ada": 6}, {"steps.read": 6})
    await client.post("/trpc/steps.write", json={"number": 1})
    assert stepped["steps.write for ada"] == wrapped["steps.write"] == 1
    await client.get(asked("steps.listen", {"number": 1}, batch=False))
    assert stepped["steps.listen for ada"] == 1
    await client.get("/rpc/steps.read", params={"number": 1})
    assert stepped["steps.read for ada"] == wrapped["steps.read"] == 7


async def test_a_limit_counts_the_calls_of_both_wires(client: httpx.AsyncClient) -> None:
    """And refuses the next one by 429 and when to come again, in each form that an answer has."""
    one, two = {"number": 1}, {"number": 2}
    assert [each["result"]["data"] for each in (await client.get(asked("steps.scarce", one, two))).json()] == [1, 2]
    assert (await client.get("/rpc/steps.scarce", params=one)).status_code == 200
    alone = await client.get(asked("steps.scarce", one, batch=False))
    assert alone.status_code == 429
    assert int(alone.headers["retry-after"]) >= 1
    assert alone.json()["error"]["data"]["code"] == "TOO_MANY_REQUESTS"
    batch = await client.get(asked("steps.scarce", one, two))
    assert [each["error"]["data"]["httpStatus"] for each in batch.json()] == [429, 429]
    lines = await client.get(asked("steps.scarce", one), headers=LINES)
    assert '"code":"TOO_MANY_REQUESTS"' in lines.text
    events = await client.get(asked("steps.scarce_events", one, batch=False))
    assert "event: serialized-error" in events.text
    assert '"code":"TOO_MANY_REQUESTS"' in events.text


async def leave(client: httpx.AsyncClient, method: str, url: str, door: str, **about: Any) -> None:
    """Send a request, and leave once its handler waits."""
    before = begun[door]

    async def ask() -> None:
        async with client.stream(method, url, **about) as answer:
            async for _ in answer.aiter_raw():
                pass

    asking = asyncio.create_task(ask())
    await until(lambda: begun[door] > before or asking.done())
    asking.cancel()
    await asyncio.wait([asking])


async def test_who_leaves_a_streamed_batch_or_a_subscription_ends_the_work(client: httpx.AsyncClient) -> None:
    """Nobody else can wait for it."""
    await leave(client, "GET", asked("steps.slow_once", {"door": "lines"}), "lines", headers=LINES)
    await until(lambda: cancelled["lines"] == 1)
    await leave(client, "GET", asked("steps.slow_events", {"door": "events"}, batch=False), "events")
    await until(lambda: cancelled["events"] == 1)


async def test_what_may_be_kept_is_computed_to_its_end(client: httpx.AsyncClient) -> None:
    """The first who asked leaves the streamed batch; who asked for the same meanwhile has it, of one computation."""
    url = asked("steps.slow", {"door": "shared"})
    async with client.stream("GET", url, headers=LINES) as leaving:
        assert await anext(leaving.aiter_lines()) == '{"0":[[0],[null,0,0]]}'  # it waits for the rest
        await until(lambda: begun["shared"] == 1)
    staying = asyncio.create_task(client.get(url, headers=LINES))
    open_door("shared")
    assert '"data":0' in (await staying).text
    assert (begun["shared"], cancelled["shared"]) == (1, 0)


@pytest.mark.parametrize("batch", [False, True])
async def test_a_plain_call_goes_on_and_its_result_is_kept(client: httpx.AsyncClient, batch: bool) -> None:
    """Whoever asks next has it, without another computation."""
    url = asked("steps.slow", {"door": "plain"}, batch=batch)
    await leave(client, "GET", url, "plain")
    open_door("plain")
    await until(lambda: ended["plain"] == 1)
    assert (await client.get(url)).status_code == 200
    assert (begun["plain"], cancelled["plain"]) == (1, 0)


@pytest.mark.parametrize("headers", [ADA, LINES])
async def test_a_mutation_is_made_to_its_end(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Whoever asked for it is gone, and nobody knows what they will believe; but half of it is never there."""
    body = {"0": {"door": "mutation"}}
    await leave(client, "POST", "/trpc/steps.slow_add?batch=1", "mutation", headers=headers, json=body)
    open_door("mutation")
    await until(lambda: ended["mutation"] == 1)
    assert cancelled["mutation"] == 0
