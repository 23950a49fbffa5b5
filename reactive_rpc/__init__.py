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
    from reactive_rpc.cache.result_store import FoundResult, ResultStore, StoredResult
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
    from reactive_rpc.pages.keyset import keyset
    from reactive_rpc.procedures.after_commit import after_commit
    from reactive_rpc.procedures.cache_options import Cache
    from reactive_rpc.procedures.caller import Caller, current_caller
    from reactive_rpc.procedures.context import Context, Login, Tenant, by_tenant
    from reactive_rpc.procedures.declared_errors import DeclaredError
    from reactive_rpc.procedures.definer import Definer, define_reactive_function
    from reactive_rpc.procedures.now import now
    from reactive_rpc.procedures.procedure import Mutation, Query, Subscription
    from reactive_rpc.procedures.rate_limit import rate_limit
    from reactive_rpc.procedures.steps import Answered, CallInfo, Next
    from reactive_rpc.procedures.streamed import Tracked, tracked
    from reactive_rpc.procedures.topics import Topic, topic
    from reactive_rpc.protocol.pages import Page, PageCursor, PageLimit
    from reactive_rpc.settings import Settings
    from reactive_rpc.web.operations.decorator import reactive
    from reactive_rpc.web.routing.lifespans import combine_lifespans

__all__ = [
    "Answered",
    "BadRequestError",
    "Cache",
    "CallInfo",
    "Caller",
    "Capture",
    "CaptureError",
    "Change",
    "ConflictError",
    "Context",
    "DeclaredError",
    "Definer",
    "DefinitionError",
    "ForbiddenError",
    "FoundResult",
    "Login",
    "Mutation",
    "Next",
    "NotFoundError",
    "Page",
    "PageCursor",
    "PageLimit",
    "PreconditionFailedError",
    "Query",
    "RPCError",
    "ReactiveRPC",
    "ReactiveRPCError",
    "ResultStore",
    "ServiceUnavailableError",
    "Settings",
    "StoredResult",
    "Subscription",
    "Tenant",
    "TooManyRequestsError",
    "Topic",
    "Tracked",
    "UnauthorizedError",
    "UnprocessableContentError",
    "after_commit",
    "by_tenant",
    "combine_lifespans",
    "current_caller",
    "define_reactive_function",
    "keyset",
    "now",
    "rate_limit",
    "reactive",
    "topic",
    "tracked",
]

_MODULES = {
    "Answered": "procedures.steps",
    "Cache": "procedures.cache_options",
    "CallInfo": "procedures.steps",
    "Caller": "procedures.caller",
    "Capture": "changes.capture_options",
    "Change": "dependencies.change",
    "Context": "procedures.context",
    "DeclaredError": "procedures.declared_errors",
    "Definer": "procedures.definer",
    "FoundResult": "cache.result_store",
    "Login": "procedures.context",
    "Mutation": "procedures.procedure",
    "Next": "procedures.steps",
    "Page": "protocol.pages",
    "PageCursor": "protocol.pages",
    "PageLimit": "protocol.pages",
    "Query": "procedures.procedure",
    "ReactiveRPC": "app",
    "ResultStore": "cache.result_store",
    "Settings": "settings",
    "StoredResult": "cache.result_store",
    "Subscription": "procedures.procedure",
    "Tenant": "procedures.context",
    "Topic": "procedures.topics",
    "Tracked": "procedures.streamed",
    "after_commit": "procedures.after_commit",
    "by_tenant": "procedures.context",
    "combine_lifespans": "web.routing.lifespans",
    "current_caller": "procedures.caller",
    "define_reactive_function": "procedures.definer",
    "keyset": "pages.keyset",
    "now": "procedures.now",
    "rate_limit": "procedures.rate_limit",
    "reactive": "web.operations.decorator",
    "topic": "procedures.topics",
    "tracked": "procedures.streamed",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("server", f"{__name__}.{name}"):
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
