"""Declared errors on their way to callers: by HTTP, out of the cache, on streams, and in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import Header
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import (
    Cache,
    ConflictError,
    DeclaredError,
    Login,
    NotFoundError,
    RPCError,
    define_reactive_function,
)
from reactive_rpc.errors import InternalServerError
from reactive_rpc.testing import running

from .rooms import Note, Server, app_of, error_of, rpc_on, serving
from .streams import heard

pytestmark = pytest.mark.anyio

RUNS: list[int] = []


class NoteTaken(DeclaredError, code="CONFLICT"):
    """note {note} is taken"""

    note: int
    by: str | None = None


class NotInvited(DeclaredError, code="FORBIDDEN"):
    """{who} is not invited"""

    who: str


class Undeclared(DeclaredError, code="CONFLICT"):
    """nobody says that {what}"""

    what: str


async def who(caller: str = Header()) -> Login:
    if caller == "nobody":
        raise NotInvited(who=caller)
    return Login(identity=caller)


def invited(ctx: Login) -> None:
    if ctx.identity == "eve":
        raise NotInvited(who="eve")


async def invited_by_row(ctx: Login, db: AsyncSession) -> None:
    if await db.get(Note, 2) is not None:
        raise NotInvited(who=str(ctx.identity))


procedure = define_reactive_function.use(invited).defaults(raises=[NotInvited])


@procedure(raises=[NoteTaken, NotFoundError], cache=Cache(push="result"))
async def read(db: AsyncSession, note: int) -> str:
    """Read a note that nobody has taken."""
    RUNS.append(note)
    found = await db.get(Note, note)
    if found is None:
        raise NotFoundError(f"no note {note}")
    if found.room != "free":
        raise NoteTaken(note=note, by=found.room)
    return found.text


@procedure.mutation(raises=[NoteTaken])
async def take(db: AsyncSession, ctx: Login, note: int) -> None:
    """Take a note."""
    found = await db.get(Note, note)
    if found is None or found.room != "free":
        raise NoteTaken(note=note, by=None if found is None else found.room)
    found.room = str(ctx.identity)


@procedure.mutation
def take_sync(note: int) -> None:
    """Never."""
    raise Undeclared(what="it is free")


@procedure
async def undeclared(db: AsyncSession) -> str:
    """Refuse by an error that it does not declare."""
    await db.get(Note, 1)
    raise Undeclared(what="it is free")


@define_reactive_function.use(invited)
async def undeclared_step(db: AsyncSession) -> str:
    """Has a step whose error it does not declare."""
    return "" if await db.get(Note, 1) is None else "x"


@define_reactive_function
async def uninvited(ctx: Login) -> str:
    """Has a context whose error it does not declare."""
    return str(ctx.identity)


@define_reactive_function.use(invited_by_row).defaults(raises=[NotInvited])
async def by_row(db: AsyncSession) -> str:
    """Has a step with a session that refuses."""
    return "" if await db.get(Note, 1) is None else "x"


FUNCTIONS: dict[str, Any] = {
    "notes": {
        "read": read, "take": take, "take_sync": take_sync, "undeclared": undeclared,
        "undeclared_step": undeclared_step, "by_row": by_row, "uninvited": uninvited,
    }
}  # fmt: skip


@asynccontextmanager
async def notes(file: Path, **options: Any) -> AsyncIterator[Server]:
    """One free note."""
    async with serving(file, FUNCTIONS, context=who, **options) as server:
        RUNS.clear()
        server.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'free', 'one')")
        yield server


async def error(server: Server, path: str, input: object = None, caller: str = "ada") -> dict[str, Any]:
    sent = error_of(await server.call(path, input, caller=caller))
    return {name: sent[name] for name in ("code", "type", "message", "details")}


TAKEN = {
    "code": "CONFLICT",
    "type": "NoteTaken",
    "message": "note 1 is taken",
    "details": {"note": 1, "by": "bob"},
}


async def test_a_mutation_tells_type_and_fields(file: Path) -> None:
    """With the status of its code; plain errors have no type."""
    async with notes(file) as server:
        assert (await server.call("notes.take", {"note": 1}, caller="bob")).status_code == 200
        assert (await server.call("notes.take", {"note": 1}, caller="ada")).status_code == 409
        assert await error(server, "notes.take", {"note": 1}) == TAKEN
        assert (await error(server, "notes.read", {"note": 9}))["type"] is None


async def test_an_error_out_of_the_cache_is_the_same(file: Path) -> None:
    """It is an outcome that lasts: with an ETag, until its rows change; and another one by its fields alone."""
    async with notes(file) as server:
        server.write("UPDATE note SET room = 'bob'")
        first = await server.call("notes.read", {"note": 1}, caller="ada")
        again = await server.call("notes.read", {"note": 1}, caller="bob")
        assert RUNS == [1]
        assert await error(server, "notes.read", {"note": 1}) == TAKEN
        assert first.headers["etag"] == again.headers["etag"]
        server.write("UPDATE note SET room = 'eva'")
        other = await server.call("notes.read", {"note": 1}, caller="ada")
        assert error_of(other)["details"] == {"note": 1, "by": "eva"}
        assert other.headers["etag"] != first.headers["etag"]  # the message is the same
        server.write("UPDATE note SET room = 'free'")
        assert (await server.call("notes.read", {"note": 1}, caller="ada")).json() == "one"


async def test_callers_in_this_process_get_the_very_class(file: Path) -> None:
    """From the handler, from the cache, from steps, and from a mutation; each its own copy."""
    async with notes(file) as server:
        server.write("UPDATE note SET room = 'bob'")
        call = server.rpc.caller(Login(identity="ada"))
        for _ in range(2):
            with pytest.raises(NoteTaken, match="note 1 is taken") as found:
                await call(read, note=1)
            assert (found.value.note, found.value.by, found.value.path) == (1, "bob", None)
            found.value.details.clear()
        assert RUNS == [1]
        with pytest.raises(NoteTaken):
            await call(take, note=1)
        with pytest.raises(NotInvited) as refused:
            await server.rpc.caller(Login(identity="eve"))(read, note=1)
        assert refused.value.who == "eve"


async def test_steps_errors_are_declared_by_their_definer(file: Path) -> None:
    """Also those of a step with a session, whose refusal is kept, and of the context's dependency."""
    async with notes(file) as server:
        assert await error(server, "notes.read", {"note": 1}, "eve") == {
            "code": "FORBIDDEN", "type": "NotInvited", "message": "eve is not invited", "details": {"who": "eve"},
        }  # fmt: skip
        assert (await error(server, "notes.read", {"note": 1}, "nobody"))["type"] == "NotInvited"
        server.write("INSERT INTO note(id, tenant, room, text) VALUES (2, 't', 'free', 'two')")
        for _ in range(2):
            assert (await error(server, "notes.by_row"))["type"] == "NotInvited"


@pytest.mark.parametrize(
    ("path", "input", "name"),
    [
        ("notes.undeclared", None, "Undeclared"),
        ("notes.take_sync", {"note": 1}, "Undeclared"),
        ("notes.undeclared_step", None, "NotInvited"),
        ("notes.uninvited", None, "NotInvited"),
    ],
)
async def test_what_is_not_declared(
    file: Path, path: str, input: object, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In development it fails and says so; in production it is sent without its type, and logged once."""
    caller = {"notes.undeclared_step": "eve", "notes.uninvited": "nobody"}.get(path, "ada")
    async with notes(file) as server:
        sent = await error(server, path, input, caller)
        assert sent["code"] == "INTERNAL_SERVER_ERROR"
        assert f"{path} raises {name}, which is not among the errors that it declares" in sent["message"]
    caplog.clear()
    async with notes(file.with_name("production.db"), settings={"environment": "production"}) as server:
        for _ in range(2):
            sent = await error(server, path, input, caller)
            assert sent["code"] in ("CONFLICT", "FORBIDDEN")
            assert sent["type"] is None
            assert sent["details"]
    assert len([record for record in caplog.records if "clients get it without its type" in record.message]) == 1


async def test_what_is_not_declared_in_this_process(file: Path) -> None:
    """A caller gets what clients get."""
    async with notes(file) as server:
        with pytest.raises(InternalServerError, match="raises Undeclared"):
            await server.rpc.caller(Login(identity="ada"))(undeclared)
    async with notes(file.with_name("production.db"), settings={"environment": "production"}) as server:
        with pytest.raises(ConflictError) as found:
            await server.rpc.caller(Login(identity="ada"))(undeclared)
        assert type(found.value) is ConflictError


def test_streams(file: Path) -> None:
    """A refused query carries type and fields; a result that becomes an error is announced, to be fetched."""
    rpc = rpc_on(file, FUNCTIONS, context=who)
    with running(app_of(rpc)) as url:
        server = Server(rpc, None, None, file)  # type: ignore[arg-type]  # its file alone
        server.write("INSERT INTO note(id, tenant, room, text) VALUES (1, 't', 'free', 'one')")
        wanted = {"queries": [{"path": "notes.read", "input": {"note": 1}}]}
        with heard(url, json=wanted, headers={"caller": "eve"}) as stream:
            _, connected, _ = stream.next()
        (refused,) = connected["errors"]
        assert refused["error"] == {
            "code": "FORBIDDEN", "type": "NotInvited", "message": "eve is not invited", "details": {"who": "eve"},
            "path": "notes.read", "request_id": None,
        }  # fmt: skip
        with heard(url, json=wanted, headers={"caller": "ada"}) as stream:
            stream.next()
            server.write("UPDATE note SET room = 'bob'")
            assert stream.next()[0] == "invalidation"
            server.write("UPDATE note SET room = 'free', text = 'two'")
            name, result, _ = stream.next()
            assert (name, result["data"]) == ("result", "two")


async def test_responses_of_the_document(file: Path) -> None:
    """One for each status; several errors of one are a union, whose types are constants."""
    async with notes(file) as server:
        document = server.app.openapi()
    responses = document["paths"]["/rpc/notes.read"]["get"]["responses"]
    assert set(responses) == {"200", "304", "403", "404", "409", "default"}
    schemas = document["components"]["schemas"]
    assert responses["409"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/NoteTakenEnvelope"
    }
    body = schemas["NoteTakenBody"]
    assert body["properties"]["type"]["const"] == "NoteTaken"
    assert body["properties"]["code"]["const"] == "CONFLICT"
    assert {"code", "type", "message", "details"} <= set(body["required"])
    details = schemas["NoteTakenDetails"]
    assert details["required"] == ["note", "by"]
    assert details["properties"]["by"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert schemas["NotFoundErrorBody"]["properties"]["type"]["type"] == "null"


async def test_errors_of_one_status_are_a_union(file: Path) -> None:
    """In the order in which they are declared, a definer's first."""

    @define_reactive_function.defaults(raises=[NoteTaken]).mutation(raises=[Undeclared, ConflictError, RPCError])
    async def clash() -> None: ...

    async with serving(file, {"notes": {"clash": clash}}) as server:
        responses = server.app.openapi()["paths"]["/rpc/notes.clash"]["post"]["responses"]
    schema = responses["409"]["content"]["application/json"]["schema"]
    names = [branch["$ref"].rpartition("/")[2] for branch in schema["anyOf"]]
    assert names == ["NoteTakenEnvelope", "UndeclaredEnvelope", "ConflictErrorEnvelope"]
    assert responses["409"]["description"] == "`NoteTaken` or `Undeclared` or `CONFLICT`."
    assert "500" in responses
