"""The application as a process of its own: `ROOMS_DB=... uvicorn --factory server.served_rooms:make_app`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import define_reactive_function

from .rooms import ROOMS, InRoom, app_of, in_room, rpc_on


@define_reactive_function
async def slowly(input: InRoom, db: AsyncSession) -> str:
    """Answer with 20 MB, after a while."""
    await asyncio.sleep(0.2)
    return "x" * 20_000_000


def make_app() -> FastAPI:
    """Return the application on the file that `ROOMS_DB` names."""
    return app_of(rpc_on(Path(os.environ["ROOMS_DB"]), {**ROOMS, "slow": {"slowly": slowly, "in_room": in_room}}))
