"""`/health/live`, `/health/ready` and `/health`: for probes, load balancers and people."""

from __future__ import annotations

import json
from typing import Literal

from fastapi.dependencies.models import Dependant
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.clock import IdSource
from reactive_rpc.health import Health
from reactive_rpc.web.routing.dependencies import resolved
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer

__all__ = ["HealthEndpoint"]


class HealthEndpoint(Endpoint):
    """Answers 200 where all is well and 503 where not, and names the parts in both.

    Args:
        question: `live`: has anything died that only a restart brings back? `ready`: may requests be sent here?
    """

    def __init__(self, path: str, ids: IdSource, health: Health, *, question: Literal["live", "ready"]) -> None:
        super().__init__(path, ids)
        self._health = health
        self._question = question

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Ask every part."""
        self.require_method(scope, ("GET", "HEAD"))
        async with resolved(Request(scope, receive), dependencies) as found:
            parts = self._health.parts()
            is_live = bool(parts) and not any(part.is_dead for part in parts.values())
            is_ready = is_live and all(part.ok for part in parts.values())
            report = {
                "live": is_live,
                "ready": is_ready,
                "parts": {
                    name: {"ok": part.ok, **({"detail": part.detail} if part.detail else {})}
                    for name, part in parts.items()
                },
            }
            status = 200 if (is_live if self._question == "live" else is_ready) else 503
            body = b"" if scope["method"] == "HEAD" else json.dumps(report).encode()
            return found.add_to(Answer(status, body, [*_JSON]))


_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
