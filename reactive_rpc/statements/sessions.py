"""Which session a handler is given: one of the class that it asks for.

SQLModel's `Session` deprecates `execute`, and SQLAlchemy's has no `exec`; an application's own subclass has methods
that its handlers call. So each gets its own, as far as such a class can be made on a connection of ours, and leaves to
us where its statements run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session as SQLAlchemySession

__all__ = ["WRITING", "AnyAsyncSession", "AnySession", "session_fault"]

AnyAsyncSession = type[SQLAlchemyAsyncSession]
AnySession = type[SQLAlchemySession]

WRITING: Final[Mapping[str, Any]] = {"expire_on_commit": False, "join_transaction_mode": "create_savepoint"}
"""A mutation's session works in savepoints of the one transaction, so a handler may roll back and go on."""


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
