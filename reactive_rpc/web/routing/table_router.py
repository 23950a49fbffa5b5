"""A router of FastAPI's whose requests take a shorter way: by one look-up in a table, to whatever serves the path.

The table is made of FastAPI's own effective routes, with their full paths and their dependants, so
`include_router(prefix=..., dependencies=...)` works as everywhere in FastAPI. A *mount* is all that stands below a
path: another wire, which reads the rest of the path itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from operator import is_not
from typing import Any, NamedTuple, NoReturn, Protocol

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from reactive_rpc.clock import IdSource
from reactive_rpc.errors import NotFoundError
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.stored_answers import BEGUN
from reactive_rpc.web.routing.telemetry import name_route

__all__ = ["OF_HANDLER", "Mount", "MountPlace", "TableRouter", "Target"]

OF_HANDLER = "reactive_rpc_handler_"
"""What the names of parameters begin with through which a documented route shows dependencies of the handler."""


class Target(NamedTuple):
    """What serves one full path.

    Attributes:
        dependencies: what FastAPI says it depends on.
        path: the full path; empty where no route declares it.
        route: as FastAPI has it, with the full path.
        function: which stands for the endpoint in the route.
    """

    endpoint: Endpoint
    dependencies: list[Dependant]
    path: str = ""
    route: object = None
    function: object = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whoever watches the application is told which route it took."""
        if BEGUN not in scope:
            self.name(scope)
        await self.endpoint(scope, receive, send, self.dependencies)

    def name(self, scope: Scope) -> None:
        """Tell whoever watches the application which route a request takes."""
        if self.path:
            name_route(scope, self.path, self.route, self.function)


class Mount(Protocol):
    """Serves all that stands below a path."""

    @property
    def prefix(self) -> str:
        """The path, as the router has it, without a slash at its end."""
        ...

    @property
    def names(self) -> Collection[str]:
        """What it serves below, as far as it can be listed."""
        ...

    def knows(self, name: str) -> bool:
        """Tell whether a path below names something that it serves; of an application's own there it does not."""
        ...

    async def serve(self, scope: Scope, receive: Receive, send: Send, *, place: MountPlace) -> None:
        """Answer a request of HTTP."""
        ...


class MountPlace(NamedTuple):
    """Where a mount stands in an application.

    Attributes:
        path: the full path, which ends in a slash.
        dependencies: those that FastAPI says everything below has.
        route: as FastAPI has it, with the full path.
        function: which stands for the mount in the route.
    """

    mount: Mount
    path: str
    dependencies: list[Dependant]
    route: object
    function: object

    def serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request."""
        return self.mount.serve(scope, receive, send, place=self)

    def name_of(self, scope: Scope) -> str:
        """Return the path of a request below this one."""
        return route_path(scope).removeprefix(self.path)


class _UnknownPath(Endpoint):
    """Answers for a path under the prefix that is no procedure."""

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> NoReturn:
        """Say so."""
        raise NotFoundError(f"No procedure found on path {self.path!r}")


class TableRouter(APIRouter):
    """Serves endpoints, each at its path, and mounts.

    Args:
        ids: makes request ids.
        require_open: raises where nothing can be served, as the application was never opened.
    """

    MARK = "reactive_rpc_router"
    """The attribute by which a route's function names its router."""

    def __init__(self, *, ids: IdSource, require_open: Callable[[], None]) -> None:
        super().__init__()
        self._ids = ids
        self._require_open = require_open
        self._endpoints: dict[str, Endpoint] = {}
        self._mounts: dict[str, Mount] = {}
        self._targets: dict[str, Target | MountPlace] = {}
        self._bases: set[str] = set()
        self._places: dict[str, MountPlace] = {}
        self._built_for: object = None
        self._built_of: list[object] = []

    def add_mount(self, mount: Mount) -> None:
        """Serve all that stands below the mount's prefix by it; undocumented, as its wire is not OpenAPI's."""
        path = f"{mount.prefix}/"
        self._mounts[path] = mount
        self.add_api_route(
            path,
            self.declared(path),
            name="mount",
            operation_id=f"{mount.prefix.strip('/').replace('/', '.')}.mount",
            include_in_schema=False,
            response_class=Response,
            response_model=None,
        )

    def declared(self, path: str) -> Callable[[], Any]:
        """Return a function that stands in a route for the endpoint or mount that serves its path."""

        async def declared() -> NoReturn:
            raise RuntimeError(f"{path} is served by its dispatcher")

        setattr(declared, self.MARK, self)
        return declared

    def target(self, scope: Scope) -> Target | MountPlace | None:
        """Return the endpoint or mount that serves a request; None if the path is none of ours."""
        path = route_path(scope) if scope.get("root_path") else scope["path"]
        found = self._table(scope).get(path)
        if found is not None:
            return found
        place = self._place_of(path)
        return place if place is not None and place.mount.knows(path.removeprefix(place.path)) else None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every path under a prefix of ours: an unknown one is answered here too, in our own words."""
        if scope["type"] != "http":
            return Match.NONE, {}
        path = route_path(scope)
        known = path in self._table(scope) or any(path.startswith(base) for base in (*self._bases, *self._places))
        return (Match.FULL, {}) if known else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that `matches` has let in."""
        path = route_path(scope)
        target = self._table(scope).get(path) or self._place_of(path)
        if target is None:
            name = next(path.removeprefix(base) for base in self._bases if path.startswith(base))
            unknown = _UnknownPath(name[:200], self._ids)
            unknown.require_open = self._require_open
            target = Target(unknown, [])
        await target.serve(scope, receive, send)

    def base_of(self, path: str, name: str) -> str:
        """Return the path that a route's full path, of this name, stands below."""
        return path.removesuffix(name)

    def answers_below(self, path: str, name: str) -> bool:
        """Tell whether every path is ours that stands below the same as this one."""
        return True

    def _place_of(self, path: str) -> MountPlace | None:
        for base, place in self._places.items():
            if path.startswith(base):
                return place
        return None

    def _table(self, scope: Scope) -> Mapping[str, Target | MountPlace]:
        """Return `{full path: target}` of the application that the request came through."""
        app = scope["app"]
        routes, built = app.router.routes, self._built_of
        # INVARIANT (held, so that no other application or route gets an id): asked at each request, by identity alone.
        if app is not self._built_for or len(routes) != len(built) or any(map(is_not, routes, built)):
            self._read(routes)
            self._built_for, self._built_of = app, [*routes]
        return self._targets

    def _read(self, routes: list[Any]) -> None:
        own = {id(route): route for route in self.routes if isinstance(route, APIRoute)}
        self._targets, self._bases, self._places = {}, set(), {}
        for found in iter_route_contexts(routes):
            route = own.get(id(found.original_route))
            if route is None or found.path is None:
                continue
            # Those of a handler are for the document here: they are called with the handler.
            dependencies = [
                each for each in found.dependant.dependencies if not (each.name or "").startswith(OF_HANDLER)
            ]
            mount = self._mounts.get(route.path)
            if mount is not None:
                place = MountPlace(mount, found.path, dependencies, found, route.endpoint)
                self._places[found.path] = place
                for name in mount.names:  # so that most of its requests take one look-up, too
                    self._targets.setdefault(found.path + name, place)
                continue
            self._targets[found.path] = Target(
                self._endpoints[route.path], dependencies, found.path, found, route.endpoint
            )
            if self.answers_below(found.path, route.name):
                self._bases.add(self.base_of(found.path, route.name))


def route_path(scope: Scope) -> str:
    """Return the path of a request below the application that it came to."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
