"""Record what a statement renders, while SQLAlchemy renders it.

Design note. What a query reads is decided where its text is made: after the ORM has rewritten the statement, added
joins for eager loads and loader criteria, and correlated its subqueries. So a class mixed into the dialect's SQL
compiler notes every SELECT body, table and column that is rendered, and every construct whose result does not follow
from the rows read. The record is made once a `Compiled`, which SQLAlchemy caches; `analysis.py` reads it.

Rejected: walking the statement before it is compiled (it knows nothing of eager loads and lazy correlation), and
parsing the text afterwards (100 times slower, and it would have to undo what the compiler did).

Whatever is not known to be a pure function of rows and parameters makes the statement opaque: the functions allowed
are a list, since volatile ones cannot be listed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.sql import operators, sqltypes
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.schema import Column
from sqlalchemy.sql.selectable import FromClause, Select

from reactive_rpc.sql.tables import base_table
from reactive_rpc.sql.template import Template

__all__ = ["PURE_FUNCTIONS", "RecordingCompiler", "Rendering", "SelectBody", "recording"]

# fmt: off
PURE_FUNCTIONS: Final = frozenset(
    {
        # Aggregates and windows.
        "aggregate_strings", "any", "array_agg", "avg", "bool_and", "bool_or", "count", "cume_dist", "dense_rank",
        "every", "first_value", "group_concat", "json_agg", "json_group_array", "json_group_object", "jsonb_agg",
        "lag", "last_value", "lead", "max", "min", "nth_value", "ntile", "percent_rank", "rank", "row_number",
        "string_agg", "sum", "total",
        # Text.
        "char_length", "character_length", "concat", "concat_ws", "hex", "instr", "length", "lower", "lpad",
        "ltrim", "octet_length", "replace", "reverse", "rpad", "rtrim", "split_part", "strpos", "substr",
        "substring", "trim", "unicode", "upper",
        # Numbers.
        "abs", "ceil", "ceiling", "exp", "floor", "ln", "log", "mod", "pow", "power", "round", "sign", "sqrt",
        "trunc",
        # Choice and JSON.
        "coalesce", "greatest", "ifnull", "iif", "json_array_length", "json_extract", "json_type",
        "jsonb_array_length", "least", "nullif",
    }
)
"""Functions whose result follows from their arguments alone, in every dialect that has them."""
# fmt: on

_SYSTEM_COLUMNS: Final = frozenset({"rowid", "oid", "_rowid_", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_OPERATOR_SIGNS: Final = re.compile(r"[^\w\s()'\"]+")
_OPERATOR_WORDS: Final = frozenset({"GLOB", "MATCH", "REGEXP", "SIMILAR TO", "LIKE", "ILIKE", "RLIKE", "DIV", "XOR"})


@dataclass(frozen=True, slots=True)
class SelectBody:
    """One rendered SELECT, after all rewriting.

    Attributes:
        statement: the select as it is rendered.
        froms: its FROM list, without what it takes from an enclosing select.
        enclosing: the index of the body that it stands in; None at the top.
    """

    statement: Select[Any]
    froms: tuple[FromClause, ...]
    enclosing: int | None


@dataclass(slots=True)
class Rendering:
    """What a compiled statement renders.

    Attributes:
        bodies: every SELECT, in the order in which they open; None for one whose body was never composed.
        tables: `{table: how often it stands in a FROM}`.
        columns: `{table: names of its columns rendered anywhere}`.
        stars: the bodies that render `*`.
        opaque: the first reason why the result does not follow from the rows read; None where it does.
        open_bodies: the SELECTs being rendered, from the outermost in.
    """

    bodies: list[SelectBody | None] = field(default_factory=list)
    tables: Counter[str] = field(default_factory=Counter)
    columns: dict[str, set[str]] = field(default_factory=dict)
    stars: set[int] = field(default_factory=set)
    opaque: str | None = None
    open_bodies: list[int] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Make the statement opaque; the first reason stays."""
        self.opaque = self.opaque or reason


class RecordingCompiler(SQLCompiler):
    """Mixed in before a dialect's own compiler; see `recording`. Renders what that renders."""

    rendering: Rendering
    template: Template | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The base class renders the whole statement in its constructor.
        self.rendering = Rendering()
        super().__init__(*args, **kwargs)

    @property
    def _renderer(self) -> Any:
        """The dialect's own compiler; its methods are not typed."""
        return super()

    def visit_select(self, select_stmt: Any, *args: Any, **kwargs: Any) -> Any:
        """Open a body; `_compose_select_body` fills it in with what the ORM made of it."""
        rendering = self.rendering
        rendering.open_bodies.append(len(rendering.bodies))
        rendering.bodies.append(None)
        try:
            return self._renderer.visit_select(select_stmt, *args, **kwargs)
        finally:
            rendering.open_bodies.pop()

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *args: Any, **kwargs: Any
    ) -> Any:
        *enclosing, index = self.rendering.open_bodies
        self.rendering.bodies[index] = SelectBody(select, tuple(froms), enclosing[-1] if enclosing else None)
        if select._for_update_arg is not None:
            self.rendering.refuse("locks rows (FOR UPDATE)")
        if select._hints or select._statement_hints:
            self.rendering.refuse("renders a hint, which is text")
        return self._renderer._compose_select_body(text, select, compile_state, inner_columns, froms, *args, **kwargs)

    def visit_table(self, table: Any, asfrom: Any = False, *args: Any, **kwargs: Any) -> Any:
        """Count the table where it stands in a FROM."""
        if asfrom:
            self.rendering.tables[table.fullname] += 1
        return self._renderer.visit_table(table, asfrom, *args, **kwargs)

    def visit_column(self, column: ColumnClause[Any], *args: Any, **kwargs: Any) -> Any:
        """Note a table's column; a column that is text is opaque, but for `*` and whole numbers."""
        if column.is_literal:
            self._note_literal(str(column.name))
        elif column.table is None:
            self._note_bare(column.name)
        elif (table := base_table(column.table)) is not None:
            self.rendering.columns.setdefault(table.fullname, set()).add(column.name)
            if column.name.lower() in _SYSTEM_COLUMNS and not isinstance(column, Column):
                self.rendering.refuse(f"reads {column.name}, a system column whose writes are not captured")
        return self._renderer.visit_column(column, *args, **kwargs)

    def _note_bare(self, name: str) -> None:
        """Take a column that names no table for all columns of the body: it may be any table's."""
        if name.lower() in _SYSTEM_COLUMNS or not self.rendering.open_bodies:
            self.rendering.refuse(f"renders column({name!r}), which belongs to no table")
        else:
            self.rendering.stars.add(self.rendering.open_bodies[-1])

    def _note_literal(self, text: str) -> None:
        if text == "*" and self.rendering.open_bodies:
            self.rendering.stars.add(self.rendering.open_bodies[-1])
        elif not text.isdecimal():
            self.rendering.refuse(f"renders literal_column({text!r}), which is text")

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse a function that is not known to be pure; `count(*)` reads no column."""
        name = str(func.name)
        if name.lower() not in PURE_FUNCTIONS or func.packagenames:
            self.rendering.refuse(f"calls {name}(), which is not known to depend on its arguments alone")
        stars = set(self.rendering.stars)
        text = self._renderer.visit_function(func, *args, **kwargs)
        if _counts_rows(func):
            self.rendering.stars = stars
        return text

    def visit_unary(self, unary: Any, *args: Any, **kwargs: Any) -> Any:
        """Forget the `*` of a plain EXISTS (SELECT *): whether a row exists depends on no column of its list."""
        inner = len(self.rendering.bodies)
        text = self._renderer.visit_unary(unary, *args, **kwargs)
        if unary.operator is operators.exists and _is_plain(unary.element):
            self.rendering.stars.discard(inner)
        return text

    def visit_extract(self, extract: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse EXTRACT from anything but a date column: of the text 'now' it is the clock."""
        if not (isinstance(extract.expr, Column) and isinstance(extract.expr.type, _DATES)):
            self.rendering.refuse("extracts from an expression that may be the current time")
        return self._renderer.visit_extract(extract, *args, **kwargs)

    def visit_cast(self, cast: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse a CAST to a date from anything but a date, for the same reason."""
        if isinstance(cast.type, _DATES) and not isinstance(cast.clause.type, _DATES):
            self.rendering.refuse("casts an expression that may be the current time to a date")
        return self._renderer.visit_cast(cast, *args, **kwargs)


def _refusing(method: str, reason: str) -> Callable[..., Any]:
    """Return a visit method that makes the statement opaque and renders it as ever."""

    def visit(self: RecordingCompiler, element: Any, *args: Any, **kwargs: Any) -> Any:
        self.rendering.refuse(reason)
        return getattr(self._renderer, method)(element, *args, **kwargs)

    return visit


def _checking_operator(method: str) -> Callable[..., Any]:
    """Return a visit method that refuses a custom operator of more than signs or a known word: it may hold any SQL."""

    def visit(self: RecordingCompiler, element: Any, operator: Any, *args: Any, **kwargs: Any) -> Any:
        text = operator.opstring.strip()
        if not _OPERATOR_SIGNS.fullmatch(text) and text.upper() not in _OPERATOR_WORDS:
            self.rendering.refuse(f"renders the operator {text!r}, which is text")
        return getattr(self._renderer, method)(element, operator, *args, **kwargs)

    return visit


_REFUSED: Final = {
    "visit_textclause": "renders text(), which is not analysed",
    "visit_textual_select": "renders text(), which is not analysed",
    "visit_tstring": "renders tstring(), which is not analysed",
    "visit_tablesample": "takes a random sample (TABLESAMPLE)",
    "visit_table_valued_alias": "reads from a table-valued function",
    "visit_table_valued_column": "uses a whole row as one value",
    "visit_scalar_function_column": "takes a column of a function's result",
    "visit_next_value_func": "takes the next value of a sequence",
    "visit_sequence": "takes the next value of a sequence",
    "visit_insert": "writes (INSERT)",
    "visit_update": "writes (UPDATE)",
    "visit_delete": "writes (DELETE)",
}
_CUSTOM_OPERATORS: Final = (
    "visit_custom_op_binary",
    "visit_custom_op_unary_operator",
    "visit_custom_op_unary_modifier",
)
for _method, _reason in _REFUSED.items():
    setattr(RecordingCompiler, _method, _refusing(_method, _reason))
for _method in _CUSTOM_OPERATORS:
    setattr(RecordingCompiler, _method, _checking_operator(_method))

_DATES: Final = (sqltypes.Date, sqltypes.DateTime, sqltypes.Time)


def _counts_rows(function: Any) -> bool:
    arguments = list(function.clauses)
    return (
        function.name.lower() == "count"
        and len(arguments) == 1
        and isinstance(arguments[0], ColumnClause)
        and arguments[0].is_literal
        and arguments[0].name == "*"
    )


def _is_plain(element: Any) -> bool:
    """Tell whether a subquery yields a row for every row of its FROM and WHERE, whatever its columns are."""
    while not isinstance(element, Select) and hasattr(element, "element"):
        element = element.element
    return (
        isinstance(element, Select)
        and not element._distinct
        and not element._group_by_clauses
        and not element._having_criteria
        and not element._has_row_limiting_clause
    )


def recording(compiler: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return `compiler` with the recorder mixed in; unchanged where it is so already."""
    if issubclass(compiler, RecordingCompiler):
        return compiler
    return type(f"Recording{compiler.__name__}", (RecordingCompiler, compiler), {})
