"""Random writes through random means: what an application does, and what it knows nothing of."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError

from reactive_rpc import RPCError
from reactive_rpc.procedures.caller import BoundCaller
from tests.support.processes import ROOT

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


class OtherProcess:
    """`other_process.py`, running."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "tests.integration.soundness.other_process", str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def write(self, seed: str) -> None:
        """Return when the other process has committed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError("the other process has died")

    def close(self) -> None:
        """End it."""
        self._process.communicate()


async def write_by(means: str, seed: str, caller: BoundCaller, engines: dict[str, Engine], other: OtherProcess) -> None:
    """Write by one of `mutation`, `process`, or a plain engine of `engines`, off the event loop but for the first."""
    if means == "mutation":
        with suppress(RPCError):
            await caller("generated.write", seed=seed)
    elif means == "process":
        await asyncio.to_thread(other.write, seed)
    else:
        await asyncio.to_thread(write_seed, engines[means], seed)
