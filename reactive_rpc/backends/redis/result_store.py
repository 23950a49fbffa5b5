"""The `ResultStore` in Redis, one server or a cluster. docs/internals/redis.md describes the lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reactive_rpc.backends.redis.connection import RedisClient, connect_redis
from reactive_rpc.cache.result_store import FoundResult, StoredResult

__all__ = ["RedisResultStore"]

_FIND: Final = """
local after = tonumber(ARGV[1])
local version = tonumber(string.match(redis.call('GETRANGE', KEYS[1], 0, 20), '^(%d+)\\n'))
if version and version > after then
  return redis.call('GET', KEYS[1])
end
local lease = tonumber(redis.call('GET', KEYS[2]))
if lease and lease > after then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Return the record; 1 if it is the caller's to compute; 0 if somebody is at it."""


class RedisResultStore:
    """Results in Redis.

    Args:
        url: see `connect_redis`.
        namespace: begins every key.
    """

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        self._client: RedisClient | None = None

    @property
    def _redis(self) -> RedisClient:
        if self._client is None:
            self._client = connect_redis(self._url)
        return self._client

    async def open(self) -> None:
        """Connect, and raise if Redis does not answer."""
        await self._redis.ping()

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def find(self, name: str, *, after: int, version: int, lease_seconds: float) -> FoundResult:
        """Return a content, or who is to compute it, see `ResultStore.find`."""
        keys = self._record(name), self._lease(name)
        answer = await self._redis.eval(_FIND, 2, *keys, after, version, _milliseconds(lease_seconds))
        if isinstance(answer, bytes):
            return answer.partition(b"\n")[2]
        return "compute" if answer == 1 else "wait"

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        """Keep results, then end leases, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for result in results:
            record = b"%d\n" % result.version + result.content  # the script reads the version, and leaves the rest
            pipeline.set(self._record(result.name), record, px=_milliseconds(result.ttl_seconds))
        for name in released:
            pipeline.delete(self._lease(name))
        await pipeline.execute()

    def _record(self, name: str) -> str:
        return f"{self._namespace}:value:{{{name}}}"

    def _lease(self, name: str) -> str:
        return f"{self._namespace}:lease:{{{name}}}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
