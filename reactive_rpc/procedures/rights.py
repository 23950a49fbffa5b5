"""Rights: the outcomes that let a caller in, watched for as long as somebody rests on them."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from reactive_rpc.cache.reader import Reader
from reactive_rpc.cache.result import CachedResult
from reactive_rpc.clock import Clock
from reactive_rpc.errors import ServiceUnavailableError

__all__ = ["RightGuard", "RightGuards", "Rights", "watching", "watching_rights"]


@dataclass(slots=True)
class Rights:
    """The outcomes of steps with a session that a stream rests on, each watched once for it.

    Attributes:
        results: an ordered set.
        passed: those that the query now being asked for came by, one for each step; None is one that nobody can watch.
        is_by_input: whether the step that now runs for it may look at the input.
        is_overtaken: whether a write has overtaken one of them before it could be watched.
        expires_at: until when the contexts on the way hold, in seconds since 1970; `inf` is for ever.
    """

    results: dict[CachedResult, None] = field(default_factory=dict)
    passed: list[CachedResult | None] = field(default_factory=list)
    is_by_input: bool = False
    is_overtaken: bool = False
    expires_at: float = math.inf

    @property
    def hold(self) -> bool:
        """Whether every one still is the outcome."""
        return not self.is_overtaken and all(result.live for result in self.results)

    @property
    def held_bytes(self) -> int:
        """What the outcomes take in memory: they cannot be evicted while a stream rests on them."""
        return sum(result.held_bytes for result in self.results)

    def take(self) -> Rights:
        """Return the same, for whoever now unwatches them; nothing is left here to be unwatched."""
        taken = Rights(self.results, is_overtaken=self.is_overtaken, expires_at=self.expires_at)
        self.results = {}
        return taken

    def let_go(self, reader: Reader) -> None:
        """Unwatch the outcomes: nobody rests on them any more."""
        for result in self.take().results:
            reader.unwatch(result)


_watching: ContextVar[Rights | None] = ContextVar("reactive_rpc_watching", default=None)


@contextmanager
def watching(rights: Rights) -> Iterator[None]:
    """Have contexts that are queries watched, for a stream, while FastAPI solves its dependencies in here."""
    token = _watching.set(rights)
    try:
        yield
    finally:
        _watching.reset(token)


def watching_rights() -> Rights | None:
    """Return what takes the outcomes of contexts that are queries; None where nobody watches."""
    return _watching.get()


class RightGuard:
    """Lets what somebody is sent, one value after another, through as long as the right to it holds.

    Args:
        path: of the procedure.
        renew: asks for the right again and returns what the caller may see; it raises what a step or a dependency does.
        guards: those that are open.
        rights: to begin with.

    Attributes:
        rights: what the caller rests on; replaced by each renewal.
        seen: what the caller may see, as `renew` returned it, or would have, at the beginning.
    """

    def __init__(
        self, path: str, renew: Callable[[Rights], Awaitable[object]], guards: RightGuards, *, rights: Rights
    ) -> None:
        self.rights = rights
        self.seen: object = None
        self._path = path
        self._renew = renew
        self._guards = guards
        self._asked_at = guards.clock.monotonic()

    async def require(self) -> None:
        """Return in a step in which the right holds.

        Raises:
            ServiceUnavailableError: the caller may see something else now: what was sent before does not go with it.
            Exception: whatever `renew` raised.
        """
        # INVARIANT (no await between the last look and the value): in that step nothing that the rights rest on has
        # changed, as far as the log has been read.
        while not self._holds():
            self.rights.let_go(self._guards.reader)
            self.rights = Rights()
            self._asked_at = self._guards.clock.monotonic()
            if await self._renew(self.rights) != self.seen:
                raise ServiceUnavailableError("what this caller may see has changed: ask again", path=self._path)

    def _holds(self) -> bool:
        clock, recheck_seconds = self._guards.clock, self._guards.recheck_seconds
        is_due = bool(recheck_seconds) and clock.monotonic() - self._asked_at >= recheck_seconds
        return not is_due and self.rights.hold and self.rights.expires_at > clock.time()

    def __enter__(self) -> Self:
        self._guards.open.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guards.open.discard(self)
        self.rights.let_go(self._guards.reader)


class RightGuards:
    """The guards of a worker. Used on one event loop.

    Args:
        reader: watches the outcomes.
        clock: tells when a context expires.
        recheck_seconds: how often a right is asked for again although nothing says that it was lost; 0 is never.

    Attributes:
        open: those under which values are sent now.
    """

    def __init__(self, reader: Reader, clock: Clock, *, recheck_seconds: float) -> None:
        self.reader = reader
        self.clock = clock
        self.recheck_seconds = recheck_seconds
        self.open: set[RightGuard] = set()

    def guard(self, path: str, renew: Callable[[Rights], Awaitable[object]], rights: Rights) -> RightGuard:
        """Return a guard, to be entered."""
        return RightGuard(path, renew, self, rights=rights)

    def recheck_all(self) -> None:
        """Have every right asked for again before the next value: somebody was revoked, or nobody can tell any more."""
        for guard in self.open:
            guard.rights.is_overtaken = True
