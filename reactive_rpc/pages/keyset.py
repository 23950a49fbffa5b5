"""Read one page of a list: the rows of a SELECT whose keys lie between two cursors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, overload

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlmodel.sql.expression import SelectOfScalar

from reactive_rpc.compat.sqlalchemy import has_order_or_bounds
from reactive_rpc.errors import BadRequestError, DefinitionError
from reactive_rpc.pages.key import Key, key_of
from reactive_rpc.protocol.pages import MAX_LIMIT, Page

__all__ = ["keyset"]

T = TypeVar("T")

GROWTH: Final = 2
"""A page between two cursors may have grown to so many times its limit before it is cut."""


@overload
def keyset(
    db: AsyncSession,
    statement: SelectOfScalar[T],
    *,
    order_by: Sequence[Any],
    limit: int,
    after: str | None = None,
    until: str | None = None,
) -> Awaitable[Page[T]]: ...


@overload
def keyset(
    db: Session,
    statement: SelectOfScalar[T],
    *,
    order_by: Sequence[Any],
    limit: int,
    after: str | None = None,
    until: str | None = None,
) -> Page[T]: ...


@overload
def keyset(
    db: AsyncSession,
    statement: Select[Any],
    *,
    order_by: Sequence[Any],
    limit: int,
    after: str | None = None,
    until: str | None = None,
) -> Awaitable[Page[Any]]: ...


@overload
def keyset(
    db: Session,
    statement: Select[Any],
    *,
    order_by: Sequence[Any],
    limit: int,
    after: str | None = None,
    until: str | None = None,
) -> Page[Any]: ...


def keyset(
    db: AsyncSession | Session,
    statement: Any,
    *,
    order_by: Sequence[Any],
    limit: int,
    after: str | None = None,
    until: str | None = None,
) -> Any:
    """Read the page `(after, until]` of a list.

        return await keyset(db, select(Post), order_by=[col(Post.id).desc()], after=after, until=until, limit=limit)

    Without `until` it has the first `limit` rows after `after`, and its `next` is where it ends, if any follow. With
    `until` it has what lies between, and `next` is `until`; has that grown to more than twice the limit, it is cut
    after `limit` rows, and `next` says where. The columns of `order_by` are not secret: a cursor holds their values.

    Args:
        db: the handler's session; with a sync one the page is returned, and not awaited.
        statement: selects one entity, each of its rows at most once, without an order, a limit or a grouping.
        order_by: columns of the entity, as they are or with `.desc()`; the primary key is added where it lacks, and
            decides ties. An index on them all serves every page.
        limit: how many rows, at least 1 and at most 1,000.
        after: the cursor that the page begins after; None: with the first row.
        until: the cursor that it ends with, which includes that row.

    Raises:
        BadRequestError: a cursor is none of this list's, or the limit is out of bounds.
        DefinitionError: the statement or a column cannot be read in pages.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise _refusal("limit", f"{limit} rows are no page: ask for 1 to {MAX_LIMIT}")
    page = _PageOf(_key(db, statement, order_by), limit, after, until)
    selected = page.select(statement)
    # SQLModel's sessions warn of their `execute`, as whoever calls it mostly wants `exec`; this one wants rows.
    read = partial(Session.execute, statement=selected)
    return page.of(read(db).all()) if isinstance(db, Session) else _read(db, read, page)


async def _read(db: AsyncSession, read: Callable[[Session], Any], page: _PageOf) -> Page[Any]:
    return page.of(await db.run_sync(lambda session: read(session).all()))


def _key(db: AsyncSession | Session, statement: Any, order_by: Sequence[Any]) -> Key:
    selected = statement.column_descriptions
    entity = selected[0]["entity"] if len(selected) == 1 else None
    if entity is None or selected[0]["expr"] is not entity:
        raise DefinitionError(
            f"keyset reads one entity, select(Message) for example, and not {[one['name'] for one in selected]}: "
            "make what clients are shown of the rows of the page"
        )
    if has_order_or_bounds(statement):
        raise DefinitionError(
            f"keyset orders and bounds its statement itself: leave ORDER BY, LIMIT, OFFSET, DISTINCT and GROUP BY out "
            f"of the select of {selected[0]['name']}"
        )
    return key_of(entity, order_by, db.get_bind().dialect)


@dataclass(frozen=True, slots=True)
class _PageOf:
    """A page that is asked for."""

    key: Key
    limit: int
    after: str | None
    until: str | None

    @property
    def _most(self) -> int:
        return self.limit if self.until is None else GROWTH * self.limit

    def select(self, statement: Any) -> Any:
        """Return the statement of its rows, each with the values of its key, and of one more."""
        if self.after is not None:
            statement = statement.where(self.key.beyond(self._values("after", self.after)))
        if self.until is not None:
            statement = statement.where(self.key.up_to(self._values("until", self.until)))
        keys = [one.read.label(f"key_{place}") for place, one in enumerate(self.key.columns)]
        return statement.add_columns(*keys).order_by(*(one.order for one in self.key.columns)).limit(self._most + 1)

    def of(self, rows: Sequence[Any]) -> Page[Any]:
        """Return the page of these rows."""
        if len(rows) <= self._most:
            return Page(items=[row[0] for row in rows], next=self.until)
        last = rows[self.limit - 1]
        return Page(items=[row[0] for row in rows[: self.limit]], next=self.key.encode(last[1:]))

    def _values(self, name: str, cursor: str) -> list[Any]:
        try:
            return self.key.decode(cursor)
        except ValueError as exc:
            raise _refusal(name, f"{exc}: give `next` of a page of this list") from exc


def _refusal(name: str, message: str) -> BadRequestError:
    return BadRequestError(f"{name}: {message}", details=[{"loc": [name], "message": message, "type": "value_error"}])
