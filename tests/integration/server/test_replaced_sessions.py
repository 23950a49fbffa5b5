"""Sessions of an application that see other rows than ours would: an endpoint that takes one is refused, not answered.

Each is a way in which applications keep tenants apart. `@reactive` gives the endpoint a session of its own in the place
of theirs, so without these refusals one tenant would be answered with the rows of all.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, Request
from fastapi.security import APIKeyCookie, APIKeyQuery, HTTPBearer
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, scoped_session, sessionmaker, with_loader_criteria
from sqlmodel import Session, create_engine, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import DefinitionError, ReactiveRPC, reactive

from .endpoints import METADATA, CurrentUser, Existing, Seat, SessionDep, existing, get_current_user

pytestmark = pytest.mark.anyio

Listeners = list[tuple[Any, str, Callable[..., None]]]


class TenantSession(Session):
    """Notes of whose it is."""

    tenant = "a"

    def seen_by(self) -> str:
        return self.tenant


def of_tenant(state: ORMExecuteState) -> None:
    state.statement = state.statement.options(with_loader_criteria(Seat, Seat.org == "a"))  # type: ignore[arg-type]


def with_info(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine, info={"tenant": "a"}) as session:
        yield session


def with_schema(request: Request) -> Iterator[Session]:
    engine = request.app.state.engine.execution_options(schema_translate_map={None: "main"})
    with Session(engine) as session:
        yield session


def with_class(request: Request) -> Iterator[Session]:
    with TenantSession(request.app.state.engine) as session:
        yield session


def with_maker_listener(request: Request) -> Iterator[Session]:
    maker = sessionmaker(request.app.state.engine, class_=Session)
    event.listen(maker, "do_orm_execute", of_tenant)
    with maker() as session:
        yield session


def with_listener(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine) as session:
        event.listen(session, "after_begin", lambda *_: None)
        yield session


def with_scope(request: Request) -> Iterator[Any]:
    scoped = scoped_session(sessionmaker(request.app.state.engine, class_=Session, info={"tenant": "a"}))
    yield scoped
    scoped.remove()


async def async_with_info(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.app.state.async_engine, info={"tenant": "a"}) as session:
        yield session


async def async_with_sync_listener(request: Request) -> AsyncIterator[AsyncSession]:
    maker = async_sessionmaker(request.app.state.async_engine, class_=AsyncSession)
    async with maker() as session:
        event.listen(session.sync_session, "do_orm_execute", of_tenant)
        yield session


MAKERS = (with_info, with_schema, with_class, with_maker_listener, with_listener, with_scope)
ASYNC_MAKERS = (async_with_info, async_with_sync_listener)


def serving(*endpoints: tuple[str, Callable[..., Any]]) -> Callable[[ReactiveRPC], FastAPI]:
    def application(rpc: ReactiveRPC) -> FastAPI:
        app = FastAPI(lifespan=rpc.lifespan)
        for url, endpoint in endpoints:
            app.get(url)(endpoint)
        app.include_router(rpc.router)
        return app

    return application


def names_in(session: Any) -> list[str]:
    return list(session.exec(select(Seat.name).order_by(Seat.name)).all())


def names_by(get_db: Callable[..., Any], kind: type[Session] = Session) -> Callable[..., Any]:
    @reactive
    def names(session: Annotated[kind, Depends(get_db)]) -> list[str]:  # type: ignore[valid-type]
        return names_in(session)

    return names


def async_names_by(get_db: Callable[..., Any]) -> Callable[..., Any]:
    @reactive
    async def names(session: Annotated[AsyncSession, Depends(get_db)]) -> list[str]:
        return list((await session.exec(select(Seat.name).order_by(Seat.name))).all())

    return names


@pytest.mark.parametrize("get_db", [*MAKERS, *ASYNC_MAKERS])
async def test_a_session_that_sees_otherwise_is_refused(
    file: Path, get_db: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No row is answered, and the log says what would be lost, by the endpoint's name."""
    names = async_names_by(get_db) if get_db in ASYNC_MAKERS else names_by(get_db)
    async with existing(file, serving(("/names", names))) as app:
        with pytest.raises(DefinitionError, match=r"names .*its session has .*leave @reactive out"):
            await ask(app, "/names")


async def ask(app: Existing, url: str) -> list[str]:
    """Return what a URL answers; raise what the application raises."""
    app.client._transport.raise_app_exceptions = True  # type: ignore[attr-defined]  # httpx has no other way
    found: list[str] = (await app.get(url)).json()
    return found


async def test_a_session_of_another_database_is_refused(file: Path) -> None:
    """An application has a database for each tenant, and ours is one of them: only its requests are answered."""
    other = create_engine(f"sqlite:///{file}.other")
    METADATA.create_all(other)

    def get_db(request: Request) -> Iterator[Session]:
        with Session(other if "x-other" in request.headers else request.app.state.engine) as session:
            yield session

    async with existing(file, serving(("/names", names_by(get_db)))) as app:
        assert await ask(app, "/names") == ["one", "two"]
        with pytest.raises(DefinitionError, match="several databases"):
            await app.get("/names", **{"x-other": "yes"})
        assert await ask(app, "/names") == ["one", "two"]
    other.dispose()


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


async def test_sessions_that_see_the_same_are_replaced(file: Path) -> None:
    """One of a sessionmaker, of the class that is annotated, with listeners that ours has too: as before."""

    def of_maker(request: Request) -> Iterator[Session]:
        with sessionmaker(request.app.state.engine, class_=Session)() as session:
            yield session

    endpoints = ("/maker", names_by(of_maker)), ("/class", names_by(with_class, TenantSession))
    async with existing(file, serving(*endpoints)) as app:
        with listening(Session, "do_orm_execute", of_tenant):
            assert [await ask(app, url) for url in ("/maker", "/class")] == [["one"], ["one"]]


def by_header(x_tenant: Annotated[str, Header()]) -> Session:
    raise NotImplementedError


def by_user(user: CurrentUser) -> Session:
    raise NotImplementedError


def by_path(org: str) -> Session:
    raise NotImplementedError


def by_bearer(token: Annotated[Any, Depends(HTTPBearer())]) -> Session:
    raise NotImplementedError


def by_cookie(token: Annotated[str, Depends(APIKeyCookie(name="sid"))]) -> Session:
    raise NotImplementedError


def by_query(token: Annotated[str, Depends(APIKeyQuery(name="key"))]) -> Session:
    raise NotImplementedError


class ByClass:
    def __call__(self, user: Annotated[Any, Depends(get_current_user)]) -> Session:
        raise NotImplementedError


BY_CALLER: Sequence[Callable[..., Any]] = (by_header, by_user, by_path, by_bearer, by_cookie, by_query, ByClass())


@pytest.mark.parametrize("get_db", BY_CALLER)
def test_a_session_that_is_made_for_its_caller_is_refused(get_db: Callable[..., Any]) -> None:
    """Where it is decorated: the endpoint's own arguments would not say whose rows it reads."""
    said = re.escape("'session' is made by ")
    with pytest.raises(DefinitionError, match=f"names .*{said}.* for its caller, by .*select by it"):
        names_by(get_db)


def test_the_session_of_a_parameter_default_is_refused_too() -> None:
    """`= Depends(...)`, as older applications write it, and the session of a dependency below is not the endpoint's."""

    def names(session: Session = Depends(by_user)) -> list[str]:  # noqa: B008  # as FastAPI has it
        raise NotImplementedError

    with pytest.raises(DefinitionError, match="is made by by_user for its caller"):
        reactive(names)

    @reactive
    def fine(session: SessionDep, user: CurrentUser) -> list[str]:
        raise NotImplementedError
