"""The servers that are compared: each answers the same bytes, under the same uvicorn."""

from __future__ import annotations

import os
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, Header, Response
from pydantic import BaseModel
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Context, Login, ReactiveRPC, define_reactive_function

BODY = b'[{"id":1,"room":"a","text":"' + b"x" * 300 + b'"}]'


FOUND = {"a": BODY}


class Note(SQLModel, table=True):
    """A row to read."""

    id: int | None = Field(default=None, primary_key=True)
    room: str = Field(index=True)
    text: str


class Room(BaseModel):
    """Which notes."""

    room: str


@define_reactive_function(public=True)
async def get_all(db: AsyncSession, input: Room) -> list[Note]:
    """Return the notes of a room."""
    return list((await db.exec(select(Note).where(Note.room == input.room))).all())


@define_reactive_function
async def get_mine(db: AsyncSession, ctx: Login, input: Room) -> list[Note]:
    """Return the notes of a room, for one caller."""
    return list((await db.exec(select(Note).where(Note.room == input.room))).all())


async def context(authorization: Annotated[str, Header()] = "") -> Login:
    """Stand for a login check that costs nothing but FastAPI's own work."""
    return Login(identity=authorization, tenant="t")


async def reader_of(db: AsyncSession, authorization: Annotated[str, Header()] = "") -> Login:
    """Find out who calls by reading the database."""
    await db.exec(select(Note.id).where(Note.room == authorization))
    return Login(identity=authorization, tenant="t")


async def is_reader(ctx: Login, db: AsyncSession) -> None:
    """Decide by rows whether a caller may read."""
    await db.exec(select(Note.id).where(Note.room == ctx.tenant))


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as uvicorn allows at best."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def finding(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer the same bytes as the least that an application does: it finds them by its query string."""
    if scope["type"] == "lifespan":
        await bare(scope, receive, send)
        return
    body = FOUND[parse_qs(scope["query_string"].decode())["room"][0]]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


plain = FastAPI()


@plain.get("/notes")
async def notes(room: str, _: Annotated[Context, Depends(context)]) -> Response:
    """Answer the same bytes from an ordinary route, with no cache and no database at all."""
    return Response(BODY, media_type="application/json")


rpc = ReactiveRPC(
    f"sqlite+aiosqlite:///{os.environ.get('BENCH_DATABASE', 'bench.db')}",
    functions={
        "notes": {
            "get_all": get_all,
            "get_mine": get_mine,
            "get_by_query": define_reactive_function.context(reader_of).query(get_mine.function),
            "get_by_step": define_reactive_function.use(is_reader).query(get_mine.function),
        }
    },
    context=context,
    metadata=SQLModel.metadata,
)
reactive = FastAPI(lifespan=rpc.lifespan)
reactive.include_router(rpc.router)

unwatched = FastAPI(lifespan=rpc.lifespan, telemetry={"tracing": False, "metrics": False, "logs": False})
unwatched.include_router(rpc.router)
"""The same without the look for OpenTelemetry's providers that FastAPI makes for each request."""
