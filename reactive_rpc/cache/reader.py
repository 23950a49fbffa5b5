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
A call inside a call joins only flights that were begun as deep inside or deeper: any other may be waiting for its turn
behind the very call that waits here.

*A token* spares a hit the first step where its holder has seen nothing newer (`cache/freshness.py`). For its sake a
result is held against the log once more before it is stored: what is stored never shows more than `log.version`.

*Touched* is decided by the index alone, then narrowed by the author's `invalidate_when`. A predicate that raises, or
one that is asked about a whole table, narrows nothing.

*A shared result* (`cache/shared_results.py`) is one that another worker has computed, with its read set and the version
at which it was right: that worker's `log.version` in the step that checked and stored it. It was computed on a snapshot
that this version shows in full, and nothing up to this version touches it; so it is what the handler answers at that
version. In one epoch versions are places in the same history, in whichever worker. So if this worker's log has come as
far, and nothing in (that version, now] touches the read set, by this worker's memory of the log, then it is what the
handler answers now: as a result of a flight of one's own, whose snapshot is of now. It is indexed and stored in the
step that checks this. Where memory does not reach back, where the log has not come as far or is in another epoch by
then, it is not used, and the handler runs, on a snapshot that begins after all this. The flight's `s0` was read before
any of it, so whoever may join the flight may have either answer. Nothing is believed of whoever stored the result but
that it ran this code on this database.

*The version that a result reflects* (`reactive-version`) is exact, never a bound: the result is what the handler
answers at that version. A live entry is so at `log.version`, read in the step that finds it live: nothing from before
its snapshot until now touches it. An overtaken result is so at the version of its own snapshot, for which the
transaction has asked the database when it began (`statements/database.py`); not at `s0`, because the snapshot may show
the very change that overtook it, and not at any later version. That needs the whole of it to come from that snapshot,
which the calls inside of a call do not, and versions to mean the same before and after, that is, one epoch.

*Time* (`dependencies/period.py`). What a handler was told of the time is part of its read set: a period in which the
result holds. A tick is no place in the log, so it is asked for wherever an entry is about to be used: a hit whose
period does not hold now is a miss; whoever joined a flight computes for itself where what that was told had ended
before it came; a result that has ended when it is done is served, as its request came before that, and not stored; a
shared one is held against this host's own clock, by which alone it is what this handler would be told. One timer
(`expiries.py`) takes what has ended out of index and store and tells the listeners, at the log's version, as nothing
was written.

*Watched.* A stream needs an entry indexed even where the store has no room for it. Eviction can come in the very step
that stores an entry, before the task that waits for it runs again; so while a key is being watched, entries of that
key are not released but set aside.

*Bytes.* An entry has its bytes for as long as the store holds it, and not longer: thousands of watched results cost
what they rest on, not what they say. They leave in the step that evicts or drops the entry, which may come before the
tasks that wait for a flight run again. So a flight lands with the outcome beside the entry (`Landed`), and whoever
waited for it is served that.

Rejected: versions per table in the key (a write to one row would empty the table's results), a time to live that nobody
asked for (stale by construction), invalidating at the end of a mutation (misses every other writer, and races the
refill).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Context
from dataclasses import asdict, dataclass

from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.expiries import Expiries
from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.noted_reads import NotedReads
from reactive_rpc.cache.result import CachedResult, Computed, Key, Query
from reactive_rpc.cache.shared_results import SharedResult, SharedResults
from reactive_rpc.cache.store import Store
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.dependencies.relations import Relation, widen
from reactive_rpc.errors import PreconditionFailedError, ServiceUnavailableError
from reactive_rpc.tasks import Tasks

__all__ = ["Invalidation", "Landed", "Reader", "Stats"]

logger = logging.getLogger(__name__)

MAX_DROPPED = 10_000
"""Of so many dropped entries the ETag is remembered, to tell which need not have been dropped."""

MAX_UNSHAREABLE = 10_000
"""So many keys are remembered whose results cannot be shared, so that no worker waits for another's."""

MATCHED_AT_ONCE = 200
"""So many changes that a client has missed are held against what it shows before the event loop goes round."""

SHARED_ATTEMPTS = 3
"""How many shared results of a key are looked at, each newer than the one before, until the handler runs."""


@dataclass(slots=True)
class Stats:
    """Counters since the start.

    Attributes:
        hits: answered from the store; `served_stale` of them during an outage, with a mark.
        misses: not in the store: answered by a flight of one's own.
        joined: answered by a run that was under way.
        stored: results that were put into the store.
        expired: entries dropped as a tick or their `ttl_seconds` had ended.
        outdated: results that a write or a tick overtook while they were computed: served, not stored.
        uncacheable: results of which nothing could tell when they change: served, not stored.
        invalidated: entries dropped as a change touched them; `needless` of them came out the same again.
        kept: changes that touched an entry and that `invalidate_when` called harmless.
        evicted: entries dropped as there was no room.
        flushes: how often everything was dropped.
        shared_hits: flights that ended in a result of another worker's; no handler ran.
        shared_puts: results that were offered to other workers.
        shared_rejected: results of other workers that were outdated, or could not be held against this log.
    """

    hits: int = 0
    misses: int = 0
    joined: int = 0
    stored: int = 0
    outdated: int = 0
    uncacheable: int = 0
    expired: int = 0
    invalidated: int = 0
    needless: int = 0
    served_stale: int = 0
    kept: int = 0
    evicted: int = 0
    flushes: int = 0
    shared_hits: int = 0
    shared_puts: int = 0
    shared_rejected: int = 0


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What one batch, or time, did to the entries.

    Attributes:
        version: the log's version.
        entries: those that may have changed, each with the tables whose changes touched it, none where time has ended
            it; not indexed any more.
        flush: why everything is gone; None normally.
    """

    version: int
    entries: dict[CachedResult, set[str]]
    flush: str | None = None


@dataclass(frozen=True, slots=True)
class _Dropped:
    """What is remembered of a dropped entry: what dropped it lies in (`after`, `version`]."""

    etag: str
    after: int
    version: int


@dataclass(frozen=True, slots=True)
class Landed:
    """What a flight, or a look into the store, came to.

    Attributes:
        entry: may have let go of its bytes since.
        computed: the outcome, with its bytes.
    """

    entry: CachedResult
    computed: Computed


@dataclass(slots=True)
class _Flight:
    started_at: int
    depth: int
    task: asyncio.Task[Landed]


class Reader:
    """Queries in, entries out. Used on one event loop.

    Args:
        log: its batches are applied here, by `apply`, which the composition root subscribes.
        store: holds what may be served again.
        freshness: looks at the log.
        clock: tells when a period has ended.
        shared: where workers take results from each other; None where each computes its own. Whoever made it closes it.
        new_context: makes the `contextvars.Context` that a handler runs in: not that of whoever asked, as others are
            given its result too.
        reads: where it is noted which tables results rest on; None where nobody asks.

    Attributes:
        relations: `{table: what a change of it also counts as}`.
        auditor: is offered what is served from the store and what `invalidate_when` has kept; may be None.
        hits_by_path: `Stats.hits`, `{path of a procedure: hits}`.
        misses_by_path: the same of misses and joined flights.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        *,
        freshness: Freshness | None = None,
        shared: SharedResults | None = None,
        clock: Clock | None = None,
        new_context: Callable[[], Context] = Context,
        reads: NotedReads | None = None,
    ) -> None:
        self.stats = Stats()
        self.freshness = freshness or Freshness(log)
        self.relations: dict[str, list[Relation]] = {}
        self.auditor: Auditor | None = None
        self.hits_by_path: Counter[str] = Counter()
        self.misses_by_path: Counter[str] = Counter()
        self._log = log
        self._store = store
        self._shared = shared
        self._new_context = new_context
        self._unshareable: dict[int, None] = {}
        self._index: Index[CachedResult] = Index()
        log.enrich_with(self._index.lookups)
        self._flights: dict[Key, _Flight] = {}
        self._tasks = Tasks()
        self._listeners: list[Callable[[Invalidation], None]] = []
        self._reported: set[str] = set()
        self._dropped: dict[int, _Dropped] = {}
        self._wanting: Counter[Key] = Counter()
        self._wanted: dict[Key, list[CachedResult]] = {}
        self._clock = clock or SystemClock()
        self._reads = reads
        self._expiries = Expiries(self._clock, self._expired)

    @property
    def indexed(self) -> int:
        """How many entries the index holds."""
        return len(self._index)

    @property
    def flights(self) -> int:
        """How many handlers run for the reader now."""
        return len(self._tasks)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {
            **asdict(self.stats),
            "flights": self.flights,
            "indexed": self.indexed,
            "cached": self.cached_entries,
            "cached_bytes": self.cached_bytes,
        }

    @property
    def told_until(self) -> float:
        """A moment by the clock: who watches was told of each tick before it."""
        return self._expiries.told_until(self._clock.time())

    @property
    def cached_entries(self) -> int:
        """How many entries the store holds."""
        return len(self._store)

    @property
    def cached_bytes(self) -> int:
        """What they weigh."""
        return self._store.size_bytes

    def on_invalidated(self, listener: Callable[[Invalidation], None]) -> None:
        """Call `listener`, which must neither await nor raise, after each batch that touched an entry."""
        self._listeners.append(listener)

    async def cached(self, key: Key, *, arrived: bool) -> CachedResult | None:
        """Return what is stored at `key` and fresh, or None.

        Args:
            key: of the query.
            arrived: whether this is for a request that came in over a connection, see `Log.fresh_for_arrivals`.

        Raises:
            ServiceUnavailableError: the log cannot be read, so nothing can be vouched for.
        """
        await self.freshness.look(arrived=arrived)
        return self.stored(key)

    def stored(self, key: Key) -> CachedResult | None:
        """Return what is stored at `key`, or None: for a caller who knows by `freshness` that it is fresh enough."""
        entry = self._valid(key)
        if entry is not None:
            self.stats.hits += 1
            self.hits_by_path[key[0]] += 1
            if self.auditor is not None:
                self.auditor.offer(entry)
        return entry

    def stored_in_outage(self, key: Key, *, within_seconds: float) -> CachedResult | None:
        """Return what is stored at `key` if the log could be read `within_seconds` ago; whoever serves it says so."""
        if self.freshness.age_seconds > within_seconds:
            return None
        entry = self._valid(key)
        if entry is not None:
            self.stats.hits += 1
            self.stats.served_stale += 1
            self.hits_by_path[key[0]] += 1
        return entry

    def _valid(self, key: Key) -> CachedResult | None:
        """Return what is stored at `key` and has not been ended by time."""
        entry = self._store.get(key)
        if entry is None or entry.period is ALWAYS or entry.period.holds(self._clock.time()):
            return entry
        return None

    async def get(self, query: Query) -> CachedResult:
        """Return the entry of `query`, with its bytes: stored, joined, or computed now.

        Where nothing held its bytes by then, it is a copy, which nothing invalidates.

        Raises:
            ServiceUnavailableError: the log cannot be read, so nothing can be vouched for.
            Exception: whatever the handler raised by accident.
        """
        landed = await self._land(query)
        entry, computed = landed.entry, landed.computed
        if entry.computed is not None:
            return entry
        return CachedResult(entry.query, computed, entry.version, reflects=self.version_of(entry))

    async def _land(self, query: Query) -> Landed:
        if not query.is_cached:
            return await self._run_alone(query)
        arrived_at = self._clock.time()
        version = await self.freshness.look()
        entry = self.stored(query.key)
        if entry is not None and entry.computed is not None:
            return Landed(entry, entry.computed)
        self.misses_by_path[query.key[0]] += 1
        flight = self._flights.get(query.key)
        if flight is not None and flight.started_at >= version and flight.depth >= query.depth:
            self.stats.joined += 1
            landed = await _landing(flight)
            if landed.entry.read_set.opaque is None and arrived_at < landed.entry.period.until:
                return landed  # what it read is captured, so its version tells how fresh it is
        self.stats.misses += 1
        return await _landing(self._start(query))

    def version_of(self, entry: CachedResult) -> str | None:
        """Return a version that the entry's outcome reflects exactly, as a cursor; None where nobody can tell.

        To be said of an answer in the step that makes it.
        """
        return self.freshness.token if entry.live and entry.reflects is not None else entry.reflects

    def touched_since(self, version: int, entry: CachedResult) -> bool:
        """Tell whether anything applied after `version` touches the entry; True where memory does not reach back."""
        changes = self._log.changes_since(version)
        return changes is None or self._touched(changes, entry, is_later=version >= entry.version)

    def touched_by(self, changes: Iterable[Change], entry: CachedResult) -> bool:
        """Tell whether one of `changes`, which came before the entry or after, touches it."""
        return self._touched(changes, entry, is_later=False)

    async def touched_among(self, changes: Sequence[Change], entries: Iterable[CachedResult]) -> set[CachedResult]:
        """Return which entries `changes` touch, which came before them; the event loop goes round meanwhile."""
        index: Index[CachedResult] = Index()
        for entry in entries:
            index.add(entry, entry.read_set)
        touched: set[CachedResult] = set()
        for start in range(0, len(changes), MATCHED_AT_ONCE):
            if not len(index):
                break
            if start:
                await asyncio.sleep(0)
            some = changes[start : start + MATCHED_AT_ONCE]
            for change in [*some, *widen(some, self.relations)]:
                for entry in index.match(change):
                    if not self._kept(change, entry.query):
                        touched.add(entry)
                        index.remove(entry)
        return touched

    async def watch(self, query: Query) -> Landed:
        """Return an entry of `query` that stays indexed, cached or not, until it is invalidated or `unwatch`ed.

        Where a write has overtaken the result, the entry is not live and not watched: tell whoever must know, and ask
        again.

        Raises:
            PreconditionFailedError: its results are not kept, or what it reads cannot be told, so nobody could be told
                of a change.
            Exception: as `get`, and an error that passes with time (SERVICE_UNAVAILABLE) which the handler answered.
        """
        if not query.is_cached:
            raise PreconditionFailedError(
                f"{query.key[0]} cannot be watched: it has cache=False, so nobody can tell when its result changes. "
                "Fetch it again when you want to know; to have it watched, give it cache=Cache(ttl_seconds=...)",
                path=query.key[0],
            )
        held = self._wanted.setdefault(query.key, [])
        self._wanting[query.key] += 1
        try:
            landed = await self._land(query)
            if landed.entry.live:
                landed.entry.watchers += 1
            else:
                _refuse_unwatchable(landed)
            return landed
        finally:
            self._wanting[query.key] -= 1
            if not self._wanting[query.key]:
                del self._wanting[query.key], self._wanted[query.key]
                for entry in held:
                    self._release(entry)

    def unwatch(self, entry: CachedResult) -> None:
        """Undo one `watch`."""
        entry.watchers -= 1
        self._release(entry)

    def apply(self, batch: Batch) -> None:
        """Drop what the batch touches and tell the listeners. Called by the log, in order.

        All of it is one step of the event loop, however much is touched, as the version moves when this returns: an
        entry left for later would be served by then, and a stream's cursor would pass what it was not told. It costs
        about ten microseconds an entry, and entries are bounded, those of the cache and those that are watched. What
        costs more (telling the streams, computing again) the hub does afterwards, in turns.
        """
        if batch.flush is not None:
            self._flush(batch)
            return
        touched: dict[CachedResult, set[str]] = {}
        for change in [*batch.changes, *widen(batch.changes, self.relations)]:
            for entry in self._index.match(change):
                if change.table in touched.get(entry, ()):
                    continue
                if self._kept(change, entry.query):
                    self._note_veto(entry, change.table)
                else:
                    touched.setdefault(entry, set()).add(change.table)
        if touched:
            self._drop(touched, batch.version)
            self._tell(Invalidation(batch.version, touched))

    def drop(self, entry: CachedResult) -> None:
        """Drop an entry that was found to be wrong, and tell the listeners as if a change had touched it."""
        if entry.live:
            self._drop([entry], self._log.version)
            self._tell(Invalidation(self._log.version, {entry: set(entry.read_set.tables)}))

    def open(self) -> None:
        """Forget what was stored before the log was closed: nobody has told of changes since. The log must be open."""
        self._forget()
        self._dropped.clear()

    async def aclose(self) -> None:
        """Abandon the flights under way; idempotent."""
        await self._tasks.aclose()
        await self._expiries.aclose()

    def _start(self, query: Query) -> _Flight:
        started_at = self._log.version
        work = self._fly(query, started_at)
        task = self._tasks.start(work, f"flight {query.key[0]}", context=self._new_context(), is_awaited=True)
        flight = self._flights[query.key] = _Flight(started_at, query.depth, task)

        def land(_: asyncio.Task[Landed]) -> None:
            if self._flights.get(query.key) is flight:
                del self._flights[query.key]

        task.add_done_callback(land)
        return flight

    async def _fly(self, query: Query, started_at: int) -> Landed:
        if self._shared is None or hash(query.key) in self._unshareable:
            return await self._run(query, started_at)
        try:
            return await self._take_over(query, self._shared) or await self._run(query, self._log.version)
        finally:
            self._shared.release(query.key)

    async def _take_over(self, query: Query, shared: SharedResults) -> Landed | None:
        """Return an entry of another worker's result, indexed and stored; None where the handler must run here."""
        dropped = self._dropped.get(hash(query.key))
        after = -1 if dropped is None else dropped.after
        for _ in range(SHARED_ATTEMPTS):
            value = await shared.find(query.key, self._log.epoch, after=after, version=self._log.version)
            if value is None:
                return None
            if value.version > self._log.version:
                await self.freshness.look()
            computed = Computed(value.body, value.read_set, shows=value.version)
            entry = CachedResult(query, computed, value.version)
            if not entry.period.holds(self._clock.time()):
                self.stats.shared_rejected += 1
                return None  # the next one may well have the same version, so none after this is worth waiting for
            if self._is_right(value, entry):
                self._place(entry, computed)
                self.stats.shared_hits += 1
                self._count_needless(entry)
                self._keep(entry)
                self._offer_vetoed(entry)
                return Landed(entry, computed)
            self.stats.shared_rejected += 1
            after = max(after, value.version)
        return None

    def _is_right(self, value: SharedResult, entry: CachedResult) -> bool:
        """Tell whether a shared result is what the handler answers now; nothing is awaited from here to `_keep`."""
        if value.epoch != self._log.epoch or value.version > self._log.version:
            return False
        return not self.touched_since(value.version, entry)

    def _share(self, entry: CachedResult, computed: Computed) -> None:
        """Offer a result to other workers; in the step that has found it to be right."""
        if self._shared is None:
            return
        if computed.error is not None:
            self._note_unshareable(entry)
            return
        self._unshareable.pop(hash(entry.query.key), None)
        self._shared.put(
            SharedResult(entry.query.key, self._log.epoch, self._log.version, computed.body, computed.read_set)
        )
        self.stats.shared_puts += 1

    def _note_unshareable(self, entry: CachedResult) -> None:
        """Remember that nobody need ask for, or wait for, a shared result of this key."""
        if self._shared is not None:
            self._unshareable[hash(entry.query.key)] = None
            if len(self._unshareable) > MAX_UNSHAREABLE:
                del self._unshareable[next(iter(self._unshareable))]

    async def _run_alone(self, query: Query) -> Landed:
        """Return a result for this caller alone."""
        self.stats.misses += 1
        self.misses_by_path[query.key[0]] += 1
        started_at = self._log.version
        computed = await query.compute()
        await self.freshness.look()  # so that the cursor sent with it is no lower than what its snapshot showed
        return Landed(CachedResult(query, computed, started_at), computed)

    async def note_reads(self, tables: Collection[str]) -> None:
        """Note that results rest on tables, before one is kept."""
        if self._reads is not None:
            await self._reads.add(tables)

    async def _run(self, query: Query, started_at: int) -> Landed:
        epoch = self._log.epoch
        computed = await query.compute()
        await self.note_reads(computed.read_set.tables)
        await self.freshness.look()  # its snapshot may have shown more than has been applied
        entry = CachedResult(query, computed, started_at)
        self._count_needless(entry)
        if computed.read_set.opaque is not None:
            self._note_unshareable(entry)
            if computed.error is None:  # a handler that refused may have had no reason to read anything
                self.stats.uncacheable += 1
                self._report(query.key[0], computed.read_set.opaque)
        elif self.touched_since(started_at, entry) or not entry.period.holds(self._clock.time()):
            self.stats.outdated += 1
            if computed.has_place and computed.is_whole and epoch == self._log.epoch:
                entry.reflects = f"{epoch}:{computed.shows}"
        else:
            self._place(entry, computed)
            if computed.lasts:
                self._keep(entry)
                self._share(entry, computed)
                self._offer_vetoed(entry)
        return Landed(entry, computed)

    def _place(self, entry: CachedResult, computed: Computed) -> None:
        """Note that nothing up to now touches the entry; in the step that has found that."""
        if computed.has_place:
            entry.reflects = self.freshness.token

    def _keep(self, entry: CachedResult) -> None:
        """Index and store; nothing is awaited between the check in `_fly` and the end of this."""
        self._index.add(entry, entry.read_set)
        self._expiries.add(entry)
        entry.live = entry.cached = True
        self.stats.stored += 1
        for gone in self._store.put(entry):
            self.stats.evicted += 1
            gone.cached, gone.computed = False, None
            self._release(gone)

    def _release(self, entry: CachedResult) -> None:
        """Take an entry out of the index once nobody needs it there; later, while its key is being watched."""
        if not entry.live or entry.cached or entry.watchers > 0:
            return
        if entry.query.key in self._wanted:
            self._wanted[entry.query.key].append(entry)
            return
        entry.live = False
        self._index.remove(entry)
        self._expiries.remove(entry)

    def _drop(self, entries: Iterable[CachedResult], version: int) -> None:
        for entry in entries:
            self._remember(entry, version)
            self._take_out(entry)
            self.stats.invalidated += 1

    def _expired(self, entries: Sequence[CachedResult]) -> None:
        """Drop what time has ended; called by the timer. No predicate is asked: nothing was written."""
        for entry in entries:
            self._take_out(entry)
            self.stats.expired += 1
        if entries:
            self._tell(Invalidation(self._log.version, {entry: set() for entry in entries}))

    def _take_out(self, entry: CachedResult) -> None:
        self._index.remove(entry)
        self._expiries.remove(entry)
        self._store.discard(entry)
        _bury(entry)

    def _flush(self, batch: Batch) -> None:
        logger.warning("everything cached is forgotten: %s", batch.flush)
        self.stats.flushes += 1
        if self._reads is not None:
            self._reads.forget()
        entries = self._forget()
        self._tell(Invalidation(batch.version, {entry: set() for entry in entries}, batch.flush))

    def _forget(self) -> list[CachedResult]:
        """Drop every entry, telling nobody, and return them."""
        entries = self._index.clear()
        self._expiries.clear()
        self._store.clear()
        for entry in entries:
            _bury(entry)
        return entries

    def _tell(self, invalidated: Invalidation) -> None:
        for listener in self._listeners:
            listener(invalidated)

    def _remember(self, entry: CachedResult, version: int) -> None:
        """Remember what is dropped at `version`, by the hash of its key: a key may be large."""
        self._dropped[hash(entry.query.key)] = _Dropped(entry.etag, self._log.version, version)
        if len(self._dropped) > MAX_DROPPED:
            del self._dropped[next(iter(self._dropped))]

    def _count_needless(self, entry: CachedResult) -> None:
        """Count the drop of the entry's predecessor as needless if its result is the same on a snapshot after it."""
        name = hash(entry.query.key)
        dropped = self._dropped.get(name)
        if dropped is not None and entry.version >= dropped.version:
            del self._dropped[name]
            self.stats.needless += dropped.etag == entry.etag

    def _touched(self, changes: Iterable[Change], entry: CachedResult, *, is_later: bool) -> bool:
        """Tell whether one of `changes` touches the entry; those that came later and are vetoed put it under audit."""
        direct = list(changes)
        for change in [*direct, *widen(direct, self.relations)]:
            if not entry.read_set.touched_by([change]):
                continue
            if not self._kept(change, entry.query):
                return True
            if is_later:
                self._note_veto(entry, change.table)
        return False

    def _offer_vetoed(self, entry: CachedResult) -> None:
        if entry.vetoed and self.auditor is not None:
            self.auditor.offer(entry)

    def _note_veto(self, entry: CachedResult, table: str) -> None:
        entry.vetoed |= {table}
        if self.auditor is not None and entry.live:
            self.auditor.offer(entry)

    def _kept(self, change: Change, query: Query) -> bool:
        if query.keep is None or change.operation == "bulk" or not query.keep(change):
            return False
        self.stats.kept += 1
        return True

    def _report(self, path: str, reason: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s is not cached: it %s", path, reason)


def _bury(entry: CachedResult) -> None:
    """Note that an entry is neither indexed nor stored any more."""
    entry.live = entry.cached = False
    entry.computed = None


async def _landing(flight: _Flight) -> Landed:
    """Return what a flight ends in; it goes on where whoever waits for it is cancelled.

    Raises:
        ServiceUnavailableError: the flight was abandoned, which is no cancellation of those who wait.
        Exception: what the flight raised.
    """
    await asyncio.wait([flight.task])
    if flight.task.cancelled():
        raise ServiceUnavailableError("the server is about to stop: ask again, another one")
    return flight.task.result()


def _refuse_unwatchable(landed: Landed) -> None:
    path, computed = landed.entry.query.key[0], landed.computed
    if computed.read_set.opaque is not None:
        message = f"{path} cannot be watched: it {computed.read_set.opaque}"
        raise PreconditionFailedError(message, path=path) from computed.error
    if computed.error is not None and not computed.lasts:
        raise computed.error
