"""Record the parts of a statement while SQLAlchemy renders them.

Design note. The reads of a query are decided when its text is made: after the ORM has rewritten the statement, added
joins for eager loads and loader criteria, and correlated its subqueries. So a class mixed into the dialect's SQL
compiler notes every SELECT body, table and column that is rendered, and every construct whose result does not follow
from the rows read. The record is made once a `Compiled`, which SQLAlchemy caches; `analysis.py` reads it.

Rejected: walking the statement before it is compiled (it knows nothing of eager loads and lazy correlation), and
parsing the text afterwards (100 times slower, and it would have to undo what the compiler did).

Two things can keep a statement from being analysed. What is *known* not to be a pure function of rows and parameters
(a volatile function, a lock, a write) makes it opaque. What is *text* to SQLAlchemy may be anything; there the database
itself, or a parser, is asked about the whole rendered text (`text_reads.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.sql import operators, sqltypes
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.schema import Column
from sqlalchemy.sql.selectable import FromClause, Select

from reactive_rpc.compat.sqlalchemy import CompilerHooks, affinity_of, has_hints, is_for_update, is_plain_select
from reactive_rpc.statements.date_expressions import is_date
from reactive_rpc.statements.functions import date_functions, pure_functions
from reactive_rpc.statements.tables import base_table
from reactive_rpc.statements.template import Template

__all__ = ["Expansion", "RecordingCompiler", "Rendering", "SelectBody", "is_dateless", "recording"]

_RESERVED_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
"""No table of PostgreSQL's can have a column of its own that is called so."""
_SYSTEM_COLUMNS: Final = frozenset({"rowid", "oid", "_rowid_"}) | _RESERVED_COLUMNS
_PERCENT: Final = "'%'"
"""SQLAlchemy joins it to the operand of `startswith`, `contains` and `endswith`."""
_OPERATOR_SIGNS: Final = re.compile(r"[^\w\s()'\"]+")
_OPERATOR_WORDS: Final = frozenset({
    "AT TIME ZONE", "DIV", "GLOB", "ILIKE", "IS", "IS DISTINCT FROM", "IS NOT", "IS NOT DISTINCT FROM", "LIKE", "MATCH",
    "NOT GLOB", "NOT ILIKE", "NOT LIKE", "NOT SIMILAR TO", "OVERLAPS", "REGEXP", "RLIKE", "SIMILAR TO", "XOR",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SelectBody:
    """One rendered SELECT, after all rewriting.

    Attributes:
        statement: the select as it is rendered.
        origin: the element that was rendered so, which stands in the enclosing statement.
        froms: its FROM list, without the tables that it takes from an enclosing select.
        enclosing: the index of the body that it stands in; None at the top.
    """

    statement: Select[Any]
    origin: object
    froms: tuple[FromClause, ...]
    enclosing: int | None


@dataclass(slots=True)
class Rendering:
    """The parts that a compiled statement renders.

    Attributes:
        bodies: every SELECT, in the order in which they open; None for one whose body was never composed.
        tables: `{table: how often it stands in a FROM}`.
        columns: `{table: {occurrence of it: {column: how often it is rendered}}}`; the occurrence is that of a `Field`.
        stars: the bodies that render `*`.
        opaque: the first reason why the result does not follow from the rows read; None if it does.
        calls: the functions rendered, in lower case, the signs of operators that SQLAlchemy does not know, and those of
            comparisons, as `operator =`.
        textual: the first piece that is text, and so unknown; None if there is none.
        open_bodies: the SELECTs being rendered, from the outermost in.
        origins: the elements that `bodies` were rendered of.
    """

    bodies: list[SelectBody | None] = field(default_factory=list)
    tables: Counter[str] = field(default_factory=Counter)
    columns: dict[str, dict[int, Counter[str]]] = field(default_factory=dict)
    stars: set[int] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    opaque: str | None = None
    textual: str | None = None
    open_bodies: list[int] = field(default_factory=list)
    origins: list[object] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Make the statement opaque; the first reason stays."""
        self.opaque = self.opaque or reason

    def note_text(self, reason: str) -> None:
        """Have the statement's whole text looked at; the first reason stays."""
        self.textual = self.textual or reason

    def read_all_columns(self) -> None:
        """Count every column of the innermost body's tables as rendered."""
        if self.open_bodies:
            self.stars.add(self.open_bodies[-1])


class Expansion(dict[str, list[str]]):
    """`{parameter: the names of those in its place}` of one execution, as SQLAlchemy keeps it with the execution.

    Attributes:
        literals: the values of the parameters that are rendered into the text (`literal_execute`).
    """

    literals: Mapping[str, object]


class RecordingCompiler(CompilerHooks):
    """Mixed in before a dialect's own compiler; see `recording`. Renders the same as that."""

    rendering: Rendering
    template: Template | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The base class renders the whole statement in its constructor.
        self.rendering = Rendering()
        super().__init__(*args, **kwargs)

    def note_expansion(self, expansion: Mapping[str, list[str]], literals: Mapping[str, object]) -> Expansion:
        """Keep the values that go into the text with the execution."""
        noted = Expansion(expansion)
        noted.literals = literals
        return noted

    def visit_select(self, select_stmt: Any, *args: Any, **kwargs: Any) -> Any:
        """Open a body; `note_select_body` fills it in with the ORM's form of it."""
        rendering = self.rendering
        rendering.open_bodies.append(len(rendering.bodies))
        rendering.bodies.append(None)
        rendering.origins.append(select_stmt)
        try:
            return self.renderer.visit_select(select_stmt, *args, **kwargs)
        finally:
            rendering.open_bodies.pop()

    def note_select_body(self, select: Any, froms: Sequence[Any]) -> None:
        """Fill the open body in with the ORM's form of it."""
        *enclosing, index = self.rendering.open_bodies
        origin = self.rendering.origins[index]
        self.rendering.bodies[index] = SelectBody(select, origin, tuple(froms), enclosing[-1] if enclosing else None)
        if is_for_update(select):
            self.rendering.refuse(
                "locks rows (FOR UPDATE): leave that out, or define it with define_reactive_function.mutation"
            )
        if has_hints(select):
            self.rendering.note_text("a hint")

    def visit_table(self, table: Any, asfrom: Any = False, *args: Any, **kwargs: Any) -> Any:
        """Count the table if it stands in a FROM."""
        if asfrom:
            self.rendering.tables[table.fullname] += 1
        return self.renderer.visit_table(table, asfrom, *args, **kwargs)

    def visit_column(self, column: ColumnClause[Any], *args: Any, **kwargs: Any) -> Any:
        """Note a table's column; `literal_column()` is text, but for `*`, `'%'` and whole numbers."""
        if column.is_literal:
            self._note_literal(str(column.name))
        elif column.table is None:
            self._note_bare(column.name)
        elif (table := base_table(column.table)) is not None:
            occurrences = self.rendering.columns.setdefault(table.fullname, {})
            occurrences.setdefault(hash(column.table), Counter())[column.name] += 1
            if self._is_system(column):
                self.rendering.refuse(f"reads {column.name}, a system column whose writes are not captured")
        return self.renderer.visit_column(column, *args, **kwargs)

    def _is_system(self, column: ColumnClause[Any]) -> bool:
        """Tell whether a column is the database's own; on SQLite a table may have one that is only called so."""
        name = column.name.lower()
        if name in _RESERVED_COLUMNS and self.dialect.name == "postgresql":
            return True
        return name in _SYSTEM_COLUMNS and (not isinstance(column, Column) or column.system)

    def _note_bare(self, name: str) -> None:
        """Take a column that names no table for all columns of the body: it may be any table's."""
        if name.lower() in _SYSTEM_COLUMNS or not self.rendering.open_bodies:
            self.rendering.note_text(f"column({name!r})")
        self.rendering.read_all_columns()

    def _note_literal(self, text: str) -> None:
        if text == "*":
            self.rendering.read_all_columns()
        elif text != _PERCENT and not text.isdecimal():
            self.rendering.note_text(f"literal_column({text!r})")

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse a function that is not known to be pure; `count(*)` reads no column."""
        self.rendering.calls.add(func.name.lower())
        if not _is_pure(func, self.dialect.name):
            self.rendering.refuse(
                f"calls {func.name}(), which is not known to depend on its arguments alone: pass in its value"
            )
        stars = set(self.rendering.stars)
        text = self.renderer.visit_function(func, *args, **kwargs)
        if _counts_rows(func):
            self.rendering.stars = stars
        return text

    def visit_binary(self, binary: Any, *args: Any, **kwargs: Any) -> Any:
        """Note by which sign is compared: a database's users may have defined it once more."""
        self.rendering.calls.update(f"operator {sign}" for sign in _SIGNS.get(binary.operator, ()))
        return self.renderer.visit_binary(binary, *args, **kwargs)

    def visit_unary(self, unary: Any, *args: Any, **kwargs: Any) -> Any:
        """Forget the `*` of a plain EXISTS (SELECT *): whether a row exists depends on no column of its list."""
        inner = len(self.rendering.bodies)
        text = self.renderer.visit_unary(unary, *args, **kwargs)
        if unary.operator is operators.exists and _is_plain(unary.element):
            self.rendering.stars.discard(inner)
        return text

    def visit_table_valued_column(self, element: Any, *args: Any, **kwargs: Any) -> Any:
        """Count every column as read: the whole row is one value."""
        self.rendering.read_all_columns()
        return self.renderer.visit_table_valued_column(element, *args, **kwargs)

    def visit_extract(self, extract: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse EXTRACT from anything but a date: of the text 'now' it is the clock."""
        if not is_date(extract.expr, self.dialect.name):
            self.rendering.refuse("extracts from what may be the text 'now': extract from a date column")
        return self.renderer.visit_extract(extract, *args, **kwargs)

    def visit_cast(self, cast: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse a CAST to a date, or to a type that may hold one, from anything but a date, for the same reason."""
        if not is_dateless(cast.type) and not is_date(cast.clause, self.dialect.name):
            self.rendering.refuse("casts what may be the text 'now' to a date: cast in Python")
        return self.renderer.visit_cast(cast, *args, **kwargs)

    def for_update_clause(self, select: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse a lock; a compound select has its own."""
        self.rendering.refuse(
            "locks rows (FOR UPDATE): leave that out, or define it with define_reactive_function.mutation"
        )
        return self.renderer.for_update_clause(select, *args, **kwargs)

    def visit_tablesample(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse a random sample."""
        self.rendering.refuse("takes a random sample (TABLESAMPLE): nothing to cache")
        return self.renderer.visit_tablesample(*args, **kwargs)

    def visit_sequence(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse the next value of a sequence."""
        self.rendering.refuse("takes the next value of a sequence: define it with define_reactive_function.mutation")
        return self.renderer.visit_sequence(*args, **kwargs)

    def visit_insert(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse a write, also one inside of a CTE."""
        self.rendering.refuse("writes (INSERT): define it with define_reactive_function.mutation")
        return self.renderer.visit_insert(*args, **kwargs)

    def visit_update(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse a write, also one inside of a CTE."""
        self.rendering.refuse("writes (UPDATE): define it with define_reactive_function.mutation")
        return self.renderer.visit_update(*args, **kwargs)

    def visit_delete(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse a write, also one inside of a CTE."""
        self.rendering.refuse("writes (DELETE): define it with define_reactive_function.mutation")
        return self.renderer.visit_delete(*args, **kwargs)

    def visit_textclause(self, *args: Any, **kwargs: Any) -> Any:
        """Note text."""
        self.rendering.note_text("text()")
        return self.renderer.visit_textclause(*args, **kwargs)

    def visit_textual_select(self, *args: Any, **kwargs: Any) -> Any:
        """Note text."""
        self.rendering.note_text("text()")
        return self.renderer.visit_textual_select(*args, **kwargs)

    def visit_tstring(self, *args: Any, **kwargs: Any) -> Any:
        """Note text; SQLAlchemy has these from 2.1 on."""
        self.rendering.note_text("tstring()")
        return self.renderer.visit_tstring(*args, **kwargs)

    def visit_custom_op_binary(self, element: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        """Note an operator that an application has named."""
        self._note_operator(operator)
        return self.renderer.visit_custom_op_binary(element, operator, *args, **kwargs)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        """Note an operator that an application has named."""
        self._note_operator(operator)
        return self.renderer.visit_custom_op_unary_operator(element, operator, *args, **kwargs)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        """Note an operator that an application has named."""
        self._note_operator(operator)
        return self.renderer.visit_custom_op_unary_modifier(element, operator, *args, **kwargs)

    def _note_operator(self, operator: Any) -> None:
        """Take a custom operator of more than signs or a known word for text."""
        text = operator.opstring.strip()
        self.rendering.calls.add(text)
        if not _OPERATOR_SIGNS.fullmatch(text) and text.upper() not in _OPERATOR_WORDS:
            self.rendering.note_text(f"the operator {text!r}")


_SIGNS: Final[dict[Any, tuple[str, ...]]] = {
    operators.eq: ("=",),
    operators.ne: ("<>",),
    operators.lt: ("<",),
    operators.le: ("<=",),
    operators.gt: (">",),
    operators.ge: (">=",),
    operators.in_op: ("=",),
    operators.not_in_op: ("<>",),
    operators.between_op: (">=", "<="),
    operators.not_between_op: ("<", ">"),
    operators.is_distinct_from: ("=",),
    operators.is_not_distinct_from: ("=",),
    operators.add: ("+",),
    operators.sub: ("-",),
    operators.mul: ("*",),
    operators.mod: ("%",),
    operators.concat_op: ("||",),
    operators.like_op: ("~~",),
    operators.contains_op: ("~~",),
    operators.startswith_op: ("~~",),
    operators.endswith_op: ("~~",),
    operators.not_like_op: ("!~~",),
    operators.not_contains_op: ("!~~",),
    operators.not_startswith_op: ("!~~",),
    operators.not_endswith_op: ("!~~",),
    operators.ilike_op: ("~~*",),
    operators.icontains_op: ("~~*",),
    operators.istartswith_op: ("~~*",),
    operators.iendswith_op: ("~~*",),
    operators.not_ilike_op: ("!~~*",),
    operators.not_icontains_op: ("!~~*",),
    operators.not_istartswith_op: ("!~~*",),
    operators.not_iendswith_op: ("!~~*",),
}
_DATELESS: Final = (
    sqltypes.Boolean,
    sqltypes.Enum,
    sqltypes.Integer,
    sqltypes.Interval,
    sqltypes.JSON,
    sqltypes.LargeBinary,
    sqltypes.Float,
    sqltypes.Numeric,
    sqltypes.String,
    sqltypes.Uuid,
)


def is_dateless(type_: Any) -> bool:
    """Tell whether no text reads as a date in this type."""
    if isinstance(type_, sqltypes.ARRAY):
        return is_dateless(type_.item_type)
    return issubclass(affinity_of(type_), _DATELESS)


def _is_pure(function: Any, database: str) -> bool:
    name = function.name.lower()
    if function.packagenames:
        return False
    of_dates = date_functions(database)
    if name in of_dates:
        dates = list(function.clauses)[of_dates[name] :]
        return bool(dates) and is_date(dates[0], database)
    if name == "age" and database == "postgresql":  # of one date, it is its distance from today
        return len(function.clauses) == 2
    return name in pure_functions(database)


def _counts_rows(function: Any) -> bool:
    if function.name.lower() != "count":
        return False
    arguments = list(function.clauses)
    return (
        len(arguments) == 1
        and isinstance(arguments[0], ColumnClause)
        and arguments[0].is_literal
        and arguments[0].name == "*"
    )


def _is_plain(element: Any) -> bool:
    """Tell whether a subquery yields a row for every row of its FROM and WHERE, whatever its columns are."""
    while not isinstance(element, Select) and hasattr(element, "element"):
        element = element.element
    return isinstance(element, Select) and is_plain_select(element)


def recording(compiler: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return `compiler` with the recorder mixed in; unchanged if it is so already."""
    if issubclass(compiler, RecordingCompiler):
        return compiler
    return type(f"Recording{compiler.__name__}", (RecordingCompiler, compiler), {})
