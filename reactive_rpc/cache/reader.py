"""The reader: answers queries from the store, and never with anything stale.

**The promise (G1).** An answer reflects every write that was acknowledged before the request arrived.

*A hit.* `get` first awaits `log.fresh()`: every commit acknowledged before that call has then been applied, that is,
every entry it touches has left the store. What is still there is right.

*A miss.* The flight reads `s0 = log.version`, and only then begins its transaction, so its snapshot holds at least
s0. While the handler runs, the log goes on; what it applies cannot invalidate the result, which is not indexed yet.
So when the handler is done, the changes of (s0, now] are held against its read set: touched, and the result is
served (its snapshot began after the request arrived) but not stored. Untouched, it is indexed in the same step of the
event loop, and from then on the log finds it. Checking, indexing and storing must never be parted by an `await`.

*A shared flight.* A request that finds a flight under way may join it only if the flight's snapshot is late enough:
`s0 >= version` where `version` is what `fresh()` has just returned. Otherwise it starts another, which replaces it.
A flight that turns out to be opaque read what no version speaks of, so whoever joined it computes for itself.

*Touched* is decided by the index alone, then narrowed by the author's `invalidate_when`. A predicate that raises, or
one that is asked about a whole table, narrows nothing.

*Watched.* A stream needs an entry indexed even where the store has no room for it. Eviction can come in the very step
that stores an entry, before the task that waits for it runs again; so while a key is being watched, entries of that
key are not released but set aside.

Rejected: versions per table in the key (a write to one row would empty the table's results), time to live (stale by
construction), invalidating at the end of a mutation (misses every other writer, and races the refill).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reactive_rpc.cache.entry import Entry, Key, Query
from reactive_rpc.cache.store import Store
from reactive_rpc.errors import PreconditionFailedError, RPCError
from reactive_rpc.log.log import Batch, Log
from reactive_rpc.protocol.codes import CODES
from reactive_rpc.reactive.change import Change
from reactive_rpc.reactive.index import Index
from reactive_rpc.reactive.read_set import ReadSet
from reactive_rpc.reactive.relations import Relation, widen

__all__ = ["Invalidated", "Reader", "Stats"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stats:
    """Counters since the start."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    stored: int = 0
    outdated: int = 0
    uncacheable: int = 0
    invalidated: int = 0
    kept: int = 0
    evicted: int = 0
    flushes: int = 0


@dataclass(frozen=True, slots=True)
class Invalidated:
    """What one batch did to the entries.

    Attributes:
        version: the log's version.
        entries: those that may have changed, each with the tables whose changes touched it; not indexed any more.
        flush: why everything is gone; None normally.
    """

    version: int
    entries: dict[Entry, set[str]]
    flush: str | None = None


@dataclass(slots=True)
class _Flight:
    started_at: int
    task: asyncio.Task[Entry]


class Reader:
    """Queries in, entries out. Used on one event loop.

    Args:
        log: its batches are applied here, by `apply`, which the composition root subscribes.
        store: holds what may be served again.
        relations: `{table: what a change of it also counts as}`.
    """

    def __init__(self, log: Log, store: Store) -> None:
        self.stats = Stats()
        self.relations: dict[str, list[Relation]] = {}
        self._log = log
        self._store = store
        self._index: Index[Entry] = Index()
        self._flights: dict[Key, _Flight] = {}
        self._tasks: set[asyncio.Task[Entry]] = set()
        self._listeners: list[Callable[[Invalidated], None]] = []
        self._reported: set[str] = set()
        self._wanting: Counter[Key] = Counter()
        self._wanted: dict[Key, list[Entry]] = {}

    @property
    def indexed(self) -> int:
        """How many entries the index holds."""
        return len(self._index)

    def on_invalidated(self, listener: Callable[[Invalidated], None]) -> None:
        """Call `listener`, which must neither await nor raise, after each batch that touched an entry."""
        self._listeners.append(listener)

    async def cached(self, key: Key, *, arrived: bool) -> Entry | None:
        """Return what is stored at `key` and fresh, or None.

        Args:
            key: of the query.
            arrived: whether this is for a request that came in over a connection, see `Log.fresh_for_arrivals`.

        Raises:
            ServiceUnavailableError: the log cannot be read, so nothing can be vouched for.
        """
        await (self._log.fresh_for_arrivals() if arrived else self._log.fresh())
        entry = self._store.get(key)
        if entry is not None:
            self.stats.hits += 1
        return entry

    async def get(self, query: Query) -> Entry:
        """Return the entry of `query`: stored, joined, or computed now.

        Raises:
            ServiceUnavailableError: the log cannot be read, so nothing can be vouched for.
            Exception: whatever the handler raised by accident.
        """
        version = await self._log.fresh()
        entry = self._store.get(query.key)
        if entry is not None:
            self.stats.hits += 1
            return entry
        flight = self._flights.get(query.key)
        if flight is not None and flight.started_at >= version:
            self.stats.joined += 1
            entry = await asyncio.shield(flight.task)
            if entry.computed.read_set.opaque is None:
                return entry  # what it read is captured, so its version tells how fresh it is
        self.stats.misses += 1
        return await asyncio.shield(self._start(query).task)

    def touched_since(self, version: int, entry: Entry) -> bool:
        """Tell whether anything applied after `version` touches the entry; True where memory does not reach back."""
        changes = self._log.changes_since(version)
        return changes is None or self._touched(changes, entry.computed.read_set, entry.query)

    def touched_by(self, changes: Iterable[Change], entry: Entry) -> bool:
        """Tell whether one of `changes`, which came before the entry or after, touches it."""
        return self._touched(list(changes), entry.computed.read_set, entry.query)

    async def watch(self, query: Query) -> Entry:
        """Return an entry of `query` that stays indexed, cached or not, until it is invalidated or `unwatch`ed.

        Where a write has overtaken the result, the entry is not live and not watched: tell whoever must know, and ask
        again.

        Raises:
            PreconditionFailedError: what the query reads cannot be told, so nobody could be told of a change.
            Exception: as `get`, and an error that passes with time (SERVICE_UNAVAILABLE) which the handler answered.
        """
        held = self._wanted.setdefault(query.key, [])
        self._wanting[query.key] += 1
        try:
            entry = await self.get(query)
            if entry.live:
                entry.watchers += 1
            else:
                _refuse_unwatchable(entry)
            return entry
        finally:
            self._wanting[query.key] -= 1
            if not self._wanting[query.key]:
                del self._wanting[query.key], self._wanted[query.key]
                for entry in held:
                    self._release(entry)

    def unwatch(self, entry: Entry) -> None:
        """Undo one `watch`."""
        entry.watchers -= 1
        self._release(entry)

    def apply(self, batch: Batch) -> None:
        """Drop what the batch touches and tell the listeners. Called by the log, in order."""
        if batch.flush is not None:
            self._flush(batch)
            return
        touched: dict[Entry, set[str]] = {}
        for change in [*batch.changes, *widen(batch.changes, self.relations)]:
            for entry in self._index.match(change):
                known = touched.get(entry, ())
                if change.table not in known and not self._kept(change, entry.query):
                    touched.setdefault(entry, set()).add(change.table)
        if touched:
            self._drop(touched)
            self._tell(Invalidated(batch.version, touched))

    async def aclose(self) -> None:
        """Abandon the flights under way; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, query: Query) -> _Flight:
        started_at = self._log.version
        task = asyncio.create_task(self._fly(query, started_at), name=f"reactive_rpc flight {query.key[0]}")
        flight = self._flights[query.key] = _Flight(started_at, task)
        self._tasks.add(task)

        def land(done: asyncio.Task[Entry]) -> None:
            self._tasks.discard(done)
            if self._flights.get(query.key) is flight:
                del self._flights[query.key]
            if not done.cancelled():
                done.exception()  # every waiter may have gone: the error is not left unretrieved

        task.add_done_callback(land)
        return flight

    async def _fly(self, query: Query, started_at: int) -> Entry:
        computed = await query.compute()
        entry = Entry(query, computed, started_at)
        if computed.read_set.opaque is not None:
            self.stats.uncacheable += 1
            self._report(query.key[0], computed.read_set.opaque)
        elif self.touched_since(started_at, entry):
            self.stats.outdated += 1
        elif computed.error is None or _deliberate(computed.error):
            self._keep(entry)
        return entry

    def _keep(self, entry: Entry) -> None:
        """Index and store; nothing is awaited between the check in `_fly` and the end of this."""
        self._index.add(entry, entry.computed.read_set)
        entry.live = entry.cached = True
        self.stats.stored += 1
        for gone in self._store.put(entry):
            self.stats.evicted += 1
            gone.cached = False
            self._release(gone)

    def _release(self, entry: Entry) -> None:
        """Take an entry out of the index once nobody needs it there; later, while its key is being watched."""
        if not entry.live or entry.cached or entry.watchers > 0:
            return
        if entry.query.key in self._wanted:
            self._wanted[entry.query.key].append(entry)
            return
        entry.live = False
        self._index.remove(entry)

    def _drop(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._index.remove(entry)
            self._store.discard(entry)
            entry.live = entry.cached = False
            self.stats.invalidated += 1

    def _flush(self, batch: Batch) -> None:
        logger.warning("everything cached is forgotten: %s", batch.flush)
        self.stats.flushes += 1
        entries = self._index.clear()
        self._store.clear()
        for entry in entries:
            entry.live = entry.cached = False
        self._tell(Invalidated(batch.version, {entry: set() for entry in entries}, batch.flush))

    def _tell(self, invalidated: Invalidated) -> None:
        for listener in self._listeners:
            listener(invalidated)

    def _touched(self, changes: Iterable[Change], read_set: ReadSet, query: Query) -> bool:
        direct = list(changes)
        return any(
            read_set.touched_by([change]) and not self._kept(change, query)
            for change in [*direct, *widen(direct, self.relations)]
        )

    def _kept(self, change: Change, query: Query) -> bool:
        if query.keep is None or change.operation == "bulk" or not query.keep(change):
            return False
        self.stats.kept += 1
        return True

    def _report(self, path: str, reason: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s is not cached: it %s", path, reason)


def _deliberate(error: RPCError) -> bool:
    """Tell whether the error is an answer that holds until the data changes, and not one that passes with time."""
    code = CODES.get(error.code)
    return code is None or (code.http < 500 and error.code not in _PASSING)


_PASSING = ("TIMEOUT", "TOO_MANY_REQUESTS", "CLIENT_CLOSED_REQUEST")


def _refuse_unwatchable(entry: Entry) -> None:
    path, computed = entry.query.key[0], entry.computed
    if computed.read_set.opaque is not None:
        raise PreconditionFailedError(f"{path} cannot be watched: it {computed.read_set.opaque}", path=path)
    if computed.error is not None and not _deliberate(computed.error):
        raise computed.error
