"""Requests that are remembered by their heads: each is what reading it anew would give, and few are kept."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from reactive_rpc.errors import BadRequestError
from reactive_rpc.web.trpc import seen_requests
from reactive_rpc.web.trpc.requests import TRPCRequest
from reactive_rpc.web.trpc.seen_requests import Inputs, ReadRequest, SeenRequests


class Reads:
    """Reads requests, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, scope: Scope, name: str) -> ReadRequest:
        self.count += 1
        if name == "refused":
            raise BadRequestError("no")
        request = TRPCRequest((name,), False, False, False, {})
        fault = BadRequestError("no JSON") if name == "faulty" else None
        return ReadRequest(
            request, [None], Inputs({}, fault), refusal=BadRequestError("no") if name == "mixed" else None
        )


def scope_of(path: str = "ping", *, method: str = "GET", query: bytes = b"", **headers: str) -> Scope:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"method": method, "raw_path": f"/trpc/{path}".encode(), "query_string": query, "headers": raw}


def test_a_request_is_read_once() -> None:
    """Whoever sends it: what is not read of its head does not count."""
    seen = SeenRequests(reads := Reads())
    first = seen.of(scope_of(authorization="Bearer ada", accept="*/*"), "ping")
    assert seen.of(scope_of(authorization="Bearer eve", accept="*/*", user_agent="x"), "ping") is first
    assert reads.count == 1


@pytest.mark.parametrize(
    "other",
    [
        scope_of(query=b"batch=1"),
        scope_of(accept="application/jsonl"),
        scope_of(trpc_accept="application/jsonl"),
        scope_of(content_type="multipart/form-data"),
        scope_of("%70ing"),
    ],
)
def test_another_head_is_another_request(other: Scope) -> None:
    """By its query string, by each header that is read, and by how its path is spelled."""
    seen = SeenRequests(reads := Reads())
    seen.of(scope_of(), "ping")
    seen.of(other, "ping")
    assert reads.count == 2


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        (scope_of(method="POST"), "ping"),
        (scope_of(reactive="1"), "ping"),
        (scope_of(reactive_etags="{}"), "ping"),
        (scope_of(idempotency_key="k"), "ping"),
        (scope_of(query=b"x" * 2048), "ping"),
        (scope_of("faulty"), "faulty"),
        (scope_of("mixed"), "mixed"),
    ],
)
def test_some_are_read_each_time(scope: Scope, name: str) -> None:
    """By POST, with headers that differ each time, too long ones, and those that are refused."""
    seen = SeenRequests(reads := Reads())
    seen.of(scope, name)
    seen.of(scope, name)
    assert reads.count == 2


def test_a_refusal_is_told_each_time() -> None:
    """It is raised anew, and not remembered."""
    seen = SeenRequests(reads := Reads())
    for _ in range(2):
        with pytest.raises(BadRequestError):
            seen.of(scope_of("refused"), "refused")
    assert reads.count == 2


def test_all_are_forgotten_past_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who makes up requests fills no memory."""
    monkeypatch.setattr(seen_requests, "MAX_SEEN", 3)
    seen = SeenRequests(reads := Reads())
    for number in range(4):
        seen.of(scope_of(query=b"%d" % number), "ping")
    seen.of(scope_of(query=b"3"), "ping")
    assert reads.count == 4
    seen.of(scope_of(query=b"0"), "ping")
    assert reads.count == 5
