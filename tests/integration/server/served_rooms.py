"""The application as a process of its own.

`ROOMS_DB=... uvicorn --factory tests.integration.server.served_rooms:make_app`
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_rpc import define_reactive_function
from tests.support.waiting import idle

from .rooms import ROOMS, InRoom, app_of, in_room, rpc_on


@define_reactive_function
async def slowly(db: AsyncSession, input: InRoom) -> str:
    """Answer with 20 MB, after a while."""
    await idle(0.2, because="clients may go away before the answer begins")
    return "x" * 20_000_000


class Dying:
    """Kills this process when an answer to a request with the header `x-die` is to be sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def die(message: Message) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        dies = any(name == b"x-die" for name, _ in scope.get("headers", ()))
        await self._app(scope, receive, die if dies else send)


def make_app() -> FastAPI:
    """Return the application on the file that `ROOMS_DB` names."""
    app = app_of(rpc_on(Path(os.environ["ROOMS_DB"]), {**ROOMS, "slow": {"slowly": slowly, "in_room": in_room}}))
    app.add_middleware(Dying)
    return app
