"""A type that compares in its own way, as `citext` does: no condition rests on it, so no spelling is missed.

The test servers have no extensions, so the type is made here as the extension makes it: text's own functions, another
equality.
"""

from __future__ import annotations

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, select
from sqlalchemy.dialects.postgresql import CITEXT
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ReactiveRPC, define_reactive_function
from tests.support.calls import by_path

pytestmark = pytest.mark.anyio

CITEXT_TYPE = """
CREATE TYPE citext;
CREATE FUNCTION citextin(cstring) RETURNS citext LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION citextout(citext) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, LIKE = text, CATEGORY = 'S', COLLATABLE = true);
CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (varchar AS citext) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION citext_eq(citext, citext) RETURNS boolean LANGUAGE sql IMMUTABLE
    AS 'SELECT lower($1::text) = lower($2::text)';
CREATE OPERATOR = (leftarg = citext, rightarg = citext, function = citext_eq);
CREATE TABLE person (id int PRIMARY KEY, mail citext);
INSERT INTO person VALUES (1, 'Ann@x');
"""
PERSON = Table("person", MetaData(), Column("id", Integer, primary_key=True), Column("mail", CITEXT))


class Address(BaseModel):
    """Whose."""

    mail: str


@define_reactive_function
async def ids_at(db: AsyncSession, input: Address) -> list[int]:
    """Return who has this address, however it is spelled."""
    found = await (await db.connection()).execute(select(PERSON.c.id).where(PERSON.c.mail == input.mail))
    return sorted(found.scalars())


async def test_no_spelling_is_missed(postgresql_url: str) -> None:
    """Rows whose address is spelled otherwise come and go, and each answer counts them."""
    with psycopg.connect(postgresql_url.replace("+asyncpg", ""), autocommit=True) as writer:
        writer.execute(CITEXT_TYPE)
        rpc = ReactiveRPC(postgresql_url, functions={"people": {"ids_at": ids_at}})
        await rpc.admin.open()
        try:
            call = by_path(rpc)
            assert await call("people.ids_at", mail="ANN@X") == [1]
            assert await call("people.ids_at", mail="ANN@X") == [1]
            assert rpc.admin.stats()["hits"] == 1
            writer.execute("INSERT INTO person VALUES (2, 'aNN@x')")
            assert await call("people.ids_at", mail="ANN@X") == [1, 2]
            writer.execute("UPDATE person SET mail = 'bob@x' WHERE id = 1")
            assert await call("people.ids_at", mail="ANN@X") == [2]
            writer.execute("DELETE FROM person")
            assert await call("people.ids_at", mail="ANN@X") == []
        finally:
            await rpc.admin.aclose()
