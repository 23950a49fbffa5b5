"""What the executor can run as a query: a procedure, a step with a session, an endpoint of the application's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from reactive_rpc.compat.fastapi import Response
from reactive_rpc.errors import DefinitionError, RPCError
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.steps import Wrapper
from reactive_rpc.procedures.topics import KeyedTopic, Topic
from reactive_rpc.procedures.wire_codec import OutputCodec
from reactive_rpc.statements.sessions import AnyAsyncSession, AnySession

__all__ = ["Runnable"]


class RunnableHandler(Protocol):
    """How a function wants to be called."""

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function, or an async generator."""
        ...

    def arguments(self, session: object, ctx: object, input: Any) -> dict[str, Any]:
        """Return its arguments."""
        ...


class Runnable(Protocol):
    """The executor runs it as a query: a procedure, or a step with a session; see `Procedure`."""

    name: str
    dependencies: frozenset[str] | None
    topics: tuple[Topic | KeyedTopic, ...]
    cache: Cache
    is_cached: bool
    response_class: type[Response] | None
    around_computation: tuple[Wrapper, ...]

    @property
    def raises(self) -> tuple[type[RPCError], ...] | None:
        """The errors that it declares; None where its procedures do."""
        ...

    @property
    def session_class(self) -> AnyAsyncSession | AnySession | None:
        """The class of the session that it takes; None if it takes none."""
        ...

    @property
    def function(self) -> Callable[..., Any]:
        """The function that is run."""
        ...

    @property
    def handler(self) -> RunnableHandler:
        """How it wants to be called."""
        ...

    @property
    def output(self) -> OutputCodec:
        """Validates and encodes its result."""
        ...

    @property
    def topic_tables(self) -> frozenset[str]:
        """The names of the declared topics in a log."""
        ...

    def fault(self, message: str, /) -> DefinitionError:
        """Return an error that names it."""
        ...
