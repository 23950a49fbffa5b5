"""tRPC's own clients against TeamHub: typed by the generated `AppRouter`, and with TanStack Query on top."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.seed import EMAIL, PASSWORD, seed
from app.server_process import serving
from tests.support.node import TYPESCRIPT, run_node

PROGRAMS = {
    "newest": "trpc/teamhub.ts",
    "11.22.1": "trpc_11_22/teamhub_pinned.ts",
    "TanStack Query": "trpc_11_22/tanstack.ts",
    "hooks of React": "trpc_11_22/hooks_teamhub.ts",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("teamhub") / "teamhub.db"
    seed(database)
    with serving(database, environment={"TEAMHUB_SECRET": "a secret of the tests, long enough for HS256"}) as served:
        yield served


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unmodified_client_works(program: str, url: str) -> None:
    """Every link, batches, streams, subscriptions, refusals; and queries that a commit of another has changed."""
    assert run_node(TYPESCRIPT / PROGRAMS[program], url, EMAIL, PASSWORD).splitlines() == ["all is right"]
