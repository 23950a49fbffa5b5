"""The fakes of `reactive_rpc.testing` keep the contracts they stand in for."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI

from reactive_rpc.clock import Clock, IdSource
from reactive_rpc.testing import FakeClock, SequentialIds, running


def test_sleepers_wake_in_the_order_of_their_time() -> None:
    """Only when the clock has been moved far enough, and the earliest first."""

    async def scenario() -> list[str]:
        clock = FakeClock()
        typed: Clock = clock
        woken: list[str] = []

        async def sleep(name: str, seconds: float) -> None:
            await typed.sleep(seconds)
            woken.append(name)

        tasks = [asyncio.create_task(sleep(name, seconds)) for name, seconds in [("c", 3), ("a", 1), ("b", 2)]]
        cancelled = asyncio.create_task(sleep("never", 1))
        await asyncio.sleep(0)
        assert clock.sleepers == 4
        cancelled.cancel()
        clock.advance(0.5)
        await asyncio.sleep(0)
        assert woken == []
        assert clock.sleepers == 3
        clock.advance(2.5)
        await asyncio.gather(*tasks)
        await typed.sleep(0)
        return woken

    assert asyncio.run(scenario()) == ["a", "b", "c"]


def test_ids_count() -> None:
    """Two sources count apart."""
    ids: IdSource = SequentialIds("r")
    assert [ids.new_id(), ids.new_id(), SequentialIds("r").new_id()] == ["r-1", "r-2", "r-1"]


def test_an_application_runs_on_a_free_port_and_stops() -> None:
    """Its URL answers while it runs, and refuses afterwards."""
    app = FastAPI()
    app.get("/")(lambda: "here")
    with running(app) as url, running(app) as other:
        assert url != other
        assert httpx.get(url).json() == httpx.get(other).json() == "here"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_application_that_does_not_start_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Its own error is in the log."""

    async def app(scope: object, receive: object, send: object) -> None:
        raise ValueError("no database")

    uvicorn_log = logging.getLogger("uvicorn.error")  # another test's uvicorn may have kept it from propagating
    uvicorn_log.addHandler(caplog.handler)
    try:
        with (
            caplog.at_level(logging.ERROR, "uvicorn.error"),
            pytest.raises(RuntimeError, match="did not start"),
            running(app),
        ):
            raise AssertionError
    finally:
        uvicorn_log.removeHandler(caplog.handler)
    assert "no database" in caplog.text
