"""The token: the highest version that a client has met in the server's answers, sent back with each call.

It lets a server that is allowed to answer without a look at its log (`Cache(freshness="token")`) know when it must take
one: the client's own writes show, and no answer is older than one before it, whichever worker gives it.

Versions of one epoch compare; the highest counts. Of two epochs nobody can tell which is the later, so the one in an
answer replaces the one held only if the request had set out with that: an old answer that comes late changes nothing.
"""

from __future__ import annotations

from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.headers import UNKNOWN

__all__ = ["Token"]


class Token:
    """The highest version that a client has met.

    Attributes:
        value: to be sent as `reactive-cursor`; None before the first answer.
        era: how often the value was replaced rather than raised; note it when a request sets out.
    """

    def __init__(self) -> None:
        self.value: str | None = None
        self.era = 0
        self._cursor: Cursor | None = None

    def learn(self, received: str | None, *, era: int) -> None:
        """Take in the `reactive-cursor` of an answer to a request that set out in `era`; any other text is ignored."""
        if received is None:
            return
        if received == UNKNOWN:
            self._replace(UNKNOWN, None)
            return
        try:
            cursor = Cursor.parse(received)
        except BadRequestError:
            return
        if self._cursor is not None and cursor.epoch == self._cursor.epoch:
            if cursor.version > self._cursor.version:
                self.value, self._cursor = received, cursor
        elif era == self.era:
            self._replace(received, cursor)

    def _replace(self, value: str, cursor: Cursor | None) -> None:
        self.value, self._cursor = value, cursor
        self.era += 1
