"""The events of a stream, as bytes and back."""

from __future__ import annotations

import pytest

from reactive_rpc.errors import WireError
from reactive_rpc.protocol.envelopes import ErrorBody
from reactive_rpc.protocol.events import (
    Affected,
    Connected,
    Event,
    Gap,
    Invalidation,
    RefusedQuery,
    Revoked,
    SubscriptionRequest,
    decode_event,
)
from reactive_rpc.protocol.sse import ServerSentEvent, SSEDecoder

AFFECTED = Affected(path="a.b", input={"x": None}, key="k")


@pytest.mark.parametrize(
    "event",
    [
        Connected(
            stream="s",
            cursor="e:1",
            queries=["k", None],
            stale=[AFFECTED],
            errors=[RefusedQuery(path="a.c", error=ErrorBody(code="FORBIDDEN", message="no"))],
        ),
        Invalidation(cursor="e:2", affected=[AFFECTED], tables=["t"], event_id="i", retry=1),
        Gap(cursor="e:3", reason="overflow"),
        Revoked(reason="logged out"),
    ],
)
def test_an_event_survives_the_wire(event: Event) -> None:
    """What the server encodes is what the client decodes, and the cursor is the id."""
    (received,) = SSEDecoder().feed(event.encode(cursor="e:9"))
    assert decode_event(received) == event
    assert received.id == getattr(event, "cursor", "e:9")


def test_a_first_invalidation_has_no_retry() -> None:
    """`retry` is there only when the event is sent again; null inside an input stays."""
    data = Invalidation(cursor="e:2", affected=[AFFECTED], event_id="i").encode()
    assert b"retry" not in data
    assert b'{"x":null}' in data


def test_what_is_newer_is_ignored() -> None:
    """Unknown events and unknown fields are no errors."""
    assert decode_event(ServerSentEvent("novelty", "?", "")) is None
    gap = decode_event(ServerSentEvent("gap", '{"cursor":"e:1","novelty":1}', ""))
    assert gap == Gap(cursor="e:1")
    assert SubscriptionRequest.model_validate({"queries": [{"path": "a", "novelty": 1}]}).queries[0].path == "a"


def test_a_malformed_event_is_a_wire_error() -> None:
    """A known event without what it must hold is told, not guessed at."""
    with pytest.raises(WireError, match="'gap' event is malformed"):
        decode_event(ServerSentEvent("gap", "{}", ""))
