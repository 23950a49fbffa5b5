"""A TeamHub of the tests' own: seeded, served by another process, called over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.seed import PASSWORD, seed
from app.server_process import serving

SECRET = "a secret of the tests, long enough for HS256"


@dataclass(frozen=True)
class Server:
    """A running TeamHub."""

    url: str
    database: Path
    secret: str


class Caller:
    """One user's calls, as any HTTP client makes them."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def get(self, path: str, **input: Any) -> httpx.Response:
        """Call a query by GET."""
        return self.http.get(f"/rpc/{path}", params=input)

    def post(self, path: str, **input: Any) -> httpx.Response:
        """Call a procedure by POST."""
        return self.http.post(f"/rpc/{path}", json=input)

    def new_agent(self) -> str:
        """Add an agent that no other test touches, and return its id."""
        answer = self.post("agents.create", name="Test", role="tester")
        answer.raise_for_status()
        agent_id: str = answer.json()["id"]
        return agent_id


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded database that nobody writes to."""
    database = tmp_path_factory.mktemp("seeded") / "teamhub.db"
    seed(database)
    return database


@pytest.fixture
def database(seeded: Path, tmp_path: Path) -> Path:
    """A seeded database of the test's own, alone in its folder."""
    return Path(shutil.copy(seeded, tmp_path / "teamhub.db"))


@pytest.fixture(scope="session")
def server(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: they make agents of their own instead of changing the seeded ones."""
    database = Path(shutil.copy(seeded, tmp_path_factory.mktemp("served") / "teamhub.db"))
    with serving(database, environment={"TEAMHUB_SECRET": SECRET}) as url:
        yield Server(url, database, SECRET)


@pytest.fixture(scope="session")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """Nobody: an HTTP client that is not logged in."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


def log_in(http: httpx.Client, email: str) -> Caller:
    """Log in and send the token from now on."""
    answer = http.post("/login", data={"username": email, "password": PASSWORD})
    answer.raise_for_status()
    http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return Caller(http)


@pytest.fixture(scope="session")
def ada(server: Server) -> Iterator[Caller]:
    """A user of org-01."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield log_in(http, "ada@org-01.example")


@pytest.fixture(scope="session")
def neighbour(server: Server) -> Iterator[Caller]:
    """A user of org-02."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield log_in(http, "ada@org-02.example")
