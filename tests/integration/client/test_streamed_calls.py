"""Subscriptions and streamed queries of the generated client, over servers that are stopped and killed."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from generated_client import Message, SyncTeamHub, TeamHub
from generated_client.errors import AgentNotFound
from reactive_rpc.errors import BadRequestError, ConnectionFailedError, UnauthorizedError
from tests.support.proxies import Caddy, balancing_among
from tests.support.waiting import until, wait_until

from .conftest import Serve
from .teamhub import EMAIL, PASSWORD, Served, hub_of, play

AGENT, OTHER = "agent-0003", "agent-0004"
ROUNDS = 6
PER_ROUND = 10


async def new_agent(hub: TeamHub) -> str:
    """Add an agent who has said nothing yet, and return its id."""
    return (await hub.agents.create(name="Speaker", role="speaker")).id


async def say(hub: TeamHub, agent_id: str, *bodies: str) -> None:
    """Send messages, one after another."""
    for body in bodies:
        await hub.messages.send(from_agent_id=agent_id, body=body)


def test_messages_are_followed_as_they_are_sent(shared: Served) -> None:
    """What was there comes first; another iterator goes on after the last id, though that message is deleted; the sync
    client shows the same."""

    agent_ids: list[str] = []

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            agent_id = await new_agent(hub)
            await say(hub, agent_id, "one", "two")
            async with hub.messages.events(agent_id=agent_id) as events:
                assert [(await anext(events)).body for _ in range(2)] == ["one", "two"]
                await say(hub, agent_id, "three")
                assert (await anext(events)).body == "three"
                last = events.last_event_id
            await say(hub, agent_id, "four")
            shared.write("DELETE FROM message WHERE from_agent_id = ? AND body = 'three'", agent_id)
            async for message in hub.messages.events(agent_id=agent_id, last_event_id=last):
                assert message.body == "four"
                break
            agent_ids.append(agent_id)

    play(scenario)
    with SyncTeamHub(shared.url) as hub:
        hub.login(username=EMAIL, password=PASSWORD)
        with hub.messages.events(agent_id=agent_ids[0]) as events:
            assert [next(events).body for _ in range(3)] == ["one", "two", "four"]


def test_a_clock_that_is_behind_hides_no_message(serve: Serve) -> None:
    """One server's clock is ahead of the other's: what is sent later comes later all the same."""
    served = serve()

    async def scenario() -> None:
        async with hub_of(served) as hub:
            agent_id = await new_agent(hub)
            row = ("early", agent_id, "from the future", "2099-01-01 00:00:00.000000")
            served.write("INSERT INTO message (id, from_agent_id, body, created_at) VALUES (?, ?, ?, ?)", *row)
            async with hub.messages.events(agent_id=agent_id) as events:
                assert (await anext(events)).id == "early"
                await say(hub, agent_id, "now")
                assert (await anext(events)).body == "now"

    play(scenario)


def test_an_export_gives_every_row_once(shared: Served) -> None:
    """Of the caller's own organization, in order."""

    async def scenario() -> None:
        async with hub_of(shared) as hub:
            exported = [message async for message in hub.messages.export()]
            ids = "SELECT id FROM agent WHERE organization_id = 'org-01'"
            order = "ORDER BY created_at, id"
            rows = shared.rows(f"SELECT id FROM message WHERE from_agent_id IN ({ids}) {order}")
            assert [message.id for message in exported] == [row[0] for row in rows]
            assert all(isinstance(message, Message) for message in exported)

    play(scenario)


def test_refusals_are_raised_as_calls_raise_them(shared: Served) -> None:
    """Nobody is let through; another's agent is none; an id that was never given cannot be gone on from."""

    async def scenario() -> None:
        async with TeamHub(shared.url) as stranger:
            for iterator in (stranger.messages.events(agent_id=AGENT), stranger.messages.export()):
                with pytest.raises(UnauthorizedError):
                    await anext(iterator)
        async with hub_of(shared) as hub:
            with pytest.raises(AgentNotFound) as found:
                await anext(hub.messages.events(agent_id="agent-0021"))
            assert found.value.agent_id == "agent-0021"
            for place in ("nothing", "0001-01-01T00:00:00+14:00/message-0001"):
                with pytest.raises(BadRequestError, match=f"{re.escape(place)}' is no place"):
                    await anext(hub.messages.events(agent_id=AGENT, last_event_id=place))
            with pytest.raises(BadRequestError, match="names no zone"):
                await anext(hub.messages.events(agent_id=AGENT, last_event_id="2026-01-02/message-0001"))

    play(scenario)


@pytest.fixture
def pair(seeded: Path, tmp_path: Path) -> Iterator[tuple[Sequence[Served], str]]:
    """Two servers on one database, and the URL of a balancer before them."""
    database = Path(shutil.copy(seeded, tmp_path / "teamhub.db"))
    with Served("app.main:app", database) as one, Served("app.main:app", database) as other:
        directives = balancing_among([one.port, other.port], "lb_try_duration 10s", "flush_interval -1")
        with Caddy(tmp_path, directives, asks="/rpc/health/live") as balancer:
            yield (one, other), balancer.url


async def end_in_turn(servers: Sequence[Served], number: int) -> None:
    """End one of the servers, mildly or not, and start it again."""
    server = servers[number % len(servers)]
    await asyncio.to_thread(server.end, signal.SIGTERM if number % 3 else signal.SIGKILL)
    await server.start_again()


def test_every_message_comes_once_whatever_happens_to_the_servers(pair: tuple[Sequence[Served], str]) -> None:
    """Each is ended in turn, by SIGTERM or SIGKILL, while messages are sent; the reader is told all, in order."""
    servers, url = pair
    heard: list[str] = []

    async def listen(hub: TeamHub, agent_id: str) -> None:
        async for message in hub.messages.events(agent_id=agent_id):
            heard.append(message.body)
            if len(heard) == ROUNDS * PER_ROUND:
                return

    async def scenario() -> None:
        async with (
            httpx.AsyncClient(timeout=20) as http,
            TeamHub(url, http=http, retry_mutations=True) as hub,
        ):
            await hub.login(username=EMAIL, password=PASSWORD)
            agent_id = await new_agent(hub)
            listening = asyncio.ensure_future(listen(hub, agent_id))
            for number in range(ROUNDS):
                ending = asyncio.ensure_future(end_in_turn(servers, number))
                await say(hub, agent_id, *(f"{number}.{each}" for each in range(PER_ROUND)))
                await ending
            await listening

    play(scenario)
    assert heard == [f"{number}.{each}" for number in range(ROUNDS) for each in range(PER_ROUND)]


def test_a_stopping_server_sends_its_listeners_to_the_other(pair: tuple[Sequence[Served], str]) -> None:
    """On SIGTERM it ends although somebody listens; the next message comes by the other worker."""
    servers, url = pair

    async def scenario() -> None:
        async with TeamHub(url) as hub:
            await hub.login(username=EMAIL, password=PASSWORD)
            agent_id = await new_agent(hub)
            async with hub.messages.events(agent_id=agent_id) as events:
                await say(hub, agent_id, "before")
                assert (await anext(events)).body == "before"
                for server in servers:
                    await asyncio.to_thread(server.end, signal.SIGTERM)
                    await server.start_again()
                await say(hub, agent_id, "after")
                assert (await anext(events)).body == "after"

    play(scenario)


def test_an_export_that_is_cut_is_no_end(serve: Serve) -> None:
    """The server is killed in its midst: what has come is handed out, and then an error."""
    served = serve()
    rows = ", ".join(f"('m{n}', '{AGENT}', NULL, '{'x' * 3000}', '2026-01-01 00:00:00')" for n in range(20_000))
    served.write(f"INSERT INTO message (id, from_agent_id, to_agent_id, body, created_at) VALUES {rows}")

    async def scenario() -> None:
        async with hub_of(served) as hub, hub.messages.export() as messages:
            await anext(messages)
            await asyncio.to_thread(served.end, signal.SIGKILL)
            with pytest.raises(ConnectionFailedError):
                async for _ in messages:
                    pass

    play(scenario)


def test_a_loop_that_is_left_frees_the_server(serve: Serve) -> None:
    """It holds no stream any more, at once; so it does when the client is closed."""
    served = serve()

    def streams() -> int:
        lines = httpx.get(f"{served.url}/rpc/metrics").text.splitlines()
        return int(float(next(line.split()[-1] for line in lines if line.startswith("reactive_rpc_streams "))))

    async def scenario() -> None:
        async with hub_of(served) as hub:
            async for _ in hub.messages.events(agent_id=AGENT):
                assert await asyncio.to_thread(streams) == 1
                break
            await until(lambda: asyncio.to_thread(lambda: streams() == 0))
            kept = hub.messages.events(agent_id=OTHER)
            await anext(kept)
            assert await asyncio.to_thread(streams) == 1
        await until(lambda: asyncio.to_thread(lambda: streams() == 0))

    play(scenario)
    with SyncTeamHub(served.url) as hub:
        hub.login(username=EMAIL, password=PASSWORD)
        for _ in hub.messages.events(agent_id=AGENT):
            assert streams() == 1
            break
        wait_until(lambda: streams() == 0)


def test_a_user_who_is_deleted_hears_nothing_more(serve: Serve) -> None:
    """The subscription ends by raising why, without a wait for anything else."""
    served = serve()

    async def scenario() -> None:
        async with hub_of(served) as hub, hub.messages.events(agent_id=AGENT) as events:
            await anext(events)
            served.write("DELETE FROM user WHERE email = ?", EMAIL)
            with pytest.raises(UnauthorizedError):
                async for _ in events:
                    pass

    play(scenario)
