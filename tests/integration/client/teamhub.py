"""A TeamHub that can be killed and started again where it was, and the generated client with its requests on record."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.seed import EMAIL, PASSWORD
from generated_client import TeamHub
from reactive_rpc.client import State, Watch
from tests.support.processes import Uvicorn

__all__ = ["EMAIL", "PASSWORD", "SECRET", "Recorded", "Served", "fresh", "hub_of", "play", "shown"]

T = TypeVar("T")

SECRET = "a secret of the tests, long enough for HS256"
SCENARIO_SECONDS = 240.0
WRITER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=20) as connection:
    connection.execute(sys.argv[2], sys.argv[3:])
"""


class Served(Uvicorn):
    """An application on a database of TeamHub's.

    Args:
        app: as uvicorn names it.
    """

    def __init__(self, app: str, database: Path, environment: Mapping[str, str] | None = None) -> None:
        self.database = database
        variables = {"TEAMHUB_DATABASE": str(database), "TEAMHUB_SECRET": SECRET, **(environment or {})}
        super().__init__(app, environment=variables)

    async def start_again(self) -> None:
        """Start without holding up the event loop."""
        await asyncio.to_thread(self.start)

    def write(self, statement: str, *values: object) -> None:
        """Write by a connection that the server knows nothing of."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            connection.execute(statement, values)

    def write_elsewhere(self, statement: str, *values: str) -> None:
        """Write by another process."""
        command = [sys.executable, "-c", WRITER, str(self.database), statement, *values]
        subprocess.run(command, check=True)

    def rows(self, query: str, *values: object) -> list[Any]:
        """Read the truth."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(query, values).fetchall()


class Recorded:
    """What a client has asked, and how it was answered."""

    def __init__(self) -> None:
        self.responses: list[httpx.Response] = []

    async def take(self, response: httpx.Response) -> None:
        """Remember a response; httpx calls this."""
        self.responses.append(response)

    def fetches(self, path: str) -> list[int]:
        """Return the status of each answer of a procedure."""
        return [one.status_code for one in self.responses if one.request.url.path == f"/rpc/{path}"]

    def fetched(self) -> list[str]:
        """Return the procedures that were called, in order."""
        paths = (one.request.url.path.removeprefix("/rpc/") for one in self.responses)
        return [path for path in paths if "." in path]

    def open_streams(self) -> list[list[str]]:
        """Return the paths that each open stream watches."""
        streams = [one for one in self.responses if one.request.url.path == "/rpc/events" and not one.is_closed]
        return [[query["path"] for query in json.loads(one.request.content)["queries"]] for one in streams]

    def forget(self) -> None:
        """Count from here; streams stay."""
        self.responses = [one for one in self.responses if one.request.url.path == "/rpc/events"]


@asynccontextmanager
async def hub_of(served: Served, recorded: Recorded | None = None, **options: Any) -> AsyncIterator[TeamHub]:
    """Give a hub of somebody who is logged in."""
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [recorded.take] if recorded else []}
    # Without a bound on connections: a hundred watches may fetch at once.
    async with (
        httpx.AsyncClient(event_hooks=hooks, timeout=20) as http,
        TeamHub(served.url, http=http, **options) as hub,
    ):
        await hub.login(username=EMAIL, password=PASSWORD)
        yield hub


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test, with a bound; afterwards no task may be left."""

    async def run() -> None:
        async with asyncio.timeout(SCENARIO_SECONDS):
            await scenario()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(run())


async def shown(live: Watch[T], condition: Callable[[State[T]], object]) -> State[T]:
    """Return the first state for which the condition holds."""
    async for state in live:
        if condition(state):
            return state
    raise AssertionError("the watch ended")


def fresh(condition: Callable[[T], object] = lambda data: True) -> Callable[[State[T]], bool]:
    """Match a state that shows fresh data of which the condition holds."""

    def matches(state: State[T]) -> bool:
        is_fresh = not state.is_stale and state.error is None and state.data is not None
        return is_fresh and bool(condition(state.data))  # type: ignore[arg-type]  # checked above

    return matches
