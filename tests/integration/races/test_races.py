"""Races between processes, on both databases: readers, writers, crashes; and the naive reader, which must lose."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import get_args

import pytest

from reactive_rpc.testing.postgresql import PostgreSQL

from .arena import Arena, Report
from .places import Crash

SECONDS = float(os.environ.get("REACTIVE_RACES_SECONDS", "5"))
PLACES = get_args(Crash)
ROUNDS = 1 + int(SECONDS / 30)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'races.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


def print_report(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """Print what happened where a long run was asked for, to be recorded."""
    if "REACTIVE_RACES_SECONDS" in os.environ:
        with capsys.disabled():
            sys.stdout.write(f"\n{dict(report.counts)}, stale {len(report.stale)}, behind {len(report.behind)}\n")


def has_seen_much(report: Report) -> bool:
    """Tell whether a run says anything."""
    return min(report.counts["commits"], report.counts["told"]) > 20


def test_nobody_reads_the_past(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer of either server shows what any writer was acknowledged before; every watcher ends up right."""
    report = Arena(url, seed=1).play(SECONDS, until=has_seen_much)
    print_report(report, capsys)
    assert not report.stale
    assert not report.behind


def test_a_killed_server_loses_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same while servers are killed in a transaction, after its commit, before applying and before storing."""
    report = Arena(url, seed=2).play(SECONDS, crashes=PLACES * ROUNDS)
    print_report(report, capsys)
    assert not report.stale
    assert not report.behind
    assert report.counts["crashes"] == len(PLACES) * ROUNDS


@pytest.mark.seeded_bug
def test_the_naive_reader_loses(url: str) -> None:
    """Without the reader protocol the same players find stale answers: the test can fail."""
    assert Arena(url, seed=1, naive=True).play(0, until=lambda report: report.stale).stale
