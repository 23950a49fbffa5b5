"""The barrier of a log: one question at a time, asked after whoever waits for its answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from reactive_rpc.changes.barrier import Barrier
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

STEPS = 5
"""After so many steps of the event loop everything has happened that needs no answer."""


class Oracle:
    """Is asked, and answers when the test says so.

    Attributes:
        asked: how many questions have begun.
        answers: those of the questions, in order; a test sets results and errors.
    """

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[None]] = []
        self.barrier = Barrier(self.ask, "question")

    async def ask(self) -> None:
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]

    @property
    def asked(self) -> int:
        return len(self.answers)

    def wait(self) -> asyncio.Task[None]:
        """Wait for the barrier, in a task."""
        return asyncio.create_task(self.barrier.wait())

    async def asked_for(self, count: int) -> None:
        """Return when so many questions have begun."""
        await until(lambda: self.asked == count, "the question is asked")


@pytest.fixture
async def oracle() -> Oracle:
    return Oracle()


async def calm() -> None:
    """Let everything happen that needs no answer."""
    for _ in range(STEPS):
        await asyncio.sleep(0)


async def test_whoever_comes_before_a_question_begins_shares_it(oracle: Oracle) -> None:
    """A hundred that come in one step of the event loop ask once."""
    waiting = [oracle.wait() for _ in range(100)]
    await oracle.asked_for(1)
    oracle.answers[0].set_result(None)
    await asyncio.gather(*waiting)
    assert oracle.asked == 1


async def test_whoever_comes_later_shares_the_next_question(oracle: Oracle) -> None:
    """An answer under way may speak of before they came; and no question begins before the last one has ended."""
    first = oracle.wait()
    await oracle.asked_for(1)
    later = [oracle.wait() for _ in range(100)]
    await calm()
    assert oracle.asked == 1, "one at a time"
    oracle.answers[0].set_result(None)
    await first
    await oracle.asked_for(2)
    assert not any(task.done() for task in later), "the first answer is not theirs"
    oracle.answers[1].set_result(None)
    await asyncio.gather(*later)
    assert oracle.asked == 2


async def test_a_question_belongs_to_nobody(oracle: Oracle) -> None:
    """A caller that is cancelled ends at once, and takes no question with it: neither under way nor queued."""
    first, patient = oracle.wait(), oracle.wait()
    await oracle.asked_for(1)
    second, also_patient = oracle.wait(), oracle.wait()
    await calm()
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    assert (first.cancelled(), second.cancelled()) == (True, True)
    oracle.answers[0].set_result(None)
    await patient
    await oracle.asked_for(2)
    oracle.answers[1].set_result(None)
    await also_patient


async def test_a_question_that_nobody_waits_for_is_asked(oracle: Oracle) -> None:
    """Whoever comes while it is under way waits for the next one all the same."""
    gone = oracle.wait()
    await asyncio.sleep(0)
    gone.cancel()
    await oracle.asked_for(1)
    late = oracle.wait()
    await calm()
    oracle.answers[0].set_result(None)
    await oracle.asked_for(2)
    oracle.answers[1].set_result(None)
    await late


async def test_a_question_that_is_cancelled_makes_way_for_the_next(oracle: Oracle) -> None:
    """As when somebody ends every task: those who wait for its answer are cancelled too, and the queued one begins."""
    waiting = oracle.wait()
    await oracle.asked_for(1)
    later = oracle.wait()
    await calm()
    assert oracle.barrier._running is not None
    oracle.barrier._running.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await oracle.asked_for(2)
    oracle.answers[1].set_result(None)
    await later


async def test_a_queued_question_that_is_cancelled_is_queued_anew(oracle: Oracle) -> None:
    """Whoever comes next does not join the one that will never be asked."""
    waiting = oracle.wait()
    await oracle.asked_for(1)
    later = oracle.wait()
    await calm()
    assert oracle.barrier._queued is not None
    oracle.barrier._queued.cancel()
    await asyncio.wait([later])
    assert later.cancelled()
    last = oracle.wait()
    oracle.answers[0].set_result(None)
    await waiting
    await oracle.asked_for(2)
    oracle.answers[1].set_result(None)
    await last


async def test_an_error_is_raised_by_all_who_wait_for_this_answer(oracle: Oracle) -> None:
    """And by nobody else: the next question is asked as if nothing had happened."""
    waiting = [oracle.wait() for _ in range(3)]
    await oracle.asked_for(1)
    late = oracle.wait()
    await calm()
    error = ValueError("on purpose")
    oracle.answers[0].set_exception(error)
    assert await asyncio.gather(*waiting, return_exceptions=True) == [error] * 3
    await oracle.asked_for(2)
    oracle.answers[1].set_result(None)
    await late


async def test_an_error_that_nobody_waits_for_is_nobodys(oracle: Oracle, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asked has gone: asyncio does not complain of an error that was never seen."""
    waiting = oracle.wait()
    await oracle.asked_for(1)
    waiting.cancel()
    await asyncio.wait([waiting])
    oracle.answers[0].set_exception(ValueError("on purpose"))
    await oracle.barrier.drain()
    oracle.answers.clear()
    gc.collect()
    assert [record.message for record in caplog.records] == []


async def test_an_outage_holds_no_past(oracle: Oracle) -> None:
    """However many questions fail one after another, each still waiting for the one before, only the last is held."""

    waiting = oracle.wait()
    await oracle.asked_for(1)
    for count in range(2, 50):
        following = oracle.wait()
        await calm()
        oracle.answers[-1].set_exception(ValueError("on purpose"))
        with pytest.raises(ValueError, match="on purpose"):
            await waiting
        await oracle.asked_for(count)
        waiting = following
    gc.collect()
    held = [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]
    assert sum(task.get_name() == "reactive_rpc question" for task in held) <= 2
    oracle.answers[-1].set_result(None)
    await waiting


async def _drained(oracle: Oracle, answer: Callable[[asyncio.Future[None]], None]) -> None:
    """Drain a barrier that has a question under way and one queued, which `answer` lets end."""
    waiting = [oracle.wait()]
    await oracle.asked_for(1)
    waiting.append(oracle.wait())
    await calm()
    draining = asyncio.create_task(oracle.barrier.drain())
    await calm()
    assert oracle.barrier.is_busy
    assert not draining.done()
    answer(oracle.answers[0])
    await oracle.asked_for(2)
    assert not draining.done()
    answer(oracle.answers[1])
    await draining
    assert not oracle.barrier.is_busy
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_drain_returns_when_nothing_is_asked_any_more(oracle: Oracle) -> None:
    """It waits for the question under way and for the queued one, however they end, and then at once."""
    await _drained(oracle, lambda answer: answer.set_result(None))
    await oracle.barrier.drain()


async def test_drain_raises_no_error_of_a_question(oracle: Oracle) -> None:
    """Those who wait for the answers raise them."""
    await _drained(oracle, lambda answer: answer.set_exception(ValueError("on purpose")))


def test_a_barrier_serves_one_event_loop_after_another() -> None:
    """A log may be closed, and opened again on another loop; nothing of the first is left."""
    asked: list[int] = []

    async def ask() -> None:
        asked.append(1)

    barrier = Barrier(ask, "question")
    for _ in range(2):
        asyncio.run(barrier.wait())
    assert len(asked) == 2
