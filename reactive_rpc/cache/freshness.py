"""How fresh what is stored must be, and how long ago the log was last read.

**Strict** is the promise (G1): look at the log, then serve. **Token** spares the look. A client holds a cursor, the
highest version that it has met in any answer; a stored result may be served as it is if

- this worker's log has reached that version (in the same epoch): everything the client may have seen is applied here,
  whoever answered it, so the client's own writes show and time never runs backwards for it; and
- the log was read successfully less than `max_age_seconds` ago, and not in vain since: that bounds what others wrote.

Else it is served as under strict. A cursor that cannot be compared, however strange, costs one look and nothing more.

*An answer's cursor* must be at least what its snapshot showed. A handler's snapshot may be ahead of the log, so a
result is held against the log once more after it was computed, before it is stored and served: then the log's version,
read when the answer is sent, is high enough for every stored result too.

Rejected: waiting until the log reaches the cursor (one from a forged header never comes).
"""

from __future__ import annotations

from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.cursors import Cursor

__all__ = ["Freshness"]

MAX_AGE_SECONDS = 0.04


class Freshness:
    """Looks at the log for everybody, and remembers how that went.

    Args:
        max_age_seconds: how old the last look may be that a token's holder is served by. The application looks at the
            log in intervals of half that, so that hardly a request has to.

    Attributes:
        polls: how often the log was looked at.
        errors: how often in vain.
    """

    def __init__(self, log: Log, *, clock: Clock | None = None, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self.polls = 0
        self.errors = 0
        self._log = log
        self._clock = clock or SystemClock()
        self._max_age_seconds = max_age_seconds
        self._fresh_at: float | None = None
        self._is_failing = False
        self._token = ("", -1, "")

    @property
    def age_seconds(self) -> float:
        """How long ago the last successful look began; infinite before the first."""
        return float("inf") if self._fresh_at is None else self._clock.monotonic() - self._fresh_at

    @property
    def token(self) -> str:
        """The cursor of an answer that is sent now; the same object while the log stands still."""
        epoch, version = self._log.epoch, self._log.version
        if self._token[1] != version or self._token[0] != epoch:
            self._token = epoch, version, f"{epoch}:{version}"
        return self._token[2]

    async def look(self, *, arrived: bool = False) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Args:
            arrived: whether this is for a request that came in over a connection, see `Log.fresh_for_arrivals`.

        Raises:
            ServiceUnavailableError: the log cannot be read.
        """
        began = self._clock.monotonic()
        self.polls += 1
        try:
            version = await (self._log.fresh_for_arrivals() if arrived else self._log.fresh())
        except Exception:
            self.errors += 1
            self._is_failing = True
            raise
        self._is_failing = False
        if self._fresh_at is None or began > self._fresh_at:
            self._fresh_at = began
        return version

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {
            "log_polls": self.polls,
            "log_errors": self.errors,
            "log_version": self._log.version,
            "log_age_seconds": self.age_seconds,
        }

    def suffices(self, token: str | None) -> bool:
        """Tell whether what is stored is fresh enough for the holder of `token`, a cursor, without another look."""
        if self._is_failing or self.age_seconds > self._max_age_seconds:
            return False
        if token is None:
            return True
        try:
            cursor = Cursor.parse(token)
        except BadRequestError:
            return False
        return cursor.epoch == self._log.epoch and cursor.version <= self._log.version
