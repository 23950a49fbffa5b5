"""Resuming: one reading for all who stand at one place, in slices, and a gap past the bound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reactive_rpc.cache.matcher import MATCHED_AT_ONCE, ChangeMatcher
from reactive_rpc.dependencies.change import Change
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.protocol.cursors import Cursor
from tests.unit.cache.scripted import RowQuery, change, until

from .scripted_hub import Listener, ScriptedHub

pytestmark = pytest.mark.anyio

START = Cursor("e1", 0)


def stale(listener: Listener) -> list[str]:
    """Return the keys of what was stale when it connected."""
    return [affected.key for affected in listener.connected.stale]


async def missed(w: ScriptedHub, count: int) -> None:
    """Commit so many changes of row 1, one of row 3 in the middle of them, each by itself."""
    for number in range(count):
        w.log.write(3 if number == count // 2 else 1)
    w.log.apply()
    await w.settled()


async def test_many_that_resume_share_one_reading() -> None:
    """At once, and a little later; what came since the reading counts too."""
    w = ScriptedHub()
    await missed(w, 10)
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    w.log.pause = wait
    connecting = [asyncio.create_task(w.connect(w.row(row), cursor=START)) for row in (1, 2, 3) for _ in range(20)]
    gate.set()
    found = [stale(listener) for listener in await asyncio.gather(*connecting)]
    assert found == [["items.sum[1]"]] * 20 + [[]] * 20 + [["items.sum[3]"]] * 20
    assert w.log.readings == 1
    await w.write(2)
    assert stale(await w.connect(w.row(2), cursor=START)) == ["items.sum[2]"]
    assert w.log.readings == 1
    for _ in range(200):
        w.log.write(2)
    w.log.apply()
    assert stale(await w.connect(w.row(2), cursor=START)) == ["items.sum[2]"]
    assert w.log.readings == 2
    await w.aclose()


async def test_past_the_bound_there_is_a_gap() -> None:
    """Everything is stale, as if the cursor were of another epoch; up to it, query by query."""
    w = ScriptedHub(max_resumed_changes=10)
    await missed(w, 10)
    assert stale(await w.connect(w.row(2), w.row(3), cursor=START)) == ["items.sum[3]"]
    await w.write(1)
    assert stale(await w.connect(w.row(2), w.row(3), cursor=START)) == ["items.sum[3]"], "read before, and little since"
    another = ScriptedHub(max_resumed_changes=10)
    await missed(another, 11)
    assert stale(await another.connect(another.row(2), another.row(3), cursor=START)) == [
        "items.sum[2]",
        "items.sum[3]",
    ]
    assert stale(await another.connect(another.row(2), cursor=Cursor("e1", 5))) == []
    await another.aclose()
    await w.aclose()


async def test_a_new_epoch_is_read_anew() -> None:
    """What was read in another says nothing."""
    w = ScriptedHub()
    await missed(w, 4)
    assert stale(await w.connect(w.row(2), cursor=START)) == []
    w.log.flush("restored")
    assert stale(await w.connect(w.row(2), cursor=START)) == ["items.sum[2]"]
    await w.aclose()


async def test_a_reading_that_fails_is_everybodys_and_nobodys_later() -> None:
    """Who waited gets the error; who comes next has it read again."""
    w = ScriptedHub()
    await missed(w, 4)
    read_after = w.log.read_after

    async def fail(cursor: Cursor, *, at_most: int | None = None) -> tuple[Change, ...] | None:
        raise ServiceUnavailableError("gone")

    w.log.read_after = fail  # type: ignore[method-assign]  # a database that cannot be read for a while
    for outcome in await asyncio.gather(*(w.connect(cursor=START) for _ in range(3)), return_exceptions=True):
        assert isinstance(outcome, ServiceUnavailableError)
    w.log.read_after = read_after  # type: ignore[method-assign]
    assert stale(await w.connect(w.row(1), cursor=START)) == ["items.sum[1]"]
    await w.aclose()


async def most_matched(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return against how many changes a stream that resumes is held between two turns of the event loop."""
    w = ScriptedHub()
    await w.connect(w.row(1), RowQuery(w.log, (2,), keep=lambda change: True))
    w.log.commit(*(change(2 if n % 2 else 7) for n in range(MATCHED_AT_ONCE * 4)))
    w.log.apply()
    await w.settled()
    count = 0
    is_ignored = ChangeMatcher._is_ignored

    def counted(self: ChangeMatcher, *args: Any) -> bool:
        nonlocal count
        count += 1
        return is_ignored(self, *args)

    monkeypatch.setattr(ChangeMatcher, "_is_ignored", counted)
    connecting = asyncio.create_task(w.connect(RowQuery(w.log, (2,), keep=lambda change: True), cursor=START))
    most, before = 0, 0
    while not connecting.done():
        await asyncio.sleep(0)
        most, before = max(most, count - before), count
    assert count == MATCHED_AT_ONCE * 2
    await until(lambda: not w.reader.computing)
    await w.aclose()
    return most


async def test_what_was_missed_is_matched_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop goes round after some changes, however many there are."""
    assert await most_matched(monkeypatch) <= MATCHED_AT_ONCE


@pytest.mark.seeded_bug
async def test_matching_all_at_once_is_a_seeded_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without slices the test above fails."""
    size = MATCHED_AT_ONCE
    monkeypatch.setattr("reactive_rpc.cache.matcher.MATCHED_AT_ONCE", 1_000_000)
    assert await most_matched(monkeypatch) > size
