"""A TeamHub that serves its page, and what opens the page in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.browser import Context
from tests.support.page import Page, build
from tests.support.page_states import Stage
from tests.support.teamhub import TeamHub

OPEN = Callable[..., Page]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, seeded: Path, pages: Path) -> Iterator[TeamHub]:
    """A TeamHub that serves the page."""
    built = build(tmp_path_factory.mktemp("page"))
    folder = tmp_path_factory.mktemp("teamhub")
    with TeamHub(folder, seeded=seeded, pages=pages, environment={"TEAMHUB_PAGE": str(built)}) as hub:
        yield hub


@pytest.fixture
def show(hub: TeamHub, browser: Context) -> Iterator[OPEN]:
    """Return what opens the page; its policy has refused nothing, and it has thrown nothing, at the end."""
    shown: list[Page] = []

    def show(**options: object) -> Page:
        shown.append(Page(options.pop("browser", browser), hub, **options))  # type: ignore[arg-type]
        return shown[-1]

    yield show
    assert [fault for page in shown for fault in page.tab.faults] == []


@pytest.fixture
def stage(hub: TeamHub, show: OPEN) -> Stage:
    """Where the page comes into its states."""
    return Stage(hub, show)
