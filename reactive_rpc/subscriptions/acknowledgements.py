"""Acknowledgements that reach another worker than the one whose stream they are for.

A load balancer sends them anywhere. One for a stream of another worker is put into the ephemeral store
(`changes/ephemeral_store.py`), and the worker that has the stream looks there before it sends anything again. All that
can be lost by this is an acknowledgement, which costs a retry. `docs/internals/subscriptions.md` argues the bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Collection, Mapping
from itertools import islice
from typing import TypeVar

from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import Clock
from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.subscriptions.limits import CallerKey
from reactive_rpc.tasks import OnDemand

__all__ = ["Acknowledgements"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

PUT_EVERY_SECONDS = 0.2
"""How long an acknowledgement may wait for others to go with it."""

TTL_SECONDS = 60.0
"""How long it stays in the ephemeral store: longer than any stream waits for it."""

BATCH = 500
"""How many are put, or asked for, at a time."""

MAX_NOTED = 20_000
"""How many may wait to be put; past it the oldest are dropped."""

MAX_EACH = 1_000
"""For so many streams at other workers a caller may acknowledge within `TTL_SECONDS`."""

MAX_REMEMBERED = 100_000
"""Of so many streams it is remembered who acknowledged for them."""

MAX_ID_LENGTH = 64
"""No stream has a longer name: an acknowledgement that claims to be for one is dropped."""

STORE_SECONDS = 1.0
"""How long the ephemeral store may take to answer."""


class Acknowledgements:
    """Puts acknowledgements into an ephemeral store and takes them from it. Used on one event loop."""

    def __init__(self, store: EphemeralStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, Cursor] = {}
        self._until: OrderedDict[tuple[CallerKey, str], float] = OrderedDict()
        self._counts: Counter[CallerKey] = Counter()
        self._putting = OnDemand(self._put, "acknowledgements")
        self._is_failing = False

    def note(self, stream_id: str, cursor: Cursor, caller: CallerKey) -> None:
        """Put an acknowledgement into the store soon, for whichever worker has the stream."""
        if len(stream_id) > MAX_ID_LENGTH or not self._may(caller, stream_id):
            return
        before = self._noted.pop(stream_id, None)
        if before is not None and before.epoch == cursor.epoch and before.version > cursor.version:
            cursor = before
        self._noted[stream_id] = cursor
        if len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        self._putting.wake()

    async def take(self, stream_ids: Collection[str]) -> dict[str, Cursor]:
        """Return the cursors that other workers have stored for these streams; none if the store cannot be reached."""
        found: dict[str, Cursor] = {}
        ids = iter(stream_ids)
        while batch := list(islice(ids, BATCH)):
            taken = await self._answered(self._store.take("ack", batch))
            if taken is None:
                break
            found |= _parsed(taken)
        return found

    async def aclose(self) -> None:
        """Forget the acknowledgements that are noted; idempotent."""
        self._noted.clear()
        self._until.clear()
        self._counts.clear()
        await self._putting.aclose()

    def _may(self, caller: CallerKey, stream_id: str) -> bool:
        """Return whether the caller may have one more stream's in the store, and remember that it has."""
        now, key = self._clock.monotonic(), (caller, stream_id)
        while self._until and (len(self._until) > MAX_REMEMBERED or next(iter(self._until.values())) <= now):
            (whose, _), _ = self._until.popitem(last=False)
            self._counts[whose] -= 1
            if not self._counts[whose]:
                del self._counts[whose]
        if key not in self._until:
            if self._counts[caller] >= MAX_EACH:
                return False
            self._counts[caller] += 1
        self._until[key] = now + TTL_SECONDS
        self._until.move_to_end(key)
        return True

    async def _put(self) -> None:
        while self._noted:
            await self._clock.sleep(PUT_EVERY_SECONDS)
            noted, self._noted = self._noted, {}
            pairs = iter(noted.items())
            while batch := {stream_id: str(cursor).encode() for stream_id, cursor in islice(pairs, BATCH)}:
                await self._answered(self._store.put("ack", batch, ttl_seconds=TTL_SECONDS))

    async def _answered(self, question: Awaitable[T]) -> T | None:
        """Return the store's answer; None if there is none, which is logged once."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                answer = await question
        except Exception as exc:  # whatever a store raises, the streams go on
            if not self._is_failing:
                logger.warning(
                    "the ephemeral store cannot be reached, so what was acknowledged may be sent again: %r", exc
                )
            self._is_failing = True
            return None
        self._is_failing = False
        return answer


def _parsed(taken: Mapping[str, bytes]) -> dict[str, Cursor]:
    found = {}
    for stream_id, content in taken.items():
        try:
            found[stream_id] = Cursor.parse(content.decode())
        except (BadRequestError, UnicodeDecodeError):
            logger.warning("what the ephemeral store holds for the stream %s is no cursor", stream_id)
    return found
