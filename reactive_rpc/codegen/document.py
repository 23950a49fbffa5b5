"""What an OpenAPI document says about procedures.

A procedure is an operation with the extension `"x-reactive-rpc": {"kind": "query", "path": "a.b"}`; all others are
somebody else's. Input: the query parameters of a GET, the JSON body of a POST, or the property `input` of a multipart
body, whose others are files. Output: the 200 response; with `"binary": true`, bytes; of a subscription, and of a query
with `"streams": true`, it is one of the values that come one after another. With `"case": "camel"`, its names are in
camel case; with `"tracked": true`, its values come with ids. Errors: the other responses, as far as their envelope has
a constant as its `type`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from reactive_rpc.codegen.names import is_attribute, snake_case
from reactive_rpc.errors import DefinitionError
from reactive_rpc.protocol.marks import FILE, TYPE

__all__ = [
    "EXTENSION",
    "REF",
    "DeclaredErrorSchema",
    "Document",
    "FileSchema",
    "JSONSchema",
    "Operation",
    "read_document",
]

JSONSchema = Mapping[str, Any]

EXTENSION: Final = "x-reactive-rpc"
REF: Final = "#/components/schemas/"
_PREFIX: Final = re.compile(r"^.*?/rpc(?=/|$)")
_KINDS: Final = ("query", "mutation", "subscription")
_NOTHING: Final[JSONSchema] = {"type": "null"}
_METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredErrorSchema:
    """An error that procedures declare.

    Attributes:
        type: its name.
        code: of the error.
        details: the schema of its fields, an object.
        description: for the docstring; may be empty.
    """

    type: str
    code: str
    details: JSONSchema
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSchema:
    """A file, or several, that a procedure takes.

    Attributes:
        name: of the part.
        description: for the docstring; may be empty.
    """

    name: str
    is_list: bool
    is_required: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One procedure.

    Attributes:
        path: its name on the wire: `agents.get_all`.
        name: the same as Python spells it.
        is_camel: whether names on the wire are in camel case.
        streams: whether it answers with several values, one after another.
        url: the documented path: `/rpc/agents/get_all`.
        input: the schema of an object; None where it takes nothing.
        files: that it takes beside the input.
        output: the schema of its result, or of one of its values.
        is_binary: whether it answers bytes in the place of a result.
        errors: those that it declares, sorted by name.
        description: for the docstring; may be empty.
        is_tracked: whether its values come with ids.
        is_deprecated: whether nobody should begin to call it.
        anchor: where FastAPI's page of documentation shows it, behind `#`; empty if it is not said.
    """

    path: str
    kind: Literal["query", "mutation", "subscription"]
    streams: bool
    method: Literal["GET", "POST"]
    url: str
    input: JSONSchema | None
    files: tuple[FileSchema, ...]
    output: JSONSchema
    name: str
    is_camel: bool
    is_binary: bool
    errors: tuple[DeclaredErrorSchema, ...]
    description: str
    is_tracked: bool
    is_deprecated: bool
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The part of an OpenAPI document that a client is made of.

    Attributes:
        title: the service's name.
        prefix: the path under which the procedures are: `/rpc`.
        operations: sorted by path.
        components: `{name: schema}`.
        token_url: where OAuth2's password flow posts to; None where the document has none.
    """

    title: str
    prefix: str
    operations: tuple[Operation, ...]
    components: Mapping[str, JSONSchema]
    token_url: str | None

    @property
    def errors(self) -> tuple[DeclaredErrorSchema, ...]:
        """The errors of all operations, each once, sorted by name."""
        found = {error.type: error for operation in self.operations for error in operation.errors}
        return tuple(found[name] for name in sorted(found))


def read_document(document: Mapping[str, Any]) -> Document:
    """Return what `document` declares.

    Raises:
        DefinitionError: there is no procedure, or one that no client can be made of; the message names it.
    """
    components = document.get("components", {})
    schemas = components.get("schemas", {})
    operations = sorted(_operations(document, schemas), key=lambda operation: operation.path)
    if not operations:
        raise DefinitionError(
            f"the document has no operation with {EXTENSION!r}: is it the OpenAPI document of a reactive_rpc server?"
        )
    _check_names(operations)
    _check_errors(operations)
    return Document(
        title=document.get("info", {}).get("title", ""),
        prefix=_common_prefix(operations),
        operations=tuple(operations),
        components=schemas,
        token_url=_token_url(components.get("securitySchemes", {})),
    )


def _operations(document: Mapping[str, Any], schemas: Mapping[str, JSONSchema]) -> Iterator[Operation]:
    for url, item in document.get("paths", {}).items():
        for method in _METHODS:
            operation = item.get(method)
            if operation is not None and EXTENSION in operation:
                yield _operation(url, method.upper(), operation, schemas=schemas)


def _operation(url: str, method: str, operation: JSONSchema, *, schemas: Mapping[str, JSONSchema]) -> Operation:
    extension = operation[EXTENSION]
    where = f"{method} {url}"
    path, kind = extension.get("path"), extension.get("kind")
    if not isinstance(path, str) or kind not in _KINDS:
        raise DefinitionError(
            f"{where}: {EXTENSION} holds a path and a kind, one of {', '.join(map(repr, _KINDS))}: {extension!r}; if a "
            "newer reactive_rpc wrote the document, generate with that release"
        )
    if method not in ("GET", "POST") or (kind == "mutation" and method == "GET"):
        raise DefinitionError(f"{where}: the {kind} {path!r} cannot be called by {method}")
    streams = kind == "subscription" or extension.get("streams") is True
    is_binary, is_camel = extension.get("binary") is True, extension.get("case") == "camel"
    output = _item(where, kind, operation) if streams else _NOTHING if is_binary else _result(operation)
    multipart = _multipart(operation, schemas)
    return Operation(
        path=path,
        kind=kind,
        streams=streams,
        method=cast(Literal["GET", "POST"], method),
        url=url,
        input=_parameters(operation) if method == "GET" else _body(operation, multipart),
        files=tuple(_files(multipart)),
        output=output,
        name=".".join(map(snake_case, path.split("."))) if is_camel else path,
        is_camel=is_camel,
        is_binary=is_binary,
        errors=_errors(operation, schemas),
        description=_description(operation),
        is_tracked=extension.get("tracked") is True,
        is_deprecated=operation.get("deprecated") is True,
        anchor=_anchor(operation),
    )


def _result(operation: JSONSchema) -> JSONSchema:
    """Return the schema of the answer; nothing is null."""
    output = _json_schema(_success(operation))
    return _NOTHING if output is None else output


def _item(where: str, kind: str, operation: JSONSchema) -> JSONSchema:
    """Return the schema of one of the values that come one after another."""
    media_type = "text/event-stream" if kind == "subscription" else "application/jsonl"
    schema = _json_schema(_success(operation), media_type)
    if schema is None:
        raise DefinitionError(
            f"{where}: its 200 response has no schema of {media_type!r}, which says the type of one value; if a newer "
            "reactive_rpc wrote the document, generate with that release"
        )
    return schema


def _success(operation: JSONSchema) -> JSONSchema:
    return cast(JSONSchema, operation.get("responses", {}).get("200", {}))


def _errors(operation: JSONSchema, schemas: Mapping[str, JSONSchema]) -> tuple[DeclaredErrorSchema, ...]:
    found = {}
    contents = [each.get("content", {}) for each in operation.get("responses", {}).values()]
    for schema in [each.get("schema", {}) for content in contents for each in content.values()]:
        for branch in [*schema.get("anyOf", ()), *schema.get("oneOf", ()), schema]:
            error = _error(_resolved(branch, schemas), schemas)
            if error is not None:
                found[error.type] = error
    return tuple(found[name] for name in sorted(found))


def _error(envelope: JSONSchema, schemas: Mapping[str, JSONSchema]) -> DeclaredErrorSchema | None:
    """Return the error that an envelope is of; None if it may be of any."""
    body = _resolved(envelope.get("properties", {}).get("error", {}), schemas)
    fields = body.get("properties", {})
    name, code = fields.get("type", {}).get("const"), fields.get("code", {}).get("const")
    if not isinstance(name, str) or not isinstance(code, str):
        return None
    details = fields.get("details", {})
    return DeclaredErrorSchema(type=name, code=code, details=details, description=body.get("description", ""))


def _resolved(schema: JSONSchema, schemas: Mapping[str, JSONSchema]) -> JSONSchema:
    while "$ref" in schema:
        schema = schemas.get(schema["$ref"].removeprefix(REF), {})
    return schema


def _parameters(operation: JSONSchema) -> JSONSchema | None:
    """Return the query parameters as the schema of one object."""
    parameters = [parameter for parameter in operation.get("parameters", ()) if parameter.get("in") == "query"]
    if not parameters:
        return None
    properties = {parameter["name"]: _described(parameter) for parameter in parameters}
    required = [parameter["name"] for parameter in parameters if parameter.get("required")]
    return {"type": "object", "properties": properties, "required": required}


def _described(parameter: JSONSchema) -> JSONSchema:
    schema = dict(parameter.get("schema", {}))
    if "description" in parameter:
        schema.setdefault("description", parameter["description"])
    return schema


def _body(operation: JSONSchema, multipart: JSONSchema) -> JSONSchema | None:
    """Return the schema of the JSON body, or of the part `input`; that of the value where it may also be null.

    An object of which nothing is said is no input: it stands there for its content type.
    """
    schema = multipart.get("properties", {}).get("input") or _json_schema(operation.get("requestBody", {}))
    if schema is None or schema == {"type": "object"}:
        return None
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    return cast(JSONSchema, branches[0]) if len(branches) == 1 else schema


def _multipart(operation: JSONSchema, schemas: Mapping[str, JSONSchema]) -> JSONSchema:
    """Return the schema of a multipart body, an object with a property for each part; empty if it is another."""
    content = operation.get("requestBody", {}).get("content", {})
    return _resolved(content.get("multipart/form-data", {}).get("schema", {}), schemas)


def _files(multipart: JSONSchema) -> Iterator[FileSchema]:
    for name, part in multipart.get("properties", {}).items():
        is_list = part.get("items", {}).get(TYPE) == FILE
        if is_list or part.get(TYPE) == FILE:
            yield FileSchema(
                name=name,
                is_list=is_list,
                is_required=name in multipart.get("required", ()),
                description=" ".join(str(part.get("description", "")).split()),
            )


def _json_schema(holder: JSONSchema, media_type: str = "application/json") -> JSONSchema | None:
    return cast("JSONSchema | None", holder.get("content", {}).get(media_type, {}).get("schema"))


def _description(operation: JSONSchema) -> str:
    """Return summary and description; the description alone where it begins with the summary."""
    summary, text = operation.get("summary", "").strip(), operation.get("description", "").strip()
    return text if text.startswith(summary) else "\n\n".join(part for part in (summary, text) if part)


def _anchor(operation: JSONSchema) -> str:
    tag, name = next(iter(operation.get("tags", ())), "default"), operation.get("operationId", "")
    return f"/{tag}/{name}" if name else ""


def _check_names(operations: list[Operation]) -> None:
    """Refuse paths that cannot be typed, that are there twice, or that are a procedure and a namespace at once."""
    seen: dict[str, Operation] = {}
    for operation in operations:
        where = f"{operation.method} {operation.url}"
        bad = [name for name in operation.name.split(".") if not is_attribute(name)]
        if bad:
            raise DefinitionError(f"{where}: {bad[0]!r} in {operation.path!r} is no name that Python can spell")
        if operation.path in seen:
            raise DefinitionError(f"{where}: {operation.path!r} is also the name of {seen[operation.path].url}")
        seen[operation.path] = operation
    for operation in operations:
        names = operation.name.split(".")
        for depth in range(1, len(names)):
            namespace = ".".join(names[:depth])
            if namespace in seen:
                raise DefinitionError(
                    f"{operation.method} {operation.url}: {namespace!r} is a procedure and a namespace at once"
                )


def _check_errors(operations: list[Operation]) -> None:
    """Refuse an error that is described in two ways: a client has one class for it."""
    seen: dict[str, DeclaredErrorSchema] = {}
    for operation in operations:
        for error in operation.errors:
            if seen.setdefault(error.type, error) != error:
                raise DefinitionError(
                    f"{operation.method} {operation.url}: the error {error.type!r} is described otherwise elsewhere"
                )


def _common_prefix(operations: list[Operation]) -> str:
    prefixes = {_prefix(operation): operation for operation in operations}
    if len(prefixes) > 1:
        places = ", ".join(f"{operation.url} under {prefix!r}" for prefix, operation in sorted(prefixes.items()))
        raise DefinitionError(f"all procedures belong under one prefix: {places}")
    return next(iter(prefixes))


def _prefix(operation: Operation) -> str:
    """Return the documented path up to `/rpc`; without such a segment, up to the procedure's own name."""
    match = _PREFIX.match(operation.url)
    if match is not None:
        return match.group()
    for own in (operation.path, operation.path.replace(".", "/")):
        if operation.url.endswith(f"/{own}"):
            return operation.url.removesuffix(f"/{own}")
    raise DefinitionError(
        f"{operation.method} {operation.url}: there is no '/rpc' in the path, so where is the prefix?"
    )


def _token_url(schemes: JSONSchema) -> str | None:
    """Return where the first password flow posts to, by the scheme's name."""
    for _, scheme in sorted(schemes.items()):
        url = scheme.get("flows", {}).get("password", {}).get("tokenUrl")
        if scheme.get("type") == "oauth2" and url:
            return str(url)
    return None
