"""Who calls the handlers that yield, and what these and their wrappers did."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header

from reactive_rpc import Answered, CallInfo, Login, Next, UnauthorizedError

SEEN: Final[list[str]] = []
"""What was done in a test that uses the fixture `seen`."""


def get_login(authorization: Annotated[str, Header()] = "") -> Login:
    if not authorization:
        raise UnauthorizedError("log in")
    return Login(identity=authorization.removeprefix("Bearer "))


async def noted(call: CallInfo, next: Next) -> Answered:
    answer = await next()
    SEEN.append(f"{call.kind} {call.path} {answer.source}")
    return answer
