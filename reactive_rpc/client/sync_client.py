"""The synchronous client: the asynchronous one, driven on an event loop in a thread of its own (anyio's portal)."""

from __future__ import annotations

import random as _random
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from reactive_rpc.client.async_client import AsyncClient
from reactive_rpc.client.live import Means
from reactive_rpc.client.mutation import CallOptions, MutationModes
from reactive_rpc.client.optimistic import Optimistic
from reactive_rpc.client.procedure import Procedure
from reactive_rpc.client.status import Status
from reactive_rpc.client.sync_iterators import SyncEventIterator, SyncItemIterator
from reactive_rpc.client.sync_pages import SyncPages
from reactive_rpc.client.sync_watch import SyncBoundQuery, SyncStatusWatch, SyncWatch
from reactive_rpc.clock import Clock
from reactive_rpc.protocol.pages import Page

__all__ = ["SyncClient", "SyncMutation", "SyncPagedQuery", "SyncQuery", "SyncStreamedQuery", "SyncSubscription"]

T = TypeVar("T")


class SyncClient:
    """Talk to one server as one caller, from code without `async`; arguments as for `AsyncClient`. Thread-safe."""

    prefix: str = "/rpc"

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
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()
        self._client = AsyncClient(
            base_url,
            token=token,
            headers=headers,
            http=http,
            clock=clock,
            timeout_seconds=timeout_seconds,
            random=random,
            events=events,
            retry_mutations=retry_mutations,
        )
        self._client.prefix = self.prefix

    def open(self) -> None:
        """Start the thread and the client's tasks; errors as in `AsyncClient.open`."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="reactive_rpc.client"))
            portal.call(self._client.open)
            stack.callback(portal.call, self._client.aclose)
            self._stack = stack.pop_all()
        self._portal = portal

    def close(self) -> None:
        """End every watch, iterator, stream and task, and the thread; idempotent."""
        # The portal goes first: a watch that ends because of the close must not wait for a thread that is gone.
        self._portal = None
        self._stack.close()

    def set_token(self, token: str | None) -> None:
        """Be the caller of `token` from now on; None is nobody."""
        self._opened().call(self._client.set_token, token)

    def renew_token(self, token: str) -> None:
        """Send a newer token of the same caller from now on; see `AsyncClient.renew_token`."""
        self._opened().call(self._client.renew_token, token)

    @property
    def status(self) -> Status:
        """How the client stands with its server now; errors as in `AsyncClient.status`."""
        status: Status = self._opened().call(getattr, self._client, "status")
        return status

    def watch_status(self) -> SyncStatusWatch:
        """Return the status to be followed; see `AsyncClient.watch_status`."""
        return SyncStatusWatch(self, self._opened().call(self._client.watch_status))

    def call(self, procedure: Procedure[T], arguments: Mapping[str, Any], **options: Unpack[CallOptions]) -> T:
        """Call a procedure and return its typed result; the rest as in `AsyncClient.call`."""
        result: T = self._opened().call(partial(self._client.call, procedure, arguments, **options))
        return result

    def watch(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> SyncWatch[T]:
        """Return a watch of a query, to be entered; arguments and errors as in `AsyncClient.watch`."""
        return SyncWatch(self, self._opened().call(self._client.watch, procedure, arguments))

    def bind(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> SyncBoundQuery[T]:
        """Return a query with its input; arguments and errors as in `AsyncClient.bind`."""
        return SyncBoundQuery(self, self._opened().call(self._client.bind, procedure, arguments))

    def follow_pages(self, procedure: Procedure[Page[T]], arguments: Mapping[str, Any]) -> SyncPages[T]:
        """Return a list to be followed page by page; arguments and errors as in `AsyncClient.follow_pages`."""
        return SyncPages(self, self._opened().call(self._client.follow_pages, procedure, arguments))

    def iterate_events(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> SyncEventIterator[T]:
        """Return the values of a subscription; arguments and errors as in `AsyncClient.iterate_events`."""
        return SyncEventIterator(self, self._opened().call(self._client.iterate_events, procedure, arguments))

    def iterate_items(self, procedure: Procedure[T], arguments: Mapping[str, Any]) -> SyncItemIterator[T]:
        """Return the values of a streamed query; arguments and errors as in `AsyncClient.iterate_items`."""
        return SyncItemIterator(self, self._opened().call(self._client.iterate_items, procedure, arguments))

    def login_with_password(self, url: str, *, username: str, password: str) -> None:
        """Log in by OAuth2's password flow; arguments and errors as in `AsyncClient.login_with_password`."""

        async def login() -> None:
            await self._client.login_with_password(url, username=username, password=password)

        self._opened().call(login)

    def __del__(
        self,
        _warn: Callable[..., None] = warnings.warn,
        _is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        # The garbage collector may run on the client's own thread, which cannot wait for its own end: another one does.
        if getattr(self, "_portal", None) is None or _is_finalizing():
            return
        _warn(f"unclosed client {self!r}: use `with`", ResourceWarning, source=self)
        self._portal = None
        threading.Thread(target=self._stack.close, name="reactive_rpc.client closing", daemon=True).start()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._client!r}>"

    @property
    def portal(self) -> BlockingPortal | None:
        """The portal to the client's event loop; None while the client is not open."""
        return self._portal

    def _opened(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError(f"open the client first: `with {type(self).__name__}(...) as hub:`")
        return self._portal


class SyncMutation(MutationModes[T]):
    """A mutation (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: SyncClient, procedure: Procedure[T]) -> None:
        super().__init__(procedure, retries=client.retry_mutations)
        self._client = client

    def _call(self, arguments: Mapping[str, Any], optimistic: Optimistic = ()) -> T:
        return self._client.call(self._procedure, arguments, **self._options(optimistic))


class SyncQuery(Generic[T]):
    """A query (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`, `watch`, `bind`."""

    def __init__(self, client: SyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    def _call(self, arguments: Mapping[str, Any]) -> T:
        return self._client.call(self._procedure, arguments)

    def _bind(self, arguments: Mapping[str, Any]) -> SyncBoundQuery[T]:
        return self._client.bind(self._procedure, arguments)

    def _watch(self, arguments: Mapping[str, Any]) -> SyncWatch[T]:
        return self._client.watch(self._procedure, arguments)


class SyncPagedQuery(SyncQuery[Page[T]], Generic[T]):
    """A query of pages; a generated subclass adds the typed `__call__`, `watch` and `pages`."""

    def _pages(self, arguments: Mapping[str, Any]) -> SyncPages[T]:
        return self._client.follow_pages(self._procedure, arguments)


class SyncStreamedQuery(Generic[T]):
    """A streamed query (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: SyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    def _call(self, arguments: Mapping[str, Any]) -> SyncItemIterator[T]:
        return self._client.iterate_items(self._procedure, arguments)


class SyncSubscription(Generic[T]):
    """A subscription (`procedure`) bound to a `client`; a generated subclass adds the typed `__call__`."""

    def __init__(self, client: SyncClient, procedure: Procedure[T]) -> None:
        self._client = client
        self._procedure = procedure

    def _call(self, arguments: Mapping[str, Any]) -> SyncEventIterator[T]:
        return self._client.iterate_events(self._procedure, arguments)
