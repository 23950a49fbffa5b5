"""A watcher in the terminal, and two writes that it was never told to look for: `make demo`.

One write is a mutation through the generated client, the other a plain UPDATE by another process that knows nothing of
this project. The exit code is 0 only if the watcher has shown both.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from app.seed import EMAIL, PASSWORD, seed
from app.server_process import serving
from generated_client import AgentStats, TeamHub
from reactive_rpc.client import State, Watch

__all__ = ["main"]

AGENT = "agent-0001"
NEW_NAME = "Renamed elsewhere"
PATIENCE_SECONDS = 10.0

OTHER_PROCESS = """
import sqlite3, sys, time
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("UPDATE agent SET name = ? WHERE id = ?", sys.argv[2:])
    print(time.time())
"""
"""Tells when it was about to commit, in seconds since the epoch, which both processes count alike."""

Shown = Callable[[AgentStats], bool]


def main() -> int:
    """Run on a temporary database; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "teamhub.db"
        seed(database)
        print(f"A TeamHub of its own, just seeded. Watching agents.get_with_stats(agent_id={AGENT!r}):")
        try:
            with serving(database) as url:
                asyncio.run(_demonstrate(url, database))
        except TimeoutError:
            print(f"The watcher did not show a change within {PATIENCE_SECONDS:.0f} s.", file=sys.stderr)
            return 1
    print("Nobody fetched, polled or invalidated anything by hand.")
    return 0


async def _demonstrate(url: str, database: Path) -> None:
    async with TeamHub(url) as hub:
        await hub.login(username=EMAIL, password=PASSWORD)
        async with hub.agents.get_with_stats.watch(agent_id=AGENT) as live:
            first, _ = await _follow(live, time.time(), lambda stats: True)

            print("\nA mutation, by the generated client: messages.send")
            sending = hub.messages.send(from_agent_id=AGENT, body="Good morning, everybody.")
            await _write_and_follow(live, sending, lambda stats: stats.message_count > first.message_count)

            print("\nA plain UPDATE, by another process: python -c 'import sqlite3 ...'")
            renaming = _rename_elsewhere(database)
            committed, seen = await _write_and_follow(live, renaming, lambda stats: stats.agent.name == NEW_NAME)
            print(f"\nShown {(seen - committed) * 1000:.1f} ms after the other process began its commit.")


async def _write_and_follow(
    live: Watch[AgentStats], write: Coroutine[Any, Any, Any], shown: Shown
) -> tuple[Any, float]:
    """Write, and follow the watch until the write is shown; return what the write gave, and when it was shown.

    Raises:
        TimeoutError: it was not shown in time.
    """
    began = time.time()
    following = asyncio.create_task(_follow(live, began, shown))
    try:
        written = await write
        _, seen = await following
        return written, seen
    finally:
        following.cancel()


async def _follow(live: Watch[AgentStats], began: float, shown: Shown) -> tuple[AgentStats, float]:
    """Print each state until a fresh one is as wanted; return that, and when it came.

    Times are in seconds since the epoch; those printed count from `began`, in milliseconds.

    Raises:
        TimeoutError: none came in time.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for state in live:
            print(f"  {(time.time() - began) * 1000:7.1f} ms  {_line(state)}", flush=True)
            if state.data is not None and not state.is_stale and shown(state.data):
                return state.data, time.time()
    raise TimeoutError("the watch is over")


async def _rename_elsewhere(database: Path) -> float:
    """Return when the other process was about to commit, in seconds since the epoch."""
    arguments = ["-c", OTHER_PROCESS, str(database), NEW_NAME, AGENT]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return float(output)


def _line(state: State[AgentStats]) -> str:
    freshness = "stale" if state.is_stale else "fresh"
    if state.error is not None:
        freshness = f"{freshness}, {state.error}"
    if state.data is None:
        return f"nothing yet ({freshness})"
    stats = state.data
    return f"{stats.agent.name}: {stats.message_count} messages, {stats.memory_count} memories ({freshness})"


if __name__ == "__main__":
    sys.exit(main())
