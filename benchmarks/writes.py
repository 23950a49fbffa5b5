"""One-row writes through SQLAlchemy's async session, with capture and without, turn and turn about."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from sqlalchemy import event, make_url, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlmodel import SQLModel, create_engine

from benchmarks.servers import Note
from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.sqlite.capture.backend import SQLiteCapture
from reactive_rpc.clock import RandomIds
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server


def _prepare_file(path: Path, *, captured: bool, synchronous: str) -> AsyncEngine:
    plain = create_engine(f"sqlite:///{path}")
    with plain.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    SQLModel.metadata.create_all(plain)
    plain.dispose()
    if captured:
        SQLiteCapture(path, ids=RandomIds()).install()
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # any DBAPI connection has one
        cursor.execute("PRAGMA recursive_triggers=ON")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.close()

    return engine


def _prepare_server(server: PostgreSQLServer, *, captured: bool) -> AsyncEngine:
    url = make_url(server.new_database())
    plain = create_engine(url.set(drivername="postgresql+psycopg"))
    SQLModel.metadata.create_all(plain)
    plain.dispose()
    if captured:
        PostgreSQLCapture(url, ids=RandomIds()).install()
    return create_async_engine(url)


async def _inserts(engine: AsyncEngine, rows: int) -> float:
    started = time.perf_counter()
    for n in range(rows):
        async with AsyncSession(engine) as session:
            session.add(Note(room=f"r{n % 50}", text="some words"))
            await session.commit()
    return rows / (time.perf_counter() - started)


async def _updates(engine: AsyncEngine, rows: int) -> float:
    started = time.perf_counter()
    for n in range(rows):
        async with AsyncSession(engine) as session:
            await session.execute(update(Note).where(Note.id == n % 50 + 1).values(text=f"other words {n}"))  # type: ignore[arg-type]
            await session.commit()
    return rows / (time.perf_counter() - started)


async def measure(plain: AsyncEngine, captured: AsyncEngine, *, rounds: int, rows: int) -> dict[str, float]:
    """Return `{kind of write: median of the captured throughput over the plain one of the same round}`."""
    shares: dict[str, list[float]] = {"insert": [], "update": []}
    for number in range(rounds):
        for kind, write in (("insert", _inserts), ("update", _updates)):
            order = [plain, captured] if number % 2 else [captured, plain]
            found = {id(engine): await write(engine, rows) for engine in order}
            shares[kind].append(found[id(captured)] / found[id(plain)])
    await plain.dispose()
    await captured.dispose()
    return {kind: statistics.median(values) for kind, values in shares.items()}


def run(folder: Path, *, rounds: int = 7, rows: int = 300) -> None:
    """Measure and print."""
    print("One-row writes through SQLAlchemy async, share of the same writes without capture:")

    def print_shares(where: str, plain: AsyncEngine, captured: AsyncEngine) -> None:
        for kind, share in asyncio.run(measure(plain, captured, rounds=rounds, rows=rows)).items():
            print(f"  {kind}, {where:34} {share:5.2f}")

    for synchronous in ("FULL", "OFF"):
        files = [
            _prepare_file(folder / f"{captured}-{synchronous}.db", captured=captured, synchronous=synchronous)
            for captured in (False, True)
        ]
        print_shares(f"SQLite, synchronous={synchronous}", *files)
    for durable in (True, False):
        with postgresql_server(durable=durable) as server:
            databases = [_prepare_server(server, captured=captured) for captured in (False, True)]
            print_shares(f"PostgreSQL, {'waiting' if durable else 'not waiting'} for the disk", *databases)
