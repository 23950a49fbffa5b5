"""Watching what is refused: a caller hears when they are let in, and nothing of what they may not see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reactive_rpc.errors import (
    ForbiddenError,
    NotFoundError,
    RPCError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from tests.unit.cache.scripted import Gate, until

from .scripted_hub import ScriptedHub

pytestmark = pytest.mark.anyio


@pytest.fixture
async def w(anyio_backend: str) -> AsyncIterator[ScriptedHub]:
    opened = ScriptedHub()
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("error", [ForbiddenError("not yours"), UnauthorizedError("who?"), NotFoundError("no item 1")])
async def test_who_is_refused_hears_when_they_are_let_in_and_of_nothing_else(w: ScriptedHub, error: RPCError) -> None:
    """Commits that leave the refusal as it is are told to nobody; the one that ends it is, and then each as ever."""
    query = w.row(1)
    query.error = error
    listener = await w.connect(query)
    assert listener.connected.errors == []
    for _ in range(3):
        await w.write(1)
    assert listener.frames == []
    query.error = None
    for notified in (1, 2):
        await w.write(1)
        await until(lambda notified=notified: len(listener.frames) == notified)  # type: ignore[misc]  # a lambda's default
    query.error = error
    await w.write(1)
    await until(lambda: len(listener.frames) == 3)
    await w.write(1)
    await w.write(2)
    assert listener.heard == [["items.sum[1]"]] * 3


async def test_who_may_have_been_let_in_between_is_told(w: ScriptedHub) -> None:
    """Several commits before the outcome is known: one of them may have let the caller in, who fetched."""
    query, gate = w.row(1), Gate()
    query.error = ForbiddenError("not yours")
    listener = await w.connect(query)
    query.pause = gate
    w.log.write(1)
    w.log.apply()
    await until(lambda: gate.arrived == 1)
    w.log.write(1)
    w.log.apply()
    gate.open()
    await w.settled()
    assert listener.heard == [["items.sum[1]"]]


async def test_a_refusal_in_other_words_is_another_outcome(w: ScriptedHub) -> None:
    """Also where only its details differ, which its ETag does not tell."""
    query = w.row(1)
    query.error = ForbiddenError("not yours", details={"owner": "ann"})
    listener = await w.connect(query)
    query.error = ForbiddenError("not yours", details={"owner": "bob"})
    await w.write(1)
    await until(lambda: len(listener.frames) == 1)


async def test_a_refusal_waits_for_its_outcome_and_holds_the_cursor_back(w: ScriptedHub) -> None:
    """However long it takes, nothing is told of it; what is told of others meanwhile does not confirm it."""
    query, gate = w.row(1), Gate()
    query.error = ForbiddenError("not yours")
    listener = await w.connect(query, w.row(2))
    query.pause = gate
    w.log.write(1)
    w.log.apply()
    await until(lambda: gate.arrived == 1)
    w.clock.advance(60)
    w.log.write(2)
    w.log.apply()
    await until(lambda: len(listener.frames) == 1)
    assert listener.heard == [["items.sum[2]"]]
    assert listener.events[0].cursor == "e1:0"
    query.error = None
    gate.open()
    await w.settled()
    await until(lambda: len(listener.frames) == 2)
    assert listener.heard[1] == ["items.sum[1]"]
    assert listener.events[1].cursor == "e1:2"


@pytest.mark.parametrize(("fault", "notified"), [(ValueError("oh"), 1), (ServiceUnavailableError("busy"), 0)])
async def test_a_refused_query_that_fails(w: ScriptedHub, fault: Exception, notified: int) -> None:
    """That it fails now is another outcome; that nobody can tell just now is none."""
    query = w.row(1)
    query.error = ForbiddenError("not yours")
    listener = await w.connect(query)
    query.fails = fault
    w.log.write(1)
    w.log.apply()
    await until(lambda: w.clock.sleepers == 1)
    assert len(listener.frames) == notified
    query.fails = query.error = None
    w.clock.advance(1.0)
    await w.settled()
    await until(lambda: len(listener.frames) == 1)
