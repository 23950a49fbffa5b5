"""The log of a PostgreSQL database: its outbox, read after a snapshot.

A `pg_snapshot` says which transactions were over when it was taken, so it is an exact cursor where no number could be:
transactions commit in another order than they take ids. The version is how many transactions are over, but for a
constant. `sync_to_head` returns when a poll has ended that was sent after the call; polls are shared by a barrier.

docs/internals/postgresql.md says why that is exact, what follows from a crash, a restored copy and a flush, and how
virtual columns are looked up in the snapshot that shows the rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.images import decode, decode_value, value_sql
from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.backends.postgresql.connection import FAULTS
from reactive_rpc.backends.postgresql.outbox import Outbox, PollResult
from reactive_rpc.backends.postgresql.snapshot import TransactionSnapshot
from reactive_rpc.backends.postgresql.url import Place, place_name
from reactive_rpc.backends.postgresql.wake_up import NotifiedWakeUp
from reactive_rpc.changes.barrier import Barrier
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, BaseLog, LogLimits
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.log import Batch
from reactive_rpc.changes.parent_values import (
    Parents,
    by_key,
    enriched,
    followed,
    keys_of,
    keys_to_look_up,
    lookups_of,
    most_parents,
)
from reactive_rpc.dependencies.change import Change, Known
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.statements.concealment import said_by

__all__ = ["PostgreSQLLog"]

SENT_FACTOR: Final = 4
"""How many times as many rows are sent as changes are taken in, so that tables with few changes keep theirs."""
RECONCILE_ATTEMPTS: Final = 10
MAX_EMPTY_TRANSACTIONS: Final = 100_000
"""How many are run to catch up with a version of before: about a second's worth."""

UNREADABLE: Final = "the database cannot be read: try again later"
"""Said to callers; the cause is chained, for the log."""
TRUST: Final = "if you trust it, GRANT it this role: docs/explanation/security.md"

_KEYS: Final[Mapping[ColumnKind, str]] = {
    "integer": "$1::bigint[]",
    "text": "$1::text[]",
    "label": "$1::text[]",
    "uuid": "$1::text[]::uuid[]",
}
"""How keys are handed over so that the parent's index can be used; keys of other kinds are not looked up."""

_log = logging.getLogger(__name__)


class PostgreSQLLog(BaseLog):
    """The changes of one PostgreSQL database; a `Log`. Used on one event loop; not safe across threads.

    Args:
        capture: installs, verifies and decodes.
        place: of the database; the log has one connection of its own, and one more while clients resume.
        limits: those of this log; a statement may take as long as it may wait.
    """

    def __init__(self, capture: PostgreSQLCapture, place: Place, limits: LogLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._capture = capture
        self._name = place_name(place)
        self._outbox = Outbox(
            place, timeout_seconds=limits.timeout_seconds, max_rows=SENT_FACTOR * limits.bulk_threshold
        )
        self._refused: set[Lookup] = set()
        self._last: PollResult | None = None
        self._is_reconnected = False
        self._expects_changes = False
        self._lock = asyncio.Lock()
        self._wake_up = NotifiedWakeUp(self._outbox, self._lock)
        self._replayed = Outbox(
            place, timeout_seconds=limits.timeout_seconds, max_rows=SENT_FACTOR * limits.bulk_threshold
        )
        self._replaying = asyncio.Lock()
        self._replays = 0
        self._barrier = Barrier(self._sync_locked, "poll")

    def cursor_at(self, version: int) -> Cursor:
        """Return the cursor of a version; its position may be an earlier one's, which tells more.

        Without a position, where none so old is remembered, it is a gap to whoever reads after it.
        """
        return Cursor(self.epoch, version, self._history.position_at(version))

    async def open(self) -> None:
        """Install (or, where capture does not manage the schema, verify) and stand at the end of the log; idempotent.

        Raises:
            CaptureError: nothing can be captured, with the way out.
            ServiceUnavailableError: the database cannot be read, or is a standby.
        """
        if self._state is not None:
            return
        async with self._lock:
            with self._hanging_up(f"{self._name} cannot be read: {{}}"):
                # It refuses a session that others share, before anything is set for ours.
                state = await asyncio.to_thread(self._capture.install)
                await self._connect()
                state, polled, _ = await self._reconcile(state, None)
        self._stand_at(polled)
        self._version = polled.snapshot.version
        self._last, self._state, self._invalidation_reason = _without_rows(polled), state, None

    async def aclose(self) -> None:
        """Close the connection; idempotent. The log can be opened again."""
        self._state = None
        if self._barrier.is_busy:
            self._outbox.terminate()
            await self._barrier.drain()
        self._replayed.terminate()
        await self._outbox.close()

    async def sync_to_head(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        await self._barrier.wait()
        return self._version

    def expect_changes(self) -> None:
        """Spare the next poll the question whether anything was committed."""
        self._expects_changes = True

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return the changes that were committed after `cursor` up to `version`; None is a gap.

        A gap is: another epoch, a cursor without a position or with one that no server spells, one ahead of `version`,
        one below the retention floor, or more than `at_most`.

        Changes that memory does not hold are read over a connection of its own, which is there while anybody needs it,
        and decoded in a thread: polls must not wait for it, nor the event loop.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        place = TransactionSnapshot.parse(cursor.position)
        if not self._outbox.is_connected or self._is_reconnected:
            async with self._lock:
                await self._sync()
        state, last, until = self.schema, self._last, self._version
        if place is None or last is None or cursor.epoch != state.epoch:
            return None
        if cursor.version > until or place.xmax > last.snapshot.xmax:
            return None
        reaches, remembered = self._remembered(cursor.version, at_most)
        if reaches and self._history.is_at(cursor.version, cursor.position):
            return remembered
        polled = await self._between(place, last.snapshot, at_most)
        # INVARIANT (a position is held against the floor when it is used): the epoch outlives a flush of our own.
        if polled.epoch != state.epoch or polled.floor > place.xmin or _is_restarted(polled, last):
            return None
        if at_most is not None and (polled.is_cut or len(polled.rows) > at_most):
            return None
        found = await asyncio.to_thread(self._changes, polled, state)
        since = self.changes_since(until)  # applied while we read
        if since is None or self._state is None or self._state.epoch != state.epoch:
            return None
        return None if at_most is not None and len(found) + len(since) > at_most else (*found, *since)

    async def _between(self, after: TransactionSnapshot, until: TransactionSnapshot, at_most: int | None) -> PollResult:
        self._replays += 1
        try:
            async with self._replaying:
                if not self._replayed.is_connected:
                    await self._replayed.connect()
                return await self._replayed.between(after, until, at_most=at_most)
        except BaseException as exc:
            self._replayed.terminate()
            if isinstance(exc, FAULTS):
                raise ServiceUnavailableError(UNREADABLE) from exc
            raise
        finally:
            self._replays -= 1
            if not self._replays:
                await self._replayed.close()

    async def _sync_locked(self) -> None:
        async with self._lock:
            await self._sync()

    async def _sync(self) -> None:
        state, last = self.schema, self._last
        with self._hanging_up():
            if not self._outbox.is_connected:
                await self._connect()
            try:
                reconciled, polled, changes = await self._reconcile(state, last)
            except CaptureError as exc:
                raise ServiceUnavailableError("writes to the database cannot be captured any more") from exc
        if self._state is None:
            raise ServiceUnavailableError("the log was closed")
        reason = self._reason_to_flush(state, reconciled, polled)
        self._is_reconnected = False
        self._state = reconciled
        if reason is not None:
            self._flush(polled, reason)
        elif last is None or polled.snapshot != last.snapshot:
            self._advance(polled, changes)

    def _reason_to_flush(self, before: CaptureState, now: CaptureState, polled: PollResult) -> str | None:
        if now.epoch != before.epoch:
            return self._invalidation_reason or "capture was installed anew, or another worker flushed"
        if self._last is not None and polled.floor > self._last.snapshot.xmin:
            return "changes were pruned before they were read"
        return self._invalidation_reason

    def _flush(self, polled: PollResult, reason: str) -> None:
        version = polled.snapshot.version
        self._invalidation_reason = None
        self._refused.clear()
        self._stand_at(polled)
        # INVARIANT (notified, then counted): `version` never names what has not been applied.
        self._notify(Batch(version, flush=reason))
        self._version, self._last = version, _without_rows(polled)

    def _advance(self, polled: PollResult, changes: tuple[Change, ...]) -> None:
        version = polled.snapshot.version
        self._history.append(version, changes, position=polled.snapshot.position)
        if changes:
            self._notify(Batch(version, changes))
        self._version, self._last = version, _without_rows(polled)

    def _stand_at(self, polled: PollResult) -> None:
        """Forget the history: the next change lies after `polled`."""
        self._history.restart(polled.snapshot.version, position=polled.snapshot.position)

    async def _reconcile(
        self, state: CaptureState, last: PollResult | None
    ) -> tuple[CaptureState, PollResult, tuple[Change, ...]]:
        """Return a look and its changes, with the state that capture verified at the same fingerprint and epoch.

        Args:
            state: verified last.
            last: applied last; None reads no rows.

        Raises:
            ServiceUnavailableError: schema or epoch changed again at every attempt, or the database went back too far.
        """
        known_epoch = state.epoch
        for _ in range(RECONCILE_ATTEMPTS):
            is_same_epoch = state.epoch == known_epoch
            try:
                polled, changes = await self._poll(state, last if is_same_epoch else None)
            except asyncpg.UndefinedTableError:
                state = await self._refresh()
                continue
            if not is_same_epoch and last is not None and polled.snapshot.version <= last.snapshot.version:
                await self._raise_version(last.snapshot.version - polled.snapshot.version + 1)
            elif not _is_verified(polled, state) or (is_same_epoch and _is_restarted(polled, last)):
                state = await self._refresh()
            elif is_same_epoch and _is_reversed(polled, last):
                _log.warning("the database went back to an earlier state: a new epoch begins")
                state = await self._refresh(renew=True)
            else:
                return state, polled, changes
        raise ServiceUnavailableError("the schema of the database keeps changing: try again later")

    async def _poll(self, state: CaptureState, last: PollResult | None) -> tuple[PollResult, tuple[Change, ...]]:
        """Poll after `last`; return the changes, too, where they can be decoded by `state`."""
        if last is not None and not self._must_poll and await self._outbox.is_at(last):
            return last, ()
        after = None if last is None else last.snapshot
        self._expects_changes = False
        polled = await self._outbox.poll(after)
        if not _is_verified(polled, state):
            return polled, ()
        if polled.is_cut or not (lookups := self._lookups(polled.tables, state)):
            return polled, self._changes(polled, state)
        async with self._outbox.one_snapshot():
            locked = await self._lock_parents(lookups, state)
            # INVARIANT: parents are locked before this statement takes the snapshot.
            polled = await self._outbox.poll(after)
            if not _is_verified(polled, state):
                return polled, ()
            return polled, await self._enriched(self._changes(polled, state), locked, state)

    def _lookups(self, tables: Iterable[str], state: CaptureState) -> list[Lookup]:
        """Return the look-ups that images of `tables` should hold and that may be made."""
        lookups = [lookup for lookup in lookups_of(tables, self._wanted, state) if _has_known_keys(lookup, state)]
        for lookup in lookups:
            strangers = (state.tables[hop.parent].stranger for hop in lookup.hops)
            stranger = next((each for each in strangers if each is not None), None)
            if stranger is not None:
                self._refuse(lookup, f"what {stranger!r} defines there would run with this role's rights ({TRUST})")
        return [lookup for lookup in lookups if lookup not in self._refused]

    def _refuse(self, lookup: Lookup, reason: str) -> None:
        if lookup not in self._refused:
            _log.warning("%s cannot be looked up, so it counts as unknown: %s", lookup.name, reason)
            self._refused.add(lookup)

    async def _lock_parents(self, lookups: Collection[Lookup], state: CaptureState) -> frozenset[str]:
        """Lock the parents and return those that could be locked."""
        locked = set()
        for parent in {hop.parent for lookup in lookups for hop in lookup.hops}:
            try:
                await self._outbox.lock(state.tables[parent].identifier)
            except asyncpg.LockNotAvailableError:
                continue
            except asyncpg.PostgresError as exc:
                if not self._outbox.is_connected:
                    raise
                for lookup in lookups:
                    if any(hop.parent == parent for hop in lookup.hops):
                        self._refuse(lookup, said_by(exc))
            else:
                locked.add(parent)
        return frozenset(locked)

    @property
    def _must_poll(self) -> bool:
        """Whether an unchanged snapshot is not enough, of another database it says nothing; or will not be found.

        Whoever has just committed is most likely to have changed it. The answer to the poll is as exact as that to the
        question, so it does not matter who takes the hint.
        """
        if self._expects_changes or self._outbox.is_notified:
            return True
        return self._invalidation_reason is not None or self._is_reconnected

    def _changes(self, polled: PollResult, state: CaptureState) -> tuple[Change, ...]:
        """Return the changes; of the tables that have too many, one each.

        So few rows are decoded and matched that the event loop is not held up. The tables that have the least to be
        read keep theirs.
        """
        if polled.is_cut:
            return _bulk(polled.tables)
        sizes: Counter[str] = Counter()
        for row in polled.rows:
            sizes[row.table] += len(row.rows or "")
        decoded: dict[str, list[tuple[Change, ...]]] = {}
        room = self._limits.bulk_threshold
        for table in sorted(sizes, key=lambda name: (sizes[name], name)):
            decoded[table] = []
            for row in (row for row in polled.rows if row.table == table and room >= 0):
                decoded[table].append(decode(row, state))
                room -= len(decoded[table][-1])
            if room < 0:
                del decoded[table]
                break
        narrow = {table: iter(found) for table, found in decoded.items()}
        in_order = (change for row in polled.rows if row.table in narrow for change in next(narrow[row.table]))
        return (*_bulk(tuple(sorted(sizes.keys() - decoded.keys()))), *in_order)

    async def _enriched(
        self, changes: tuple[Change, ...], parents: Set[str], state: CaptureState
    ) -> tuple[Change, ...]:
        """Add the virtual columns that are wanted; within the transaction that read the rows.

        Args:
            parents: the tables that may be looked into.
        """
        tables = dict.fromkeys(change.table for change in changes if change.operation != "bulk")
        lookups = [
            lookup for lookup in self._lookups(tables, state) if all(hop.parent in parents for hop in lookup.hops)
        ]
        found: dict[Lookup, Parents] = {}
        for lookup, keys in keys_to_look_up(changes, lookups, state).items():
            try:
                values = await self._parents(lookup, keys, state)
            except (asyncpg.PostgresError, asyncpg.DataError) as exc:
                if not self._outbox.is_connected:
                    raise
                self._refuse(lookup, said_by(exc))
                break  # the transaction shows nothing more
            if values is not None:
                found[lookup] = values
        return enriched(changes, found, state)

    async def _parents(self, lookup: Lookup, keys: frozenset[Known], state: CaptureState) -> Parents | None:
        """Return `{key: the parents' values}`, or those of their own parents; None if they are too many."""
        found = await self._values(lookup, keys, state)
        if found is None or lookup.further is None:
            return found
        steps = keys_of(found)
        further = None if steps is None else await self._parents(lookup.further, steps, state)
        return None if further is None else followed(found, further)

    async def _values(self, lookup: Lookup, keys: frozenset[Known], state: CaptureState) -> Parents | None:
        if not keys:
            return {}
        parent = state.tables[lookup.parent]
        kinds = parent.kinds[lookup.key], parent.kinds[lookup.value]
        most = most_parents(keys)
        pairs = await self._outbox.pairs(_parents_sql(lookup, state, most), keys)
        return by_key(((decode_value(kinds[0], key), decode_value(kinds[1], value)) for key, value in pairs), most)

    async def _refresh(self, *, renew: bool = False) -> CaptureState:
        try:
            return await asyncio.to_thread(self._capture.refresh, renew=renew, at_least=self._version)
        except ServiceUnavailableError as exc:  # its words name the server
            raise ServiceUnavailableError(UNREADABLE) from exc

    async def _raise_version(self, count: int) -> None:
        if count > MAX_EMPTY_TRANSACTIONS:
            raise ServiceUnavailableError(
                f"the database went back by {count} transactions: restart this process, so that it forgets what it knew"
            )
        await self._outbox.end_transactions(count)

    async def _connect(self) -> None:
        await self._outbox.connect()
        self._is_reconnected = True

    @contextmanager
    def _hanging_up(self, message: str = UNREADABLE) -> Iterator[None]:
        """Turn failures into the errors of the contract, and begin anew on another connection.

        Args:
            message: of the error; `{}` stands for the cause.
        """
        try:
            yield
        except FAULTS as exc:
            self._outbox.terminate()
            raise ServiceUnavailableError(message.replace("{}", str(exc) or "it does not answer")) from exc
        except BaseException:
            self._outbox.terminate()
            raise


def _is_verified(polled: PollResult, state: CaptureState) -> bool:
    # INVARIANT (rows are applied only by a state that was verified at the same fingerprint and epoch): if the schema
    # was another one when they were read, the driver would see what the server did not do.
    return polled.schema_fingerprint == state.schema_fingerprint and polled.epoch == state.epoch


def _without_rows(polled: PollResult) -> PollResult:
    return replace(polled, rows=(), tables=())


def _parents_sql(lookup: Lookup, state: CaptureState, most: int) -> str:
    """Return the statement that selects key and value of one parent more than `most`; the keys are its parameter."""
    parent = state.tables[lookup.parent]
    keys = _KEYS[parent.kinds[lookup.key] or "text"]
    key, value = (value_sql(parent, "p", column) for column in (lookup.key, lookup.value))
    return (
        f"SELECT {key}::text, {value}::text FROM {parent.identifier} AS p WHERE p.{quoted(lookup.key)} = ANY ({keys})"
        f" LIMIT {most + 1}"
    )


def _has_known_keys(lookup: Lookup, state: CaptureState) -> bool:
    """Tell whether keys can be handed over as they are compared; a text is no key of an enum's."""
    parents = ((state.tables[hop.parent], hop.key) for hop in lookup.hops)
    return all(parent.kinds[key] in _KEYS and key not in parent.enums for parent, key in parents)


def _is_restarted(polled: PollResult, last: PollResult | None) -> bool:
    """Tell whether transaction ids may have been given out again since `last`; capture then begins a new epoch."""
    return last is not None and polled.incarnation != last.incarnation


def _is_reversed(polled: PollResult, last: PollResult | None) -> bool:
    """Tell whether fewer transactions are over than in `last`, which a server that runs cannot do."""
    if last is None:
        return False
    return polled.snapshot.version < last.snapshot.version or polled.snapshot.xmax < last.snapshot.xmax


def _bulk(tables: tuple[str, ...]) -> tuple[Change, ...]:
    return tuple(Change(table=table, operation="bulk") for table in tables)
