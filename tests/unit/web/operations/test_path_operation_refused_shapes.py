"""Each shape that `@reactive` refuses as it decorates, and the message that it is refused with.

The messages stand in `refused_shapes.txt`, to be read as somebody reads them who has just made the mistake. After a
change, write it anew: `REACTIVE_WRITE_GOLDEN=1 pytest tests/unit/web/operations`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, Header, Request, Response, WebSocket
from fastapi.security import SecurityScopes
from pydantic import BaseModel, ConfigDict
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session as PlainSession
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from reactive_rpc import Cache, define_reactive_function, reactive
from tests.support.golden import check_messages, message_of

GOLDEN = Path(__file__).with_name("refused_shapes.txt")

decorate: Any = reactive


class Base(SQLModel, registry=registry()):
    """Keeps the table out of the shared metadata."""


class User(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Mailer: ...


class WithMailer(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    mailer: Mailer


@dataclass
class Pair:
    user: User


def get_db() -> Session:
    raise NotImplementedError


def get_tenant_db(x_tenant: Annotated[str, Header()]) -> Session:
    raise NotImplementedError


def get_any() -> Any:
    raise NotImplementedError


SessionDep = Annotated[Session, Depends(get_db)]
AsyncSessionDep = Annotated[AsyncSession, Depends(get_db)]


def no_session(skip: int = 0) -> None: ...


def connection(session: SessionDep, other: Annotated[Connection, Depends(get_any)]) -> None: ...


def async_session(session: AsyncSessionDep) -> None: ...


def of_caller(session: Annotated[Session, Depends(get_tenant_db)]) -> None: ...


async def sync_session(session: SessionDep) -> None: ...


async def two_sessions(session: AsyncSessionDep, other: Annotated[PlainSession, Depends(get_any)]) -> None: ...


def two_classes(session: SessionDep, other: Annotated[PlainSession, Depends(get_any)]) -> None: ...


def takes_request(session: SessionDep, request: Request) -> None: ...


def takes_connection(session: SessionDep, http: HTTPConnection) -> None: ...


def takes_web_socket(session: SessionDep, socket: WebSocket) -> None: ...


def takes_response(session: SessionDep, response: Response) -> None: ...


def takes_tasks(session: SessionDep, tasks: BackgroundTasks) -> None: ...


def takes_scopes(session: SessionDep, scopes: SecurityScopes) -> None: ...


def takes_service(session: SessionDep, mailer: Annotated[Mailer, Depends(get_any)]) -> None: ...


def takes_optional_service(session: SessionDep, mailer: Annotated[Mailer | None, Depends(get_any)] = None) -> None: ...


def takes_function(session: SessionDep, make: Annotated[Callable[[], int], Depends(get_any)]) -> None: ...


def takes_services(session: SessionDep, mailers: Annotated[list[Mailer], Depends(get_any)]) -> None: ...


def takes_model(session: SessionDep, given: Annotated[WithMailer, Depends(get_any)]) -> None: ...


def takes_rows(session: SessionDep, users: Annotated[list[User], Depends(get_any)]) -> None: ...


def takes_pair(session: SessionDep, pair: Annotated[Pair, Depends(get_any)]) -> None: ...


def broken_annotation(session: SessionDep, item: int) -> None: ...


broken_annotation.__annotations__["item"] = "list["


def variadic(session: SessionDep, *ids: int) -> None: ...


def keywords(session: SessionDep, **fields: int) -> None: ...


def positional(session: SessionDep, /) -> None: ...


def yielding(session: SessionDep) -> Iterator[int]:
    yield 1


async def yielding_async(session: AsyncSessionDep) -> AsyncIterator[int]:
    yield 1


def endpoint(session: SessionDep) -> None: ...


class Callables:
    def __call__(self, session: SessionDep) -> None: ...


@define_reactive_function
async def procedure(db: AsyncSession) -> int:
    raise NotImplementedError


FUNCTIONS: list[Callable[..., Any]] = [
    no_session, of_caller, connection, async_session, sync_session, two_sessions, two_classes, takes_request,
    takes_connection, takes_web_socket, takes_response, takes_tasks, takes_scopes, takes_service,
    takes_optional_service, takes_function, takes_services, takes_model, takes_rows, takes_pair, broken_annotation,
    variadic, keywords, positional, yielding, yielding_async,
]  # fmt: skip

SHAPES: dict[str, Callable[[], object]] = {
    **{f"function: {function.__name__}": partial(decorate, function) for function in FUNCTIONS},
    "function: endpoint": lambda: decorate(decorate(endpoint)),
    "shape: a procedure": lambda: decorate(procedure),
    "shape: a partial": lambda: decorate(partial(endpoint)),
    "shape: an instance": lambda: decorate(Callables()),
    "shape: a class": lambda: decorate(Mailer),
    "option: cache=False": lambda: decorate(cache=False),
    "option: cache=60": lambda: decorate(cache=60),
    "option: push": lambda: decorate(cache=Cache(push="result")),
}


def test_each_shape_is_refused_with_its_message() -> None:
    """And no message has changed without somebody reading it."""
    check_messages(GOLDEN, {name: message_of(make, __name__) for name, make in SHAPES.items()})


def takes_much(
    session: SessionDep, user: Annotated[User | None, Depends(get_any)], pair: tuple[int, str], unknown: Any = None
) -> str:
    """Do a thing."""
    raise NotImplementedError


def test_the_function_looks_as_before() -> None:
    """By its name, its module, its text; and it is called as it is."""
    decorated = reactive(takes_much)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(decorated, name) == getattr(takes_much, name)
    with pytest.raises(NotImplementedError):
        decorated(Session(), None, (1, "a"))
