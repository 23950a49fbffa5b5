"""Spans of calls, as FastAPI's own telemetry makes them with OpenTelemetry's SDK: named by route, and with errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc import ReactiveRPC
from reactive_rpc.testing import running
from tests.support.waiting import wait_until

from .rooms import opened, rpc_on
from .streams import heard, in_rooms

pytestmark = pytest.mark.anyio


class Traced:
    """An application's telemetry, and the server spans that it has made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.routes: list[str] = []

    def app(self, rpc: ReactiveRPC, *, prefix: str = "", is_mounted: bool = False) -> FastAPI:
        """Return an application of which this watches the outermost."""
        config = TelemetryConfig(tracer_provider=self.provider, tracing=True)
        if is_mounted:
            inner = FastAPI(lifespan=rpc.lifespan)
            inner.include_router(rpc.router)
            outer = FastAPI(telemetry=config)
            outer.mount("/team", inner)
            return outer
        app = FastAPI(lifespan=rpc.lifespan, telemetry=config)
        around = APIRouter(prefix=prefix)
        around.include_router(rpc.router)
        app.include_router(around)
        app.add_middleware(self._watch())
        return app

    def _watch(self) -> Callable[[ASGIApp], ASGIApp]:
        """Return a middleware that notes the route's path afterwards, as other tools do."""

        def watch(app: ASGIApp) -> ASGIApp:
            async def watched(scope: Scope, receive: Receive, send: Send) -> None:
                await app(scope, receive, send)
                if scope["type"] == "http":
                    self.routes.append(scope["route"].path)
                    assert callable(scope["endpoint"])

            return watched

        return watch

    def spans(self) -> list[ReadableSpan]:
        """Return the server's spans."""
        return [span for span in self.exporter.get_finished_spans() if span.kind is SpanKind.SERVER]

    def named(self) -> list[tuple[str, Any]]:
        """Return their names and routes."""
        return [(span.name, (span.attributes or {}).get("http.route")) for span in self.spans()]


async def test_a_call_is_named_by_its_route(file: Path) -> None:
    """Hit or miss, by GET or POST, a mutation, a poll: method and path as the application has it."""
    traced = Traced()
    async with opened(rpc_on(file), lambda rpc: traced.app(rpc, prefix="/v1")) as server:
        for _ in range(2):
            await server.client.get("/v1/rpc/notes.in_room?room=r")
        await server.client.post("/v1/rpc/notes.in_room", json={"room": "r"})
        await server.client.post("/v1/rpc/notes.add", json={"room": "r", "text": "x"})
        await server.client.post("/v1/rpc/events/poll", json={"queries": []})
    query, mutation, poll = "/v1/rpc/notes.in_room", "/v1/rpc/notes.add", "/v1/rpc/events/poll"
    assert traced.named() == [
        (f"GET {query}", query),
        (f"GET {query}", query),
        (f"POST {query}", query),
        (f"POST {mutation}", mutation),
        (f"POST {poll}", poll),
    ]
    assert traced.routes == [query, query, query, mutation, poll]


async def test_a_failed_call_is_an_error(file: Path) -> None:
    """Of the server's own; what a handler answers on purpose is none."""
    traced = Traced()
    async with opened(rpc_on(file), traced.app) as server:
        await server.client.get("/rpc/notes.broken")
        await server.client.get("/rpc/notes.one?id=7")
    broken, missing = traced.spans()
    assert (broken.status.status_code, missing.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert [(span.attributes or {})["http.response.status_code"] for span in (broken, missing)] == [500, 404]
    assert [name for name, _ in traced.named()] == ["GET /rpc/notes.broken", "GET /rpc/notes.one"]


async def test_an_application_below_another_is_named_in_full(file: Path) -> None:
    """The mount's path stands before the route's."""
    traced, rpc = Traced(), rpc_on(file)
    async with opened(rpc, lambda rpc: traced.app(rpc, is_mounted=True)) as server:
        await server.client.get("/team/rpc/notes.in_room?room=r")
    assert traced.named() == [("GET /team/rpc/notes.in_room", "/team/rpc/notes.in_room")]


def test_a_stream_is_named_too(file: Path) -> None:
    """Its span ends with it."""
    traced = Traced()
    with running(traced.app(rpc_on(file))) as url:
        with heard(url, json=in_rooms("r")) as stream:
            stream.next()
        wait_until(lambda: len(traced.spans()) == 1)
    assert traced.named() == [("POST /rpc/events", "/rpc/events")]
