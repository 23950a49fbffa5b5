"""How long to wait before trying again: exponential, with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads a herd of clients best. A
`retry:` of the server is a floor under it, not a replacement: not every server draws another number for each client.
A server that ends a stream which was well, because it stops, is no failure: its clients need only be spread, which
half of the `retry:` does ("equal jitter" in the same article).
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from typing import Final

__all__ = ["BASE_SECONDS", "CAP_SECONDS", "Backoff"]

BASE_SECONDS: Final = 0.25
CAP_SECONDS: Final = 15.0
_MAX_DOUBLINGS: Final = 16


class Backoff:
    """Delays of one thing that is tried again and again.

    Attributes:
        floor_seconds: the least delay; set it from the server's `retry:`.

    >>> backoff = Backoff(random=lambda: 1.0)
    >>> [backoff.next_delay() for _ in range(8)]
    [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    """

    def __init__(
        self,
        *,
        base_seconds: float = BASE_SECONDS,
        cap_seconds: float = CAP_SECONDS,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.floor_seconds = 0.0
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._random = random
        self._failures = 0

    def next_delay(self) -> float:
        """Count a failure and return the seconds to wait: the floor, plus up to the doubled base or the cap."""
        ceiling = min(self._cap_seconds, self._base_seconds * 2.0**self._failures)
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        return self.floor_seconds + self._random() * ceiling

    def resumption_delay(self) -> float:
        """Return the seconds to wait after a success has ended: between half the floor and all of it."""
        return self.floor_seconds * (1.0 + self._random()) / 2.0

    @property
    def failures(self) -> int:
        """How many there were since it began, or was reset."""
        return self._failures

    def reset(self) -> None:
        """Start over from the base: it works again."""
        self._failures = 0
