"""The one seam to the network: HTTP requests out, bytes and errors of this project back."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import anyio
import httpx
from pydantic import ValidationError

from reactive_rpc.client.files import SentFile, opened
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.retrying import OPEN_SECONDS
from reactive_rpc.client.token import Token
from reactive_rpc.errors import ConnectionFailedError, RPCError, WireError, rpc_error
from reactive_rpc.protocol.codes import code_for_status
from reactive_rpc.protocol.envelopes import decode_error
from reactive_rpc.protocol.events import Ack, Polled, SubscriptionRequest
from reactive_rpc.protocol.headers import CURSOR, IDEMPOTENCY_KEY, STALE, UNKNOWN, VERSION

__all__ = [
    "EVENT_STREAM",
    "JSON_LINES",
    "MAX_RETRY_AFTER_SECONDS",
    "CallAnswer",
    "StreamedAnswer",
    "Transport",
    "new_http_client",
]

EVENT_STREAM: Final = "text/event-stream"
JSON_LINES: Final = "application/jsonl"

_JSON: Final = {"content-type": "application/json"}

MAX_CONNECTIONS: Final = 1000
"""Each stream has one for itself: a call must not wait for them."""

MAX_IDLE_CONNECTIONS: Final = 40

MAX_URL_BYTES: Final = 6 * 1024
"""A longer URL is not sent: the server takes 16 KiB, and many a proxy 8 for the whole line."""

_TOO_LONG: Final = (414, 431)
"""The statuses by which a proxy refuses a URL that is too long for it."""

_PLAIN: Final = (401, 403, 413, 429, 502, 503, 504)
"""The statuses that mean the same from a proxy, in its own words, as in this protocol."""

MAX_RETRY_AFTER_SECONDS: Final = 600.0
"""The longest `Retry-After` that is honoured: a watch must not sleep for a day because of one wrong header."""

POLL_GRACE_SECONDS: Final = 20.0
"""How much longer than it was asked to wait the answer to a long poll may take."""

# Streams are silent while nothing changes, so only the kernel notices a peer that has vanished: 15 s + 3 * 5 s.
_KEEPALIVE_SECONDS: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class CallAnswer(NamedTuple):
    """A successful answer.

    Attributes:
        body: None if the result is the one that the ETag names (304).
        is_stale: whether the server cannot confirm it: its database cannot be read, and this is a stored result.
        version: which it reflects exactly, as the server spells it; None if nobody can tell.
        headers: all of them, by their names in lower case.
    """

    body: bytes | None
    etag: str | None
    is_stale: bool = False
    version: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class StreamedAnswer(NamedTuple):
    """A successful answer that is still coming."""

    headers: httpx.Headers
    chunks: AsyncIterator[bytes]


def new_http_client(timeout_seconds: float) -> httpx.AsyncClient:
    """Return an HTTP client whose connections notice a peer that has vanished."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    options += [
        (socket.IPPROTO_TCP, int(getattr(socket, name)), value)
        for name, value in _KEEPALIVE_SECONDS.items()
        if hasattr(socket, name)
    ]
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_IDLE_CONNECTIONS)
    transport = httpx.AsyncHTTPTransport(socket_options=options, limits=limits)
    return httpx.AsyncClient(transport=transport, timeout=timeout_seconds)


class Transport:
    """Requests to one server, with one caller's credentials.

    Attributes:
        headers: sent with every request; `authorization` is set from the token.
    """

    def __init__(self, http: httpx.AsyncClient, base_url: str, prefix: str, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        self._token = Token()
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._events_url = f"{self._base_url}{prefix}/events"

    def set_token(self, token: str | None) -> None:
        """Send `token` as bearer from now on; None sends none."""
        self.headers.pop("authorization", None)
        if token is not None:
            self.headers["authorization"] = f"Bearer {token}"

    async def call(
        self,
        procedure: Procedure[Any],
        fields: dict[str, Any] | None,
        etag: str | None = None,
        *,
        was_notified: bool = False,
        idempotency_key: str | None = None,
        files: Sequence[SentFile] = (),
    ) -> CallAnswer:
        """Call a procedure with its encoded input.

        Args:
            etag: of the result that is held.
            was_notified: whether a stream may have told of a change that no answer has shown yet: the server must then
                read its log, as an event's cursor may lie below the change that it tells of.
            idempotency_key: names a mutation, so that it is done once however often it is sent.
            files: that go beside the input.

        Raises:
            OSError: a file cannot be opened.
            RPCError: the server's error, as its class.
            ConnectionFailedError: no answer came.
            WireError: the answer is none of this protocol.
        """
        headers = self.headers if etag is None else {**self.headers, "if-none-match": etag}
        if idempotency_key is not None:
            headers = {**headers, IDEMPOTENCY_KEY: idempotency_key}
        response = await self._exchange(procedure, fields, headers, was_notified=was_notified, files=files)
        is_stale = STALE in response.headers
        if response.status_code == 304 and etag is not None:
            return CallAnswer(None, etag, is_stale, response.headers.get(VERSION))
        if not response.is_success:
            raise _refusal(procedure, response, response.content)
        headers = dict(response.headers)
        return CallAnswer(response.content, headers.get("etag"), is_stale, headers.get(VERSION), headers)

    @asynccontextmanager
    async def stream(
        self,
        procedure: Procedure[Any],
        fields: dict[str, Any] | None,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[StreamedAnswer]:
        """Call a procedure whose answer comes bit by bit; errors as in `call`, also while reading.

        Args:
            procedure: the one that is called.
            fields: its encoded input.
            media_type: of the answer. An event stream may be silent for any time, once it has begun.
            headers: sent with the others.
        """
        headers = {**self.headers, **_wanted(media_type), **(headers or {})}
        is_endless = media_type == EVENT_STREAM
        where = self._base_url + procedure.url
        try:
            with anyio.fail_after(OPEN_SECONDS if is_endless else None):
                response = await self._exchange(procedure, fields, headers, stream=True, is_endless=is_endless)
        except TimeoutError as exc:
            raise ConnectionFailedError(f"{where} did not begin its answer within {OPEN_SECONDS:g} s") from exc
        try:
            with _network_errors(where):
                if response.status_code != 200:
                    raise _refusal(procedure, response, await response.aread())
            found = response.headers.get("content-type", "")
            if not found.startswith(media_type):
                raise WireError(f"{where} answered with {found!r} instead of {media_type!r}")
            if not (is_endless or _has_framed_end(response)):
                raise WireError(
                    f"{where} answered without saying how long it is, or in chunks, so a cut would look like its end: "
                    "a proxy on the way must speak HTTP/1.1"
                )
            async with aclosing(_chunks(response, where)) as chunks:
                yield StreamedAnswer(response.headers, chunks)
        finally:
            await response.aclose()

    async def _exchange(
        self,
        procedure: Procedure[Any],
        fields: dict[str, Any] | None,
        headers: Mapping[str, str],
        *,
        was_notified: bool = False,
        files: Sequence[SentFile] = (),
        stream: bool = False,
        is_endless: bool = False,
    ) -> httpx.Response:
        """Send a call with the token, and learn the one of the answer."""
        token, era = UNKNOWN if was_notified else self._token.value, self._token.era
        if token is not None:
            headers = {**headers, CURSOR: token}
        cursor: str | None = UNKNOWN
        try:
            response = await self._send(procedure, fields, headers, files=files, stream=stream, is_endless=is_endless)
            cursor = response.headers.get(CURSOR, UNKNOWN if response.is_server_error else None)
            return response
        finally:
            # Without an answer, or with a gateway's, the server may have written, and nobody has said how far.
            self._token.learn(cursor, era=era)

    async def _send(
        self,
        procedure: Procedure[Any],
        fields: dict[str, Any] | None,
        headers: Mapping[str, str],
        *,
        files: Sequence[SentFile],
        stream: bool,
        is_endless: bool,
    ) -> httpx.Response:
        """Send a call: by GET if the input fits into a URL, else by POST, which every query answers too."""
        where = self._base_url + procedure.url
        timeout = self._endless_timeout if is_endless else self._http.timeout
        with _network_errors(where):
            if procedure.method == "GET":
                query = urlencode(_query_string(fields), quote_via=quote)
                url = f"{where}?{query}" if query else where
                if len(url) <= MAX_URL_BYTES:
                    request = self._http.build_request("GET", url, headers=headers, timeout=timeout)
                    response = await self._http.send(request, stream=stream)
                    if response.status_code not in _TOO_LONG:
                        return response
                    await response.aclose()
            if procedure.files:
                input = ("input", (None, json.dumps(fields or {}), "application/json"))
                with opened(files) as parts:
                    return await self._http.post(where, files=[input, *parts], headers=headers)
            body = b"" if fields is None else json.dumps(fields).encode()
            request = self._http.build_request(
                "POST", where, content=body, headers={**headers, **_JSON}, timeout=timeout
            )
            return await self._http.send(request, stream=stream)

    @property
    def _endless_timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self._http.timeout.connect, read=None)

    async def post_form(self, url: str, form: Mapping[str, str]) -> bytes:
        """Post a form (a login) and return the body; errors as in `call`."""
        where = url if "://" in url else f"{self._base_url}/{url.lstrip('/')}"
        headers = {name: value for name, value in self.headers.items() if name != "authorization"}
        with _network_errors(where):
            response = await self._http.post(where, data=dict(form), headers=headers)
        if not response.is_success:
            raise _error_of(response, response.content)
        return response.content

    @asynccontextmanager
    async def events(self, request: SubscriptionRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an event stream and yield its chunks; errors as in `call`, also while reading."""
        headers = {**self.headers, **_JSON, **_wanted(EVENT_STREAM)}
        opening = self._http.stream(
            "POST",
            self._events_url,
            content=request.model_dump_json().encode(),
            headers=headers,
            timeout=self._endless_timeout,
        )
        with _network_errors(self._events_url):
            async with opening as response:
                if response.status_code != 200:
                    raise _error_of(response, await response.aread())
                media_type = response.headers.get("content-type", "")
                if not media_type.startswith(EVENT_STREAM):
                    raise WireError(f"{self._events_url} answered with {media_type!r} instead of an event stream")
                yield response.aiter_bytes()

    async def poll(self, request: SubscriptionRequest, *, wait_seconds: float) -> Polled:
        """Ask once for the events of a set; errors as in `call`.

        Args:
            request: the queries, and the client's cursor.
            wait_seconds: how long the server may wait for something to happen; 0 is not at all.
        """
        url = f"{self._events_url}/poll"
        body = json.dumps({**request.model_dump(), "wait": wait_seconds}).encode()
        headers = {**self.headers, **_JSON, "cache-control": "no-store"}
        timeout = httpx.Timeout(self._http.timeout.connect, read=wait_seconds + POLL_GRACE_SECONDS)
        with _network_errors(url):
            response = await self._http.post(url, content=body, headers=headers, timeout=timeout)
        if not response.is_success:
            raise _error_of(response, response.content)
        try:
            return Polled.model_validate_json(response.content)
        except ValidationError as exc:
            raise WireError(f"{url} answered with something else than polled events: {response.text[:200]!r}") from exc

    async def acknowledge(self, ack: Ack) -> None:
        """Tell the server which events have arrived; errors as in `call`."""
        url = f"{self._events_url}/ack"
        with _network_errors(url):
            response = await self._http.post(
                url, content=ack.model_dump_json().encode(), headers={**self.headers, **_JSON}
            )
        if not response.is_success:
            raise _error_of(response, response.content)


def _wanted(media_type: str) -> dict[str, str]:
    """Return the headers that ask for an answer which comes bit by bit."""
    # What is compressed on its way tends to wait there for more.
    return {"accept": media_type, "accept-encoding": "identity", "cache-control": "no-store"}


def _has_framed_end(response: httpx.Response) -> bool:
    """Tell whether an end can be told from a cut: of a connection that HTTP/1 just closes it cannot (RFC 9112, 6.3)."""
    if not response.extensions.get("http_version", b"").startswith(b"HTTP/1"):
        return True
    return "content-length" in response.headers or "transfer-encoding" in response.headers


async def _chunks(response: httpx.Response, where: str) -> AsyncGenerator[bytes]:
    with _network_errors(where):
        async for chunk in response.aiter_bytes():
            yield chunk


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turn httpx's errors into those of this project."""
    try:
        yield
    except httpx.DecodingError as exc:
        raise WireError(f"{url} answered with a body that cannot be decoded: {exc}") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ConnectionFailedError(f"no answer from {url}: {str(exc) or type(exc).__name__}") from exc


def _query_string(fields: dict[str, Any] | None) -> dict[str, str]:
    """Return each field as one parameter: text as it is, everything else as JSON writes it."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in (fields or {}).items()}


def _error_of(response: httpx.Response, body: bytes) -> RPCError | WireError:
    """Return the error that the answer tells; a proxy's own page is a WireError, unless its status says enough.

    An `RPCError` carries the answer's `Retry-After` in its `headers`, as seconds, and the ETag and version of an error
    that lasts until the data changes.
    """
    try:
        error = decode_error(body)
        error.headers |= {name: response.headers[name] for name in ("etag", VERSION) if name in response.headers}
    except WireError as exc:
        if response.status_code not in _PLAIN:
            return WireError(f"HTTP {response.status_code} from {response.url}: {exc}")
        error = rpc_error(code_for_status(response.status_code), f"{response.url} answered {response.status_code}")
    seconds = _retry_after_seconds(response.headers)
    if seconds is not None:
        error.headers["retry-after"] = f"{seconds:g}"
    return error


def _refusal(procedure: Procedure[Any], response: httpx.Response, body: bytes) -> RPCError | WireError:
    """Return the error that an answer tells of, as the one that the procedure declares."""
    error = _error_of(response, body)
    return procedure.typed_error(error) if isinstance(error, RPCError) else error


def _retry_after_seconds(headers: httpx.Headers) -> float | None:
    """Return RFC 9110's Retry-After in seconds; a date is read by the server's own clock, so that ours may be wrong."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
