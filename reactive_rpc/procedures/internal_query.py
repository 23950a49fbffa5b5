"""Queries of the framework's own: the executor runs them like procedures."""

from __future__ import annotations

from reactive_rpc.compat.fastapi import Response
from reactive_rpc.errors import RPCError
from reactive_rpc.procedures.cache_options import Cache
from reactive_rpc.procedures.steps import Wrapper
from reactive_rpc.procedures.topics import KeyedTopic, Topic

__all__ = ["InternalQuery"]


class InternalQuery:
    """A `Runnable` of the executor that nobody has defined as a procedure, so that nothing is declared of it."""

    dependencies: frozenset[str] | None = None
    topics: tuple[Topic | KeyedTopic, ...] = ()
    topic_tables: frozenset[str] = frozenset()
    cache = Cache()
    is_cached = True
    response_class: type[Response] | None = None
    raises: tuple[type[RPCError], ...] | None = None
    around_computation: tuple[Wrapper, ...] = ()
