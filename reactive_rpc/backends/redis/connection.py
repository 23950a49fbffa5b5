"""Connections to Redis: one server, or a cluster, by what the URL says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from reactive_rpc.errors import DefinitionError

__all__ = ["REDIS_FAULTS", "RedisClient", "connect_redis", "within"]

T = TypeVar("T")

REDIS_FAULTS: Final = (RedisError, RedisClusterException, OSError, RuntimeError)
"""What a client raises where Redis does not do as it is told. `TimeoutError` is an OSError; a RuntimeError is what
uvloop says, through the driver, of a connection that was reset while it was being written to."""

CLUSTER: Final = "redis+cluster://"
TIMEOUT_SECONDS: Final = 5.0
CANCEL_SECONDS: Final = 0.05
"""After how long what was cancelled and goes on is cancelled again."""

RedisClient = Redis | RedisCluster
"""Commands are coroutines and answers are bytes. Keys that one script touches share a `{hash tag}`."""


def connect_redis(url: str) -> RedisClient:
    """Return a client for `redis://`, `rediss://`, `unix://` or `redis+cluster://`; nothing is connected yet.

    Raises:
        DefinitionError: it is no such URL.
    """
    try:
        return _client(url)
    except ValueError as exc:  # it may hold a password, so it is not shown
        raise DefinitionError(
            f"REACTIVE_RPC_REDIS_URL is no URL of a Redis ({exc}): write redis://host:6379/0, rediss:// for TLS, or"
            " redis+cluster://host:6379 for a cluster"
        ) from None


def _client(url: str) -> RedisClient:
    if url.startswith(CLUSTER):
        return RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), socket_timeout=TIMEOUT_SECONDS)
    return Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work`, which uses a client, returns; past the time, abandon it.

    `asyncio.timeout` does not suffice: `asyncio.wait_for` of Python 3.11, which the driver uses, swallows a
    cancellation that comes in the step in which its own task ends, and the driver then waits for its own timeouts.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds} s")
        return task.result()
    finally:
        _cancel(task)


def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel `task` until it ends."""
    if not task.done():
        task.cancel()
        asyncio.get_running_loop().call_later(CANCEL_SECONDS, _cancel, task)
    elif not task.cancelled():
        task.exception()  # nobody waits for it any more
