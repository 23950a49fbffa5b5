"""Chromium, and a TeamHub to load pages from. If a test fails, everything that its tabs did stands beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.seed import seed
from tests.support.browser import Chromium, Context
from tests.support.node import TYPESCRIPT, run_node
from tests.support.teamhub import TeamHub


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundled pages of `tests/typescript/pages`."""
    folder = tmp_path_factory.mktemp("pages")
    run_node(TYPESCRIPT / "support/bundle.ts", str(folder))
    return folder


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is filled; copy it."""
    database = tmp_path_factory.mktemp("seeded") / "teamhub.db"
    seed(database)
    return database


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, seeded: Path, pages: Path) -> Iterator[TeamHub]:
    """A TeamHub of this module's tests; one that kills it has to start it again."""
    with TeamHub(tmp_path_factory.mktemp("teamhub"), seeded=seeded, pages=pages) as hub:
        yield hub


@pytest.fixture(scope="module")
def token(hub: TeamHub) -> str:
    """Ada's, of the first organization."""
    return hub.log_in()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One for all tests; each has a context of its own in it."""
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Context]:
    """Like a browser of the test's own: no storage, no tabs. No page in it may throw, or do what its policy refuses."""
    chromium.forget()
    context = chromium.new_context()
    yield context
    # Pytest shows it beside a failure, and throws it away otherwise.
    sys.stdout.write(chromium.timeline())
    context.close()
    assert context.faults == []
