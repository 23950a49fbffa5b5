"""Decorate a function. Every client that shows its result stays right.

The names here are loaded when they are asked for, so that the client's runtime, `reactive_rpc.client`, installs and
runs without FastAPI and SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reactive_rpc.extras import needs

if TYPE_CHECKING:
    from reactive_rpc.app import ReactiveRPC
    from reactive_rpc.changes.capture_options import Capture
    from reactive_rpc.dependencies.change import Change
    from reactive_rpc.errors import (
        BadRequestError,
        CaptureError,
        ConflictError,
        DefinitionError,
        ForbiddenError,
        NotFoundError,
        PreconditionFailedError,
        ReactiveRPCError,
        RPCError,
        ServiceUnavailableError,
        TooManyRequestsError,
        UnauthorizedError,
        UnprocessableContentError,
    )
    from reactive_rpc.procedures.cache_options import Cache
    from reactive_rpc.procedures.context import Context
    from reactive_rpc.procedures.now import now
    from reactive_rpc.procedures.procedure import Procedure, define_reactive_function
    from reactive_rpc.procedures.topics import Topic, topic
    from reactive_rpc.settings import Settings
    from reactive_rpc.web.routing.lifespans import combine_lifespans

__all__ = [
    "BadRequestError",
    "Cache",
    "Capture",
    "CaptureError",
    "Change",
    "ConflictError",
    "Context",
    "DefinitionError",
    "ForbiddenError",
    "NotFoundError",
    "PreconditionFailedError",
    "Procedure",
    "RPCError",
    "ReactiveRPC",
    "ReactiveRPCError",
    "ServiceUnavailableError",
    "Settings",
    "TooManyRequestsError",
    "Topic",
    "UnauthorizedError",
    "UnprocessableContentError",
    "combine_lifespans",
    "define_reactive_function",
    "now",
    "topic",
]

_MODULES = {
    "Cache": "procedures.cache_options",
    "Capture": "changes.capture_options",
    "Change": "dependencies.change",
    "Context": "procedures.context",
    "Procedure": "procedures.procedure",
    "ReactiveRPC": "app",
    "Settings": "settings",
    "Topic": "procedures.topics",
    "combine_lifespans": "web.routing.lifespans",
    "define_reactive_function": "procedures.procedure",
    "now": "procedures.now",
    "topic": "procedures.topics",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("server", f"{__name__}.{name}"):
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
