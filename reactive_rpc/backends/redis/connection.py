"""Connections to Redis: one server, or a cluster, by what the URL says."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from reactive_rpc.errors import DefinitionError

__all__ = ["PATIENCE_SECONDS", "REDIS_FAULTS", "BoundedClient", "RedisClient", "connect_redis"]

REDIS_FAULTS: Final = (RedisError, RedisClusterException, OSError, RuntimeError)
"""What a client raises where Redis does not do as it is told. `TimeoutError` is an OSError; a RuntimeError is what
uvloop says, through the driver, of a connection that was reset while it was being written to."""

CLUSTER: Final = "redis+cluster://"
TIMEOUT_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 0.2
"""How long a task that talks to Redis may clean up before it is cancelled again, see `tasks.end_task`."""

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


class BoundedClient:
    """A client by which so many operations at most are under way at once, each on a connection of its own.

    It connects when it is used first, also after `aclose`. Used on one event loop.

    Args:
        url: see `connect_redis`.
        at_once: how many operations.

    Attributes:
        slots: whoever operates holds one.
    """

    def __init__(self, url: str, *, at_once: int) -> None:
        self.slots = asyncio.Semaphore(at_once)
        self._url = url
        self._at_once = at_once
        self._client: RedisClient | None = None

    @property
    def redis(self) -> RedisClient:
        """The client.

        Raises:
            DefinitionError: the URL is none of a Redis.
        """
        if self._client is None:
            self._client = connect_redis(self._url)
        return self._client

    async def aclose(self) -> None:
        """Close the connections when what is under way is done; idempotent."""
        for _ in range(self._at_once):
            await self.slots.acquire()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        for _ in range(self._at_once):
            self.slots.release()
