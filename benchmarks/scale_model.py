"""A queueing model of many workers: discrete events, each part a queue that is served in the order of arrival.

A write costs the database; the relay reads it and appends it to Redis; every worker reads it there. A worker that has
streams for it tells them one after another and has the result again: the first to come computes it, which costs the
database too, and the others take it from Redis. Then clients fetch and acknowledge. All costs are CPU time that was
measured (`scale_costs.py`).

Workers are alike, so a few of them stand for all: parts that all share (database, relay, Redis) get the load of all,
and the few get their own. Not modelled: turns of the event loop between streams, garbage collection, lost connections,
bandwidth, and what clients do themselves.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

__all__ = ["ELSEWHERE", "Costs", "Layout", "Outcome", "Write", "come_back", "simulate", "spread_writes"]

ELSEWHERE = -1
"""In the place of a worker's number: one that only stands for its load on what all share."""

GATHERED_SECONDS = 0.25
"""How long a client waits with an acknowledgement."""

PIECES = 50
"""So many moments stand for the receipts of one event at one worker."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """CPU seconds, unless the name says otherwise.

    Attributes:
        found: a worker's, for a commit that comes alone: to wake up and read the log.
        follow: a worker's for one change in its log; `relay`: the relay's; `redis`: Redis's.
        report: Redis's, to send one report to one worker; `keep`: to lease a result and to keep it; `take`: to
            hand it to another worker.
        push: of `event`, what is done for all streams before the first of them is written to.
        event: a worker's, to tell one stream.
        compute: a worker's, to compute a watched result again; `compute_database`: the database's for it.
        adopt: a worker's, to take it from the worker that has computed it.
        hit: a worker's, to answer from the cache; `ack`: to take an acknowledgement.
        open: a worker's, to open a stream that shows what others show; `open_own`: five results of its own.
        write: the database's for a commit of one row.
        stream_bytes: memory of a stream; `own_bytes`: of one with five results of its own.
    """

    found: float
    follow: float
    relay: float
    redis: float
    report: float
    keep: float
    take: float
    push: float
    event: float
    compute: float
    compute_database: float
    adopt: float
    hit: float
    ack: float
    open: float
    open_own: float
    write: float
    stream_bytes: float
    own_bytes: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is deployed.

    Attributes:
        workers: each with a core of its own; `sampled`: how many of them are played.
        database_cores: of PostgreSQL's host.
        look_seconds: the least distance between two reads of the log.
        one_way_seconds: between hosts.
        lead_seconds: what passes in a COMMIT, and until somebody wakes up, beside all CPU time.
        stretch: seconds that pass for a CPU second; more than 1 on a machine that does other work too.
        fetches: whether clients fetch what they were told of; `acknowledges`: whether they acknowledge.
    """

    workers: int = 1
    sampled: int = 1
    database_cores: int = 32
    look_seconds: float = 0.005
    one_way_seconds: float = 0.0
    lead_seconds: float = 0.0
    stretch: float = 1.0
    fetches: bool = True
    acknowledges: bool = True


@dataclass(frozen=True)
class Write:
    """A commit of one row at a moment, and for each result that it touches `{worker: its streams}`."""

    at: float
    results: tuple[Mapping[int, int], ...]


@dataclass
class Outcome:
    """What came out.

    Attributes:
        receipts: `(seconds since the commit, how many clients)`, in no order.
        cpu: of each part, in seconds; of all workers that were played together.
        until: when the last part had nothing left to do.
        last: when the last client was told, seconds since the first commit.
    """

    receipts: list[tuple[float, float]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    until: float = 0.0
    last: float = 0.0

    def at(self, share: float) -> float:
        """Return the seconds within which `share` of the clients were told."""
        ordered = sorted(self.receipts)
        left = share * sum(clients for _, clients in ordered)
        for seconds, clients in ordered:
            left -= clients
            if left <= 0:
                return seconds
        return ordered[-1][0] if ordered else 0.0


class _Part:
    """A queue with so many cores."""

    def __init__(self, cores: int, stretch: float) -> None:
        self._free_at = [0.0] * cores
        self._stretch = stretch
        self.busy = 0.0

    def run(self, now: float, cpu_seconds: float) -> tuple[float, float]:
        """Do work that comes now; return when it begins and ends."""
        begin = max(now, heapq.heappop(self._free_at))
        end = begin + cpu_seconds * self._stretch
        heapq.heappush(self._free_at, end)
        self.busy += cpu_seconds
        return begin, end

    @property
    def backlog_until(self) -> float:
        """Until when it has something to do."""
        return max(self._free_at)


@dataclass
class _Result:
    """A result that one write has touched: who shows it, and when the first has computed it again."""

    streams: Mapping[int, int]
    committed_at: float
    is_taken: bool = False
    ready_at: float | None = None
    waiting: list[int] = field(default_factory=list)


class _Run:
    def __init__(self, costs: Costs, layout: Layout, chance: random.Random) -> None:
        self.costs, self.layout, self.chance = costs, layout, chance
        self.now = 0.0
        self._number = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self.database = _Part(layout.database_cores, layout.stretch)
        self.relay, self.redis = _Part(1, layout.stretch), _Part(1, layout.stretch)
        self.workers = [_Part(1, layout.stretch) for _ in range(layout.sampled)]
        self.outcome = Outcome()
        self._unread: list[_Result] = []
        self._unread_changes = 0
        self._looks_at: float | None = None
        self._looked_at = -1.0

    def at(self, moment: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (moment, self._number, action))

    def play(self) -> Outcome:
        while self._due:
            self.now, _, action = heapq.heappop(self._due)
            action()
        parts = {"database": [self.database], "relay": [self.relay], "Redis": [self.redis], "workers": self.workers}
        self.outcome.cpu = {name: sum(part.busy for part in several) for name, several in parts.items()}
        self.outcome.until = max(part.backlog_until for several in parts.values() for part in several)
        return self.outcome

    def commit(self, write: Write) -> None:
        _, end = self.database.run(self.now, self.costs.write)
        results = [_Result(streams, self.now) for streams in write.results]
        self.at(end + self.layout.lead_seconds, lambda: self._committed(results))

    def _committed(self, results: list[_Result]) -> None:
        self._unread += results
        self._unread_changes += 1
        if self._looks_at is None:
            self._looks_at = max(self.now + self.layout.one_way_seconds, self._looked_at + self.layout.look_seconds)
            self.at(self._looks_at, self._look)

    def _look(self) -> None:
        """Let the relay read what is new: a question and its answer; then every worker is sent a report."""
        self._looked_at, self._looks_at = self.now, None
        results, self._unread = self._unread, []
        changes, self._unread_changes = self._unread_changes, 0
        costs, away = self.costs, self.layout.one_way_seconds
        _, read = self.relay.run(self.now + 2 * away, costs.found + changes * costs.relay)
        _, sent = self.redis.run(read + away, changes * costs.redis + self.layout.workers * costs.report)
        concerned: dict[int, list[_Result]] = defaultdict(list)
        for result in results:
            for worker in result.streams:
                concerned[worker].append(result)
        for worker in range(self.layout.sampled):
            theirs = concerned[worker]
            self.at(sent + away, partial(self._follow, worker, changes, theirs))
        for result in concerned[ELSEWHERE]:
            if self.chance.random() * sum(result.streams.values()) >= result.streams[ELSEWHERE]:
                continue  # one of those that are played is the first to come, and computes it
            self.at(sent + away, partial(self._have_again, ELSEWHERE, result))

    def _follow(self, worker: int, changes: int, results: list[_Result]) -> None:
        part = self.workers[worker]
        part.run(self.now, self.costs.found + changes * self.costs.follow)
        for result in results:
            self._notify(worker, result)
        for result in results:
            self.at(self.now, partial(self._have_again, worker, result))

    def _notify(self, worker: int, result: _Result) -> None:
        costs, streams, part = self.costs, result.streams[worker], self.workers[worker]
        _, first = part.run(self.now, streams * costs.push)
        _, last = part.run(self.now, streams * (costs.event - costs.push))
        pieces = min(PIECES, streams)
        for piece in range(1, pieces + 1):
            moment = first + (last - first) * piece / pieces
            self._notified(worker, moment, streams / pieces, result.committed_at)

    def _notified(self, worker: int, moment: float, clients: float, committed_at: float) -> None:
        costs, part, heard_at = self.costs, self.workers[worker], moment + self.layout.one_way_seconds
        self.outcome.receipts.append((heard_at - committed_at, clients))
        self.outcome.last = max(self.outcome.last, heard_at)
        if self.layout.fetches:
            self.at(heard_at + self.layout.one_way_seconds, lambda: part.run(self.now, clients * costs.hit) and None)
        if self.layout.acknowledges:
            gathered = heard_at + self.chance.uniform(0, GATHERED_SECONDS)
            self.at(gathered, lambda: part.run(self.now, clients * costs.ack) and None)

    def _have_again(self, worker: int, result: _Result) -> None:
        """Compute a result, or take it from who does."""
        if result.ready_at is not None:
            self._adopt(worker)
        elif result.is_taken:
            result.waiting.append(worker)
        else:
            result.is_taken = True
            # Another worker is as busy as one of those that are played.
            part = self.workers[worker] if worker != ELSEWHERE else _copy(self.chance.choice(self.workers))
            _, asked = part.run(self.now, self.costs.compute)
            _, answered = self.database.run(asked + self.layout.one_way_seconds, self.costs.compute_database)
            self.at(answered + self.layout.one_way_seconds, lambda: self._ready(result))

    def _ready(self, result: _Result) -> None:
        result.ready_at = self.now
        workers = sum(streams if worker == ELSEWHERE else 1 for worker, streams in result.streams.items())
        self.redis.run(self.now, self.costs.keep + (workers - 1) * self.costs.take)
        for worker in result.waiting:
            self.at(self.now + 2 * self.layout.one_way_seconds, partial(self._adopt, worker))

    def _adopt(self, worker: int) -> None:
        if worker != ELSEWHERE:
            self.workers[worker].run(self.now, self.costs.adopt)


def _copy(part: _Part) -> _Part:
    copied = _Part(1, 1.0)
    copied._free_at, copied._stretch = list(part._free_at), part._stretch
    return copied


def simulate(costs: Costs, layout: Layout, writes: Iterable[Write], *, seed: int = 1) -> Outcome:
    """Play some writes, until all is quiet."""
    run = _Run(costs, layout, random.Random(seed))
    for write in writes:
        run.at(write.at, partial(run.commit, write))
    return run.play()


def spread_writes(
    layout: Layout, *, rate: float, seconds: float, results: int, streams: int, is_scoped: bool, seed: int = 1
) -> Sequence[Write]:
    """Return writes at random moments.

    Args:
        rate: writes a second.
        seconds: for so long.
        results: touched by each; `streams`: that show each of these.
        is_scoped: whether all streams of a result are at one worker, in the place of anywhere.
    """
    chance, now, found = random.Random(seed), 0.0, []
    while (now := now + chance.expovariate(rate)) < seconds:
        touched = []
        for _ in range(results):
            places = [chance.randrange(layout.workers) for _ in range(1 if is_scoped else streams)]
            shown: dict[int, int] = defaultdict(int)
            for place in places:
                # Of a worker elsewhere only its turn at what is shared counts, so one stream stands for all of its.
                is_played = place < layout.sampled
                shown[place if is_played else ELSEWHERE] += streams if is_scoped and is_played else 1
            touched.append(dict(shown))
        found.append(Write(now, tuple(touched)))
    return found


def come_back(cpu_seconds: float, streams: int, *, earliest: float = 1.0, latest: float = 5.0, seed: int = 1) -> float:
    """Return how many seconds pass until all streams of a worker have come back, each after its own `retry:`."""
    chance, part, last = random.Random(seed), _Part(1, 1.0), 0.0
    for moment in sorted(chance.uniform(earliest, latest) for _ in range(streams)):
        _, last = part.run(moment, cpu_seconds)
    return last
