"""The registry: every procedure under its path, `<group>.<name>`."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, TypeAlias

from reactive_rpc.dependencies.relations import TableShape
from reactive_rpc.dependencies.topics import PREFIX
from reactive_rpc.errors import DefinitionError, NotFoundError, RPCError
from reactive_rpc.procedures.declared_errors import DeclaredError
from reactive_rpc.procedures.definer import root_of
from reactive_rpc.procedures.procedure import AnyProcedure, Procedure
from reactive_rpc.procedures.session_steps import SessionSteps
from reactive_rpc.procedures.wire_case import camel_path, in_camel_case, to_camel

__all__ = ["Functions", "Registry", "WireCase", "procedures_of"]

Functions = Sequence[ModuleType] | Mapping[str, Any]
"""`[agents, messages]`, modules; or `{"agents": agents, "v2": {"agents": {"get_all": procedure}}}`, of any depth."""


WireCase: TypeAlias = Literal["python", "camel"]
"""How names are spelled on the wire."""


class Registry(Mapping[str, AnyProcedure]):
    """`{path: procedure}`, in the order of registration, with their names on the wire.

    Attributes:
        context: the application's dependency that tells who calls; None if it has none.
        spell: gives the name on the wire of a name in Python.
        session_steps: what stands for the steps with a session.

    Raises:
        DefinitionError: two functions of one name, or two declared errors; a name that no client could spell, something
            that is no procedure, or a procedure that asks who calls where nothing tells.
    """

    def __init__(
        self, functions: Functions, *, context: Callable[..., Any] | None, wire_case: WireCase = "python"
    ) -> None:
        self.context = context
        self._procedures: dict[str, AnyProcedure] = {}
        self._paths: dict[int, str] = {}
        self.spell: Callable[[str], str] = to_camel if wire_case == "camel" else str
        for name, procedure in _flatten(functions, ()):
            path = camel_path(name) if wire_case == "camel" else name
            if path in self._procedures:
                raise DefinitionError(f"two functions are called {path!r}: rename one of them")
            _check_context(path, procedure, context)
            self._procedures[path] = in_camel_case(path, procedure) if wire_case == "camel" else procedure
            self._paths.setdefault(id(procedure), path)
        for path in self._procedures:
            group = path.rpartition(".")[0]
            if group in self._procedures:
                raise DefinitionError(f"{group!r} is a function and the group of {path!r}: rename one of them")
        _check_errors(self)
        self.session_steps = SessionSteps(step for each in self.values() for step in each.chain.steps)

    def __getitem__(self, path: str) -> AnyProcedure:
        return self._procedures[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._procedures)

    def __len__(self) -> int:
        return len(self._procedures)

    def find(self, path: str) -> AnyProcedure:
        """Return the procedure at `path`.

        Raises:
            NotFoundError: there is none.
        """
        procedure = self._procedures.get(path)
        if procedure is None:
            raise NotFoundError(f"No procedure found on path {path[:200]!r}", path=path[:200])
        return procedure

    def path_of(self, procedure: object) -> str:
        """Return the path of a procedure: the first, if it has several.

        Raises:
            DefinitionError: it has none.
        """
        path = self._paths.get(id(procedure))
        if path is None:
            raise DefinitionError(
                f"{procedure!r} is no procedure of this application: give a decorated function that stands in its "
                "functions="
            )
        return path

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


def _flatten(functions: Functions, above: tuple[str, ...]) -> Iterator[tuple[str, AnyProcedure]]:
    for name, value in _named(functions):
        parts = (*above, *name.split("."))
        path = ".".join(parts)
        if not all(part.isidentifier() and not keyword.iskeyword(part) and part[0] != "_" for part in parts):
            raise DefinitionError(f"{path!r} is no name that a client can spell: use letters, digits and _")
        if isinstance(value, ModuleType):
            yield from _flatten(procedures_of(value), parts)
        elif isinstance(value, Mapping):
            yield from _flatten(value, parts)
        elif not isinstance(value, Procedure):
            raise DefinitionError(f"{path!r} is {value!r}: decorate the function with @define_reactive_function")
        elif len(parts) < 2:
            raise DefinitionError(f"{path!r} stands in no group: register it as {{'group': {{{path!r}: ...}}}}")
        else:
            yield path, value


def _named(functions: Functions) -> Iterator[tuple[str, Any]]:
    if isinstance(functions, Mapping):
        yield from functions.items()
        return
    for module in functions:
        if not isinstance(module, ModuleType):
            raise DefinitionError(f"functions=[{module!r}]: list modules, or give {{'group': {{'name': procedure}}}}")
        yield module.__name__.rpartition(".")[2], module


def procedures_of(module: ModuleType) -> dict[str, AnyProcedure]:
    """Return `{name: procedure}` of those that a module defines, in their order; those it imports are another's.

    Raises:
        DefinitionError: it defines none.
    """
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Procedure) and value.function.__module__ == module.__name__ and not name.startswith("_")
    }
    if not found:
        raise DefinitionError(
            f"module {module.__name__} defines no procedure: decorate a function in it, or leave the module out"
        )
    return found


def _check_errors(procedures: Mapping[str, AnyProcedure]) -> None:
    """Let each declared error have a name of its own: clients know them by it."""
    known: dict[str, type[RPCError]] = {}
    for path, procedure in procedures.items():
        for error in procedure.raises:
            if issubclass(error, DeclaredError) and known.setdefault(error.__name__, error) is not error:
                other = known[error.__name__]
                raise procedure.fault(
                    f"{path} raises {error.__module__}.{error.__qualname__}, and there is another error of that name, "
                    f"{other.__module__}.{other.__qualname__}: rename one of them, clients know them by their names"
                )


def _check_context(path: str, procedure: AnyProcedure, context: Callable[..., Any] | None) -> None:
    if procedure.options.public or procedure.chain.dependency is not None:
        return
    chain = procedure.chain
    if context is None:
        if procedure.asks_who_calls:
            raise procedure.fault(
                f"{path} asks who calls, and nothing tells: give ReactiveRPC(context=...) a FastAPI dependency"
            )
        return
    returned = root_of(context)
    if not issubclass(returned, chain.root):
        raise procedure.fault(
            f"{path} begins with a {chain.root.__name__}, and ReactiveRPC(context=...) returns a {returned.__name__}: "
            f"define it by define_reactive_function.context({returned.__name__}), or let the dependency return that"
        )
