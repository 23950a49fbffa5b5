"""Where an option comes from: the settings, over them the definer's defaults, over these the decorator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, define_reactive_function
from reactive_rpc.procedures.cache_options import FreshnessMode
from reactive_rpc.statements.isolation import Isolation

from . import postgresql_rooms
from .rooms import Note, serving

pytestmark = pytest.mark.anyio

BARE: Any = define_reactive_function


def options_of(name: str, value: object) -> dict[str, Any]:
    """Return an option as keyword arguments; none if nobody sets it."""
    return {} if value is None else {name: value}


@pytest.mark.parametrize(
    ("settings", "definer", "decorator", "expected"),
    [
        (None, None, None, "strict"),
        ("token", None, None, "token"),
        ("strict", "token", None, "token"),
        ("token", "strict", None, "strict"),
        ("strict", "strict", "token", "token"),
        ("token", "token", "strict", "strict"),
    ],
)
async def test_the_nearest_freshness_counts(
    file: Path,
    settings: FreshnessMode | None,
    definer: FreshnessMode | None,
    decorator: FreshnessMode | None,
    expected: FreshnessMode,
) -> None:
    """A hit looks at the log if that is `strict`, and does not if it is `token`."""
    own = BARE if definer is None else BARE.defaults(query={"cache": Cache(freshness=definer)})

    async def read(db: AsyncSession) -> list[Note]:
        return list((await db.exec(select(Note))).all())

    function = own.query(**options_of("cache", decorator and Cache(freshness=decorator)))(read)
    seldom = {"poll_interval_seconds": 3600.0, **options_of("freshness", settings)}
    async with serving(file, {"notes": {"read": function}}, settings=seldom) as server:
        await server.call("notes.read")
        polls = server.rpc.admin.stats()["log_polls"]
        await server.call("notes.read")
        assert server.rpc.admin.stats()["log_polls"] - polls == (1 if expected == "strict" else 0)
        assert server.rpc.admin.stats()["hits"] == 1


@pytest.mark.parametrize("decorator", [Cache(), Cache(push="result")])
async def test_a_cache_is_one_value(file: Path, decorator: Cache) -> None:
    """The decorator's takes the place of all of the definer's: what it leaves out is as the settings say."""
    own = define_reactive_function.defaults(query={"cache": Cache(freshness="token")})

    @own.query(cache=decorator)
    async def read(db: AsyncSession) -> list[Note]:
        return list((await db.exec(select(Note))).all())

    async with serving(file, {"notes": {"read": read}}, settings={"poll_interval_seconds": 3600.0}) as server:
        await server.call("notes.read")
        polls = server.rpc.admin.stats()["log_polls"]
        await server.call("notes.read")
        assert server.rpc.admin.stats()["log_polls"] == polls + 1


@pytest.mark.parametrize(
    ("settings", "definer", "decorator", "expected"),
    [
        (None, None, None, "serializable"),
        ("read_committed", None, None, "read committed"),
        ("read_committed", "repeatable_read", None, "repeatable read"),
        ("read_committed", "repeatable_read", "serializable", "serializable"),
        ("serializable", None, "read_committed", "read committed"),
    ],
)
async def test_the_nearest_isolation_counts(
    postgresql_url: str,
    settings: Isolation | None,
    definer: Isolation | None,
    decorator: Isolation | None,
    expected: str,
) -> None:
    """The transaction of a mutation has it, as PostgreSQL says."""
    own = BARE if definer is None else BARE.defaults(mutation={"isolation": definer})

    async def level(db: AsyncSession) -> str:
        return str(await db.scalar(text("SHOW transaction_isolation")))

    function = own.mutation(**options_of("isolation", decorator))(level)
    options = options_of("isolation", settings)
    async with postgresql_rooms.serving(postgresql_url, {"test": {"level": function}}, settings=options) as server:
        assert await server.answer("test.level") == expected
