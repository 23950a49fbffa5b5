"""A shorter way to the router, inside every middleware of the application's own.

Between the application's middlewares and a route, FastAPI has three layers: one that turns exceptions into answers, one
that closes uploaded files, and the router, which tries every route in turn. A call needs none of them: its endpoint
answers for its exceptions, takes no files, and is found by one look-up. On a cached read they are half the work.

So once the stack is built, the layer inside the last middleware is wrapped by one that takes requests for known
procedures straight to their endpoints. Everything else, and every request where this could not be put in (a mounted
sub-application whose lifespan nobody runs), goes through the router as ever, to the same endpoints.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from reactive_rpc.web.routing.table_router import TableRouter

__all__ = ["install_shortcut"]

logger = logging.getLogger(__name__)


class _Shortcut:
    def __init__(self, app: ASGIApp, router: TableRouter) -> None:
        self.app = app
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = self.router.target(scope) if scope["type"] == "http" else None
        if target is None:
            await self.app(scope, receive, send)
        else:
            await target.serve(scope, receive, send)


def install_shortcut(app: FastAPI, router: TableRouter) -> None:
    """Put the shortcut into an application's middleware stack; log a warning if there is no place for it.

    The application builds its stack when it is first called: by a server that is before its lifespan begins, and where
    somebody enters the lifespan by itself (a test, or the application that it is mounted in) it is built here.
    """
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    outer: object = None
    layer: object = app.middleware_stack
    while layer is not None and not isinstance(layer, ExceptionMiddleware):
        if isinstance(layer, _Shortcut) and layer.router is router:
            return  # the application has been opened before
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
    else:
        outer.app = shortcut  # type: ignore[attr-defined]  # it was just read from there
