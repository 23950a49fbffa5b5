"""How procedures are declared and called in tests: each line marked `# error` is wrong, all others are right."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel

from reactive_rpc import Change, Context, define_reactive_function


class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class NoteRef(BaseModel):
    id: int


def checks(change: Change, input: NoteRef) -> bool:
    return input.id in change.keys


@define_reactive_function
async def bare(input: NoteRef, ctx: Context) -> list[Note]:
    return []


@define_reactive_function(dependencies=[Note, "other"], invalidate_when={Note: checks}, scope="tenant")
def with_options(input: NoteRef, db: Session) -> Note:
    return Note(id=input.id)


@define_reactive_function(kind="mutation")
async def change(input: NoteRef) -> None: ...


@define_reactive_function(scope=lambda ctx: ctx.identity)
async def scoped(ctx: Context) -> int:
    return 1


async def right(ctx: Context, db: Session) -> None:
    """A decorated function keeps its own signature: a unit test of it is typed."""
    assert_type(await bare(NoteRef(id=1), ctx), list[Note])
    assert_type(with_options(input=NoteRef(id=1), db=db), Note)
    await change(NoteRef(id=1))


async def wrong(ctx: Context, db: Session) -> None:
    await bare(NoteRef(id=1))  # error: ctx is missing
    await bare({"id": 1}, ctx)  # error: no NoteRef
    await bare(NoteRef(id=1), context=ctx)  # error: wrong name
    await with_options(NoteRef(id=1), db)  # error: it is no coroutine
    _ = bare.watch  # error: a procedure of the server is not watched


def wrongly_declared() -> None:
    define_reactive_function(kind="subscribe")  # error: no such kind
    define_reactive_function(scope="everybody")  # error: no such scope
    define_reactive_function(dependencies=Note)  # error: not a list
    define_reactive_function(dependencies=[1])  # error: no table
    define_reactive_function(invalidate_when={Note: True})  # error: no function
    define_reactive_function(invalidate_when={Note: lambda change: True})  # error: it takes the input too
    define_reactive_function(invalidate_when={Note: lambda change, input: change.row})  # error: a change has no row
    define_reactive_function(depends=[Note])  # error: no such option
    define_reactive_function("bare")  # error: no function
