"""The auditor: computes a share of the served results again, and reports each that was wrong.

Nothing here makes an answer right. A finding is a *stale* result (no change was seen to touch it, and computed again it
is another one) or a *wrongly ignored* change (it touched the result, and `invalidate_when` called it harmless).
`docs/internals/cache.md` argues why a difference proves it.

One handler runs at a time, from a bounded queue: past the bound, audits are skipped and counted. No request waits for
one. The share is 0 unless the application says otherwise, because an audit is a run of the handler on the database,
which a cache is there to spare.
"""

from __future__ import annotations

import json
import logging
import random as _random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reactive_rpc.cache.freshness import Freshness
from reactive_rpc.cache.result import CachedResult, HandlerOutcome
from reactive_rpc.dependencies.results_differ import compares_moments, moved_columns
from reactive_rpc.tasks import OnDemand

__all__ = ["WAYS_OUT", "AuditStats", "Auditor", "Finding"]

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""How many results may wait to be audited."""

MAX_FINDINGS = 100
"""How many findings are remembered; the counters go on."""


@dataclass(slots=True)
class AuditStats:
    """Counters since the start.

    Attributes:
        audited: compared with a result computed again, whatever came of it.
        stale: of these, answers that were stale.
        wrongly_ignored: of these, answers that `invalidate_when` had kept, though a change mattered.
        audits_undecided: computed again and not compared: a change came between, or the handler failed.
        audits_skipped: not audited as too many were waiting.
    """

    audited: int = 0
    stale: int = 0
    wrongly_ignored: int = 0
    audits_undecided: int = 0
    audits_skipped: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer that was wrong.

    Attributes:
        kind: `stale`; `predicate` if an `invalidate_when` had kept the result; `clock` if the handler compared a column
            with another value than before, though it was to read the same: by its own clock, or by chance.
        path: of the procedure.
        table: whose change was ignored, or the `table.column` that was compared; empty for `stale`. Several are several
            findings.
        difference: in which way the results differ, without their values.
    """

    kind: Literal["stale", "predicate", "clock"]
    path: str
    table: str
    difference: str

    def __str__(self) -> str:
        if self.kind == "predicate":
            return (
                f"{self.path}: invalidate_when[{self.table!r}] ignored a change, and computed again the result has "
                f"{self.difference}: let the predicate return True for such a change"
            )
        if self.kind == "clock":
            return (
                f"{self.path}: computed again without a change between, it compares {self.table} with another value"
                f" ({self.difference}): it asks Python's clock, or chance. {WAYS_OUT}"
            )
        return f"{self.path}: a stored result was stale: computed again it has {self.difference}"


WAYS_OUT = (
    "Ask now(every=...) of reactive_rpc, whose ticks end results, bound their age by cache=Cache(ttl_seconds=...), "
    "or keep none by cache=False"
)

NOT_DETERMINISTIC = (
    "a handler that answers differently by itself (an order that is not told, its own clock, chance) looks the same: "
    "make it depend on its input and the database alone"
)


class Auditor:
    """Audits results in the background. Used on one event loop.

    Args:
        share: how many of those offered are audited, between 0 and 1.
        random: draws them, between 0 and 1.
        samples: whether each procedure that compares something with a date or a time is audited once, whatever the
            share: in development, where a handler that asks its own clock is to be told so early.

    Attributes:
        share: may be set at any time.
    """

    def __init__(
        self,
        freshness: Freshness,
        *,
        share: float,
        random: Callable[[], float] = _random.random,
        samples: bool = False,
    ) -> None:
        self.stats = AuditStats()
        self._freshness = freshness
        self._observers: list[Callable[[CachedResult], None]] = []
        self.share = share
        self._random = random
        self._samples = samples
        self._sampled: set[str] = set()
        self._waiting: dict[CachedResult, None] = {}
        self._clocks: set[tuple[str, str]] = set()
        self._findings: deque[Finding] = deque(maxlen=MAX_FINDINGS)
        self._task = OnDemand(self._work, "audit")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the latest last."""
        return tuple(self._findings)

    def observe(self, on_wrong: Callable[[CachedResult], None]) -> Callable[[], None]:
        """Call `on_wrong` with each result that is found to be wrong, until the function that is returned is called."""
        self._observers.append(on_wrong)
        return lambda: self._observers.remove(on_wrong)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {**asdict(self.stats)}

    def offer(self, result: CachedResult) -> None:
        """Audit `result`, which is live, perhaps; returns at once."""
        is_drawn = self.share and self._random() < self.share
        if result in self._waiting or not (is_drawn or self._is_sample(result)):
            return
        if not result.period.is_exact:
            return  # its author allows it to be as old as it is
        if len(self._waiting) >= MAX_WAITING:
            self.stats.audits_skipped += 1
            return
        self._waiting[result] = None
        self._task.wake()

    def _is_sample(self, result: CachedResult) -> bool:
        path = result.query.key[0]
        if not self._samples or path in self._sampled:
            return False
        if result.compares_moments is None:
            result.compares_moments = compares_moments(result.read_set)
        if result.compares_moments:
            self._sampled.add(path)
        return result.compares_moments

    async def drain(self) -> None:
        """Return once everything that was offered has been audited."""
        while self._task.is_running:
            await self._task.wait()

    async def aclose(self) -> None:
        """Abandon the audits that wait, unless everything is to be audited (a check); idempotent."""
        if self.share >= 1.0:
            await self.drain()
        self._waiting.clear()
        await self._task.aclose()

    async def _work(self) -> None:
        while self._waiting:
            result = next(iter(self._waiting))
            del self._waiting[result]  # from here on it may be offered again: its next change is another matter
            if result.live:
                await self._audit(result)

    async def _audit(self, result: CachedResult) -> None:
        try:
            outcome = await result.query.compute()
            await self._freshness.sync_to_head()
        except Exception as exc:  # whatever it is, nothing is known of the result
            logger.debug("%s could not be audited: %s", result.query.key[0], type(exc).__name__)
            self.stats.audits_undecided += 1
            return
        if not self._is_comparable(result, outcome):
            self.stats.audits_undecided += 1
            return
        self.stats.audited += 1
        again = CachedResult(result.query, outcome, result.version)
        moved = moved_columns(result.read_set, again.read_set)
        is_same = again.etag == result.etag
        if moved:
            self._report_clock(result, moved, "its result is the same" if is_same else _difference(result, again))
            self.stats.stale += not is_same
        elif not is_same:
            self._report(result, again)
        if not is_same:
            for on_wrong in self._observers:
                on_wrong(result)

    def _is_comparable(self, result: CachedResult, again: HandlerOutcome) -> bool:
        """Tell whether both are of one state of the data, as far as they read it, and of one tick."""
        if not result.live or result.period != again.read_set.period:
            return False
        return again.lasts and again.read_set.opaque is None

    def _report_clock(self, result: CachedResult, moved: Sequence[str], difference: str) -> None:
        """Say so once for each column: every audit of the query finds it again."""
        for column in moved:
            finding = Finding("clock", result.query.key[0], column, difference)
            if (finding.path, column) not in self._clocks:
                self._clocks.add((finding.path, column))
                self._findings.append(finding)
                logger.error("%s", finding)

    def _report(self, result: CachedResult, again: CachedResult) -> None:
        path, difference = result.query.key[0], _difference(result, again)
        if result.ignored_tables:
            self.stats.wrongly_ignored += 1
            found = [Finding("predicate", path, table, difference) for table in sorted(result.ignored_tables)]
        else:
            self.stats.stale += 1
            found = [Finding("stale", path, "", difference)]
        for finding in found:
            self._findings.append(finding)
            logger.error("%s; %s", finding, NOT_DETERMINISTIC)


def _difference(served: CachedResult, again: CachedResult) -> str:
    errors = (served.error, again.error)
    if errors != (None, None):
        return "another error" if None not in errors else "an error instead of a result, or the reverse"
    if served.outcome is None or again.outcome is None:
        return "another content (its bytes were not kept)"  # it is watched, and the store had no room for it
    return _json_difference(json.loads(served.outcome.body), json.loads(again.outcome.body))


def _json_difference(one: Any, other: Any) -> str:
    """Tell in which way two JSON values differ, without a word of what they hold.

    >>> _json_difference([1, 2], [2, 1]), _json_difference([1], [1, 2]), _json_difference({"a": 1}, {"a": 2})
    ('its items in another order', 'another number of items', 'other values')
    """
    if type(one) is not type(other):
        return "another type"
    if isinstance(one, list):
        if len(one) != len(other):
            return "another number of items"
        spelled = [sorted(json.dumps(item, sort_keys=True) for item in items) for items in (one, other)]
        return "its items in another order" if spelled[0] == spelled[1] else "items with other values"
    if isinstance(one, dict) and one.keys() != other.keys():
        return "other keys"
    return "other values"
