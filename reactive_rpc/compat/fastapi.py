"""What FastAPI does for its own routes, for routes that another dispatcher serves, and for handlers."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from fastapi import BackgroundTasks, params
from fastapi import UploadFile as FastAPIUploadFile
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import (
    get_dependant,
    get_typed_return_annotation,
    get_typed_signature,
    request_body_to_args,
    request_params_to_args,
    solve_dependencies,
)
from fastapi.openapi.models import APIKeyIn
from fastapi.routing import RouteContext, serialize_response
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    HTTPDigest,
    OAuth2,
    OAuth2AuthorizationCodeBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
    SecurityScopes,
)
from fastapi.security.base import SecurityBase
from fastapi.security.http import HTTPBase
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel
from starlette.background import BackgroundTasks as StarletteBackgroundTasks
from starlette.datastructures import UploadFile
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

__all__ = [
    "PLAIN_SCHEMES",
    "BackgroundTasks",
    "FastAPIUploadFile",
    "HTTPConnection",
    "JSONContent",
    "Request",
    "RequestParameters",
    "Response",
    "SecurityScopes",
    "SubDependency",
    "UploadFile",
    "annotations_of",
    "as_coroutine_function",
    "cache_key_of",
    "concurrency_of",
    "depends_in",
    "effective_route",
    "effective_route_of",
    "file_mark_in",
    "is_from_request",
    "notify_route",
    "oauth_scopes_of",
    "own_layers",
    "put_exit_stacks",
    "request_class_in",
    "request_name_of",
    "request_parameters",
    "response_by",
    "response_class_in",
    "response_class_of",
    "result_annotation_of",
    "solve_again",
    "sub_dependencies",
    "way_of_call",
]


@dataclass(frozen=True, slots=True)
class SubDependency:
    """A parameter that FastAPI fills by calling a function.

    Attributes:
        annotation: of the parameter, with its metadata.
        scopes: of `Security(function, scopes=[...])`.
        use_cache: whether the function is called once for all who depend on it.
        has_limit: whether it says how many calls of it may run at once.
        mark: how FastAPI is told all that: `Depends(function)`.
    """

    name: str
    annotation: Any
    function: Callable[..., Any]
    scopes: tuple[str, ...]
    use_cache: bool
    has_limit: bool
    mark: Any


class JSONContent(dict[str, Any]):
    """The `content` of a documented response whose `model` is sent as JSON, whatever the route answers otherwise.

    FastAPI documents each model in `responses` under the media type of the route's response class. It copies this dict
    and asks the copy for that media type by `setdefault`, so the dict answers with its entry of JSON.

    >>> JSONContent().setdefault("text/event-stream", {}), JSONContent({"application/json": 1}).setdefault("text/csv")
    ({}, 1)
    """

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """Return the entry of JSON, whatever `key` is; put `default` there if there is none."""
        return super().setdefault("application/json", default)


def depends_in(name: str, annotation: Any, default: Any) -> SubDependency | None:
    """Return the dependency that a parameter is, by its annotation or by its default; None if it is none.

    >>> def language() -> str: ...
    >>> depends_in("lang", Annotated[str, params.Depends(language)], ...).function.__name__
    'language'
    """
    marks = [mark for mark in (*_metadata(annotation), default) if isinstance(mark, params.Depends)]
    if not marks:
        return None
    mark = marks[-1]
    function = mark.dependency
    if function is None:  # Annotated[Pages, Depends()]
        function = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        mark = dataclasses.replace(mark, dependency=function)
    scopes = tuple(mark.scopes or ()) if isinstance(mark, params.Security) else ()
    has_limit = getattr(mark, "max_concurrency", None) is not None
    return SubDependency(name, annotation, function, scopes, mark.use_cache, has_limit, mark)


def sub_dependencies(function: Callable[..., Any]) -> Iterator[SubDependency]:
    """Yield the parameters of a function that FastAPI fills by calling other functions."""
    for name, parameter in get_typed_signature(function).parameters.items():
        found = depends_in(name, parameter.annotation, parameter.default)
        if found is not None:
            yield found


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return `{parameter: annotation}` as FastAPI resolves them."""
    return {name: each.annotation for name, each in get_typed_signature(function).parameters.items()}


def result_annotation_of(function: Callable[..., Any]) -> Any:
    """Return the annotation of a function's result as FastAPI resolves it; None if there is none."""
    return get_typed_return_annotation(function)


def is_from_request(annotation: Any, default: Any) -> bool:
    """Tell whether a parameter says `Header()`, `Cookie()`, `Query()`, `Path()`, `Body()` or the like."""
    return any(isinstance(mark, params.Param | params.Body) for mark in (*_metadata(annotation), default))


def file_mark_in(annotation: Any, default: Any) -> Any:
    """Return `File(...)` of a parameter, as its annotation or its default says; None if neither does.

    >>> file_mark_in(Annotated[UploadFile, params.File(description="the plan")], ...).description
    'the plan'
    """
    return next((mark for mark in (*_metadata(annotation), default) if isinstance(mark, params.File)), None)


def response_class_in(annotation: Any, depth: int = 5) -> type[Response] | None:
    """Return the class of responses that an annotation is, or has somewhere inside; None if there is none.

    >>> response_class_in(Annotated[Response | None, ...]).__name__
    'Response'
    """
    if isinstance(annotation, type) and issubclass(annotation, Response):
        return annotation
    parts = get_args(annotation) if depth else ()
    return next((found for part in parts if (found := response_class_in(part, depth - 1)) is not None), None)


def request_class_in(kind: object) -> type | None:
    """Return which of the classes that FastAPI gives by annotation alone a class is; None if it is none of them."""
    given = (Request, HTTPConnection, Response, StarletteBackgroundTasks)
    return next((each for each in given if isinstance(kind, type) and issubclass(kind, each)), None)


class RequestParameters:
    """The parameters of one function that are of the request, beside its other dependencies.

    Attributes:
        headers: those that it declares, in lower case.
        cookies: those that it declares.
        others: anything else of the request, as somebody would write it: `Request`, `Query()`.
        has_credentials: whether it is a security scheme, or declares `Authorization`.
        takes_scopes: whether the scopes that it is asked with decide its result.
    """

    def __init__(self, function: Callable[..., Any], dependant: Dependant) -> None:
        self._dependant = dependant
        self.headers = {spelled.lower() for field in dependant.header_params for spelled in _spellings(field)}
        self.cookies = {spelled for field in dependant.cookie_params for spelled in _spellings(field)}
        self.others: list[str] = []
        self.has_credentials = isinstance(function, SecurityBase) or "authorization" in self.headers
        self.takes_scopes = dependant.security_scopes_param_name is not None
        if isinstance(function, SecurityBase):
            self.takes_scopes = True
            self._read_scheme(function)
        elif dependant.request_param_name or dependant.http_connection_param_name:
            self.others.append("Request")
        named = {
            "Response": dependant.response_param_name,
            "BackgroundTasks": dependant.background_tasks_param_name,
            "Query()": dependant.query_params,
            "Path()": dependant.path_params,
            "Body()": [field for field in dependant.body_params if not isinstance(field.field_info, params.Form)],
            "Form()": [field for field in dependant.body_params if type(field.field_info) is params.Form],
            "File()": [field for field in dependant.body_params if isinstance(field.field_info, params.File)],
            "WebSocket": dependant.websocket_param_name,
        }
        self.others += [name for name, taken in named.items() if taken]

    def _read_scheme(self, scheme: SecurityBase) -> None:
        model: Any = getattr(scheme, "model", None)
        if isinstance(scheme, APIKeyHeader | APIKeyCookie | APIKeyQuery):
            if model.in_ is APIKeyIn.query:
                self.others.append("Query()")
            elif model.in_ is APIKeyIn.cookie:
                self.cookies.add(model.name)
            else:
                self.headers.add(model.name.lower())
        elif isinstance(scheme, HTTPBase | OAuth2 | OpenIdConnect):
            self.headers.add("authorization")
        else:
            self.others.append("Request")

    def read(self, request: HTTPConnection) -> tuple[dict[str, Any], list[Any]]:
        """Return `{parameter: value}` of those that it declares, and the faults as FastAPI tells them."""
        values: dict[str, Any] = {}
        faults: list[Any] = []
        dependant = self._dependant
        sources: tuple[tuple[Any, Mapping[str, Any]], ...] = (
            (dependant.path_params, request.path_params),
            (dependant.query_params, request.query_params),
            (dependant.header_params, request.headers),
            (dependant.cookie_params, request.cookies),
        )
        for fields, received in sources:
            if fields:
                found, wrong = request_params_to_args(fields, received)
                values |= found
                faults += wrong
        return values, faults

    @property
    def takes_body(self) -> bool:
        """Whether it declares something of the body."""
        return bool(self._dependant.body_params)

    async def read_body(self, request: Request) -> tuple[dict[str, Any], list[Any]]:
        """Return `{parameter: value}` of those that it declares of the body, and the faults."""
        fields = self._dependant.body_params
        body = await request.body()
        received = await request.json() if body else None
        is_embedded = len(fields) > 1 or bool(getattr(fields[0].field_info, "embed", None))
        return await request_body_to_args(body_fields=fields, received_body=received, embed_body_fields=is_embedded)

    def given(
        self,
        request: HTTPConnection,
        response: Response | None,
        background: BackgroundTasks | None,
        scopes: tuple[str, ...],
    ) -> dict[str, Any]:
        """Return `{parameter: object}` of those that annotations alone ask for."""
        dependant = self._dependant
        named = {
            dependant.request_param_name: request,
            dependant.http_connection_param_name: request,
            dependant.response_param_name: response,
            dependant.background_tasks_param_name: background,
            dependant.security_scopes_param_name: SecurityScopes(list(scopes)),
        }
        return {name: value for name, value in named.items() if name is not None}


def request_parameters(function: Callable[..., Any]) -> RequestParameters:
    """Return the parameters of a function that are of the request.

    Raises:
        Exception: FastAPI cannot call it.
    """
    return RequestParameters(function, get_dependant(path="", call=function))


def _spellings(field: Any) -> Iterator[str]:
    """Yield the names under which a parameter may come, those of its fields if it is a model."""
    annotation = field.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = [each for name, of in annotation.model_fields.items() for each in (name, of.alias) if each]
    else:
        names = [field.alias]
    for name in names:
        yield from (name, name.replace("_", "-"))


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def put_exit_stacks(request: Request, of_request: AsyncExitStack, of_function: AsyncExitStack) -> None:
    """Leave in the scope what `solve_dependencies` closes generators by: after the answer, and after the function."""
    request.scope["fastapi_inner_astack"] = of_request
    request.scope["fastapi_function_astack"] = of_function


def _find_notify() -> Callable[..., None] | None:
    try:
        module: Any = import_module("fastapi.telemetry._api")
    except ImportError:  # an older FastAPI, which has no telemetry
        return None
    found: Callable[..., None] | None = getattr(module, "_route_selected", None)
    return found


_notify = _find_notify()


def notify_route(scope: Scope, path: str) -> None:
    """Tell FastAPI's telemetry, where it is on, which route serves a request: its path as the application has it."""
    if _notify is not None and scope.get("fastapi.telemetry") is not None:
        _notify(scope=scope, path=path)


def as_coroutine_function(function: Callable[..., Any]) -> None:
    """Have FastAPI await the result of a plain function, on the event loop."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # what asyncio looks at


def effective_route(scope: Scope) -> Any:
    """Return the route that serves a request, with all that the routers add which it is included by."""
    route = scope.get("route")
    found = scope.get("fastapi", {}).get("effective_route_context")
    return found if found is not None and found.original_route is route else route


def effective_route_of(context: RouteContext) -> Any:
    """Return the same of a route that `iter_route_contexts` has found."""
    return context._effective_route


def response_class_of(route: Any) -> type[Response]:
    """Return the class of a route's responses."""
    given = route.response_class
    found: type[Response] = given.value if isinstance(given, DefaultPlaceholder) else given
    return found


def response_by(route: Any, content: Any) -> Response:
    """Return the answer of a route whose function has returned `content`, as FastAPI makes it.

    Raises:
        ResponseValidationError: the content does not fit the route's `response_model`.
    """
    if isinstance(content, Response):
        return content
    is_written = route.response_field is not None and isinstance(route.response_class, DefaultPlaceholder)
    written = _result_of(
        serialize_response(
            field=route.response_field,
            response_content=content,
            include=route.response_model_include,
            exclude=route.response_model_exclude,
            by_alias=route.response_model_by_alias,
            exclude_unset=route.response_model_exclude_unset,
            exclude_defaults=route.response_model_exclude_defaults,
            exclude_none=route.response_model_exclude_none,
            is_coroutine=True,
            dump_json=is_written,
        )
    )
    arguments: dict[str, Any] = {} if route.status_code is None else {"status_code": route.status_code}
    if is_written:
        response = Response(written, media_type="application/json", **arguments)
    else:
        response = response_class_of(route)(written, **arguments)
    if not is_body_allowed_for_status_code(response.status_code):
        response.body = b""
    return response


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("FastAPI waits for something where it writes the response of a coroutine function")


async def solve_again(request: Request, route: Any) -> tuple[dict[str, Any], Response] | None:
    """Solve the dependencies of a route once more; return the arguments and the response that they add to.

    None if the request does not fit them, though it was let in by them.

    Raises:
        Exception: whatever a dependency raised.
    """
    solved = await solve_dependencies(
        request=request,
        dependant=route.dependant,
        dependency_overrides_provider=route.dependency_overrides_provider,
        async_exit_stack=request.scope["fastapi_inner_astack"],
        embed_body_fields=route._embed_body_fields,
    )
    return None if solved.errors else (solved.values, solved.response)


PLAIN_SCHEMES: Final[frozenset[Any]] = frozenset({
    APIKeyCookie, APIKeyHeader, APIKeyQuery, HTTPBase, HTTPBasic, HTTPBearer, HTTPDigest, OAuth2,
    OAuth2AuthorizationCodeBearer, OAuth2PasswordBearer, OpenIdConnect,
})  # fmt: skip
"""Security schemes that are awaited, and read headers, cookies and the URL of the connection that they are given."""

_models: Any = import_module("fastapi.dependencies.models")


def _asked(of: Dependant, function: str, attribute: str, **given: Any) -> Any:
    """Return what FastAPI's function tells of a dependant, or the dependant itself, of an older FastAPI."""
    found = getattr(_models, function, None)
    return getattr(of, attribute) if found is None else found(**given)


def way_of_call(dependant: Dependant) -> Literal["generator", "awaited", "threaded"]:
    """Return how FastAPI's solver calls the function of a dependant."""
    call = {"call": dependant.call}
    if _asked(dependant, "_is_gen_callable", "is_gen_callable", **call):
        return "generator"
    if _asked(dependant, "_is_async_gen_callable", "is_async_gen_callable", **call):
        return "generator"
    return "awaited" if _asked(dependant, "_is_coroutine_callable", "is_coroutine_callable", **call) else "threaded"


def cache_key_of(dependant: Dependant) -> Any:
    """Return by what FastAPI's solver knows a dependant that it has called for the same request."""
    return _asked(dependant, "_get_cache_key", "cache_key", dependant=dependant)


def oauth_scopes_of(dependant: Dependant) -> list[str]:
    """Return the scopes that a dependant is asked with."""
    found: list[str] = _asked(dependant, "_get_oauth_scopes", "oauth_scopes", dependant=dependant)
    return found


def concurrency_of(dependant: Dependant) -> Any:
    """Return what bounds the calls of a dependant at one time; None if nothing does."""
    return getattr(dependant, "concurrency", None)


def request_name_of(field: Any) -> str | None:
    """Return the one name by which a parameter is read of a request; None if there may be several."""
    given = field.field_info.validation_alias
    if not (given is None or isinstance(given, str)) or getattr(field, "config", None):
        return None
    name: str = field.validation_alias or field.alias
    return name


def own_layers() -> frozenset[Any]:
    """Return the classes of the layers that FastAPI puts around an application's middlewares, where they do nothing to
    a request by GET that is answered, but watch it.

    An application that limits bodies has further layers within them.
    """
    found = {ServerErrorMiddleware}
    for module, name in _WATCHING_LAYERS:
        try:
            found.add(getattr(import_module(module), name))
        except (ImportError, AttributeError):  # an older FastAPI, which has no such layer
            continue
    return frozenset(found)


_WATCHING_LAYERS: Final = (
    ("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware"),
    ("fastapi._body_limit", "AppBodyLimitMiddleware"),
)
