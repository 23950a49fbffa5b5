"""A context that reads the database is a query: kept by its credentials, and changed at once where its rows change."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import Field, Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Cache, DefinitionError, Login, ReactiveRPC, UnauthorizedError, define_reactive_function
from reactive_rpc.testing import FakeClock, running

from .rooms import METADATA, Base, Note, app_of, error_of, rpc_on, serving
from .streams import heard

pytestmark = pytest.mark.anyio

RAN: list[str] = []


class Account(Base, table=True):
    token: str = Field(primary_key=True)
    name: str


@pytest.fixture(autouse=True)
def ran() -> list[str]:
    """Count anew."""
    RAN.clear()
    return RAN


bearer = HTTPBearer()


async def login(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)], db: AsyncSession) -> Login:
    RAN.append(credentials.credentials)
    account = await db.get(Account, credentials.credentials)
    if account is None:
        raise UnauthorizedError("log in again")
    return Login(identity=account.name)


def login_sync(authorization: Annotated[str, Header()], session: Annotated[Session, Depends(lambda: None)]) -> Login:
    RAN.append(authorization)
    account = session.get(Account, authorization.removeprefix("Bearer "))
    if account is None:
        raise UnauthorizedError("log in again")
    return Login(identity=account.name)


@define_reactive_function
async def whoami(db: AsyncSession, ctx: Login) -> str:
    await db.exec(select(Note))
    return str(ctx.identity)


@define_reactive_function(cache=Cache(push="result"))
async def texts(db: AsyncSession) -> list[str]:
    return list((await db.exec(select(Note.text).order_by(Note.text))).all())


FUNCTIONS = {"n": {"whoami": whoami, "texts": texts}}


@pytest.mark.parametrize("context", [login, login_sync])
async def test_it_runs_once_for_its_credentials_until_its_rows_change(file: Path, context: object) -> None:
    """Another process renames the account, and deletes it: the next call knows; another token is another caller."""
    async with serving(file, FUNCTIONS, context=context) as server:
        server.write("INSERT INTO account VALUES ('a', 'ada'), ('b', 'bob')")
        for _ in range(3):
            assert (await server.call("n.whoami", authorization="Bearer a")).json() == "ada"
        assert len(RAN) == 1
        assert (await server.call("n.whoami", authorization="Bearer b")).json() == "bob"
        server.write("UPDATE account SET name = 'eve' WHERE token = 'a'")
        assert (await server.call("n.whoami", authorization="Bearer a")).json() == "eve"
        server.write("DELETE FROM account WHERE token = 'a'")
        assert error_of(await server.call("n.whoami", authorization="Bearer a"))["code"] == "UNAUTHORIZED"
        assert (await server.call("n.whoami", authorization="Bearer b")).json() == "bob"


async def test_made_up_credentials_fill_no_cache(file: Path) -> None:
    """A refusal is not kept."""
    async with serving(file, FUNCTIONS, context=login) as server:
        for number in range(5):
            answer = await server.call("n.whoami", authorization=f"Bearer {number}")
            assert error_of(answer)["code"] == "UNAUTHORIZED"
        assert server.rpc.admin.stats()["cached"] == 0


def test_an_open_stream_rests_on_it(file: Path) -> None:
    """The account is deleted in the commit that writes a note: its stream ends, and is not told of the note."""
    rpc = rpc_on(file, FUNCTIONS, context=login, settings={"recheck_seconds": 3600})
    with running(app_of(rpc)) as url, closing(sqlite3.connect(file)) as connection:
        with connection:
            connection.execute("INSERT INTO account VALUES ('a', 'ada'), ('b', 'bob')")
        queries = {"queries": [{"path": "n.texts"}]}
        with (
            heard(url, json=queries, headers={"authorization": "Bearer a"}) as adas,
            heard(url, json=queries, headers={"authorization": "Bearer b"}) as bobs,
        ):
            assert (adas.next()[0], bobs.next()[0]) == ("connected", "connected")
            with connection:
                connection.execute("DELETE FROM account WHERE token = 'a'")
                connection.execute("INSERT INTO note(tenant, room, text) VALUES ('t', 'a', 'secret')")
            assert adas.rest() == [("revoked", {"reason": "log in again"})]
            assert bobs.next()[0] in ("result", "invalidation")  # as fast as it was computed


async def test_it_is_asked_again_when_it_has_expired(file: Path) -> None:
    """Kept until then, and then refused in the application's own words."""
    clock = FakeClock()
    end = datetime.fromtimestamp(clock.time() + 10, UTC)

    async def of_token(x_token: Annotated[str, Header()], db: AsyncSession) -> Login:
        RAN.append(x_token)
        await db.get(Account, x_token)
        if clock.time() >= end.timestamp():
            raise UnauthorizedError("your session is over")
        return Login(identity="ada", expires_at=end)

    async with serving(file, FUNCTIONS, context=of_token, clock=clock) as server:
        for _ in range(2):
            assert (await server.call("n.whoami", **{"x-token": "a"})).json() == "ada"
        assert len(RAN) == 1
        clock.advance(11)
        answer = await server.call("n.whoami", **{"x-token": "a"})
        assert error_of(answer)["message"] == "your session is over"


async def test_it_may_be_overridden_as_any_dependency(file: Path) -> None:
    """By the function that the application names."""

    async def anybody() -> Login:
        return Login(identity="anybody")

    def make_app(rpc: ReactiveRPC) -> FastAPI:
        app = app_of(rpc)
        app.dependency_overrides[login] = anybody
        return app

    async with serving(file, FUNCTIONS, make_app=make_app, context=login) as server:
        assert (await server.call("n.whoami")).json() == "anybody"


async def test_it_is_documented_with_its_security_schemes(file: Path) -> None:
    """The session is no parameter of anybody's."""
    async with serving(file, FUNCTIONS, context=login) as server:
        operation = server.app.openapi()["paths"]["/rpc/n.whoami"]["get"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert operation.get("parameters", []) == []


async def test_some_procedures_may_have_another(file: Path) -> None:
    """A definer's own context takes a session likewise."""

    @define_reactive_function.context(login)
    async def mine(ctx: Login) -> str:
        return str(ctx.identity)

    async with serving(file, {"n": {"mine": mine}}, context=lambda: Login(identity="nobody")) as server:
        server.write("INSERT INTO account VALUES ('a', 'ada')")
        assert (await server.call("n.mine", authorization="Bearer a")).json() == "ada"


async def test_a_context_that_sees_the_whole_request_cannot_be_kept(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its key could not hold it; the log says the way out."""

    async def of_request(request: Request, db: AsyncSession) -> Login:
        return Login(identity=request.headers["x-user"])

    async with serving(file, FUNCTIONS, context=of_request) as server:
        answer = await server.call("n.whoami", **{"x-user": "ada"})
        assert error_of(answer)["code"] == "INTERNAL_SERVER_ERROR"
    assert "declare the headers, cookies or security schemes that it reads" in caplog.text


def test_one_that_yields_is_refused(tmp_path: Path) -> None:
    """What it makes outlives the request."""

    async def yields(db: AsyncSession):  # type: ignore[no-untyped-def]  # the fault is another
        yield Login(identity="a")

    yields.__annotations__["return"] = Login
    with pytest.raises(DefinitionError, match="so let it return"):
        ReactiveRPC(f"sqlite:///{tmp_path}/x.db", functions=FUNCTIONS, context=yields, metadata=METADATA)


async def test_calls_in_this_process_bring_their_context(file: Path) -> None:
    """Nobody is asked."""
    async with serving(file, FUNCTIONS, context=login) as server:
        assert await server.rpc.caller(Login(identity="ada"))(whoami) == "ada"
        assert RAN == []
        assert isinstance(server.client, httpx.AsyncClient)
