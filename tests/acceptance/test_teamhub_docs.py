"""TeamHub's docs page, which works with no internet."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from .conftest import Caller

ASSET = re.compile(r"""(?:src|href)=["']([^"']+)["']""")
REMOTE = re.compile(r"""url\(\s*["']?https?:|@import\s+["']https?:""")

PROCEDURES = {
    "agents.get_all",
    "agents.get_one",
    "agents.get_overview",
    "agents.get_with_stats",
    "agents.create",
    "agents.update",
    "agents.delete",
    "messages.get_all",
    "messages.get_after",
    "messages.get_latest",
    "messages.edit",
    "messages.events",
    "messages.export",
    "messages.send",
    "memory.recent",
    "memory.add",
    "search.find",
    "tools.available",
    "organizations.get_mine",
}
STREAMED = {"messages.events": "text/event-stream", "messages.export": "application/jsonl"}


@pytest.fixture
def document(stranger: httpx.Client) -> dict[str, Any]:
    """The OpenAPI document, as the docs page loads it."""
    found: dict[str, Any] = stranger.get("/openapi.json").json()
    return found


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_every_asset_is_served_here(stranger: httpx.Client, page: str) -> None:
    """No page asks another host for anything, and what it asks of this one is there."""
    html = stranger.get(page).text
    assets = ASSET.findall(html)

    assert assets
    assert not [asset for asset in assets if re.match(r"(https?:)?//", asset)]
    for asset in assets:
        answer = stranger.get(asset)
        assert answer.status_code == 200, asset
        assert answer.content
        if asset.endswith(".css"):
            assert not REMOTE.search(answer.text)


def test_the_page_loads_the_document_of_this_server(stranger: httpx.Client) -> None:
    """The page's own script names a path of this server."""
    assert re.search(r"""url:\s*["']/openapi.json["']""", stranger.get("/docs").text)


def test_every_procedure_is_documented_and_asks_for_a_login(document: dict[str, Any]) -> None:
    """Each has a summary, a typed 200 answer, and the scheme behind the Authorize button."""
    operations = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
        if "x-reactive-rpc" in operation
    }

    assert operations.keys() == PROCEDURES
    for operation in operations.values():
        assert operation["summary"]
        assert operation["description"]
        assert operation["security"] == [{"OAuth2PasswordBearer": []}]
        [(media_type, content)] = operation["responses"]["200"]["content"].items()
        assert media_type == STREAMED.get(operation["operationId"], "application/json")
        assert content["schema"]


def test_authorize_posts_to_the_login(document: dict[str, Any]) -> None:
    """The scheme is OAuth2's password flow at /login."""
    flows = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]
    assert flows["password"]["tokenUrl"] == "login"


def test_no_schema_names_a_password_hash(document: dict[str, Any]) -> None:
    """The user table is nobody's output."""
    assert "password_hash" not in str(document)


def test_a_documented_get_can_be_tried_out(ada: Caller, document: dict[str, Any]) -> None:
    """What the page would send from the documented parameters and their examples is answered."""
    operation = document["paths"]["/rpc/agents.get_one"]["get"]
    parameters = {
        parameter["name"]: next(iter(parameter["examples"].values()))["value"] for parameter in operation["parameters"]
    }

    assert ada.http.get("/rpc/agents.get_one", params=parameters).json()["id"] == "agent-0001"


def test_events_can_be_tried_out(ada: Caller, document: dict[str, Any]) -> None:
    """The example of the page watches a query that is there, with an input that fits."""
    content = document["paths"]["/rpc/events"]["post"]["requestBody"]["content"]["application/json"]
    [example] = content["examples"].values()

    [connected, *_] = ada.http.post("/rpc/events/poll", json=example["value"]).json()["events"]
    assert connected["data"]["errors"] == []
    assert len(connected["data"]["queries"]) == 1
