"""Shared results in a store, which may be slow, wrong or gone: no answer is.

A question has a tenth of a second. If it fails it counts as "there is none", and the store is left alone until a task
in the background has found that it works again. Results are put in the background, from a bounded queue; one that does
not fit is not shared. docs/internals/cache.md argues that no store makes an answer stale, docs/internals/redis.md
describes the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from reactive_rpc.cache.result import ResultKey
from reactive_rpc.cache.result_store import ResultStore, StoredResult
from reactive_rpc.cache.shared_results import SharedResult, decode_value, encode_value, name_of
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.tasks import OnDemand, within

__all__ = ["StoredResults"]

ANSWER_SECONDS: Final = 0.1
"""How long the store may take to answer a question."""
WAIT_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.1)
"""How long, by each question, a result is waited for that another worker computes."""
LEASE_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
"""How long after a failure the store is tried again."""
CONNECT_SECONDS: Final = 5.0
WRITE_SECONDS: Final = 1.0
AT_ONCE: Final = 32
"""So many questions are under way at most; others wait, as long as for an answer."""
MAX_BODY_BYTES: Final = 1024 * 1024
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
BATCH: Final = 100

logger = logging.getLogger(__name__)

_Command = tuple[str, SharedResult | None, bytes]
"""A name, and the result that is put at it with its content; without one, its lease is given back."""


class StoredResults:
    """`SharedResults` in a `ResultStore`. Used on one event loop.

    Args:
        store: opened and closed here.
        build: names the code that runs; results of another are not found.
        ttl_seconds: how long the store keeps a result.
        secret: known to the workers alone: without it nobody makes a record that is taken.

    Attributes:
        waiting_bytes: the weight of the results that have not been stored yet.
    """

    def __init__(
        self, store: ResultStore, *, build: str, ttl_seconds: float, secret: bytes = b"", clock: Clock | None = None
    ) -> None:
        self._store = store
        self._build = build
        self._ttl_seconds = ttl_seconds
        self._secret = secret
        self._clock = clock or SystemClock()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._claimed: dict[ResultKey, str] = {}
        self._commands: deque[_Command] = deque()
        self.waiting_bytes = 0
        self._writing = OnDemand(self._write, "shared results")
        self._connecting = OnDemand(self._connect, "shared results connection")
        self._is_connected = False
        self._is_closed = False
        self._has_failed = False

    async def open(self) -> None:
        """Connect; if the store does not answer at once, go on without, and try again in the background; idempotent."""
        self._is_closed = False
        if not self._is_connected:
            self._connecting.wake()
            await self._connecting.wait(timeout_seconds=RETRY_SECONDS)

    async def find(self, key: ResultKey, epoch: str, *, after: int, version: int) -> SharedResult | None:
        """Return a result of another worker's, see `SharedResults.find`."""
        name = name_of(self._build, epoch, key)
        answer: bytes | str | None = None
        # INVARIANT (a bounded number of questions): a store that always says "wait" delays an answer, and no more.
        for seconds in (*WAIT_SECONDS, 0.0):
            asked_at = self._clock.monotonic()
            answer = await self._ask(name, after=after, version=version, wait_seconds=seconds)
            if answer != "wait":
                break
            await self._clock.sleep(max(0.0, asked_at + seconds - self._clock.monotonic()))
        if answer == "compute":
            self._claimed[key] = name
        return self._decoded(answer, key, epoch) if isinstance(answer, bytes) else None

    def put(self, value: SharedResult) -> None:
        """Store a result in the background; not while the store fails, nor one that is very large."""
        if self._is_connected and len(value.body) <= MAX_BODY_BYTES:
            name = name_of(self._build, value.epoch, value.key)
            self._write_later(name, value, encode_value(value, self._secret))

    def release(self, key: ResultKey) -> None:
        """Give the lease of `key` back, if it was taken here."""
        name = self._claimed.pop(key, None)
        if name is not None and self._is_connected:
            self._write_later(name, None, b"")

    async def aclose(self) -> None:
        """Abandon results that have not been stored, and close the store when no question is under way; idempotent."""
        self._is_connected, self._is_closed = False, True
        await self._writing.aclose()
        await self._connecting.aclose()
        self._forget_commands()
        for _ in range(AT_ONCE):
            await self._slots.acquire()
        try:
            await within(CONNECT_SECONDS, self._store.aclose(), "store closing")
        except Exception as exc:  # nobody waits for what it would have said
            logger.warning("the store of results could not be closed: %s", str(exc) or type(exc).__name__)
        for _ in range(AT_ONCE):
            self._slots.release()

    async def _ask(self, name: str, *, after: int, version: int, wait_seconds: float) -> bytes | str | None:
        """Return the store's answer; None if there is none."""
        if not self._is_connected:
            if not self._is_closed:
                self._connecting.wake()
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            return None  # many ask at once, which says nothing of the store
        try:
            question = self._find(name, after=after, version=version, wait_seconds=wait_seconds)
            return await within(ANSWER_SECONDS + wait_seconds, question, "shared result")
        except Exception as exc:  # whatever it is: the answer to the client does not depend on it
            self._note_failure(exc)
            return None
        finally:
            self._slots.release()

    async def _find(self, name: str, *, after: int, version: int, wait_seconds: float) -> bytes | str | None:
        if self._is_closed:
            return None
        return await self._store.find(
            name, after=after, version=version, lease_seconds=LEASE_SECONDS, wait_seconds=wait_seconds
        )

    def _decoded(self, record: bytes, key: ResultKey, epoch: str) -> SharedResult | None:
        # INVARIANT (nothing of a record is used before its checksum, key and epoch have been compared): a store may
        # return any bytes at all, another query's and another caller's among them. Whether the result still holds is
        # for `Reader._is_right`.
        try:
            value = decode_value(record, self._secret)
        except ValueError as exc:
            logger.warning("a shared result of %s is damaged and not used: %s", key[0], exc)
            return None
        return value if (value.key, value.epoch) == (key, epoch) else None

    def _write_later(self, name: str, value: SharedResult | None, content: bytes) -> None:
        """Store a result, or give a lease back; dropped if too much is waiting."""
        if self.waiting_bytes + len(content) > MAX_WAITING_BYTES:
            return
        self.waiting_bytes += len(content)
        self._commands.append((name, value, content))
        self._writing.wake()

    async def _write(self) -> None:
        try:
            while self._commands:
                some = [self._next() for _ in range(min(BATCH, len(self._commands)))]
                results = [result for command in some if (result := self._kept(command)) is not None]
                released = [name for name, value, _ in some if value is None]
                await within(WRITE_SECONDS, self._store.put(results, released=released), "shared results written")
        except Exception as exc:  # as in `_ask`
            self._note_failure(exc)
            self._forget_commands()

    def _kept(self, command: _Command) -> StoredResult | None:
        """Return the result for the store to keep: none whose time is over, as whoever found it would refuse it."""
        name, value, content = command
        if value is None:
            return None
        left_seconds = min(value.read_set.period.until - self._clock.time(), self._ttl_seconds)
        return StoredResult(name, value.version, content, left_seconds) if left_seconds > 0 else None

    def _next(self) -> _Command:
        command = self._commands.popleft()
        self.waiting_bytes -= len(command[2])
        return command

    def _forget_commands(self) -> None:
        self._commands.clear()
        self.waiting_bytes = 0

    async def _connect(self) -> None:
        """Try until the store answers."""
        while not self._is_connected:
            try:
                await within(CONNECT_SECONDS, self._store.open(), "store opening")
            except Exception as exc:  # as in `_ask`
                self._note_failure(exc)
                await self._clock.sleep(RETRY_SECONDS)
            else:
                self._is_connected = True
        if self._has_failed:
            logger.info("results are shared again")
        self._has_failed = False

    def _note_failure(self, error: Exception) -> None:
        if not self._has_failed:
            logger.warning("results are not shared until the store works again: %s", str(error) or type(error).__name__)
        self._has_failed = True
        self._is_connected = False
        if not self._is_closed:
            self._connecting.wake()
