"""Random games with a list in pages, on a real database: no row twice, and none left out, whatever comes when."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from sqlalchemy import Connection, StaticPool, create_engine, delete, insert, update
from sqlmodel import Field, Session, SQLModel, col, select

from reactive_rpc import Page, keyset
from reactive_rpc.client.page_list import Interval, PageList
from reactive_rpc.client.versions import Version

GAMES: Final = int(os.environ.get("REACTIVE_PAGE_GAMES", "60"))
STEPS: Final = 40
LIMIT: Final = 4


class Entry(SQLModel, table=True):
    """A row of the list."""

    __tablename__ = "page_list_entry"

    id: int = Field(primary_key=True)
    rank: int = Field(index=True)


Read = Callable[[Session, "Interval[int]"], Page[int]]


def read(session: Session, one: Interval[int]) -> Page[int]:
    """Return the page of an interval, as a server answers it."""
    page = keyset(session, select(Entry), order_by=[col(Entry.rank)], after=one.after, until=one.until, limit=LIMIT)
    return Page(items=[row.id for row in page.items], next=page.next)


def read_by_limit(session: Session, one: Interval[int]) -> Page[int]:
    """Return a page of so many rows after a place, wherever it ended when it was first read."""
    page = keyset(session, select(Entry), order_by=[col(Entry.rank)], after=one.after, limit=LIMIT)
    return Page(items=[row.id for row in page.items], next=one.until or page.next)


@dataclass(eq=False)
class Followed:
    """What a client knows of one interval, beside its page."""

    version: int = 0
    invalidated_at: int = 0
    is_current: bool = False
    is_wanted: bool = True
    answer: tuple[Page[int], int] | None = None


@dataclass
class Game:
    """A database, a server that tells of changes in order, and a client that hears of everything late."""

    draw: random.Random
    connection: Connection
    read: Read = read
    pages: PageList[int] = field(default_factory=lambda: PageList(LIMIT))
    followed: dict[Interval[int], Followed] = field(default_factory=dict)
    truth: list[list[int]] = field(default_factory=list)
    events: list[tuple[int, set[Interval[int]]]] = field(default_factory=list)
    notified_up_to: int = 0
    shown_at: int = 0
    frames: int = 0

    @property
    def version(self) -> int:
        """The newest commit."""
        return len(self.truth) - 1

    def play(self) -> None:
        """Play one game, and look at each frame."""
        self._commit(self._insert, self.draw.randrange(20))
        self._look()
        for _ in range(STEPS):
            self.draw.choice(
                [self._write, self._write, self._send, self._answer, self._answer, self._notify, self._more]
            )()
            self._look()
        while self._settle_down():
            self._look()
        rows = self.pages.rows()
        assert rows is not None, "all is quiet, and the pages do not fit together"
        assert rows == self.truth[-1][: len(rows)]
        assert self.pages.has_more or rows == self.truth[-1]
        assert all(one.size <= 2 * LIMIT for one in self.pages.intervals)

    # -- the server

    def _write(self) -> None:
        kind = self.draw.choice([self._insert, self._insert, self._delete, self._move, self._move])
        self._commit(kind, self.draw.choice([1, 1, 1, 2, 9]))

    def _commit(self, write: Callable[[], Any], times: int) -> None:
        before = {one: self._answer_of(one) for one in self.followed}
        for _ in range(times):
            self.connection.execute(write())
        self.truth.append(list(self.connection.scalars(select(Entry.id).order_by(col(Entry.rank), col(Entry.id)))))
        self.events.append((self.version, {one for one, page in before.items() if self._answer_of(one) != page}))

    def _insert(self) -> Any:
        return insert(Entry).values(rank=self.draw.randrange(12))

    def _delete(self) -> Any:
        return delete(Entry).where(col(Entry.id) == self._any_id())

    def _move(self) -> Any:
        return update(Entry).where(col(Entry.id) == self._any_id()).values(rank=self.draw.randrange(12))

    def _any_id(self) -> int:
        return self.draw.choice(self.truth[-1]) if self.truth and self.truth[-1] else 0

    def _answer_of(self, one: Interval[int]) -> Page[int]:
        with Session(self.connection) as session:
            return self.read(session, one)

    # -- the client

    def _send(self) -> None:
        """Have a request that is wanted read the database; its answer comes later."""
        wanted = [one for one, known in self.followed.items() if known.is_wanted and known.answer is None]
        if wanted:
            one = self.draw.choice(wanted)
            known = self.followed[one]
            known.answer, known.is_wanted = (self._answer_of(one), self.version), False

    def _answer(self) -> None:
        waiting = [one for one, known in self.followed.items() if known.answer is not None]
        if not waiting:
            return self._send()
        one = self.draw.choice(waiting)
        known = self.followed[one]
        assert known.answer is not None
        (page, known.version), known.answer = known.answer, None
        known.is_current = known.version >= known.invalidated_at
        known.is_wanted = not known.is_current
        if one.page == page and one.page is not None:
            page = one.page  # a 304
        self._take(one, known, page)
        return None

    def _notify(self) -> None:
        if self.events:
            self.notified_up_to, changed = self.events.pop(0)
            for one, known in self.followed.items():
                if one in changed and known.version < self.notified_up_to:
                    known.invalidated_at, known.is_current, known.is_wanted = self.notified_up_to, False, True
                if one.page is not None:
                    self._take(one, known, one.page)

    def _take(self, one: Interval[int], known: Followed, page: Page[int]) -> None:
        up_to = max(known.version, self.notified_up_to) if known.is_current else known.version
        one.take(page, Version("e", known.version), up_to=Version("e", up_to), is_current=known.is_current)

    def _more(self) -> None:
        self.pages.load_more()

    def _settle_down(self) -> bool:
        """Do what is still to be done; tell whether there was anything."""
        for act, is_due in (
            (self._notify, bool(self.events)),
            (self._answer, any(known.answer is not None or known.is_wanted for known in self.followed.values())),
        ):
            if is_due:
                act()
                return True
        return False

    def _look(self) -> None:
        """Let the list settle, follow what it is made of, and hold what it shows against the truth."""
        self.pages.settle()
        self._hold_against_the_truth()
        for _ in range(3):
            self.pages.join()
        self.followed = {one: self.followed.get(one) or self._begin(one) for one in self.pages.intervals}
        if not any(known.is_wanted or known.answer for known in self.followed.values()):
            for one in self.pages.behind():
                self.followed[one].is_wanted, self.followed[one].is_current, one.is_current = True, False, False
        self._hold_against_the_truth()

    def _hold_against_the_truth(self) -> None:
        rows = self.pages.rows()
        if rows is None:
            return
        at = self.pages.latest([one for one in self.pages.intervals if not one.is_extra])
        assert at is not None
        assert at.number >= self.shown_at, "what is shown went back"
        self.shown_at = at.number
        assert len(set(rows)) == len(rows), "a row is shown twice"
        assert rows == self.truth[at.number][: len(rows)], "a row is left out"
        self.frames += 1

    def _begin(self, one: Interval[int]) -> Followed:
        """Begin to follow an interval; one that has its page from another query asks whether that holds."""
        since = 0 if one.since is None else one.since.number
        known = Followed(version=since, invalidated_at=self.notified_up_to if one.page is None else since)
        return known


@pytest.fixture(scope="module")
def database() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Entry.metadata.tables["page_list_entry"].create(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def play(database: Connection, games: int, read: Read = read) -> int:
    """Play so many games, and return how many frames were shown."""
    frames = 0
    seed = os.environ.get("REACTIVE_SOUNDNESS_SEED") or "pages"
    for number in range(games):
        database.execute(delete(Entry))
        game = Game(random.Random(f"{seed} {number}"), database, read)
        try:
            game.play()
        except AssertionError as exc:
            raise AssertionError(f"{seed} {number}: {exc}") from exc
        frames += game.frames
    return frames


def test_no_row_is_shown_twice_or_left_out(database: Connection) -> None:
    """Each frame is the begin of the list as it was at one moment, and no frame is older than the one before."""
    assert play(database, GAMES) > GAMES


def torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are shown as they come."""
    monkeypatch.setattr(PageList, "_fits", lambda _list, _shown: True)


def split_without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    original = PageList._parts
    monkeypatch.setattr(PageList, "_parts", lambda self, one: original(self, one)[:1])


def shown_before_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(self: PageList[int]) -> list[int]:
        return [row for one in self.intervals if one.page is not None for row in one.page.items]

    monkeypatch.setattr(PageList, "rows", rows)


def join_of_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pages become one that ends where the first did."""
    original = PageList.join

    def join(self: PageList[int]) -> None:
        before = list(self.intervals)
        original(self)
        for place, one in enumerate(self.intervals):
            if one not in before and one.until is not None:
                self.intervals[place] = Interval(one.after, before[place].until)

    monkeypatch.setattr(PageList, "join", join)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    "bug", [torn, split_without_rest, shown_before_it_is_there, join_of_strangers], ids=lambda bug: bug.__name__
)
def test_a_seeded_bug_is_found(
    database: Connection, monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The games find each way in which a list could be put together wrongly."""
    bug(monkeypatch)
    with pytest.raises(AssertionError, match=r"pages \d+: "):
        play(database, GAMES)


@pytest.mark.seeded_bug
def test_pages_of_a_number_of_rows_are_found(database: Connection) -> None:
    """Pages that end after so many rows drift: rows come twice, and rows are left out."""
    with pytest.raises(AssertionError, match=r"pages \d+: "):
        play(database, GAMES, read_by_limit)
