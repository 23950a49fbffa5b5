"""Shared results in Redis, and the lease by which one worker computes what many want.

Redis may be slow, wrong or gone, and no answer is: a question has a tenth of a second, and if it fails it counts as
"there is none", until a task in the background has found that Redis works again. Results are put in the background,
from a bounded queue; if one does not fit it is not shared. Whoever takes a result validates it, however it came to be.
docs/internals/redis.md describes the lease.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any, Final

from reactive_rpc.backends.redis.connection import BoundedClient
from reactive_rpc.cache.result import ResultKey
from reactive_rpc.cache.shared_results import SharedResult, decode_value, encode_value, name_of
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.tasks import OnDemand, within

__all__ = ["RedisSharedResults"]

ANSWER_SECONDS: Final = 0.1
"""How long Redis may take to answer a question."""
WAIT_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.075, 0.1)
"""How long, between questions, a result is waited for that another worker computes."""
LEASE_MILLISECONDS: Final = 1_000
RETRY_SECONDS: Final = 1.0
"""How long after a failure Redis is tried again."""
CONNECT_SECONDS: Final = 5.0
WRITE_SECONDS: Final = 1.0
AT_ONCE: Final = 16
"""So many questions are under way at most, each on a connection of its own; others wait, as long as for an answer."""
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
BATCH: Final = 100

_YOURS: Final = 1
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
"""Return the record; 1 where it is the caller's to compute; 0 where somebody is at it."""

logger = logging.getLogger(__name__)


_Command = tuple[str, bytes | None, float]
"""The name of a record, its bytes (None gives its lease back), and until when it holds."""


class RedisSharedResults:
    """`SharedValues` in Redis, one server or a cluster. Used on one event loop.

    Args:
        url: see `connect_redis`.
        namespace: begins every key.
        build: names the code that runs; results of another are not found.
        ttl_seconds: how long Redis keeps a result.

    Attributes:
        waiting_bytes: what the results weigh that have not been stored yet.
    """

    def __init__(self, url: str, namespace: str, *, build: str, ttl_seconds: float, clock: Clock | None = None) -> None:
        self._namespace = namespace
        self._build = build
        self._ttl_milliseconds = max(1, round(ttl_seconds * 1000))
        self._clock = clock or SystemClock()
        self._client = BoundedClient(url, at_once=AT_ONCE)
        self._claimed: dict[ResultKey, str] = {}
        self._commands: deque[_Command] = deque()
        self.waiting_bytes = 0
        self._writing = OnDemand(self._write, "shared values")
        self._connecting = OnDemand(self._connect, "shared values connection")
        self._is_connected = False
        self._is_closed = False
        self._has_failed = False

    async def open(self) -> None:
        """Connect; where Redis does not answer at once, go on without, and try again in the background; idempotent."""
        self._is_closed = False
        if not self._is_connected:
            self._connecting.wake()
            await self._connecting.wait(timeout_seconds=RETRY_SECONDS)

    async def find(self, key: ResultKey, epoch: str, *, after: int, version: int) -> SharedResult | None:
        """Return a result of another worker's, see `SharedValues.find`."""
        name = name_of(self._build, epoch, key)
        answer = await self._ask(name, after, version)
        for seconds in WAIT_SECONDS:
            if answer != 0:
                break
            await self._clock.sleep(seconds)
            answer = await self._ask(name, after, version)
        if answer == _YOURS:
            self._claimed[key] = name
        return self._decoded(answer, key, epoch) if isinstance(answer, bytes) else None

    def put(self, value: SharedResult) -> None:
        """Store a result in the background; not while Redis fails, nor one that is very large."""
        if self._is_connected and len(value.body) <= MAX_BODY_BYTES:
            until = value.read_set.period.until
            self._write_later(name_of(self._build, value.epoch, value.key), encode_value(value), until)

    def release(self, key: ResultKey) -> None:
        """Give the lease of `key` back, where it was taken here."""
        name = self._claimed.pop(key, None)
        if name is not None and self._is_connected:
            self._write_later(name, None)

    async def aclose(self) -> None:
        """Abandon what has not been stored, and close the connections; idempotent."""
        self._is_connected, self._is_closed = False, True
        await self._writing.aclose()
        await self._connecting.aclose()
        self._forget_commands()
        await self._client.aclose()

    async def _ask(self, name: str, after: int, version: int) -> bytes | int | None:
        """Return what `_FIND` returns; None where Redis does not answer."""
        if not self._is_connected:
            if not self._is_closed:
                self._connecting.wake()
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._client.slots.acquire()
        except TimeoutError:
            return None  # many ask at once, which says nothing of Redis
        try:
            answer = await within(ANSWER_SECONDS, self._evaluate(name, after, version), "shared value")
        except Exception as exc:  # whatever it is: the answer to the client does not depend on it
            self._note_failure(exc)
            return None
        finally:
            self._client.slots.release()
        return answer if isinstance(answer, bytes | int) else None

    async def _evaluate(self, name: str, after: int, version: int) -> Any:
        if self._is_closed:
            return None
        keys = _record(self._namespace, name), _lease(self._namespace, name)
        return await self._client.redis.eval(_FIND, 2, *keys, after, version, LEASE_MILLISECONDS)

    def _decoded(self, record: bytes, key: ResultKey, epoch: str) -> SharedResult | None:
        try:
            value = decode_value(record)
        except ValueError as exc:
            logger.warning("a shared result of %s is damaged and not used: %s", key[0], exc)
            return None
        return value if (value.key, value.epoch) == (key, epoch) else None

    def _write_later(self, name: str, record: bytes | None, until: float = math.inf) -> None:
        """Store a record until a moment, or with None give a lease back; dropped where too much is waiting."""
        size = 0 if record is None else len(record)
        if self.waiting_bytes + size > MAX_WAITING_BYTES:
            return
        self.waiting_bytes += size
        self._commands.append((name, record, until))
        self._writing.wake()

    async def _write(self) -> None:
        try:
            while self._commands:
                some = [self._next() for _ in range(min(BATCH, len(self._commands)))]
                await within(WRITE_SECONDS, self._write_some(some), "shared values written")
        except Exception as exc:  # as in `_ask`
            self._note_failure(exc)
            self._forget_commands()

    async def _write_some(self, commands: list[_Command]) -> None:
        pipeline = self._client.redis.pipeline(transaction=False)
        for name, record, until in commands:
            if record is None:
                pipeline.delete(_lease(self._namespace, name))
            elif (milliseconds := self._kept_milliseconds(until)) > 0:
                pipeline.set(_record(self._namespace, name), record, px=milliseconds)
        await pipeline.execute()

    def _kept_milliseconds(self, until: float) -> int:
        """Return how long a record is worth keeping: one whose time is over would only be looked at and refused."""
        left_milliseconds = (until - self._clock.time()) * 1000
        return round(min(left_milliseconds, self._ttl_milliseconds))

    def _next(self) -> _Command:
        command = self._commands.popleft()
        self.waiting_bytes -= 0 if command[1] is None else len(command[1])
        return command

    def _forget_commands(self) -> None:
        self._commands.clear()
        self.waiting_bytes = 0

    async def _connect(self) -> None:
        """Try until Redis answers."""
        while not self._is_connected:
            try:
                await within(CONNECT_SECONDS, self._ping(), "ping")
            except Exception as exc:  # as in `_ask`
                self._note_failure(exc)
                await self._clock.sleep(RETRY_SECONDS)
            else:
                self._is_connected = True
        if self._has_failed:
            logger.info("results are shared again")
        self._has_failed = False

    async def _ping(self) -> None:
        await self._client.redis.ping()

    def _note_failure(self, error: Exception) -> None:
        if not self._has_failed:
            logger.warning("results are not shared until Redis works again: %s", str(error) or type(error).__name__)
        self._has_failed = True
        self._is_connected = False
        if not self._is_closed:
            self._connecting.wake()


def _record(namespace: str, name: str) -> str:
    return f"{namespace}:value:{{{name}}}"


def _lease(namespace: str, name: str) -> str:
    return f"{namespace}:lease:{{{name}}}"
