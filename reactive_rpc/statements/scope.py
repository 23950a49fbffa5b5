"""Read a FROM list: which tables, which of them an outer join may leave out, and which tables the ON clauses restrict.

The argument, for a row r of a table and a result that is sought: r can be ignored if every joined row that holds r
fails, and so does every row that is there only because r is not (in which r's columns are NULL).

- The ON of an inner join that no outer join encloses is part of WHERE.
- The ON of a LEFT JOIN restricts the right side alone: a left row that fails it is still there. A right row that
  fails it joins with nothing. The same holds for both sides of an inner join on the nullable side of an outer one.
- The ON of a FULL JOIN restricts nobody.
- A table that an outer join inside the same side may have left out is restricted by ON only through atoms that NULL
  fails: `IS NULL` is true of the row that is there because r is not.
- An equality of ON carries WHERE's conditions on a left column over to the right column (a *link*), never back: a right
  row joins only with left rows that have its value, and if WHERE refuses those, it refuses them joined or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.sql.selectable import FromClause, FromGrouping, Join

from reactive_rpc.statements.predicates import Comparison, Field, Nullness, PredicateReader, SameValue, Terms
from reactive_rpc.statements.tables import base_table, derived_select

__all__ = ["FromSource", "Restriction", "SelectScope", "restricting"]


@dataclass(frozen=True, slots=True)
class FromSource:
    """One occurrence of a table in a FROM; `nullable` if an outer join may leave it out."""

    table: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class Restriction:
    """The terms of an ON about a source; `nullable` if an outer join below that ON may leave the source out."""

    terms: Terms
    nullable: bool


@dataclass(frozen=True, slots=True)
class _JoinSide:
    sources: frozenset[int] = frozenset()
    nullable: frozenset[int] = frozenset()


def restricting(term: Iterable[object], source: int, nullable: bool) -> tuple[Comparison | Nullness, ...]:
    """Return the atoms of `term` that restrict `source`; of a nullable one only those that NULL fails."""
    return tuple(
        atom
        for atom in term
        if isinstance(atom, Comparison | Nullness)
        and atom.field.source == source
        and not (nullable and isinstance(atom, Nullness) and atom.null)
    )


@dataclass(slots=True)
class SelectScope:
    """The FROM list of one SELECT body.

    Attributes:
        sources: `{identity: source}`; a subquery or a CTE is not listed, it has a body of its own.
        derived: the subqueries and CTEs, each with whether an outer join may leave it out.
        restrictions: `{identity: the restriction by each ON}`.
        where: the ON clauses that are as good as WHERE.
        where_on: the same, as they are written.
        links: `(right, left)`: WHERE's conditions on `left` hold for the rows of `right` that matter.
    """

    reader: PredicateReader
    sources: dict[int, FromSource] = field(default_factory=dict)
    derived: dict[int, tuple[FromClause, bool]] = field(default_factory=dict)
    restrictions: dict[int, list[Restriction]] = field(default_factory=dict)
    where: list[Terms] = field(default_factory=list)
    where_on: list[Any] = field(default_factory=list)
    links: list[tuple[Field, Field]] = field(default_factory=list)

    def add(self, source: FromClause) -> None:
        """Add one element of the FROM list."""
        self._walk(source, False)

    def _walk(self, source: Any, nullable: bool) -> _JoinSide:
        if isinstance(source, FromGrouping):
            return self._walk(source.element, nullable)
        if isinstance(source, Join):
            return self._walk_join(source, nullable)
        table = base_table(source)
        if derived_select(source) is not None:
            self.derived[hash(source)] = source, nullable
            return _JoinSide(frozenset({hash(source)}))
        if table is None:
            return _JoinSide()
        self.sources[hash(source)] = FromSource(table.fullname, nullable)
        return _JoinSide(frozenset({hash(source)}))

    def _walk_join(self, join: Join, nullable: bool) -> _JoinSide:
        left = self._walk(join.left, nullable or join.full)
        right = self._walk(join.right, nullable or join.full or join.isouter)
        terms = self.reader.terms(join.onclause)
        both = _JoinSide(left.sources | right.sources, left.nullable | right.nullable)
        if join.full:
            return self._full_join(both, terms)
        if join.isouter:
            return self._left_join(left, right, terms)
        if not nullable:
            self.where_on.append(join.onclause)
        return self._inner_join(both, terms, nullable)

    def _full_join(self, both: _JoinSide, _terms: Terms) -> _JoinSide:
        # Every row of either side is in the result, whatever ON says, so that restricts none.
        return _JoinSide(both.sources, both.sources)

    def _left_join(self, left: _JoinSide, right: _JoinSide, terms: Terms) -> _JoinSide:
        self._restrict(right, terms)
        self._link(terms, right.sources, left.sources | right.sources)
        return _JoinSide(left.sources | right.sources, left.nullable | right.sources)

    def _inner_join(self, both: _JoinSide, terms: Terms, nullable: bool) -> _JoinSide:
        if nullable:
            self._restrict(both, terms)
            self._link(terms, both.sources, both.sources)
        else:
            self.where.append(terms)
        return both

    def _restrict(self, side: _JoinSide, terms: Terms) -> None:
        for source in side.sources:
            self.restrictions.setdefault(source, []).append(Restriction(terms, source in side.nullable))

    def _link(self, terms: Terms, restricted: frozenset[int], visible: frozenset[int]) -> None:
        # An equality that stands in one of several terms need not hold.
        if len(terms) != 1:
            return
        for atom in terms[0]:
            if isinstance(atom, SameValue):
                for right, left in ((atom.left, atom.right), (atom.right, atom.left)):
                    if right.source in restricted and left.source in visible:
                        self.links.append((right, left))
