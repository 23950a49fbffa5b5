"""A handler is given a session of the very class that its `db` is annotated with, however that is spelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import sqlmodel
import sqlmodel.ext.asyncio.session as sqlmodel_async
from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import select as sqlalchemy_select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from typing_extensions import TypeAliasType

from reactive_rpc import DefinitionError, Login, define_reactive_function

from .rooms import Note, serving

pytestmark = pytest.mark.anyio


TEXTS = sqlalchemy_select(sqlmodel.col(Note.text))


class OwnSync(Session):
    def texts(self) -> list[str]:
        return list(self.scalars(TEXTS))


class OwnAsync(AsyncSession):
    sync_session_class = OwnSync

    async def texts(self) -> list[str]:
        return list(await self.scalars(TEXTS))


class OwnOfSQLModel(sqlmodel_async.AsyncSession):
    pass


async def session() -> AsyncIterator[AsyncSession]:
    """The application's dependency, which is not asked: it would be another transaction on an unwatched connection."""
    raise AssertionError("never called")
    yield


def spellings(kind: type) -> list[Any]:
    """Return how people write that a handler takes a session."""
    depends = Annotated[kind, Depends(session)]  # type: ignore[valid-type]  # at run time it is
    return [kind, depends, Annotated[depends, "twice"], TypeAliasType("SessionDep", depends)]


ASYNC = [AsyncSession, sqlmodel_async.AsyncSession, OwnAsync, OwnOfSQLModel]
SYNC = [Session, sqlmodel.Session, OwnSync]


def handler(kind: type, annotation: Any) -> Any:
    """Return a handler that tells the class of its session, and uses it as that class's documentation does."""

    async def with_async(db: Any) -> list[str]:
        execute: Any = db.exec if isinstance(db, sqlmodel_async.AsyncSession) else db.execute
        await execute(TEXTS)
        return [type(db).__module__, type(db).__qualname__, type(db.sync_session).__qualname__]

    def with_sync(db: Any) -> list[str]:
        execute: Any = db.exec if isinstance(db, sqlmodel.Session) else db.execute
        execute(TEXTS)
        return [type(db).__module__, type(db).__qualname__, type(db).__qualname__]

    function: Any = with_async if kind in ASYNC else with_sync
    function.__annotations__["db"] = annotation
    return function


def expected(kind: Any) -> list[str]:
    return [kind.__module__, kind.__qualname__, getattr(kind, "sync_session_class", kind).__qualname__]


async def test_each_is_given_its_own(file: Path) -> None:
    """Every class, in every spelling, in queries and mutations; and nothing warns."""
    functions: dict[str, dict[str, Any]] = {"query": {}, "mutation": {}}
    wanted = {}
    for number, kind in enumerate([*ASYNC, *SYNC]):
        for spelling, annotation in enumerate(spellings(kind)):
            name = f"f{number}_{spelling}"
            wanted[name] = expected(kind)
            functions["query"][name] = define_reactive_function(handler(kind, annotation))
            functions["mutation"][name] = define_reactive_function.mutation(handler(kind, annotation))
    async with serving(file, functions) as server:
        for group in functions:
            answers = {name: (await server.call(f"{group}.{name}")).json() for name in wanted}
            assert answers == wanted
        assert server.rpc.admin.stats()["stored"] == len(wanted)


async def test_a_default_is_no_annotation(file: Path) -> None:
    """`db: AsyncSession = Depends(get_db)`, as it was written before `Annotated`."""

    @define_reactive_function
    async def texts(db: AsyncSession = Depends(session)) -> list[str]:  # noqa: B008  # FastAPI's own spelling
        return list((await db.execute(TEXTS)).scalars())

    async with serving(file, {"notes": {"texts": texts}}) as server:
        assert (await server.call("notes.texts")).json() == []


async def test_methods_of_its_own_are_there(file: Path) -> None:
    """An application's subclass brings what its handlers call; what these read is seen like anything else."""

    @define_reactive_function
    async def texts(db: OwnAsync) -> list[str]:
        return await db.texts()

    @define_reactive_function.mutation
    def add(db: Annotated[OwnSync, Depends(session)]) -> list[str]:
        db.add(Note(room="a", text=f"note {len(db.texts())}"))
        return db.texts()

    async with serving(file, {"notes": {"texts": texts, "add": add}}) as server:
        assert (await server.call("notes.texts")).json() == []
        assert (await server.call("notes.add")).json() == ["note 0"]
        assert (await server.call("notes.texts")).json() == ["note 0"]


class Words(BaseModel):
    words: list[str]


async def test_input_and_ctx_may_be_annotated_too(file: Path) -> None:
    """As they stand in path operations: metadata beside the type is passed over, and ctx is the context's."""

    @define_reactive_function
    async def count(
        db: Annotated[AsyncSession, Depends(session)],
        ctx: Annotated[Login, "who calls"],
        input: Annotated[Words, "any metadata"],
    ) -> list[str]:
        await db.execute(TEXTS)
        return [*input.words, str(ctx.identity)]

    async with serving(file, {"notes": {"count": count}}, context=lambda: Login(identity="ann")) as server:
        assert (await server.call("notes.count", {"words": ["a"]})).json() == ["a", "ann"]


class Routed(Session):
    def get_bind(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("never called")


class RoutedAsync(AsyncSession):
    sync_session_class = Routed


class Narrow(AsyncSession):
    def __init__(self, url: str) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        (AsyncConnection, "AsyncConnection"),
        (async_scoped_session, "looks like a session"),
        (scoped_session, "looks like a session"),
        (AsyncSession | None, "is always given"),
        (Annotated[Session, Depends(session)], "async def with a sync session"),
        (RoutedAsync, "Routed has a get_bind of its own"),
        (Narrow, "Narrow cannot be made as sessions are"),
    ],
)
def test_what_is_no_session_of_ours_is_refused_by_name(annotation: Any, fault: str) -> None:
    """At definition, with what was written and the way out."""

    async def query(db: Any) -> int:
        return 1

    query.__annotations__["db"] = annotation
    with pytest.raises(DefinitionError, match=r"query \(test_sessions.py:") as raised:
        define_reactive_function(query)
    assert fault in str(raised.value)
