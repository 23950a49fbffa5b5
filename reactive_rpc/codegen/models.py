"""The models of a client, and how its procedures are typed.

datamodel-code-generator writes the classes: their names' spelling, docstrings, fields, descriptions and enums, of a
document in which no field has a type. `Speller` then spells the types into what it wrote, and into the signatures.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from datamodel_code_generator import GenerateConfig, InputFileType, PythonVersion
from datamodel_code_generator import generate as generate_models
from datamodel_code_generator.enums import DataModelType
from datamodel_code_generator.format import Formatter
from pydantic import BaseModel

from reactive_rpc.codegen.document import REF, DeclaredErrorSchema, Document, JSONSchema, Operation
from reactive_rpc.codegen.names import TakenNames, camel_case, snake_case
from reactive_rpc.codegen.schemas import BOUNDS, Components, mend
from reactive_rpc.codegen.spelling import Imports, Speller, branches_of, item_of, literal, target_of
from reactive_rpc.errors import DefinitionError
from reactive_rpc.protocol.marks import ENUM_NAMES, PAGE, TYPE

__all__ = ["ModelParameter", "Models", "Signature", "render_models"]

_HOLDER: Final = "ReactiveRpcSignatures"
_BASE: Final = "reactive_rpc.client.Model"
_ENUM_BASES: Final = {"str-enum": "enum.StrEnum", "int-enum": "enum.IntEnum"}
_OWN: Final = frozenset({"self", *dir(BaseModel)})
"""What a class of pydantic's has already: a field of such a name is spelled with `_` behind it."""

_RESERVED: Final = (
    "Annotated", "Any", "AsSpelled", "BaseModel", "ConfigDict", "Enum", "Field", "IntEnum", "Literal", "Model",
    "Secret", "StrEnum", "TaggedModel", "TypeAliasType",
)  # fmt: skip
"""What a module of models imports whatever it holds: no model of the service is called so."""


@dataclass(frozen=True, slots=True)
class ModelParameter:
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
    """How a procedure is typed.

    Attributes:
        input_model: None where it takes nothing.
        output: for type checkers.
        validated: the same as it is validated, which may hold more.
        row: how a row is typed, if it answers pages of a list; None if it does not.
    """

    input_model: str | None
    parameters: tuple[ModelParameter, ...]
    output: str
    validated: str
    row: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """The fields of a declared error.

    Attributes:
        model: reads them.
        annotations: `(name, annotation)` of each.
    """

    model: str
    annotations: tuple[tuple[str, str], ...]


def render_models(document: Document) -> Models:
    """Return the models that the document's procedures take and return, and those of their errors.

    Raises:
        DefinitionError: the input of a procedure is no object.
    """
    outputs = [f"output_{number}" for number in range(len(document.operations))]
    outputs += [f"error_{error.type}" for error in document.errors]
    components = mend(_with_holder(document), _HOLDER, returned=outputs)
    is_camel = any(operation.is_camel for operation in document.operations)
    return Models(components, components.pop(_HOLDER)["properties"], is_camel=is_camel)


def _with_holder(document: Document) -> Components:
    """Return the components, one for each inline input, and the holder of all inputs, outputs and errors."""
    components = dict(document.components)
    names = TakenNames([*components, _HOLDER, *(camel_case(name) for name in components)])
    fields: dict[str, JSONSchema] = {}
    for number, operation in enumerate(document.operations):
        fields[f"output_{number}"] = _named(operation.output, f"{operation.path}.output", components, names)
        if operation.input is not None:
            fields[f"input_{number}"] = _named(operation.input, f"{operation.path}.input", components, names)
    for error in document.errors:
        fields[f"error_{error.type}"] = _named(error.details, f"{error.type}Details", components, names)
    components[_HOLDER] = {"type": "object", "properties": fields, "required": list(fields)}
    return components


def _named(schema: JSONSchema, path: str, components: Components, names: TakenNames) -> JSONSchema:
    """Return a reference to a component that holds `schema`, if it is an object with fields."""
    if "properties" not in schema:
        return schema
    name = names.take(camel_case(path))
    components[name] = schema
    return {"$ref": REF + name}


class Models:
    """The module `models.py`, and signatures in its terms.

    Args:
        components: the mended schemas.
        holder: the schema of each input and output, as `input_{number}` and `output_{number}` of the operation, and of
            the fields of each error, as `error_{type}`.
        is_camel: whether fields are in camel case on the wire.

    Attributes:
        classes: the public names, sorted.
        source: the module, without a header.
    """

    def __init__(self, components: Components, holder: Mapping[str, JSONSchema], *, is_camel: bool) -> None:
        self._components = components
        self._holder = holder
        self._is_camel = is_camel
        self._names = _class_names(components)
        self._tree = ast.parse(self._generate())
        self._nodes = {node.name: node for node in self._tree.body if isinstance(node, ast.ClassDef)}
        self._fields = {name: self._fields_of(name) for name in self._objects()}
        self.classes = tuple(sorted(self._names.values()))
        self.source = self._render()

    def signature(self, operation: Operation, number: int, imports: Imports) -> Signature:
        """Return how an operation is typed in another module, in which this one is called `models`."""
        classes = {component: f"models.{name}" for component, name in self._names.items()}
        output = self._holder[f"output_{number}"]
        static = Speller(self._components, classes, imports, static=True)
        validated = Speller(self._components, classes, imports, static=False).spell(output)
        if operation.input is None:
            return Signature(None, (), static.spell(output), validated)
        component = self._holder[f"input_{number}"].get("$ref", "").removeprefix(REF)
        if component not in self._fields:
            raise DefinitionError(
                f"{operation.method} {operation.url}: the input of {operation.path!r} is no object but "
                f"{static.spell(self._holder[f'input_{number}'])!r}; a client can only name the fields of an object"
            )
        parameters = tuple(_parameter(field, static) for field in self._fields[component])
        row = self._row(output, parameters, static)
        return Signature(classes[component], parameters, static.spell(output), validated, row)

    def _row(self, output: JSONSchema, parameters: Iterable[ModelParameter], speller: Speller) -> str | None:
        """Return how a row is typed, if a page is answered for the ends that are given."""
        page = target_of(output, self._components)
        is_paged = page.get(TYPE) == PAGE and {"after", "until", "limit"} <= {one.wire_name for one in parameters}
        return speller.spell(item_of(page)) if is_paged else None

    def error_fields(self, error: DeclaredErrorSchema, imports: Imports) -> ErrorFields:
        """Return the fields of an error as they are typed in another module, in which this one is called `models`.

        Raises:
            DefinitionError: they are no object.
        """
        component = self._holder[f"error_{error.type}"].get("$ref", "").removeprefix(REF)
        if component not in self._fields:
            raise DefinitionError(
                f"the error {error.type!r}: its details are no object, whose fields a client could read"
            )
        classes = {component: f"models.{name}" for component, name in self._names.items()}
        speller = Speller(self._components, classes, imports, static=True)
        annotations = tuple((field.name, self._spelled(field, speller)) for field in self._fields[component])
        return ErrorFields(classes[component], annotations)

    def field_names(self, error: DeclaredErrorSchema) -> set[str]:
        """Return the names of an error's fields, in Python."""
        component = self._holder[f"error_{error.type}"].get("$ref", "").removeprefix(REF)
        return {field.name for field in self._fields.get(component, ())}

    def _objects(self) -> list[str]:
        found = {name: self._components[name] for name in self._names}
        return [name for name, schema in found.items() if "properties" in schema and not _is_alias(schema)]

    def _generate(self) -> str:
        """Return what datamodel-code-generator writes: every class, and no type."""
        skeletons = {
            name: _skeleton(self._components[component])
            for component, name in self._names.items()
            if not _is_alias(self._components[component])
        }
        document = {
            "openapi": "3.1.0",
            "info": {"title": "models", "version": "1"},
            "paths": {},
            "components": {"schemas": dict(sorted(skeletons.items()))},
        }
        if not skeletons:
            return ""
        config = GenerateConfig(
            input_file_type=InputFileType.OpenAPI,
            output_model_type=DataModelType.PydanticV2BaseModel,
            target_python_version=PythonVersion.PY_311,
            base_class=_BASE,
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

    def _fields_of(self, component: str) -> list[_ModelField]:
        schema = self._components[component]
        required = schema.get("required", ())
        found = []
        for line in _own_fields(self._nodes[self._names[component]]):
            name = ast.unparse(line.target)
            wire_name = str(_keyword(line, "alias", name))
            name = self._python_name(name, schema)
            name = f"{name}_" if name in _OWN else name
            found.append(_ModelField(name, wire_name, schema["properties"][wire_name], wire_name in required, line))
        return found

    def _python_name(self, name: str, schema: JSONSchema) -> str:
        spelled = snake_case(name)
        return spelled if self._is_camel and spelled not in schema["properties"] else name

    def _render(self) -> str:
        """Return the module's source."""
        fields = {field.name for fields in self._fields.values() for field in fields}
        classes = {
            component: f"_{name}" if name in fields else name for component, name in self._names.items()
        }  # a class is known by another name where a field is called like it
        imports = Imports({*fields, *self._names.values()})
        speller = Speller(self._components, classes, imports, static=False)
        enums, others = _partition(sorted(self._names), lambda component: _is_enum(self._components[component]))
        blocks = [self._class(component, speller, imports) for component in enums]
        blocks += _lines(_renamed(enums, self._names, classes))  # fields have members of these as their defaults
        blocks += [self._class(component, speller, imports) for component in others]
        blocks += _lines(_renamed(others, self._names, classes))
        blocks += _lines([f"{self._names[component]}.model_rebuild()" for component in sorted(self._fields)])
        head = ["from __future__ import annotations", "", *imports.lines()]
        return "\n".join(head) + "\n\n\n" + "\n\n\n".join(blocks) + "\n"

    def _class(self, component: str, speller: Speller, imports: Imports) -> str:
        schema, name = self._components[component], self._names[component]
        if _is_alias(schema):
            made = imports.name("typing_extensions.TypeAliasType")
            return f"{name} = {made}({name!r}, {speller.spell(schema)!r})"
        node = self._nodes[name]
        if component in self._fields:
            self._type_fields(node, self._fields[component], speller, imports)
        else:
            node.bases = [ast.parse(imports.name(_ENUM_BASES.get(schema.get(TYPE, ""), "enum.Enum")), mode="eval").body]
        return ast.unparse(ast.fix_missing_locations(node))

    def _type_fields(self, node: ast.ClassDef, fields: list[_ModelField], speller: Speller, imports: Imports) -> None:
        """Put the types into a class, in the place of the `Any` that was written."""
        is_tagged = any("const" in field.schema and not field.is_required for field in fields)
        base = "reactive_rpc.client.TaggedModel" if is_tagged else _BASE
        node.bases = [ast.Name(imports.name(base), ast.Load())]
        for part in node.body:
            for called in ast.walk(part):
                if isinstance(called, ast.Name) and called.id == "ConfigDict":
                    called.id = imports.name("pydantic.ConfigDict")
        for field in fields:
            annotation = self._annotation(field, speller, imports)
            field.line.target = ast.Name(field.name, ast.Store())
            field.line.annotation = ast.parse(annotation, mode="eval").body
            default = None if field.is_required else self._default(field.schema, speller, imports)
            field.line.value = None if default is None else ast.parse(default, mode="eval").body

    def _annotation(self, field: _ModelField, speller: Speller, imports: Imports) -> str:
        annotation = self._spelled(field, speller)
        arguments = ", ".join(self._field_arguments(field))
        if not arguments:
            return annotation
        annotated, made = imports.name("typing.Annotated"), imports.name("pydantic.Field")
        return f"{annotated}[{annotation}, {made}({arguments})]"

    def _spelled(self, field: _ModelField, speller: Speller) -> str:
        annotation = speller.spell(field.schema)
        if not field.is_required and not speller.is_nullable(field.schema) and "default" not in field.schema:
            return f"{annotation} | None"  # the server makes the default
        return annotation

    def _field_arguments(self, field: _ModelField) -> list[str]:
        """Return the arguments of `Field(...)`: names on the wire, what was written already, bounds."""
        arguments = [ast.unparse(one) for one in field.written if one.arg != "alias"]
        if field.name != field.wire_name:
            arguments[:0] = [f"validation_alias={field.wire_name!r}", f"serialization_alias={field.wire_name!r}"]
        return arguments + [
            f"{name}={literal(value)}" for name, value in _bounds(field.schema, self._components).items()
        ]

    def _default(self, schema: JSONSchema, speller: Speller, imports: Imports) -> str:
        """Return the source of a default: as a literal, an enum's member, or read from JSON by the field's type."""
        value = schema.get("default")
        if value is None:
            return "None"
        branches = [target_of(one, self._components) for one in branches_of(schema, self._components)]
        plain = [one for one in branches if TYPE not in one and "format" not in one and "properties" not in one]
        if any(_is_plain(value, one) for one in plain) and len(plain) == len(branches):
            return literal(value)
        for one in branches_of(schema, self._components):
            component = one.get("$ref", "").removeprefix(REF)
            member = _member(self._nodes.get(self._names.get(component, "")), value)
            if member is not None and component not in self._fields:
                return f"{speller.spell(one)}.{member}"
        read = f"{imports.name('reactive_rpc.client.default_of')}({speller.spell(schema)}, {json.dumps(value)!r})"
        return f"{imports.name('pydantic.Field')}(default_factory=lambda: {read})"


@dataclass(frozen=True, slots=True)
class _ModelField:
    """One field of a class: `line` is what datamodel-code-generator wrote of it."""

    name: str
    wire_name: str
    schema: JSONSchema
    is_required: bool
    line: ast.AnnAssign

    @property
    def written(self) -> list[ast.keyword]:
        """The arguments of its `Field(...)`."""
        return _keywords(self.line)


def _class_names(components: Components) -> dict[str, str]:
    """Return the name of each component that becomes a class, or an alias that refers to itself."""
    names = TakenNames(_RESERVED)
    return {
        component: names.take(camel_case(component, fallback="Model"))
        for component, schema in sorted(components.items())
        if not _is_alias(schema) or _refers_to_itself(component, components)
    }


def _is_alias(schema: JSONSchema) -> bool:
    return ("properties" not in schema or schema.get(TYPE) == PAGE) and not _is_enum(schema)


def _is_enum(schema: JSONSchema) -> bool:
    return bool(schema.get(TYPE, "").endswith("enum"))


def _partition(names: list[str], is_first: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    return [name for name in names if is_first(name)], [name for name in names if not is_first(name)]


def _renamed(components: list[str], names: Mapping[str, str], classes: Mapping[str, str]) -> list[str]:
    """Return the statements that give classes the names by which fields know them, where these are others."""
    return [f"{classes[one]} = {names[one]}" for one in components if classes[one] != names[one]]


def _lines(statements: list[str]) -> list[str]:
    return ["\n".join(statements)] if statements else []


def _refers_to_itself(component: str, components: Components) -> bool:
    seen: set[str] = set()
    pending = [component]
    while pending:
        for found in _references(components.get(pending.pop(), {})):
            if found == component:
                return True
            if found not in seen:
                seen.add(found)
                pending.append(found)
    return False


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REF)
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _skeleton(schema: JSONSchema) -> JSONSchema:
    """Return a schema without the types of its fields."""
    if "properties" not in schema:
        return {key: schema[key] for key in ("type", "enum", "description", ENUM_NAMES) if key in schema}
    described = ("description", "examples", "deprecated")
    fields = {
        name: {key: field[key] for key in described if key in field} for name, field in schema["properties"].items()
    }
    skeleton = {**schema, "type": "object", "properties": fields}
    if not schema.get("additionalProperties"):
        skeleton.pop("additionalProperties", None)  # what a newer server adds is ignored
    else:
        skeleton["additionalProperties"] = True
    return {key: skeleton[key] for key in _SKELETON if key in skeleton}


_SKELETON: Final = ("type", "properties", "required", "description", "additionalProperties")


def _parameter(field: _ModelField, speller: Speller) -> ModelParameter:
    spelled = speller.spell(field.schema)
    values = speller.values(field.schema)
    more = [values] if values else []
    if _is_secret(field.schema):
        more.append("str")
    if more:
        spelled = " | ".join(
            [spelled.removesuffix(" | None"), *more, *(["None"] if spelled.endswith(" | None") else [])]
        )
    return ModelParameter(field.name, field.wire_name, spelled, field.is_required, _describe(field.schema))


def _is_secret(schema: JSONSchema) -> bool:
    return any(branch.get(TYPE) == "secret" for branch in branches_of(schema, {}))


def _describe(field: JSONSchema) -> str:
    """Return a field's description and default on one line."""
    text = " ".join(str(field.get("description", "")).split())
    default = field.get("default")
    return text if default is None else f"{text} Default: {json.dumps(default, ensure_ascii=False)}.".strip()


def _bounds(schema: JSONSchema, components: Components) -> dict[str, Any]:
    """Return the bounds of a field that is of one type, null aside; more are left to the server."""
    branches = [one for one in branches_of(schema, components) if one.get("type") != "null"]
    if len(branches) != 1 or TYPE in branches[0] or branches[0].get("format"):
        return {}
    found = {name: branches[0][bound] for bound, name in BOUNDS.items() if bound in branches[0]}
    return found if "prefixItems" not in branches[0] else {}


def _is_plain(value: Any, schema: JSONSchema) -> bool:
    """Tell whether a default has the type of a schema as it stands in JSON."""
    kind = schema.get("type")
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if isinstance(value, list):
        items = schema.get("items", {})
        return (
            kind == "array"
            and (not value or ("$ref" not in items and TYPE not in items and "format" not in items))
            and (all(_is_plain(item, items) for item in value))
        )
    if isinstance(value, dict):
        return kind == "object" and not value
    kinds: dict[type, tuple[str, ...]] = {str: ("string",), bool: ("boolean",), int: ("integer",), float: ("number",)}
    return kind in kinds[type(value)]


def _member(node: ast.ClassDef | None, value: Any) -> str | None:
    """Return the member of an enum's class that has a value."""
    for line in node.body if node is not None else ():
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant | ast.UnaryOp):
            found = ast.literal_eval(line.value)
            if found == value and type(found) is type(value):
                return ast.unparse(line.targets[0])
    return None


def _own_fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [
        line
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id != "model_config"
    ]


def _keywords(line: ast.AnnAssign) -> list[ast.keyword]:
    calls: Iterable[ast.AST] = ast.walk(line.annotation)
    return [keyword for call in calls if isinstance(call, ast.Call) for keyword in call.keywords]


def _keyword(line: ast.AnnAssign, name: str, default: object) -> object:
    for keyword in _keywords(line):
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return default
