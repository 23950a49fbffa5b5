"""Subscriptions over tRPC's wire: a call of the procedure, whose events are said in other words.

A request that fails before its first event is answered by a stream too, with the status 200: the client takes any other
for the end, and tells nobody why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from reactive_rpc.errors import BadRequestError, ParseError
from reactive_rpc.procedures.call import decode_json_input
from reactive_rpc.procedures.procedure import LAST_EVENT_ID, AnyProcedure
from reactive_rpc.protocol.headers import LAST_EVENT_ID as LAST_EVENT_ID_HEADER
from reactive_rpc.web.routing.responses import Answer, Headers
from reactive_rpc.web.routing.shortcut import SERVER_SEND
from reactive_rpc.web.trpc.envelopes import VARY
from reactive_rpc.web.trpc.requests import header_of

__all__ = ["EVENT_HEADERS", "TranslatedStream", "input_and_last_id", "last_id_of", "with_connection_params"]

EVENT_HEADERS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", VARY),
]

INPUT_ID: Final = "lastEventId"
"""By this name a client whose stream was silent for too long puts the last id into the input."""

PARAMETERS: Final = (INPUT_ID, "Last-Event-Id")

_SENT_ID: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
"""Ids that a subscription may have, see `tracked`: any other was never sent."""

_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")


class TranslatedStream(Answer):
    """A stream whose chunks are said otherwise.

    Args:
        answer: the stream.
        translated: returns the bytes that are sent for one of its chunks.
    """

    __slots__ = ("_answer", "_translated")

    def __init__(self, answer: Answer, translated: Callable[[bytes], bytes]) -> None:
        super().__init__(answer.status, b"", answer.headers)
        self.background = answer.background
        self._answer = answer
        self._translated = translated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"vary", VARY)]}
            elif message.get("body"):
                message = {**message, "body": self._translated(message["body"])}
            await send(message)

        # INVARIANT (each chunk passes by here): the stream would send its events by the server's own `send` else.
        scope.pop(SERVER_SEND, None)
        await self._answer(scope, receive, said)


def input_and_last_id(
    path: str, procedure: AnyProcedure, text: bytes, *, scope: Scope, parameters: Mapping[str, str]
) -> Any:
    """Return the input of a subscription, with the id that its client has seen last.

    The header counts most, then a parameter of the URL, then `lastEventId` in the input.

    Args:
        text: the input as JSON; empty if there is none.
        parameters: of the URL.

    Raises:
        BadRequestError: the input does not fit.
        ParseError: it is no JSON, which is told as a bad request.
    """
    text, in_input = _without_id(procedure, text)
    try:
        input = decode_json_input(path, procedure, text)
    except ParseError as exc:  # as of a query, see `ended_by`
        exc.code = BadRequestError.code
        raise
    last_id = last_id_of(scope, parameters, in_input)
    if input is None or last_id is None or LAST_EVENT_ID not in type(input).model_fields:
        return input
    return input.model_copy(update={LAST_EVENT_ID: last_id})


def last_id_of(scope: Scope, parameters: Mapping[str, str], in_input: str | None) -> str | None:
    """Return the id of the last event that a client has received; None if it says none that was ever sent."""
    said = (header_of(scope, LAST_EVENT_ID_HEADER.encode()), *map(parameters.get, PARAMETERS), in_input)
    last_id = next((id for id in said if id), None)
    return last_id if last_id is not None and _SENT_ID.fullmatch(last_id) else None


def _without_id(procedure: AnyProcedure, text: bytes) -> tuple[bytes, str | None]:
    """Return an input without the id that a client has put into it, and the id.

    An input of the procedure's own that is called so stays: it is the same, in camel case.
    """
    if INPUT_ID.encode() not in text or procedure.input is None:
        return text, None
    fields = procedure.input.model.model_fields
    if any(INPUT_ID in (name, field.alias, field.validation_alias) for name, field in fields.items()):
        return text, None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text, None  # whoever decodes it says why
    if not isinstance(found, dict) or INPUT_ID not in found:
        return text, None
    id = found.pop(INPUT_ID)
    return json.dumps(found).encode(), id if isinstance(id, str) else None


def with_connection_params(scope: Scope, text: str | None, *, names: frozenset[str]) -> None:
    """Let a request have the headers that its `connectionParams` stand for: those of an EventSource, which sends none.

    Only those that a mount names are taken, and none that the request has: a proxy that tells the server by a header
    who calls could else be told otherwise by the URL.

    Args:
        text: the parameter; None if there is none.
        names: of headers, in lower case.

    Raises:
        ParseError: it is no object of texts, or a header cannot hold a text.
    """
    if text is None:
        return
    try:
        params = json.loads(text)
    except (ValueError, RecursionError):
        raise ParseError("Not JSON-parsable query params") from None
    if params is None:
        return
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        raise ParseError("Invalid connection params shape: give an object whose values are texts")
    # A header of the request itself is not overruled: whoever reads it may be a proxy's word and not the page's.
    present = {name for name, _ in scope["headers"]}
    given = {name.lower(): value for name, value in params.items() if name.lower() in names}
    if not all(_VALUE.fullmatch(value) for value in given.values()):
        raise ParseError("Invalid connection params shape: a header holds no such text")
    added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
    scope["headers"] = [*scope["headers"], *(each for each in added if each[0] not in present)]
