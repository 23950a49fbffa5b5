"""Random writes through random means: what an application does, and what it knows nothing of."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError

from reactive_rpc import RPCError
from tests.support.calls import CallByPath
from tests.support.processes import Conversation

from .generator import Generator

__all__ = ["OtherProcess", "plain_engine", "write_by", "write_seed"]


def plain_engine(path: str | Path, *, foreign_keys: bool = True) -> Engine:
    """Return an engine that knows nothing of the project: default pragmas, but for foreign keys where asked for."""
    engine = create_engine(f"sqlite:///{path}", enable_from_linting=False)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        connection.execute("PRAGMA synchronous=OFF")

    return engine


def write_seed(engine: Engine, seed: str) -> None:
    """Commit the write that `seed` stands for; a violated constraint writes nothing."""
    with suppress(IntegrityError), engine.begin() as connection:
        Generator(random.Random(f"write {seed}")).write()(connection)


class OtherProcess(Conversation):
    """`other_process.py`, running."""

    def __init__(self, path: Path) -> None:
        super().__init__("-m", "tests.integration.soundness.other_process", str(path))

    def write(self, seed: str) -> None:
        """Return when the other process has committed."""
        self.send(seed)
        assert self.receive() == "done"


async def write_by(
    means: str,
    seed: str,
    caller: CallByPath,
    engines: dict[str, Engine],
    other: OtherProcess,
) -> None:
    """Write by one of `mutation`, `process`, or a plain engine of `engines`, off the event loop but for the first."""
    if means == "mutation":
        with suppress(RPCError):
            await caller("generated.write", seed=seed)
    elif means == "process":
        await asyncio.to_thread(other.write, seed)
    else:
        await asyncio.to_thread(write_seed, engines[means], seed)
