"""The private names of aiosqlite still mean what `compat/aiosqlite.py` says."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

from sqlalchemy.ext.asyncio import create_async_engine

from reactive_rpc.compat.aiosqlite import run_in_driver


def test_work_runs_in_the_thread_of_aiosqlite() -> None:
    """It is given the driver's own connection, in the thread that this one belongs to."""

    async def main() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()

            def work(found: sqlite3.Connection, number: int) -> tuple[str, int]:
                (row,) = found.execute("SELECT ?", [number])
                return threading.current_thread().name, row[0]

            thread, number = await connection.run_sync(
                lambda _: run_in_driver(raw.dbapi_connection, work, 5),
            )
            assert number == 5
            assert thread != threading.current_thread().name
        await engine.dispose()

    asyncio.run(main())
