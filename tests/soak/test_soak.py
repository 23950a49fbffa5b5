"""The soak, bounded: `make soak` plays it for `SOAK_SECONDS`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from reactive_rpc.testing import serving
from tests.support.processes import ROOT

from .soak import Sample, growths, soak

SECONDS = float(os.environ["SOAK_SECONDS"])
ROUNDS = 12
LEAKY_ROUNDS = 8
SEED = os.environ.get("SOAK_SEED", "1")
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "REACTIVE_RPC_MAX_STREAMS_PER_IDENTITY": "1000",
    "REACTIVE_RPC_STREAM_OPENS_PER_SECOND": "10000",
    "REACTIVE_RPC_STREAM_QUEUE_EVENTS": "16",
}


@contextmanager
def served(database: Path, **environment: str) -> Iterator[int]:
    """Run the server and give its port."""
    url = f"sqlite+aiosqlite:///{database}"
    with serving("tests.soak.served:app", environment={**SETTINGS, "SOAK_URL": url, **environment}) as address:
        port = urlsplit(address).port
        assert port is not None
        yield port


def print_samples(samples: list[Sample], capsys: pytest.CaptureFixture[str]) -> None:
    """Print the samples, to be recorded."""
    with capsys.disabled():
        for sample in samples[:: max(1, len(samples) // 12)]:
            sys.stdout.write(f"\n{sample}")


def test_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Streams that come, are told, and go in every way leave no descriptor, no task, no object and no memory behind."""
    database = tmp_path / "soak.db"
    with served(database) as port:
        samples = asyncio.run(soak(port, database, rounds=ROUNDS, seconds=SECONDS, seed=SEED))
    print_samples(samples, capsys)
    assert not growths(samples), samples


@pytest.mark.seeded_bug
def test_a_leak_is_found(tmp_path: Path) -> None:
    """A server that keeps the streams that have ended is found out within a few rounds."""
    database = tmp_path / "soak.db"
    with served(database, SOAK_LEAK="1") as port:
        samples = asyncio.run(soak(port, database, rounds=LEAKY_ROUNDS, seconds=0, seed=SEED))
    assert any(found.startswith("objects") for found in growths(samples)), samples
