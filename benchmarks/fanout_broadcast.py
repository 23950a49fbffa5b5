"""The plain peer: FastAPI and sse-starlette, a queue for each client, as their documentation shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse

app = FastAPI()
queues: set[asyncio.Queue[str]] = set()


@app.get("/events")
async def events() -> EventSourceResponse:
    """Stream whatever is published; no pings, as the server under test sends none."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)

    async def stream() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"event": "connected", "data": "{}"}
            while True:
                yield {"event": "invalidation", "data": await queue.get()}
        finally:
            queues.discard(queue)

    return EventSourceResponse(stream(), ping=0)


@app.post("/publish")
async def publish(request: Request) -> dict[str, int]:
    """Put the body into every queue."""
    data = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(data)
    return {"clients": len(queues)}
