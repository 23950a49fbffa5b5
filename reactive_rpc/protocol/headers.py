"""The HTTP headers of this protocol, beside those that HTTP has already.

`reactive-cursor` goes both ways. An answer names the version that it reflects at most; a client sends back the highest
that it has met, so that a server which is allowed to answer without a look at its log takes one where it is behind.
Whatever a server cannot compare (another epoch, `UNKNOWN`) asks it to look in any case.

`reactive-stale: true` marks a stored result that nobody could vouch for, as the log cannot be read;
`reactive-stale-seconds` says how long ago it was right.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CURSOR", "STALE", "STALE_SECONDS", "UNKNOWN"]

CURSOR: Final = "reactive-cursor"
STALE: Final = "reactive-stale"
STALE_SECONDS: Final = "reactive-stale-seconds"

UNKNOWN: Final = "unknown"
"""Said as a cursor: there is more than can be named. A commit could not be found in the log yet, for example."""
