"""Relations: a change of one row counts as a change of others, however the query reads."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import make_url
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import DefinitionError, ReactiveRPC, define_reactive_function
from reactive_rpc.dependencies.relations import Relations
from tests.support.calls import by_path

pytestmark = pytest.mark.anyio


class Base(SQLModel, registry=registry()):
    """Tables of this module alone."""


class Team(Base, table=True):
    id: str = Field(primary_key=True)
    name: str = ""


class Member(Base, table=True):
    id: str = Field(primary_key=True)
    team_id: str = Field(foreign_key="team.id")
    name: str = ""


class Post(Base, table=True):
    id: str = Field(primary_key=True)
    by: str = Field(foreign_key="member.id")


class Ref(BaseModel):
    id: str


@define_reactive_function
async def posts(db: AsyncSession, input: Ref) -> list[str]:
    """The posts of a member, by id."""
    return list((await db.exec(select(Post.id).where(Post.by == input.id))).all())


@define_reactive_function
async def team(db: AsyncSession, input: Ref) -> str:
    """The name of a team."""
    return (await db.exec(select(Team.name).where(Team.id == input.id))).one()


@asynccontextmanager
async def opened(file: Path, relations: Relations) -> AsyncIterator[ReactiveRPC]:
    functions = {"posts": {"by": posts}, "teams": {"name": team}}
    rpc = ReactiveRPC(f"sqlite:///{file}", functions=functions, metadata=Base.metadata, relations=relations)
    await rpc.admin.open()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(
            "INSERT INTO team VALUES ('t1', 'one'), ('t2', 'two');"
            "INSERT INTO member VALUES ('m1', 't1', 'ann'), ('m2', 't2', 'bob');"
            "INSERT INTO post VALUES ('p1', 'm1'), ('p2', 'm2');"
        )
    try:
        yield rpc
    finally:
        await rpc.admin.aclose()


async def touched(rpc: ReactiveRPC, file: Path, sql: str) -> set[str]:
    """Return which of four cached results the write made the server compute again."""
    calls = {"p1": ("posts.by", "m1"), "p2": ("posts.by", "m2"), "t1": ("teams.name", "t1"), "t2": ("teams.name", "t2")}
    for path, id in calls.values():
        await by_path(rpc)(path, id=id)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql)
    again = set()
    for name, (path, id) in calls.items():
        misses = rpc.admin.stats()["misses"]
        await by_path(rpc)(path, id=id)
        if rpc.admin.stats()["misses"] > misses:
            again.add(name)
    return again


async def test_without_relations_only_what_was_read_counts(file: Path) -> None:
    """A member's new name touches neither posts nor teams."""
    async with opened(file, {}) as rpc:
        assert await touched(rpc, file, "UPDATE member SET name = 'eve' WHERE id = 'm1'") == set()


async def test_a_change_counts_as_a_change_of_the_rows_that_refer_to_it(file: Path) -> None:
    """`message.from_agent_id` of the design: the posts of that member, and of no other."""
    async with opened(file, {"member": ["post.by"]}) as rpc:
        assert await touched(rpc, file, "UPDATE member SET name = 'eve' WHERE id = 'm1'") == {"p1"}


async def test_a_change_counts_as_a_change_of_the_row_that_it_refers_to(file: Path) -> None:
    """`organization` of the design: the member's own team, before and after."""
    async with opened(file, {"member": ["team"]}) as rpc:
        assert await touched(rpc, file, "UPDATE member SET name = 'eve' WHERE id = 'm2'") == {"t2"}
        assert await touched(rpc, file, "UPDATE member SET team_id = 't1' WHERE id = 'm2'") == {"t1", "t2"}


async def test_a_relation_that_nothing_ties_counts_for_the_whole_table(file: Path) -> None:
    """A team does not refer to posts: any change of one counts as a change of all of them."""
    async with opened(file, {"team": ["post"]}) as rpc:
        assert await touched(rpc, file, "UPDATE team SET name = 'x' WHERE id = 't1'") == {"p1", "p2", "t1"}


async def test_auto_follows_every_foreign_key_both_ways_one_step(file: Path) -> None:
    """A member counts as its team and as its posts; a post as its member, and no further; a team as its members."""
    async with opened(file, "auto") as rpc:
        assert await touched(rpc, file, "UPDATE member SET name = 'eve' WHERE id = 'm1'") == {"p1", "t1"}
        assert await touched(rpc, file, "UPDATE team SET name = 'x' WHERE id = 't2'") == {"t2"}
        assert await touched(rpc, file, "INSERT INTO post VALUES ('p3', 'm2')") == {"p2"}


async def test_auto_reads_the_foreign_keys_of_postgresql(postgresql_url: str) -> None:
    """The same habit on PostgreSQL, where another program writes."""
    functions = {"posts": {"by": posts}, "teams": {"name": team}}
    rpc = ReactiveRPC(postgresql_url, functions=functions, metadata=Base.metadata, relations="auto")
    plain = make_url(postgresql_url).set(drivername="postgresql").render_as_string(hide_password=False)
    await rpc.admin.open()
    try:
        with psycopg.connect(plain, autocommit=True) as writer:
            writer.execute("INSERT INTO team VALUES ('t1', 'one'), ('t2', 'two')")
            writer.execute("INSERT INTO member VALUES ('m1', 't1', 'ann'), ('m2', 't2', 'bob')")
            for id in ("t1", "t2"):
                await by_path(rpc)("teams.name", id=id)
            writer.execute("UPDATE member SET name = 'eve' WHERE id = 'm1'")
            misses = rpc.admin.stats()["misses"]
            await by_path(rpc)("teams.name", id="t2")
            assert rpc.admin.stats()["misses"] == misses
            await by_path(rpc)("teams.name", id="t1")
            assert rpc.admin.stats()["misses"] == misses + 1
    finally:
        await rpc.admin.aclose()


@pytest.mark.parametrize(
    ("relations", "way_out"),
    [
        ("automatic", "or 'auto'"),
        (["member"], "or 'auto'"),
        (5, "or 'auto'"),
        ({"team": "member"}, r"relations\['team'\] is 'member', no list: write \['member'\]"),
    ],
)
async def test_what_are_no_relations_is_refused(file: Path, relations: Any, way_out: str) -> None:
    """The message says both forms, or how a single one is written."""
    with pytest.raises(DefinitionError, match=way_out):
        async with opened(file, relations):
            pass
