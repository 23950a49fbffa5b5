"""The short way of a request by GET that was read before: its calls are answered by what is stored, without being made.

It looks at the log as every request does, and then awaits nothing. What it leaves out is the same each time for the
same request: its head is read, its inputs are decoded and the headers of its answer are spelled already. Both ways
answer the same bytes: `tests/integration/trpc/test_stored_calls.py` plays requests on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.types import Scope

from reactive_rpc.cache.result import CachedResult, ResultKey
from reactive_rpc.errors import ServiceUnavailableError
from reactive_rpc.procedures.running_call import current_call
from reactive_rpc.web.routing.conditions import is_held, is_server_request, required_freshness
from reactive_rpc.web.routing.dispatcher import ProcedureEndpoint
from reactive_rpc.web.routing.responses import REVALIDATE, Answer, Headers
from reactive_rpc.web.trpc.envelopes import JSON, UNSTORED
from reactive_rpc.web.trpc.transformers import Transformer

__all__ = ["StoredCall", "StoredCalls"]

NONE_STORED: Final[Sequence[CachedResult | None]] = ()


class StoredCall:
    """A call whose stored result is found by its input alone.

    Args:
        endpoint: of its procedure.
        text: its input as JSON.

    Attributes:
        known_key: what `key` returns, once it is not None.
    """

    __slots__ = ("_etag", "_headers", "_token", "endpoint", "known_key", "text")

    def __init__(self, endpoint: ProcedureEndpoint, text: bytes) -> None:
        self.endpoint = endpoint
        self.text = text
        self.known_key: ResultKey | None = None
        self._etag = ""
        self._token = ""
        self._headers: Headers = ()

    def key(self) -> ResultKey | None:
        """Return where its result is stored; None as long as the input has not been decoded once."""
        if self.known_key is None:
            self.known_key = self.endpoint.key_of(self.text)
        return self.known_key

    def headers(self, result: CachedResult, token: str) -> Headers:
        """Return the headers of an answer that is this result alone, in the step that found it.

        Args:
            token: the cursor of an answer that is sent now.
        """
        # INVARIANT (compared as objects, which are held here): a result that was computed anew has another object for
        # its ETag, and the token is the same object only while the log stands still. A result that is stored says of
        # itself the same until then.
        if result.etag is not self._etag or token is not self._token:
            said = self.endpoint.said_of(result)
            self._headers = (*JSON, (b"etag", result.etag.encode()), REVALIDATE, *said)
            self._etag, self._token = result.etag, token
        return self._headers


class StoredCalls:
    """The calls of one request, each found by its input alone.

    Args:
        calls: in their order; one at least.
        is_batch: whether the answer is a list.
        transformer: of the mount.
    """

    __slots__ = ("_is_batch", "_is_by_token", "_reader", "_transformer", "calls")

    def __init__(self, calls: Sequence[StoredCall], transformer: Transformer, *, is_batch: bool) -> None:
        self.calls = calls
        self._is_batch = is_batch
        self._is_by_token = all(call.endpoint.by_token for call in calls)
        self._reader = calls[0].endpoint.reader
        self._transformer = transformer

    async def results(self, scope: Scope) -> Sequence[CachedResult | None]:
        """Return what is stored of each call, None where it has to be made; nothing if all have to be.

        The log is read once, and then nothing is awaited: so they are right at one version of it, and no task is made.
        """
        if current_call() is not None:
            return NONE_STORED  # what a call asks for within this process counts as read by it
        reader = self._reader
        freshness = required_freshness(scope, by_token=self._is_by_token, is_shared=is_server_request())
        try:
            await reader.read_log(freshness)
        except ServiceUnavailableError:
            return NONE_STORED  # each call says what it may answer in an outage
        found: list[CachedResult | None] = []
        for call in self.calls:
            key = call.known_key or call.key()
            found.append(None if key is None else reader.stored(key))
        return found

    def answer(self, results: Sequence[CachedResult | None], scope: Scope) -> Answer | None:
        """Return the answer that results are, in the step that found them; None if one is missing, or is an error."""
        bodies = []
        for result in results:
            if result is None or result.outcome is None or result.outcome.error is not None:
                return None
            bodies.append(result.outcome.body)
        if not bodies:
            return None
        if self._is_batch:  # whose headers speak of no result
            return Answer(200, self._envelopes(bodies), UNSTORED)
        [call], [result] = self.calls, results
        if result is None:
            return None
        headers = call.headers(result, self._reader.freshness.token)
        if is_held(scope, result.etag.encode()):
            return Answer(304, b"", headers)
        return Answer(200, self._envelope(call, bodies[0]), headers)

    def _envelopes(self, bodies: list[bytes]) -> bytes:
        if self._transformer.is_plain:  # in one step, as it is the most of a batch's work
            return b'[{"result":{"data":%b}}]' % b'}},{"result":{"data":'.join(bodies)
        return b"[%b]" % b",".join(map(self._envelope, self.calls, bodies))

    def _envelope(self, call: StoredCall, body: bytes) -> bytes:
        return b'{"result":{"data":%b}}' % self._transformer.value(body, call.endpoint.path)
