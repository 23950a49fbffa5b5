"""An endless list, page by page: its rows now and after every change.

`page_list.py` decides which pages there are; here each of them is a query that the client follows.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, Self, TypeVar

from reactive_rpc.client.live import Live
from reactive_rpc.client.page_list import Interval, PageList
from reactive_rpc.client.procedure import UNSET, Procedure
from reactive_rpc.client.state import Invalidated, Restored
from reactive_rpc.client.subscriptions import QueryEntry
from reactive_rpc.client.versions import Version, parse_version, passes
from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.pages import Page

__all__ = ["Pages", "PagesState"]

T = TypeVar("T")

MAX_ROUNDS: Final = 3
"""So often pages are asked whether they still hold, while others write without a pause. From then on it suffices that
the stream has told of no change in any of them for as long as that took."""


@dataclass(frozen=True, slots=True)
class PagesState(Generic[T]):
    """The state of a list at one moment.

    >>> PagesState(rows=["milk"], has_more=True, is_loading_more=False, is_stale=False, error=None).rows
    ['milk']

    Attributes:
        rows: of all pages that are loaded, in order, as they were at one moment; None until the first page is there.
        has_more: whether rows may follow; what follows the last page is known once it is loaded.
        is_loading_more: a page that was asked for is not there yet.
        is_stale: True whenever nobody can confirm the rows: some may have changed, and not all answers are in, or the
            stream that would tell is down.
        error: why a page cannot be shown, or followed; None while all is well.
    """

    rows: list[T] | None
    has_more: bool
    is_loading_more: bool
    is_stale: bool
    error: Exception | None


class Pages(Generic[T]):
    """Follow a list: `async with hub.messages.get_all.pages(agent_id=...) as pages: async for state in pages: ...`.

    The first state comes at once. What is shown is the list of one moment: no row twice, none left out. A list is
    entered once.

    Args:
        live: the streams of the client.
        procedure: the query of a page.
        arguments: its input by name, without `after` and `until`.
    """

    def __init__(self, live: Live, procedure: Procedure[Page[T]], arguments: dict[str, Any]) -> None:
        self._live = live
        self._procedure = procedure
        self._arguments = arguments
        self._list: PageList[T] = PageList(_limit(procedure, arguments))
        self._fields_of(Interval(None))  # an input that does not fit is refused here
        self._entries: dict[Interval[T], QueryEntry[Page[T]]] = {}
        self._wake = _waker(self)
        self._loop: asyncio.AbstractEventLoop
        self._phase = "new"
        self._is_due = False
        self._rounds = 0
        self._news = asyncio.Event()
        self._rows: list[T] | None = None
        self._has_more = False
        self._state: PagesState[T] = PagesState(None, has_more=False, is_loading_more=False, is_stale=True, error=None)
        self._seen: PagesState[T] | None = None

    @property
    def state(self) -> PagesState[T]:
        """The present state."""
        return self._state

    def load_more(self) -> None:
        """Load the page that follows; nothing if one is under way, or if none follows.

        Raises:
            RuntimeError: the list is not entered.
        """
        if self._phase != "entered":
            raise RuntimeError(f"enter the pages of {self._procedure.path} first: `async with ....pages() as pages:`")
        self._list.load_more()
        self._settle()

    async def __aenter__(self) -> Self:
        if self._phase != "new":
            raise RuntimeError("pages are entered once: call pages() again for others")
        self._phase = "entered"
        self._loop = asyncio.get_running_loop()
        self._settle()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Follow the list no more; idempotent."""
        self._phase = "left"
        self._news.set()
        entries, self._entries = self._entries, {}
        _give_back(self._live, entries, self._wake)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PagesState[T]:
        state = await self.next_state()
        if state is None:
            raise StopAsyncIteration
        return state

    async def next_state(self) -> PagesState[T] | None:
        """Wait for a state that was not handed out yet and return it; None when the list is over.

        Raises:
            RuntimeError: the list was never entered.
        """
        if self._phase == "new":
            raise RuntimeError(f"enter the pages of {self._procedure.path} first: `async with ....pages() as pages:`")
        while self._phase == "entered" and not any(entry.ended for entry in self._entries.values()):
            self._news.clear()
            if self._state is not self._seen:
                self._seen = self._state
                return self._seen
            await self._news.wait()
        return None

    def _changed(self) -> None:
        """Look at all pages once what has just happened is over: one event may tell of several of them."""
        self._news.set()
        if not self._is_due and self._phase == "entered":
            self._is_due = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._is_due = False
        if self._phase != "entered":
            return
        if any(_is_no_place(one, entry) for one, entry in self._entries.items()):
            self._list.restart()
        for one, entry in self._entries.items():
            _take(one, entry)
        self._list.settle()
        # What shows is taken before pages are joined: it would wait for the answer of one.
        if self._take_rows():
            self._list.join()
        self._follow()
        self._ask_behind()
        self._show()

    def _follow(self) -> None:
        """Have an entry for each page, and none for another; new ones first, so that a query of both stays followed."""
        entries = {one: self._entries.get(one) or self._acquire(one) for one in self._list.intervals}
        left = {one: entry for one, entry in self._entries.items() if one not in entries}
        self._entries = entries
        _give_back(self._live, left, self._wake)

    def _acquire(self, one: Interval[T]) -> QueryEntry[Page[T]]:
        # A page that shows an own mutation is no answer, and has no ETag.
        etag = None if one.page is None else self._etag_of(one.page)
        known = None if etag is None else Restored(one.page, etag, one.since)
        entry = self._live.acquire(self._procedure, self._fields_of(one), known)
        entry.listen(self._wake)
        _take(one, entry)
        return entry

    def _etag_of(self, page: Page[T]) -> str | None:
        """Return the ETag under which a page has come, for another query that has the same answer."""
        bases = [entry.snapshot.base for entry in self._entries.values()]
        return next((base.etag for base in bases if base.data is page), None)

    def _fields_of(self, one: Interval[T]) -> dict[str, Any] | None:
        ends = {"after": one.after, "until": one.until}
        given = {name: place for name, place in ends.items() if place is not None}
        return self._procedure.encode_input({**self._arguments, "limit": self._list.limit, **given})

    def _ask_behind(self) -> None:
        """Ask of pages that nobody has spoken of whether they hold at the version of the others: a 304, mostly."""
        if any(entry.snapshot.loading or entry.snapshot.wanted for entry in self._entries.values()):
            return  # what is under way may answer that
        version, behind = self._list.latest(), self._list.behind()
        if not behind:
            self._rounds = 0
        elif self._rounds < MAX_ROUNDS:
            self._rounds += 1
            for one in behind:
                one.is_current = False
                self._entries[one].dispatch(Invalidated(version))
            self._live.fetch_wanted()

    def _take_rows(self) -> bool:
        """Take the rows into what shows, if the pages fit together; return whether they do."""
        rows = self._list.rows(is_hurried=self._rounds == MAX_ROUNDS)
        if rows is None:
            return False
        self._has_more = self._list.has_more
        if rows != self._rows:
            self._rows = rows
        return True

    def _show(self) -> None:
        is_taken = self._take_rows()
        entries = list(self._entries.values())
        is_stale = not is_taken or any(
            entry.snapshot.is_stale for one, entry in self._entries.items() if not one.is_extra
        )
        state = PagesState(
            self._rows,
            has_more=self._has_more,
            is_loading_more=self._list.is_loading_more,
            is_stale=is_stale,
            error=next((entry.state.error for entry in entries if entry.state.error is not None), None),
        )
        if state != self._state:
            self._state = state
            self._news.set()

    def __del__(
        self,
        _warn: Callable[..., None] = warnings.warn,
        _is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if getattr(self, "_phase", "new") != "entered" or _is_finalizing():
            return
        _warn(f"pages of {self._procedure.path} were not left: use `async with`", ResourceWarning, source=self)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_give_back, self._live, self._entries, self._wake)


def _waker(pages: Pages[Any]) -> Callable[[], None]:
    """Return what wakes a list; nothing of the client refers to the list itself, so that it can be dropped."""
    reference = weakref.ref(pages)

    def wake() -> None:
        found = reference()
        if found is not None:
            found._changed()

    return wake


def _limit(procedure: Procedure[Any], arguments: dict[str, Any]) -> int:
    given = arguments.get("limit", UNSET)
    if given is UNSET and procedure.input is not None:
        given = procedure.input.model_fields["limit"].default
    if not isinstance(given, int):
        raise BadRequestError(f"limit: {given!r} is no number of rows", path=procedure.path)
    return given


def _take(one: Interval[T], entry: QueryEntry[Page[T]]) -> None:
    """Tell an interval what is known of it."""
    snapshot = entry.snapshot
    page, version = entry.state.data, snapshot.base.version
    if page is None:
        one.is_current = False
        return
    up_to = version
    if snapshot.covered and snapshot.current and snapshot.held is None:
        up_to = _later(version, _notified_up_to(entry))
    one.take(page, version, up_to=up_to, is_current=not snapshot.is_stale)


def _notified_up_to(entry: QueryEntry[Any]) -> Version | None:
    """Return the version up to which the entry's stream has told everything."""
    return parse_version(getattr(entry.stream, "cursor", None))


def _later(one: Version | None, other: Version | None) -> Version | None:
    return other if passes(other, one) else one


def _is_no_place(one: Interval[Any], entry: QueryEntry[Any]) -> bool:
    """Tell whether the server does not know a place that it has given: the list's order is another now."""
    is_first = one.after is None and one.until is None
    return not is_first and isinstance(entry.snapshot.base.error, BadRequestError)


def _give_back(live: Live, entries: dict[Interval[T], QueryEntry[Page[T]]], listener: Callable[[], None]) -> None:
    for entry in entries.values():
        entry.unlisten(listener)
        live.release(entry)
