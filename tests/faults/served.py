"""The application as a process of its own: `FAULTS_URL=... uvicorn tests.faults.served:app`, `reactive-rpc relay
tests.faults.served:rpc`.

`FAULTS_BUG` puts a bug in, for the suite to find:

- `drop`: the hub does not hear of one in four invalidated results,
- `resume`: whoever resumes by cursor is told that nothing has happened since.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import count
from typing import Any

from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, ReactiveRPC, define_reactive_function
from tests.support.accounts import METADATA, Account
from tests.support.waiting import idle

from .queries import Above, Group

PAUSE_SECONDS = 0.005


@define_reactive_function
async def of_group(db: AsyncSession, input: Group) -> dict[int, int]:
    """Return `{id: n}`, by two statements with a pause between, so that writes overtake it."""
    await db.exec(select(Account.id).where(Account.g == input.g).limit(1))
    await idle(random.random() * PAUSE_SECONDS, because="writes are to come between the two statements")
    return {account.id: account.n for account in await db.exec(select(Account).where(Account.g == input.g))}


@define_reactive_function(cache=Cache(push="result"))
async def pushed(db: AsyncSession, input: Group) -> dict[int, int]:
    """Return what `of_group` does; streams are sent the result itself."""
    return {account.id: account.n for account in await db.exec(select(Account).where(Account.g == input.g))}


@define_reactive_function
async def above(db: AsyncSession, input: Above) -> dict[int, int]:
    """Return `{id: n}` of a range."""
    return {account.id: account.n for account in await db.exec(select(Account).where(Account.id >= input.id))}


def sabotage(rpc: Any, bug: str) -> None:
    """Put a bug in."""
    if bug == "drop":
        hear, numbers = rpc._hub._reconciler.on_invalidated, count()

        def forgetful(invalidated: Any) -> None:
            kept = {entry: tables for entry, tables in invalidated.results.items() if next(numbers) % 4}
            hear(replace(invalidated, results=kept))

        observers = rpc._reader.invalidations._observers
        observers[observers.index(hear)] = forgetful
    if bug == "resume":

        async def read_nothing(cursor: object, *, at_most: object = None) -> tuple[()]:
            return ()

        rpc._log.read_after = read_nothing


rpc = ReactiveRPC(
    os.environ.get("FAULTS_URL", "sqlite+aiosqlite:///faults.db"),
    functions={"accounts": {"of_group": of_group, "pushed": pushed, "above": above}},
    metadata=METADATA,
)
sabotage(rpc, os.environ.get("FAULTS_BUG", ""))
app = FastAPI(lifespan=rpc.lifespan)
app.include_router(rpc.router)
