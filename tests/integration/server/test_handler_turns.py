"""Handlers that are coroutines and handlers that are not, in one worker: neither starves while the others keep on."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function
from reactive_rpc.statements import fair_lock
from reactive_rpc.statements.fair_lock import FairLock
from tests.support.waiting import until

from . import postgresql_rooms, rooms
from .rooms import Note, Opened

pytestmark = pytest.mark.anyio

CALLERS = 8
TURNS = 10
WRITERS = 24
PATIENCE = {"busy_timeout_seconds": 60.0, "pool_timeout_seconds": 60.0}
AHEAD = 5 * CALLERS
"""How many calls of the many may be answered, on average, while one of the few is: those that stood before it in the
line are CALLERS at most, and it needs some steps to get into the line and from there to its answer."""


class Numbered(BaseModel):
    n: int


@define_reactive_function
async def read(db: AsyncSession, input: Numbered) -> int:
    return len((await db.exec(select(Note).where(Note.room == str(input.n)))).all())


@define_reactive_function
def read_sync(db: Session, input: Numbered) -> int:
    return len(db.exec(select(Note).where(Note.room == str(input.n))).all())


@define_reactive_function.mutation
async def write(db: AsyncSession, input: Numbered) -> None:
    db.add(Note(room="a", text=str(input.n)))


@define_reactive_function.mutation
def write_sync(db: Session, input: Numbered) -> None:
    db.add(Note(room="a", text=str(input.n)))


KINDS: Mapping[str, Any] = {"read": read, "read_sync": read_sync, "write": write, "write_sync": write_sync}
FUNCTIONS: Mapping[str, Any] = {"turns": KINDS}


@asynccontextmanager
async def served(request: pytest.FixtureRequest, backend: str, folder: Path) -> AsyncIterator[Opened]:
    """Serve the handlers on a database, patient enough for a machine that does other work too."""
    if backend == "sqlite":
        async with rooms.serving(folder / "rooms.db", FUNCTIONS, settings=PATIENCE) as opened:
            yield opened
    else:
        url = request.getfixturevalue("postgresql_url")
        async with postgresql_rooms.serving(url, FUNCTIONS, settings=PATIENCE) as opened:
            yield opened


async def answered_meanwhile(opened: Opened, few: str, many: str) -> int:
    """Call `few` again and again while several callers keep calling `many`; return how many of these were answered."""
    numbers, answered, is_over = count(), 0, False

    async def call(path: str) -> None:
        answer = await opened.call(f"turns.{path}", {"n": next(numbers)})
        assert answer.status_code == 200, answer.text

    async def keep_calling() -> None:
        nonlocal answered
        while not is_over:
            await call(many)
            answered += 1

    callers = [asyncio.create_task(keep_calling()) for _ in range(CALLERS)]
    try:
        await until(lambda: answered >= CALLERS)
        before = answered
        for _ in range(TURNS):
            await call(few)
        return answered - before
    finally:
        is_over = True  # not cancelled: a thread would go on
        await asyncio.gather(*callers)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("few", "many"), [(few, many) for few in KINDS for many in KINDS if few != many])
async def test_a_handler_of_either_kind_keeps_its_turn_beside_the_other(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, few: str, many: str
) -> None:
    """One caller of the few is answered again and again while the many never pause, whatever the machine's speed."""
    async with served(request, backend, tmp_path) as opened:
        assert await answered_meanwhile(opened, few, many) <= TURNS * AHEAD


async def written_in_turn(opened: rooms.Server, seed: int) -> tuple[list[int], list[int]]:
    """Have mutations of both kinds ask for the write lock while somebody has it; return who asked, and who wrote."""
    rng, asked = random.Random(seed), list(range(WRITERS))
    calls = []
    lock = opened.rpc._database._write_lock
    assert isinstance(lock, FairLock)
    async with lock:
        for number in asked:
            path = rng.choice(["turns.write", "turns.write_sync"])
            calls.append(asyncio.create_task(opened.call(path, {"n": number})))
            await until(lambda waiting=number + 1: len(lock._waiting) == waiting)  # type: ignore[misc]  # bound now
    assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200] * WRITERS
    return asked, [int(text) for (text,) in opened.rows("SELECT text FROM note ORDER BY id")]


@pytest.mark.parametrize("seed", range(3))
async def test_all_who_write_on_sqlite_stand_in_one_line(tmp_path: Path, seed: int) -> None:
    """Only one can write at a time, so whoever asks first writes first, coroutine or not."""
    async with rooms.serving(tmp_path / "rooms.db", FUNCTIONS, settings=PATIENCE) as opened:
        asked, wrote = await written_in_turn(opened, seed)
        assert wrote == asked


@pytest.mark.seeded_bug
async def test_a_lock_that_goes_to_whoever_asked_last_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who came first would wait for as long as others come."""
    monkeypatch.setattr(fair_lock, "deque", Stack)
    with pytest.raises(AssertionError):
        await test_all_who_write_on_sqlite_stand_in_one_line(tmp_path, 0)


class Stack(deque[Any]):
    """Gives what came last."""

    def popleft(self) -> Any:
        return self.pop()
