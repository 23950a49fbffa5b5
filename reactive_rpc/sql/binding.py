"""From a template and the parameters of one execution to constraints on rows.

Every step that is not sure leaves its condition out, which is wider. Only one thing makes a constraint go away: a
conjunction that no row can satisfy, such as `x = NULL` or `x = 1 AND x = 2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from reactive_rpc.reactive.read_set import Between, Condition, Constraint, Equals, IsNull, NotNull
from reactive_rpc.reactive.schema import Kind, Schema
from reactive_rpc.sql.comparable_values import Comparable, comparable, ordered
from reactive_rpc.sql.predicates import Comparison, Constant, Nullness
from reactive_rpc.sql.template import Read, RowAtom, Template

__all__ = ["MAX_VALUES", "Binder", "ParameterValues", "intersection"]

MAX_VALUES: Final = 256
"""An IN list with more values than this is left out."""

ParameterValues = Callable[[str], Sequence[object] | None]
"""The values that the driver gets for a parameter of this name: one, or an IN list; None where they are not known."""

_UNSATISFIABLE: Final = Equals(frozenset())


class Binder:
    """Binds templates.

    Args:
        schema: what is captured, and how columns compare.
        dialect: the database's name in SQLAlchemy, for example `sqlite`.
    """

    def __init__(self, schema: Schema, dialect: str) -> None:
        self._schema = schema
        self._dialect = dialect

    def opaque(self, template: Template) -> str | None:
        """Return why a result of `template` must not be cached; None where it may."""
        if template.opaque is not None:
            return template.opaque
        unseen = (table for table in template.tables if not self._schema.captured(table))
        return next((f"reads table {table}, whose writes are not captured" for table in unseen), None)

    def constraints(self, template: Template, values: ParameterValues) -> Iterator[Constraint]:
        """Yield what `template` reads with these values."""
        for read in template.reads:
            conditions = self._conditions(read, values)
            if conditions is not None:
                yield Constraint(read.table, self._columns(read), conditions)

    def _columns(self, read: Read) -> frozenset[str] | None:
        """Return the columns rendered; None, which is all, where one is spelled otherwise than in the database.

        SQLite takes `ID` for `id`, but a change names its columns as the database does.
        """
        if read.columns is None or not read.columns <= self._schema.columns(read.table):
            return None
        return read.columns

    def _conditions(self, read: Read, values: ParameterValues) -> dict[str, Condition] | None:
        """Return `{column: condition}`; None where no row satisfies them."""
        conditions: dict[str, Condition] = {}
        for atom in read.atoms:
            condition = self._condition(atom, values)
            if condition is None:
                continue
            column = atom.field.name
            merged = intersection(conditions[column], condition) if column in conditions else condition
            if merged == _UNSATISFIABLE:
                return None
            conditions[column] = merged
        return conditions

    def _condition(self, atom: RowAtom, values: ParameterValues) -> Condition | None:
        """Return what `atom` says of its column; None where that is not sure."""
        kind = self._kind(atom)
        if kind is None:
            return None
        if isinstance(atom, Nullness):
            return IsNull() if atom.null else NotNull()
        given = (atom.operand.value,) if isinstance(atom.operand, Constant) else values(atom.operand.name)
        if given is None or len(given) > MAX_VALUES:
            return None
        # NULL compares true with nothing.
        found = [comparable(value, kind, self._dialect) for value in given if value is not None]
        known = [value for value in found if value is not None]
        if len(known) != len(found):
            return None
        return self._comparison(atom, known)

    def _kind(self, atom: RowAtom) -> Kind | None:
        """Return how the atom's column compares; None where unsure, or where a carried value met another kind."""
        kind = self._schema.kind(atom.field.table, atom.field.name)
        path = atom.path if isinstance(atom, Comparison) else ()
        if path and kind == "real":
            return None
        return kind if all(self._schema.kind(field.table, field.name) == kind for field in path) else None

    def _comparison(self, atom: Comparison, values: list[Comparable]) -> Condition | None:
        if atom.operator in ("eq", "in") or not values:
            return Equals(frozenset(values))
        bound = values[0]
        if not ordered(bound, self._dialect):
            return None
        if atom.operator in ("gt", "ge"):
            return Between(bound, atom.operator == "ge", None, False)
        return Between(None, False, bound, atom.operator == "le")


def intersection(left: Condition, right: Condition) -> Condition:
    """Return the condition that holds where both hold, or a wider one; `Equals` of nothing where none can.

    >>> intersection(Equals(frozenset({1, 2})), Between(2, True, None, False))
    Equals(values=frozenset({2}))
    """
    if isinstance(left, Equals):
        return Equals(frozenset(value for value in left.values if right.admits(value)))
    if isinstance(right, Equals):
        return intersection(right, left)
    if isinstance(left, IsNull) or isinstance(right, IsNull):
        return left if type(left) is type(right) else _UNSATISFIABLE
    if isinstance(left, NotNull):
        return right
    if isinstance(right, NotNull):
        return left
    return _overlap(left, right)


def _overlap(left: Between, right: Between) -> Between:
    low = _tightest([(left.low, left.low_inclusive), (right.low, right.low_inclusive)], _higher)
    high = _tightest([(left.high, left.high_inclusive), (right.high, right.high_inclusive)], _lower)
    return Between(*low, *high)


_Bound = tuple[Comparable | None, bool]


def _tightest(bounds: Iterable[_Bound], tighter: Callable[[Comparable, Comparable], bool]) -> _Bound:
    """Return the tightest bound; of two of different kinds the first stays, which is wider."""
    best: _Bound = (None, False)
    for value, inclusive in bounds:
        if value is None or (best[0] is not None and isinstance(value, str) != isinstance(best[0], str)):
            continue
        if best[0] is None or tighter(value, best[0]) or (value == best[0] and not inclusive):
            best = (value, inclusive)
    return best


def _higher(value: Comparable, than: Comparable) -> bool:
    return value > than  # type: ignore[operator]  # same kind: the caller has checked


def _lower(value: Comparable, than: Comparable) -> bool:
    return value < than  # type: ignore[operator]  # same kind: the caller has checked
