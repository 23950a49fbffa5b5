"""The application as a process of its own: `RACES_URL=... uvicorn --factory tests.integration.races.served:make_app`.

`RACES_NAIVE=1` takes the reader protocol out: hits are not validated, and results that writes have overtaken are kept.
A mutation may name the place where its process is to be killed, see `Crash`.
"""

from __future__ import annotations

import os
import random
import signal
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, define_reactive_function
from reactive_rpc.settings import Settings
from tests.support.accounts import METADATA, Account
from tests.support.waiting import idle

from .places import Crash

PAUSE_SECONDS = 0.02
OVERTAKEN = "writes are to come between the statements, and before the answer"


class Group(BaseModel):
    """Which accounts."""

    g: int


class Addition(BaseModel):
    """Which account, and where to die."""

    id: int
    crash: Crash | None = None


_crash: Crash | None = None


def die(at: Crash) -> None:
    """Kill this process where that was asked for."""
    if _crash == at:
        os.kill(os.getpid(), signal.SIGKILL)


@define_reactive_function
async def of_group(db: AsyncSession, input: Group) -> dict[int, int]:
    """Return `{id: n}`; slowly, so that writes overtake it."""
    await db.exec(select(Account.id).where(Account.g == input.g).limit(1))
    await idle(random.random() * PAUSE_SECONDS, because=OVERTAKEN)
    found = await db.exec(select(Account).where(Account.g == input.g))
    counters = {account.id: account.n for account in found}
    await idle(random.random() * PAUSE_SECONDS, because=OVERTAKEN)
    return counters


@define_reactive_function.mutation
async def add(db: AsyncSession, input: Addition) -> int:
    """Count one up and return the new value."""
    global _crash  # noqa: PLW0603
    account = (await db.exec(select(Account).where(Account.id == input.id).with_for_update())).one()
    account.n += 1
    await db.flush()
    _crash = input.crash
    die("before_commit")
    return account.n


class Naive:
    """A log whose reader believes whatever it knows already."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def sync_to_head(self) -> int:
        """Look at nothing."""
        return int(self._log.version)

    sync_to_head_for_server = sync_to_head

    def changes_since(self, version: int) -> tuple[()]:
        """Know of nothing."""
        return ()


def sabotage(rpc: Any) -> None:
    """Put the places in where the process may die, and take the protocol out where that is asked for."""
    mutate, apply, keep = rpc._executor.mutate, rpc._reader.apply, rpc._reader._live.add

    async def mutate_and_die(*arguments: Any, **options: Any) -> Any:
        ran = await mutate(*arguments, **options)
        die("after_commit")
        return ran

    def apply_or_die(batch: Any) -> None:
        die("applying")
        apply(batch)

    def keep_or_die(entry: Any) -> None:
        die("storing")
        keep(entry)

    rpc._executor.mutate = mutate_and_die
    rpc._reader._live.add = keep_or_die
    rpc._log._appliers = [apply_or_die]
    if os.environ.get("RACES_NAIVE"):
        rpc._reader._log = rpc._reader.matcher._log = Naive(rpc._log)


def make_app() -> FastAPI:
    """Return the application on the database that `RACES_URL` names."""
    rpc = ReactiveRPC(
        os.environ["RACES_URL"],
        functions={"accounts": {"of_group": of_group, "add": add}},
        metadata=METADATA,
        settings=Settings(environment="production"),
    )
    sabotage(rpc)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return app
