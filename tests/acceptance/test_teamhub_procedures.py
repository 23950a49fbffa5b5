"""Every procedure of TeamHub, over HTTP."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from reactive_rpc.protocol.events import Connected, Event, Invalidation, decode_event
from reactive_rpc.protocol.sse import SSEDecoder

from .conftest import Caller, Server

WRITER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute(sys.argv[2], sys.argv[3:])
"""


def write_elsewhere(server: Server, statement: str, *values: str) -> None:
    """Write from a process that knows nothing of this project."""
    subprocess.run([sys.executable, "-c", WRITER, str(server.database), statement, *values], check=True)


def scalar(server: Server, statement: str, *values: str) -> Any:
    """Ask the database itself."""
    with closing(sqlite3.connect(server.database)) as connection:
        return connection.execute(statement, values).fetchone()[0]


def test_agents_are_listed_by_name(ada: Caller, server: Server) -> None:
    """agents.get_all gives every agent of the organization and no other, ordered by name."""
    agents = ada.get("agents.get_all").json()

    assert len(agents) == scalar(server, "SELECT count(*) FROM agent WHERE organization_id = 'org-01'")
    assert {agent["organization_id"] for agent in agents} == {"org-01"}
    assert [agent["name"] for agent in agents] == sorted(agent["name"] for agent in agents)


def test_an_agent_is_created_found_changed_and_deleted(ada: Caller) -> None:
    """The four procedures agree on one agent, through its whole life."""
    created = ada.post("agents.create", name="  Grace  ", role="reviewer").json()
    assert created["name"] == "Grace"
    assert created["is_active"] is True
    assert datetime.fromisoformat(created["created_at"]).tzinfo == UTC

    ref = {"agent_id": created["id"]}
    assert ada.get("agents.get_one", **ref).json() == created

    changed = ada.post("agents.update", **ref, description="Reads everything.").json()
    assert changed == created | {"description": "Reads everything."}
    assert ada.get("agents.get_one", **ref).json() == changed

    assert ada.post("agents.delete", **ref).json() == ref | {"message_count": 0, "memory_count": 0}
    assert ada.get("agents.get_one", **ref).status_code == 404


def test_an_update_changes_only_what_is_sent(ada: Caller) -> None:
    """A field left out stays; null empties the one that may be empty and is refused by the others."""
    agent_id = ada.new_agent()
    before = ada.post("agents.update", agent_id=agent_id, description="Old.", is_active=False).json()

    assert ada.post("agents.update", agent_id=agent_id).json() == before
    assert ada.post("agents.update", agent_id=agent_id, description=None).json() == before | {"description": None}
    refused = ada.post("agents.update", agent_id=agent_id, name=None)
    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["loc"] == ["name"]


def test_stats_follow_messages_and_memories(ada: Caller) -> None:
    """agents.get_with_stats counts what the agent sent, not what it received, and what it remembers."""
    agent_id, other_id = ada.new_agent(), ada.new_agent()

    def counts() -> tuple[int, int]:
        stats = ada.get("agents.get_with_stats", agent_id=agent_id).json()
        assert stats["agent"]["id"] == agent_id
        return stats["message_count"], stats["memory_count"]

    assert counts() == (0, 0)
    ada.post("messages.send", from_agent_id=agent_id, to_agent_id=other_id, body="Hello")
    ada.post("messages.send", from_agent_id=other_id, to_agent_id=agent_id, body="Hello yourself")
    assert counts() == (1, 0)
    ada.post("memory.add", agent_id=agent_id, content="They are polite.")
    assert counts() == (1, 1)


def test_deleting_an_agent_takes_everything_of_it(ada: Caller, server: Server) -> None:
    """agents.delete removes memories and messages of both directions, and leaves the other agent's own."""
    agent_id, other_id = ada.new_agent(), ada.new_agent()
    ada.post("messages.send", from_agent_id=agent_id, to_agent_id=other_id, body="One")
    ada.post("messages.send", from_agent_id=other_id, to_agent_id=agent_id, body="Two")
    kept = ada.post("messages.send", from_agent_id=other_id, body="To everybody").json()
    ada.post("memory.add", agent_id=agent_id, content="Gone soon")

    deleted = ada.post("agents.delete", agent_id=agent_id).json()

    assert deleted == {"agent_id": agent_id, "message_count": 2, "memory_count": 1}
    assert ada.get("messages.get_all", agent_id=other_id).json() == {"items": [kept], "next": None}
    assert scalar(server, "SELECT count(*) FROM memory WHERE agent_id = ?", agent_id) == 0


def test_messages_are_paged_newest_first(ada: Caller, server: Server) -> None:
    """Page after page gives every message of the agent once, also where moments are equal."""
    agent_id = ada.new_agent()
    sent = [ada.post("messages.send", from_agent_id=agent_id, body=str(n)).json()["id"] for n in range(5)]
    write_elsewhere(server, "UPDATE message SET created_at = '2026-01-01 00:00:00.000000' WHERE id = ?", sent[1])
    write_elsewhere(server, "UPDATE message SET created_at = '2026-01-01 00:00:00.000000' WHERE id = ?", sent[2])

    page = ada.get("messages.get_all", agent_id=agent_id, limit=2).json()
    seen: list[dict[str, Any]] = page["items"]
    while page["next"]:
        page = ada.get("messages.get_all", agent_id=agent_id, limit=2, after=page["next"]).json()
        seen += page["items"]

    order = [(message["created_at"], message["id"]) for message in seen]
    assert order == sorted(order, reverse=True)
    assert sorted(message["id"] for message in seen) == sorted(sent)


def test_a_page_goes_on_where_a_deleted_message_was(ada: Caller, server: Server) -> None:
    """A cursor is a place between messages, and needs none to be there."""
    agent_id = ada.new_agent()
    sent = [ada.post("messages.send", from_agent_id=agent_id, body=str(n)).json()["id"] for n in range(4)]
    first = ada.get("messages.get_all", agent_id=agent_id, limit=2).json()
    write_elsewhere(server, "DELETE FROM message WHERE id = ?", first["items"][-1]["id"])

    rest = ada.get("messages.get_all", agent_id=agent_id, limit=2, after=first["next"]).json()

    assert [message["id"] for message in rest["items"]] == [sent[1], sent[0]]


def test_a_cursor_that_is_none_is_refused(ada: Caller) -> None:
    """The answer names the input."""
    answer = ada.get("messages.get_all", agent_id="agent-0001", after="message-none")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["loc"] == ["after"]


def test_memories_come_newest_first_and_limited(ada: Caller) -> None:
    """memory.recent gives the newest, at most `limit`."""
    agent_id = ada.new_agent()
    added = [ada.post("memory.add", agent_id=agent_id, content=str(n)).json() for n in range(3)]

    assert ada.get("memory.recent", agent_id=agent_id).json() == added[::-1]
    assert ada.get("memory.recent", agent_id=agent_id, limit=2).json() == added[:0:-1]


def test_only_enabled_tools_are_available(ada: Caller, server: Server) -> None:
    """tools.available, a synchronous handler, follows a tool that another process switches off."""
    before = ada.get("tools.available").json()
    assert before
    assert all(tool["is_enabled"] for tool in before)

    write_elsewhere(server, "UPDATE tool SET is_enabled = 0 WHERE id = ?", before[0]["id"])

    assert ada.get("tools.available").json() == before[1:]


def test_the_organization_is_the_callers(ada: Caller, neighbour: Caller) -> None:
    """organizations.get_mine takes no input: it answers by the token."""
    assert ada.get("organizations.get_mine").json()["id"] == "org-01"
    assert neighbour.get("organizations.get_mine").json()["id"] == "org-02"


@pytest.mark.parametrize(
    ("path", "input", "field"),
    [
        ("agents.create", {"name": " "}, "name"),
        ("agents.create", {"name": "x" * 101}, "name"),
        ("agents.get_one", {"agent_id": ""}, "agent_id"),
        ("agents.get_one", {}, "agent_id"),
        ("messages.get_all", {"agent_id": "agent-0001", "limit": 0}, "limit"),
        ("messages.get_all", {"agent_id": "agent-0001", "limit": 201}, "limit"),
        ("messages.send", {"from_agent_id": "agent-0001", "body": "x" * 4001}, "body"),
        ("memory.recent", {"agent_id": "agent-0001", "limit": "many"}, "limit"),
        ("memory.add", {"agent_id": "agent-0001", "content": ""}, "content"),
    ],
)
def test_bad_input_is_named(ada: Caller, path: str, input: dict[str, Any], field: str) -> None:
    """Input that does not fit is answered 400, with the field at fault."""
    answer = ada.post(path, **input)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["path"]) == ("BAD_REQUEST", path)
    assert [fault["loc"][0] for fault in error["details"]] == [field]


def test_an_answer_is_fresh_after_another_process_wrote(ada: Caller, server: Server) -> None:
    """A cached answer never outlives a write that was acknowledged before the request, whoever wrote."""
    agent_id = ada.new_agent()
    for n in range(5):
        ada.get("agents.get_one", agent_id=agent_id)
        write_elsewhere(server, "UPDATE agent SET name = ? WHERE id = ?", f"Name {n}", agent_id)
        assert ada.get("agents.get_one", agent_id=agent_id).json()["name"] == f"Name {n}"


def test_a_stream_tells_its_own_tenant_alone(ada: Caller, neighbour: Caller, server: Server) -> None:
    """A commit is an event for its tenant's stream; what the other hears next is a commit of its own."""
    mine, theirs = ada.new_agent(), neighbour.new_agent()
    with watching(ada, mine) as my_events, watching(neighbour, theirs) as their_events:
        write_elsewhere(server, "UPDATE agent SET name = 'A' WHERE id = ?", mine)
        write_elsewhere(server, "UPDATE agent SET name = 'B' WHERE id = ?", theirs)

        assert next_inputs(my_events) == [{"agent_id": mine}]
        assert next_inputs(their_events) == [{"agent_id": theirs}]


@contextmanager
def watching(caller: Caller, agent_id: str) -> Iterator[Iterator[Event]]:
    """Open a stream on agents.get_one and give its events after `connected`."""
    queries = [{"path": "agents.get_one", "input": {"agent_id": agent_id}}]
    with caller.http.stream("POST", "/rpc/events", json={"queries": queries}) as answer:
        assert answer.status_code == 200
        events = events_of(answer)
        assert isinstance(next(events), Connected)
        yield events


def events_of(answer: httpx.Response) -> Iterator[Event]:
    """Decode a stream; the client's own timeout bounds the wait for each event."""
    decoder = SSEDecoder()
    for chunk in answer.iter_raw():
        for raw in decoder.feed(chunk):
            event = decode_event(raw)
            assert event is not None
            yield event


def next_inputs(events: Iterator[Event]) -> list[Any]:
    """Return the inputs of the queries that the next event names."""
    event = next(events)
    assert isinstance(event, Invalidation)
    return [affected.input for affected in event.affected]


def test_a_message_is_edited_unless_somebody_has_changed_it(ada: Caller, neighbour: Caller) -> None:
    """Who edits says what they have read; if it says something else by now, they are told, and nothing is lost."""
    agent_id = ada.new_agent()
    message = ada.post("messages.send", from_agent_id=agent_id, body="first").json()
    ref = {"message_id": message["id"]}

    edited = ada.post("messages.edit", **ref, body="second", expected="first").json()
    assert edited == message | {"body": "second"}
    refused = ada.post("messages.edit", **ref, body="third", expected="first")
    assert refused.status_code == 409
    assert refused.json()["error"]["type"] == "MessageChanged"
    assert refused.json()["error"]["details"] == {"message_id": message["id"], "body": "second"}
    assert neighbour.post("messages.edit", **ref, body="theirs", expected="second").status_code == 404
    assert ada.get("messages.get_all", agent_id=agent_id).json()["items"] == [edited]


def test_the_overview_tells_what_each_agent_did_last(ada: Caller, server: Server) -> None:
    """Counts and last rows are those that the agent's own queries give; one that has done nothing has none."""
    agent_id = ada.new_agent()
    overview = {one["agent"]["id"]: one for one in ada.get("agents.get_overview").json()}
    nothing = {"message_count": 0, "memory_count": 0, "last_message": None, "last_memory_at": None}
    assert {name: overview[agent_id][name] for name in nothing} == nothing

    sent = ada.post("messages.send", from_agent_id=agent_id, body="hello").json()
    added = ada.post("memory.add", agent_id=agent_id, content="that it said hello").json()
    now = next(one for one in ada.get("agents.get_overview").json() if one["agent"]["id"] == agent_id)
    assert now["last_message"] == sent
    assert now["last_memory_at"] == added["created_at"]
    assert now["message_count"] == now["memory_count"] == 1
    assert ada.get("messages.get_latest", limit=1).json() == [sent]


def test_search_finds_agents_messages_and_memories_of_the_organization_alone(ada: Caller, neighbour: Caller) -> None:
    """Whatever the case, and a wildcard is a letter like any other."""
    agent_id = ada.new_agent()
    sent = ada.post("messages.send", from_agent_id=agent_id, body="A Xylophone, 100% sure").json()
    added = ada.post("memory.add", agent_id=agent_id, content="xylophones are loud").json()

    found = ada.get("search.find", text="XYLOPHONE").json()
    assert (found["messages"], found["message_count"]) == ([sent], 1)
    assert (found["memories"], found["memory_count"]) == ([added], 1)
    assert found["agents"] == []
    assert ada.get("search.find", text="100% sure").json()["messages"] == [sent]
    assert ada.get("search.find", text="100%sure").json()["messages"] == []
    assert neighbour.get("search.find", text="xylophone").json()["message_count"] == 0
    assert [agent["name"] for agent in ada.get("search.find", text="kather").json()["agents"]] == ["Katherine"]


def test_the_page_is_served_under_a_strict_policy(server: Server) -> None:
    """Each address of the page gives the same document, or says how to build it; it is no part of the API."""
    with httpx.Client(base_url=server.url) as http:
        answers = [http.get(path) for path in ("/", "/agents/agent-0001", "/search?q=contract")]
        paths = http.get("/openapi.json").json()["paths"]
    assert "/" not in paths
    for answer in answers:
        if answer.status_code == 503:
            assert "make run" in answer.text
        else:
            assert "script-src 'self'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
