"""Other origins: what a page of another site can make a browser send, and what it can read of the answer.

A browser sends a *simple* request (GET, or POST with one of three content types) across origins with the visitor's
cookies and asks nobody; it hides the answer from the page unless CORS headers allow it. Anything else it asks about
first (a preflight).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyCookie
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.middleware.cors import CORSMiddleware

from reactive_rpc import Login, ReactiveRPC, define_reactive_function
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY, REPLAYED, SCOPE, STALE, STALE_SECONDS, VERSION
from reactive_rpc.testing import running

from .rooms import Note, add, app_of, error_of, rpc_on, serving
from .streams import heard, in_rooms, stored

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "security.md"
OURS = "https://app.example"
SENT = {CURSOR, IDEMPOTENCY_KEY, "authorization", "content-type", "if-none-match", "last-event-id"}
READ = {CURSOR, VERSION, SCOPE, REPLAYED, STALE, STALE_SECONDS, "etag", "retry-after"}
COOKIE = {"cookie": "session=ann"}
SIMPLE_TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
POSTED = ["events", "events/poll", "events/sets", "events/ticket", "events/ack", "notes.add"]

session = APIKeyCookie(name="session", auto_error=False)


def by_cookie(cookie: Annotated[str | None, Depends(session)]) -> Login:
    if cookie is None:
        raise HTTPException(401, "log in")
    return Login(identity=cookie, tenant="t")


def with_cors(rpc: ReactiveRPC) -> FastAPI:
    """Add the middleware just as docs/explanation/security.md does."""
    app = app_of(rpc)
    [documented] = re.findall(r"```python\n(app\.add_middleware\(.*?\n\))\n```", PAGE.read_text(), re.DOTALL)
    exec(compile(documented, str(PAGE), "exec"), {"app": app, "CORSMiddleware": CORSMiddleware})
    return app


def served(file: Path, make_app: Callable[[ReactiveRPC], FastAPI]) -> Iterator[str]:
    with running(make_app(rpc_on(file, context=by_cookie))) as url:
        yield url


@pytest.fixture
def plain(file: Path) -> Iterator[str]:
    yield from served(file, app_of)


@pytest.fixture
def cors(file: Path) -> Iterator[str]:
    yield from served(file, with_cors)


def preflight(url: str, path: str, origin: str, method: str = "POST") -> httpx.Response:
    """Ask what a browser asks before it sends JSON to another origin."""
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": ", ".join(sorted(SENT)),
    }
    return httpx.options(f"{url}/rpc/{path}", headers=headers)


def test_what_can_be_sent_without_asking_changes_nothing(plain: str) -> None:
    """Each content type that needs no preflight is refused before anything is done, whoever's cookie it has."""
    for path in POSTED:
        for content_type in SIMPLE_TYPES:
            headers = {**COOKIE, "origin": "https://evil.example"} | (
                {"content-type": content_type} if content_type else {}
            )
            answer = httpx.post(f"{plain}/rpc/{path}", content=b'{"room": "a", "text": "x"}', headers=headers)
            assert (answer.status_code, error_of(answer)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE"), (
                path,
                content_type,
            )
    assert httpx.get(f"{plain}/rpc/notes.in_room?room=a", headers=COOKIE).json() == []


@define_reactive_function.mutation
async def clear(db: AsyncSession) -> int:
    notes = (await db.exec(select(Note))).all()
    for note in notes:
        await db.delete(note)
    return len(notes)


@pytest.mark.anyio
async def test_a_form_without_fields_calls_no_mutation(file: Path) -> None:
    """An empty body declared to be a form is refused: a browser sends such a one with the visitor's cookies."""
    async with serving(file, {"notes": {"add": add, "clear": clear}}) as server:
        await server.call("notes.add", {"room": "a", "text": "x"})
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await server.client.post("/rpc/notes.clear", headers=form)
        assert server.rows() == [("a", "x")]
    assert answer.status_code == 415


@pytest.mark.anyio
async def test_a_request_without_body_and_content_type_calls_no_mutation(file: Path) -> None:
    """`fetch(url, {method: "POST", mode: "no-cors"})` of another site sends neither a body nor a content type."""
    async with serving(file, {"notes": {"add": add, "clear": clear}}) as server:
        await server.call("notes.add", {"room": "a", "text": "x"})
        answer = await server.client.post("/rpc/notes.clear", headers={"sec-fetch-site": "cross-site"})
        assert server.rows() == [("a", "x")]
    assert answer.status_code in {403, 415}


def test_without_the_middleware_no_origin_is_let_in(plain: str) -> None:
    """A preflight is not answered as one, and no answer says that another origin may read it."""
    for path in POSTED:
        asked = preflight(plain, path, OURS)
        assert asked.status_code == 405
        assert not [name for name in asked.headers if name.startswith("access-control")]
    with heard(plain, headers={**COOKIE, "origin": OURS}, json=in_rooms("a")) as stream:
        assert not [name for name in stream.response.headers if name.startswith("access-control")]


def test_with_the_middleware_the_allowed_origin_is_let_in(cors: str) -> None:
    """Its preflights pass with every header of ours, and it may read streams, polls and errors that were asked for with
    cookies, and what their headers say."""
    for path in POSTED:
        asked = preflight(cors, path, OURS)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, OURS)
        assert asked.headers["access-control-allow-credentials"] == "true"
    name = stored(cors, "a", **COOKIE)
    readable = {"access-control-allow-origin": OURS, "access-control-allow-credentials": "true"}
    with heard(f"{cors}/rpc/events?set={name}", "GET", headers={**COOKIE, "origin": OURS}) as stream:
        assert stream.next()[0] == "connected"
        assert readable.items() <= stream.response.headers.items()
        assert "origin" in stream.response.headers["vary"].lower()
        httpx.post(f"{cors}/rpc/notes.add", json={"room": "a", "text": "x"}, headers=COOKIE)
        assert stream.next()[0] == "invalidation"
    polled = httpx.get(f"{cors}/rpc/events/poll?set={name}", headers={**COOKIE, "origin": OURS})
    refused = httpx.get(f"{cors}/rpc/events/poll?set={name}", headers={"origin": OURS})
    assert (polled.status_code, refused.status_code) == (200, 401)
    for answer in (polled, refused):
        assert answer.headers["access-control-allow-origin"] == OURS
        assert set(answer.headers["access-control-expose-headers"].split(", ")) == READ


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example"])
def test_with_the_middleware_other_origins_are_not(cors: str, origin: str) -> None:
    """Their preflights fail, and what they can ask for with cookies, a GET, they may not read: also `Origin: null`."""
    for path in POSTED:
        asked = preflight(cors, path, origin)
        assert asked.status_code == 400
        assert "access-control-allow-origin" not in asked.headers
    name = stored(cors, "a", **COOKIE)
    with heard(f"{cors}/rpc/events?set={name}", "GET", headers={**COOKIE, "origin": origin}) as stream:
        assert "access-control-allow-origin" not in stream.response.headers
    polled = httpx.get(f"{cors}/rpc/events/poll?set={name}", headers={**COOKIE, "origin": origin})
    assert "access-control-allow-origin" not in polled.headers


def test_nothing_by_get_changes_anything(plain: str) -> None:
    """What a page can make a browser ask for without a preflight: mutations, sets, tickets and acks are not there."""
    for path in ("notes.add?room=a&text=x", "events/sets", "events/ticket", "events/ack"):
        assert httpx.get(f"{plain}/rpc/{path}", headers=COOKIE).status_code == 405
