"""The exceptions of a client: one for each error that a procedure declares, of the class of its code."""

from __future__ import annotations

from reactive_rpc.codegen.document import DeclaredErrorSchema, Document
from reactive_rpc.codegen.models import Models
from reactive_rpc.codegen.names import TakenNames, camel_case
from reactive_rpc.codegen.spelling import Imports, docstring
from reactive_rpc.errors import RPCError

__all__ = ["Errors"]


class Errors:
    """The module `errors.py`.

    Args:
        document: whose operations declare them.
        models: what reads their fields.

    Attributes:
        classes: `{type: name of its class}`, sorted.
        source: the module, without a header; empty if nothing is declared.
    """

    def __init__(self, document: Document, models: Models) -> None:
        bases = {error.type: _base(error) for error in document.errors}
        names = TakenNames(["models", "TypedError", *bases.values()])
        self._models = models
        self._imports = Imports({"models"}.union(*map(models.field_names, document.errors)))
        self.classes = {error.type: names.take(camel_case(error.type)) for error in document.errors}
        self.source = self._render(document.errors, bases) if document.errors else ""

    def _render(self, errors: tuple[DeclaredErrorSchema, ...], bases: dict[str, str]) -> str:
        self._imports.name("reactive_rpc.client.TypedError")
        blocks = [
            self._class(error, self._imports.name(f"reactive_rpc.errors.{bases[error.type]}")) for error in errors
        ]
        head = [
            '"""The errors that procedures declare: calls raise them, and watches show them."""', "",
            "from __future__ import annotations", "", *self._imports.lines(), "", "from . import models",
        ]  # fmt: skip
        return "\n\n\n".join(["\n".join(head), *blocks]) + "\n"

    def _class(self, error: DeclaredErrorSchema, base: str) -> str:
        self._imports.name(f"reactive_rpc.errors.{base}")
        fields = self._models.error_fields(error, self._imports)
        lines = [f"class {self.classes[error.type]}(TypedError, {base}):"]
        lines += [*docstring(error.description or error.type, 4), "", f"    type = {error.type!r}"]
        if error.code not in RPCError.by_code:
            lines.append(f"    code = {error.code!r}")
        lines.append(f"    details_model = {fields.model}")
        lines += [f"    {name}: {annotation}" for name, annotation in fields.annotations]
        return "\n".join(lines)


def _base(error: DeclaredErrorSchema) -> str:
    return RPCError.by_code.get(error.code, RPCError).__name__
