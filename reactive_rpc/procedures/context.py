"""The context: what a handler may know of who calls.

Results are kept apart by the context that their handler gets, so a context is a value: a frozen dataclass that extends
`Context` and whose fields cannot be changed. `Login` says who calls; steps make other contexts of it.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from reactive_rpc.errors import DefinitionError, ForbiddenError, UnauthorizedError
from reactive_rpc.procedures.annotations import plain

__all__ = ["Context", "Login", "Tenant", "by_tenant", "can_change", "context_fault", "expiry_of", "valid_at"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a handler may know of who calls: nothing. Extend it by a frozen dataclass for more."""


@dataclass(frozen=True, kw_only=True)
class Login(Context):
    """Who calls, and for which tenant; None is nobody.

    >>> Login(identity="user-1", tenant="org-1").tenant
    'org-1'

    Attributes:
        identity: names the caller in limits, idempotency keys and `ReactiveRPC.revoke`.
        tenant: what the caller belongs to.
        expires_at: until when this holds, with an offset; None is for ever. Calls are refused from then on and open
            streams are asked again. It is no part of any key, and handlers and steps find None in its place.
    """

    identity: str | None = None
    tenant: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Tenant(Context):
    """A whole tenant: the context of results that all of its members share."""

    tenant: str


def by_tenant(ctx: Login) -> Tenant:
    """Share results within a tenant: the step of handlers that may know the tenant, and nothing of who calls.

    >>> by_tenant(Login(identity="user-1", tenant="org-1"))
    Tenant(tenant='org-1')

    Args:
        ctx: the context before it.

    Raises:
        ForbiddenError: the caller belongs to no tenant.
    """
    if ctx.tenant is None:
        raise ForbiddenError("this caller belongs to no tenant")
    return Tenant(tenant=ctx.tenant)


def expiry_of(ctx: object) -> float | None:
    """Return until when a context holds, in seconds since 1970; None is for ever.

    Raises:
        DefinitionError: nobody can tell, as its moment has no offset.
    """
    if not isinstance(ctx, Login) or ctx.expires_at is None:
        return None
    if ctx.expires_at.tzinfo is None:
        raise DefinitionError(f"{type(ctx).__name__}.expires_at has no offset: give a moment in UTC")
    return ctx.expires_at.timestamp()


def valid_at(time: float, ctx: Context) -> Context:
    """Return a context that holds at `time` as steps and handlers see it: a refreshed token is the same caller.

    Raises:
        UnauthorizedError: it has expired.
        DefinitionError: nobody can tell.
    """
    expires_at = expiry_of(ctx)
    if expires_at is None:
        return ctx
    if expires_at <= time:
        raise UnauthorizedError("the login has expired")
    return replace(ctx, expires_at=None)  # type: ignore[call-arg]  # it is a Login


_IMMUTABLE: Final = (
    str, bytes, int, float, complex, bool, type(None), date, datetime, time, timedelta, Decimal, UUID, Enum,
)  # fmt: skip


def context_fault(kind: type[Context]) -> str | None:
    """Return why a class of contexts cannot be part of a cache key, with the way out; None where it can.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class Member(Login):
    ...     roles: list[str]
    >>> context_fault(Member)
    'Member.roles is a list[str], which can be changed after it was compared: make it a tuple or a frozenset'
    """
    if "__dataclass_fields__" not in vars(kind):
        return f"{kind.__name__} is no dataclass of its own: write @dataclass(frozen=True, kw_only=True) above it"
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as exc:
        return f"an annotation of {kind.__name__} cannot be resolved: {exc}. Import what it names at run time"
    for field in dataclasses.fields(kind):
        mutable = next(_mutable_parts(hints[field.name]), None)
        if mutable is not None:
            spelled = getattr(hints[field.name], "__name__", None) if not get_args(hints[field.name]) else None
            return f"{kind.__name__}.{field.name} is a {spelled or hints[field.name]}, which {_way_out(mutable)}"
    return None


def _mutable_parts(annotation: Any) -> Iterator[Any]:
    annotation = plain(annotation)
    origin = get_origin(annotation)
    if annotation in (Any, object) or origin is Literal:
        return
    if origin in (Union, types.UnionType, tuple, frozenset):
        for part in get_args(annotation):
            if part is not Ellipsis:
                yield from _mutable_parts(part)
        return
    kind = origin or annotation
    if not isinstance(kind, type) or issubclass(kind, (*_IMMUTABLE, tuple, frozenset)):
        return
    if dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # typeshed
        return
    yield kind


def can_change(annotation: Any) -> bool:
    """Return whether a value of an annotation may hold something that whoever has it can change, however deep.

    >>> can_change(Tenant), can_change(tuple[list[str], ...]), can_change(Any)
    (False, True, True)
    """
    annotation = plain(annotation)
    if get_origin(annotation) is Literal or annotation is Ellipsis:
        return False
    if get_origin(annotation) in (Union, types.UnionType, tuple, frozenset):
        return any(map(can_change, get_args(annotation)))
    if not isinstance(annotation, type) or annotation in (tuple, frozenset):
        return True
    if dataclasses.is_dataclass(annotation):
        is_frozen = annotation.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed
        hints = get_type_hints(annotation, include_extras=True)
        return not is_frozen or any(can_change(hints[field.name]) for field in dataclasses.fields(annotation))
    return not issubclass(annotation, _IMMUTABLE)


def _way_out(kind: type) -> str:
    if hasattr(kind, "__mapper__"):
        return "is a mapped class, whose attributes come and go: take the columns that handlers need"
    if issubclass(kind, list | set | dict):
        instead = "a frozenset" if issubclass(kind, set) else "a tuple or a frozenset"
        return f"can be changed after it was compared: make it {instead}"
    return "can be changed after it was compared: take the values that handlers need, or make it a frozen dataclass"
