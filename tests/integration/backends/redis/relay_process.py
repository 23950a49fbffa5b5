"""A relay as a process of its own, which may kill or stop itself at a chosen point: `url redis namespace shards point`.

The points: `never`, `before` an append, between the `parts` of one and the entry that names them, `after` an append and
before it knows of it; and `stop`, which is `before` with SIGSTOP.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable, Sequence

from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.log import PostgreSQLLog
from reactive_rpc.backends.postgresql.relay_lock import relay_lock
from reactive_rpc.backends.redis.relay import Relay
from reactive_rpc.backends.redis.stream import AppendRequest, RedisStream, Refusal
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import Change
from reactive_rpc.protocol.cursors import Cursor

FATAL_APPEND = 5


class Fatal(RedisStream):
    """Ends its process at a point of the fifth append."""

    point = "never"
    appends = 0

    async def advance(
        self, end: Cursor | None, request: AppendRequest, answered: Iterable[str] = (), *, claim: bool = False
    ) -> Refusal | None:
        self.appends += bool(request.changes)
        is_fatal = self.appends == FATAL_APPEND and bool(request.changes)
        if is_fatal and self.point in ("before", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if self.point == "before" else signal.SIGSTOP)
        refusal = await super().advance(end, request, answered, claim=claim)
        if is_fatal and self.point == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return refusal

    async def _content(self, changes: Sequence[Change]) -> tuple[str, bytes]:
        content = await super()._content(changes)
        if self.appends == FATAL_APPEND and self.point == "parts":
            os.kill(os.getpid(), signal.SIGKILL)
        return content


def main(url: str, redis_url: str, namespace: str, shards: str, point: str) -> None:
    """Relay for ever, or until the point."""
    Fatal.point = point
    database = make_url(url)
    relay = Relay(
        lambda: PostgreSQLLog(PostgreSQLCapture(database, ids=RandomIds()), database),
        lambda: Fatal(redis_url, namespace, shards=int(shards), scope_column="id"),
        relay_lock(database, namespace),
    )
    asyncio.run(relay.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
