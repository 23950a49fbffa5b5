"""The HTTP headers of this protocol, beside those that HTTP has already. docs/explanation/events.md: how versions and
cursors differ.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CURSOR",
    "HEARTBEAT_SECONDS",
    "IDEMPOTENCY_KEY",
    "LAST_EVENT_ID",
    "REPLAYED",
    "SCOPE",
    "STALE",
    "STALE_SECONDS",
    "UNKNOWN",
    "VERSION",
]

CURSOR: Final = "reactive-cursor"
"""Goes both ways. An answer names the version that it reflects at most. A client sends back the highest that it has
met, so that a server which is allowed to answer without reading its log reads it if it is behind. A cursor that the
server cannot compare (another epoch, `UNKNOWN`) makes it read the log in any case."""

VERSION: Final = "reactive-version"
"""The version that the answer's result reflects *exactly*: the procedure answers it on the database as it was then.
Left out if nobody can tell: of a result that is not cached as its inputs cannot be followed, that rests on topics, or
that an outage has left. Only by it may a client say which of two results is the later, or whether one shows the writes
of a mutation; by the cursor it may not, which is only an upper bound."""

SCOPE: Final = "reactive-scope"
"""The same in two answers that were made for the same identity and tenant; it means nothing else. A mutation that says
it is refused if its caller is another than the one who made it: it may have waited in storage for long."""

IDEMPOTENCY_KEY: Final = "idempotency-key"
"""Names one mutation: however often it is sent, for a while, it is done once and answered the same."""

REPLAYED: Final = "reactive-replayed"
"""`true` marks the answer that was kept of the first time (`procedures/idempotency.py`)."""

STALE: Final = "reactive-stale"
"""`true` marks a stored result that nobody could confirm, as the log cannot be read."""

STALE_SECONDS: Final = "reactive-stale-seconds"
"""How long ago a result that is marked so was right."""

UNKNOWN: Final = "unknown"
"""Said as a cursor: there is more than can be named. A commit could not be found in the log yet, for example."""

HEARTBEAT_SECONDS: Final = "reactive-heartbeat-seconds"
"""How long a subscription may be silent: one that has said nothing for longer is not heard any more."""

LAST_EVENT_ID: Final = "last-event-id"
"""The id of the last value of a subscription that a client has received, so that the handler goes on after it."""
