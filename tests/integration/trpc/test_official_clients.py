"""Unmodified clients of tRPC's, the newest and the pinned one, by every link, against a purpose-made application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from reactive_rpc.testing import running
from tests.support.node import TYPESCRIPT, run_node
from tests.support.ways import HoldingWay, Way

from .desk import rpc_on
from .official_client import CLIENTS, faults_of


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("desk")
    rpc = rpc_on(folder / "desk.db", settings={"heartbeat_seconds": 1.0})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    app.include_router(rpc.trpc_router(prefix="/posted", allow_method_override=True))
    app.include_router(rpc.trpc_router(prefix="/super", transformer="superjson"))
    with running(app) as base:
        yield base


@pytest.mark.parametrize("client", CLIENTS)
def test_every_link_works_unmodified(client: str, url: str) -> None:
    """Calls, batches, streams of them, subscriptions, errors, forms and splits: each check says what was wrong."""
    found = faults_of(CLIENTS[client], f"{url}/trpc")
    assert len(found) == 18
    assert {name: fault for name, fault in found.items() if fault} == {}


@pytest.mark.parametrize("client", CLIENTS)
def test_answers_may_come_in_any_pieces(client: str, url: str) -> None:
    """A proxy cuts lines, events and characters wherever it likes."""
    with Way(urlsplit(url).port or 0, piece_bytes=7) as way:
        found = faults_of(CLIENTS[client], f"{way.url}/trpc")
    assert len(found) == 18
    assert {name: fault for name, fault in found.items() if fault} == {}


ENDLESS = ("subscriptions", "invalidations", "transformedEvents", "aborted")
"""Checks that read a stream before its end: of such, a proxy that waits for the end sends nothing."""


@pytest.mark.parametrize("client", CLIENTS)
def test_answers_may_come_all_at_once(client: str, url: str) -> None:
    """A proxy that holds streams back makes them late, and no different, batches, iterables and refusals among them."""
    with HoldingWay(urlsplit(url).port or 0) as way:
        found = faults_of(CLIENTS[client], f"{way.url}/trpc", *ENDLESS)
    assert len(found) == 14
    assert {name: fault for name, fault in found.items() if fault} == {}


def test_the_hooks_of_react_work_unmodified(url: str) -> None:
    """Those of `@trpc/tanstack-react-query`, rendered by React, over each link: what anybody writes is shown."""
    assert run_node(TYPESCRIPT / "trpc_11_22/hooks.ts", f"{url}/trpc").splitlines() == ["all is right"]


def test_a_batch_that_waits_says_so(tmp_path: Path) -> None:
    """A space now and then, which begins the next line: no proxy takes the connection for dead."""
    rpc = rpc_on(tmp_path / "desk.db", settings={"heartbeat_seconds": 0.01})
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    with (
        running(app) as base,
        httpx.stream(
            "GET", f"{base}/trpc/desk.wait,desk.ping?batch=1", headers={"trpc-accept": "application/jsonl"}
        ) as answer,
    ):
        chunks = answer.iter_raw()
        received = b""
        # Spaces may also come before the second line, which is that of the call that does not wait.
        while received.count(b"\n") < 2 or not received.endswith(b"   "):
            received += next(chunks)
    assert received.split(b"\n")[1].lstrip() == b'[1,0,[[{"result":{"data":"pong"}}]]]'
