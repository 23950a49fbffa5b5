"""Following a query in this process: its result now, and each that is another, for as long as the right lasts.

It is computed by the reader, once for all who follow it, and watched as a stream watches it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.clock import Clock
from reactive_rpc.procedures.call import QueryCall
from reactive_rpc.procedures.resting import Resting
from reactive_rpc.procedures.rights import Rights
from reactive_rpc.tasks import background

__all__ = ["Followers"]

Subscribe = Callable[[Rights], Awaitable[QueryCall]]
"""Runs the steps of a query and returns its call; their outcomes are watched in the rights."""


class Followers:
    """Those who follow queries in this process. Used on one event loop.

    Args:
        reader: computes and watches the results.
        clock: tells when a context expires.
    """

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._resting = Resting(reader, asyncio.Event.set)

    def __len__(self) -> int:
        return len(self._resting)

    async def follow(self, subscribe: Subscribe) -> AsyncGenerator[bytes]:
        """Yield the result as JSON, now and whenever it is another; several changes at once are one.

        Whoever takes a result slowly misses those in between, and is given the latest.

        Raises:
            PreconditionFailedError: nobody could tell when the result changes.
            RPCError: the handler refuses, or the right to it is lost.
        """
        etag = ""
        while True:
            changed = asyncio.Event()
            with self._watching(changed) as rights:
                read = await self._reader.watch(await subscribe(rights))
                # INVARIANT (no await between here and the yield): the result is given to somebody who may have it now.
                is_right = self._rest(rights, read.result, changed)
                if is_right and read.result.etag != etag:
                    etag = read.result.etag
                    yield read.outcome.answer()
                if is_right:
                    await self._change(changed, rights.expires_at)

    def recheck_all(self) -> None:
        """Have all who follow ask again: somebody was revoked, or nobody can tell any more whether a result holds."""
        for changed in self._resting.everyone:
            changed.set()

    @contextmanager
    def _watching(self, changed: asyncio.Event) -> Iterator[Rights]:
        rights = Rights()
        try:
            yield rights
        finally:
            self._resting.remove(changed, rights)

    def _rest(self, rights: Rights, result: CachedResult, changed: asyncio.Event) -> bool:
        """Have `changed` set when the result or a right to it may be another; tell whether all are as they were."""
        if not result.live:  # a write has overtaken it, and it is not watched
            return False
        rights.results[result] = None
        self._resting.add(changed, rights)
        return rights.hold

    async def _change(self, changed: asyncio.Event, expires_at: float) -> None:
        if expires_at == math.inf:
            await changed.wait()
            return
        seconds = max(0.0, expires_at - self._clock.time())
        expiry = background(self._clock.sleep(seconds), "login expires")
        async with expiry as expired, background(changed.wait(), "result changes") as waiting:
            await asyncio.wait({expired, waiting}, return_when=asyncio.FIRST_COMPLETED)
