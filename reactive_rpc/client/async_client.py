"""The asynchronous client, on which a generated hub is built."""

from __future__ import annotations

import random as _random
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.bound_query import BoundQuery
from reactive_rpc.client.event_reader import EventReader
from reactive_rpc.client.item_reader import ItemReader
from reactive_rpc.client.iterators import EventIterator, ItemIterator
from reactive_rpc.client.live import Live, Means
from reactive_rpc.client.mutation import MutationModes
from reactive_rpc.client.optimistic import Optimistic, updates_of
from reactive_rpc.client.pages import Pages
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.sending import Sending, check_key
from reactive_rpc.client.status import Status, StatusWatch
from reactive_rpc.client.transport import Transport, new_http_client
from reactive_rpc.client.watch import Watch
from reactive_rpc.clock import Clock, SystemClock
from reactive_rpc.errors import ServiceUnavailableError, WireError
from reactive_rpc.protocol.pages import Page

__all__ = ["AsyncClient", "Mutation", "PagedQuery", "Query", "StreamedQuery", "Subscription"]

T = TypeVar("T")


class AsyncClient:
    """Talk to one server as one caller; use it as `async with`, or `open` and `aclose` it.

    Args:
        base_url: the server's URL, without the prefix: `http://localhost:8000`.
        token: sent as `Authorization: Bearer`; see `set_token`.
        headers: sent with every request.
        http: an HTTP client to use; it stays the caller's to close. Unless it probes its connections (TCP keep-alive),
            a peer that vanishes is noticed only if the server sends heartbeats.
        clock: the time of the pauses between two tries.
        timeout_seconds: of a request, if `http` is not given; streams have none.
        random: the jitter, between 0 and 1.
        events: how events come: `sse` is one response that stays open, `poll` is one request after another, for ways
            on which such a response does not get through; `auto` polls if streams turn out to say nothing.
        retry_mutations: send each mutation with an `Idempotency-Key` of its own, and send it again, a few times, where
            its answer was lost. The server must honour such keys, as ours do: another one would do it twice.
    """

    prefix: str = "/rpc"
    """The path under which the server's procedures are; a generated client knows its own."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        http: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
        timeout_seconds: float = 30.0,
        random: Callable[[], float] = _random.random,
        events: Means = "auto",
        retry_mutations: bool = False,
    ) -> None:
        self.retry_mutations = retry_mutations
        self._state: Literal["new", "open", "closed"] = "new"
        self._base_url = base_url
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._token = token
        self._http = http
        self._owned_http: httpx.AsyncClient | None = None
        self._clock = clock or SystemClock()
        self._timeout_seconds = timeout_seconds
        self._events: Means = events
        self._new_backoff = partial(Backoff, random=random)
        self._transport: Transport | None = None
        self._live: Live | None = None

    async def open(self) -> None:
        """Start the client's tasks; a client is opened once.

        Raises:
            RuntimeError: it is open, or was closed.
        """
        if self._state != "new":
            raise RuntimeError(f"this client is {self._state}: a client is opened once")
        self._state = "open"
        if self._http is None:
            self._http = self._owned_http = new_http_client(self._timeout_seconds)
        self._transport = Transport(self._http, self._base_url, self.prefix, self._headers)
        if self._token is not None:
            self._transport.set_token(self._token)
        self._live = Live(self._transport, clock=self._clock, new_backoff=self._new_backoff, events=self._events)
        await self._live.open()

    async def aclose(self) -> None:
        """End every watch, iterator, stream and task; idempotent."""
        if self._state != "open":
            self._state = "closed"
            return
        self._state = "closed"
        try:
            if self._live is not None:
                await self._live.aclose()
        finally:
            if self._owned_http is not None:
                await self._owned_http.aclose()

    def set_token(self, token: str | None) -> None:
        """Be the caller of `token` from now on; None is nobody.

        Every watch is fetched again, the stream opened anew. Subscriptions begin again, without the last id of the
        caller before; a streamed query that is being read goes on as the caller who asked. If it is the same caller,
        whose token is about to expire, see `renew_token`.
        """
        self._set_token(token, is_renewed=False)

    def renew_token(self, token: str) -> None:
        """Send a newer `token` of the same caller from now on.

        As `set_token`, but subscriptions miss nothing, and are told nothing twice: their connections stay until the
        server ends them, as the token expires with which they were opened, and then go on after the last value.

        Args:
            token: of the caller who the client is already.
        """
        self._set_token(token, is_renewed=True)

    def _set_token(self, token: str | None, *, is_renewed: bool) -> None:
        self._token = token
        if self._transport is not None and self._live is not None and self._state == "open":
            self._transport.set_token(token)
            self._live.reidentify(is_renewed=is_renewed)

    @property
    def status(self) -> Status:
        """How the client stands with its server now.

        Raises:
            RuntimeError: the client is not open.
        """
        _, live = self._opened()
        return live.status

    def watch_status(self) -> StatusWatch:
        """Return the status to be followed: the present one, and each that comes; errors as in `status`."""
        _, live = self._opened()
        return StatusWatch(lambda: None if live.is_closed else live.status, live.status_news)

    async def call(
        self,
        procedure: Procedure[T],
        arguments: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        optimistic: Optimistic = (),
        in_parallel: bool = False,
    ) -> T:
        """Call a procedure and return its typed result.

        Args:
            procedure: of a generated client.
            arguments: its input by name, `{field: value}`.
            idempotency_key: names a mutation that may be sent more often than once: for a while the server does it
                once, and answers the same each time. It is sent again from here too, if its answer was lost. Of
                another input it is refused (UNPROCESSABLE_CONTENT).
            optimistic: how the results that are shown look with a mutation, until the server's answers contain it.
            in_parallel: do not wait for the mutations that were made before and touch a same query.

        Raises:
            BadRequestError: the input or the key does not fit; nothing is sent.
            ServiceUnavailableError: the server's database cannot be read. Where the procedure has
                `stale_if_error_seconds`, the server has a stored result; only a watch can say of it that it is stale,
                so only a watch shows it.
            RPCError: the server's error, as its class.
            ConnectionFailedError: no answer came.
            WireError: the answer is none of this protocol.
        """
        transport, live = self._opened()
        fields, files = procedure.encode_input(arguments), procedure.files_in(arguments)
        if idempotency_key is not None:
            check_key(idempotency_key, procedure.path)
        send = partial(transport.call, procedure, fields, files=files, idempotency_key=idempotency_key)
        if procedure.method == "GET":
            answer = await send()
        else:
            sending = Sending(send, idempotency_key, clock=self._clock, backoff=self._new_backoff())
            answer = await live.mutations.run(sending, updates_of(optimistic), in_parallel=in_parallel)
        if answer.is_stale:
            raise ServiceUnavailableError(
                "the server cannot read its database; an older result is stored: watch the query to show it as stale",
                path=procedure.path,
            )
        return procedure.decode_answer(answer.body or b"", answer.headers)

    def watch(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> Watch[T]:
        """Return a watch of a query, to be entered.

        Args:
            procedure: the query, of a generated client.
            arguments: its input by name, `{field: value}`.

        Raises:
            BadRequestError: the input does not fit; nothing is sent.
        """
        _, live = self._opened()
        return Watch(live, procedure, procedure.encode_input(arguments))

    def bind(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> BoundQuery[T]:
        """Return a query with its input; nothing is sent.

        Args:
            procedure: the query, of a generated client.
            arguments: its input by name, `{field: value}`.

        Raises:
            BadRequestError: the input does not fit.
        """
        _, live = self._opened()
        return BoundQuery(live, procedure, procedure.encode_input(arguments))

    def follow_pages(self, procedure: Procedure[Page[T]], arguments: Mapping[str, Any]) -> Pages[T]:
        """Return a list to be followed page by page, to be entered.

        Args:
            procedure: the query of a page, of a generated client.
            arguments: its input by name, `{field: value}`, without `after` and `until`.

        Raises:
            BadRequestError: the input does not fit; nothing is sent.
        """
        _, live = self._opened()
        return Pages(live, procedure, dict(arguments))

    def iterate_events(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> EventIterator[T]:
        """Return the values of a subscription, to be iterated over; nothing is sent before the first is wanted.

        Args:
            procedure: the subscription, of a generated client.
            arguments: its input by name, `{field: value}`.

        Raises:
            BadRequestError: the input does not fit.
        """
        transport, live = self._opened()
        fields = procedure.encode_input(arguments)
        reader = EventReader(transport, procedure, fields, clock=self._clock, new_backoff=self._new_backoff)
        return EventIterator(live, reader)

    def iterate_items(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> ItemIterator[T]:
        """Return the values of a streamed query, to be iterated over; nothing is sent before the first is wanted.

        Args:
            procedure: the query, of a generated client.
            arguments: its input by name, `{field: value}`.

        Raises:
            BadRequestError: the input does not fit.
        """
        transport, live = self._opened()
        return ItemIterator(live, ItemReader(transport, procedure, procedure.encode_input(arguments)))

    async def login_with_password(self, url: str, *, username: str, password: str) -> None:
        """Log in by OAuth2's password flow at `url`, and be that caller from now on; errors as in `call`.

        Args:
            url: of the token endpoint.
            username: as the server knows the caller.
            password: sent once, and not kept.
        """
        transport, _ = self._opened()
        form = {"grant_type": "password", "username": username, "password": password}
        body = await transport.post_form(url, form)
        try:
            answer = _TokenAnswer.model_validate_json(body)
        except ValidationError as exc:
            raise WireError(f"{url} answered without an access_token") from exc
        self.set_token(answer.access_token)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # An error in __init__ leaves an object without a state, which owns nothing.
        if getattr(self, "_state", "new") == "open":
            _warn(f"unclosed client {self!r}: use `async with`", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._base_url} [{self._state}]>"

    def _opened(self) -> tuple[Transport, Live]:
        if self._transport is None or self._live is None or self._state != "open":
            raise RuntimeError(f"this client is {self._state}: use it inside `async with {type(self).__name__}(...)`")
        return self._transport, self._live


class _TokenAnswer(BaseModel):
    """RFC 6749, section 5.1; the rest of the answer is not needed."""

    model_config = ConfigDict(extra="ignore")

    access_token: str


class Mutation(MutationModes[T]):
    """A mutation (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: AsyncClient, procedure: Procedure[T]) -> None:
        super().__init__(procedure, retries=client.retry_mutations)
        self._client = client

    async def _call(self, arguments: Mapping[str, Any], optimistic: Optimistic = ()) -> T:
        return await self._client.call(self._procedure, arguments, **self._options(optimistic))


class Query(Generic[T]):
    """A query (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`, `watch`, `bind`."""

    def __init__(self, client: AsyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    async def _call(self, arguments: Mapping[str, Any]) -> T:
        return await self._client.call(self._procedure, arguments)

    def _bind(self, arguments: Mapping[str, Any]) -> BoundQuery[T]:
        return self._client.bind(self._procedure, arguments)

    def _watch(self, arguments: Mapping[str, Any]) -> Watch[T]:
        return self._client.watch(self._procedure, arguments)


class PagedQuery(Query[Page[T]], Generic[T]):
    """A query of pages; a generated subclass adds the typed `__call__`, `watch` and `pages`."""

    def _pages(self, arguments: Mapping[str, Any]) -> Pages[T]:
        return self._client.follow_pages(self._procedure, arguments)


class StreamedQuery(Generic[T]):
    """A streamed query (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: AsyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    def _call(self, arguments: Mapping[str, Any]) -> ItemIterator[T]:
        return self._client.iterate_items(self._procedure, arguments)


class Subscription(Generic[T]):
    """A subscription (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: AsyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    def _call(self, arguments: Mapping[str, Any]) -> EventIterator[T]:
        return self._client.iterate_events(self._procedure, arguments)
