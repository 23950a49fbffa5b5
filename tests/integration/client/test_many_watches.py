"""More watches than one stream may carry, against the real server: all are live, and stay right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.client import AsyncClient, Procedure, Watch
from reactive_rpc.testing import running
from tests.support.waiting import until

from .teamhub import play


class Base(SQLModel, registry=registry()):
    """Keeps this table out of the metadata that all of a test run's modules share."""


class Counter(Base, table=True):
    id: int = Field(primary_key=True)
    n: int = 0


class CountInput(BaseModel):
    """A counter, and a text that only takes room."""

    id: int
    text: str = ""


@define_reactive_function
async def count(db: AsyncSession, input: CountInput) -> int:
    """Return a counter."""
    return (await db.exec(select(Counter.n).where(Counter.id == input.id))).one()


COUNT: Procedure[int] = Procedure(
    path="counters.count", url="/rpc/counters.count", method="POST", input=CountInput, output=int
)


@contextmanager
def served(folder: Path, counters: int, **settings: int) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Serve so many counters; give the URL, and what adds one to a counter."""
    path = folder / "counters.db"
    rpc = ReactiveRPC(
        f"sqlite+aiosqlite:///{path}",
        functions={"counters": {"count": count}},
        metadata=Counter.metadata,
        settings=Settings(**settings),  # type: ignore[arg-type]  # all of these are whole numbers
    )
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    def execute(statement: str, *rows: tuple[int]) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            connection.executemany(statement, rows)

    with running(app) as url:
        execute("INSERT INTO counter(id, n) VALUES (?, 0)", *((id,) for id in range(counters)))
        yield url, lambda id: execute("UPDATE counter SET n = n + 1 WHERE id = ?", (id,))


@pytest.mark.parametrize(
    ("counters", "text", "settings"),
    [
        (1100, "", {}),
        (300, "x" * 4000, {}),
        (60, "", {"max_queries_per_stream": 8}),
        (60, "x" * 400, {"max_body_bytes": 8000}),
    ],
)
def test_all_are_live(tmp_path: Path, counters: int, text: str, settings: dict[str, int]) -> None:
    """By number and by size, with the limits of the server as they are and lower: each watch is fresh, and follows."""

    async def scenario(url: str, add: Callable[[int], None]) -> None:
        async with AsyncClient(url, timeout_seconds=60) as client, AsyncExitStack() as stack:
            watches: list[Watch[int]] = [
                await stack.enter_async_context(client.watch(COUNT, {"id": id, "text": text})) for id in range(counters)
            ]
            await until(lambda: not any(watch.state.is_stale for watch in watches))
            for id in (0, counters // 2, counters - 1):
                add(id)
                await until(lambda: watches[id].state.data == 1 and not watches[id].state.is_stale)  # noqa: B023
            assert not [watch.state.error for watch in watches if watch.state.error]

    with served(tmp_path, counters, **settings) as (url, add):
        play(lambda: scenario(url, add))
