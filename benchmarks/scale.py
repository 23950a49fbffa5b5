"""From measured costs to a million streams: costs of the parts, a queueing model, how far the two agree, what it says.

The costs come from one deployment of real parts (`scale_costs.py`), with few streams. The model (`scale_model.py`) then
predicts what larger ones do, which is measured too, and at last plays deployments that are too large to be run here.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from benchmarks.fanout import event_request
from benchmarks.fanout_clients import Stamp
from benchmarks.processes import raise_file_limit
from benchmarks.scale_costs import Deployment, Notified, deployed, measured_costs, notified, patiently, spent
from benchmarks.scale_model import Costs, Layout, Outcome, Write, come_back, simulate, spread_writes
from reactive_rpc.testing.postgresql import PostgreSQLServer, postgresql_server
from reactive_rpc.testing.redis import RedisServer, redis_server

__all__ = ["run"]

SIZES = (1_000, 5_000, 10_000)
ROOMS = 100
BURST_SECONDS = 2.0
BURSTS = 3

MILLION = 1_000_000
STREAMS_A_WORKER = 20_000
"""`max_streams`, as it is set by default."""

SAMPLED = 4
PLAYED_SECONDS = 3.0
LATE_SECONDS = 0.25
"""A rate is carried as long as 99 of 100 clients are told within so long."""

RESULTS_A_WRITE, STREAMS_A_RESULT = 2, 5


@dataclass(frozen=True)
class Burst:
    """Commits to many rooms, of two workers: the mean delay of a client, and CPU seconds of parts."""

    delay: float
    workers: float
    database: float
    relay: float
    redis: float


FIGURES = {
    "delay": "mean delay of a client",
    "workers": "CPU of both workers",
    "database": "CPU of the database",
    "relay": "CPU of the relay",
    "redis": "CPU of Redis",
}


def burst(deployment: Deployment, streams: int, layout: Layout, costs: Costs) -> tuple[Burst, Burst]:
    """Write each room once, at random moments; return what came out, and what the model says of the same moments."""
    writes: list[tuple[float, str]] = []
    rooms = random.sample(range(ROOMS), ROOMS)
    each = streams // ROOMS // len(deployment.targets)

    def write() -> None:
        for room in rooms:
            time.sleep(random.expovariate(ROOMS / BURST_SECONDS))
            writes.append((time.monotonic(), f"room {room}"))
            deployment.write("room = %s", f"room {room}")

    for held in deployment.held:
        held.arm(marker=b"event: invalidation")
    started = Stamp.now()
    found = spent(deployment, write)
    read = [moment / 1e3 for held in deployment.held for moment in held.receipts(started).read_ms]
    begun = started.monotonic / 1e9
    delay = statistics.fmean(read) - statistics.fmean(moment - begun for moment, _ in writes)
    shown = dict.fromkeys(range(len(deployment.targets)), each)
    played = simulate(costs, layout, [Write(moment - begun, (shown,)) for moment, _ in writes])
    return Burst(delay, found.worker, found.database, found.relay, found.redis), _predicted(played)


def _predicted(played: Outcome) -> Burst:
    clients = sum(count for _, count in played.receipts)
    delay = sum(seconds * count for seconds, count in played.receipts) / clients
    cpu = played.cpu
    return Burst(delay, cpu["workers"], cpu["database"], cpu["relay"], cpu["Redis"])


def one_event(costs: Costs, layout: Layout, streams: int) -> Outcome:
    """Play one write whose result all streams of one worker show."""
    return simulate(costs, layout, [Write(0.0, ({0: streams},))])


def calibrated(costs: Costs, few: Notified, many: Notified) -> Layout:
    """Return the layout of this machine: what passes beside CPU time, by one event to few streams and one to many.

    On a machine that does other work a process waits for its core, too: `stretch`.
    """
    stretch = max(1.0, (many.last - few.last) / max(1e-9, many.cpu - few.cpu))
    layout = Layout(sampled=1, stretch=stretch, fetches=False, acknowledges=False, database_cores=1)
    lead = max(0.0, few.first - one_event(costs, layout, 500).receipts[0][0])
    return replace(layout, lead_seconds=lead)


def _compared(predicted: float, measured: float) -> str:
    return f"{predicted * 1e3:.0f} ms | {measured * 1e3:.0f} ms | {predicted / measured - 1:+.0%}"


def report_costs(costs: Costs, layout: Layout) -> Iterator[str]:
    """Yield a table."""
    yield "| cost | CPU |"
    yield "|---|---|"
    for each in fields(costs):
        value = getattr(costs, each.name)
        yield (
            f"| {each.name} | {value / 1e3:.1f} kB |"
            if "bytes" in each.name
            else f"| {each.name} | {value * 1e6:.1f} us |"
        )
    yield f"| passes before anybody wakes | {layout.lead_seconds * 1e3:.1f} ms |"
    yield f"| passes for a second of CPU | {layout.stretch:.2f} s |"


def report_validation(server: PostgreSQLServer, redis: RedisServer, costs: Costs, layout: Layout) -> Iterator[str]:
    """Yield two tables: one event to all streams of a worker, and a burst of commits at two workers."""
    yield "| one event, 1 worker | last, predicted | measured | error | CPU, predicted | measured | error |"
    yield "|" + "---|" * 7
    with deployed(server, redis, workers=1) as one:
        for streams in SIZES:
            measured = patiently(one, partial(notified, one, streams))
            played = one_event(costs, layout, streams)
            last, cpu = played.last, played.cpu["workers"]
            yield f"| {streams:,} streams | {_compared(last, measured.last)} | {_compared(cpu, measured.cpu)} |"
    yield ""
    yield f"| {ROOMS} commits in {BURST_SECONDS:g} s, 2 workers | | predicted | measured | error |"
    yield "|" + "---|" * 5
    with deployed(server, redis, workers=2) as two:
        for streams in SIZES:
            for figure, compared in patiently(two, partial(_bursts, two, streams, layout, costs)):
                yield f"| {streams:,} streams | {figure} | {compared} |"


def _bursts(two: Deployment, streams: int, layout: Layout, costs: Costs) -> list[tuple[str, str]]:
    rooms = [f"room {n}" for n in range(ROOMS)]
    two.fill(rooms)
    for target, held in zip(two.targets, two.held, strict=True):
        for room in rooms:
            request = event_request("messages.get_all", [room])
            held.open(target.port, request, streams // ROOMS // len(two.targets), marker=target.opened)
    layout = replace(layout, workers=2, sampled=2)
    pairs = [burst(two, streams, layout, costs) for _ in range(BURSTS)]
    two.close()
    medians = ([statistics.median(getattr(pair[side], each) for pair in pairs) for each in FIGURES] for side in (1, 0))
    return [(title, _compared(*both)) for title, *both in zip(FIGURES.values(), *medians, strict=True)]


def report_million(costs: Costs) -> Iterator[str]:
    """Yield what a million streams take, if little is written."""
    workers = MILLION // STREAMS_A_WORKER
    slowest = one_event(costs, Layout(workers=workers), STREAMS_A_WORKER).last
    yield f"A million streams at {workers} workers of {STREAMS_A_WORKER:,}:"
    yield f"- memory of the workers: {MILLION * costs.stream_bytes / 1e9:.0f} GB; with five results of its own each"
    yield f"  {MILLION * costs.own_bytes / 1e9:.0f} GB"
    yield f"- one event to all: the last is told after {slowest:.2f} s"
    for lost, name in ((8, "a host of eight workers is lost"), (workers, "all workers restart")):
        streams = MILLION // workers if lost == workers else lost * STREAMS_A_WORKER // (workers - lost)
        plain, own = (come_back(cpu, streams) for cpu in (costs.open, costs.open_own))
        yield f"- {name}: all are back after {plain:.1f} s; with five results of its own each {own:.0f} s"


@dataclass(frozen=True)
class Plan:
    """A deployment that is played."""

    name: str
    layout: Layout
    is_scoped: bool


def plans() -> Iterator[Plan]:
    """Yield the deployments, each with one thing mended that was full in the one before."""
    layout = Layout(workers=50, sampled=SAMPLED, one_way_seconds=0.000_25)
    yield Plan("50 workers, streams anywhere", layout, is_scoped=False)
    yield Plan("50 workers, all streams of a result at one", layout, is_scoped=True)
    yield Plan("200 workers, all streams of a result at one", replace(layout, workers=200), is_scoped=True)
    yield Plan("200 workers, which look each 20 ms", replace(layout, workers=200, look_seconds=0.02), is_scoped=True)


def carried(costs: Costs, plan: Plan) -> tuple[float, Outcome]:
    """Return the highest rate of writes that a plan carries, and what came out at that rate."""
    low, high, found = 0.0, 20_000.0, Outcome()
    while high - low > 0.02 * high + 1:
        rate = (low + high) / 2
        outcome = played(costs, plan, rate)
        if outcome.at(0.99) <= LATE_SECONDS:
            low, found = rate, outcome
        else:
            high = rate
    return low, found


def played(costs: Costs, plan: Plan, rate: float) -> Outcome:
    """Play a plan at so many writes a second."""
    writes = spread_writes(
        plan.layout,
        rate=rate,
        seconds=PLAYED_SECONDS,
        results=RESULTS_A_WRITE,
        streams=STREAMS_A_RESULT,
        is_scoped=plan.is_scoped,
    )
    return simulate(costs, plan.layout, writes)


def report_writes(costs: Costs) -> Iterator[str]:
    """Yield a table: how many writes a second each plan carries, and how full each part is then."""
    yield f"Each write touches {RESULTS_A_WRITE} results of {STREAMS_A_RESULT} streams each; p99 {LATE_SECONDS:g} s:\n"
    yield "| deployment | writes/s | p50 | p99 | a worker's core | relay | Redis | database, of its cores |"
    yield "|" + "---|" * 8
    for plan in plans():
        rate, outcome = carried(costs, plan)
        cores = {"workers": plan.layout.sampled, "relay": 1, "Redis": 1, "database": plan.layout.database_cores}
        busy = (f"{outcome.cpu[part] / PLAYED_SECONDS / count:.0%}" for part, count in cores.items())
        late = (f"{outcome.at(share) * 1e3:.0f} ms" for share in (0.5, 0.99))
        yield f"| {plan.name} | {rate:,.0f} | {' | '.join([*late, *busy])} |"


def run(_folder: Path) -> None:
    """Measure, compare, and play."""
    raise_file_limit(max(SIZES) + 2_000)
    print(f"Costs of the parts, with PostgreSQL, a relay and Redis; load of the machine {os.getloadavg()[0]:.1f}:\n")
    with postgresql_server(durable=True) as server, redis_server() as redis:
        costs, few, many = measured_costs(server, redis)
        layout = calibrated(costs, few, many)
        _print(report_costs(costs, layout))
        _print(report_validation(server, redis, costs, layout))
    _print(report_million(costs))
    _print(report_writes(costs))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)
    print()
