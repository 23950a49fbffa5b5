"""Results that reach those who wait for them in the moment in which they are put, by publish and subscribe.

Nothing rests on it: a message that nobody hears costs a question more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from redis.asyncio import Redis

from reactive_rpc.backends.redis.connection import PATIENCE_SECONDS, REDIS_FAULTS, RedisClient
from reactive_rpc.tasks import Tasks, to_its_end

__all__ = ["HandedOver"]

NAME_CHARACTERS: Final = 64
"""The length of a result's name, which begins each message; its record follows, or nothing."""
IDLE_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class HandedOver:
    """Hears of results that are put while somebody waits for them. Used on one event loop.

    Args:
        client: returns the connections to Redis.
        channel: to which workers publish them.
    """

    def __init__(self, client: Callable[[], RedisClient], channel: str) -> None:
        self._client = client
        self._channel = channel
        self._expected: defaultdict[str, set[asyncio.Future[bytes]]] = defaultdict(set)
        self._tasks = Tasks(patience_seconds=PATIENCE_SECONDS)
        self._is_listening = False

    @property
    def is_possible(self) -> bool:
        """Whether Redis is one server: redis-py leaves connections to a cluster open that subscribe or run scripts."""
        return isinstance(self._client(), Redis)

    @contextmanager
    def expecting(self, name: str) -> Iterator[asyncio.Future[bytes] | None]:
        """Give a future of the next record of a name, which is empty if there is none; None if nobody listens (yet).

        INVARIANT: it is expected before the store is asked: whatever is put after the answer is heard.
        """
        if not self._tasks and self.is_possible:
            self._tasks.start(self._listen(), "shared results that are handed over")
        if not self._is_listening:
            yield None
            return
        arrival: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._expected[name].add(arrival)
        try:
            yield arrival
        finally:
            self._expected[name].discard(arrival)
            if not self._expected[name]:
                del self._expected[name]

    async def aclose(self) -> None:
        """Listen no more; idempotent. It can be used again."""
        await self._tasks.aclose()

    async def _listen(self) -> None:
        try:
            async with self._client().pubsub() as pubsub:
                # A connection that is being made when its task is cancelled would be left open by redis-py.
                await to_its_end(pubsub.subscribe(self._channel), "subscription")
                while True:
                    message = await pubsub.get_message(timeout=IDLE_SECONDS)
                    if message is not None and message["type"] == "subscribe":
                        self._is_listening = True
                    elif message is not None and message["type"] == "message":
                        self._hear(message["data"])
        except REDIS_FAULTS as exc:
            _log.info("nobody hears of results that are put, so they are asked for: %s", str(exc) or type(exc).__name__)
            self._is_listening = False
            await asyncio.sleep(RETRY_SECONDS)  # whoever expects something meanwhile does not wake this
        finally:
            self._is_listening = False

    def _hear(self, message: bytes) -> None:
        name = message[:NAME_CHARACTERS].decode("ascii", "replace")
        for arrival in self._expected.get(name, ()):
            if not arrival.done():
                arrival.set_result(message[NAME_CHARACTERS:])
