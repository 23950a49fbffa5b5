"""The board of several nodes: entries in Redis, each a key of its own with its time to live.

In a cluster the keys have no hash tag, so they spread over the nodes; nothing here touches two of them at once. `take`
is GETDEL (Redis 6.2), key by key: of all who ask, one gets the content. Where its answer is lost on the way, so is the
entry, as a board may lose it; it is never given out twice.

A server that accepts connections and says nothing would hold each operation up for the driver's own timeouts and all
its retries. So each operation has a time limit of its own, after which the driver throws the connection away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from reactive_rpc.board.board import UNREACHABLE, BoardKind
from reactive_rpc.board.names import by_name, name_of
from reactive_rpc.errors import ReactiveRPCError, ServiceUnavailableError
from reactive_rpc.redis_connection import REDIS_FAULTS, RedisClient, connect_redis, within

__all__ = ["RedisBoard"]

T = TypeVar("T")

OPERATION_SECONDS: Final = 5.0
AT_ONCE: Final = 16
"""So many operations are under way at most, each on a connection of its own; the others wait."""
BATCH: Final = 1_000
"""So many commands are sent before their answers are read."""


class RedisBoard:
    """A `Board` in Redis, one server or a cluster. Used on one event loop.

    Args:
        url: see `redis_connection.connect_redis`.
        namespace: begins every key.
        operation_seconds: how long an operation may take.
    """

    def __init__(self, url: str, namespace: str, *, operation_seconds: float = OPERATION_SECONDS) -> None:
        self._url = url
        self._prefix = f"{namespace}:board"
        self._operation_seconds = operation_seconds
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._client: RedisClient | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Allow operations, the first of which connects; idempotent."""
        self._is_closed = False

    async def aclose(self) -> None:
        """Close the connections once what is under way is done; what waits is refused. Idempotent."""
        self._is_closed = True
        for _ in range(AT_ONCE):
            await self._slots.acquire()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        for _ in range(AT_ONCE):
            self._slots.release()

    async def put(self, kind: BoardKind, entries: Mapping[str, bytes], *, ttl_seconds: float) -> None:
        """Put `{key: content}`, each in the place of what was there.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """
        milliseconds = max(1, round(ttl_seconds * 1000))
        given = [(self._name(kind, name_of(key)), content) for key, content in entries.items()]

        async def put(client: RedisClient) -> None:
            for some in _chunks(given):
                pipeline = client.pipeline(transaction=False)
                for name, content in some:
                    pipeline.set(name, content, px=milliseconds)
                await pipeline.execute()

        await self._run(put)

    async def get(self, kind: BoardKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """

        async def get(client: RedisClient) -> bytes | None:
            found: Any = await client.get(self._name(kind, name_of(key)))
            return None if found is None else bytes(found)

        return await self._run(get)

    async def take(self, kind: BoardKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """
        wanted = list(by_name(keys).items())

        async def take(client: RedisClient) -> dict[str, bytes]:
            taken: dict[str, bytes] = {}
            for some in _chunks(wanted):
                pipeline = client.pipeline(transaction=False)
                for name, _ in some:
                    pipeline.getdel(self._name(kind, name))
                contents = await pipeline.execute()
                found = zip(some, contents, strict=True)
                taken.update({key: content for (_, key), content in found if content is not None})
            return taken

        return await self._run(take)

    def _name(self, kind: BoardKind, name: str) -> str:
        return f"{self._prefix}:{kind}:{name}"

    async def _run(self, work: Callable[[RedisClient], Coroutine[Any, Any, T]]) -> T:
        try:
            return await within(self._operation_seconds, self._in_turn(work))
        except REDIS_FAULTS as exc:
            reason = str(exc) or type(exc).__name__
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"the board's Redis cannot be used: {reason}"
            )

    async def _in_turn(self, work: Callable[[RedisClient], Coroutine[Any, Any, T]]) -> T:
        async with self._slots:
            if self._is_closed:
                raise ServiceUnavailableError("the board is closed")
            if self._client is None:
                self._client = connect_redis(self._url)
            return await work(self._client)


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
