"""The private names of asyncio and anyio still mean what `compat/concurrency.py` says."""

from __future__ import annotations

import asyncio
import threading

from anyio import CancelScope, from_thread

from reactive_rpc.compat.concurrency import enter_task, leave_task, worker_thread


def test_a_task_is_entered_for_a_step() -> None:
    """While it is entered it is the current one, and afterwards none is."""

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        seen: list[object] = []

        def step() -> None:
            enter_task(loop, task)
            seen.append(asyncio.current_task())
            leave_task(loop, task)
            seen.append(asyncio.current_task())
            done.set_result(None)

        done = loop.create_future()
        loop.call_soon(step)
        await done
        assert seen == [task, None]

    asyncio.run(main())


def test_a_thread_of_ours_calls_back_into_the_loop() -> None:
    """As one of anyio's pool; when its scope is cancelled, so is the call."""

    async def main() -> None:
        loop, scope = asyncio.get_running_loop(), CancelScope()
        ended = loop.create_future()

        def work() -> None:
            with worker_thread(loop, scope):
                found = from_thread.run(asyncio.sleep, 0, "back")
                loop.call_soon_threadsafe(ended.set_result, found)

        with scope:
            threading.Thread(target=work).start()
            assert await ended == "back"

    asyncio.run(main())
