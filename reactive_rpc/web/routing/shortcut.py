"""A shorter way to the router, past FastAPI's layers and through every middleware of the application's own.

Between the application's middlewares and a route, FastAPI has three layers: one that turns exceptions into answers, one
that closes uploaded files, and the router, which tries every route in turn. A call needs none of them: its endpoint
answers for its exceptions, takes no files, and is found by one look-up. So once the stack is built, the layer inside
the last middleware is wrapped by one that takes requests for known procedures straight to their endpoints.

Around the application's middlewares stand further layers, which watch for exceptions. If there is no middleware, they
are wrapped too: a call by GET is begun outside of them, and answered there if the answer is stored. Any other call goes
on inside, and so does a failure to send the answer, so whoever watches there sees each failure as ever.

Everything else, and every request where this could not be put in (a mounted sub-application whose lifespan nobody
runs), goes through the router as ever, to the same endpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactive_rpc.compat.fastapi import own_layers
from reactive_rpc.compat.uvicorn import write_answer
from reactive_rpc.web.routing.stored_answers import BEGUN, ReadyAnswer
from reactive_rpc.web.routing.table_router import TableRouter, Target
from reactive_rpc.web.routing.telemetry import name_route

__all__ = ["SERVER_SEND", "install_shortcut"]

logger = logging.getLogger(__name__)

UNSENT: Final = "reactive_rpc.unsent"
"""Where the scope of a request holds how sending its answer failed outside of the layers."""


SERVER_SEND: Final = "reactive_rpc.server_send"
"""Where the scope of a request holds the `send` around which no middleware of the application's stands: a stream, which
has begun its answer through FastAPI's layers, sends its events by this one."""


class _Unsent(NamedTuple):
    messages: Sequence[Message]
    fault: Exception


class _Shortcut:
    """Stands inside of the application's last middleware."""

    def __init__(self, app: ASGIApp, router: TableRouter) -> None:
        self.app = app
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self.router.target(scope) if scope["type"] == "http" else None
        if target is None:
            await self.app(scope, receive, send)
        elif UNSENT in scope:
            await self._fail(scope.pop(UNSENT), send)
        else:
            await target.serve(scope, receive, send)

    async def _fail(self, unsent: _Unsent, send: Send) -> None:
        """Fail as the answer did, for the layers to see what was sent and what went wrong."""
        for message in unsent.messages:
            await send(message)
        raise unsent.fault


class _OuterShortcut:
    """Stands outside of FastAPI's own layers, if no middleware of the application's stands between."""

    def __init__(self, app: ASGIApp, router: TableRouter) -> None:
        self.app = app
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self.router.target(scope) if scope["type"] == "http" else None
        if target is not None:
            if scope["method"] == "GET" and type(target) is Target and target.endpoint.begins:
                if target.path:
                    name_route(scope, target.path, target.route, target.function)
                begun = await target.endpoint.begin(scope, target.dependencies)
                if type(begun) is ReadyAnswer:
                    await self._answer(begun, scope, receive=receive, send=send)
                    return
                scope[BEGUN] = begun
            # INVARIANT (of requests for this router alone): an application that is mounted here has middlewares too.
            scope[SERVER_SEND] = send
        await self.app(scope, receive, send)

    async def _answer(self, answer: ReadyAnswer, scope: Scope, *, receive: Receive, send: Send) -> None:
        sent: list[Message] = []
        try:
            if not write_answer(send, answer.head, answer.body):  # which does not fail half way
                for message in answer.messages:
                    sent.append(message)
                    await send(message)
        except Exception as fault:
            scope[UNSENT] = _Unsent(sent, fault)
            await self.app(scope, receive, _nowhere)


async def _nowhere(_: Message) -> None:
    """Send nothing: the server has been sent it already."""


def install_shortcut(app: FastAPI, router: TableRouter) -> None:
    """Put the shortcut into an application's middleware stack; log a warning if there is no place for it.

    The application builds its stack when it is first called: by a server that is before its lifespan begins, and where
    somebody enters the lifespan by itself (a test, or the application that it is mounted in) it is built here.
    """
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    outer: object = None
    around: set[object] = set()
    layer: object = app.middleware_stack
    while layer is not None and not isinstance(layer, ExceptionMiddleware):
        if isinstance(layer, _Shortcut) and layer.router is router:
            return  # the application has been opened before
        around.add(type(layer))
        outer, layer = layer, getattr(layer, "app", None)
    if not isinstance(layer, ExceptionMiddleware):
        logger.warning(
            "no shortcut past FastAPI's layers to the procedures: calls go through all of them, which doubles what a "
            "cached read costs. The application's middleware_stack has no ExceptionMiddleware of Starlette's: "
            "something has replaced it, or wraps it and hides it"
        )
        return
    shortcut = _Shortcut(layer, router)
    if outer is None:
        app.middleware_stack = shortcut
        return
    outer.app = shortcut  # type: ignore[attr-defined]  # it was just read from there
    # INVARIANT (every middleware of the application's runs): by identity, as a subclass of a known layer is its own.
    if around <= {*own_layers(), _Shortcut, _OuterShortcut}:
        app.middleware_stack = _OuterShortcut(app.middleware_stack, router)
