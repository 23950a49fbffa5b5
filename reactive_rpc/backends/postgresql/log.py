"""The log of a PostgreSQL database: its outbox, read after a snapshot.

**Why a snapshot is an exact cursor.** Transactions commit in another order than they take ids, so no number orders the
rows: a `max(id)` cursor misses whatever commits late with a low id. A `pg_snapshot` says which transactions were over
when it was taken. What is new since is what a later snapshot shows of the others: `xid >= xmax`, or `xid` among those
that were under way. `xid` is the id of the whole transaction, in savepoints and prepared transactions too, and both
stand among those under way until they end. Nobody waits for a long transaction, and nothing is seen twice.

**The version** is `xmax` less the number of transactions under way: how many are over, but for a constant. Snapshots of
one server are totally ordered in time (they are taken, and transactions end, under one lock), each later one shows all
that an earlier one shows, and every transaction that ends raises the version by at least one. So a reader whose own
snapshot has at least our version sees at least what we have applied.

**Why a poll is enough for promise 1.** A commit is visible to snapshots before it is acknowledged, and the statement of
a poll takes its snapshot after it was sent. `fresh` therefore returns when a poll has ended that was sent after the
call. Whoever asks while one is under way waits for the next, and shares it with all who ask until it begins; it belongs
to none of them, so none can cancel it.

**Order.** Within a batch, rows come by id. Two transactions that write the same row exclude each other until commit,
so there ids ascend in commit order; where they do not, the writes do not touch, and no order tells them apart.

**What the driver sees is what the server did.** Rows are applied only if fingerprint and epoch, read in the statement
that shows them, are those that capture has verified; else capture looks again and everything is read anew. An unchanged
snapshot needs no look: DDL commits too.

**A crash** takes back what had been visible and not yet been flushed to disk, and gives the same transaction ids out
again: of commits with `synchronous_commit=off`, and, whatever the settings, of transactions that were rolled back. A
cursor from before would take the new ones for known. So would one from before an older copy of the files was put in
place. Both take a restart, of the whole server or (a crash of one backend) of all but its postmaster, which then drops
the statistics. So the time of its start and that of the last reset of the statistics name its incarnation, and for
another one capture begins a new epoch. After a mere loss of the connection we go on where we were.

**A new epoch needs a higher version**, or a result begun before the flush would pass for one of after it. A restored
database may have gone back; the missing transactions are then run empty. Where it has gone back so far that this would
take long, the log refuses to go on: a new process starts without a past.

**A flush of our own.** Rows that were pruned before we read them, or a subscriber that failed, concern nobody else. The
epoch stays, so other workers and their clients are left in peace: our subscribers forget everything, `changes_since`
forgets with them, and positions of this epoch keep their meaning, because each is held against the floor when it is
used.

**Look-ups** need the batch's snapshot in further statements. So a poll that finds rows whose images want virtual
columns is thrown away, and done again in a REPEATABLE READ transaction with the look-ups in it. A snapshot does not
keep a table from being emptied, or exchanged for another or for a view, between that poll and the look-up: a name means
what it means when its statement is sent. So the parents are locked before the snapshot is taken. As the snapshot's
fingerprint is the verified one, the table that is locked is the one that was verified, and it stays as it is. A parent
that cannot be locked at once is unknown: a poll waits for nobody's migration. So is a stranger's, as a look-up would
run code of theirs (`capture/owner.py`).

Rejected: NOTIFY in the writing transaction (it serialises commits), logical decoding (it needs a slot for each worker,
which holds WAL back when a worker dies), a cursor by xmin (one long transaction delays everything).
"""

from __future__ import annotations

import asyncio
import logging
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
from reactive_rpc.changes.barrier import Barrier
from reactive_rpc.changes.base_log import DEFAULT_LIMITS, BaseLog, LogLimits
from reactive_rpc.changes.captured_schema import CaptureState
from reactive_rpc.changes.log import Batch
from reactive_rpc.changes.parent_values import by_key, enriched, keys_to_look_up, lookups_of
from reactive_rpc.dependencies.change import Change, Known, Unknown, Value
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.errors import CaptureError, ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.statements.concealment import said_by

__all__ = ["PostgreSQLLog"]

SETTLE_ATTEMPTS: Final = 10
MAX_EMPTY_TRANSACTIONS: Final = 100_000
"""How many are run to catch up with a version of before: about a second's worth."""

UNREADABLE: Final = "the database cannot be read: try again later"
"""What callers are told; the cause is chained, for the log."""
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
        capture: what installs, verifies and decodes.
        place: of the database; the log has one connection of its own, and one more while clients resume.
        limits: those of this log; a statement may take as long as it may wait.
    """

    def __init__(self, capture: PostgreSQLCapture, place: Place, limits: LogLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._capture = capture
        self._name = place_name(place)
        self._outbox = Outbox(place, timeout_seconds=limits.timeout_seconds, max_rows=limits.bulk_threshold)
        self._refused: set[Lookup] = set()
        self._last: PollResult | None = None
        self._is_reconnected = False
        self._lock = asyncio.Lock()
        self._replayed = Outbox(place, timeout_seconds=limits.timeout_seconds, max_rows=limits.bulk_threshold)
        self._replaying = asyncio.Lock()
        self._replays = 0
        self._barrier = Barrier(self._poll, "poll")

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
                state, look, _ = await self._settle(state, None)
        self._stand_at(look)
        self._version = look.snapshot.version
        self._last, self._state, self._doubt = _without_rows(look), state, None

    async def aclose(self) -> None:
        """Close the connection; idempotent. The log can be opened again."""
        self._state = None
        if self._barrier.is_busy:
            self._outbox.terminate()
            await self._barrier.drain()
        self._replayed.terminate()
        await self._outbox.close()

    async def fresh(self) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        await self._barrier.wait()
        return self._version

    async def read_after(self, cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        """Return what was committed after `cursor` up to `version`; None is a gap.

        A gap is: another epoch, a cursor without a position or with one that no server spells, one ahead of `version`,
        one below what is kept, or more than `at_most`.

        What memory does not hold is read over a connection of its own, which is there for as long as anybody needs it,
        and decoded in a thread: polls must not wait for it, nor the event loop.

        Raises:
            ServiceUnavailableError: the database cannot be read.
        """
        place = TransactionSnapshot.parse(cursor.position)
        if not self._outbox.is_connected or self._is_reconnected:
            async with self._lock:
                await self._catch_up()
        state, last, until = self.schema, self._last, self._version
        if place is None or last is None or cursor.epoch != state.epoch:
            return None
        if cursor.version > until or place.xmax > last.snapshot.xmax:
            return None
        reaches, remembered = self._remembered(cursor.version, at_most)
        if reaches and self._history.is_at(cursor.version, cursor.position):
            return remembered
        look = await self._between(place, last.snapshot, at_most)
        if look.epoch != state.epoch or look.floor > place.xmin or _is_restarted(look, last):
            return None
        if at_most is not None and (look.is_cut or len(look.rows) > at_most):
            return None
        found = await asyncio.to_thread(self._changes, look, state)
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

    async def _poll(self) -> None:
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        state, last = self.schema, self._last
        with self._hanging_up():
            if not self._outbox.is_connected:
                await self._connect()
            try:
                settled, look, changes = await self._settle(state, last)
            except CaptureError as exc:
                raise ServiceUnavailableError("writes to the database cannot be captured any more") from exc
        if self._state is None:
            raise ServiceUnavailableError("the log was closed")
        reason = self._reason_to_flush(state, settled, look)
        self._is_reconnected = False
        self._state = settled
        if reason is not None:
            self._flush(look, reason)
        elif last is None or look.snapshot != last.snapshot:
            self._advance(look, changes)

    def _reason_to_flush(self, before: CaptureState, now: CaptureState, look: PollResult) -> str | None:
        if now.epoch != before.epoch:
            return self._doubt or "capture was installed anew, or another worker flushed"
        if self._last is not None and look.floor > self._last.snapshot.xmin:
            return "changes were pruned before they were read"
        return self._doubt

    def _flush(self, look: PollResult, reason: str) -> None:
        version = look.snapshot.version
        self._doubt = None
        self._refused.clear()
        self._stand_at(look)
        self._tell(Batch(version, flush=reason))
        self._version, self._last = version, _without_rows(look)

    def _advance(self, look: PollResult, changes: tuple[Change, ...]) -> None:
        version = look.snapshot.version
        self._history.append(version, changes, position=look.snapshot.position)
        if changes:
            self._tell(Batch(version, changes))
        self._version, self._last = version, _without_rows(look)

    def _stand_at(self, look: PollResult) -> None:
        """Forget the history: what comes next lies after `look`."""
        self._history.restart(look.snapshot.version, position=look.snapshot.position)

    async def _settle(
        self, state: CaptureState, last: PollResult | None
    ) -> tuple[CaptureState, PollResult, tuple[Change, ...]]:
        """Return a look and its changes, with the state that capture verified at the same fingerprint and epoch.

        Args:
            state: what was verified last.
            last: what was applied last; None reads no rows.

        Raises:
            ServiceUnavailableError: schema or epoch changed again at every attempt, or the database went back too far.
        """
        known_epoch = state.epoch
        for _ in range(SETTLE_ATTEMPTS):
            is_same_epoch = state.epoch == known_epoch
            try:
                look, changes = await self._look(state, last if is_same_epoch else None)
            except asyncpg.UndefinedTableError:
                state = await self._refresh()
                continue
            if not is_same_epoch and last is not None and look.snapshot.version <= last.snapshot.version:
                await self._catch_up_version(last.snapshot.version - look.snapshot.version + 1)
            elif not _is_verified(look, state) or (is_same_epoch and _is_restarted(look, last)):
                state = await self._refresh()
            elif is_same_epoch and _is_reversed(look, last):
                _log.warning("the database went back to an earlier state: a new epoch begins")
                state = await self._refresh(renew=True)
            else:
                return state, look, changes
        raise ServiceUnavailableError("the schema of the database keeps changing: try again later")

    async def _look(self, state: CaptureState, last: PollResult | None) -> tuple[PollResult, tuple[Change, ...]]:
        """Read what came after `last`; its changes, where they can be decoded by `state`."""
        if last is not None and not self._must_look and await self._outbox.is_at(last):
            return last, ()
        after = None if last is None else last.snapshot
        look = await self._outbox.poll(after)
        if not _is_verified(look, state):
            return look, ()
        if look.is_cut or not (lookups := self._lookups(look.tables, state)):
            return look, self._changes(look, state)
        async with self._outbox.one_snapshot():
            locked = await self._lock_parents(lookups, state)
            # INVARIANT: parents are locked before this statement takes the snapshot.
            look = await self._outbox.poll(after)
            if not _is_verified(look, state):
                return look, ()
            return look, await self._enriched(self._changes(look, state), locked, state)

    def _lookups(self, tables: Iterable[str], state: CaptureState) -> list[Lookup]:
        """Return the look-ups that images of `tables` should hold and that may be made."""
        lookups = [lookup for lookup in lookups_of(tables, self._wanted, state) if _has_known_keys(lookup, state)]
        for lookup in lookups:
            stranger = state.tables[lookup.parent].stranger
            if stranger is not None:
                self._refuse(lookup, f"what {stranger!r} defines there would run with this role's rights ({TRUST})")
        return [lookup for lookup in lookups if lookup not in self._refused]

    def _refuse(self, lookup: Lookup, reason: str) -> None:
        if lookup not in self._refused:
            _log.warning("%s cannot be looked up, so it counts as unknown: %s", lookup.name, reason)
            self._refused.add(lookup)

    async def _lock_parents(self, lookups: Collection[Lookup], state: CaptureState) -> frozenset[str]:
        """Lock what is looked into and return the tables that could be."""
        locked = set()
        for parent in {lookup.parent for lookup in lookups}:
            try:
                await self._outbox.lock(state.tables[parent].identifier)
            except asyncpg.LockNotAvailableError:
                continue
            except asyncpg.PostgresError as exc:
                if not self._outbox.is_connected:
                    raise
                for lookup in lookups:
                    if lookup.parent == parent:
                        self._refuse(lookup, said_by(exc))
            else:
                locked.add(parent)
        return frozenset(locked)

    @property
    def _must_look(self) -> bool:
        """Whether an unchanged snapshot is not enough: of another database it says nothing."""
        return self._doubt is not None or self._is_reconnected

    def _changes(self, look: PollResult, state: CaptureState) -> tuple[Change, ...]:
        if look.is_cut:
            return _bulk(look.tables)
        changes: list[Change] = []
        for row in look.rows:
            changes.extend(decode(row, state))
            if len(changes) > self._limits.bulk_threshold:
                return _bulk(look.tables)
        return tuple(changes)

    async def _enriched(
        self, changes: tuple[Change, ...], parents: Set[str], state: CaptureState
    ) -> tuple[Change, ...]:
        """Add the virtual columns that are wanted; within the transaction that read the rows.

        Args:
            parents: the tables that may be looked into.
        """
        tables = dict.fromkeys(change.table for change in changes if change.operation != "bulk")
        lookups = [lookup for lookup in self._lookups(tables, state) if lookup.parent in parents]
        found: dict[Lookup, dict[Known, Value | Unknown]] = {}
        for lookup, keys in keys_to_look_up(changes, lookups, state).items():
            try:
                found[lookup] = await self._parents(lookup, keys, state)
            except (asyncpg.PostgresError, asyncpg.DataError) as exc:
                if not self._outbox.is_connected:
                    raise
                self._refuse(lookup, said_by(exc))
                break  # the transaction shows nothing more
        return enriched(changes, found, state)

    async def _parents(
        self, lookup: Lookup, keys: frozenset[Known], state: CaptureState
    ) -> dict[Known, Value | Unknown]:
        if not keys:
            return {}
        parent = state.tables[lookup.parent]
        kinds = parent.kinds[lookup.key], parent.kinds[lookup.value]
        pairs = await self._outbox.pairs(_parents_sql(lookup, state), keys)
        return by_key((decode_value(kinds[0], key), decode_value(kinds[1], value)) for key, value in pairs)

    async def _refresh(self, *, renew: bool = False) -> CaptureState:
        try:
            return await asyncio.to_thread(self._capture.refresh, renew=renew, at_least=self._version)
        except ServiceUnavailableError as exc:  # its words name the server
            raise ServiceUnavailableError(UNREADABLE) from exc

    async def _catch_up_version(self, count: int) -> None:
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
        """Turn what goes wrong into the errors of the contract, and begin anew on another connection.

        Args:
            message: what the error says; `{}` stands for the cause.
        """
        try:
            yield
        except FAULTS as exc:
            self._outbox.terminate()
            raise ServiceUnavailableError(message.replace("{}", str(exc) or "it does not answer")) from exc
        except BaseException:
            self._outbox.terminate()
            raise


def _is_verified(look: PollResult, state: CaptureState) -> bool:
    return look.mark == state.schema_fingerprint and look.epoch == state.epoch


def _without_rows(look: PollResult) -> PollResult:
    return replace(look, rows=(), tables=())


def _parents_sql(lookup: Lookup, state: CaptureState) -> str:
    """Return the statement that selects key and value of the parents; the keys are its parameter."""
    parent = state.tables[lookup.parent]
    keys = _KEYS[parent.kinds[lookup.key] or "text"]
    key, value = (value_sql(parent, "p", column) for column in (lookup.key, lookup.value))
    return (
        f"SELECT {key}::text, {value}::text FROM {parent.identifier} AS p WHERE p.{quoted(lookup.key)} = ANY ({keys})"
    )


def _has_known_keys(lookup: Lookup, state: CaptureState) -> bool:
    """Tell whether keys can be handed over as they are compared; a text is no key of an enum's."""
    parent = state.tables[lookup.parent]
    return parent.kinds[lookup.key] in _KEYS and lookup.key not in parent.enums


def _is_restarted(look: PollResult, last: PollResult | None) -> bool:
    """Tell whether transaction ids may have been given out again since `last`; capture then begins a new epoch."""
    return last is not None and look.incarnation != last.incarnation


def _is_reversed(look: PollResult, last: PollResult | None) -> bool:
    """Tell whether fewer transactions are over than in `last`, which a server that runs cannot do."""
    if last is None:
        return False
    return look.snapshot.version < last.snapshot.version or look.snapshot.xmax < last.snapshot.xmax


def _bulk(tables: tuple[str, ...]) -> tuple[Change, ...]:
    return tuple(Change(table=table, operation="bulk") for table in tables)
