"""Revocation: every worker hears, as of any write, whose streams must end."""

from __future__ import annotations

from reactive_rpc.changes.log import Batch
from reactive_rpc.dependencies.topics import KEY, stored_key
from reactive_rpc.procedures.ongoing_calls import OngoingCalls
from reactive_rpc.procedures.topics import topic
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.subscriptions.reauthorization import Reauthorization

__all__ = ["REVOKED", "Revocation"]

REVOKED = topic("reactive_rpc:revoked")
"""The topic by which workers hear it; its keys are identities."""


class Revocation:
    """Ends the streams of those who were revoked. Used on one event loop.

    Args:
        ongoing: calls that may go on without a stream.
    """

    def __init__(self, hub: Hub, reauthorization: Reauthorization, ongoing: OngoingCalls) -> None:
        self._ongoing = ongoing
        self._hub = hub
        self._reauthorization = reauthorization

    def on_batch(self, batch: Batch) -> None:
        """Read a batch of the log; to be called after the reader."""
        if batch.flush is not None:
            self._ongoing.recheck_all()
            self._reauthorization.recheck_all()  # what came with the flush may have been a revocation
        keys = set()
        for change in batch.changes:
            if change.table == REVOKED.table:
                keys.add(None if change.after is None else change.after.get(KEY))
        if not keys:
            return
        self._ongoing.recheck_all()
        self._reauthorization.recheck_openings()
        identities = {stream.identity for stream in self._hub.open_streams if stream.identity is not None}
        for identity in identities:
            if None in keys or stored_key(identity) in keys:
                self._hub.revoke(identity, "the server was told to end this caller's streams")
