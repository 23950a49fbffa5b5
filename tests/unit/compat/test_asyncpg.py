"""The private names of asyncpg still mean what `compat/asyncpg.py` says."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy import make_url

from reactive_rpc.compat.asyncpg import TypeLookups


def test_look_ups_of_types_are_told(postgresql_url: str) -> None:
    """asyncpg looks up a type of the database's own by the method that is overridden."""
    looked: list[str] = []

    class Notified(TypeLookups):
        async def look_up_types(self, look_up: Any) -> Any:
            looked.append("look-up")
            return await look_up()

    async def main() -> None:
        url = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(url, connection_class=Notified)
        await connection.execute("CREATE TYPE pair AS (a int, b int)")
        assert await connection.fetchval("SELECT ROW(1, 2)::pair") == (1, 2)
        await connection.close()

    asyncio.run(main())
    assert looked
