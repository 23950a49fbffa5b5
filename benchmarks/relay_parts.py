"""The processes of the relay's benchmark: one that relays, and one with workers' logs, which tells how late they are.

    python -m benchmarks.relay_parts relay <database> <redis>
    python -m benchmarks.relay_parts logs <database> <redis, or "" for the database itself> <how many>

The second is driven by lines: to each it answers with one JSON object about what has come since the last, see `Seen`.
Each row holds the moment at which it was written, so a row that comes in tells how old it is.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack

from sqlalchemy import make_url
from sqlalchemy.engine import URL

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.redis.log import RedisLog
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import RedisStream
from reactive_rpc.changes.log import Batch, Log
from reactive_rpc.clock import RandomIds

__all__ = ["POLL_SECONDS", "TABLE"]

TABLE = "item"
NAMESPACE = "bench"
POLL_SECONDS = 0.02


class Seen:
    """What one log has told.

    Attributes:
        batches: how many.
        ages_ms: of each change, when it was told: milliseconds since its row was written.
        coarse: changes of whole tables and flushes, which hold no rows.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.coarse = 0
        self.ages_ms: list[float] = []

    def apply(self, batch: Batch) -> None:
        """Note a batch."""
        now = time.monotonic_ns()
        self.batches += 1
        if batch.flush is not None:
            self.coarse += 1
        for change in batch.changes:
            written = None if change.after is None else change.after.get("written")
            if isinstance(written, int):
                self.ages_ms.append((now - written) / 1e6)
            else:
                self.coarse += 1

    def report(self) -> str:
        """Return all as JSON and forget it."""
        report = json.dumps({"batches": self.batches, "coarse": self.coarse, "ages_ms": self.ages_ms})
        self.__init__()  # type: ignore[misc]  # begins anew
        return report


def _database_log(url: URL) -> PostgreSQLLog:
    return PostgreSQLLog(PostgreSQLCapture(url, ids=RandomIds()), url)


async def _relay(database: str, redis: str) -> None:
    url = make_url(database)
    relay = Relay(
        lambda: _database_log(url),
        lambda: RedisStream(redis, NAMESPACE),
        relay_lock(url, NAMESPACE),
        poll_interval_seconds=POLL_SECONDS,
    )
    await relay.run()


async def _logs(database: str, redis: str, count: int) -> None:
    url, seen = make_url(database), Seen()
    async with AsyncExitStack() as stack:
        for number in range(count):
            log: Log = (
                RedisLog(PostgreSQLCapture(url, ids=RandomIds()), RedisStream(redis, NAMESPACE))
                if redis
                else _database_log(url)
            )
            await log.open()
            stack.push_async_callback(log.aclose)
            if number == 0:
                log.subscribe(seen.apply)
            if not redis:
                stack.callback(asyncio.create_task(_poll(log)).cancel)
        while await asyncio.to_thread(sys.stdin.readline):
            print(seen.report(), flush=True)


async def _poll(log: Log) -> None:
    while True:
        await log.sync_to_head()
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "relay":
        asyncio.run(_relay(*arguments))
    else:
        asyncio.run(_logs(arguments[0], arguments[1], int(arguments[2])))
