"""What an answer says of itself in headers: how far it reflects the log, and for whom it was made.

They go out with each answer, also with a stored one, whose bytes are ready: so the headers are made once for a version
of the log and once for a caller, and not for an answer.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from pydantic_core import to_json

from reactive_rpc.protocol.headers import CURSOR, SCOPE, VERSION
from reactive_rpc.web.routing.callers import identity_of
from reactive_rpc.web.routing.responses import Headers

__all__ = ["Marks", "scope_mark", "scope_of"]

MAX_SCOPES = 4096
"""Of so many callers the scope is remembered, by a worker."""

_CURSOR, _SCOPE, _VERSION = CURSOR.encode(), SCOPE.encode(), VERSION.encode()


class Marks:
    """Makes `reactive-cursor` and `reactive-version` of answers."""

    def __init__(self) -> None:
        self._token = ""
        self._bounded: list[tuple[bytes, bytes]] = []
        self._exact: list[tuple[bytes, bytes]] = []

    def of(self, token: str, version: str | None) -> Headers:
        """Return the headers of an answer.

        Args:
            token: the cursor that it reflects at most.
            version: the one that it reflects exactly; None if nobody can tell.
        """
        if token != self._token:
            bound = (_CURSOR, token.encode())
            self._token, self._bounded, self._exact = token, [bound], [bound, (_VERSION, token.encode())]
        if version is None:
            return self._bounded
        return self._exact if version == token else [*self._bounded, (_VERSION, version.encode())]


def scope_of(ctx: object) -> str | None:
    """Return what tells the callers of two answers apart, by identity and tenant; None where there is no context.

    Equal in every worker and after every start, as clients store results under it. It is no secret and opens nothing,
    and whoever can guess an identity can recognize it: it is sent to that caller alone.
    """
    if ctx is None:
        return None
    tenant = getattr(ctx, "tenant", None)
    return _digest(identity_of(ctx), None if tenant is None else str(tenant))


def scope_mark(ctx: object) -> Headers:
    """Return `scope_of` as a header."""
    scope = scope_of(ctx)
    return () if scope is None else ((_SCOPE, scope.encode()),)


@lru_cache(maxsize=MAX_SCOPES)
def _digest(identity: str | None, tenant: str | None) -> str:
    return blake2b(to_json([identity, tenant]), digest_size=12, person=b"reactive-scope").hexdigest()
