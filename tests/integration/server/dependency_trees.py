"""Dependencies of FastAPI's, generated: each notes that it was called, with which arguments, and in which thread."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from random import Random
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import BackgroundTasks, Cookie, Depends, Header, HTTPException, Query, Request, Response, Security
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    SecurityScopes,
)
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import ForbiddenError, Login

from .rooms import Note

__all__ = ["GeneratedTree", "Trees", "random_request"]

TYPES: tuple[Any, ...] = (
    str, str, str, str, str, str | None, str | None, int | None, bool, float, UUID, list[str], Literal["1", "x"],
    Annotated[str, Header(min_length=2)],
)  # fmt: skip
DEFAULTS: tuple[Any, ...] = (inspect.Parameter.empty, None, None, "d", "d", 7)
TEXTS = ("1", "true", "x", "", "xyz", "\xe9", "2c1743a3-91f1-4b4b-8f0f-6f1c5a0f4d11")
AUTHORIZATIONS = ("Bearer abc", "bearer  abc ", "Bearer", "Basic dXNlcjpwYXNz", "Basic %", "Digest x", "")


class OwnKey(APIKeyHeader):
    """A scheme of the application's own, which reads more than its name says."""

    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]  # as applications write it
        """Return every header that begins like it."""
        return ",".join(value for name, value in request.headers.items() if name.startswith("x-"))


class Caller:
    """An instance that is called."""

    __name__ = "caller"

    def __init__(self, note: Callable[..., str]) -> None:
        self._note = note

    async def __call__(self, x_a: Annotated[str, Header()] = "none") -> str:
        """Return what it was given."""
        return self._note("caller", {"x_a": x_a})


@dataclass
class GeneratedTree:
    """A context, and what its tree is made of.

    Attributes:
        parts: the functions below it, and itself.
    """

    context: Callable[..., Any]
    parts: list[Callable[..., Any]] = field(default_factory=list)


class Trees:
    """Makes trees, whose parts may be shared.

    Attributes:
        called: `(name, arguments, whether the event loop has called it)`, in order.
    """

    def __init__(self, random: Random) -> None:
        self.called: list[tuple[str, str, bool]] = []
        self._random = random
        self._count = 0
        self._schemes: list[Any] = [
            HTTPBearer(auto_error=random.random() < 0.2), HTTPBearer(auto_error=False), HTTPBasic(auto_error=False),
            OAuth2PasswordBearer(tokenUrl="t", auto_error=random.random() < 0.3),
            APIKeyHeader(name="X-A", auto_error=False), APIKeyCookie(name="ca", auto_error=False),
            APIKeyQuery(name="qa", auto_error=False), OwnKey(name="x-a", auto_error=False), Caller(self._noted),
        ]  # fmt: skip

    def tree(self) -> GeneratedTree:
        """Return another one; half of them hold nothing that only FastAPI's solver can do, any other one such thing."""
        odd = self._random.choice(("", "", "", "yields", "gives", "types"))
        pool: list[Any] = self._random.sample(self._schemes, 2)
        for _ in range(self._random.randrange(5)):
            pool.append(self._function(pool, odd))
        return GeneratedTree(self._context(pool, odd), pool)

    def function(self) -> Callable[..., Any]:
        """Return a dependency by itself."""
        return self._function([], "")

    def override(self, name: str) -> Callable[..., Any]:
        """Return a function that may stand in the place of any."""

        async def overriding(x_b: Annotated[str, Header()] = "none") -> Any:
            return self._noted(f"instead of {name}", {"x_b": x_b})

        return overriding

    def _noted(self, name: str, given: dict[str, Any]) -> str:
        spelled = ", ".join(f"{key}={_spelled(value)}" for key, value in given.items())
        self.called.append((name, spelled, threading.current_thread() is threading.main_thread()))
        return f"{name}({spelled})"

    def _function(self, pool: list[Any], odd: str) -> Callable[..., Any]:
        self._count += 1
        name = f"part_{self._count}"
        is_odd = odd == "yields" and self._random.random() < 0.5
        kinds = ("yields", "yields_sync") if is_odd else ("async", "async", "sync", "wrapped")
        return self._made(name, self._random.choice(kinds), self._parameters(pool, odd))

    def _context(self, pool: list[Any], odd: str) -> Callable[..., Any]:
        self._count += 1
        name, parameters = f"context_{self._count}", self._parameters(pool, odd)
        if self._random.random() < 0.3:
            return self._query(name, [each for each in parameters if each.annotation not in (Request, Response)])
        kind = self._random.choice(("async", "async", "sync"))
        return self._made(name, kind, parameters, result=lambda spelled: Login(identity=spelled, tenant=name))

    def _query(self, name: str, parameters: list[inspect.Parameter]) -> Callable[..., Any]:
        """Return a context that reads the database."""

        async def query(**given: Any) -> Login:
            db = given.pop("db")
            spelled = self._noted(name, given)
            await db.exec(select(Note))
            return Login(identity=spelled)

        session = inspect.Parameter("db", inspect.Parameter.KEYWORD_ONLY, annotation=AsyncSession)
        return _signed(query, name, [*parameters, session], Login)

    def _made(
        self, name: str, kind: str, parameters: list[inspect.Parameter], *, result: Callable[[str], Any] = str
    ) -> Callable[..., Any]:
        def note(given: dict[str, Any]) -> Any:
            spelled = self._noted(name, given)
            for each in given.values():
                if isinstance(each, Response):
                    each.headers.append(f"x-set-by-{name}", "yes")
                elif isinstance(each, BackgroundTasks):
                    each.add_task(self._noted, f"after {name}", {})
                elif isinstance(each, str) and each == "xyz":
                    raise HTTPException(403, f"{name} refuses", headers={"x-refused-by": name})
                elif each == "1" and len(given) == 1:
                    raise ForbiddenError(f"{name} forbids")
                elif each == 7 and len(given) == 4:
                    raise ValueError(name)
            return result(spelled)

        async def awaited(**given: Any) -> Any:
            return note(given)

        def threaded(**given: Any) -> Any:
            return note(given)

        async def yields(**given: Any) -> Any:
            yield note(given)
            self._noted(f"end of {name}", {})

        def yields_sync(**given: Any) -> Any:
            yield note(given)
            self._noted(f"end of {name}", {})

        def wrapped(**given: Any) -> Any:
            return note(given)

        functions: dict[str, Any] = {
            "async": awaited, "sync": threaded, "yields": yields, "yields_sync": yields_sync,
            "wrapped": wraps(wrapped)(awaited),
        }  # fmt: skip
        return _signed(functions[kind], name, parameters, type(result("")))

    def _parameters(self, pool: list[Any], odd: str) -> list[inspect.Parameter]:
        random, keyword = self._random, inspect.Parameter.KEYWORD_ONLY
        found = [
            inspect.Parameter(f"p{number}", keyword, annotation=each, default=default)
            for number, (each, default) in enumerate(self._values(odd) for _ in range(random.randrange(3)))
        ]
        for number in range(random.randrange(4) if pool else 0):
            part = random.choice(pool[-2:] if random.random() < 0.5 else pool)
            options: Any = Depends(part, use_cache=random.random() < 0.5)
            if random.random() < 0.3:
                options = Security(part, scopes=random.sample(["read", "write"], random.randrange(3)))
            found.append(inspect.Parameter(f"d{number}", keyword, annotation=cast(Any, Annotated)[Any, options]))
        if random.random() < 0.3:
            found.append(inspect.Parameter("scopes", keyword, annotation=SecurityScopes))
        if odd == "gives" and random.random() < 0.4:
            given = random.choice((Request, Response, BackgroundTasks))
            found.append(inspect.Parameter("given", keyword, annotation=given))
        return found

    def _values(self, odd: str) -> tuple[Any, Any]:
        """Return the annotation of a parameter and its default."""
        random = self._random
        kind = random.choice(TYPES if odd == "types" else TYPES[:10])
        source: Any = random.choice((
            Header(alias="x-a"), Header(alias="X-B"), Header(alias="x_c", convert_underscores=False),
            Header(alias="Authorization"), Cookie(alias="ca"), Cookie(alias="cb"), Query(alias="qa"), Query(alias="qb"),
        ))  # fmt: skip
        if kind == list[str] and source.in_.value == "cookie":
            kind = str
        default = random.choice(DEFAULTS)
        return cast(Any, Annotated)[kind, source], default


def _signed(function: Any, name: str, parameters: list[inspect.Parameter], gives: type) -> Callable[..., Any]:
    function.__signature__ = inspect.Signature(parameters, return_annotation=gives)
    function.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": gives}
    function.__name__ = function.__qualname__ = name
    return cast("Callable[..., Any]", function)


def _spelled(value: Any) -> str:
    if isinstance(value, SecurityScopes):
        return f"scopes {value.scopes}"
    if isinstance(value, Request):
        return f"request {value.url.query}"
    return type(value).__name__ if isinstance(value, Response | BackgroundTasks) else repr(value)


def random_request(random: Random) -> dict[str, Any]:
    """Return the headers and parameters of a request, some given twice, some absent, as httpx takes them."""
    headers: list[tuple[bytes, bytes]] = []
    for name in (b"x-a", b"x-a", b"x-b", b"x_c"):
        if random.random() < 0.5:
            headers.append((name, random.choice(TEXTS).encode("latin-1")))
    if random.random() < 0.6:
        headers.append((b"authorization", random.choice(AUTHORIZATIONS).encode()))
    if random.random() < 0.5:
        headers.append((b"cookie", random.choice((b"ca=1; cb=x", b"ca=x; ca=1", b"cb=", b"ca"))))
    random.shuffle(headers)
    names = [name for name in ("qa", "qa", "qb") if random.random() < 0.4]
    return {"headers": headers, "params": [(name, random.choice(("1", "x", "xyz", ""))) for name in names]}
