"""The ephemeral store of several nodes on one PostgreSQL database: the table `reactive_rpc.ephemeral_store`.

Capture installs the table, which is unlogged and has no triggers. But every write of it is a transaction, after which
each worker's log looks whether anything was committed; so acknowledgements are put in batches.

Why an entry is taken once, and how exact budgets are: docs/internals/ephemeral-store.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.connection import FAULTS, close, connect
from reactive_rpc.backends.postgresql.url import Place, place_name
from reactive_rpc.changes.ephemeral_store import (
    ENTRY_BYTES,
    NOBODY,
    UNREACHABLE,
    Budget,
    EntryKind,
    count_content,
    weight_of,
)
from reactive_rpc.changes.store_keys import by_name, name_of
from reactive_rpc.errors import ReactiveRPCError, ServiceUnavailableError

__all__ = ["PostgreSQLEphemeralStore"]

T = TypeVar("T")

OPERATION_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 30.0
PRUNE_ROWS: Final = 10_000

# INVARIANT (locked in the order of names): two that put the same entries do not wait for each other crosswise.
_PUT: Final = """
INSERT INTO reactive_rpc.ephemeral_store(kind, name, owner, size, content, expires_at)
SELECT $1::text, given.name, $5::text, length(given.content) + $6::integer, given.content,
  clock_timestamp() + make_interval(secs => $4)
FROM unnest($2::text[], $3::bytea[]) AS given(name, content) ORDER BY given.name
ON CONFLICT (kind, name) DO UPDATE
SET size = excluded.size, content = excluded.content, expires_at = excluded.expires_at
"""
_OTHERS: Final = "kind = $1::text AND expires_at > clock_timestamp() AND name <> ALL($3::text[])"
_USED: Final = f"""
SELECT coalesce(sum(size) FILTER (WHERE owner = $2::text), 0)::bigint AS own, coalesce(sum(size), 0)::bigint AS in_all
FROM reactive_rpc.ephemeral_store WHERE {_OTHERS}
"""
# INVARIANT (what is locked is skipped): whoever frees space waits for nobody, as `_PUT` locks rows in another order.
_FREE: Final = f"""
WITH oldest AS MATERIALIZED (
  SELECT ctid FROM reactive_rpc.ephemeral_store WHERE kind = $1::text AND name IN (SELECT name FROM (
    SELECT name, sum(size) OVER (ORDER BY expires_at, name) - size AS before
    FROM reactive_rpc.ephemeral_store WHERE owner = $2::text AND {_OTHERS}) AS own WHERE before < $4::bigint)
  FOR UPDATE SKIP LOCKED)
DELETE FROM reactive_rpc.ephemeral_store WHERE ctid = ANY(ARRAY(SELECT ctid FROM oldest))
"""
_ADD: Final = """
UPDATE reactive_rpc.ephemeral_store
SET content = convert_to(lpad((convert_from(content, 'UTF8')::bigint + $2::bigint)::text, 20, '0'), 'UTF8')
WHERE kind = 'count' AND name = $1::text AND expires_at > clock_timestamp() RETURNING content
"""
# INVARIANT (two that begin one count add up): whoever comes second adds to the first one's, unless that has expired.
_BEGIN: Final = """
INSERT INTO reactive_rpc.ephemeral_store AS stored (kind, name, owner, size, content, expires_at)
VALUES ('count', $1::text, $4::text, length($2::bytea) + $5::integer, $2::bytea,
  clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (kind, name) DO UPDATE SET
  content = CASE WHEN stored.expires_at <= clock_timestamp() THEN excluded.content ELSE convert_to(lpad((
    convert_from(stored.content, 'UTF8')::bigint + convert_from(excluded.content, 'UTF8')::bigint)::text, 20, '0'),
    'UTF8') END,
  expires_at = CASE WHEN stored.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE stored.expires_at END
RETURNING content
"""
_GET: Final = """
SELECT content FROM reactive_rpc.ephemeral_store
WHERE kind = $1::text AND name = $2::text AND expires_at > clock_timestamp()
"""
# INVARIANT (locked and deleted in one statement, what is locked is skipped): of all who take an entry one gets it, and
# nobody waits: another takes it, or puts it anew, and then it is there for the next who asks.
_TAKE: Final = """
WITH found AS MATERIALIZED (
  SELECT ctid FROM reactive_rpc.ephemeral_store WHERE kind = $1::text AND name = ANY($2::text[]) FOR UPDATE SKIP LOCKED)
DELETE FROM reactive_rpc.ephemeral_store WHERE ctid = ANY(ARRAY(SELECT ctid FROM found))
RETURNING name, content, expires_at > clock_timestamp() AS is_valid
"""
_PRUNE: Final = f"""
WITH expired AS MATERIALIZED (
  SELECT ctid FROM reactive_rpc.ephemeral_store WHERE expires_at <= clock_timestamp()
  LIMIT {PRUNE_ROWS} FOR UPDATE SKIP LOCKED)
DELETE FROM reactive_rpc.ephemeral_store WHERE ctid = ANY(ARRAY(SELECT ctid FROM expired))
"""


class PostgreSQLEphemeralStore:
    """An `EphemeralStore` in a PostgreSQL database. Used on one event loop.

    Args:
        url: of the database; the store has one connection of its own, made when it is first needed.
    """

    def __init__(self, url: Place, *, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._name = place_name(url)
        self._place = url
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._pruned_at: float | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Allow operations, the first of which connects; idempotent."""
        self._is_closed = False

    async def aclose(self) -> None:
        """Close the connection once what is under way is done; what waits is refused. Idempotent."""
        self._is_closed = True
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await close(connection)

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        """Put `{key: content}`, each in the place of what was there, within the owner's budget.

        Raises:
            PayloadTooLargeError: it is more than the owner may have.
            ServiceUnavailableError: there is no room, the database cannot be reached, or the table is missing.
        """
        given = {name_of(key): content for key, content in entries.items()}
        names, contents, whose = list(given), list(given.values()), name_of(owner)
        size_bytes = sum(map(weight_of, contents))

        async def put(connection: Any) -> None:
            if self._must_prune():
                await connection.execute(_PRUNE)
            # No lock: workers that put at the same moment may exceed a budget by as much as they put.
            used = await connection.fetchrow(_USED, kind, whose, names)
            excess = self._budget.to_free(owner, size_bytes, own=used["own"], all_of_kind=used["in_all"])
            if excess:
                await connection.execute(_FREE, kind, whose, names, excess)
            await connection.execute(_PUT, kind, names, contents, ttl_seconds, whose, ENTRY_BYTES)

        await self._run(put)

    async def get(self, kind: EntryKind, key: str) -> bytes | None:
        """Return the content at `key`; None where there is none, or where it has expired.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or the table is missing.
        """
        return await self._run(lambda connection: connection.fetchval(_GET, kind, name_of(key)))

    async def take(self, kind: EntryKind, keys: Collection[str]) -> dict[str, bytes]:
        """Remove what stands at `keys` and return it.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or the table is missing.
        """
        wanted = by_name(keys)
        rows = await self._run(lambda connection: connection.fetch(_TAKE, kind, list(wanted)))
        return {wanted[row["name"]]: row["content"] for row in rows if row["is_valid"]}

    async def count(self, key: str, more: int, *, ttl_seconds: float) -> int:
        """Add to the count at `key`, which begins at nought; return the sum.

        Raises:
            ServiceUnavailableError: the database cannot be reached, or the table is missing.
        """
        name, begun, nobody = name_of(key), count_content(more), name_of(NOBODY)

        async def add(connection: Any) -> int:
            if self._must_prune():
                await connection.execute(_PRUNE)
            total = await connection.fetchval(_ADD, name, more)
            if total is None:
                used = await connection.fetchrow(_USED, "count", nobody, [name])
                excess = self._budget.to_free(NOBODY, weight_of(begun), own=used["own"], all_of_kind=used["in_all"])
                if excess:
                    await connection.execute(_FREE, "count", nobody, [name], excess)
                total = await connection.fetchval(_BEGIN, name, begun, ttl_seconds, nobody, ENTRY_BYTES)
            return int(total)

        return await self._run(add)

    def _must_prune(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._pruned_at is not None and now < self._pruned_at + PRUNE_SECONDS:
            return False
        self._pruned_at = now
        return True

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(OPERATION_SECONDS), self._lock:
                try:
                    return await self._attempt(work)
                except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError):
                    return await self._attempt(work)  # the server may have been restarted meanwhile
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"{self._name} has no ephemeral store: run `reactive-rpc db install`"
            )
        except asyncpg.InsufficientPrivilegeError as exc:
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"rights are missing on the ephemeral store of {self._name} ({exc}): let an administrator run what"
                " `reactive-rpc db install --sql` prints"
            )
        except FAULTS as exc:
            raise ServiceUnavailableError(UNREACHABLE) from ReactiveRPCError(
                f"the ephemeral store of {self._name} cannot be used: {str(exc) or type(exc).__name__}"
            )

    async def _attempt(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await work(await self._connected())
        except asyncpg.PostgresError:
            raise
        except BaseException:  # cancelled, or out of step with the server: fit for nothing more
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.terminate()
            raise

    async def _connected(self) -> Any:
        if self._is_closed:
            raise ServiceUnavailableError("the ephemeral store is closed")
        if self._connection is None or self._connection.is_closed():
            # INVARIANT (nothing is prepared): behind a pooler the next statement may meet another connection.
            self._connection = await connect(self._place, "ephemeral store", statement_cache_size=0)
        return self._connection
