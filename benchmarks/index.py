"""The index at 1 k, 100 k and 1 M entries: insert, match, remove, memory, beside a linear scan of the same entries.

Each figure is taken in a forked child of its own, in CPU time and with the garbage collector on. Memory is what the
child's resident set grew by; the entries are integers.
"""

from __future__ import annotations

import gc
import json
import os
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.index import Index
from reactive_rpc.dependencies.read_set import Between, Condition, Constraint, Equals, ReadSet

SIZES = (1_000, 100_000, 1_000_000)
BATCH = 1_000
CHANGES = 5_000
REMOVED = 20_000
SCANNED = 20
COLUMNS = frozenset({"id", "user_id", "team_id", "score"})

Conditions = dict[str, Condition]


@dataclass(frozen=True)
class Workload:
    """What is cached, and what is written.

    Attributes:
        conditions: of the constraint of entry `i` among `n`.
        update: the row before and after a write, among `n` entries.
    """

    conditions: Callable[[int, int, random.Random], Conditions]
    update: Callable[[int, random.Random], tuple[dict[str, int], dict[str, int]]]


def _equals(*values: int) -> Equals:
    return Equals(frozenset(values))


def _mixed(i: int, n: int, rng: random.Random) -> Conditions:
    kind = i % 20
    if kind < 14:
        return {"id": _equals(i)}
    if kind < 18:
        return {"user_id": _equals(rng.randrange(n // 4 + 1))}
    if kind < 19:
        return {"user_id": _equals(rng.randrange(n // 4 + 1)), "team_id": _equals(i % 50)}
    return {"id": _equals(*rng.sample(range(n), 20))}


def _closed(_i: int, n: int, rng: random.Random) -> Conditions:
    low = rng.randrange(n * 10)
    return {"score": Between(low, True, low + int(10 ** rng.uniform(0, 2.5)), True)}


def _nested(_i: int, n: int, rng: random.Random) -> Conditions:
    """Ranges of every length up to all there is, few around any value that is written."""
    middle = n * 5
    low = rng.randrange(middle - 2)
    return {"score": Between(low, True, rng.randrange(low + 1, middle), False)}


def _half_open(_i: int, n: int, rng: random.Random) -> Conditions:
    return {"score": Between(rng.randrange(n * 10), False, None, False)}


def _row(n: int, rng: random.Random, score: int) -> dict[str, int]:
    return {"id": rng.randrange(n), "user_id": rng.randrange(n // 4 + 1), "team_id": rng.randrange(50), "score": score}


def _scored(n: int, rng: random.Random) -> tuple[dict[str, int], dict[str, int]]:
    before = _row(n, rng, rng.randrange(n * 10))
    return before, before | {"score": before["score"] + 1}


def _low_scored(n: int, rng: random.Random) -> tuple[dict[str, int], dict[str, int]]:
    """About seven half-open ranges hold the score, however many there are."""
    before = _row(n, rng, rng.randrange(130))
    return before, before | {"score": before["score"] + 1}


def _high_scored(n: int, rng: random.Random) -> tuple[dict[str, int], dict[str, int]]:
    """Just past all ranges of `_nested`: none holds the score, though nearly all begin before it."""
    before = _row(n, rng, n * 5 + rng.randrange(100))
    return before, before | {"score": before["score"] + 1}


WORKLOADS = {
    "by primary key": Workload(lambda i, n, rng: {"id": _equals(i)}, _scored),
    "mixed": Workload(_mixed, _scored),
    "closed ranges": Workload(_closed, _scored),
    "closed ranges, all before the value": Workload(_nested, _high_scored),
    "half-open ranges": Workload(_half_open, _low_scored),
    "one equal column and a half-open range": Workload(
        lambda i, n, rng: {"user_id": _equals(rng.randrange(n // 4 + 1))} | _half_open(i, n, rng), _scored
    ),
}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _measure(workload: Workload, n: int) -> dict[str, float]:
    """Return times in microseconds and bytes, for `n` entries."""
    rng = random.Random(1)
    index: Index[int] = Index()
    gc.collect()
    resident, inserting = _resident_bytes(), 0.0
    for first in range(0, n, BATCH):
        read_sets = [(i, _read_set(workload.conditions(i, n, rng))) for i in range(first, min(first + BATCH, n))]
        inserting += _timed(lambda read_sets=read_sets: _add(index, read_sets))[0]  # type: ignore[misc]  # bound now
    del read_sets
    gc.collect()
    grown = _resident_bytes() - resident
    writes = [_change(*workload.update(n, rng)) for _ in range(CHANGES)]
    matching, hits = _timed(lambda: sum(len(index.match(write)) for write in writes))
    scanning = _scan(workload, n, writes[:SCANNED])
    gone = rng.sample(range(n), min(n, REMOVED))
    removing, _ = _timed(lambda: _remove(index, gone))
    return {
        "insert": inserting / n * 1e6,
        "match": matching / CHANGES * 1e6,
        "hits": hits / CHANGES,
        "remove": removing / len(gone) * 1e6,
        "bytes": grown / n,
        "scan": scanning * 1e6,
    }


def _read_set(conditions: Conditions) -> ReadSet:
    return ReadSet((Constraint("post", COLUMNS, conditions),))


def _add(index: Index[int], read_sets: list[tuple[int, ReadSet]]) -> int:
    for entry, read_set in read_sets:
        index.add(entry, read_set)
    return len(read_sets)


def _remove(index: Index[int], entries: list[int]) -> int:
    for entry in entries:
        index.remove(entry)
    return len(entries)


def _change(before: dict[str, int], after: dict[str, int]) -> Change:
    return Change(table="post", operation="update", before=before, after=after, changed=frozenset({"score"}))


def _scan(workload: Workload, n: int, writes: list[Change]) -> float:
    """Return how long one change takes if each constraint is asked, in seconds; of at most 100,000, scaled up."""
    rng, few = random.Random(1), min(n, 100_000)
    constraints = [Constraint("post", COLUMNS, workload.conditions(i, n, rng)) for i in range(few)]
    seconds, _ = _timed(lambda: sum(each.touched_by(write) for write in writes for each in constraints))
    return seconds / len(writes) * n / few


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _in_child(workload: Workload, n: int) -> dict[str, float]:
    """Measure in a forked child: what one run leaves in memory must not count in the next."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, json.dumps(_measure(workload, n)).encode())
            status = 0
        except Exception:  # whatever it is: it must not run on into the parent's frames, and the parent tells of it
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("a measurement failed; its traceback is above")
    found: dict[str, float] = json.loads(text)
    return found


def run(_folder: Path, *, sizes: tuple[int, ...] = SIZES) -> None:
    """Measure and print."""
    print("The index: microseconds an entry or a row change, bytes an entry, and a linear scan's time over match's:\n")
    print("| entries | what | insert | match | (hits) | remove | bytes | scan / match |")
    print("|---|---|---|---|---|---|---|---|")
    for name, workload in WORKLOADS.items():
        for n in sizes:
            found = _in_child(workload, n)
            print(
                f"| {n:,} | {name} | {found['insert']:.1f} | {found['match']:.1f} | {found['hits']:.1f} |"
                f" {found['remove']:.1f} | {found['bytes']:.0f} | {found['scan'] / found['match']:,.0f} |",
                flush=True,
            )
    print()
