"""The SELECT bodies of a statement, read; those that a WHERE asks for rows become part of the body around them.

`WHERE post.user_id IN (SELECT users.id FROM users WHERE users.team_id = 3)` lets the same posts pass as the join with
`users` does, and so does EXISTS. So such a body is *flattened*: its FROM and its WHERE are added to those of the body
around it, and the reads of both are taken from their joined rows. So is a plain SELECT that stands in a FROM. Whatever
holds of a join holds of every spelling.

`docs/internals/read-sets.md` argues why that is the same; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import count, product
from math import prod
from typing import Any, Final, TypeVar

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ColumnElement, Label
from sqlalchemy.sql.selectable import FromClause

from reactive_rpc.compat.sqlalchemy import is_plain_select, rows_come_from_rows, where_criteria
from reactive_rpc.statements.aggregates import aggregates_of, is_aggregated
from reactive_rpc.statements.predicates import (
    DERIVED,
    NEVER,
    Comparison,
    Exists,
    Field,
    PredicateReader,
    SameValue,
    Term,
    Terms,
    conjunction,
    field_of,
)
from reactive_rpc.statements.propagation import known
from reactive_rpc.statements.recording_compiler import SelectBody
from reactive_rpc.statements.scope import FromSource, Restriction, SelectScope
from reactive_rpc.statements.tables import derived_select

__all__ = ["Body", "JoinedRows", "flattened", "open_bodies"]

T = TypeVar("T")

MAX_JOINED: Final = 32
"""A body whose flattening would make more conjunctions than this keeps the bodies inside it apart."""

_Names = Mapping[int, int]
"""`{source as it stands in the statement: its own identity}`: two bodies may take rows of one and the same alias."""


@dataclass(frozen=True, slots=True)
class Body:
    """A SELECT body's FROM and WHERE, read.

    Attributes:
        sources: `{identity: source}`; a subquery or a CTE is not listed, it has a body of its own.
        occurrences: `{identity: the source as it stands in the statement}`.
        conditions: those of WHERE, and the ON clauses that are as good, as they stand in the statement.
        restrictions: `{identity: the restriction by each ON}`.
        links: `SelectScope.links`.
        columns: the fields that it yields, by place; None for anything else than a column.
        is_plain: whether it yields a row for every row of its FROM and WHERE.
        aggregates: those among its columns (`aggregates.py`).
        is_aggregated: whether it yields one row, made of these alone.
        index: of the body, in the order in which they open.
        where: the terms of WHERE, and of the ON clauses that are as good.
        unread: the parts of the conditions that say nothing.
        inherited: the comparisons that hold by the WHERE of the bodies around it.
        derived: `{identity: a subquery or CTE of its FROM, and whether an outer join may leave it out}`.
        inside: the bodies of those that are flattened.
    """

    sources: Mapping[int, FromSource]
    occurrences: Mapping[int, int]
    conditions: tuple[Any, ...]
    restrictions: Mapping[int, Sequence[Restriction]]
    links: tuple[tuple[Field, Field], ...]
    columns: tuple[Field | None, ...]
    is_plain: bool
    aggregates: tuple[Any, ...] = ()
    is_aggregated: bool = False
    index: int = 0
    where: Terms = NEVER
    unread: tuple[Any, ...] = ()
    inherited: tuple[Comparison, ...] = ()
    derived: Mapping[int, tuple[FromClause, bool]] = field(default_factory=dict)
    inside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """The rows that some bodies join, under one conjunction of their conditions.

    Attributes:
        bodies: whose reads are taken from these rows; the first is the outermost.
        term: the conjunction, without `Exists`.
        links: of all bodies.
        inherited: by the outermost body.
    """

    bodies: tuple[Body, ...]
    term: Term
    links: tuple[tuple[Field, Field], ...]
    inherited: tuple[Comparison, ...]


def open_bodies(selects: Sequence[SelectBody], name_of: Callable[[BindParameter[Any]], str | None]) -> list[Body]:
    """Read the bodies, in the order in which they open."""
    bodies: list[Body] = []
    names: list[_Names] = []
    numbers = count()
    # An enclosing body opens, and so stands, before the ones inside it.
    for index, select in enumerate(selects):
        reader = PredicateReader(name_of, _bodies_inside(selects, index))
        scope, criteria, where = _read(select, reader)
        own = {source: next(numbers) for source in (*scope.sources, *scope.derived)}
        around = {} if select.enclosing is None else names[select.enclosing]
        names.append(ChainMap(own, dict(around)))
        body = replace(
            _named(select, scope, criteria=criteria, names=names[index]),
            index=index,
            where=_renamed(where, names[index]),
            unread=tuple(reader.unread),
        )
        outer = None if select.enclosing is None else bodies[select.enclosing]
        bodies.append(body if outer is None else replace(body, inherited=_inherited(body, outer)))
    return _seen_through(selects, bodies) if any(body.derived for body in bodies) else bodies


def flattened(bodies: Sequence[Body]) -> Iterator[JoinedRows]:
    """Yield the rows from which the reads are taken: each conjunction of each body that is part of no other one."""
    joined: dict[int, list[JoinedRows]] = {}
    absorbed: set[int] = set()
    for body in reversed(bodies):
        found = _flattened(body, joined)
        joined[body.index] = found
        absorbed |= {inner.index for rows in found for inner in rows.bodies[1:]}
    for body in bodies:
        # INVARIANT (a body's own reads go only where its rows are joined): `conjunction` leaves out whole parts, so an
        # `Exists` that stands in one term stands in each that needs its rows.
        if body.index not in absorbed:
            yield from joined[body.index]


def _flattened(body: Body, joined: Mapping[int, list[JoinedRows]]) -> list[JoinedRows]:
    terms = [JoinedRows((body,), _without_exists(term), body.links, body.inherited) for term in body.where]
    derived = [joined[each] for each in body.inside]
    asked = [
        [*derived, *(_asked(each, joined[each.body]) for each in term if isinstance(each, Exists))]
        for term in body.where
    ]
    if sum(prod(map(len, each)) for each in asked) > MAX_JOINED:
        # INVARIANT (all or none): the bodies inside then keep their own reads, so no row goes unread.
        return terms
    return [_together(outer, inner) for outer, each in zip(terms, asked, strict=True) for inner in product(*each)]


def _without_exists(term: Term) -> Term:
    return tuple(each for each in term if not isinstance(each, Exists))


def _asked(exists: Exists, joined: Iterable[JoinedRows]) -> list[JoinedRows]:
    """Return the rows of a body inside that `exists` asks for, with its equalities."""
    found = []
    for rows in joined:
        body = rows.bodies[0]
        pairs = [(field, body.columns[place]) for field, place in exists.equal if place < len(body.columns)]
        equal = tuple(SameValue(field, column) for field, column in pairs if column is not None)
        # INVARIANT (only a body of which any row will do is absorbed): under a LIMIT, or where one row is compared,
        # rows that join with nothing decide which rows are yielded. Such a body keeps its own reads.
        is_absorbed = exists.is_any and body.is_plain
        found.append(replace(rows, term=(*rows.term, *equal), bodies=rows.bodies if is_absorbed else ()))
    return found


def _together(outer: JoinedRows, inner: Iterable[JoinedRows]) -> JoinedRows:
    for rows in inner:
        outer = replace(
            outer,
            bodies=(*outer.bodies, *rows.bodies),
            term=(*outer.term, *rows.term),
            links=(*outer.links, *rows.links),
        )
    return outer


def _seen_through(selects: Sequence[SelectBody], bodies: Sequence[Body]) -> list[Body]:
    """Return the bodies, columns of derived tables as the columns behind them; conditions on others say nothing."""
    behind: dict[Field, Field] = {}
    found: list[Body] = []
    uses = Counter(id(derived_select(source)) for body in bodies for source, _ in body.derived.values())
    for body in bodies:
        inside = []
        for identity, (source, nullable) in body.derived.items():
            rendered = [index for index, each in enumerate(selects) if each.origin is derived_select(source)]
            # INVARIANT (its rows are rows of this body's, and of no other): a CTE may be read twice, and of a body
            # that an outer join may leave out, WHERE says nothing.
            if nullable or len(rendered) != 1 or uses[id(derived_select(source))] != 1:
                continue
            inner, select = bodies[rendered[0]], selects[rendered[0]]
            # INVARIANT (each of its rows is one of its FROM and WHERE, whatever the others are): a window function or
            # an aggregate sees rows that the conditions around it refuse.
            if select.enclosing == body.index and inner.is_plain and rows_come_from_rows(select.statement):
                inside.append(inner.index)
                behind.update(_columns_behind(identity, source, inner=inner, select=select))
        found.append(replace(body, inside=tuple(inside)))
    return [_with_columns_behind(body, behind) for body in found]


def _columns_behind(
    identity: int, source: FromClause, *, inner: Body, select: SelectBody
) -> Iterator[tuple[Field, Field]]:
    names = [each.name for each in source.c]
    shown = [getattr(each, "name", None) for each in select.statement.inner_columns]
    for name, own, column in zip(names, shown, inner.columns, strict=False):
        # INVARIANT (by name and place): of two columns of one name SQLAlchemy renames one.
        if column is not None and name == own and names.count(name) == 1 and len(names) == len(inner.columns):
            yield Field(identity, DERIVED, name), column


def _with_columns_behind(body: Body, behind: Mapping[Field, Field]) -> Body:
    def through(found: Field) -> Field:
        while found in behind:
            found = behind[found]
        return found

    def kept(terms: Terms) -> Terms:
        mapped = ([_without_derived(_mapped(atom, through)) for atom in term] for term in terms)
        return tuple(tuple(atom for atom in term if not _is_of_derived(atom)) for term in mapped)

    pairs = [_mapped(pair, through) for pair in body.links]
    columns = [None if each is None else through(each) for each in body.columns]
    return replace(
        body,
        where=kept(body.where),
        links=tuple(pair for pair in pairs if not _is_of_derived(pair)),
        columns=tuple(None if each is None or each.table == DERIVED else each for each in columns),
        inherited=tuple(each for each in _mapped(body.inherited, through) if not _is_of_derived(each)),
        restrictions={
            source: [replace(each, terms=kept(each.terms)) for each in found]
            for source, found in body.restrictions.items()
        },
    )


def _without_derived(atom: T) -> T:
    """Return what EXISTS asks for without the equalities that say nothing; any other atom as it is."""
    if not isinstance(atom, Exists):
        return atom
    return replace(atom, equal=tuple(each for each in atom.equal if not _is_of_derived(each)))


def _is_of_derived(part: object) -> bool:
    found: list[Field] = []

    def note(each: Field) -> Field:
        found.append(each)
        return each

    _mapped(part, note)
    return any(each.table == DERIVED for each in found)


def _read(select: SelectBody, reader: PredicateReader) -> tuple[SelectScope, list[Any], Terms]:
    scope = SelectScope(reader)
    for source in select.froms:
        scope.add(source)
    criteria = list(map(_as_condition, where_criteria(select.statement)))
    return scope, criteria, conjunction([*map(reader.terms, criteria), *scope.where])


def _bodies_inside(selects: Sequence[SelectBody], outer: int) -> Callable[[object], int | None]:
    """Return what tells the index of a body right inside `outer` whose rows come of rows that pass its WHERE."""

    def body_of(element: object) -> int | None:
        found = [index for index, each in enumerate(selects) if each.origin is element and each.enclosing == outer]
        # A SELECT that stands twice is two bodies, and nothing tells which of them is meant.
        return found[0] if len(found) == 1 and rows_come_from_rows(selects[found[0]].statement) else None

    return body_of


def _as_condition(criterion: Any) -> Any:
    """Return a WHERE criterion as AND renders it: a bare boolean column becomes "= 1"."""
    return criterion.self_group(against=operators.and_) if isinstance(criterion, ColumnElement) else criterion


def _inherited(body: Body, outer: Body) -> tuple[Comparison, ...]:
    """Return the outer WHERE's comparisons of the columns that `body` takes from it."""
    # INVARIANT (one conjunction only): of several, an outer row may pass by another one, of which this says nothing.
    if len(outer.where) != 1:
        return ()
    return tuple(known(outer.where[0], outer.inherited))


def _named(select: SelectBody, scope: SelectScope, *, criteria: Sequence[Any], names: _Names) -> Body:
    """Return the body with each field's source by its own identity."""
    columns = [each.element if isinstance(each, Label) else each for each in select.statement.inner_columns]
    return Body(
        sources={names[source]: each for source, each in scope.sources.items()},
        occurrences={names[source]: source for source in scope.sources},
        conditions=(*criteria, *scope.where_on),
        restrictions={names[source]: _renamed(tuple(each), names) for source, each in scope.restrictions.items()},
        links=_renamed(tuple(scope.links), names),
        columns=tuple(_renamed(field_of(each), names) for each in columns),
        derived={names[source]: each for source, each in scope.derived.items()},
        is_plain=is_plain_select(select.statement),
        aggregates=aggregates_of(select.statement),
        is_aggregated=is_aggregated(select.statement),
    )


def _renamed(part: T, names: _Names) -> T:
    """Return a part of a predicate with the sources of its fields by their own identities."""
    return _mapped(part, lambda found: replace(found, source=names.get(found.source, found.source)))


def _mapped(part: T, mapped: Callable[[Field], Field]) -> T:
    """Return a part of a predicate with other fields."""
    found: Any = part
    if isinstance(part, Field):
        found = mapped(part)
    elif isinstance(part, tuple):
        found = tuple(_mapped(each, mapped) for each in part)
    elif is_dataclass(part) and not isinstance(part, type):
        changed: dict[str, Any] = {each.name: _mapped(getattr(part, each.name), mapped) for each in fields(part)}
        found = replace(part, **changed)
    made: T = found
    return made
