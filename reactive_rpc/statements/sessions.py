"""Which session a handler is given: one of the class that it asks for.

SQLModel's `Session` deprecates `execute`, and SQLAlchemy's has no `exec`; an application's own subclass has methods
that its handlers call. So each gets its own, as far as such a class can be made on a connection of ours, and leaves to
us where its statements run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.orm import scoped_session
from sqlalchemy.util import await_only

__all__ = [
    "WRITING",
    "AnyAsyncSession",
    "AnySession",
    "database_of",
    "in_greenlet",
    "lost_of",
    "session_fault",
    "sync_session_of",
]

AnyAsyncSession = type[SQLAlchemyAsyncSession]
AnySession = type[SQLAlchemySession]

WRITING: Final[Mapping[str, Any]] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
"""A mutation's session works in savepoints of the one transaction, so a handler may roll back and go on."""


def in_greenlet(session: SQLAlchemyAsyncSession, method: Literal["flush", "commit", "close"]) -> None:
    """Call a method of a session in a greenlet, which SQLAlchemy's own would begin once more.

    If the application's class has a method of its own, that is called.
    """
    if getattr(type(session), method) is getattr(SQLAlchemyAsyncSession, method):
        getattr(session.sync_session, method)()
    else:
        await_only(getattr(session, method)())


def session_fault(session: AnyAsyncSession | AnySession) -> str | None:
    """Return the reason that keeps a session class from being used for handlers, with the way out; None if none does.

    >>> session_fault(SQLAlchemySession)
    """
    name = session.__name__
    try:
        inspect.signature(session).bind(None, **WRITING)
    except TypeError as exc:
        return f"{name} cannot be made as sessions are, {name}(connection, expire_on_commit=False, ...): {exc}"
    sync = session.sync_session_class if issubclass(session, SQLAlchemyAsyncSession) else session
    if sync.get_bind is not SQLAlchemySession.get_bind:
        return (
            f"{sync.__name__} has a get_bind of its own, and a handler's statements must all run on the one connection "
            "that is watched: take a session class without it"
        )
    return None


_ADDS_TO_STATEMENTS: Final = ("do_orm_execute", "after_begin", "after_transaction_create")
"""The events of sessions whose listeners say what statements may see: a filter, a setting for row-level security."""

_LIBRARIES: Final = ("sqlalchemy", "sqlmodel")


def sync_session_of(given: object) -> SQLAlchemySession | None:
    """Return the session that an application's own is, or holds; None if it is none."""
    held = given() if isinstance(given, scoped_session) else given
    held = held.sync_session if isinstance(held, SQLAlchemyAsyncSession) else held
    return held if isinstance(held, SQLAlchemySession) else None


def lost_of(session: SQLAlchemySession, kind: AnyAsyncSession | AnySession) -> str | None:
    """Return what an application's own session has that one of a class, as we make it, has not; None if nothing.

    Each may say what its statements see: of one tenant alone, for example.

    >>> lost_of(SQLAlchemySession(info={"tenant": "a"}), SQLAlchemySession)
    "'tenant' in its info"
    """
    if session.info:
        return f"{', '.join(map(repr, session.info))} in its info"
    if session.bind is not None and session.bind.get_execution_options().get("schema_translate_map"):
        return "a schema_translate_map"
    sync = kind.sync_session_class if issubclass(kind, SQLAlchemyAsyncSession) else kind
    for own in type(session).__mro__[: -len(sync.__mro__)] if isinstance(session, sync) else ():
        if own.__module__.partition(".")[0] not in _LIBRARIES and any(not name.startswith("__") for name in vars(own)):
            return f"the class {own.__name__}, which its annotation does not say"
    for event in _ADDS_TO_STATEMENTS:
        listening = list(getattr(session.dispatch, event))
        if listening and not set(listening) <= set(getattr(sync(None).dispatch, event)):
            return f"a listener for {event} of its own"
    return None


def database_of(session: SQLAlchemySession) -> tuple[str | None, str | None] | None:
    """Return the names of the database and of the role that a session uses; None if it has not one for all.

    >>> database_of(SQLAlchemySession())
    """
    if session.bind is None:
        return None
    url = session.bind.engine.url
    return url.database, url.username
