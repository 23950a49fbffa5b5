"""The HTTP headers of this protocol, beside those that HTTP has already.

`reactive-cursor` goes both ways. An answer names the version that it reflects at most; a client sends back the highest
that it has met, so that a server which is allowed to answer without a look at its log takes one where it is behind.
Whatever a server cannot compare (another epoch, `UNKNOWN`) asks it to look in any case.

`reactive-version` names the version that the answer's result reflects *exactly*: it is what the procedure answers on
the database as it was then. Left out where nobody can tell: of a result that is not cached as its inputs cannot be
followed, that rests on topics, or that an outage has left. Only by it may a client tell which of two results is the
later, or whether one shows what a mutation wrote; by the cursor it may not, which is only an upper bound.

`reactive-scope` is the same in two answers that were made for the same identity and tenant, and means nothing else.

`idempotency-key` names one mutation: however often it is sent, for a while, it is done once and answered the same;
`reactive-replayed: true` marks the answer that was kept of the first time (`procedures/idempotency.py`).

`reactive-stale: true` marks a stored result that nobody could confirm, as the log cannot be read;
`reactive-stale-seconds` says how long ago it was right.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CURSOR", "IDEMPOTENCY_KEY", "REPLAYED", "SCOPE", "STALE", "STALE_SECONDS", "UNKNOWN", "VERSION"]

CURSOR: Final = "reactive-cursor"
VERSION: Final = "reactive-version"
SCOPE: Final = "reactive-scope"
IDEMPOTENCY_KEY: Final = "idempotency-key"
REPLAYED: Final = "reactive-replayed"
STALE: Final = "reactive-stale"
STALE_SECONDS: Final = "reactive-stale-seconds"

UNKNOWN: Final = "unknown"
"""Said as a cursor: there is more than can be named. A commit could not be found in the log yet, for example."""
