"""The cache options of a query: `cache=Cache(...)`, or `cache=False`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from reactive_rpc.errors import DefinitionError

__all__ = ["Cache", "FreshnessMode", "PushMode"]

FreshnessMode = Literal["strict", "token"]
PushMode = Literal["invalidation", "result"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """How results are kept and told of; one value may be shared by many queries.

    >>> Cache(ttl_seconds=60).push
    'invalidation'

    Attributes:
        ttl_seconds: how old a result may become, at least 1; None is for ever. Changes still end it earlier, and when
            it ends, whoever watches it is told. It stands for what nothing else tells of: where a query asks another
            service, Python's clock, or SQL that is not understood, its result is kept all the same, and for so long
            may be older than that.
        freshness: how sure a stored result must be; None is as the settings' `freshness` says. `strict`: it reflects
            every write that was acknowledged, to anybody, before the request. `token`: it reflects what this client
            wrote and has seen, through any worker, and what others wrote up to two poll intervals ago.
        stale_if_error_seconds: for how many seconds, after the log could last be read, a stored result is still served
            when it cannot be; 0 never does, and answers SERVICE_UNAVAILABLE. What time has ended is not served. Such
            an answer has the header `reactive-stale: true`; a watch of the Python client shows it with `is_stale`, and
            a typed call, which cannot say so, raises all the same.
        push: what streams are sent when a write may have changed the result: an `invalidation`, or the new `result`,
            computed once for all who show it. What time has ended is always told as an invalidation.

    Raises:
        DefinitionError: a value is none of these.
    """

    ttl_seconds: float | None = None
    freshness: FreshnessMode | None = None
    stale_if_error_seconds: float = 0.0
    push: PushMode = "invalidation"

    def __post_init__(self) -> None:
        if self.ttl_seconds is not None and not (_is_number(self.ttl_seconds) and 1 <= self.ttl_seconds < math.inf):
            raise DefinitionError(f"Cache(ttl_seconds={self.ttl_seconds!r}): give a number of seconds, at least 1")
        if self.freshness not in (None, "strict", "token"):
            raise DefinitionError(
                f"Cache(freshness={self.freshness!r}): say 'strict' or 'token', or leave it to the settings"
            )
        if not _is_number(self.stale_if_error_seconds) or not self.stale_if_error_seconds >= 0:
            raise DefinitionError(
                f"Cache(stale_if_error_seconds={self.stale_if_error_seconds!r}): give a number of seconds, 0 for never"
            )
        if self.push not in ("invalidation", "result"):
            raise DefinitionError(f"Cache(push={self.push!r}): say 'invalidation' or 'result'")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
