"""The page: what Vite has built from `app/web` (or `app/svelte`), served under a strict content security policy.

Addresses of the page are paths (`/agents/agent-0001`), so each of them answers the same document. It holds no data and
needs no login: what it shows, it asks of the procedures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["CONTENT_SECURITY_POLICY", "Assets", "add_page"]

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Nothing from elsewhere, nothing inline, nothing evaluated."""

_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A new build has other names for its scripts: the document that names them is asked for each time.
    "Cache-Control": "no-cache",
}


class Assets(StaticFiles):
    """Scripts, styles and fonts: each build names them after their contents, so browsers may keep them for ever."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        """Return a file, with the headers of one that never changes."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def add_page(app: FastAPI, built: Path) -> None:
    """Serve the page.

    Args:
        app: what serves it.
        built: the folder that Vite has written.
    """

    @app.get("/", include_in_schema=False)
    @app.get("/agents/{agent_id}", include_in_schema=False)
    @app.get("/search", include_in_schema=False)
    def page() -> Response:
        document = built / "index.html"
        if not document.exists():
            return PlainTextResponse("The page is not built: `make run` builds it.\n", 503)
        return FileResponse(document, headers=_HEADERS)

    app.mount("/assets", Assets(directory=built / "assets", check_dir=False), name="assets")
