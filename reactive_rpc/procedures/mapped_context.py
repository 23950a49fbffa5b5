"""A mapped class as the context: refused, with the code that makes a plain context of that very class.

`get_current_user` returns a mapped class in most applications, and such an instance can be part of no cache key: its
attributes expire, are loaded when they are asked for, and change. What a handler needs of it are a few plain values:
who it is, whose tenant's, and what it may do. Which columns those are can be told by their names well enough for a
proposal that runs as it stands; its author knows better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sqlalchemy import Column
from sqlalchemy.types import TypeDecorator

from reactive_rpc.procedures.annotations import plain

__all__ = ["mapped_class_in", "mapped_context_message", "plain_context_code"]

_IDENTITIES: Final = ("id", "uuid", "user_id", "uid", "sub", "username", "email", "login")
_TENANTS: Final = (
    "tenant", "tenant_id", "org", "org_id", "organization", "organization_id", "organisation", "organisation_id",
    "company", "company_id", "account", "account_id", "workspace", "workspace_id", "customer_id", "team", "team_id",
    "group_id",
)  # fmt: skip
_RIGHTS: Final = (
    "role", "roles", "role_id", "is_superuser", "is_admin", "is_staff", "is_owner", "is_moderator", "permissions",
    "scopes", "plan", "level",
)  # fmt: skip
"""What a handler decides by: it changes what it answers, so it must be in the key."""


@dataclass(frozen=True, slots=True)
class _Attribute:
    name: str
    column: Column[Any]

    @property
    def type(self) -> type | None:
        try:
            kind = self.column.type
            return (kind.impl_instance if isinstance(kind, TypeDecorator) else kind).python_type
        except NotImplementedError:
            return None

    @property
    def annotation(self) -> str:
        if self.is_list:
            return "tuple[Any, ...]"
        name = getattr(self.type, "__name__", "Any")
        return f"{name} | None" if self.column.nullable else name

    @property
    def is_list(self) -> bool:
        """Return whether it may hold a list, as JSON does: a context holds nothing that can be changed."""
        return self.type in (None, object, dict, list)

    @property
    def as_value(self) -> str:
        """Return how the attribute of `user` is spelled as a value of a context."""
        return f"tuple(user.{self.name} or ())" if self.is_list else f"user.{self.name}"

    @property
    def as_text(self) -> str:
        """Return how the attribute of `user` is spelled as a str, or None."""
        if self.type is str:
            return f"user.{self.name}"
        text = f"str(user.{self.name})"
        return f"None if user.{self.name} is None else {text}" if self.column.nullable else text


def plain_context_code(kind: type, context: Callable[..., Any] | None = None) -> str:
    """Return the code that makes a context of a mapped class, ready to be pasted.

    Args:
        kind: the mapped class.
        context: the dependency that returns it, where it is known.
    """
    attributes = [_Attribute(name, column) for name, column in _columns(kind).items()]
    identity = _named(attributes, _IDENTITIES) or next((each for each in attributes if each.column.primary_key), None)
    tenant = _named([each for each in attributes if each is not identity], _TENANTS)
    rights = [each for each in attributes if each.name in _RIGHTS]
    given = [f"identity={identity.as_text}"] if identity else []
    given += [f"tenant={tenant.as_text}"] if tenant else []
    given += [f"{each.name}={each.as_value}" for each in rights]
    caller = "CurrentUser" if rights else "Login"
    fields = [f"    {each.name}: {each.annotation}" for each in rights]
    dependency = getattr(context, "__name__", "get_current_user")
    if not dependency.isidentifier():
        dependency = "get_current_user"
    return "\n".join([
        *(["@dataclass(frozen=True, kw_only=True)", "class CurrentUser(Login):", *fields] if rights else []),
        f"def get_context(user: Annotated[{kind.__name__}, Depends({dependency})]) -> {caller}:",
        f"    return {caller}({', '.join(given)})",
    ])  # fmt: skip


def mapped_context_message(path: str, kind: type, context: Callable[..., Any] | None = None) -> str:
    """Return what is wrong with a mapped class as the context of a procedure, and the lines that mend it."""
    return (
        f"{path}: {kind.__name__} is a mapped class, whose attributes come and go, so it can be part of no cache key. "
        "Make a plain context of it, and let ReactiveRPC and the handlers take that:\n\n"
        f"{plain_context_code(kind, context)}\n\n"
        "rpc = ReactiveRPC(..., context=get_context)\n"
    )


def mapped_class_in(annotation: Any) -> type | None:
    """Return the mapped class that an annotation is, or is made of (`User | None`, `AsyncIterator[User]`)."""
    annotation = plain(annotation)
    if isinstance(annotation, type) and hasattr(annotation, "__mapper__"):
        return annotation
    return next((found for part in get_args(annotation) if (found := mapped_class_in(part)) is not None), None)


def _columns(kind: Any) -> dict[str, Column[Any]]:
    """Return `{attribute: column}` without configuring other mappers, which may not be complete yet."""
    return {name: column for name, column in kind.__mapper__.columns.items() if isinstance(column, Column)}


def _named(attributes: Sequence[_Attribute], names: Sequence[str]) -> _Attribute | None:
    found = {each.name.lower(): each for each in attributes}
    return next((found[name] for name in names if name in found), None)
