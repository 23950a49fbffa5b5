"""The counters of the hub."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HubStats"]


@dataclass(slots=True)
class HubStats:
    """Counters since the start.

    Attributes:
        events: events that were handed to a connection, each counted once however often it was tried; `results` of
            them carried a result, `gaps` of them said that something was missed.
        acknowledged: events that a client said it has received.
        retried: events that were sent again.
        abandoned: events that were still unacknowledged when their stream was given up.
        revoked: streams that were ended for good.
        opened: streams that were opened, without the one that each long poll has.
        polls: long polls that were not refused.
        refused: streams that were not: the server drains, or the database cannot be read.
    """

    events: int = 0
    results: int = 0
    gaps: int = 0
    acknowledged: int = 0
    retried: int = 0
    abandoned: int = 0
    revoked: int = 0
    opened: int = 0
    polls: int = 0
    refused: int = 0

    def counters(self) -> dict[str, float]:
        """Return them by their names in `/metrics`."""
        return {
            "events": self.events,
            "events_with_results": self.results,
            "events_acknowledged": self.acknowledged,
            "events_retried": self.retried,
            "events_abandoned": self.abandoned,
            "gaps": self.gaps,
            "streams_opened": self.opened,
            "polls": self.polls,
            "streams_refused": self.refused,
            "streams_revoked": self.revoked,
        }
