"""What an OpenAPI document says about procedures.

A procedure is an operation with the extension `"x-reactive-rpc": {"kind": "query" | "mutation", "path": "a.b"}`; all
others are somebody else's. Input: the query parameters of a GET, the JSON body of a POST. Output: the 200 response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from reactive_rpc.codegen.names import is_attribute
from reactive_rpc.errors import DefinitionError

__all__ = ["EXTENSION", "Document", "JSONSchema", "Operation", "read_document"]

JSONSchema = Mapping[str, Any]

EXTENSION: Final = "x-reactive-rpc"
_PREFIX: Final = re.compile(r"^.*?/rpc(?=/|$)")
_METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options", "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One procedure.

    Attributes:
        path: its name: `agents.get_all`.
        url: the documented path: `/rpc/agents/get_all`.
        input: the schema of an object; None where it takes nothing.
        output: the schema of its result.
        description: for the docstring; may be empty.
    """

    path: str
    kind: Literal["query", "mutation"]
    method: Literal["GET", "POST"]
    url: str
    input: JSONSchema | None
    output: JSONSchema
    description: str


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


def read_document(document: Mapping[str, Any]) -> Document:
    """Return what `document` declares.

    Raises:
        DefinitionError: there is no procedure, or one that no client can be made of; the message names it.
    """
    operations = sorted(_operations(document), key=lambda operation: operation.path)
    if not operations:
        raise DefinitionError(
            f"the document has no operation with {EXTENSION!r}: is it the OpenAPI document of a reactive_rpc server?"
        )
    _check_names(operations)
    components = document.get("components", {})
    return Document(
        title=document.get("info", {}).get("title", ""),
        prefix=_common_prefix(operations),
        operations=tuple(operations),
        components=components.get("schemas", {}),
        token_url=_token_url(components.get("securitySchemes", {})),
    )


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for url, item in document.get("paths", {}).items():
        for method in _METHODS:
            operation = item.get(method)
            if operation is not None and EXTENSION in operation:
                yield _operation(url, method.upper(), operation)


def _operation(url: str, method: str, operation: JSONSchema) -> Operation:
    extension = operation[EXTENSION]
    where = f"{method} {url}"
    path, kind = extension.get("path"), extension.get("kind")
    if not isinstance(path, str) or kind not in ("query", "mutation"):
        raise DefinitionError(f"{where}: {EXTENSION} holds a path and a kind, 'query' or 'mutation': {extension!r}")
    if method not in ("GET", "POST") or (kind == "mutation" and method == "GET"):
        raise DefinitionError(f"{where}: the {kind} {path!r} cannot be called by {method}")
    output = _json_schema(operation.get("responses", {}).get("200", {}))
    return Operation(
        path=path,
        kind=kind,
        method=cast(Literal["GET", "POST"], method),
        url=url,
        input=_parameters(operation) if method == "GET" else _body(operation),
        output={"type": "null"} if output is None else output,
        description=_description(operation),
    )


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


def _body(operation: JSONSchema) -> JSONSchema | None:
    """Return the schema of the JSON body; that of the value where the body may also be null.

    An object of which nothing is said is no input: it stands there for its content type.
    """
    schema = _json_schema(operation.get("requestBody", {}))
    if schema is None or schema == {"type": "object"}:
        return None
    branches = [branch for branch in schema.get("anyOf", ()) if branch.get("type") != "null"]
    return cast(JSONSchema, branches[0]) if len(branches) == 1 else schema


def _json_schema(holder: JSONSchema) -> JSONSchema | None:
    return cast("JSONSchema | None", holder.get("content", {}).get("application/json", {}).get("schema"))


def _description(operation: JSONSchema) -> str:
    """Return summary and description; the description alone where it begins with the summary."""
    summary, text = operation.get("summary", "").strip(), operation.get("description", "").strip()
    return text if text.startswith(summary) else "\n\n".join(part for part in (summary, text) if part)


def _check_names(operations: list[Operation]) -> None:
    """Refuse paths that cannot be typed, that are there twice, or that are a procedure and a namespace at once."""
    seen: dict[str, Operation] = {}
    for operation in operations:
        where = f"{operation.method} {operation.url}"
        bad = [name for name in operation.path.split(".") if not is_attribute(name)]
        if bad:
            raise DefinitionError(f"{where}: {bad[0]!r} in {operation.path!r} is no name that Python can spell")
        if operation.path in seen:
            raise DefinitionError(f"{where}: {operation.path!r} is also the name of {seen[operation.path].url}")
        seen[operation.path] = operation
    for operation in operations:
        names = operation.path.split(".")
        for depth in range(1, len(names)):
            namespace = ".".join(names[:depth])
            if namespace in seen:
                raise DefinitionError(
                    f"{operation.method} {operation.url}: {namespace!r} is a procedure and a namespace at once"
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
