"""Acknowledgements over a real connection: at the stream's own worker or at another one of the same database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from reactive_rpc import ReactiveRPC
from reactive_rpc.testing import running
from tests.support.waiting import wait_until

from .rooms import app_of, rpc_on
from .streams import heard, in_rooms

Workers = list[tuple[ReactiveRPC, str]]


def write(file: Path, text: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', ?)", (text,))


def acknowledge(url: str, stream: str, cursor: str) -> int:
    answer = httpx.post(f"{url}/rpc/events/ack", json={"stream": stream, "cursor": cursor}, timeout=60)
    return answer.status_code


@contextmanager
def two_workers(file: Path, *retry_seconds: float) -> Iterator[Workers]:
    """Serve two applications on one file, as two workers are."""
    first, second = (rpc_on(file, settings={"ack_retry_seconds": retry_seconds}) for _ in range(2))
    with running(app_of(first)) as url, running(app_of(second)) as other:
        yield [(first, url), (second, other)]


@pytest.fixture
def workers(file: Path) -> Iterator[Workers]:
    """Give two workers that wait for long before they send anything again."""
    with two_workers(file, 20.0) as found:
        yield found


@pytest.mark.parametrize("at", [0, 1])
def test_what_is_acknowledged_anywhere_is_not_sent_again(file: Path, workers: Workers, at: int) -> None:
    """The answer is the same at either worker, and the stream's own learns of it before it would try again."""
    hub = workers[0][0]._hub
    with heard(workers[0][1], json={**in_rooms("a"), "acks": True}) as stream:
        _, connected, _ = stream.next()
        for text in ("one", "two"):
            write(file, text)
            name, _, cursor = stream.next()
            assert name == "invalidation"
        assert acknowledge(workers[at][1], connected["stream"], cursor) == 204
        wait_until(lambda: hub.stats.acknowledged == 2)
        assert hub.stats.retried == 0
        assert hub.waiting_bytes == 0


def test_what_is_not_acknowledged_is_sent_again_and_given_up(file: Path) -> None:
    """With a mark, as often as is configured; then the stream ends, and its cursor resumes it at the other worker."""
    with two_workers(file, 1.0, 1.0) as [(rpc, url), (_, other)]:
        with heard(url, json={**in_rooms("a"), "acks": True}) as stream:
            stream.next()
            write(file, "one")
            _, first, cursor = stream.next()
            rest = stream.rest()
        with heard(other, json={**in_rooms("a"), "cursor": cursor}) as stream:
            assert stream.next()[1]["stale"] == []
        stats = rpc._hub.stats
    assert [(name, event["event_id"], event["retry"]) for name, event in rest] == [
        ("invalidation", first["event_id"], 1),
        ("invalidation", first["event_id"], 2),
    ]
    assert (stats.events, stats.retried, stats.abandoned) == (1, 2, 1)


def test_an_acknowledgement_for_nobody_is_taken(workers: Workers) -> None:
    """The stream may be another worker's, or have ended: nobody can tell, and nothing comes of it."""
    assert acknowledge(workers[0][1], "nobody", "e:1") == 204
    assert acknowledge(workers[0][1], "x" * 10_000, "e:1") == 204
    assert acknowledge(workers[0][1], "nobody", "no cursor") == 400
