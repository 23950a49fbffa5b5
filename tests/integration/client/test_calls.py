"""Calls of the generated client, asynchronous and not: results, and errors with all that they carry."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from generated_client import Agent, AgentStats, SyncTeamHub, TeamHub
from reactive_rpc import ReactiveRPC, define_reactive_function
from reactive_rpc.client import AsyncClient, Procedure
from reactive_rpc.errors import BadRequestError, ConnectionFailedError, NotFoundError, UnauthorizedError
from reactive_rpc.testing import running

from .teamhub import EMAIL, PASSWORD, Served, hub_of, play


def test_calls_return_models(shared: Served) -> None:
    """Queries and mutations return instances of the generated models, which agree with each other."""

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            assert (await hub.organizations.get_mine()).id == "org-01"
            agent = await hub.agents.create(name="Test", description=None)
            assert isinstance(agent, Agent)
            assert (agent.role, agent.description) == ("assistant", None)
            renamed = await hub.agents.update(agent_id=agent.id, description="A text, not an object")
            assert (renamed.name, renamed.description) == ("Test", "A text, not an object")
            stats = await hub.agents.get_with_stats(agent_id=agent.id)
            assert stats == AgentStats(agent=renamed, message_count=0, memory_count=0)
            assert renamed in await hub.agents.get_all()
            assert [tool.is_enabled for tool in await hub.tools.available()]

    play(scenario)


def test_a_row_that_no_input_would_allow_is_shown(shared: Served) -> None:
    """What another program wrote, longer than the model allows, is the truth and arrives."""

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            agent = await hub.agents.create(name="Long")
            shared.write("UPDATE agent SET name = ? WHERE id = ?", "x" * 150, agent.id)
            assert (await hub.agents.get_one(agent_id=agent.id)).name == "x" * 150
            with pytest.raises(BadRequestError, match="name"):
                await hub.agents.update(agent_id=agent.id, name="y" * 150)

    play(scenario)


def test_errors_arrive_with_all_that_they_carry(shared: Served) -> None:
    """The server's error is raised as its class, with code, details, path and the id of the request."""

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            with pytest.raises(NotFoundError, match="no agent 'nobody'") as missing:
                await hub.agents.get_one(agent_id="nobody")
            assert (missing.value.code, missing.value.path) == ("NOT_FOUND", "agents.get_one")
            assert missing.value.request_id
            with pytest.raises(BadRequestError, match="name") as refused:
                await hub.agents.update(agent_id="agent-0001", name=None)
            assert refused.value.details[0]["loc"] == ["name"]
            assert "null is no value" in refused.value.details[0]["message"]
            assert refused.value.path == "agents.update"

    play(scenario)


class Base(SQLModel, registry=registry()):
    """Keeps this table out of the metadata that all of a test run's modules share."""


class Counted(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Long(BaseModel):
    """An input without a bound."""

    text: str


@define_reactive_function
async def length(db: AsyncSession, input: Long) -> int:
    """Count characters, and depend on a table."""
    await db.exec(select(Counted.id))
    return len(input.text)


LENGTH: Procedure[int] = Procedure(path="texts.length", url="/rpc/texts.length", method="GET", input=Long, output=int)


def test_a_query_that_no_url_can_hold_is_answered(tmp_path: Path) -> None:
    """It goes by POST, by itself, and is answered and watched as any other."""
    url = f"sqlite+aiosqlite:///{tmp_path}/texts.db"
    rpc = ReactiveRPC(url, functions={"texts": {"length": length}}, metadata=Counted.metadata)
    app = FastAPI(lifespan=rpc.lifespan)
    app.include_router(rpc.router)

    async def scenario(url: str) -> None:
        async with AsyncClient(url) as client, client.watch(LENGTH, {"text": "\u00e4" * 20_000}) as live:
            async for state in live:
                if not state.is_stale:
                    assert state.data == 20_000
                    return

    with running(app) as served:
        play(lambda: scenario(served))


def test_nobody_is_refused_until_login(shared: Served) -> None:
    """Without a token, and with a wrong one, calls are refused; a failed login says so; a login helps."""

    async def scenario() -> None:
        async with TeamHub(shared.url, token="nonsense") as hub:
            with pytest.raises(UnauthorizedError, match="invalid"):
                await hub.organizations.get_mine()
            hub.set_token(None)
            with pytest.raises(UnauthorizedError):
                await hub.organizations.get_mine()
            with pytest.raises(UnauthorizedError):
                await hub.login(username=EMAIL, password="wrong")
            await hub.login(username=EMAIL, password=PASSWORD)
            assert (await hub.organizations.get_mine()).id == "org-01"

    play(scenario)


def test_an_unreachable_server_is_an_error_of_its_own(shared: Served) -> None:
    """Where nobody answers, a ConnectionFailedError names the address."""
    with SyncTeamHub("http://127.0.0.1:9") as hub, pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:9"):
        hub.organizations.get_mine()


def test_the_synchronous_client_in_a_plain_thread(shared: Served) -> None:
    """Calls and a watch work in a thread that knows of no event loop; the thread of the client ends with it."""
    names: list[str] = []

    def work() -> None:
        with SyncTeamHub(shared.url) as hub:
            hub.login(username=EMAIL, password=PASSWORD)
            agent = hub.agents.create(name="Before")
            with hub.agents.get_one.watch(agent_id=agent.id) as live:
                for state in live:
                    if state.is_stale or state.data is None or state.data.name in names:
                        continue
                    names.append(state.data.name)
                    if state.data.name == "After":
                        return
                    shared.write("UPDATE agent SET name = 'After' WHERE id = ?", agent.id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert names == ["Before", "After"]
    assert not [one for one in threading.enumerate() if one.name.startswith("reactive_rpc.client")]


def test_the_document_of_the_server_is_the_one_that_the_client_is_made_of(shared: Served) -> None:
    """Every procedure that the server documents is reachable in the client under the same name."""
    paths = httpx.get(f"{shared.url}/openapi.json", timeout=20).json()["paths"]
    extensions = [one.get("x-reactive-rpc") for item in paths.values() for one in item.values()]
    names = {extension["path"] for extension in extensions if extension}
    hub = TeamHub(shared.url)
    for name in names:
        namespace, _, procedure = name.partition(".")
        assert callable(getattr(getattr(hub, namespace), procedure))
    assert len(names) == 19
