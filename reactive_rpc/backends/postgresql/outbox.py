"""The outbox of a PostgreSQL database, read over one asyncpg connection.

Rows, epoch, retention floor and fingerprint come from one statement, which sees one snapshot and names it. If the
snapshot is the one that is known already, nothing has to be read. Only as many rows are sent as a batch may have, and
their contents only up to a number of stored bytes; past either bound the answer is cut, and names the tables that
occur. docs/internals/postgresql.md says why this is exact, and why the connection has its settings.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.capture.findings import INCARNATION
from reactive_rpc.backends.postgresql.capture.images import PostgreSQLOutboxRow
from reactive_rpc.backends.postgresql.capture.tables import FINGERPRINT
from reactive_rpc.backends.postgresql.capture.wake_up import ARM, CAN_NOTIFY, CHANNEL, DISARM
from reactive_rpc.backends.postgresql.connection import close, connect
from reactive_rpc.backends.postgresql.snapshot import TransactionSnapshot
from reactive_rpc.backends.postgresql.url import Place
from reactive_rpc.dependencies.change import Known
from reactive_rpc.errors import ServiceUnavailableError

__all__ = ["Outbox", "PollResult"]

MAX_STORED_BYTES: Final = 4_000_000
STANDBY: Final = (
    "the database is a standby: its snapshots hide what is under way on the primary, so commits would be missed."
    " Give the primary's address; with several hosts in the URL add target_session_attrs=primary"
)

# A policy that would hide a parent from a look-up becomes an error. The planner would plan each poll anew, which takes
# as long as the poll; and as it does not know the snapshot it must be kept from reading the whole outbox.
_SETTINGS: Final = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "row_security": "off"}

_ROWS: Final = "SELECT id, xid, tbl, op::text AS op, rows FROM reactive_rpc.outbox"
_UNSEEN: Final = f"""
    {_ROWS} WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
    UNION ALL
    {_ROWS} WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))"""
_CUT: Final = """
    SELECT id, xid, tbl, op, rows, sum(pg_column_size(rows)) OVER (ORDER BY id) AS bytes
    FROM unseen ORDER BY id LIMIT $2"""
_SENT: Final = f"""
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        id, xid::text, tbl, op, CASE WHEN bytes <= {MAX_STORED_BYTES} THEN rows::text END,
        coalesce(bytes > {MAX_STORED_BYTES}, false)
    FROM bounded"""
_META: Final = "(SELECT value FROM reactive_rpc.meta WHERE key = '{}')"

_GATE: Final = f"SELECT pg_current_snapshot()::text, {INCARNATION}"
_POLL: Final = f"""
WITH unseen AS MATERIALIZED ({_UNSEEN}
), bounded AS ({_CUT}
)
SELECT pg_current_snapshot()::text AS snapshot, pg_is_in_recovery() AS is_standby, {INCARNATION} AS incarnation,
    {FINGERPRINT} AS schema_fingerprint, {_META.format("epoch")} AS epoch, {_META.format("floor")} AS floor,
    ARRAY(SELECT DISTINCT tbl FROM unseen) AS tables,
    NULL::bigint AS id, NULL::text AS xid, NULL::text AS tbl, NULL::text AS op, NULL::text AS rows, NULL AS is_cut
UNION ALL {_SENT}"""

_BETWEEN: Final = f"""
WITH unseen AS MATERIALIZED (
    SELECT * FROM ({_UNSEEN}) AS later WHERE pg_visible_in_snapshot(xid, $3::text::pg_snapshot)
    LIMIT $4::bigint
), bounded AS ({_CUT}
)
SELECT $3::text AS snapshot, pg_is_in_recovery() AS is_standby, {INCARNATION} AS incarnation, '' AS schema_fingerprint,
    {_META.format("epoch")} AS epoch, {_META.format("floor")} AS floor,
    ARRAY(SELECT DISTINCT tbl FROM unseen) AS tables,
    NULL::bigint AS id, NULL::text AS xid, NULL::text AS tbl, NULL::text AS op, NULL::text AS rows, NULL AS is_cut
UNION ALL {_SENT}"""

_LOCK: Final = "SAVEPOINT unlocked; LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT unlocked"
_END_TRANSACTIONS: Final = "DO $$ BEGIN FOR n IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"


@dataclass(frozen=True, slots=True)
class PollResult:
    """The answer of one statement.

    Attributes:
        snapshot: the one that it saw.
        incarnation: of the server, see `INCARNATION`.
        schema_fingerprint: see `CaptureState.schema_fingerprint`.
        epoch: as meta holds it; empty where it holds none.
        floor: rows of transactions below may have been pruned.
        tables: those that occur in the rows, by name.
        rows: in the order of ids; not all of them where `is_cut`.
        is_cut: whether there were too many.
    """

    snapshot: TransactionSnapshot
    incarnation: str
    schema_fingerprint: str
    epoch: str
    floor: int
    tables: tuple[str, ...]
    rows: tuple[PostgreSQLOutboxRow, ...]
    is_cut: bool


class Outbox:
    """Reads the outbox. One call at a time; a call that was cancelled or failed leaves it fit only for `terminate`.

    Every call may raise one of `FAULTS`.

    Args:
        place: the database.
        timeout_seconds: for each statement.
        max_rows: how many rows are sent at most; the first past it makes the answer cut.
    """

    def __init__(self, place: Place, *, timeout_seconds: float, max_rows: int) -> None:
        self._place = place
        self._timeout_seconds = timeout_seconds
        self._max_rows = max_rows
        self._connection: Any = None  # asyncpg has no types
        self._notified = asyncio.Event()
        self._can_be_notified: bool | None = None
        self._is_armed = False

    @property
    def is_connected(self) -> bool:
        """Tell whether a connection is there, and not known to be lost."""
        return self._connection is not None and not self._connection.is_closed()

    @property
    def is_armed(self) -> bool:
        """Whether writers notify this connection."""
        return self._is_armed

    @property
    def is_notified(self) -> bool:
        """Whether a transaction has committed since this was armed."""
        return self._notified.is_set()

    @property
    def _live(self) -> Any:
        if self._connection is None:
            raise asyncpg.InterfaceError("the connection was closed")
        return self._connection

    async def connect(self) -> None:
        """Connect.

        Raises:
            ServiceUnavailableError: the server is a standby.
        """
        self.terminate()
        self._notified.clear()
        self._connection = await connect(self._place, "log", _SETTINGS, command_timeout=self._timeout_seconds)
        if await self._live.fetchval("SELECT pg_is_in_recovery()"):
            raise ServiceUnavailableError(STANDBY)

    async def close(self) -> None:
        """Say goodbye to the server, or hang up where it does not answer; idempotent."""
        connection = self._let_go()
        if connection is not None:
            await close(connection)

    def terminate(self) -> None:
        """Hang up: whoever waits for an answer gets an error; idempotent."""
        connection = self._let_go()
        if connection is not None:
            connection.terminate()

    def _let_go(self) -> Any:
        connection, self._connection = self._connection, None
        self._can_be_notified, self._is_armed = None, False
        self._notified.set()  # a lost connection is a reason to wake
        return connection

    async def arm(self) -> bool:
        """Have every transaction that writes from now on notify; return whether that can be promised."""
        if self._can_be_notified is None:
            self._can_be_notified = await self._listen()
        if self._can_be_notified and not self._is_armed:
            self._notified.clear()
            self._is_armed = bool(await self._live.fetchval(ARM))
        return self._is_armed

    async def disarm(self) -> bool:
        """Have nobody notify; return whether somebody would."""
        await self._live.execute(DISARM)
        self._is_armed = False
        self._notified.clear()
        return self._is_armed

    async def notified(self, seconds: float) -> bool:
        """Tell whether somebody has notified since this was armed, or does within so long, or the connection is lost.

        It asks nothing of the server, so other calls may be made meanwhile.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._notified.wait()
        return False

    async def _listen(self) -> bool:
        if not await self._live.fetchval(f"SELECT {CAN_NOTIFY}"):
            return False
        connection = self._live

        def lost(_: Any) -> None:
            if connection is self._connection:
                self._notified.set()

        connection.add_termination_listener(lost)
        await connection.add_listener(CHANNEL, lambda *_: self._notified.set())
        return True

    async def is_at(self, polled: PollResult) -> bool:
        """Tell whether nothing was committed since `polled`."""
        snapshot, incarnation = await self._live.fetchrow(_GATE)
        return bool(snapshot == polled.snapshot.text and incarnation == polled.incarnation)

    async def poll(self, after: TransactionSnapshot | None) -> PollResult:
        """Return the rows that are visible now and were not in `after`; no rows where that is None.

        Raises:
            asyncpg.UndefinedTableError: the outbox is gone.
            ServiceUnavailableError: the server is a standby.
        """
        return await self._fetch(_POLL, None if after is None else after.text)

    async def between(
        self, after: TransactionSnapshot, until: TransactionSnapshot, *, at_most: int | None = None
    ) -> PollResult:
        """Return the rows that are visible in `until` and not in `after`; it has no fingerprint.

        Args:
            at_most: of more rows than that, only so many and one are looked at; None looks at all.
        """
        return await self._fetch(_BETWEEN, after.text, until.text, None if at_most is None else at_most + 1)

    @asynccontextmanager
    async def one_snapshot(self) -> AsyncIterator[None]:
        """Let every statement of the block see one snapshot, which the first one but `lock` takes.

        Not asyncpg's own transaction: it would roll back, and wait for that, also on a line that has gone dead.
        """
        await self._live.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        except asyncpg.PostgresError:
            await self._live.execute("ROLLBACK")
            raise
        await self._live.execute("COMMIT")

    async def lock(self, table: str) -> None:
        """Keep everybody from altering a table until `one_snapshot` ends; nobody is waited for.

        Args:
            table: an SQL identifier.

        Raises:
            asyncpg.LockNotAvailableError: somebody alters it; the transaction goes on.
            asyncpg.PostgresError: it cannot be locked, or is not there; the transaction goes on.
        """
        try:
            await self._live.execute(_LOCK.format(table))
        except asyncpg.PostgresError:
            await self._live.execute("ROLLBACK TO SAVEPOINT unlocked")
            raise

    async def pairs(self, sql: str, keys: Collection[Known]) -> list[tuple[Any, Any]]:
        """Return the pairs of JSON values that `sql` selects for `keys`, its only parameter."""
        rows = await self._live.fetch(sql, list(keys))
        return [(_loaded(first), _loaded(second)) for first, second in rows]

    async def end_transactions(self, count: int) -> None:
        """Begin and end transactions that write nothing: each raises the version by one."""
        await self._live.execute(_END_TRANSACTIONS.format(int(count)))

    async def _fetch(self, sql: str, after: str | None, *until: str | int | None) -> PollResult:
        records = await self._live.fetch(sql, after, self._max_rows + 1, *until)
        head = next(record for record in records if record["snapshot"] is not None)
        if head["is_standby"]:
            raise ServiceUnavailableError(STANDBY)
        snapshot = TransactionSnapshot.parse(head["snapshot"])
        if snapshot is None:
            raise asyncpg.InternalClientError(f"{head['snapshot']!r} is no snapshot")
        sent = sorted((record for record in records if record["id"] is not None), key=lambda record: record["id"])
        return PollResult(
            snapshot=snapshot,
            incarnation=head["incarnation"],
            schema_fingerprint=head["schema_fingerprint"],
            epoch=head["epoch"] or "",
            floor=int(head["floor"] or 0),
            tables=tuple(sorted(head["tables"])),
            rows=tuple(
                PostgreSQLOutboxRow(row["id"], int(row["xid"]), row["tbl"], row["op"], row["rows"]) for row in sent
            ),
            is_cut=len(sent) > self._max_rows or any(row["is_cut"] for row in sent),
        )


def _loaded(value: str | None) -> Any:
    return None if value is None else json.loads(value)
