"""What the client's tests share: a seeded database, and servers on copies of it."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from app.seed import seed

from .teamhub import Served

Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded database that nobody writes to."""
    database = tmp_path_factory.mktemp("seeded") / "teamhub.db"
    seed(database)
    return database


@pytest.fixture(scope="session")
def shared(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests that leave it running; each takes agents of its own."""
    database = Path(shutil.copy(seeded, tmp_path_factory.mktemp("shared") / "teamhub.db"))
    with Served("app.main:app", database) as served:
        yield served
        served.end()


@pytest.fixture
def seed_of_run() -> int:
    """What a random test is made of: shown where it fails, given again by REACTIVE_SOUNDNESS_SEED."""
    value = int(os.environ.get("REACTIVE_SOUNDNESS_SEED") or random.randrange(2**32))
    sys.stdout.write(f"REACTIVE_SOUNDNESS_SEED={value}\n")
    return value


@pytest.fixture
def serve(seeded: Path, tmp_path: Path) -> Iterator[Serve]:
    """Start servers of the test's own; `serve(NAME=value)` sets their environment."""
    numbers = count()
    with ExitStack() as stack:

        def start(app: str = "app.main:app", **environment: str) -> Served:
            database = Path(shutil.copy(seeded, tmp_path / f"teamhub{next(numbers)}.db"))
            return stack.enter_context(Served(app, database, environment))

        yield start
