"""Rate limits: so many calls of one caller in a window of time, over all workers.

A window is fixed, not sliding: one counter, an exact `retry-after`, and a promise that can be checked. Over the
boundary of two windows, twice as many calls pass; a sliding window spares that for a second counter and a moment to
try again that is a guess. Windows begin at another moment for each caller, so that not all come back at once.

A worker counts by itself, and settles with the ephemeral store after each twentieth of the limit: a caller costs about
twenty writes in a window, however many calls there are, and a caller past the limit costs none. So each worker may let
through a twentieth of the limit before it learns that others have let through the rest; limits below forty are exact.

If the store cannot be reached, each worker holds the limit alone. A limit keeps load off; to answer nobody because
nobody can count would be the outage that it is there to prevent.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import Clock
from reactive_rpc.errors import DefinitionError, TooManyRequestsError
from reactive_rpc.health import Health, Part
from reactive_rpc.procedures.context import Context, Login
from reactive_rpc.procedures.steps import CallInfo
from reactive_rpc.tasks import within

__all__ = ["RateLimits", "rate_limit"]

SETTLED_SHARE: Final = 20
"""A worker settles after each of so many parts of a limit."""
MAX_COUNTS: Final = 20_000
"""So many callers are counted at a time by a worker; past it, those that have been silent longest are forgotten."""
ANSWER_SECONDS: Final = 1.0
"""How long a call waits for the store."""
RETRY_SECONDS: Final = 1.0
"""How long after a failure the store is asked again."""
PART: Final = "rate limits"

logger = logging.getLogger(__name__)


def rate_limit(calls: int, *, per_seconds: float = 60) -> Callable[[Context, CallInfo], Coroutine[Any, Any, None]]:
    """Return a step that refuses the calls of a caller who makes too many, by TOO_MANY_REQUESTS with `retry-after`.

    >>> from reactive_rpc import define_reactive_function
    >>> procedure = define_reactive_function.use(rate_limit(600))

    A caller is whom the context's `identity` names, or, if it names nobody, the address that the request came from. All
    procedures that use this step count together; another `rate_limit(...)` counts by itself. Calls over the wire and
    in this process count, those of nobody in this process and the subscriptions of streams, which have limits of their
    own, do not. All workers of a database count together; each may let through a twentieth of `calls` more.

    Put it before steps with a session: those after it need not run for a call that is refused, and in a mutation that
    is tried again it is asked once.

    Args:
        calls: so many are let through in a window.
        per_seconds: how long a window lasts. The next one begins when it ends: over the boundary, a caller may make
            twice as many calls.

    Raises:
        DefinitionError: no call would be let through, or a window has no length.
    """
    if not isinstance(calls, int) or calls < 1:
        raise DefinitionError(f"rate_limit({calls!r}): give a whole number of calls, 1 or more")
    if not per_seconds > 0 or not math.isfinite(per_seconds):
        raise DefinitionError(f"rate_limit({calls}, per_seconds={per_seconds!r}): give a number of seconds above 0")
    name = f"{_place()}:{calls}:{per_seconds:g}"

    async def limited(ctx: Context, call: CallInfo) -> None:
        who = _caller(ctx, call)
        if who is not None:
            await call.rate_limits.require_room(name, who, calls=calls, per_seconds=per_seconds)

    limited.__module__, limited.__qualname__ = "reactive_rpc", f"rate_limit({calls}, per_seconds={per_seconds:g})"
    return limited


@dataclass(slots=True)
class _Count:
    """The calls of one caller in one window, as this worker knows them.

    Attributes:
        window: its number.
        stored: of all workers, by the store's last answer.
        settling: of this worker, on their way to the store.
        unsettled: of this worker, which the store does not know.
    """

    window: int
    stored: int = 0
    settling: int = 0
    unsettled: int = 0

    @property
    def calls(self) -> int:
        return self.stored + self.settling + self.unsettled


class RateLimits:
    """The counts of one worker. Used on one event loop.

    Args:
        store: where all workers count.
        clock: by which windows begin and end.
        health: says so while the store cannot be reached.
    """

    def __init__(self, store: EphemeralStore, *, clock: Clock, health: Health) -> None:
        self._store = store
        self._clock = clock
        self._health = health
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._retry_at = -math.inf
        self._recovered: Callable[[], None] | None = None

    async def require_room(self, name: str, who: str, *, calls: int, per_seconds: float) -> None:
        """Count a call.

        Args:
            name: of the limit.
            who: the caller.
            calls: so many are let through in a window.
            per_seconds: how long a window lasts.

        Raises:
            TooManyRequestsError: there have been as many in this window.
        """
        key = f"{name}:{who}"
        now = self._clock.time() + _phase(key) * per_seconds
        window = int(now // per_seconds)
        count = self._count(key, window)
        if count.calls < calls:
            count.unsettled += 1
            if count.unsettled < max(1, calls // SETTLED_SHARE) or self._clock.monotonic() < self._retry_at:
                return
            await self._settle(f"{key}:{window}", count, ttl_seconds=per_seconds)
            if count.stored <= calls:
                return
        seconds = max(1, math.ceil((window + 1) * per_seconds - now))
        raise TooManyRequestsError(
            f"more than {calls} calls in {per_seconds:g} seconds: try again in {seconds} s",
            headers={"retry-after": str(seconds)},
        )

    def _count(self, key: str, window: int) -> _Count:
        count = self._counts.get(key)
        if count is None or count.window != window:
            count = self._counts[key] = _Count(window)
            if len(self._counts) > MAX_COUNTS:
                self._counts.popitem(last=False)
        self._counts.move_to_end(key)
        return count

    async def _settle(self, key: str, count: _Count, *, ttl_seconds: float) -> None:
        """Tell the store of the calls that it does not know, and learn of those of other workers."""
        # INVARIANT (no await until they are `settling`): each call is told to the store once, and always counted here.
        more, count.unsettled = count.unsettled, 0
        count.settling += more
        try:
            stored = await within(ANSWER_SECONDS, self._store.count(key, more, ttl_seconds=ttl_seconds), "rate limit")
        except BaseException as exc:
            count.unsettled += more  # should the store have counted them, the caller has so many fewer
            if not isinstance(exc, Exception):
                raise
            self._note_failure(exc)  # whatever it is: the answer to the caller does not depend on it
        else:
            count.stored = max(count.stored, stored)
            self._note_success()
        finally:
            count.settling -= more

    def _note_failure(self, error: Exception) -> None:
        self._retry_at = self._clock.monotonic() + RETRY_SECONDS
        if self._recovered is None:
            logger.warning("each worker holds rate limits alone until the ephemeral store works again: %s", error)
            part = Part(ok=True, detail="held by each worker alone: the ephemeral store cannot be reached")
            self._recovered = self._health.add(PART, lambda: part)

    def _note_success(self) -> None:
        if self._recovered is not None:
            logger.info("rate limits are held by all workers together again")
            self._recovered()
            self._recovered = None


def _caller(ctx: Context, call: CallInfo) -> str | None:
    if call.transport == "stream":
        return None
    if isinstance(ctx, Login) and ctx.identity is not None:
        return f"identity:{ctx.identity}"
    return None if call.client is None else f"address:{call.client}"


def _phase(key: str) -> float:
    """Return by which part of a window this caller's windows begin earlier than others'; equal in every worker."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()) / 2**32


def _place() -> str:
    """Return the module and the line that call `rate_limit`, which are the same in every worker."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_globals.get('__name__')}:{frame.f_lineno}"
