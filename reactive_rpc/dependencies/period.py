"""A period: from when until when a result holds, if time alone ends it.

Moments are seconds since 1970 by the clock of whoever asks. A tick (`now(every=60)`) is the period in which the same
question has the same answer; so one who asks `holds` of another host's result learns whether its own handler, by its
own clock, would be told the same moment. Nobody's clock need be right for that, and no two clocks need agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["ALWAYS", "Period", "tick_of"]


@dataclass(frozen=True, slots=True)
class Period:
    """Holds at every moment with `since <= moment < until`.

    >>> minute, ten = Period(60, 120), Period(0, 70)
    >>> (minute & ten) == Period(60, 70)
    True

    Attributes:
        is_exact: whether it ends when the answer may become another one. False is an author's `ttl_seconds`: within
            the period the answer may be older than the handler's of now, as its author asked for.
    """

    since: float = -math.inf
    until: float = math.inf
    is_exact: bool = True

    def __and__(self, other: Period) -> Period:
        """Return the period in which both hold, which may be none at all."""
        if other is ALWAYS:
            return self
        if self is ALWAYS:
            return other
        since, until = max(self.since, other.since), min(self.until, other.until)
        return Period(since, until, self.is_exact and other.is_exact)

    def holds(self, moment: float) -> bool:
        """Tell whether `moment` lies in it."""
        return self.since <= moment < self.until


ALWAYS: Final = Period()
"""The period of a result that time does not change."""


def tick_of(moment: float, every: float) -> Period:
    """Return the tick that `moment` lies in; ticks of `every` seconds are counted from 1970-01-01 UTC.

    >>> tick_of(125.5, 60)
    Period(since=120.0, until=180.0, is_exact=True)
    """
    since = math.floor(moment / every) * every
    return Period(float(since), float(since + every))
