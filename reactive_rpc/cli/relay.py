"""`reactive-rpc relay`: read the database's log for every worker, and write it to Redis."""

from __future__ import annotations

import asyncio
import logging
import signal

from reactive_rpc.app import ReactiveRPC
from reactive_rpc.cli.shared import Rpc, load, out
from reactive_rpc.tasks import background

__all__ = ["relay"]


def relay(rpc: Rpc) -> None:
    """Relay the changes of the database to Redis, or wait for the turn to, until SIGTERM or SIGINT.

    Start two of them, on two hosts: one leads, the other takes over. REACTIVE_RPC_REDIS_URL names Redis.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    found = load(rpc, ReactiveRPC)
    out.print("relaying, or waiting for the turn to; stop with Ctrl-C", highlight=False)
    asyncio.run(_run(found))


async def _run(rpc: ReactiveRPC) -> None:
    async with background(rpc.admin.run_relay(), "relay") as work:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        await asyncio.wait([work])
        if not work.cancelled():
            work.result()
