"""The shortcut past FastAPI's layers: put in once, and said where there is no place for it."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from reactive_rpc.clock import RandomIds
from reactive_rpc.procedures.context_query import ContextDependencies
from reactive_rpc.web.routing.router import RPCRouter
from reactive_rpc.web.routing.shortcut import install_shortcut


def new_router() -> RPCRouter:
    """Return a router without procedures."""
    return RPCRouter(
        "/rpc",
        context=lambda: None,
        contexts=ContextDependencies(lambda query, solved: None),
        ids=RandomIds(),
        require_open=lambda: None,
    )


def layers(app: FastAPI) -> list[str]:
    """Return the classes of an application's middleware stack, from outside to inside."""
    found, layer = [], app.middleware_stack
    while layer is not None:
        found.append(type(layer).__name__)
        layer = getattr(layer, "app", None)
    return found


def test_it_is_put_in_once(caplog: pytest.LogCaptureFixture) -> None:
    """An application that is opened again has one for each router."""
    app, one, other = FastAPI(), new_router(), new_router()
    for router in (one, one, other, other):
        install_shortcut(app, router)
    assert layers(app).count("_Shortcut") == 2
    assert not caplog.records


def test_where_there_is_no_place_its_cost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Something else stands in the place of the stack."""
    app = FastAPI()
    app.middleware_stack = PlainTextResponse("mine")
    install_shortcut(app, new_router())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "doubles what a cached read costs" in record.getMessage()
