"""Tickets: a stream's URL may carry one, once, and nobody else can use what stands for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, Header, HTTPException, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader

from reactive_rpc import Login
from reactive_rpc.changes.ephemeral_store import NOBODY, EntryKind
from reactive_rpc.changes.memory_store import InMemoryEphemeralStore
from reactive_rpc.clock import SystemClock
from reactive_rpc.errors import UnauthorizedError
from reactive_rpc.testing import FakeClock, running
from reactive_rpc.web.streams.tickets import Tickets, take_ticket

from .rooms import JSON, app_of, error_of, rpc_on, serving, who
from .streams import ServedRooms, heard, in_rooms, stored

ANN = {"authorization": "Bearer ann@t"}
BOB = {"authorization": "Bearer bob@t"}


@pytest.fixture
def url(file: Path) -> Iterator[str]:
    with running(app_of(rpc_on(file, context=who))) as url:
        yield url


def ticket_of(url: str, **headers: str) -> str:
    answer = httpx.post(f"{url}/rpc/events/ticket", json={}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["expires_in"] == 30.0
    ticket = answer.json()["ticket"]
    assert isinstance(ticket, str)
    return ticket


def test_a_ticket_opens_one_stream(url: str) -> None:
    """A URL with a ticket is let in as its owner, without any header; a second time it is not."""
    address = f"{url}/rpc/events?set={stored(url, 'a', **ANN)}&ticket={ticket_of(url, **ANN)}"
    with heard(address, "GET") as stream:
        assert stream.next()[0] == "connected"
        added = httpx.post(f"{url}/rpc/notes.add", json={"room": "a", "text": "x"}, headers=ANN)
        assert added.status_code == 200
        assert stream.next()[0] == "invalidation"
    again = httpx.get(address)
    assert again.status_code == 401
    error = error_of(again)
    assert error["code"] == "UNAUTHORIZED"
    assert "unknown, expired or used" in error["message"]
    assert "POST /rpc/events/ticket" in error["message"]


def test_a_ticket_is_asked_for_with_credentials(url: str) -> None:
    """Whoever the context refuses gets no ticket, and a page of another site cannot ask for one by a plain form."""
    assert httpx.post(f"{url}/rpc/events/ticket", json={}).status_code == 401
    form = httpx.post(f"{url}/rpc/events/ticket", content=b"", headers=ANN)
    assert (form.status_code, error_of(form)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert httpx.get(f"{url}/rpc/events/ticket", headers=ANN).status_code == 405
    empty = httpx.post(f"{url}/rpc/events/ticket", headers={**ANN, **JSON})
    assert empty.status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [("ticket=", 401), ("ticket=x", 401), ("ticket=%FF%00", 401), ("ticket=a&ticket=b", 400), ("%74icket=x", 401)],
)
def test_a_ticket_that_is_none_is_refused(url: str, query: str, status: int) -> None:
    """Whatever stands in the URL, valid credentials beside it do not count: a client that sends a ticket means it."""
    answer = httpx.get(f"{url}/rpc/events?set={stored(url, 'a', **ANN)}&{query}", headers=ANN)
    assert answer.status_code == status, answer.text


def test_a_ticket_of_one_caller_never_mixes_with_anothers_credentials(file: Path) -> None:
    """The redeeming request's own header and cookie are put aside: the stream is the ticket owner's alone."""
    seen: list[dict[str, str]] = []

    def context(request: Request) -> Login:
        seen.append({name: request.headers.get(name, "") for name in ("authorization", "cookie")})
        return Login(identity="u", tenant="t")

    with running(app_of(rpc_on(file, context=context))) as url:
        ticket = ticket_of(url, **ANN)
        address = f"{url}/rpc/events?set={stored(url, 'a')}&ticket={ticket}"
        with heard(address, "GET", headers={**BOB, "cookie": "session=bob"}) as stream:
            stream.next()
    assert seen[-1] == {"authorization": "Bearer ann@t", "cookie": ""}


def keyed(
    key: Annotated[str | None, Security(APIKeyHeader(name="X-Key", auto_error=False))],
    session: Annotated[str | None, Security(APIKeyCookie(name="session", auto_error=False))],
    x_team: Annotated[str, Header()] = "none",
) -> Login:
    if key is None and session is None:
        raise HTTPException(401, "who is it?")
    return Login(identity=f"{key} {session} {x_team}", tenant="t")


@pytest.mark.parametrize(
    ("headers", "own", "identity"),
    [
        ({"x-key": "k", "x-team": "red"}, {}, "k None red"),
        ({"cookie": "session=s"}, {}, "None s none"),
        ({"x-key": "k", "x-team": "red"}, {"x-key": "other", "x-team": "blue"}, "k None blue"),
    ],
)
async def test_whatever_the_contexts_security_schemes_use_is_carried(
    file: Path, anyio_backend: str, headers: dict[str, str], own: dict[str, str], identity: str
) -> None:
    """API keys and cookies replace the request's own; other headers that the context declares only fill gaps."""
    seen: list[str | None] = []

    def context(caller: Annotated[Login, Depends(keyed)]) -> Login:
        seen.append(caller.identity)
        return caller

    async with serving(file, context=context) as server:
        ticket = (await server.client.post("/rpc/events/ticket", json={}, headers=headers)).json()["ticket"]
        name = (await server.client.post("/rpc/events/sets", json=in_rooms("a"), headers=headers)).json()["set"]
        answer = await server.client.get(f"/rpc/events/poll?set={name}&ticket={ticket}", headers=own)
        assert answer.status_code == 200, answer.text
    assert seen[-1] == identity


def test_a_ticket_outlives_neither_its_owners_rights_nor_its_time(file: Path) -> None:
    """The context is resolved when the ticket is used: who has been locked out meanwhile is refused."""
    locked_out: set[str] = set()

    def context(caller: Annotated[Login, Depends(who)]) -> Login:
        if caller.identity in locked_out:
            raise HTTPException(403, "locked out")
        return caller

    with running(app_of(rpc_on(file, context=context))) as url:
        ticket, name = ticket_of(url, **ANN), stored(url, "a", **ANN)
        locked_out.add("ann")
        answer = httpx.get(f"{url}/rpc/events?set={name}&ticket={ticket}")
        assert (answer.status_code, error_of(answer)["message"]) == (403, "locked out")


async def test_a_ticket_expires(anyio_backend: str) -> None:
    """After its time a ticket is as good as none."""
    clock = FakeClock()
    tickets = Tickets(InMemoryEphemeralStore(clock), ttl_seconds=30.0)
    ticket = await tickets.issue([(b"authorization", b"Bearer ann@t")], [], owner="ann")
    clock.advance(30.1)
    with pytest.raises(UnauthorizedError, match="unknown, expired or used"):
        await tickets.redeem(ticket.ticket, [], [])


class Peeking(InMemoryEphemeralStore):
    """An ephemeral store whose holder looks at what is in it."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.seen: dict[str, bytes] = {}

    async def put(
        self, kind: EntryKind, entries: Mapping[str, bytes], *, ttl_seconds: float, owner: str = NOBODY
    ) -> None:
        self.seen.update(entries)
        await super().put(kind, entries, ttl_seconds=ttl_seconds, owner=owner)


async def test_the_ephemeral_store_tells_nothing_of_whom_a_ticket_stands_for(anyio_backend: str) -> None:
    """Neither the ticket nor the credentials stand in the store, and what is changed there opens nothing."""
    store = Peeking()
    tickets = Tickets(store, ttl_seconds=30.0)
    secret = b"Bearer very-secret-token"
    ticket = (await tickets.issue([(b"authorization", secret), (b"host", b"x")], [], owner="ann")).ticket
    [(name, sealed)] = store.seen.items()
    assert ticket not in name
    assert not [word for word in (secret, ticket.encode(), b"authorization") if word in sealed]
    await store.put("ticket", {name: sealed[:-1] + bytes([sealed[-1] ^ 1])}, ttl_seconds=30.0)
    with pytest.raises(UnauthorizedError):
        await tickets.redeem(ticket, [], [])
    await store.put("ticket", {name: sealed}, ttl_seconds=30.0)
    assert await tickets.redeem(ticket, [(b"host", b"y"), (b"cookie", b"mine")], []) == [
        (b"host", b"y"),
        (b"authorization", secret),
    ]
    with pytest.raises(UnauthorizedError):
        await tickets.redeem(ticket, [], [])


@pytest.mark.parametrize(
    ("query", "ticket", "rest"),
    [
        (b"", None, b""),
        (b"set=a&cursor=e:1", None, b"set=a&cursor=e:1"),
        (b"ticket=t&set=a", "t", b"set=a"),
        (b"set=a&%74%69cket=t%2Fx", "t/x", b"set=a"),
        (b"set=ticket&xticket=t", None, b"set=ticket&xticket=t"),
    ],
)
def test_a_ticket_is_taken_out_of_the_url(query: bytes, ticket: str | None, rest: bytes) -> None:
    """However it is spelled; everything else stays as it was."""
    scope = {"query_string": query}
    assert take_ticket(scope) == ticket
    assert scope["query_string"] == rest


def test_a_tickets_url_is_never_logged_whole(tmp_path: Path) -> None:
    """The access log of a real uvicorn names the set and not the ticket, whatever becomes of the request."""
    with ServedRooms(tmp_path) as server:
        name = stored(server.url, "a")
        tickets = [ticket_of(server.url) for _ in range(5)]
        with heard(f"{server.url}/rpc/events?set={name}&ticket={tickets[0]}", "GET") as stream:
            stream.next()
        answers = [
            httpx.get(f"{server.url}/rpc/events?set={name}&ticket={tickets[0]}"),
            httpx.get(f"{server.url}/rpc/events?set=nope&ticket={tickets[1]}"),
            httpx.get(f"{server.url}/rpc/events?ticket={tickets[2]}&set={name}&ticket={tickets[2]}"),
            httpx.delete(f"{server.url}/rpc/events?ticket={tickets[3]}"),
            httpx.get(f"{server.url}/rpc/events/poll?set={name}&ticket={tickets[4]}"),
        ]
        assert [answer.status_code for answer in answers] == [401, 404, 400, 405, 200]
        server.end()
    text = server.logged()
    assert text.count(f'"GET /rpc/events?set={name} HTTP') == 3, text
    assert not [ticket for ticket in tickets if ticket in text]
