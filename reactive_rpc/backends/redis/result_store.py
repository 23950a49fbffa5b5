"""The `ResultStore` in Redis, one server or a cluster. docs/internals/redis.md describes the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from reactive_rpc.backends.redis.connection import RedisClient, connect_redis
from reactive_rpc.backends.redis.handed_over import HandedOver
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
  if ARGV[4] == '1' then
    redis.call('SET', KEYS[3], '', 'PX', ARGV[3])
  end
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Return the record; 1 if it is the caller's to compute; 0 if somebody is at it, and note if the caller listens."""
_PUT: Final = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if redis.call('DEL', KEYS[2]) == 1 then
  redis.call('PUBLISH', ARGV[3], ARGV[4] .. (#ARGV[1] <= 65536 and ARGV[1] or ''))
end
"""
"""Keep a record, and hand it to those who listen for it; of a large one they are told that it is there."""
_RELEASE: Final = """
redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[2]) == 1 then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
"""
"""End a lease, and tell those who wait."""


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
        self._channel = f"{namespace}:values"
        self._handed_over = HandedOver(lambda: self._redis, self._channel)

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
        await self._handed_over.aclose()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def find(
        self, name: str, *, after: int, version: int, lease_seconds: float, wait_seconds: float
    ) -> FoundResult:
        """Return a content, or who is to compute it, see `ResultStore.find`."""
        question = partial(self._ask, name, after=after, version=version, lease_seconds=lease_seconds)
        with self._handed_over.expecting(name) as arrival:
            answer = await question(listens=arrival is not None and wait_seconds > 0)
            if answer == 0 and arrival is not None:
                await asyncio.wait([arrival], timeout=wait_seconds)
        if answer == 0 and arrival is not None and arrival.done():
            handed_over = arrival.result()
            # Else it is too large to be handed over, or outdated, or given back.
            answer = handed_over if _is_after(handed_over, after) else await question(listens=False)
        if isinstance(answer, bytes):
            return answer.partition(b"\n")[2]
        return "compute" if answer == 1 else "wait"

    async def _ask(self, name: str, *, after: int, version: int, lease_seconds: float, listens: bool) -> bytes | int:
        keys = self._record(name), self._lease(name), self._wanted(name)
        arguments = after, version, _milliseconds(lease_seconds), int(listens)
        answer: bytes | int = await self._redis.eval(_FIND, len(keys), *keys, *arguments)
        return answer

    async def put(self, results: Sequence[StoredResult], *, released: Sequence[str]) -> None:
        """Keep results, then end leases, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        is_handed_over = self._handed_over.is_possible
        for result in results:
            record = b"%d\n" % result.version + result.content  # the scripts read the version, and leave the rest
            milliseconds = _milliseconds(result.ttl_seconds)
            if is_handed_over:
                keys = self._record(result.name), self._wanted(result.name)
                pipeline.eval(_PUT, 2, *keys, record, milliseconds, self._channel, result.name)
            else:
                pipeline.set(self._record(result.name), record, px=milliseconds)
        for name in released:
            if is_handed_over:
                pipeline.eval(_RELEASE, 2, self._lease(name), self._wanted(name), self._channel, name)
            else:
                pipeline.delete(self._lease(name))
        await pipeline.execute()

    def _record(self, name: str) -> str:
        return f"{self._namespace}:value:{{{name}}}"

    def _lease(self, name: str) -> str:
        return f"{self._namespace}:lease:{{{name}}}"

    def _wanted(self, name: str) -> str:
        return f"{self._namespace}:wanted:{{{name}}}"


def _is_after(record: bytes, version: int) -> bool:
    digits = record.partition(b"\n")[0]
    return digits.isdigit() and int(digits) > version


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
