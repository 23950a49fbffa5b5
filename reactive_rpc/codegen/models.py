"""The models of a client: datamodel-code-generator writes them, and its own output tells how a procedure is typed.

How does a schema read as a Python annotation? Rather than answer that a second time, all inputs and outputs are made
the fields of one more class, `_HOLDER`, which the generator writes with the others; the annotations of its fields are
the signatures, and the class is then cut out. So a signature never disagrees with the models.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from datamodel_code_generator import GenerateConfig, InputFileType, PythonVersion
from datamodel_code_generator import generate as generate_models
from datamodel_code_generator.enums import DataModelType, DefaultValueType
from datamodel_code_generator.format import DatetimeClassType, Formatter

from reactive_rpc.codegen.document import Document, Operation, Schema
from reactive_rpc.codegen.names import Names, camel_case
from reactive_rpc.codegen.schemas import Components, is_nullable, mend
from reactive_rpc.errors import DefinitionError

__all__ = ["Models", "Parameter", "Signature", "import_lines", "render_models"]

_HOLDER: Final = "ReactiveRpcSignatures"
_CAST_IMPORTS: Final = {"Annotated": "typing", "Field": "pydantic", "cast": "typing"}
_REF: Final = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of an input: `name` in Python, `wire_name` in JSON, `annotation` as Python source.

    `description` is what a docstring says of it, on one line; empty where the document says nothing.
    """

    name: str
    wire_name: str
    annotation: str
    is_required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Signature:
    """How a procedure is typed; `input_model` is None where it takes nothing."""

    input_model: str | None
    parameters: tuple[Parameter, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Models:
    """A module of models.

    Attributes:
        source: the module, without a header.
        classes: the public classes, sorted.
        imports: `{name: module}` of what annotations use beside the models.
        signatures: `{path of the procedure: signature}`; the models in them are spelled `models.X`.
    """

    source: str
    classes: tuple[str, ...]
    imports: Mapping[str, str]
    signatures: Mapping[str, Signature]


def render_models(document: Document) -> Models:
    """Return the models that the document's procedures take and return.

    Raises:
        DefinitionError: the input of a procedure is no object.
    """
    outputs = {operation.path: operation.output for operation in document.operations}
    components = mend(_with_holder(document), _HOLDER, returned=outputs)
    module = _Module(_generate(components), components)
    signatures = {
        operation.path: module.signature(operation, number) for number, operation in enumerate(document.operations)
    }
    return Models(module.source(), module.classes(), module.used_imports, signatures)


def _with_holder(document: Document) -> Components:
    """Return the components, one for each inline input, and the holder of all inputs and outputs."""
    components = dict(document.components)
    names = Names([*components, _HOLDER, *(camel_case(name) for name in components)])
    fields: dict[str, Schema] = {}
    for number, operation in enumerate(document.operations):
        if operation.input is not None:
            schema = operation.input
            if "properties" in schema:
                name = names.take(camel_case(operation.path) + "Input")
                components[name] = schema
                schema = {"$ref": _REF + name}
            fields[f"input_{number}"] = schema
        fields[f"output_{number}"] = operation.output
    components[_HOLDER] = {"type": "object", "properties": fields, "required": list(fields)}
    return components


def _generate(components: Components) -> str:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "models", "version": "1"},
        "paths": {},
        "components": {"schemas": dict(sorted(components.items()))},
    }
    config = GenerateConfig(
        input_file_type=InputFileType.OpenAPI,
        output_model_type=DataModelType.PydanticV2BaseModel,
        target_python_version=PythonVersion.PY_311,
        output_datetime_class=DatetimeClassType.Datetime,
        strict_nullable=True,
        deserialize_default_values=[DefaultValueType.Enum],
        collapse_root_models=True,
        use_unique_items_as_set=True,
        formatters=[Formatter.BUILTIN],
        disable_timestamp=True,
        use_annotated=True,
        field_constraints=True,
        use_schema_description=True,
    )
    source = generate_models(json.dumps(document), config=config)
    if not isinstance(source, str):
        raise DefinitionError("the names of the document's schemas hold dots: they would become several modules")
    return source


class _Module:
    """The generated module as a syntax tree."""

    def __init__(self, source: str, components: Components) -> None:
        self.used_imports: dict[str, str] = {}
        self._components = components
        self._tree = ast.parse(source)
        self._classes = {node.name: node for node in self._tree.body if isinstance(node, ast.ClassDef)}
        self._imports = {
            alias.asname or alias.name: node.module or ""
            for node in self._tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self._holder = {_target(node): node.annotation for node in _own_fields(self._classes.pop(_HOLDER))}

    def classes(self) -> tuple[str, ...]:
        """Return the names of the models."""
        return tuple(sorted(self._classes))

    def source(self) -> str:
        """Return the module without the holder and without what only the holder needed."""
        body = [node for node in self._tree.body if not _is_about_holder(node)]
        needs_cast = False
        for node in body:
            if isinstance(node, ast.ClassDef):
                for line in _own_fields(node):
                    needs_cast = _mend_default(line) or needs_cast
        modules = {**self._imports, **(_CAST_IMPORTS if needs_cast else {})}
        statements = [node for node in body if not isinstance(node, ast.ImportFrom | ast.Import)]
        used = {node.id for one in statements for node in ast.walk(one) if isinstance(node, ast.Name)}
        head = "from __future__ import annotations\n\n" + import_lines(modules, used)
        return head + "\n\n" + ast.unparse(ast.fix_missing_locations(ast.Module(statements, []))) + "\n"

    def signature(self, operation: Operation, number: int) -> Signature:
        """Return how the operation is typed."""
        output = self._spell(self._holder[f"output_{number}"])
        if operation.input is None:
            return Signature(None, (), output)
        annotation = _plain(self._holder[f"input_{number}"])
        if not (isinstance(annotation, ast.Name) and annotation.id in self._classes):
            raise DefinitionError(
                f"{operation.method} {operation.url}: the input of {operation.path!r} is no object but "
                f"{ast.unparse(annotation)!r}; a client can only name the fields of an object"
            )
        schema = self._schema_of(operation, number)
        parameters = tuple(self._parameter(line, schema) for line in self._fields(annotation.id))
        return Signature(f"models.{annotation.id}", parameters, output)

    def _schema_of(self, operation: Operation, number: int) -> Schema:
        """Return the mended schema of the operation's input."""
        holder = self._components[_HOLDER]["properties"]
        reference = holder[f"input_{number}"].get("$ref", "")
        return self._components.get(reference.removeprefix(_REF), {})

    def _fields(self, class_name: str) -> Iterator[ast.AnnAssign]:
        """Yield the fields of a class, those of its bases first."""
        node = self._classes[class_name]
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self._classes:
                yield from self._fields(base.id)
        yield from _own_fields(node)

    def _parameter(self, line: ast.AnnAssign, schema: Schema) -> Parameter:
        name = _target(line)
        wire_name = _alias(line.annotation) or name
        is_required = line.value is None
        annotation = _plain(line.annotation)
        declared = schema.get("properties", {}).get(wire_name)
        if not is_required and declared is not None and not is_nullable(declared, self._components):
            annotation = _without_none(annotation)
        spelled = self._spell(annotation)
        description = _describe(declared or {})
        return Parameter(f"{name}_" if name == "self" else name, wire_name, spelled, is_required, description)

    def _spell(self, annotation: ast.expr) -> str:
        """Return the annotation as source for another module: models qualified, imports noted."""
        plain = _plain(annotation)
        for node in ast.walk(plain):
            if isinstance(node, ast.Name) and node.id in self._imports:
                self.used_imports[node.id] = self._imports[node.id]
        return ast.unparse(_Qualify(self._classes).visit(plain))


class _Qualify(ast.NodeTransformer):
    """Spell `X` as `models.X` where X is a model."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._classes = classes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._classes:
            return node
        return ast.Attribute(ast.Name("models", ast.Load()), node.id, ast.Load())


class _Unannotate(ast.NodeTransformer):
    """Turn `Annotated[X, ...]` into X."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node


def _plain(annotation: ast.expr) -> ast.expr:
    copy = ast.parse(ast.unparse(annotation), mode="eval").body
    plain: ast.expr = _Unannotate().visit(copy)
    return plain


def _without_none(annotation: ast.expr) -> ast.expr:
    """Return `X` of `X | None`."""
    match annotation:
        case ast.BinOp(left=left, right=ast.Constant(value=None)):
            return left
    return annotation


def _describe(field: Schema) -> str:
    """Return a field's description and default on one line."""
    text = " ".join(str(field.get("description", "")).split())
    default = field.get("default")
    return text if default is None else f"{text} Default: {json.dumps(default, ensure_ascii=False)}.".strip()


def _own_fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [
        line
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id != "model_config"
    ]


def _target(line: ast.AnnAssign) -> str:
    return ast.unparse(line.target)


def _alias(annotation: ast.expr) -> str | None:
    """Return the `alias=` of the field."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.keyword) and node.arg == "alias" and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return None


def _is_about_holder(node: ast.stmt) -> bool:
    if isinstance(node, ast.ClassDef):
        return node.name == _HOLDER
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith(f"{_HOLDER}.")


def import_lines(modules: Mapping[str, str], names: Iterable[str]) -> str:
    """Return the import statements of those `names` that are in `modules` (`{name: module}`), sorted."""
    by_module: dict[str, list[str]] = {}
    for name in sorted(set(names) & modules.keys()):
        by_module.setdefault(modules[name], []).append(name)
    return "\n".join(f"from {module} import {', '.join(found)}" for module, found in sorted(by_module.items()))


def _mend_default(line: ast.AnnAssign) -> bool:
    """Cast a default that is JSON and not yet of the field's type ('PT1S' for a timedelta); tell whether it was one.

    pydantic then turns it into the type when it is used (`validate_default`).
    """
    value, names = line.value, {node.id for node in ast.walk(_plain(line.annotation)) if isinstance(node, ast.Name)}
    if value is None or _fits(value, names):
        return False
    validate = ast.keyword("validate_default", ast.Constant(True))
    calls = [node for node in ast.walk(line.annotation) if isinstance(node, ast.Call)]
    outermost = next((call for call in calls if ast.unparse(call.func) == "Field"), None)
    spelled = ast.unparse(_plain(line.annotation))
    if outermost is None or not isinstance(line.annotation, ast.Subscript):
        outermost = ast.Call(ast.Name("Field", ast.Load()), [], [])
        pair = ast.Tuple([line.annotation, outermost], ast.Load())
        line.annotation = ast.Subscript(ast.Name("Annotated", ast.Load()), pair, ast.Load())
    if all(keyword.arg != "validate_default" for keyword in outermost.keywords):
        outermost.keywords.append(validate)
    line.value = ast.Call(ast.Name("cast", ast.Load()), [ast.Constant(spelled), value], [])
    return True


def _fits(value: ast.expr, names: set[str]) -> bool:
    """Tell whether a default surely has a type among `names`, the names that the annotation uses."""
    match value:
        case ast.Constant(value=constant):
            kinds = {type(constant).__name__, "Any", "Literal"} | ({"float"} if type(constant) is int else set())
            return constant is None or bool(kinds & names)
        case ast.List(elts=parts):
            return "list" in names and all(_fits(part, names) for part in parts)
        case ast.Set(elts=parts):
            return "set" in names and all(_fits(part, names) for part in parts)
        case ast.Dict(values=parts):
            return "dict" in names and all(_fits(part, names) for part in parts)
        case ast.UnaryOp(operand=operand):
            return _fits(operand, names)
    return True
