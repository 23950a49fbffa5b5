"""TeamHub on PostgreSQL, by its settings alone: seeded, served, called, watched."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import psycopg
from sqlalchemy import make_url

from app.seed import PASSWORD
from app.server_process import serving
from reactive_rpc.protocol.events import Connected, Event, Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder

from .conftest import SECRET, log_in

AGENT = {"agent_id": "agent-0001"}


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
        httpx.Client(base_url=url, timeout=10) as http,
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
