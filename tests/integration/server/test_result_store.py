"""Two applications on one SQLite file that share results through a store of the application's own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, Login, ReactiveRPC, ResultStore, Settings, define_reactive_function
from reactive_rpc.errors import DefinitionError
from tests.support.result_stores import DictStore, Shelves
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class Sheet(Base, table=True):
    __tablename__ = "stored_sheet"

    id: int | None = Field(default=None, primary_key=True)
    folder: str


runs: list[str] = []


@define_reactive_function
async def count(db: AsyncSession, ctx: Login, folder: str) -> int:
    """How many sheets there are in a folder, and a note that the handler has run."""
    runs.append(f"{ctx.identity} {folder}")
    return len((await db.exec(select(Sheet).where(Sheet.folder == folder))).all())


def who() -> Login:
    return Login()


def rpc_of(file: Path, store: Any, *, build: str = "b1", **options: Any) -> ReactiveRPC[Login]:
    return ReactiveRPC(
        f"sqlite+aiosqlite:///{file}",
        functions={"sheets": {"count": count}},
        context=who,
        metadata=Base.metadata,
        store=store,
        settings=Settings(build=build),
        **options,
    )


@asynccontextmanager
async def opened(file: Path, store: ResultStore, *, build: str = "b1") -> AsyncIterator[ReactiveRPC[Login]]:
    rpc = rpc_of(file, store, build=build)
    await rpc.admin.open()
    try:
        yield rpc
    finally:
        await rpc.admin.aclose()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    runs.clear()
    return tmp_path / "sheets.db"


def write(file: Path, folder: str) -> None:
    """Write as somebody who knows nothing of us."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO stored_sheet (folder) VALUES (?)", [folder])


async def test_a_handler_runs_once_for_two_applications(file: Path) -> None:
    """Until somebody writes what its result rests on; each identity has its own."""
    shelves = Shelves()
    async with opened(file, DictStore(shelves)) as one, opened(file, DictStore(shelves)) as other:
        ada = Login(identity="ada")
        assert await one.caller(ada)(count, folder="a") == 0
        await until(lambda: len(shelves.results) == 1)
        write(file, "b")
        assert await other.caller(ada)(count, folder="a") == 0
        assert runs == ["ada a"]
        assert await other.caller(Login(identity="bob"))(count, folder="a") == 0
        write(file, "a")
        assert [await rpc.caller(ada)(count, folder="a") for rpc in (other, one)] == [1, 1]
        assert runs[:3] == ["ada a", "bob a", "ada a"]
        assert (one.admin.stats()["shared_puts"], other.admin.stats()["shared_hits"]) == (
            1 + runs[3:].count("ada a"),
            1,
        )


async def test_another_build_takes_nothing(file: Path) -> None:
    """Its handlers may answer otherwise."""
    shelves = Shelves()
    async with opened(file, DictStore(shelves)) as one, opened(file, DictStore(shelves), build="b2") as other:
        for rpc in (one, other):
            assert await rpc.caller(Login(identity="ada"))(count, folder="a") == 0
            await until(lambda: bool(shelves.results))
        assert len(runs) == 2


async def test_a_store_that_does_not_open_is_done_without(file: Path) -> None:
    """The server starts, and answers."""

    class Gone(DictStore):
        async def open(self) -> None:
            raise OSError("no such host")

    async with opened(file, Gone(Shelves())) as rpc:
        assert await rpc.caller(Login(identity="ada"))(count, folder="a") == 0


@pytest.mark.parametrize(
    ("store", "options", "fault"),
    [
        ("redis://cache:6379/0", {}, "is no store of results: give an object with open, aclose, find and put"),
        (DictStore, {}, "is no store of results"),
        (DictStore(Shelves()), {"build": ""}, "REACTIVE_RPC_BUILD"),
        (DictStore(Shelves()), {"capture": Capture(mode="session")}, "each process knows of its own writes alone"),
    ],
)
def test_a_store_that_is_of_no_use_is_refused(file: Path, store: Any, options: Any, fault: str) -> None:
    """At the start, with the way out."""
    with pytest.raises(DefinitionError, match=fault):
        rpc_of(file, store, **options)
