"""Heartbeats: a comment where a stream has been silent, and `connected` says how long silence may last."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from reactive_rpc.protocol.sse import SSEDecoder
from reactive_rpc.testing import running

from .rooms import app_of, rpc_on


@pytest.mark.parametrize("seconds", [0.05, 0.0, None])
def test_a_stream_says_that_it_lives(file: Path, seconds: float | None) -> None:
    """An idle stream sends comments, which are no events: within 25 s by default; with 0 it promises none."""
    rpc = rpc_on(file, settings={} if seconds is None else {"heartbeat_seconds": seconds})
    with (
        running(app_of(rpc)) as url,
        httpx.stream("POST", f"{url}/rpc/events", json={"queries": []}, timeout=60) as stream,
    ):
        chunks = stream.iter_raw()
        (connected,) = SSEDecoder().feed(next(chunks))
        assert json.loads(connected.data).get("heartbeat_seconds") == (25.0 if seconds is None else seconds or None)
        if seconds:
            assert next(chunks).startswith(b":")
