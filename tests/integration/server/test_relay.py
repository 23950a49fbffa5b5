"""An application whose workers read their database through Redis: fresh, told, and honest about what is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from reactive_rpc import Capture, DefinitionError, ReactiveRPC, Settings
from reactive_rpc.protocol.events import Connected, Invalidation, QueryRef, Revoked, decode_event
from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.subscriptions.watched_query import RequestedQuery
from reactive_rpc.testing.redis import RedisServer
from tests.support.processes import Process
from tests.support.waiting import until

from .postgresql_rooms import Server, serving
from .rooms import METADATA, ROOMS, lines

pytestmark = pytest.mark.anyio

IN_R = {"room": "r"}


def redis_settings(url: str, namespace: str, **more: Any) -> dict[str, Any]:
    return {"redis_url": url, "redis_namespace": namespace, **more}


async def texts(server: Server) -> list[str]:
    return list(lines(await server.call("notes.in_room", IN_R)))


async def test_every_answer_is_fresh_at_two_workers(
    postgresql_url: str, redis_server_url: str, redis_namespace: str
) -> None:
    """What anybody has written shows in the next answer of any worker; one of them reads the database for both."""
    settings = redis_settings(redis_server_url, redis_namespace, build="1")
    async with serving(postgresql_url, settings=settings) as one, serving(postgresql_url, settings=settings) as two:
        for n in range(20):
            one.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', %s)", f"{n:02}")
            for server in (one, two):
                assert len(await texts(server)) == n + 1
                assert len(await texts(server)) == n + 1
        assert one.hits >= 20
        assert two.hits >= 20
        assert one.rpc.admin.stats()["shared_hits"] + two.rpc.admin.stats()["shared_hits"] > 0
        with one.connect() as connection:
            readers = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reactive_rpc log' AND datname = %s",
                (make_url(postgresql_url).database,),
            ).fetchone()
        assert readers == (1,)


async def test_a_worker_says_what_is_gone(
    postgresql_url: str, own_redis: RedisServer, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Redis nothing stale is served, health names it, and all is well again once it is back."""
    monkeypatch.setattr("reactive_rpc.changes.follower.LOG_STALLED_SECONDS", 0.5)
    async with serving(postgresql_url, settings=redis_settings(own_redis.url, redis_namespace)) as server:
        assert await texts(server) == []

        async def health() -> Any:
            return (await server.client.get("/rpc/health")).json()

        assert (await health())["ready"] is True
        own_redis.stop(how="kill")
        server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
        refused = await server.call("notes.in_room", IN_R)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")

        async def is_gone() -> bool:
            parts = (await health())["parts"]
            return not parts["redis"]["ok"] and not parts["log"]["ok"]

        await until(is_gone, "health does not name Redis and the log")
        report = await health()
        assert report["parts"]["redis"] == {"ok": False, "detail": "Redis cannot be reached: try again later"}
        assert (report["live"], report["ready"]) == (True, False)
        own_redis.start()

        async def is_ready() -> bool:
            return bool((await health())["ready"])

        await until(is_ready, "the worker is not ready again")
        assert await texts(server) == ["a"]


async def test_a_missing_relay_is_named(
    postgresql_url: str, redis_server_url: str, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that may not relay does not start alone, and the error says what to run."""
    monkeypatch.setattr("reactive_rpc.backends.redis.log.OPEN_SECONDS", 0.5)
    monkeypatch.setattr("reactive_rpc.backends.redis.log.SILENCE_SECONDS", 0.5)
    settings = redis_settings(redis_server_url, redis_namespace, relay=False)
    with pytest.raises(Exception, match="reactive-rpc relay"):
        async with serving(postgresql_url, settings=settings):
            pass


@contextmanager
def relaying(folder: Path, url: str, redis_url: str, namespace: str) -> Iterator[Process]:
    """Run the command for an application on `url`."""
    (folder / "relaying.py").write_text(
        f"from reactive_rpc import ReactiveRPC\nrpc = ReactiveRPC({url!r}, functions={{}})\n"
    )
    environment = {"REACTIVE_RPC_REDIS_URL": redis_url, "REACTIVE_RPC_REDIS_NAMESPACE": namespace}
    command = [sys.executable, "-c", "from reactive_rpc.cli import main; main()", "relay", "relaying:rpc"]
    with Process(*command, log=folder / "relay.log", environment=environment, cwd=folder) as process:
        yield process


async def test_the_command_relays(
    postgresql_url: str, redis_server_url: str, redis_namespace: str, tmp_path: Path
) -> None:
    """`reactive-rpc relay` reads the database for workers that do not; SIGTERM ends it without a word of error."""
    settings = redis_settings(redis_server_url, redis_namespace, relay=False)
    with relaying(tmp_path, postgresql_url, redis_server_url, redis_namespace) as relay:
        async with serving(postgresql_url, settings=settings) as server:
            assert await texts(server) == []
            server.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
            assert await texts(server) == ["a"]
            assert "relay candidate" not in (await server.client.get("/rpc/health")).json()["parts"]
        os.kill(relay.pid, signal.SIGTERM)
        assert await asyncio.to_thread(relay.wait) == 0
        assert "Traceback" not in (tmp_path / "relay.log").read_text()


async def test_revocation_reaches_the_other_worker(
    postgresql_url: str, redis_server_url: str, redis_namespace: str
) -> None:
    """A stream at one worker ends with `revoked` when another is told to revoke, and not before its last event."""
    settings = redis_settings(redis_server_url, redis_namespace)
    async with serving(postgresql_url, settings=settings) as one, serving(postgresql_url, settings=settings) as two:
        hub = two.rpc._hub
        call = await two.rpc._calls.subscribe("notes.in_room", IN_R, None)
        ref = QueryRef(path="notes.in_room", input=IN_R)
        stream, first = await hub.connect([RequestedQuery(ref, call)], None, acks=False, identity="ada")
        try:
            [connected] = SSEDecoder().feed(first)
            assert isinstance(decode_event(connected), Connected)
            one.write("INSERT INTO note (tenant, room, text) VALUES ('t', 'r', 'a')")
            [report] = await stream.collect(30)
            assert isinstance(report, Invalidation)
            await one.rpc.revoke("bob")
            await one.rpc.revoke("ada")
            [ended] = await stream.collect(30)
            assert isinstance(ended, Revoked)
            await until(lambda: stream.closed)
        finally:
            hub.disconnect(stream)


def test_redis_is_for_postgresql(tmp_path: Path) -> None:
    """Elsewhere there is nothing to relay, which the error says."""
    settings = Settings(redis_url="redis://127.0.0.1:1/0")
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    for capture in (Capture(), Capture(mode="session")):
        with pytest.raises(DefinitionError, match="REACTIVE_RPC_REDIS_URL"):
            ReactiveRPC(url, functions=ROOMS, settings=settings, capture=capture)


async def test_there_is_no_relay_without_redis(tmp_path: Path) -> None:
    """And the command says which variable is missing."""
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{tmp_path}/a.db", functions=ROOMS, metadata=METADATA)
    with pytest.raises(DefinitionError, match="REACTIVE_RPC_REDIS_URL"):
        await rpc.admin.run_relay()
