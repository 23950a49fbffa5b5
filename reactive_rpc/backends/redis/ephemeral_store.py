"""The ephemeral store of several nodes in Redis: each entry is a key of its own with its time to live.

Beside the entries stand counts of them, by which budgets are kept. Entries spread over all nodes of a cluster; the
counts of one kind stand on one of them.

Why an entry is taken once, and why no entry is uncounted: docs/internals/ephemeral-store.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import ResponseError

from reactive_rpc.backends.redis.connection import REDIS_FAULTS, BoundedClient, RedisClient
from reactive_rpc.changes.ephemeral_store import NOBODY, UNREACHABLE, Budget, EntryKind, count_content, weight_of
from reactive_rpc.changes.store_keys import by_name, name_of
from reactive_rpc.errors import ReactiveRPCError, ServiceUnavailableError
from reactive_rpc.tasks import within

__all__ = ["RedisEphemeralStore"]

T = TypeVar("T")

OPERATION_SECONDS: Final = 5.0
"""A server that accepts connections and says nothing would else hold each operation up for all the driver's retries."""
AT_ONCE: Final = 16
"""So many operations are under way at most, each on a connection of its own; the others wait."""
BATCH: Final = 1_000
"""So many commands are sent before their answers are read."""
_FORGET: Final = """
local function forget(name)
  local found = redis.call('HGET', KEYS[2], name)
  if not found then return end
  local size, owner = string.match(found, '^(%d+):(.*)$')
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[1], name)
  redis.call('ZREM', KEYS[4] .. owner, name)
  for _, whose in ipairs({owner, '*'}) do
    if redis.call('HINCRBY', KEYS[3], whose, -size) <= 0 then redis.call('HDEL', KEYS[3], whose) end
  end
end
"""
_COUNT: Final = (
    _FORGET
    + """
local owner, ttl, allowed, bound = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 5000)) do forget(name) end
local function sum(whose) return tonumber(redis.call('HGET', KEYS[3], whose) or '0') end
local own, in_all, given, put, first = sum(owner), sum('*'), 0, {}, {}
for i = 5, #ARGV, 2 do
  local name, size = ARGV[i], tonumber(ARGV[i + 1])
  put[name], given = size, given + size
  local found = redis.call('HGET', KEYS[2], name)
  if found then
    local before, whose = string.match(found, '^(%d+):(.*)$')
    first[name], in_all = whose, in_all - before
    if whose == owner then own = own - before end
  end
end
local needed = math.max(own + given - allowed, in_all + given - bound, 0)
if needed > own then return {err = 'FULL'} end
local gone = {}
if needed > 0 then
  for _, name in ipairs(redis.call('ZRANGE', KEYS[4] .. owner, 0, -1)) do
    if needed <= 0 then break end
    if not put[name] then
      needed = needed - string.match(redis.call('HGET', KEYS[2], name) or '0:', '^(%d+):')
      forget(name)
      gone[#gone + 1] = name
    end
  end
end
for name, size in pairs(put) do
  forget(name)
  local whose = first[name] or owner
  redis.call('HSET', KEYS[2], name, size .. ':' .. whose)
  redis.call('ZADD', KEYS[1], now + ttl, name)
  redis.call('ZADD', KEYS[4] .. whose, now + ttl, name)
  redis.call('PEXPIRE', KEYS[4] .. whose, 2 * ttl + 60000)
  redis.call('HINCRBY', KEYS[3], whose, size)
  redis.call('HINCRBY', KEYS[3], '*', size)
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], 2 * ttl + 60000) end
return gone
"""
)
_ADD: Final = """
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if total == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return total
"""
_UNCOUNT: Final = _FORGET + "for _, name in ipairs(ARGV) do forget(name) end"


class RedisEphemeralStore:
    """An `EphemeralStore` in Redis, one server or a cluster. Used on one event loop.

    Args:
        url: see `connect_redis`.
        namespace: begins every key.
        budget: what may stand there.
        operation_seconds: how long an operation may take.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        budget: Budget | None = None,
        operation_seconds: float = OPERATION_SECONDS,
    ) -> None:
        self._budget = budget or Budget()
        self._prefix = f"{namespace}:ephemeral"
        self._operation_seconds = operation_seconds
        self._client = BoundedClient(url, at_once=AT_ONCE)
        self._is_closed = False

    async def open(self) -> None:
        """Allow operations, the first of which connects; idempotent."""
        self._is_closed = False

    async def aclose(self) -> None:
        """Close the connections once what is under way is done; what waits is refused. Idempotent."""
        self._is_closed = True
        await self._client.aclose()

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room, or Redis cannot be reached, or refuses.
        """
        milliseconds = max(1, round(ttl_seconds * 1000))
        given = [(name_of(key), content) for key, content in entries.items()]
        self._budget.to_free(owner, sum(weight_of(content) for _, content in given), own=0, all_of_kind=0)

        async def put(client: RedisClient) -> None:
            for some in _chunks(given):
                # INVARIANT (counted, then written): no entry is there uncounted. If this worker dies in between, it has
                # counted entries that are not there, until they would have expired.
                gone = await self._count(client, kind, some, owner, milliseconds)
                pipeline = client.pipeline(transaction=False)
                for name in gone:
                    pipeline.delete(self._name(kind, name.decode()))
                for name, content in some:
                    pipeline.set(self._name(kind, name), content, px=milliseconds)
                await pipeline.execute()

        if given:
            await self._run(put)

    async def get(self, kind: EntryKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """

        async def get(client: RedisClient) -> bytes | None:
            found: Any = await client.get(self._name(kind, name_of(key)))
            return None if found is None else bytes(found)

        return await self._run(get)

    async def take(self, kind: EntryKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """
        wanted = list(by_name(keys).items())

        async def take(client: RedisClient) -> dict[str, bytes]:
            taken: dict[str, bytes] = {}
            for some in _chunks(wanted):
                pipeline = client.pipeline(transaction=False)
                # INVARIANT (GETDEL, Redis 6.2): of all who take an entry one gets it. A lost answer loses the entry.
                for name, _ in some:
                    pipeline.getdel(self._name(kind, name))
                contents = await pipeline.execute()
                found: Any = zip(some, contents, strict=True)
                found = [(name, key, content) for (name, key), content in found if content is not None]
                taken.update({key: content for _, key, content in found})
                if found:
                    names = [name for name, _, _ in found]
                    await client.eval(_UNCOUNT, 4, *self._counts(kind), *names)
            return taken

        return await self._run(take)

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add to the count at `key`, which begins at nought; return the sum.

        Raises:
            ServiceUnavailableError: Redis cannot be reached, or refuses.
        """
        name, milliseconds = name_of(key), max(1, round(ttl_seconds * 1000))

        async def add(client: RedisClient) -> int:
            total: Any = await client.eval(_ADD, 1, self._name("count", name), more, milliseconds)
            if total == more:
                # It has begun, and takes of the budget from now on. If this worker dies before that, it does not.
                gone = await self._count(client, "count", [(name, count_content(more))], NOBODY, milliseconds)
                for forgotten in gone:
                    await client.delete(self._name("count", forgotten.decode()))
            return int(total)

        return await self._run(add)

    async def _count(
        self,
        client: RedisClient,
        kind: EntryKind,
        entries: Sequence[tuple[str, bytes]],
        owner: str,
        milliseconds: int,
    ) -> list[bytes]:
        """Count entries that are about to be put; return the names of those that must go."""
        sizes = [text for name, content in entries for text in (name, weight_of(content))]
        bounds = (name_of(owner), milliseconds, self._budget.of(owner), self._budget.max_bytes)
        try:
            gone: Any = await client.eval(_COUNT, 4, *self._counts(kind), *bounds, *sizes)
        except ResponseError as exc:
            if "FULL" not in str(exc):
                raise
            raise self._budget.full() from None
        return list(gone)

    def _counts(self, kind: EntryKind) -> tuple[str, str, str, str]:
        tag = f"{{{self._prefix}:{kind}}}"
        return f"{tag}:expiring", f"{tag}:sizes", f"{tag}:sums", f"{tag}:of:"

    def _name(self, kind: EntryKind, name: str) -> str:
        return f"{self._prefix}:{kind}:{name}"

    async def _run(self, work: Callable[[RedisClient], Coroutine[Any, Any, T]]) -> T:
        try:
            return await within(self._operation_seconds, self._in_turn(work), "ephemeral store")
        except REDIS_FAULTS as exc:
            reason = str(exc) or type(exc).__name__
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"the ephemeral store's Redis cannot be used: {reason}"
            )

    async def _in_turn(self, work: Callable[[RedisClient], Coroutine[Any, Any, T]]) -> T:
        async with self._client.slots:
            if self._is_closed:
                raise ServiceUnavailableError("the ephemeral store is closed")
            return await work(self._client.redis)


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
