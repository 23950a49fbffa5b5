"""The registry: every procedure under its path, `<group>.<name>`."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from reactive_rpc.dependencies.relations import TableShape
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import DefinitionError, NotFoundError
from reactive_rpc.procedures.mapped_context import mapped_class_in, mapped_context_message, mapped_result_of
from reactive_rpc.procedures.procedure import Procedure

__all__ = ["Functions", "Registry"]

Functions = Mapping[str, Any]
"""`{"agents": {"get_all": procedure}}`, nested as deep as you like."""


class Registry(Mapping[str, Procedure[..., Any]]):
    """`{path: procedure}`, in the order of registration.

    Raises:
        DefinitionError: two functions of one name, a name that no client could spell, something that is no procedure,
            or a handler that takes ctx where there is no context.
    """

    def __init__(self, functions: Functions, *, context: Callable[..., Any] | None) -> None:
        self._procedures: dict[str, Procedure[..., Any]] = {}
        for path, procedure in _flatten(functions, ()):
            if path in self._procedures:
                raise DefinitionError(f"two functions are called {path!r}: rename one of them")
            _check_context(path, procedure, context)
            self._procedures[path] = procedure
        for path in self._procedures:
            group = path.rpartition(".")[0]
            if group in self._procedures:
                raise DefinitionError(f"{group!r} is a function and the group of {path!r}: rename one of them")

    def __getitem__(self, path: str) -> Procedure[..., Any]:
        return self._procedures[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._procedures)

    def __len__(self) -> int:
        return len(self._procedures)

    def find(self, path: str) -> Procedure[..., Any]:
        """Return the procedure at `path`.

        Raises:
            NotFoundError: there is none.
        """
        procedure = self._procedures.get(path)
        if procedure is None:
            raise NotFoundError(f"No procedure found on path {path[:200]!r}", path=path[:200])
        return procedure

    def require_coroutines(self) -> None:
        """Let only handlers through that an async engine can serve.

        Raises:
            DefinitionError: one takes a `Session`; the message names it.
        """
        for path, procedure in self.items():
            if not procedure.handler.is_async:
                raise procedure.fault(
                    f"{path} runs in a thread, which the AsyncEngine that ReactiveRPC was given cannot serve: write it "
                    "as async def with AsyncSession, or give ReactiveRPC the URL in the engine's place"
                )

    @property
    def declared_tables(self) -> frozenset[str]:
        """The tables that procedures declare as dependencies."""
        return frozenset().union(*(procedure.dependencies or () for procedure in self.values()))

    def check_tables(self, tables: Mapping[str, TableShape]) -> None:
        """Hold every declaration against the database's own tables.

        Raises:
            DefinitionError: a dependency or a predicate names a table that is not there; or a topic, one that is.
        """
        for path, procedure in self.items():
            for name in (table.removeprefix(PREFIX) for table in sorted(procedure.topic_tables)):
                if name in tables:
                    raise procedure.fault(
                        f"{path} depends on topic({name!r}), and there is a table of that name, whose writes need no "
                        "topic: declare the table, or give the topic another name"
                    )
            declared = (procedure.dependencies or frozenset()) | procedure.invalidate_when.keys()
            for table in sorted(declared - procedure.topic_tables):
                if table not in tables:
                    known = ", ".join(sorted(tables)) or "none"
                    raise procedure.fault(
                        f"{path} names the unknown table {table!r}: the database has {known}. "
                        "Correct the name, or create the table before the server starts (metadata=SQLModel.metadata)"
                    )


def _flatten(functions: Functions, above: tuple[str, ...]) -> Iterator[tuple[str, Procedure[..., Any]]]:
    for name, value in functions.items():
        parts = (*above, *name.split("."))
        path = ".".join(parts)
        if not all(part.isidentifier() and not keyword.iskeyword(part) and part[0] != "_" for part in parts):
            raise DefinitionError(f"{path!r} is no name that a client can spell: use letters, digits and _")
        if isinstance(value, Mapping):
            yield from _flatten(value, parts)
        elif not isinstance(value, Procedure):
            raise DefinitionError(f"{path!r} is {value!r}: decorate the function with @define_reactive_function")
        elif len(parts) < 2:
            raise DefinitionError(f"{path!r} stands in no group: register it as {{'group': {{{path!r}: ...}}}}")
        else:
            yield path, value


def _check_context(path: str, procedure: Procedure[..., Any], context: Callable[..., Any] | None) -> None:
    handler = procedure.handler
    if handler.takes_context and context is None:
        raise procedure.fault(
            f"{path} takes ctx, and there is none: give ReactiveRPC(context=...) a FastAPI dependency"
        )
    if procedure.scope == "tenant" and context is None:
        raise procedure.fault(f"{path} has scope='tenant', and there is no context: give ReactiveRPC(context=...)")
    if not handler.takes_context or procedure.kind != "query" or procedure.scope != "identity":
        return
    mapped = mapped_class_in(handler.context_type) or mapped_result_of(context)
    if mapped is not None:
        raise procedure.fault(mapped_context_message(path, mapped, context))
    kind = handler.context_type
    if isinstance(kind, type) and not _is_keyed(kind):
        raise procedure.fault(
            f"{path} is cached by its whole context, and {kind.__name__} cannot be compared: make it a frozen "
            "dataclass or a pydantic model, or give scope= a function of ctx"
        )


def _is_keyed(kind: type) -> bool:
    """Tell whether instances can be part of a key, as far as an annotation tells: `Any` shows at the first call."""
    if kind in (Any, object):
        return True
    return dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel | tuple | str | int | dict)
