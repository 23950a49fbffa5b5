"""`POST /rpc/events/ack`: acknowledgements, of a stream at whichever worker."""

from __future__ import annotations

from fastapi.dependencies.models import Dependant
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.clock import IdSource
from reactive_rpc.protocol.cursors import Cursor
from reactive_rpc.protocol.events import Ack
from reactive_rpc.subscriptions.hub import Hub
from reactive_rpc.web.routing.body import BodyLimits, decode_json_body, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of
from reactive_rpc.web.routing.dependencies import resolved
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer

__all__ = ["AckEndpoint"]


class AckEndpoint(Endpoint):
    """Takes acknowledgements. A stream's id cannot be guessed, so it is all that an acknowledgement needs."""

    def __init__(self, path: str, hub: Hub, ids: IdSource, *, body: BodyLimits) -> None:
        super().__init__(path, ids)
        self._hub = hub
        self._body = body

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Acknowledge everything up to the cursor."""
        self.require_method(scope, ("POST",))
        body = await read_json_body(scope, receive, limits=self._body)
        async with resolved(Request(scope, replay(body)), dependencies) as found:
            ack = decode_json_body(Ack, body)
            await self._hub.acknowledge(ack.stream, Cursor.parse(ack.cursor), caller_of(scope, found.context))
        return found.add_to(Answer(204, b"", []))
