"""The reader: answers queries from the store, and never with anything stale.

The promise: an answer reflects every write that was acknowledged before the request arrived. A *hit* looks at the log
first, so whatever such a write touches has left the store. A *miss* runs the handler on a snapshot that begins after
the request arrived, and stores the result only if nothing that was applied meanwhile touches it. A request joins a
computation in flight only if that one's snapshot is late enough. A result of another worker is used only if nothing
after its version touches it, by this worker's own log.

`docs/internals/cache.md` argues why this holds, with time, tokens, sharing and watching; the INVARIANT comments mark
the lines that it rests on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Context
from dataclasses import asdict

from reactive_rpc.cache.auditor import Auditor
from reactive_rpc.cache.freshness import STRICT, ByToken, Freshness, InOutage, RequiredFreshness, Strict, Synced
from reactive_rpc.cache.in_flight import Computation, InFlight
from reactive_rpc.cache.invalidation import DroppedResults, InvalidatedResults, InvalidationObservers
from reactive_rpc.cache.live_results import LiveResults
from reactive_rpc.cache.matcher import ChangeMatcher
from reactive_rpc.cache.read_tables import ReadTableRegistry
from reactive_rpc.cache.result import CachedResult, Computable, HandlerOutcome, ReadResult, ResultKey
from reactive_rpc.cache.shared_results import SharedResult, SharedResults
from reactive_rpc.cache.sharing import Sharing
from reactive_rpc.cache.stats import Stats
from reactive_rpc.cache.store import Store
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.dependencies.period import ALWAYS
from reactive_rpc.dependencies.relations import Relation
from reactive_rpc.errors import PreconditionFailedError

__all__ = ["Reader"]

logger = logging.getLogger(__name__)

SHARED_ATTEMPTS = 3
"""How many shared results of a key are looked at, each newer than the one before, until the handler runs."""


class Reader:
    """Queries in, results out. Used on one event loop.

    Args:
        log: its batches are applied here, by `apply`, which the composition root subscribes.
        store: holds the results that may be served again.
        freshness: reads the log.
        clock: tells when a period has ended.
        shared: the store in which workers take results from each other; None if each computes its own. Whoever
            made it closes it.
        new_context: makes the `contextvars.Context` that a handler runs in: not that of whoever asked, as others are
            given its result too.
        reads: registers which tables results depend on; None if nobody asks.
        auditor: is offered the results that the store serves and those that `invalidate_when` has kept; may be None.

    Attributes:
        matcher: decides whether a change touches a result.
        invalidations: the observers to notify.
        hits_by_path: `Stats.hits`, `{path of a procedure: hits}`.
        misses_by_path: the same of misses and joined computations.
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
        reads: ReadTableRegistry | None = None,
        auditor: Auditor | None = None,
    ) -> None:
        self.stats = Stats()
        self.freshness = freshness or Freshness(log)
        self.invalidations = InvalidationObservers()
        self.hits_by_path: Counter[str] = Counter()
        self.misses_by_path: Counter[str] = Counter()
        self._log = log
        self._clock = clock or SystemClock()
        self._reads = reads
        self._auditor = auditor
        if auditor is not None:
            auditor.observe(self.drop)
        self.matcher = ChangeMatcher(log, self._audit, stats=self.stats)
        self._live = LiveResults(store, self._clock, self._expire, stats=self.stats, want=log.want)
        self._in_flight = InFlight(new_context)
        self._dropped = DroppedResults()
        self._sharing = None if shared is None else Sharing(shared, log, self.freshness, stats=self.stats)
        self._reported: set[str] = set()
        log.enrich_with(self._live.index.lookups)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {
            **asdict(self.stats),
            "computing": self.computing,
            "indexed": self.indexed,
            "cached": self.cached_results,
            "cached_bytes": self.cached_bytes,
        }

    @property
    def indexed(self) -> int:
        """How many results the index holds."""
        return len(self._live)

    @property
    def computing(self) -> int:
        """How many computations are in flight."""
        return len(self._in_flight)

    @property
    def notified_until(self) -> float:
        """A moment by the clock: observers were notified of each tick before it."""
        return self._live.expiries.notified_until

    @property
    def cached_results(self) -> int:
        """How many results the store holds."""
        return self._live.stored

    @property
    def cached_bytes(self) -> int:
        """Their weight."""
        return self._live.stored_bytes

    async def get(self, query: Computable, *, freshness: RequiredFreshness = STRICT) -> CachedResult:
        """Return the result of `query`, with its bytes: stored, joined, or computed now.

        If nothing holds its bytes any more, it is a copy, which nothing invalidates.

        Args:
            freshness: how fresh a stored result must be to be served; a computed one always is strictly fresh.

        Raises:
            ServiceUnavailableError: the log cannot be read; or it is an outage and nothing may be served in it.
            Exception: whatever the handler raised by accident.
        """
        if isinstance(freshness, InOutage):
            return self._get_in_outage(query.key, freshness)
        if not query.is_cached:
            return await self._run_alone(query)
        arrived_at = self._clock.time()
        stored = await self.find(query.key, freshness=freshness)
        if stored is not None:
            return stored
        result, outcome = await self._miss(query, self._log.version, arrived_at)
        if result.outcome is not None:
            return result
        return CachedResult(result.query, outcome, result.version, reflects=self.version_of(result))

    async def find(self, key: ResultKey, *, freshness: Strict | Synced | ByToken) -> CachedResult | None:
        """Return the result that is stored at a key, as fresh as it must be; None leaves the log read.

        Raises:
            ServiceUnavailableError: the log cannot be read.
        """
        if isinstance(freshness, ByToken) and self.freshness.suffices(freshness.token):
            stored = self.stored(key)
            if stored is not None:
                return stored
        if not isinstance(freshness, Synced):
            await self.freshness.sync_to_head(is_server_request=freshness.is_server_request)
        # INVARIANT (no await between here and the return): the result is live in the step that finds it fresh.
        return self.stored(key)

    async def read_log(self, freshness: Strict | ByToken) -> None:
        """Read the log for a request that is about to ask for several stored results, unless its token spares that.

        Raises:
            ServiceUnavailableError: the log cannot be read.
        """
        if not (isinstance(freshness, ByToken) and self.freshness.suffices(freshness.token)):
            await self.freshness.sync_to_head(is_server_request=freshness.is_server_request)

    def stored(self, key: ResultKey) -> CachedResult | None:
        """Return the result that is stored at a key and count the hit; for whoever has read the log for this request.

        Nothing is awaited, so results that are found one after another are right at one version of the log.
        """
        result = self._live.get(key)
        if result is not None:
            self.count_hit(result)
        return result

    def peek(self, key: ResultKey) -> CachedResult | None:
        """As `stored`, and do not count it: for whoever looks first whether all that is needed is there."""
        return self._live.get(key)

    def count_hit(self, result: CachedResult) -> None:
        """Count a result that was found by `peek` as served, in the same step."""
        self.stats.hits += 1
        self.hits_by_path[result.query.key[0]] += 1
        if self._auditor is not None:
            self._auditor.offer(result)

    def holds(self, result: CachedResult) -> bool:
        """Tell whether a result is still the outcome, as far as this worker has read the log."""
        return result.live and not self._live.is_over(result)

    async def watch(self, query: Computable, *, freshness: Strict | Synced = STRICT) -> ReadResult:
        """Return a result of `query` that stays indexed, cached or not, until it is invalidated or `unwatch`ed.

        If a write has overtaken the result, it is not live and not watched: notify whoever must know, and ask again.

        Args:
            query: what to compute.
            freshness: `Synced` for whoever has read the log since the request arrived, and for whoever asks for no
                request: the result is right at the log's version, and the index finds what changes it from there on.

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
        with self._live.holding(query.key):
            arrived_at = self._clock.time()
            stored = await self.find(query.key, freshness=freshness)
            if stored is None:
                read = await self._miss(query, self._log.version, arrived_at)
            else:
                read = ReadResult(stored, stored.with_bytes())
            # INVARIANT (held from before the read until the watcher is counted): a result that was evicted in the step
            # that stored it is still indexed here.
            if read.result.live:
                read.result.watchers += 1
                if read.result.read_set.period is not ALWAYS:
                    self._live.expiries.watch(read.result)
            else:
                _refuse_unwatchable(read)
            return read

    def unwatch(self, result: CachedResult) -> None:
        """Undo one `watch`."""
        result.watchers -= 1
        self._live.release(result)

    def version_of(self, result: CachedResult) -> str | None:
        """Return a version that the result reflects exactly, as a cursor; None if nobody can tell.

        To be said of an answer in the step that makes it.
        """
        return self.freshness.token if result.live and result.reflects is not None else result.reflects

    def apply(self, batch: Batch) -> None:
        """Drop the results that the batch touches and notify the observers. Called by the log, in order.

        It costs about ten microseconds a touched result, and results are bounded, those of the cache and those that
        are watched. The hub does the costly rest (notifying streams, computing again) afterwards, in turns.
        """
        # INVARIANT (one step of the event loop): the log's version moves when this returns. A result that was left for
        # later would be served by then, and a stream's cursor would pass a change that it was not told.
        if batch.flush is not None:
            self._flush(batch)
            return
        touched = self.matcher.match(batch, self._live.index)
        if touched:
            self._drop(touched, batch.version)
            self.invalidations.notify(InvalidatedResults(batch.version, touched))

    def drop(self, result: CachedResult) -> None:
        """Drop a result that was found to be wrong, and notify the observers as if a change had touched it."""
        if result.live:
            self._drop([result], self._log.version)
            self.invalidations.notify(InvalidatedResults(self._log.version, {result: set(result.read_set.tables)}))

    async def register_read_tables(self, tables: Collection[str]) -> None:
        """Register that results depend on tables, before one is stored."""
        if self._reads is not None:
            await self._reads.add(tables)

    def open(self, relations: dict[str, list[Relation]]) -> None:
        """Forget the results from before the log was closed: nobody has told of changes since. The log must be open.

        Args:
            relations: `{table: the tables and columns that a change of it also counts as a change of}`.
        """
        self.matcher.relations = relations
        self._live.clear()
        self._dropped.clear()

    async def aclose(self) -> None:
        """Abandon the computations in flight; idempotent."""
        await self._in_flight.aclose()
        await self._live.expiries.aclose()

    def _get_in_outage(self, key: ResultKey, allowed: InOutage) -> CachedResult:
        result = self._live.get(key) if self.freshness.age_seconds <= allowed.within_seconds else None
        if result is None:
            raise allowed.outage
        self.stats.hits += 1
        self.stats.served_stale += 1
        self.hits_by_path[key[0]] += 1
        return result

    async def _miss(self, query: Computable, version: int, arrived_at: float) -> ReadResult:
        """Join the computation of `query` that is in flight, or start one.

        Args:
            version: of the log, read after the request arrived.
            arrived_at: when that was, by the clock.
        """
        self.misses_by_path[query.key[0]] += 1
        computation = self._in_flight.find(query, version=version)
        if computation is not None:
            self.stats.joined += 1
            read = await computation.wait()
            # An opaque result read something of which no version tells how fresh it is; and a tick that had ended
            # before this request came is none of its own.
            if read.result.read_set.opaque is None and arrived_at < read.result.period.until:
                return read
        self.stats.misses += 1
        return await self._start(query).wait()

    def _start(self, query: Computable) -> Computation:
        started_at = self._log.version  # before the handler's transaction begins, so its snapshot holds at least this
        return self._in_flight.start(query, started_at, self._compute(query, started_at))

    async def _compute(self, query: Computable, started_at: int) -> ReadResult:
        sharing = self._sharing
        if sharing is None or not query.is_shared or not sharing.is_shareable(query.key):
            return await self._run(query, started_at)
        try:
            return await self._adopt_shared(query, sharing) or await self._run(query, self._log.version)
        finally:
            sharing.release(query.key)

    async def _adopt_shared(self, query: Computable, sharing: Sharing) -> ReadResult | None:
        """Return another worker's result, indexed and stored; None if the handler must run here."""
        after = self._dropped.outdated_until(query)
        for _ in range(SHARED_ATTEMPTS):
            shared = await sharing.find(query.key, after=after)
            if shared is None:
                return None
            outcome = HandlerOutcome(shared.body, shared.read_set, shows=shared.version)
            result = CachedResult(query, outcome, shared.version)
            if not result.period.holds(self._clock.time()):
                self.stats.shared_rejected += 1
                return None  # the next one may well have the same version, so none after this is worth waiting for
            # INVARIANT (no await between here and `LiveResults.add`): a change that is applied in between would find
            # the result neither in the check nor in the index.
            if self._is_right(shared, result):
                self._note_version(result, outcome)
                self.stats.shared_hits += 1
                self.stats.needless += self._dropped.pop_if_needless(result)
                self._live.add(result)
                if result.ignored_tables:
                    self._audit(result)
                return ReadResult(result, outcome)
            self.stats.shared_rejected += 1
            after = max(after, shared.version)
        return None

    def _is_right(self, shared: SharedResult, result: CachedResult) -> bool:
        """Tell whether a shared result is what the handler answers now."""
        if shared.epoch != self._log.epoch or shared.version > self._log.version:
            return False
        return not self.matcher.touched_since(shared.version, result)

    async def _run_alone(self, query: Computable) -> CachedResult:
        """Return a result for this caller alone."""
        self.stats.misses += 1
        self.misses_by_path[query.key[0]] += 1
        started_at = self._log.version
        outcome = await query.compute()
        await self._reach(outcome)  # the cursor sent with it is then no lower than what its snapshot showed
        return CachedResult(query, outcome, started_at)

    async def _reach(self, outcome: HandlerOutcome) -> None:
        """See that the log has applied all that an outcome shows."""
        if outcome.shows is None or not outcome.is_whole or outcome.shows > self._log.version:
            await self.freshness.sync_to_head()

    async def _run(self, query: Computable, started_at: int) -> ReadResult:
        """Run the handler; store the result if nothing that its snapshot does not show touches it.

        Args:
            started_at: the version of the log before; the snapshot holds at least this.
        """
        epoch = self._log.epoch
        outcome = await query.compute()
        await self.register_read_tables(outcome.read_set.tables)
        await self._reach(outcome)
        # INVARIANT (no await between here and `LiveResults.add`): a change that is applied in between would find the
        # result neither in the check nor in the index.
        result = CachedResult(query, outcome, self._seen_by(outcome, started_at, epoch))
        self.stats.needless += self._dropped.pop_if_needless(result)
        if outcome.read_set.opaque is not None:
            self._count_opaque(result, outcome)
        elif self.matcher.touched_since(result.version, result) or not result.period.holds(self._clock.time()):
            self.stats.outdated += 1
            if outcome.has_place and outcome.is_whole and epoch == self._log.epoch:
                result.reflects = f"{epoch}:{outcome.shows}"
        else:
            self._note_version(result, outcome)
            if outcome.lasts:
                self._live.add(result)
                if self._sharing is not None and query.is_shared:
                    self._sharing.offer(result, outcome)
                if result.ignored_tables:
                    self._audit(result)
        return ReadResult(result, outcome)

    def _seen_by(self, outcome: HandlerOutcome, started_at: int, epoch: str) -> int:
        """Return a version that the snapshot of an outcome shows; the later, the fewer changes are in question.

        Args:
            started_at: the version of the log before.
            epoch: the log's, likewise.
        """
        # INVARIANT (of one epoch): versions of two are not places in one history, and memory might reach back to the
        # number that the older one gave. Nor are two snapshots one. And what is outside of the database, which
        # relations speak of, may have been asked for before the snapshot began, which shows a write in between.
        is_exact = outcome.is_whole and not self.matcher.relations and epoch == self._log.epoch
        if outcome.shows is None or not is_exact:
            return started_at
        return max(started_at, outcome.shows)

    def _count_opaque(self, result: CachedResult, outcome: HandlerOutcome) -> None:
        path, reason = result.query.key[0], outcome.read_set.opaque
        if self._sharing is not None:
            self._sharing.mark_unshareable(result.query.key)
        if outcome.error is not None:
            return  # a handler that refused may have had no reason to read anything
        self.stats.uncacheable += 1
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s is not cached: it %s", path, reason)

    def _note_version(self, result: CachedResult, outcome: HandlerOutcome) -> None:
        """Note that nothing up to now touches the result; in the step that has found that."""
        if outcome.has_place:
            result.reflects = self.freshness.token

    def _audit(self, result: CachedResult) -> None:
        if self._auditor is not None:
            self._auditor.offer(result)

    def _drop(self, results: Iterable[CachedResult], version: int) -> None:
        for result in results:
            self._dropped.add(result, after=self._log.version, version=version)
            self._live.remove(result)
            self.stats.invalidated += 1

    def _expire(self, results: Sequence[CachedResult]) -> None:
        """Drop the results that time has ended; called by the timer. No predicate is asked: nothing was written."""
        for result in results:
            self._live.remove(result)
            self.stats.expired += 1
        if results:
            self.invalidations.notify(InvalidatedResults(self._log.version, {result: set() for result in results}))

    def _flush(self, batch: Batch) -> None:
        logger.warning("everything cached is forgotten: %s", batch.flush)
        self.stats.flushes += 1
        if self._reads is not None:
            self._reads.clear()
        results = self._live.clear()
        self.invalidations.notify(InvalidatedResults(batch.version, {result: set() for result in results}, batch.flush))


def _refuse_unwatchable(read: ReadResult) -> None:
    path, outcome = read.result.query.key[0], read.outcome
    if outcome.read_set.opaque is not None:
        message = f"{path} cannot be watched: it {outcome.read_set.opaque}"
        raise PreconditionFailedError(message, path=path) from outcome.error
    if outcome.error is not None and not outcome.lasts:
        raise outcome.error
