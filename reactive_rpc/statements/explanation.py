"""The reads of statements as people and tools are told of them: narrow by which conditions, or wide, and why.

Plain data. `binding.py` and `recorder.py` make it of the very reads that constraints are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Column
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import visitors

from reactive_rpc.dependencies.change import Unknown
from reactive_rpc.dependencies.expressions import ColumnRef, Expression, FixedValue, Membership, OfParents
from reactive_rpc.dependencies.read_set import Between, Condition, Equals, IsNull
from reactive_rpc.statements.formulas import Applied, Formula, Missing
from reactive_rpc.statements.predicates import Comparison, Field, Parameter
from reactive_rpc.statements.template import ParentAtom, RowAtom, RowFormula

__all__ = [
    "ExplainedRead",
    "TracedStatement",
    "Unused",
    "UnusedCondition",
    "described",
    "expressed",
    "formulated",
    "may_fail",
    "spelled",
    "unread_conditions",
]

MAX_SHOWN: Final = 5
"""So many values of a list are shown."""

_SHOWN_ARGUMENTS: Final = {"%": 2, "*": 2, "+": 2, "-": 2, "as text": 1, "like": 2, "lower": 1, "upper": 1}
"""How many arguments are the statement's own: the others say how the database folds, escapes and computes."""
_SIGNS: Final = {"eq": "=", "in": "IN", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


class Unused(Enum):
    """Why a condition does not narrow a read, and what would make it; `{column}` is its column, `{key}` a parent's."""

    INEXACT = "{column} is not compared exactly", "an exact type and collation; Capture(images=[...]) for a secret name"
    TOO_MANY = "its values are not known one by one, or are too many", "a shorter IN list"
    INCOMPARABLE = "a value is of another type than {column}, and the database converts one of them", "pass its type"
    UNORDERED = "the order of {column} is the database's own", "an equality, or a column that is ordered by its bytes"
    CIRCLE = "each of the two rows is the other's parent", None
    NOT_INDEXED = "no index begins with {key}", "an index on {key}"
    INEXACT_KEY = "{column} and {key} do not compare exactly", "the type of the key for both, as a foreign key has it"
    NAMED_ODDLY = "a column's name holds a dot or an arrow", "another name"
    NOT_READ = "it is no comparison of a column with values", "keep what you compare in a column of its own"
    NOT_KNOWN = (
        "of no row is it known what it says",
        "exact types and collations, values of the column's own type, and lists of at most 64 values",
    )
    OF_VIEW = "columns of a view need not be those of the rows behind it", "select from the tables behind it"
    NOT_FULL = "it found fewer rows: any further one would be shown", None
    NO_ORDER = (
        "which rows come after the last one is not known",
        "ORDER BY columns that are selected and compare exactly, in a SELECT without groups and aggregates",
    )
    OF_TEXT = "text is not analysed: the database names the tables that it reads", "select()"

    @property
    def reason(self) -> str:
        """Why not."""
        return str(self.value[0])

    @property
    def remedy(self) -> str | None:
        """What would narrow the read."""
        remedy: str | None = self.value[1]
        return remedy

    def of(self, condition: str, *, column: str = "", key: str = "") -> UnusedCondition:
        """Return it as that of a condition."""
        reason = self.reason.format(column=column, key=key)
        remedy = None if self.remedy is None else self.remedy.format(column=column, key=key)
        return UnusedCondition(condition=condition, reason=reason, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedCondition:
    """A condition of a statement that does not narrow its read.

    Attributes:
        condition: as SQL has it, without values.
        reason: why it does not.
        remedy: what would make it; None if nothing is known.
    """

    condition: str
    reason: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRead:
    """The rows of one table that a statement reads.

    Attributes:
        table: by canonical name.
        columns: through which they are seen, sorted; None is all of them.
        conditions: that narrow it, as SQL has them; without any every row is read.
        unused: the conditions that do not.
        aggregated: the values that aggregates take up: an update that changes none of these, and none of the columns
            that stand elsewhere, does not count.
    """

    table: str
    columns: tuple[str, ...] | None
    conditions: tuple[str, ...] = ()
    unused: tuple[UnusedCondition, ...] = ()
    aggregated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedStatement:
    """A statement that a handler ran.

    Attributes:
        text: as the driver got it.
        parameters: their `repr`.
        reads: one for each table and alternative; empty if no row can matter.
        opaque: why its reads cannot be told; None if they can.
    """

    text: str
    parameters: str
    reads: tuple[ExplainedRead, ...] = ()
    opaque: str | None = None


def described(column: str, condition: Condition) -> str:
    """Return a condition as SQL has it.

    >>> described("team_id", Equals(frozenset({3})))
    'team_id = 3'
    >>> described("id", Between(1, True, None, False))
    'id >= 1'
    """
    if isinstance(condition, Equals):
        values = sorted(condition.values, key=lambda value: (str(type(value)), value))
        if len(values) == 1:
            return f"{column} = {values[0]!r}"
        shown = ", ".join(map(repr, values[:MAX_SHOWN])) + (", ..." if len(values) > MAX_SHOWN else "")
        return f"{column} IN ({shown})"
    if isinstance(condition, Between):
        low = (
            None if condition.low is None else f"{column} {'>=' if condition.low_inclusive else '>'} {condition.low!r}"
        )
        high = (
            None
            if condition.high is None
            else f"{column} {'<=' if condition.high_inclusive else '<'} {condition.high!r}"
        )
        return " AND ".join(each for each in (low, high) if each is not None)
    return f"{column} IS NULL" if isinstance(condition, IsNull) else f"{column} IS NOT NULL"


def expressed(expression: Expression) -> str:
    """Return a condition that is evaluated on rows, its operations as functions.

    >>> expressed(Membership(ColumnRef("status"), frozenset({"open"}), False))
    "status IN ('open')"
    """
    if isinstance(expression, ColumnRef):
        return expression.name
    if isinstance(expression, FixedValue):
        value = expression.value
        return "?" if isinstance(value, Unknown) else "NULL" if value is None else repr(value)
    if isinstance(expression, Membership):
        values = ", ".join(sorted(map(repr, expression.values)))
        return f"{expressed(expression.of)} IN ({values}{', NULL' if expression.has_null else ''})"
    if isinstance(expression, OfParents):
        return f"{expressed(expression.condition)} of {expression.virtual}"
    shown = expression.arguments[: _SHOWN_ARGUMENTS.get(expression.name)]
    return _applied(expression.name, list(map(expressed, shown)))


def formulated(formula: Formula) -> str:
    """Return a condition as SQL has it, without its values.

    >>> formulated(Applied("not", (Applied("in", (Field(1, "task", "status"), Parameter("status_1"))),)))
    'not((task.status in ?))'
    """
    if isinstance(formula, Field):
        return formula.qualified
    if isinstance(formula, Applied):
        return _applied(formula.name, list(map(formulated, formula.arguments)))
    if isinstance(formula, Missing):
        return "NULL" if formula.is_null else "?"
    return "?" if isinstance(formula, Parameter) else str(formula.value)


def _applied(name: str, parts: Sequence[str]) -> str:
    is_sign = len(parts) == 2 and (not name.isalpha() or name in ("and", "ilike", "in", "like", "or"))
    return f"({f' {name} '.join(parts)})" if is_sign else f"{name}({', '.join(parts)})"


def may_fail(expression: Expression) -> bool:
    """Tell whether it can be known of a row that has no NULL that it fails an expression, as far as its parts tell.

    >>> may_fail(ColumnRef("done")), may_fail(FixedValue(Unknown()))
    (True, False)
    """
    return _can_be_known(expression, otherwise=False)


def _can_be_known(expression: Expression, *, otherwise: bool) -> bool:
    """Tell whether the value of an expression can be known; that of a truth value if it is not `otherwise`."""
    if isinstance(expression, ColumnRef):
        return True
    if isinstance(expression, FixedValue):
        return not isinstance(expression.value, Unknown)
    if isinstance(expression, Membership):
        return _can_be_known(expression.of, otherwise=False)
    if isinstance(expression, OfParents):
        return _can_be_known(expression.condition, otherwise=otherwise)
    name, parts = expression.name, expression.arguments
    if name == "not":
        return _can_be_known(parts[0], otherwise=not otherwise)
    if name in ("and", "or"):
        # A part that is FALSE decides AND, one that is TRUE decides OR; for the other value all have to be known.
        decides = any if (name == "and") != otherwise else all
        return decides(_can_be_known(each, otherwise=otherwise) for each in parts)
    if name == "coalesce":
        return _can_be_known(parts[0], otherwise=False)
    if name == "case":
        return all(_can_be_known(each, otherwise=False) for each in parts[:-1:2])
    return all(_can_be_known(each, otherwise=False) for each in parts)


def spelled(atom: RowAtom | RowFormula | ParentAtom) -> str:
    """Return an atom as SQL has it, without its value."""
    if isinstance(atom, ParentAtom):
        return f"{spelled(atom.atom)}, of the row whose {atom.key.name} is its {atom.column.name}"
    field = f"{atom.field.table}.{atom.field.name}"
    if isinstance(atom, Comparison):
        return f"{field} {_SIGNS[atom.operator]} ?"
    if isinstance(atom, RowFormula):
        return f"a condition on {field}"
    return f"{field} IS NULL" if atom.null else f"{field} IS NOT NULL"


def unread_conditions(expressions: Iterable[Any], table: str) -> Iterator[UnusedCondition]:
    """Yield the expressions that name a column of `table`, as conditions that say nothing of its rows."""
    for expression in expressions:
        named = (each.table for each in visitors.iterate(expression) if isinstance(each, Column))
        if any(getattr(getattr(each, "element", each), "fullname", None) == table for each in named):
            yield Unused.NOT_READ.of(_text(expression))


def _text(expression: Any) -> str:
    try:
        return " ".join(str(expression).split())
    except SQLAlchemyError:  # a construct that no dialect but the database's own can render
        return f"a {type(expression).__name__}"
