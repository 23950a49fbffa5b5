"""Random queries of the ORM: loader strategies, relationship conditions, loader criteria, inheritance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    with_loader_criteria,
)

from .drawing import Drawing
from .model import Child, Grandchild, Parent, Special

__all__ = ["OrmQuery", "orm_query"]

OrmQuery = Callable[[Session], Any]


def orm_query(drawing: Drawing) -> OrmQuery:
    """Return a callable that asks a session, and gives the same for the same rows."""
    number = drawing.random.randrange(4)
    loading: Any = drawing.pick([lazyload, selectinload, joinedload, subqueryload])
    shapes: list[OrmQuery] = [
        lambda session: _parents(session, select(Parent).where(Parent.x == number).options(loading(Parent.children))),
        lambda session: _parents(
            session,
            select(Parent).where(Parent.x == number).options(loading(Parent.children)).order_by(Parent.id).limit(2),
        ),
        lambda session: _child(session.get(Child, number)),
        lambda session: _child(session.get(Child, number, options=[joinedload(Child.parent)])),
        lambda session: sorted(session.scalars(select(Parent.id).where(Parent.children.any(Child.y == number)))),
        lambda session: sorted(
            session.scalars(select(Child.id).where(Child.parent.has(Parent.s == "p"), Child.y <= number))
        ),
        lambda session: _grandchildren(
            session,
            select(Child)
            .join(Child.parent)
            .where(Parent.x == number)
            .options(loading(Child.grandchildren), with_loader_criteria(Grandchild, Grandchild.z > 0)),
        ),
        lambda session: _parents(
            session,
            select(Parent)
            .outerjoin(Parent.children)
            .options(contains_eager(Parent.children))
            .where(Parent.f.is_(True)),
        ),
        lambda session: _specials(session, select(Special).where(Special.note <= number, Special.x > 0)),
        lambda session: _family(session, number),
        lambda session: _twins(session, number),
    ]
    query: OrmQuery = drawing.pick(shapes)
    return query


def _parents(session: Session, statement: Any) -> list[Any]:
    parents = session.scalars(statement).unique()
    return sorted((parent.id, sorted((child.id, child.y or -1) for child in parent.children)) for parent in parents)


def _child(child: Any) -> Any:
    if child is None:
        return None
    parent = child.parent and (child.parent.id, child.parent.s)
    return child.id, parent, sorted(each.z or 0 for each in child.grandchildren)


def _grandchildren(session: Session, statement: Any) -> list[Any]:
    children = session.scalars(statement).unique()
    return sorted((child.id, sorted(each.id for each in child.grandchildren)) for child in children)


def _specials(session: Session, statement: Any) -> list[Any]:
    specials = session.scalars(statement)
    return sorted((special.id, special.x, len(special.children)) for special in specials)


def _family(session: Session, number: int) -> list[Any]:
    """Load two levels by joins: parents, their children and their grandchildren."""
    statement = (
        select(Parent).where(Parent.x == number).options(joinedload(Parent.children).joinedload(Child.grandchildren))
    )
    return sorted(
        (parent.id, sorted((child.id, len(child.grandchildren)) for child in parent.children))
        for parent in session.scalars(statement).unique()
    )


def _twins(session: Session, number: int) -> list[Any]:
    """Pair the children of one parent."""
    other: Any = aliased(Child)
    statement = (
        select(Child.id, other.id)
        .join(other, other.parent_id == Child.parent_id)  # type: ignore[attr-defined]  # mapped imperatively
        .join(Child.parent)
        .where(Parent.x == number, Child.id < other.id)
    )
    return sorted(tuple(row) for row in session.execute(statement))
