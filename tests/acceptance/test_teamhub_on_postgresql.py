"""TeamHub on PostgreSQL, by its settings alone: seeded, served, called, watched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import httpx
import psycopg
from sqlalchemy import make_url

from app.seed import PASSWORD
from app.server_process import serving
from generated_client import Message, TeamHub
from reactive_rpc.protocol.events import Connected, Event, Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder

from .conftest import SECRET, log_in

AGENT = {"agent_id": "agent-0001"}
SENDERS, EACH_SENDS = 4, 15


def run(url: str, *arguments: str) -> str:
    """Run Python with the server's settings, and return what it prints."""
    environment = {**os.environ, "TEAMHUB_DATABASE": url, "TEAMHUB_SECRET": SECRET}
    answer = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, env=environment)
    return answer.stdout + answer.stderr


def write(url: str, statement: str) -> None:
    """Write as somebody who knows nothing of this project."""
    with psycopg.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        connection.execute(statement.encode())


def test_teamhub_runs_on_postgresql(postgresql_url: str) -> None:
    """Seeding says so once; every procedure answers, is stored, and is told of a write by psycopg."""
    assert "is seeded\n" in run(postgresql_url, "-m", "app.seed")
    assert "seeded already" in run(postgresql_url, "-m", "app.seed")
    with (
        serving(postgresql_url, environment={"TEAMHUB_SECRET": SECRET}) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        ada = log_in(http, "ada@org-01.example")
        assert http.post("/login", data={"username": "nobody@x", "password": PASSWORD}).status_code == 401
        assert http.post("/login", data={"username": "a\0@x", "password": PASSWORD}).status_code == 400
        assert len(ada.get("agents.get_all").json()) == 20
        for name in ("messages.get_all", "agents.get_with_stats", "memory.recent"):
            answer = ada.get(name, **AGENT)
            assert answer.status_code == 200, answer.text
        assert ada.get("tools.available").status_code == 200
        assert ada.get("organizations.get_mine").json()["id"] == "org-01"

        created = ada.post("agents.create", name="Grace", role="reviewer").json()
        sent = ada.post("messages.send", from_agent_id=created["id"], to_agent_id="agent-0001", body="hello")
        kept = ada.post("memory.add", agent_id=created["id"], content="said hello")
        assert (sent.status_code, kept.status_code) == (200, 200), sent.text + kept.text
        stats = ada.get("agents.get_with_stats", agent_id=created["id"]).json()
        assert (stats["message_count"], stats["memory_count"]) == (1, 1)
        gone = ada.post("agents.delete", agent_id=created["id"]).json()
        assert (gone["message_count"], gone["memory_count"]) == (1, 1)

        queries = [{"path": "agents.get_one", "input": AGENT}]
        with http.stream("POST", "/rpc/events", json={"queries": queries}) as stream:
            decoder = SSEDecoder()
            events = (decode_event(event) for chunk in stream.iter_raw() for event in decoder.feed(chunk))
            first: Event | None = next(events)
            assert isinstance(first, Connected)
            assert first.errors == []
            write(postgresql_url, "UPDATE agent SET name = 'Renamed by psycopg' WHERE id = 'agent-0001'")
            assert isinstance(next(events), Invalidation)
        assert ada.get("agents.get_one", **AGENT).json()["name"] == "Renamed by psycopg"
        verify = "from reactive_rpc.cli import main; main()"
        assert "6 of 6 tables are captured" in run(postgresql_url, "-c", verify, "db", "verify", postgresql_url)


async def send(url: str, sender: str) -> list[str]:
    """Send messages to one agent, and return their ids."""
    async with TeamHub(url) as hub:
        await hub.login(username="ada@org-01.example", password=PASSWORD)
        sent = [
            await hub.messages.send(from_agent_id=sender, to_agent_id="agent-0001", body=str(number))
            for number in range(EACH_SENDS)
        ]
    return [message.id for message in sent]


async def listen(hub: TeamHub, newest: str, expected: int) -> list[Message]:
    """Follow the messages of that agent after one of them, by connections of one message each."""
    heard: list[Message] = []
    while len(heard) < expected:
        async with hub.messages.events(agent_id="agent-0001", last_event_id=newest) as events:
            heard.append(await anext(events))
            assert events.last_event_id is not None
            newest = events.last_event_id
    return heard


async def send_and_listen(urls: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the ids of what was sent to the servers at once, and of what was heard, in order."""
    async with TeamHub(urls[0]) as hub:
        await hub.login(username="ada@org-01.example", password=PASSWORD)
        (newest,) = (await hub.messages.get_all(agent_id="agent-0001", limit=1)).items
        senders = [send(urls[number % len(urls)], f"agent-{number + 2:04}") for number in range(SENDERS)]
        place = f"{newest.created_at.isoformat()}/{newest.id}"
        heard, sent = await asyncio.gather(listen(hub, place, SENDERS * EACH_SENDS), asyncio.gather(*senders))
        return {id for ids in sent for id in ids}, [message.id for message in heard]


def test_no_message_is_missed_that_is_committed_late(postgresql_url: str) -> None:
    """Several send at once, by two servers; whoever goes on after each message hears every one, and once."""
    run(postgresql_url, "-m", "app.seed")
    environment = {"TEAMHUB_SECRET": SECRET}
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(postgresql_url, environment=environment)) for _ in range(2)]
        sent, heard = asyncio.run(asyncio.wait_for(send_and_listen(urls), 120))
    assert len(heard) == len(set(heard))
    assert set(heard) == sent
