"""The queueing model of `benchmarks/scale_model.py` agrees with arithmetic where arithmetic is possible."""

from __future__ import annotations

from dataclasses import fields

import pytest

from benchmarks.scale_model import ELSEWHERE, Costs, Layout, Write, come_back, simulate, spread_writes

FREE = Costs(**{each.name: 0.0 for each in fields(Costs)})
QUIET = Layout(look_seconds=0.0, fetches=False, acknowledges=False)


def costs(**given: float) -> Costs:
    """Return costs that are nothing but for these."""
    return Costs(**({each.name: 0.0 for each in fields(Costs)} | given))


def test_one_event_is_told_to_one_stream_after_another() -> None:
    """The last is told when all of them have been paid for, the median after half."""
    played = simulate(costs(found=0.002, event=0.000_02), QUIET, [Write(0.0, ({0: 1000},))])
    assert played.last == pytest.approx(0.002 + 0.002 + 1000 * 0.000_02)  # the relay's look, the worker's, the streams
    assert played.at(0.5) == pytest.approx(0.004 + 500 * 0.000_02)
    assert played.cpu["workers"] == pytest.approx(0.002 + 1000 * 0.000_02)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_a_queue_waits_as_theory_says(load: float) -> None:
    """Random arrivals and equal work, M/D/1: half of load / (1 - load) pieces of work (Pollaczek and Khinchine)."""
    work = 0.001
    writes = spread_writes(QUIET, rate=load / work, seconds=120.0, results=1, streams=1, is_scoped=True)
    played = simulate(costs(event=work), QUIET, writes)
    mean = sum(seconds for seconds, _ in played.receipts) / len(played.receipts)
    assert mean / work == pytest.approx(1 + load / (2 * (1 - load)), rel=0.06)


def test_a_commit_crosses_as_often_as_its_way_says() -> None:
    """From the database to the relay, its question and the rows, to Redis, from there to the worker, to the client."""
    layout = Layout(look_seconds=0.0, one_way_seconds=0.01, fetches=False, acknowledges=False)
    assert simulate(FREE, layout, [Write(0.0, ({0: 1},))]).last == pytest.approx(6 * 0.01)


def test_a_result_is_computed_once_and_taken_by_the_others() -> None:
    """However many workers show it, also those that are not played."""
    layout = Layout(workers=50, sampled=2, look_seconds=0.0, fetches=False, acknowledges=False)
    each = costs(compute=0.001, adopt=0.000_1, compute_database=0.005, take=0.000_01)
    alone = simulate(each, layout, [Write(0.0, ({0: 1, 1: 1},))])
    assert alone.cpu["workers"] == pytest.approx(0.001 + 0.000_1)
    elsewhere = simulate(each, layout, [Write(0.0, ({0: 1, 1: 1, ELSEWHERE: 8_000},))])
    assert elsewhere.cpu["workers"] == pytest.approx(2 * 0.000_1)
    for played, workers in ((alone, 2), (elsewhere, 8_002)):
        assert played.cpu["database"] == pytest.approx(0.005)
        assert played.cpu["Redis"] == pytest.approx((workers - 1) * 0.000_01)


def test_reads_of_the_log_keep_their_distance_and_gather_commits() -> None:
    """So a hundred commits in a tenth of a second cost a worker twenty looks."""
    layout = Layout(look_seconds=0.005, fetches=False, acknowledges=False)
    played = simulate(costs(found=0.000_1), layout, [Write(n / 1000, ()) for n in range(100)])
    assert played.cpu["relay"] == pytest.approx(20 * 0.000_1, rel=0.1)


def test_whoever_comes_back_waits_for_whoever_came_before() -> None:
    """If opening takes longer than the time over which clients spread, the last waits for all."""
    assert come_back(0.001, 100_000) == pytest.approx(1.0 + 100.0, rel=0.01)
    assert come_back(0.000_001, 1_000) == pytest.approx(5.0, rel=0.02)
