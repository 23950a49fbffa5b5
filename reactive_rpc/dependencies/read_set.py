"""A read set: the rows that a result depends on, as constraints.

A constraint says: rows of this table, for which these conditions hold, seen through these columns. A change touches a
constraint when its row, before **or** after, may satisfy the conditions, and, for an update, when a column that the
statement renders has changed. Anything that cannot be decided counts as touched: too wide is a metric, too narrow is
a stale answer.

Values are compared in the database's domain (see `change.py`). Numbers and strings never compare equal, and where a
range meets a value of the other kind, the row counts as inside: SQLite sorts all numbers before all strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Known, Unknown, Value
from reactive_rpc.dependencies.expressions import Expression, OfParents, truth_of, value_of
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.period import ALWAYS, Period

__all__ = [
    "NOTHING",
    "Between",
    "Condition",
    "Constraint",
    "Equals",
    "IsNull",
    "NotNull",
    "ReadSet",
    "RowTest",
    "others_changed",
]


@dataclass(frozen=True, slots=True)
class Equals:
    """The column equals one of `values` (never None: SQL's NULL equals nothing).

    A single value stands in a tuple, which is a third of a set: most conditions have one, and streams watch many.
    """

    values: frozenset[Known] | tuple[Known, ...]

    def __post_init__(self) -> None:
        if len(self.values) == 1 and not isinstance(self.values, tuple):
            object.__setattr__(self, "values", tuple(self.values))

    def admits(self, value: Value) -> bool:
        """Tell whether a row with this value satisfies the condition."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Between:
    """The column lies between two bounds; None is open."""

    low: Value
    low_inclusive: bool
    high: Value
    high_inclusive: bool

    def admits(self, value: Value) -> bool:
        """Tell whether a row with this value may satisfy the condition."""
        if value is None:
            return False
        return not (_below(value, self.low, self.low_inclusive) or _below(self.high, value, self.high_inclusive))


@dataclass(frozen=True, slots=True)
class IsNull:
    """The column is NULL."""

    def admits(self, value: Value) -> bool:
        """Tell whether a row with this value satisfies the condition."""
        return value is None


@dataclass(frozen=True, slots=True)
class NotNull:
    """The column is not NULL."""

    def admits(self, value: Value) -> bool:
        """Tell whether a row with this value satisfies the condition."""
        return value is not None


Condition = Equals | Between | IsNull | NotNull


def _below(value: Value, bound: Value, inclusive: bool) -> bool:
    """Tell whether `value` is surely under `bound`; an open bound or one of another kind never is surely so."""
    if value is None or bound is None or isinstance(value, str) != isinstance(bound, str):
        return False
    return value < bound or (not inclusive and value == bound)  # type: ignore[operator]  # same kind: checked above


@dataclass(frozen=True, slots=True)
class RowTest:
    """The part of a WHERE that is about one row alone, evaluated on its images.

    INVARIANT (only which side a row is on matters): a statement sees a row's `columns` only through this predicate, as
    TRUE or not, and of a row that passes through the values that aggregates take up. So an update of no other column,
    before and after which these are the same, leaves the result as it is; so does any write whose images all fail the
    predicate, if it `narrows`.

    Attributes:
        predicate: TRUE for the rows that pass.
        columns: those that the statement renders nowhere but in the predicate.
        narrows: whether a row that fails it, of which an outer join may show NULLs in its place, cannot matter.
        is_windowed: whether the last of its parts comes of the rows that a LIMIT showed, and not of the WHERE.
        of_parents: conditions on parents: an image of which one is not TRUE cannot matter.
        aggregated: the values through which aggregates see `columns` of a row that passes, beside the predicate.
    """

    predicate: Expression
    columns: frozenset[str]
    narrows: bool
    is_windowed: bool = False
    of_parents: tuple[OfParents, ...] = ()
    aggregated: tuple[Expression, ...] = ()

    def is_touched(self, change: Change, *, before: bool, after: bool, others_changed: bool) -> bool:
        """Tell whether a change may matter.

        Args:
            before: whether the conditions beside the test admit the image before; likewise `after`.
            others_changed: whether a column is written, or may be, that is rendered elsewhere too.
        """
        before, after = before and self._has_parents(change.before), after and self._has_parents(change.after)
        if not (before or after):
            return False
        was = None if change.before is None else truth_of(self.predicate, change.before)
        will_be = None if change.after is None else truth_of(self.predicate, change.after)
        if self.narrows and not ((before and was is not False) or (after and will_be is not False)):
            return False
        if others_changed or was is None or was != will_be:
            return True
        return was and not all(_is_same_value(each, change) for each in self.aggregated)

    def _has_parents(self, image: Image | None) -> bool:
        return image is not None and all(truth_of(each, image) is not False for each in self.of_parents)


def _is_same_value(expression: Expression, change: Change) -> bool:
    """Tell whether an expression surely has the same value before and after a change, to the last digit."""
    before, after = (
        UNKNOWN if image is None else value_of(expression, image) for image in (change.before, change.after)
    )
    # 1, 1.0 and Decimal("1.0") compare equal, and their sums are spelled otherwise.
    return not isinstance(before, Unknown) and not isinstance(after, Unknown) and repr(before) == repr(after)


@dataclass(frozen=True, slots=True)
class Constraint:
    """Rows of `table` that satisfy every condition, seen through `columns`.

    Attributes:
        table: the table's name in the database.
        columns: the columns that the statement renders; None means all of them.
        conditions: `{column: condition}`; empty means the whole table.
        lookups: the virtual columns among them.
        test: what is known beside the conditions.
    """

    table: str
    columns: frozenset[str] | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    lookups: tuple[Lookup, ...] = ()
    test: RowTest | None = None

    def touched_by(self, change: Change) -> bool:
        """Tell whether `change` may alter the rows read here."""
        if change.table != self.table:
            return False
        if change.operation == "bulk":
            return True
        if change.changed is not None and self.columns is not None and not (change.changed & self.columns):
            return False
        before, after = self._admits(change.before), self._admits(change.after)
        if self.test is None or not (before or after):
            return before or after
        others = others_changed(change, self.columns, self.test)
        return self.test.is_touched(change, before=before, after=after, others_changed=others)

    def _admits(self, image: Image | None) -> bool:
        if image is None:
            return False
        for column, condition in self.conditions.items():
            value = image.get(column, UNKNOWN)
            if isinstance(value, frozenset):
                if not any(map(condition.admits, value)):
                    return False
            elif not isinstance(value, Unknown) and not condition.admits(value):
                return False
        return True


def others_changed(change: Change, columns: frozenset[str] | None, test: RowTest) -> bool:
    """Tell whether a change writes, or may write, one of `columns` that is rendered outside of a test."""
    return change.changed is None or columns is None or not (change.changed & columns <= test.columns)


@dataclass(frozen=True, slots=True)
class ReadSet:
    """Everything that one result depends on.

    Attributes:
        constraints: in the order of reading; duplicates removed.
        opaque: why the reads could not be determined (the result is then not cached); None if they could.
        period: in which the result holds, as far as time goes.
    """

    constraints: tuple[Constraint, ...] = ()
    opaque: str | None = None
    period: Period = ALWAYS

    @property
    def tables(self) -> frozenset[str]:
        """The tables read."""
        return frozenset(constraint.table for constraint in self.constraints)

    def __or__(self, other: ReadSet) -> ReadSet:
        """Return the dependencies of both."""
        constraints = (*self.constraints, *other.constraints)
        return ReadSet(constraints, self.opaque or other.opaque, self.period & other.period)

    def touched_by(self, changes: Iterable[Change]) -> bool:
        """Tell whether one of `changes` may alter the result."""
        if self.opaque is not None:
            return True
        return any(constraint.touched_by(change) for change in changes for constraint in self.constraints)


NOTHING = ReadSet()
