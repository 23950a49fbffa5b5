"""Tenants of TeamHub do not see each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Caller

ANOTHERS, NOBODYS = "agent-0021", "agent-9999"

OF_AN_AGENT = (
    "agents.get_one",
    "agents.get_with_stats",
    "agents.update",
    "agents.delete",
    "messages.get_all",
    "messages.get_after",
    "memory.recent",
    "memory.add",
)
OF_AN_ORGANIZATION = ("agents.get_all", "tools.available", "organizations.get_mine")
EXTRA: dict[str, dict[str, Any]] = {"memory.add": {"content": "A secret"}}


def test_the_other_tenants_records_exist(neighbour: Caller) -> None:
    """What the next tests are refused is really there."""
    assert neighbour.get("agents.get_one", agent_id=ANOTHERS).status_code == 200


@pytest.mark.parametrize("path", OF_AN_AGENT)
def test_anothers_record_is_answered_like_none(ada: Caller, path: str) -> None:
    """A stranger cannot tell another tenant's id from one that does not exist."""
    answers = []
    for agent_id in (ANOTHERS, NOBODYS):
        answer = ada.post(path, agent_id=agent_id, **EXTRA.get(path, {}))
        error = json.loads(answer.text.replace(agent_id, "<id>"))["error"]  # it repeats the id that was asked for
        answers.append((answer.status_code, error["code"], error["type"], error["message"], error["details"]))

    assert answers[0] == answers[1]
    assert answers[0][:3] == (404, "NOT_FOUND", "AgentNotFound")


@pytest.mark.parametrize("path", OF_AN_ORGANIZATION)
def test_each_tenant_is_shown_its_own(ada: Caller, neighbour: Caller, path: str) -> None:
    """Whatever is asked for without naming an agent is the caller's own organization's."""
    mine, theirs = ada.get(path).json(), neighbour.get(path).json()
    assert mine
    assert theirs
    assert "org-02" not in str(mine)
    assert "org-01" not in str(theirs)


def test_nobody_names_an_organization(ada: Caller) -> None:
    """An input that is nobody's to give is refused, not ignored."""
    for path, fields in (("agents.create", {"name": "Spy"}), ("agents.get_all", {})):
        answer = ada.post(path, organization_id="org-02", **fields)
        assert (answer.status_code, path) in ((400, "agents.create"), (200, "agents.get_all"))


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
