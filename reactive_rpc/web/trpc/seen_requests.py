"""What requests by GET ask for, remembered: pages send the same few again and again, and each is read only once.

A request is remembered by all of its head that is read: the path, the query string, and some headers. So it may be
anybody's, and who calls is asked each time. A request that is refused is not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from starlette.types import Scope

from reactive_rpc.errors import BadRequestError
from reactive_rpc.protocol.headers import IDEMPOTENCY_KEY
from reactive_rpc.web.routing.dispatcher import ProcedureEndpoint
from reactive_rpc.web.trpc.calls import Callee, given_input
from reactive_rpc.web.trpc.inputs import split_inputs
from reactive_rpc.web.trpc.marks import ETAGS, REACTIVE
from reactive_rpc.web.trpc.requests import TRPCRequest
from reactive_rpc.web.trpc.stored_calls import StoredCall, StoredCalls
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = ["Inputs", "ReadRequest", "SeenRequests", "found_by_input", "inputs_of"]

MAX_SEEN: Final = 1024
"""How many requests one mount remembers; all are forgotten past it."""

MAX_SEEN_BYTES: Final = 2048
"""The longest path with its query string that is remembered; about so long links make a batch at most."""

_READ: Final = frozenset({b"accept", b"content-type", b"trpc-accept"})
_UNSEEN: Final = frozenset({REACTIVE, ETAGS, IDEMPOTENCY_KEY.encode()})
"""Headers of requests that are not remembered: they are others each time."""

RequestHead = tuple[str, bytes, bytes, tuple[tuple[bytes, bytes], ...]]


class Inputs(NamedTuple):
    """The inputs of a request.

    Attributes:
        texts: `{index: JSON}`.
        fault: why there is no telling them, of a batch.
    """

    texts: Mapping[int, bytes]
    fault: BadRequestError | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request whose head has been read.

    Attributes:
        callees: the procedures that it calls; None where there is none.
        inputs: those that stand in its URL.
        refusal: why it is refused as a whole; None if it is not.
        stored: finds what is stored of its calls, if every result is found by its input alone; else None.
    """

    request: TRPCRequest
    callees: list[Callee | None]
    inputs: Inputs
    refusal: BadRequestError | None = None
    stored: StoredCalls | None = None


def inputs_of(request: TRPCRequest, text: bytes) -> Inputs:
    """Return the inputs of a request, of which the text is given as it was sent."""
    if not request.is_batch:
        return Inputs({0: text})
    try:
        return Inputs(split_inputs(text))
    except BadRequestError as fault:
        return Inputs({}, fault)


def found_by_input(asked: ReadRequest, transformer: Transformer) -> StoredCalls | None:
    """Return what finds the results that are stored, if every one is found by its input alone; else None."""
    found = []
    for index, callee in enumerate(asked.callees):
        if callee is None or callee.context or asked.inputs.fault is not None:
            return None
        endpoint = callee.endpoint
        if not isinstance(endpoint, ProcedureEndpoint) or not endpoint.is_found_by_input:
            return None
        try:
            text = given_input(callee.procedure, transformer, asked.inputs.texts.get(index, b""))
        except BadRequestError:
            return None
        found.append(StoredCall(endpoint, text))
    return StoredCalls(found, transformer, is_batch=asked.request.is_batch)


class SeenRequests:
    """Remembers requests that were read.

    Args:
        read: reads one, by its scope and the path below the prefix; raises where it is refused.
    """

    def __init__(self, read: Callable[[Scope, str], ReadRequest]) -> None:
        self._read = read
        self._seen: dict[RequestHead, ReadRequest] = {}

    def of(self, scope: Scope, name: str) -> ReadRequest:
        """Return a request, read now or before.

        Raises:
            RPCError: it is refused.
        """
        key = _key(scope, name)
        if key is None:
            return self._read(scope, name)
        found = self._seen.get(key)
        if found is None:
            found = self._read(scope, name)
            # An exception that is raised again and again would hold the frames of each time.
            if found.refusal is None and found.inputs.fault is None:
                self._remember(key, found)
        return found

    def _remember(self, key: RequestHead, found: ReadRequest) -> None:
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen[key] = found


def _key(scope: Scope, name: str) -> RequestHead | None:
    """Return by what a request is remembered; None if it is not."""
    raw_path, query = scope.get("raw_path") or b"", scope["query_string"]
    if scope["method"] != "GET" or len(raw_path) + len(query) > MAX_SEEN_BYTES:
        return None
    read = []
    for header in scope["headers"]:
        if header[0] in _READ:
            read.append(tuple(header))
        elif header[0] in _UNSEEN:
            return None
    return name, raw_path, query, tuple(read)
