"""The auditor: computes a share of what is served again, and tells where the cache was wrong.

Nothing here makes an answer right; it measures whether the rest does, on the application's own queries. What is wrong
is a *stale* answer (no change was seen to touch it, and the result is another one) or a *veto* (a change did touch it,
`invalidate_when` called it harmless, and it was not).

**Why a difference proves it.** A result computed again may differ simply because a commit came between. So, after the
computation, the log is looked at once more: every commit that the new snapshot shows has then been applied. An entry
that still is live after that was touched by none of them, and the snapshots of both results are equal as far as the
read set goes. Bytes that differ then have one of two causes: the invalidation failed, or the handler answers
differently by itself (a random order, its own clock). Nobody can tell these apart from outside, so the message names
both; but where the two runs compared one column with different values, it is the handler, and the column is named. An
entry that is not live any more proves nothing and is let go.

**What it costs.** One handler at a time, from a queue that is bounded: past it, audits are skipped and counted. No
request waits for one. The share is 0 unless the application says otherwise: an audit is a run of the handler on the
database, which a cache is there to spare.
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
from reactive_rpc.cache.result import CachedResult, Computed
from reactive_rpc.dependencies.results_differ import compares_moments, moved_columns
from reactive_rpc.tasks import OnDemand

__all__ = ["WAYS_OUT", "AuditStats", "Auditor", "Finding"]

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""How many entries may wait to be audited."""

MAX_FINDINGS = 100
"""How many findings are remembered; the counters go on."""


@dataclass(slots=True)
class AuditStats:
    """Counters since the start.

    Attributes:
        audited: compared with a result computed again, whatever came of it.
        stale: of these, answers that were stale.
        wrong_vetoes: of these, answers that a wrong veto had kept.
        audits_undecided: computed again and not compared: a change came between, or the handler failed.
        audits_skipped: not audited as too many were waiting.
    """

    audited: int = 0
    stale: int = 0
    wrong_vetoes: int = 0
    audits_undecided: int = 0
    audits_skipped: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer that was wrong.

    Attributes:
        kind: `stale`; `veto` where an `invalidate_when` had kept the entry; `clock` where the handler compared a column
            with another value than before, though it was to read the same: by its own clock, or by chance.
        path: of the procedure.
        table: whose change was vetoed, or the `table.column` that was compared; empty for `stale`. Several are several
            findings.
        difference: in which way the results differ, without their values.
    """

    kind: Literal["stale", "veto", "clock"]
    path: str
    table: str
    difference: str

    def __str__(self) -> str:
        if self.kind == "veto":
            return (
                f"{self.path}: invalidate_when[{self.table!r}] vetoed a change, and computed again the result has "
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
    """Audits entries in the background. Used on one event loop.

    Args:
        drop: called with each entry that was found to be wrong.
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
        drop: Callable[[CachedResult], None],
        *,
        share: float,
        random: Callable[[], float] = _random.random,
        samples: bool = False,
    ) -> None:
        self.stats = AuditStats()
        self._freshness = freshness
        self._drop = drop
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
        """What was found, the latest last."""
        return tuple(self._findings)

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {**asdict(self.stats)}

    def offer(self, entry: CachedResult) -> None:
        """Audit `entry`, which is live, perhaps; returns at once."""
        is_drawn = self.share and self._random() < self.share
        if entry in self._waiting or not (is_drawn or self._is_sample(entry)):
            return
        if not entry.period.is_exact:
            return  # its author allows it to be as old as it is
        if len(self._waiting) >= MAX_WAITING:
            self.stats.audits_skipped += 1
            return
        self._waiting[entry] = None
        self._task.wake()

    def _is_sample(self, entry: CachedResult) -> bool:
        path = entry.query.key[0]
        if not self._samples or path in self._sampled or not compares_moments(entry.read_set):
            return False
        self._sampled.add(path)
        return True

    async def settle(self) -> None:
        """Return once everything that was offered has been audited."""
        while self._task.is_running:
            await self._task.wait()

    async def aclose(self) -> None:
        """Abandon what is waiting, but where everything is to be audited (a check); idempotent."""
        if self.share >= 1.0:
            await self.settle()
        self._waiting.clear()
        await self._task.aclose()

    async def _work(self) -> None:
        while self._waiting:
            entry = next(iter(self._waiting))
            del self._waiting[entry]  # from here on it may be offered again: its next change is another matter
            if entry.live:
                await self._audit(entry)

    async def _audit(self, entry: CachedResult) -> None:
        try:
            computed = await entry.query.compute()
            await self._freshness.look()
        except Exception as exc:
            logger.debug("%s could not be audited: %s", entry.query.key[0], type(exc).__name__)
            self.stats.audits_undecided += 1
            return
        if not self._is_comparable(entry, computed):
            self.stats.audits_undecided += 1
            return
        self.stats.audited += 1
        again = CachedResult(entry.query, computed, entry.version)
        moved = moved_columns(entry.read_set, again.read_set)
        is_same = again.etag == entry.etag
        if moved:
            self._report_clock(entry, moved, "its result is the same" if is_same else _difference(entry, again))
            self.stats.stale += not is_same
        elif not is_same:
            self._report(entry, again)
        if not is_same:
            self._drop(entry)

    def _is_comparable(self, entry: CachedResult, again: Computed) -> bool:
        """Tell whether both are of one state of the data, as far as they read it, and of one tick."""
        if not entry.live or entry.period != again.read_set.period:
            return False
        return again.lasts and again.read_set.opaque is None

    def _report_clock(self, entry: CachedResult, moved: Sequence[str], difference: str) -> None:
        """Say so once for each column: every audit of the query finds it again."""
        for column in moved:
            finding = Finding("clock", entry.query.key[0], column, difference)
            if (finding.path, column) not in self._clocks:
                self._clocks.add((finding.path, column))
                self._findings.append(finding)
                logger.error("%s", finding)

    def _report(self, entry: CachedResult, again: CachedResult) -> None:
        path, difference = entry.query.key[0], _difference(entry, again)
        if entry.vetoed:
            self.stats.wrong_vetoes += 1
            found = [Finding("veto", path, table, difference) for table in sorted(entry.vetoed)]
        else:
            self.stats.stale += 1
            found = [Finding("stale", path, "", difference)]
        for finding in found:
            self._findings.append(finding)
            logger.error("%s; %s", finding, NOT_DETERMINISTIC)


def _difference(served: CachedResult, again: CachedResult) -> str:
    errors = (served.error, again.error)
    if errors != (None, None):
        return "another error" if None not in errors else "an error where there was a result, or the reverse"
    if served.computed is None or again.computed is None:
        return "another content (its bytes were not kept)"  # it is watched, and the store had no room for it
    return _json_difference(json.loads(served.computed.body), json.loads(again.computed.body))


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
