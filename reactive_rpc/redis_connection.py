"""Connections to Redis: one server, or a cluster, by what the URL says."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

__all__ = ["RedisClient", "connect_redis"]

CLUSTER: Final = "redis+cluster://"
TIMEOUT_SECONDS: Final = 5.0

RedisClient = Redis | RedisCluster
"""Commands are coroutines and answers are bytes. Keys that one script touches share a `{hash tag}`."""


def connect_redis(url: str) -> RedisClient:
    """Return a client for `redis://`, `rediss://`, `unix://` or `redis+cluster://`; nothing is connected yet."""
    if url.startswith(CLUSTER):
        return RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), socket_timeout=TIMEOUT_SECONDS)
    return Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS)
