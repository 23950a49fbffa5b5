"""Mutations under each isolation level on PostgreSQL, interleaved in one run: `python -m benchmarks.isolation`.

Each case is one shape of load, called in this process by as many callers at once as there are connections; the level
that a round begins with changes from round to round. What is printed is calls a second, the ratio to `read_committed`,
and how many attempts each call took. The server does not wait for the disk, so what a level costs shows at its largest.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from typing import Any, Final

import psycopg
from pydantic import BaseModel
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ConflictError, ReactiveRPC, Settings, define_reactive_function
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server

__all__ = ["run"]

LEVELS: Final = ("read_committed", "repeatable_read", "serializable")
CALLERS: Final = 10
CALLS: Final = 60
ROUNDS: Final = 24


class BenchCounter(SQLModel, table=True):
    """A row that is read, and written back."""

    id: int | None = Field(default=None, primary_key=True)
    n: int = 0


class CounterId(BaseModel):
    """Which row."""

    id: int


@define_reactive_function.mutation
async def increment(db: AsyncSession, input: CounterId) -> int:
    """Read, add, write back."""
    counter = await db.get_one(BenchCounter, input.id)
    counter.n += 1
    return counter.n


@define_reactive_function.mutation
async def insert(db: AsyncSession) -> bool:
    """Write a row and read none."""
    db.add(BenchCounter())
    return True


def _server(server: PostgreSQLServer, driver: str, level: str, rows: int) -> ReactiveRPC:
    rpc = ReactiveRPC(
        server.new_database(driver=driver),
        functions={"counters": {"increment": increment, "insert": insert}},
        metadata=SQLModel.metadata,
        settings=Settings.model_validate({"isolation": level, "pool_size": CALLERS, "pool_timeout_seconds": 60}),
    )
    rpc._database.create_tables(SQLModel.metadata)
    url = rpc._database.name.replace("+asyncpg", "").replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO benchcounter SELECT g, 0 FROM generate_series(1, %s) AS g", [rows])
        connection.execute("SELECT setval('benchcounter_id_seq', %s)", [rows])
        connection.execute("ANALYZE benchcounter")
    return rpc


async def _round(rpc: ReactiveRPC, path: str, rows: int) -> tuple[float, int]:
    """Return calls a second, and how many were given up."""
    numbers, refused = iter(range(CALLS)), 0

    async def work() -> None:
        nonlocal refused
        for number in numbers:
            input: dict[str, Any] = {} if path == "insert" else {"id": number % rows + 1}
            try:
                await rpc.admin.try_call(f"counters.{path}", input, None)
            except ConflictError:
                refused += 1

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CALLERS)))
    return CALLS / (time.perf_counter() - started), refused


async def _case(server: PostgreSQLServer, title: str, driver: str, path: str, rows: int) -> None:
    servers = {level: _server(server, driver, level, rows) for level in LEVELS}
    rates: defaultdict[str, list[float]] = defaultdict(list)
    refused: defaultdict[str, int] = defaultdict(int)
    for rpc in servers.values():
        await rpc.admin.open()
        await _round(rpc, path, rows)
    for number in range(ROUNDS):
        for level in LEVELS[number % 3 :] + LEVELS[: number % 3]:
            rate, lost = await _round(servers[level], path, rows)
            rates[level].append(rate)
            refused[level] += lost
    for level, rpc in servers.items():
        median = statistics.median(rates[level])
        ratio = median / statistics.median(rates[LEVELS[0]])
        attempts = 1 + rpc.admin.stats()["mutations_repeated"] / (CALLS * (ROUNDS + 1))
        print(f"{title:<44} {level:<16} {median:7.0f}/s {ratio:5.2f} {attempts:6.2f} attempts {refused[level]} refused")
        await rpc.admin.aclose()


async def _all(server: PostgreSQLServer) -> None:
    for driver in ("postgresql+asyncpg", "postgresql+psycopg"):
        name = driver.partition("+")[2]
        await _case(server, f"{name}: insert", driver, "insert", 1)
        await _case(server, f"{name}: increment, one of 10,000 rows", driver, "increment", 10_000)
        await _case(server, f"{name}: increment, one of 30 rows", driver, "increment", 30)
        await _case(server, f"{name}: increment, all the same row", driver, "increment", 1)


def run() -> None:
    """Measure and print."""
    with postgresql_server() as server:
        asyncio.run(_all(server))


if __name__ == "__main__":
    run()
