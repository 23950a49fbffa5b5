"""The router: a FastAPI `APIRouter` whose routes declare, and whose requests take a shorter way.

Each procedure has an ordinary route, so OpenAPI, `include_router(prefix=..., dependencies=...)` and security schemes
work as everywhere in FastAPI. But FastAPI would match and call it in several passes, validate twice and encode what is
encoded already; so the request is handed to the endpoint's dispatcher (`web/routing/table_router.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

from fastapi import Body, Depends, File, Header, Query
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from starlette.responses import JSONResponse, Response

from reactive_rpc.clock import IdSource
from reactive_rpc.compat.fastapi import FastAPIUploadFile, JSONContent
from reactive_rpc.procedures.context_query import ContextDependencies
from reactive_rpc.procedures.dependencies import HandlerDependency
from reactive_rpc.procedures.idempotency import ANONYMOUS_KEY_CHARACTERS, KEY_PATTERN, MAX_KEY_CHARACTERS
from reactive_rpc.procedures.procedure import AnyProcedure
from reactive_rpc.procedures.uploads import FileParameter
from reactive_rpc.protocol.envelopes import ErrorEnvelope
from reactive_rpc.protocol.events import Ack, Polled, SubscriptionRequest, Ticket
from reactive_rpc.protocol.headers import CURSOR, SCOPE, VERSION
from reactive_rpc.protocol.marks import FILE, TYPE
from reactive_rpc.web.routing.dependencies import CONTEXT
from reactive_rpc.web.routing.dispatcher import Endpoint, methods_of
from reactive_rpc.web.routing.documentation import require_documentable
from reactive_rpc.web.routing.error_responses import error_responses
from reactive_rpc.web.routing.openapi_marks import Marked
from reactive_rpc.web.routing.table_router import OF_HANDLER, TableRouter
from reactive_rpc.web.streams.poll import PollRequest
from reactive_rpc.web.streams.sets import QuerySet, StoredSet

__all__ = ["DEFAULT_PREFIX", "DEFAULT_TRPC_PREFIX", "RPCRouter"]

DEFAULT_PREFIX = "/rpc"
DEFAULT_TRPC_PREFIX = "/trpc"

ContextDependency = Callable[..., Any] | None


class RPCRouter(TableRouter):
    """Serves procedures and events under one prefix.

    Args:
        prefix: `/rpc`, usually.
        context: the FastAPI dependency that makes the context; None if there is none.
        contexts: makes those of procedures that have a dependency of their own.
        ids: makes request ids.
        require_open: raises where nothing can be served, as the application was never opened.
    """

    def __init__(
        self,
        prefix: str,
        *,
        context: ContextDependency,
        contexts: ContextDependencies,
        ids: IdSource,
        require_open: Callable[[], None],
    ) -> None:
        super().__init__(ids=ids, require_open=require_open)
        self._base = prefix
        self.context = context
        self._contexts = contexts
        self._examples: list[tuple[bool, dict[str, Any]]] = []

    def add_procedure(self, path: str, procedure: AnyProcedure, endpoint: Endpoint) -> None:
        """Serve `procedure` at `{prefix}/{path}` and document it there.

        Raises:
            DefinitionError: FastAPI could not document it.
        """
        require_documentable(procedure)
        method = methods_of(procedure)[0]
        context = self.context_of(procedure)
        responses: dict[int | str, dict[str, Any]] = {
            **error_responses(procedure.raises, wire_case=procedure.wire_case),
            "default": _FAULT,
        }
        if procedure.is_cached:
            self._examples.append(_example_of(path, procedure))
        binary = procedure.response_class
        if procedure.is_streamed:
            responses[200] = {"description": _STREAMED[procedure.kind]}
        elif binary is not None:
            media_type = binary.media_type or "application/octet-stream"
            responses[200] = {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
        elif procedure.kind == "query":
            responses[200] = {"headers": _MARKED}
            responses[304] = {
                "description": "The result still has the ETag given in If-None-Match.", "headers": _MARKED,
            }  # fmt: skip
        self._document(
            endpoint,
            path,
            _signature(procedure, method, context),
            methods=[method],
            operation_id=path,
            tags=list(procedure.options.tags) or [path.rpartition(".")[0]],
            deprecated=procedure.options.deprecated or None,
            summary=procedure.summary,
            description=procedure.description,
            response_model=None if binary else cast(Any, Annotated)[procedure.handler.output, Marked()],
            response_class=_response_class(procedure),
            responses=responses,
            openapi_extra={
                "x-reactive-rpc": {"kind": procedure.kind, "path": path, **_marks_of(procedure)},
                **_body_of(procedure, method),
            },
        )

    def context_of(self, procedure: AnyProcedure) -> ContextDependency:
        """Return the dependency that makes the context of a procedure; None if it begins with none."""
        if procedure.options.public:
            return None
        own = procedure.chain.dependency
        return self.context if own is None else self._contexts.dependency_of(own)

    def add_events(self, events: Endpoint, *, poll: Endpoint, sets: Endpoint, ticket: Endpoint, ack: Endpoint) -> None:
        """Serve streams at `{prefix}/events`, and what belongs to them below it; after the procedures were added."""
        stream: dict[int | str, dict[str, Any]] = {
            200: {
                "description": "A stream of events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}},
            },
            "default": _FAULT,
        }
        common: dict[str, Any] = {"tags": ["events"], "response_class": Response, "response_model": None}
        watched = self._example()
        body = _parameters(self.context, request=Annotated[SubscriptionRequest, watched])
        self._document(
            events, "events", body, methods=["POST"], operation_id="events", summary="Watch a set of queries",
            description=_EVENTS, responses=stream, **common,
        )  # fmt: skip
        named = [
            *_parameters(self.context, set=Annotated[str, Query(description="The name of a stored set.")]),
            _optional("cursor", str, SubscriptionRequest),
            _optional("ticket", str, Ticket),
        ]
        self._document(
            events, "events", [*named, _optional("acks", bool, SubscriptionRequest)], methods=["GET"],
            operation_id="events_by_set", summary="Watch a stored set of queries", description=_EVENTS,
            responses=stream, **common,
        )  # fmt: skip
        polled: dict[str, Any] = {
            "tags": ["events"], "description": _POLL, "response_model": Polled, "responses": {"default": _FAULT},
        }  # fmt: skip
        self._document(
            poll, "events/poll", _parameters(self.context, request=Annotated[PollRequest, watched]), methods=["POST"],
            operation_id="events_poll", summary="Wait for the next events", **polled,
        )  # fmt: skip
        self._document(
            poll, "events/poll", [*named, _optional("wait", float, PollRequest)], methods=["GET"],
            operation_id="events_poll_by_set", summary="Wait for the next events of a stored set", **polled,
        )  # fmt: skip
        self._document(
            sets, "events/sets", _parameters(self.context, request=Annotated[QuerySet, watched]), methods=["POST"],
            operation_id="events_sets", summary="Store a set of queries for EventSource", description=_SETS,
            tags=["events"], response_model=StoredSet, responses={"default": _FAULT},
        )  # fmt: skip
        self._document(
            ticket, "events/ticket", _parameters(self.context), methods=["POST"], operation_id="events_ticket",
            summary="Get a ticket for EventSource", description=_TICKET, tags=["events"], response_model=Ticket,
            responses={"default": _FAULT}, openapi_extra=_EMPTY_BODY,
        )  # fmt: skip
        self._document(
            ack, "events/ack", _parameters(None, request=Annotated[Ack, _ACK_EXAMPLE]), methods=["POST"],
            operation_id="events_ack", summary="Acknowledge every event up to a cursor", description=_ACK,
            status_code=204, responses={204: {"description": "Noted."}, "default": _FAULT}, **common,
        )  # fmt: skip

    def add_metrics(self, metrics: Endpoint) -> None:
        """Serve `{prefix}/metrics`, undocumented: it is for the monitoring, not for clients."""
        self._document(
            metrics, "metrics", [], methods=["GET"], operation_id="metrics", tags=["monitoring"],
            include_in_schema=False, response_class=Response, response_model=None,
        )  # fmt: skip

    def add_health(self, health: Endpoint, live: Endpoint, ready: Endpoint) -> None:
        """Serve `{prefix}/health`, `/live` and `/ready` below it, undocumented: they are for probes.

        Not without a prefix: `/health` is then the application's own to have.
        """
        if not self._base:
            return
        for name, endpoint in {"health": health, "health/live": live, "health/ready": ready}.items():
            self._document(
                endpoint, name, [], methods=["GET", "HEAD"], operation_id=name.replace("/", "_"), tags=["monitoring"],
                include_in_schema=False, response_class=Response, response_model=None,
            )  # fmt: skip

    def _example(self) -> Any:
        """Return the body of a request that watches a query, one whose input is known where there is such."""
        examples = sorted(self._examples, key=lambda example: not example[0])
        value = {"queries": [example for _, example in examples[:1]]}
        return Body(openapi_examples={"a query": {"value": value}})

    def base_of(self, path: str, name: str) -> str:
        """Return what a route's full path, of this name, stands below; without a prefix of ours the path alone is."""
        return path.removesuffix(name) if self._base else path

    def answers_below(self, path: str, name: str) -> bool:
        """Tell whether every path beside this one is ours: without a prefix of our own, it may be anybody's."""
        return bool(self._base)

    def _document(
        self,
        endpoint: Endpoint,
        name: str,
        parameters: list[inspect.Parameter],
        *,
        operation_id: str,
        response_class: type[Response] = JSONResponse,
        **route: Any,
    ) -> None:
        """Add a route that declares an endpoint.

        With an operation id, FastAPI does not ask the application's `generate_unique_id_function`, which may take it
        for granted that every route has tags; with a response class, not its `default_response_class`.
        """
        path = f"{self._base}/{name}"
        endpoint.require_open = self._require_open
        if self._base != DEFAULT_PREFIX:  # there may be another router beside this one, and names must not meet
            operation_id = f"{self._base.strip('/').replace('/', '.')}.{operation_id}".lstrip(".")

        declared = self.declared(path)
        declared.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect
        self._endpoints[path] = endpoint
        self.add_api_route(path, declared, name=name, operation_id=operation_id, response_class=response_class, **route)


_FAULT: dict[str, Any] = {"model": ErrorEnvelope, "description": "What went wrong.", "content": JSONContent()}

_MARKED: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "etag": "Names the result.",
        CURSOR: "The version of the log that the result reflects at most.",
        VERSION: "The one that it reflects exactly; left out where nobody can tell.",
        SCOPE: "Equal for equal identity and tenant; left out where the procedure does not ask who calls.",
    }.items()
}

_EVENTS = """The stream says, each with a JSON object as `data`:

- `connected`, first: the stream's id, its cursor, the keys of the queries, which of them are stale, which were refused;
- `invalidation`: the queries whose result a commit may have changed; fetch them;
- `result`, in its place for procedures that push: the new result of one query;
- `gap`: something was missed; fetch everything again;
- `revoked`, last: the caller may not listen any more.

Each event's `id` is a cursor. A stream that just ends wants the client to come back: send the last `id` as `cursor`, or
as the header `Last-Event-ID`."""

_STREAM_EXAMPLE = """event: connected
id: Kc3dJWp:3
retry: 2817
data: {"stream":"c0tYB8Q2","cursor":"Kc3dJWp:3","queries":["2f5c1d0f"],"stale":[],"errors":[],"version":"Kc3dJWp:3"}

"""

_POLL = """The same events as a stream's, where no stream gets through: `connected`, and what happens while it waits.
It answers at once without a cursor, and where something is stale or refused. Poll again with the answer's cursor."""

_TICKET = """Stands for the credentials of this request, once, in `GET events?ticket=...`, which cannot send headers."""

_SETS = """An EventSource can only GET, so it names the set: `GET events?set=...`. Equal sets have equal names."""

_ACK = """For streams that were asked for with `acks`, at any worker; what is not acknowledged is sent again.
It needs no credentials beside the stream's id. Of a stream that has ended it means nothing, and is no error."""

_ACK_EXAMPLE: Any = Body(
    openapi_examples={"an event": {"value": {"stream": "c0tYB8Q2v2XgJ1aL", "cursor": "Kc3dJWpOHFGvR0hN:3"}}}
)

_IDEMPOTENCY = """Has the call made once: sent again under the same key, with the same input, it is not made again, and
is answered what it was answered the first time. Of a caller whom the context names, shorter keys are taken too."""

_FILE: dict[str, Any] = {
    "type": "string", "format": "binary", "contentMediaType": "application/octet-stream", TYPE: FILE,
}  # fmt: skip


class _EventsResponse(JSONResponse):
    media_type = "text/event-stream"


class _LinesResponse(JSONResponse):
    media_type = "application/jsonl"


_RESPONSES: Mapping[str, type[Response]] = {"subscription": _EventsResponse, "query": _LinesResponse}
_STREAMED: Mapping[str, str] = {
    "subscription": "Server-sent events, each with one value as its data; this is the schema of one.",
    "query": "Lines of JSON, each with one value; this is the schema of one.",
}

_EMPTY_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
"""It means nothing, and must be said to be JSON: that is what other sites' pages may not say. A docs page sends the
content type of a body that is documented, and none without."""


def _marks_of(procedure: AnyProcedure) -> dict[str, Any]:
    """Return what a generator of clients must know, beside the schemas."""
    marks: dict[str, Any] = {}
    if procedure.response_class is not None:
        marks["binary"] = True
    if procedure.is_streamed and procedure.kind == "query":
        marks["streams"] = True
    if procedure.handler.has_ids:
        marks["tracked"] = True
    if procedure.wire_case != "python":
        marks["case"] = procedure.wire_case
    return marks


def _body_of(procedure: AnyProcedure, method: str) -> dict[str, Any]:
    """Return the body in the OpenAPI document, as far as FastAPI does not write it."""
    if procedure.handler.files:
        input = {} if procedure.input is None else {"encoding": {"input": {"contentType": "application/json"}}}
        return {"requestBody": {"content": {"multipart/form-data": input}}}
    return _EMPTY_BODY if method == "POST" and procedure.handler.input_model is None else {}


def _example_of(path: str, procedure: AnyProcedure) -> tuple[bool, dict[str, Any]]:
    """Return how a query is named in a set, and whether its input is known to fit."""
    if procedure.handler.input_model is None:
        return True, {"path": path}
    known = procedure.known_inputs
    return bool(known), {"path": path, "input": dict(known[0]) if known else {}}


def _response_class(procedure: AnyProcedure) -> type[Response]:
    if procedure.response_class is not None:
        return Response
    return _RESPONSES[procedure.kind] if procedure.is_streamed else JSONResponse


def _signature(procedure: AnyProcedure, method: str, context: ContextDependency) -> list[inspect.Parameter]:
    taken = [*_input_and_context(procedure, method, context), *_files(procedure), *_dependencies(procedure)]
    if procedure.kind != "mutation" or procedure.response_class is not None:  # whose answers are not kept
        return taken
    key = Annotated[
        str,  # left out, or a text: a header is never null
        Header(
            alias="Idempotency-Key",
            description=_IDEMPOTENCY,
            min_length=ANONYMOUS_KEY_CHARACTERS,
            max_length=MAX_KEY_CHARACTERS,
            pattern=KEY_PATTERN,
        ),
    ]
    return [*taken, inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, annotation=key, default=None)]


def _files(procedure: AnyProcedure) -> list[inspect.Parameter]:
    """Return the parameters by which FastAPI documents files."""
    return [_file_parameter(each) for each in procedure.handler.files]


def _file_parameter(file: FileParameter) -> inspect.Parameter:
    schema: dict[str, Any] = _FILE
    if file.is_list:
        schema = {"type": "array", "items": _FILE, **({"minItems": 1} if file.is_required else {})}
    # Its type is that of one file also of a list: nothing but the document asks.
    annotation: Any = cast(Any, Annotated)[FastAPIUploadFile, WithJsonSchema(schema), file.mark or File()]
    default = inspect.Parameter.empty if file.is_required else None
    return inspect.Parameter(file.part, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _dependencies(procedure: AnyProcedure) -> list[inspect.Parameter]:
    """Return parameters by which FastAPI documents the headers, cookies and security schemes of dependencies."""
    if procedure.plans is None:
        return []
    body = {each.name for each in procedure.plans.plain.dependencies if _takes_body(each)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(f"{OF_HANDLER}{found.name}", keyword, annotation=cast(Any, Annotated)[Any, found.mark])
        for found in procedure.handler.dependencies
        if found.name not in body  # the body of the document is the input
    ]


def _takes_body(dependency: HandlerDependency) -> bool:
    return any(each.takes.takes_body for each, _ in dependency.walk())


def _input_and_context(procedure: AnyProcedure, method: str, context: ContextDependency) -> list[inspect.Parameter]:
    taken = procedure.input
    if taken is None:
        return _parameters(context)
    if method == "POST":
        parameters = _parameters(context, input=Annotated[taken.model, Body(), Marked()])
        if procedure.handler.files and not any(field.is_required() for field in taken.model.model_fields.values()):
            parameters[0] = parameters[0].replace(default=None)  # the part may be left out
        return parameters
    parameters = [
        _query_parameter(f"field_{number}", name, field, taken.fields[name])
        for number, (name, field) in enumerate(taken.model.model_fields.items())
    ]
    return [*parameters, *_parameters(context)]


def _query_parameter(parameter: str, name: str, field: FieldInfo, schema: Mapping[str, Any]) -> inspect.Parameter:
    described = Query(
        alias=str(field.validation_alias or field.alias or name),
        title=field.title,
        description=field.description,
        openapi_examples={
            str(value): {"value": value} for value in field.examples or ()
        },  # the docs page fills them in
        deprecated=field.deprecated,
    )
    annotation: Any = cast(Any, Annotated)[str, described, Marked(schema)]
    default = inspect.Parameter.empty if field.is_required() else field.get_default()
    return inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _optional(name: str, kind: type, model: type[BaseModel]) -> inspect.Parameter:
    """Return a parameter of the URL that may be left out; `model` has a field of its name that describes it."""
    annotation: Any = cast(Any, Annotated)[kind | None, Query(description=model.model_fields[name].description)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)


def _parameters(context: ContextDependency, **annotations: Any) -> list[inspect.Parameter]:
    """Return keyword parameters of these annotations, and the context's where there is one."""
    if context is not None:
        annotations[CONTEXT] = Annotated[Any, Depends(context)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, keyword, annotation=annotation) for name, annotation in annotations.items()]
