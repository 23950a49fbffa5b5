"""TeamHub with a folder of pages beside it, under `/pages`: a server of browser tests, `app`."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from app.main import app

__all__ = ["app"]

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; require-trusted-types-for 'script'"
)
"""What every page of a test must do with: no script but its own file, no `eval`, nothing inline."""


class Pages(StaticFiles):
    """The pages, with a strict policy. They may be kept by the back and forward cache: `no-cache` is not `no-store`."""

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        response = await super().get_response(path, scope)
        response.headers["content-security-policy"] = STRICT
        response.headers["cache-control"] = "no-cache"
        return response


# First of all: TeamHub may have something of its own for every other path. Whoever collects doctests has no pages.
app.router.routes.insert(0, Mount("/pages", Pages(directory=os.environ.get("PAGES", os.curdir))))
