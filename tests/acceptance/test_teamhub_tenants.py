"""Tenants of TeamHub do not see each other."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Caller

ANOTHERS = {"organization_id": "org-02", "agent_id": "agent-0021"}
NOBODYS = {"organization_id": "org-99", "agent_id": "agent-9999"}

PROCEDURES = {
    "agents.get_all": ["organization_id"],
    "agents.get_one": ["agent_id"],
    "agents.get_with_stats": ["agent_id"],
    "agents.create": ["organization_id"],
    "agents.update": ["agent_id"],
    "agents.delete": ["agent_id"],
    "messages.get_all": ["agent_id"],
    "memory.recent": ["agent_id"],
    "memory.add": ["agent_id"],
    "tools.available": ["organization_id"],
}
EXTRA: dict[str, dict[str, Any]] = {"agents.create": {"name": "Spy"}, "memory.add": {"content": "A secret"}}


def test_the_other_tenants_records_exist(neighbour: Caller) -> None:
    """What the next tests are refused is really there."""
    assert neighbour.get("agents.get_one", agent_id=ANOTHERS["agent_id"]).status_code == 200
    assert neighbour.get("agents.get_all", organization_id=ANOTHERS["organization_id"]).json()


@pytest.mark.parametrize("path", PROCEDURES)
def test_anothers_record_is_answered_like_none(ada: Caller, path: str) -> None:
    """A stranger cannot tell another tenant's id from one that does not exist."""
    answers = []
    for ids in (ANOTHERS, NOBODYS):
        input = {name: ids[name] for name in PROCEDURES[path]}
        answer = ada.post(path, **input, **EXTRA.get(path, {}))
        error = answer.json()["error"]
        for value in input.values():
            error["message"] = error["message"].replace(value, "<id>")
        answers.append((answer.status_code, error["code"], error["message"], error["details"]))

    assert answers[0] == answers[1]
    assert answers[0][:2] == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "ends",
    [
        {"from_agent_id": "agent-0021"},
        {"from_agent_id": "agent-0021", "to_agent_id": "agent-0001"},
        {"from_agent_id": "agent-0001", "to_agent_id": "agent-0021"},
    ],
)
def test_no_message_crosses_a_border(ada: Caller, neighbour: Caller, ends: dict[str, str]) -> None:
    """messages.send refuses an end in another organization, and writes nothing."""
    before = neighbour.get("messages.get_all", agent_id="agent-0021").json()

    assert ada.post("messages.send", **ends, body="Psst").status_code == 404
    assert neighbour.get("messages.get_all", agent_id="agent-0021").json() == before


def test_a_result_is_shared_within_a_tenant_only(ada: Caller, neighbour: Caller) -> None:
    """A query without input, cached for one tenant, answers another with its own."""
    for _ in range(2):
        assert ada.get("organizations.get_mine").json()["id"] == "org-01"
        assert neighbour.get("organizations.get_mine").json()["id"] == "org-02"
