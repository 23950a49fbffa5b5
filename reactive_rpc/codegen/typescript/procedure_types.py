"""The types of a document's procedures: named in a namespace for each router, and listed by path.

`agents.get_one` has `agents.get_one_Input`, `agents.get_one_Output` and, if it declares errors, `agents.get_one_Error`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from reactive_rpc.codegen.document import DeclaredErrorSchema, Document, FileSchema, JSONSchema, Operation
from reactive_rpc.codegen.names import TakenNames, camel_case
from reactive_rpc.codegen.spelling import target_of
from reactive_rpc.codegen.typescript.models import NamedTypes
from reactive_rpc.codegen.typescript.text import comment, indented, key, literal
from reactive_rpc.codegen.typescript.type_speller import TypeView

__all__ = [
    "INPUT",
    "JSON_INPUT",
    "JSON_OUTPUT",
    "OUTPUT",
    "ProcedureNames",
    "ProcedureTypes",
    "has_input",
    "may_be_empty",
    "tree",
]

INPUT: Final = TypeView("input", "value")
OUTPUT: Final = TypeView("output", "value")
JSON_INPUT: Final = TypeView("input", "json")
JSON_OUTPUT: Final = TypeView("output", "json")
_FILE: Final = "Blob"
"""The type of a file that is sent; a `File` is one, too."""

_OTHER_ERROR: Final = "OtherError"
_RESERVED: Final = (
    "any", "as", "async", "await", "boolean", "break", "case", "catch", "class", "const", "continue", "debugger",
    "declare", "default", "delete", "do", "else", "enum", "export", "extends", "false", "finally", "for",
    "function", "global", "globalThis", "if", "implements", "import", "in", "instanceof", "interface", "let",
    "module", "namespace", "never", "new", "null", "number", "object", "package", "private", "protected",
    "public", "require", "return", "static", "string", "super", "switch", "symbol", "this", "throw", "true",
    "try", "type", "typeof", "undefined", "unknown", "var", "void", "while", "with", "yield",
)  # fmt: skip
"""Names that no namespace can have, or not in every place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcedureNames:
    """How a procedure's types are called outside of its namespace.

    Attributes:
        input: `void` if it takes nothing.
        error: as JSON carries it: errors have no codec.
    """

    input: str
    output: str
    error: str


@dataclass
class _TypeNamespace:
    """A namespace of types: its declarations, and the namespaces in it by their identifiers."""

    names: TakenNames
    declared: list[str] = field(default_factory=list)
    inner: dict[str, _TypeNamespace] = field(default_factory=dict)


class ProcedureTypes:
    """The declarations of the inputs, outputs and errors of procedures.

    Args:
        document: whose procedures they are.
        models: spells schemas.
        names: which are taken at the top; those of errors, root procedures and namespaces are added.

    Attributes:
        of: `{path: names of its types}`.
    """

    def __init__(self, document: Document, models: NamedTypes, names: TakenNames) -> None:
        self._models = models
        self._errors = document.errors
        self._error_names = {error.type: names.take(camel_case(error.type)) for error in document.errors}
        self._outer = frozenset(names.taken)
        self._top = _TypeNamespace(names)
        self._identifiers: dict[tuple[str, ...], str] = {}
        self.of = {operation.path: self._declare(operation) for operation in document.operations}

    def any_error(self) -> str:
        """Return the union of all errors."""
        return self._union(self._errors)

    def error_declarations(self) -> Iterator[list[str]]:
        """Yield the lines of each declared error's type."""
        for error in self._errors:
            yield [
                *comment(error.description or error.type),
                f"export interface {self._error_names[error.type]} {{",
                *indented(self._error_fields(error)),
                "}",
            ]

    def declarations(self) -> Iterator[list[str]]:
        """Yield the lines of the types of root procedures, and of each namespace."""
        if self._top.declared:
            yield self._top.declared
        for name, inner in sorted(self._top.inner.items()):
            yield ["export declare namespace " + name + " {", *indented(_inside(inner)), "}"]

    def _error_fields(self, error: DeclaredErrorSchema) -> list[str]:
        return [
            f"type: {literal(error.type)};",
            f"code: {literal(error.code)};",
            "message: string;",
            f"details: {self._models.speller(JSON_OUTPUT).spell(error.details)};",
        ]

    def _union(self, errors: Iterable[DeclaredErrorSchema]) -> str:
        """Return the type of some errors, or any that is not declared."""
        return " | ".join([*(self._error_names[error.type] for error in errors), _OTHER_ERROR])

    def _declare(self, operation: Operation) -> ProcedureNames:
        *parents, name = operation.path.split(".")
        namespace, place = self._namespace(tuple(parents))
        output = self._name(namespace, name, "Output")
        input_name = self._name(namespace, name, "Input")
        namespace.declared += self._input(operation, input_name)
        namespace.declared.append(f"export type {output} = {self._output(operation)};")
        error = _OTHER_ERROR
        if operation.errors:
            error_name = self._name(namespace, name, "Error")
            namespace.declared.append(f"export type {error_name} = {self._union(operation.errors)};")
            error = place + error_name
        return ProcedureNames(
            input=place + input_name if has_input(operation) else "void",
            output=place + output,
            error=error,
        )

    def _name(self, namespace: _TypeNamespace, name: str, what: str) -> str:
        return namespace.names.take(re.sub(r"[^A-Za-z0-9_$]", "_", f"{name}_{what}"))

    def _namespace(self, path: tuple[str, ...]) -> tuple[_TypeNamespace, str]:
        """Return the namespace of a router, and the prefix of its names."""
        namespace, place = self._top, ""
        for depth in range(1, len(path) + 1):
            name = self._identifiers.get(path[:depth])
            if name is None:
                name = namespace.names.take(_identifier(path[depth - 1]))
                self._identifiers[path[:depth]] = name
                # INVARIANT (no shadow): names that types in a namespace refer to are taken in it, so none is hidden.
                namespace.inner[name] = _TypeNamespace(TakenNames(self._outer))
            namespace, place = namespace.inner[name], f"{place}{name}."
        return namespace, place

    def _input(self, operation: Operation, name: str) -> list[str]:
        """Return the declaration of a procedure's input; nothing if it takes nothing."""
        speller, schema = self._models.speller(INPUT), operation.input
        files = [line for file in operation.files for line in _file_field(file)]
        if schema is None or "properties" in schema:
            fields = files if schema is None else [*files, *speller.fields(schema, documented=True)]
            return [f"export interface {name} {{", *indented(fields), "}"] if fields else []
        beside = [" & {", *indented(files), "};"] if files else [";"]
        return [f"export type {name} = {speller.spell(schema)}{beside[0]}", *beside[1:]]

    def _output(self, operation: Operation) -> str:
        return "Blob" if operation.is_binary else self._models.speller(OUTPUT).spell(operation.output)


def has_input(operation: Operation) -> bool:
    """Tell whether a procedure takes anything."""
    return bool(operation.files) or (operation.input is not None and operation.input.get("properties") != {})


def may_be_empty(operation: Operation, components: Mapping[str, JSONSchema]) -> bool:
    """Tell whether an input may be left out, as all that it holds has a default."""
    schema = target_of(operation.input or {}, components)
    return "properties" in schema and not schema.get("required") and not any(one.is_required for one in operation.files)


def tree(operations: tuple[Operation, ...], leaf: Callable[[Operation], list[str]]) -> list[str]:
    """Return the lines within the braces of an object type of all procedures, nested by their paths.

    Args:
        operations: sorted by path.
        leaf: returns the lines of one procedure's property.
    """
    return _branch([(operation.path.split("."), operation) for operation in operations], leaf)


def _branch(entries: list[tuple[list[str], Operation]], leaf: Callable[[Operation], list[str]]) -> list[str]:
    lines: list[str] = []
    for name, group in groupby(entries, key=lambda entry: entry[0][0]):
        inner = [(path[1:], operation) for path, operation in group]
        if not inner[0][0]:
            lines += leaf(inner[0][1])
        else:
            lines += [f"{key(name)}: {{", *indented(_branch(inner, leaf)), "};"]
    return lines


def _inside(namespace: _TypeNamespace) -> list[str]:
    lines = list(namespace.declared)
    for name, inner in sorted(namespace.inner.items()):
        lines += [f"export namespace {name} {{", *indented(_inside(inner)), "}"]
    return lines


def _file_field(file: FileSchema) -> list[str]:
    kind = f"{_FILE}[]" if file.is_list else _FILE
    spelled = f"{key(file.name)}: {kind};" if file.is_required else f"{key(file.name)}?: {kind} | undefined;"
    return [*comment(file.description), spelled]


def _identifier(name: str) -> str:
    """Return a part of a path as the name of a namespace, or the first part of a type's."""
    plain = re.sub(r"[^A-Za-z0-9_$]", "_", name)
    return f"{plain}_" if plain in _RESERVED else plain
