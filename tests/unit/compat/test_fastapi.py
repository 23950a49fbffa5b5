"""FastAPI's private names still mean what `compat/fastapi.py` says."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from starlette.requests import Request

from reactive_rpc.compat import fastapi as compat_fastapi


def test_generators_of_dependencies_are_closed_by_our_stacks() -> None:
    """FastAPI finds both stacks in the scope: one ends with the function, the other with the request."""

    async def main() -> None:
        ended: list[str] = []

        async def of_request() -> Any:
            yield 1
            ended.append("request")

        async def of_function() -> Any:
            yield 2
            ended.append("function")

        solved_for: list[tuple[int, int]] = []

        def context(
            one: int = Depends(of_request, scope="request"), two: int = Depends(of_function, scope="function")
        ) -> None:
            solved_for.append((one, two))

        request = Request({"type": "http", "headers": [], "query_string": b"", "path": "/", "method": "GET"})
        async with AsyncExitStack() as request_stack:
            async with AsyncExitStack() as function_stack:
                compat_fastapi.put_exit_stacks(request, request_stack, function_stack)
                solved = await solve_dependencies(
                    request=request,
                    dependant=Dependant(path="/", dependencies=[get_dependant(path="/", call=context)]),
                    async_exit_stack=request_stack,
                    embed_body_fields=False,
                )
                assert solved.errors == []
                assert solved_for == [(1, 2)]
                assert ended == []
            assert ended == ["function"]
        assert ended == ["function", "request"]

    asyncio.run(main())


def test_fastapi_is_told_of_a_route() -> None:
    """Where this FastAPI has telemetry, its function takes what we give it; where it is off, nobody is told."""
    compat_fastapi.notify_route({"type": "http"}, "/a")
    notified: list[dict[str, Any]] = []
    before = compat_fastapi._notify
    compat_fastapi._notify = lambda **given: notified.append(given)
    try:
        compat_fastapi.notify_route({"fastapi.telemetry": object()}, "/a")
        compat_fastapi.notify_route({}, "/b")
    finally:
        compat_fastapi._notify = before
    assert [given["path"] for given in notified] == ["/a"]
