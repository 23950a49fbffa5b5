"""An endless list as intervals of keys that meet: which pages it is made of, and when they fit together. Pure.

Each page is followed by itself, so each shows the truth of its own moment. INVARIANT (a row is never shown twice, and
never left out): what is shown is the pages of one version. `docs/internals/client.md` argues it.

The twin of `reactive_rpc/typescript/runtime/intervals.ts`; `tests/vectors/pages.json` are examples that both pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from reactive_rpc.client.versions import Version
from reactive_rpc.protocol.pages import Page

__all__ = ["Interval", "PageList"]

T = TypeVar("T")

GROWTH: Final = 2
"""Pages are joined if they have at most so many times the limit together: the server cuts what has more."""


@dataclass(eq=False, slots=True)
class Interval(Generic[T]):
    """One page of the list: `(after, until]`, and the truth of it as far as that is known.

    Attributes:
        after: where it begins; None: at the list's begin.
        until: where it ends; None: it is the last one, and open.
        page: the newest answer; None before the first.
        since: the version of the first answer that was this page; None if nobody can tell.
        up_to: a version at which it was this page still.
        is_current: nobody has told of a change since.
        was_end: its answer before was the list's end.
        is_extra: it was asked for beyond what is shown, so until it is there the rest is shown without it.
    """

    after: str | None
    until: str | None = None
    page: Page[T] | None = None
    since: Version | None = None
    up_to: Version | None = None
    is_current: bool = False
    was_end: bool = False
    is_extra: bool = False

    @property
    def size(self) -> int:
        """How many rows it has."""
        return 0 if self.page is None else len(self.page.items)

    def take(self, page: Page[T], version: Version | None, *, up_to: Version | None, is_current: bool) -> None:
        """Take in an answer, or that the one before still holds.

        Args:
            version: which it reflects.
            up_to: to which version it is known to hold, at least `version`.
            is_current: whether that is known of now.
        """
        if page is not self.page:
            self.page, self.since, self.up_to = page, version, up_to
        elif not self.is_current and version is not None and not _holds_at(self, version):
            # INVARIANT (it holds between `since` and `up_to`): somebody may have changed it, and changed it back.
            self.since, self.up_to = version, up_to
        elif up_to is not None and not _holds_at(self, up_to):
            self.up_to = up_to
        self.is_current = is_current


@dataclass(slots=True)
class PageList(Generic[T]):
    """The intervals of a list, from its begin to where it has been loaded.

    Args:
        limit: how many rows a page should have.
    """

    limit: int
    intervals: list[Interval[T]] = field(default_factory=lambda: [Interval(None)])

    @property
    def has_more(self) -> bool:
        """Whether rows may follow those that are loaded; they may have been deleted since."""
        loaded = [one for one in self.intervals if one.page is not None]
        return bool(loaded) and loaded[-1].page is not None and loaded[-1].page.next is not None

    @property
    def is_loading_more(self) -> bool:
        """Whether a page that was asked for is not there yet."""
        return self.intervals[-1].is_extra

    def load_more(self) -> None:
        """Ask for the page that follows; nothing if one is under way, or if none follows."""
        last = self.intervals[-1]
        if last.until is not None:
            self.intervals.append(Interval(last.until, is_extra=True))

    def restart(self) -> None:
        """Begin anew: the places of the list are no places any more."""
        self.intervals = [Interval(None)]

    def settle(self) -> None:
        """Close and split intervals by what their answers say."""
        self.intervals = [part for one in self.intervals for part in self._parts(one)]

    def _parts(self, one: Interval[T]) -> list[Interval[T]]:
        """Return what an interval becomes."""
        page = one.page
        if page is None:
            return [one]
        one.is_extra = False
        if page.next == one.until:
            one.was_end = one.until is None
            return [one]
        # The answer is that of the interval which ends where it says, to the byte.
        closed = Interval(one.after, page.next, page, one.since, one.up_to, one.is_current)
        if one.until is None and not one.was_end:
            return [closed]
        # It has outgrown its limit; the rest was shown, and is until both are there.
        return [closed, Interval(page.next, one.until)]

    def join(self) -> None:
        """Join the first page that has become small to the smaller of its neighbours, if there is room for both.

        Nothing is joined before all is confirmed. Take `rows()` first: the joined page waits for an answer of its own.
        """
        if any(one.page is None or not one.is_current for one in self.intervals):
            return
        for place, one in enumerate(self.intervals):
            if one.until is None or one.size >= self.limit / GROWTH:
                continue
            pairs = [at for at in (place - 1, place) if 0 <= at < len(self.intervals) - 1 and self._fit(at)]
            if pairs:
                at = min(pairs, key=self._size_of_pair)
                first, second = self.intervals[at : at + 2]
                self.intervals[at : at + 2] = [Interval(first.after, second.until, was_end=second.was_end)]
                return

    def _fit(self, at: int) -> bool:
        most = self.limit if self.intervals[at + 1].until is None else GROWTH * self.limit
        return self._size_of_pair(at) <= most

    def _size_of_pair(self, at: int) -> int:
        return self.intervals[at].size + self.intervals[at + 1].size

    def rows(self, *, is_hurried: bool = False) -> list[T] | None:
        """Return the rows of all pages, if these are known to be the pages of one version; None otherwise.

        Args:
            is_hurried: it suffices that nobody has told of a change in any of them.
        """
        shown = [one for one in self.intervals if not one.is_extra]
        pages = [one.page for one in shown if one.page is not None]
        if not shown or len(pages) < len(shown):
            return None
        if not self._fits(shown) and not (is_hurried and all(one.is_current for one in shown)):
            return None
        return [row for page in pages for row in page.items]

    def _fits(self, shown: list[Interval[T]]) -> bool:
        if len(shown) == 1:
            return True
        begin = self.latest(shown)
        if begin is None:
            return all(one.is_current for one in shown)
        # INVARIANT (one version at which all of them hold): each holds from `since` to `up_to`, so all do at the latest
        # `since` that none has ended before.
        return all(_holds_at(one, begin) for one in shown)

    def latest(self, shown: list[Interval[T]] | None = None) -> Version | None:
        """Return the latest version at which a page began to hold; None if they do not compare."""
        begins = [one.since for one in (self.intervals if shown is None else shown) if one.page is not None]
        known = [begin for begin in begins if begin is not None]
        if len(known) < len(begins) or len({begin.epoch for begin in known}) != 1:
            return None
        return max(known)

    def behind(self) -> list[Interval[T]]:
        """Return the pages of which it is to be asked whether they still hold, so that all fit together."""
        begin = self.latest()
        return (
            []
            if begin is None
            else [one for one in self.intervals if one.page is not None and not _holds_at(one, begin)]
        )


def _holds_at(one: Interval[Any], version: Version) -> bool:
    return one.up_to is not None and one.up_to.epoch == version.epoch and one.up_to.number >= version.number
