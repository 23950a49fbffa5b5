"""How a mutation is called, the same with `async` and without: under which key, how it shows, in which turn."""

from __future__ import annotations

from copy import copy
from typing import Generic, Self, TypedDict, TypeVar
from uuid import uuid4

from reactive_rpc.client.optimistic import Optimistic
from reactive_rpc.client.procedure import Procedure

__all__ = ["CallOptions", "MutationModes"]

T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """The keywords of `AsyncClient.call`."""

    idempotency_key: str | None
    optimistic: Optimistic
    in_parallel: bool


class MutationModes(Generic[T]):
    """The part of `Mutation` and `SyncMutation` that is the same.

    Args:
        procedure: the mutation.
        retries: whether each call gets a key of its own, and is sent again if its answer was lost.
    """

    def __init__(self, procedure: Procedure[T], *, retries: bool) -> None:
        self._procedure = procedure
        self._retries = retries
        self._key: str | None = None
        self._in_parallel = False

    def with_idempotency_key(self, key: str) -> Self:
        """Return the mutation to be called under `key`, for whoever must know it to send it once more: a job, say.

        See `AsyncClient.call`.
        """
        keyed = copy(self)
        keyed._key = key
        return keyed

    def in_parallel(self) -> Self:
        """Return the mutation to be called without waiting for earlier ones that change a same query.

        The states are right then, too; the order in which the server makes them is its own.
        """
        parallel = copy(self)
        parallel._in_parallel = True
        return parallel

    def _options(self, optimistic: Optimistic) -> CallOptions:
        key = self._key
        if key is None and self._retries and not self._procedure.is_binary:
            key = uuid4().hex
        return CallOptions(idempotency_key=key, optimistic=optimistic, in_parallel=self._in_parallel)
