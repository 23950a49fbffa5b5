"""How fresh a stored result must be to be served, and how fresh this worker's view of the log is.

*Strict* is the promise: read the log, then serve. A *token* spares that: a client sends the highest cursor that it has
met in any answer, and a stored result is served as it is if this worker's log has reached that cursor and was read a
moment ago. In an *outage* a stored result may be served with a mark, if the procedure allows it.
`docs/internals/cache.md` argues the token.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from reactive_rpc.changes.log import Log
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.errors import BadRequestError, ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor

__all__ = [
    "STRICT",
    "STRICT_FOR_SERVER",
    "SYNCED",
    "ByToken",
    "Freshness",
    "InOutage",
    "RequiredFreshness",
    "Strict",
    "Synced",
]

MAX_AGE_SECONDS = 0.04


class Strict(NamedTuple):
    """The result reflects every write that was acknowledged before the call.

    Attributes:
        is_server_request: whether the call is made for a request that a server has read from a connection, see
            `Log.sync_to_head_for_server`.
    """

    is_server_request: bool = False


class ByToken(NamedTuple):
    """As `Strict`, or a stored result that is fresh enough for the holder of a cursor.

    Attributes:
        token: the cursor as it was sent; None if the client has none.
        is_server_request: as in `Strict`.
    """

    token: str | None
    is_server_request: bool = False


class Synced(NamedTuple):
    """As `Strict`, where the log has been read for this very request: it is not read again."""

    is_server_request: bool = False


class InOutage(NamedTuple):
    """A stored result alone, although the log cannot be read. Whoever serves it says so.

    Attributes:
        within_seconds: how long ago the log may have been read for the last time.
        outage: raised if nothing may be served.
    """

    within_seconds: float
    outage: ServiceUnavailableError


RequiredFreshness: TypeAlias = Strict | Synced | ByToken | InOutage

STRICT: Final = Strict()
SYNCED: Final = Synced()
STRICT_FOR_SERVER: Final = Strict(is_server_request=True)


class Freshness:
    """Reads the log for everybody, and remembers how that went.

    Args:
        max_age_seconds: how long ago the log may have been read for a token's holder to be served by it. The
            application reads the log in intervals of half that, so that hardly a request has to.

    Attributes:
        polls: how often the log was read.
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
        """How long ago the last successful read of the log began; infinite before the first."""
        return float("inf") if self._fresh_at is None else self._clock.monotonic() - self._fresh_at

    @property
    def token(self) -> str:
        """The cursor of an answer that is sent now; the same object while the log stands still."""
        epoch, version = self._log.epoch, self._log.version
        if self._token[1] != version or self._token[0] != epoch:
            self._token = epoch, version, f"{epoch}:{version}"
        return self._token[2]

    async def sync_to_head(self, *, is_server_request: bool = False) -> int:
        """Apply every commit acknowledged before this call and return the version.

        Args:
            is_server_request: as in `Strict`.

        Raises:
            ServiceUnavailableError: the log cannot be read.
        """
        began = self._clock.monotonic()
        self.polls += 1
        try:
            version = await (self._log.sync_to_head_for_server() if is_server_request else self._log.sync_to_head())
        except Exception:
            self.errors += 1
            self._is_failing = True
            raise
        self._is_failing = False
        if self._fresh_at is None or began > self._fresh_at:
            self._fresh_at = began
        return version

    async def sync_after_commit(self) -> int:
        """Do as `sync_to_head`, for whoever has just committed."""
        self._log.expect_changes()
        return await self.sync_to_head()

    def shares_look(self, *, is_server_request: bool) -> bool:
        """Tell whether a look that others have made counts for this request too, and count it; else `sync_to_head`.

        Args:
            is_server_request: as in `Strict`.
        """
        if is_server_request and self._log.is_look_shared:
            self.polls += 1
            return True
        return False

    def counters(self) -> dict[str, float]:
        """Return the counters of `/metrics` that are kept here: `{name: value}`."""
        return {
            "log_polls": self.polls,
            "log_errors": self.errors,
            "log_version": self._log.version,
            "log_age_seconds": self.age_seconds,
        }

    def suffices(self, token: str | None) -> bool:
        """Tell whether stored results are fresh enough for the holder of `token`, a cursor, without reading the log."""
        if self._is_failing or self.age_seconds > self._max_age_seconds:
            return False
        if token is None:
            return True
        try:
            cursor = Cursor.parse(token)
        except BadRequestError:
            return False
        return cursor.epoch == self._log.epoch and cursor.version <= self._log.version
