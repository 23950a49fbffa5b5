"""Dependencies that take the request are found, however deep, with the procedures that they are solved for."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from reactive_rpc import Login, define_reactive_function
from reactive_rpc.procedures.registry import Registry
from reactive_rpc.procedures.undeclared_reads import UndeclaredRead, undeclared_reads


def address(connection: HTTPConnection) -> str:
    return str(connection.client)


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    return accept_language


def place(where: Annotated[str, Depends(address)], lang: Annotated[str, Depends(language)]) -> str:
    return where + lang


@define_reactive_function(cache=False)
async def here(where: Annotated[str, Depends(place)]) -> str:
    return where


@define_reactive_function.mutation
async def note(request: Request, where: Annotated[str, Depends(address)]) -> str:
    return where


@define_reactive_function
async def greet(lang: Annotated[str, Depends(language)]) -> str:
    return lang


@define_reactive_function(public=True)
async def version() -> int:
    return 1


def of_request(request: Request) -> Login:
    return Login(identity=request.headers.get("x-user"))


def of_login(login: Annotated[Login, Depends(of_request)]) -> Login:
    return login


def of_header(x_user: Annotated[str, Header()], token: Annotated[Any, Depends(HTTPBearer())]) -> Login:
    return Login(identity=x_user)


async def of_rows(x_user: Annotated[str, Header()], db: AsyncSession) -> Login:
    return Login(identity=x_user)


@define_reactive_function.context(of_login)
async def machine() -> int:
    return 1


FUNCTIONS = {"a": {"here": here, "note": note, "greet": greet, "version": version}}
OF_HANDLERS = [
    UndeclaredRead("place -> address", ("a.here",), is_context=False),
    UndeclaredRead("address", ("a.note",), is_context=False),
    UndeclaredRead("the handler itself", ("a.note",), is_context=False),
]


@pytest.mark.parametrize("context", [None, of_header, of_rows])
def test_what_declares_its_headers_is_not_named(context: Any) -> None:
    """Nor are security schemes, and a context with a session: all that they read is known."""
    registry = Registry(FUNCTIONS, context=context)
    assert undeclared_reads(registry, context) == OF_HANDLERS


def test_contexts_come_first_with_all_that_they_are_solved_for() -> None:
    """The application's own and one of a definer; a public procedure has none."""
    registry = Registry(FUNCTIONS | {"b": {"machine": machine}}, context=of_request)
    assert undeclared_reads(registry, of_request) == [
        UndeclaredRead("of_request", ("a.here", "a.note", "a.greet"), is_context=True),
        UndeclaredRead("of_login -> of_request", ("b.machine",), is_context=True),
        *OF_HANDLERS,
    ]
