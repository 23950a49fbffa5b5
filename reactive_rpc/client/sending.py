"""Send one mutation, again if its answer was lost, and say of a failure whether it can have been done.

"Refused" is said only of a mutation that surely was not done: the answer is a 4xx, or no connection came about.
Anything else may have been done: a cut connection, a gateway's word, a refusal of the second try after a lost first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from reactive_rpc.client.backoff import Backoff
from reactive_rpc.client.retrying import is_transient, retry_after_seconds
from reactive_rpc.client.transport import CallAnswer
from reactive_rpc.clock import Clock
from reactive_rpc.errors import BadRequestError, ConflictError, ReactiveRPCError, RequestTimeoutError, RPCError
from reactive_rpc.protocol.envelopes import http_status

__all__ = ["Sending", "check_key"]

MUTATION_ATTEMPTS: Final = 5
"""How often a mutation that has a key is sent until an answer comes."""

MAX_KEY_CHARACTERS: Final = 255

_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Why a request was not sent at all."""


class Sending:
    """One mutation on its way.

    Args:
        send: sends it once.
        key: its idempotency key; None if it may be sent only once.
        clock: the time of the pauses between two tries.
        backoff: how long they are.
    """

    def __init__(
        self, send: Callable[[], Awaitable[CallAnswer]], key: str | None, *, clock: Clock, backoff: Backoff
    ) -> None:
        self._send = send
        self._key = key
        self._clock = clock
        self._backoff = backoff
        self._may_be_done = False

    async def run(self) -> CallAnswer:
        """Send it until it is answered, a few times; CONFLICT may say that one sent before still runs."""
        for _ in range(MUTATION_ATTEMPTS - 1 if self._key else 0):
            try:
                return await self._send()
            except ReactiveRPCError as error:
                if not (is_transient(error) or (self._backoff.failures and isinstance(error, ConflictError))):
                    raise
                self._may_be_done = self._may_be_done or not self._is_refusal(error)
                await self._clock.sleep(retry_after_seconds(error) + self._backoff.next_delay())
        return await self._send()

    def was_refused(self, error: BaseException) -> bool:
        """Tell whether the mutation, which has failed with this error, was surely not done."""
        return not self._may_be_done and self._is_refusal(error)

    def _is_refusal(self, error: BaseException) -> bool:
        if not isinstance(error, RPCError):
            return isinstance(error.__cause__, _UNSENT)
        # Under a key, CONFLICT may speak of the same mutation, which somebody else has sent and which runs.
        is_open = isinstance(error, RequestTimeoutError) or (self._key is not None and isinstance(error, ConflictError))
        return not is_open and 400 <= http_status(error) < 500


def check_key(key: str, path: str) -> None:
    """Let a text through that can be sent as a header.

    Raises:
        BadRequestError: the key is none.
    """
    if not (key.isascii() and key.isprintable() and 1 <= len(key) <= MAX_KEY_CHARACTERS and key == key.strip()):
        raise BadRequestError(
            f"the idempotency key {key[:80]!r} cannot be sent: use 1 to {MAX_KEY_CHARACTERS} printable ASCII "
            "characters, a UUID for example",
            path=path,
        )
