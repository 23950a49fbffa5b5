"""The reads of a statement, its parameters still open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reactive_rpc.statements.formulas import Formula
from reactive_rpc.statements.predicates import Comparison, Field, Nullness, Parameter

__all__ = ["FormulaTest", "ParentAtom", "Read", "RowAtom", "RowFormula", "SortKey", "Template", "Window"]

RowAtom = Comparison | Nullness
"""An atom about one row of one table."""


@dataclass(frozen=True, slots=True)
class RowFormula:
    """A formula about one column of a row: more than atoms say."""

    field: Field
    formula: Formula


@dataclass(frozen=True, slots=True)
class ParentAtom:
    """An atom about a row whose `key` equals a row's `column`, or about that row's own parent; see `usable`."""

    column: Field
    key: Field
    atom: RowAtom | RowFormula | ParentAtom

    @property
    def last(self) -> RowAtom | RowFormula:
        """The atom about the row that is come to in the end."""
        return self.atom.last if isinstance(self.atom, ParentAtom) else self.atom

    @property
    def parents(self) -> tuple[int, ...]:
        """The sources that it leads over."""
        further = self.atom.parents if isinstance(self.atom, ParentAtom) else ()
        return (self.key.source, *further)


@dataclass(frozen=True, slots=True)
class FormulaTest:
    """The conditions of a WHERE about one occurrence of a table, all of which must be TRUE.

    Attributes:
        formulas: the conditions, as far as they are understood.
        columns: those that the statement renders nowhere else.
        says_more: whether they say more than the atoms of the read.
        nullable: whether an outer join may leave the occurrence out.
        aggregated: the values through which the body's aggregates see a row that passes.
        counted: a condition without which all of these are NULL, and nothing else sees that the row is there; None if
            something does.
    """

    formulas: tuple[Formula, ...]
    columns: frozenset[str]
    says_more: bool
    nullable: bool
    aggregated: tuple[Formula, ...] = ()
    counted: Formula | None = None


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column that the rows of a statement are ordered by.

    Attributes:
        field: the column.
        source: the identity of its occurrence.
        place: where the statement shows it.
        descending: whether the greatest comes first.
        nulls_first: whether NULLs come before all others.
    """

    field: Field
    source: int
    place: int
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The order of a statement that has a LIMIT.

    Attributes:
        keys: the first columns of the order, all of one occurrence of a table.
        limit: how many rows it shows.
        width: how many columns.
    """

    keys: tuple[SortKey, ...]
    limit: Parameter
    width: int

    @property
    def source(self) -> int:
        """The identity of the occurrence."""
        return self.keys[0].source


@dataclass(frozen=True, slots=True)
class Read:
    """Rows of `table` for which every atom holds, with their parents, seen through `columns` (None: all).

    If it `is_windowed`, those after the last row that the statement shows do not matter (`Template.window`).
    """

    table: str
    columns: frozenset[str] | None
    atoms: tuple[RowAtom, ...] = ()
    parents: tuple[ParentAtom, ...] = ()
    test: FormulaTest | None = None
    is_windowed: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """The reads of a statement, its parameters still open.

    Attributes:
        reads: without duplicates.
        tables: all tables rendered, also those of which no row can matter.
        opaque: why the reads cannot be determined; None if they can.
        textual: the piece of text for which the whole rendered text must be looked at; None if there is none.
        dates: the parameters that PostgreSQL may read as dates.
        calls: the functions that are called, in lower case, the signs of operators that SQLAlchemy does not know, and
            those of comparisons, as `operator =`.
        unread: the parts of conditions that say nothing of rows, as SQLAlchemy has them; for explanations alone.
        is_limited: whether the statement itself has a LIMIT.
        window: its order, if it has one; None if that is not known.
    """

    reads: tuple[Read, ...] = ()
    tables: tuple[str, ...] = ()
    opaque: str | None = None
    textual: str | None = None
    dates: tuple[str, ...] = ()
    calls: frozenset[str] = frozenset()
    unread: tuple[Any, ...] = ()
    is_limited: bool = False
    window: Window | None = None
