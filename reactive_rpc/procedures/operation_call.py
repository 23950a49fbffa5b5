"""The call of a path operation: the cache keeps results of it as of a query's."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Any, Final, Protocol

from reactive_rpc.cache.result import HandlerOutcome, ResultKey
from reactive_rpc.cache.weight import weight_of
from reactive_rpc.clock import Clock
from reactive_rpc.procedures.arguments import Arguments
from reactive_rpc.procedures.execution import Executor
from reactive_rpc.procedures.runnable import Runnable
from reactive_rpc.procedures.running_call import call_depth
from reactive_rpc.statements.recorder import Trace

__all__ = ["OperationCall"]

_SALT: Final = secrets.token_bytes(32)


class OperationRunnable(Runnable, Protocol):
    """A path operation as the executor runs it."""

    path: str


class OperationCall:
    """The call of a path operation, a `cache.result.Computable`.

    Args:
        operation: how it is run.

    Attributes:
        path: its method and its path; no other operation has it.
        key: `(path, nothing, canonical arguments)`.
        wire_key: names the call in events.
        wire_input: None: the client knows it by its URL.
        pushes_results: never: the result is an answer of HTTP, and no value.
    """

    __slots__ = ("_arguments", "_executor", "_operation", "depth", "key", "path")

    is_cached = True
    is_shared = False  # its key may hold credentials, and the columns of a row
    keep = None
    wire_input: Any = None
    pushes_results = False

    def __init__(self, executor: Executor, operation: OperationRunnable, arguments: Arguments) -> None:
        self.path = operation.path
        self.depth = call_depth()
        self._executor = executor
        self._operation = operation
        self._arguments = arguments
        self.key: ResultKey = (operation.path, b"", arguments.compared)

    @property
    def wire_key(self) -> str:
        """24 hexadecimal characters, good in this process: a plain hash would let a client try out secrets."""
        return blake2b(repr(self.key).encode(), digest_size=12, key=_SALT).hexdigest()

    @property
    def held_bytes(self) -> int:
        """The size of key and arguments in memory."""
        return weight_of(self.key) + self._arguments.held_bytes

    async def compute(self, clock: Clock | None = None, trace: Trace | None = None) -> HandlerOutcome:
        """Run the endpoint."""
        return await self._executor.query(
            self.key, self._operation, None, self._arguments, depth=self.depth, clock=clock, trace=trace
        )
