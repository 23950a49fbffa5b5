"""What a text reads on PostgreSQL: a parser says what it may not contain, and names its tables.

Design note. Two questions, two witnesses.

*Which tables?* The parser names those that stand in the text; each is read whole. What stands behind them (a policy, a
search path that leads elsewhere) takes a lock in the back end, and the database adds what was locked at the end of the
read (`postgresql_database.py`). A view is followed by what capture knows of it.

*Does the result follow from their rows?* Only a text that is one query, whose every construct is in a list, whose every
function is pure, and which holds nothing that may be the clock. Functions are taken from the tokens, not from the tree:
the tree has names of the parser's own (`random` is `Rand` there), while no function can be called without a word before
a parenthesis. PostgreSQL reads a *literal* of unknown type as a date where one is wanted, so a literal or a parameter
such as 'today' is refused wherever it stands; any other text becomes a date only by a cast, which is looked at.

A text that the parser does not understand is opaque. What it says of a text, it says of the text alone, so answers are
remembered by text; the names are looked up anew each time.

Rejected: trusting `pg_proc.provolatile` (now() is *stable*), or EXPLAIN (a statement more on each connection, and it
names no functions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import sqlglot
from sqlalchemy.engine import Connection
from sqlglot import exp
from sqlglot.dialects import Postgres
from sqlglot.errors import SqlglotError

from reactive_rpc.reactive.schema import Kind, Schema
from reactive_rpc.sql.functions import is_clock_word, pure_functions
from reactive_rpc.sql.text_reads import TextRead, refused

__all__ = ["Parsed", "PostgreSQLOracle", "parse"]

MAX_REMEMBERED: Final = 1_000
"""How many texts are remembered; then all are forgotten."""

# fmt: off
_UNDERSTOOD: Final = frozenset({
    "Add", "Alias", "Aliases", "All", "Any", "AtTimeZone", "Between", "BitwiseAnd", "BitwiseLeftShift", "BitwiseNot",
    "BitwiseOr", "BitwiseRightShift", "BitwiseXor", "Boolean", "Bracket", "CTE", "Column", "Cube", "DPipe",
    "DataType", "DataTypeParam", "Distinct", "Div", "EQ", "Escape", "Except", "Fetch", "Filter", "From", "GT", "GTE",
    "Glob", "Group", "GroupingSets", "Having", "HavingMax", "ILike", "Identifier", "In", "Intersect", "Interval", "Is",
    "JSONBContains", "JSONPath", "JSONPathKey", "JSONPathRoot", "JSONPathSubscript", "Join", "LT", "LTE", "Lateral",
    "Like", "Limit", "LimitOptions", "Literal", "Mod", "Mul", "NEQ", "Neg", "Not", "Null", "NullSafeEQ", "NullSafeNEQ",
    "Offset", "Operator", "Order", "Ordered", "Parameter", "Paren", "Placeholder", "Rollup", "Select", "SimilarTo",
    "Slice", "Star", "Sub", "Subquery", "Table", "TableAlias", "Tuple", "Union", "Values", "Var", "Where", "Window",
    "WindowSpec", "With", "WithinGroup",
})  # fmt: skip
"""Constructs that are no functions and whose meaning is a matter of rows alone."""

_BEFORE_PARENTHESES: Final = frozenset({
    "all", "and", "any", "array", "as", "between", "bit", "case", "cast", "char", "character", "cross", "decimal",
    "distinct", "else", "except", "exists", "fetch", "from", "full", "group", "having", "ilike", "in", "inner",
    "intersect", "interval", "is", "join", "lateral", "left", "like", "limit", "not", "numeric", "offset", "on",
    "only", "or", "outer", "right", "row", "select", "some", "then", "time", "timestamp", "union", "using", "values",
    "varchar", "when", "where", "with",
})  # fmt: skip
"""Reserved words that may stand before a parenthesis: no function can be called so, or it is pure."""

_BETWEEN: Final = {"filter": (")",), "over": (")",), "materialized": ("as", "not")}
"""`{word: what stands before it}` where it may stand before a parenthesis and call nothing."""

_CLOCK_WORDS: Final = frozenset({
    "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp",
    "current_user", "localtime", "localtimestamp", "session_user", "system_user", "user",
})  # fmt: skip
"""Functions that are called without parentheses."""
# fmt: on

_PURE: Final = pure_functions("postgresql")
_QUANTIFIERS: Final = frozenset({"all", "any", "some"})
_WORD: Final = re.compile(r"\w+")
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_DATE_KINDS: Final[frozenset[Kind | None]] = frozenset({"date", "timestamp", "timestamptz"})
_DATE_TYPES: Final = frozenset({"DATE", "TIME", "TIMETZ", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPLTZ", "TIMESTAMPNTZ"})
_DATELESS_TYPES: Final = frozenset({
    "ARRAY", "BIGDECIMAL", "BIGINT", "BOOLEAN", "CHAR", "DECIMAL", "DOUBLE", "FLOAT", "INT", "INTERVAL", "JSON",
    "JSONB", "SMALLINT", "TEXT", "UUID", "VARCHAR", "VARBINARY",
})  # fmt: skip
_PYFORMAT: Final = re.compile(r"%\([^)]*\)s|%s")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser says of a text.

    Attributes:
        tables: every table named, as PostgreSQL spells it; the names of common table expressions among them.
        ctes: those names.
        cast_columns: columns that are cast to a date.
        attributes: what is selected from something by a dot.
        aliases: the names that the text gives to columns.
        words: everything that may be the name of a function or an operator.
        opaque: why the result does not follow from the tables' rows; None where it does.
    """

    tables: tuple[str, ...] = ()
    ctes: frozenset[str] = frozenset()
    cast_columns: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    opaque: str | None = None


_VALUES: Final = frozenset({"STRING", "NUMBER"})


def parse(statement: str) -> Parsed:
    """Return what `statement`, with its parameters as `$1`, reads.

    >>> parse("SELECT id FROM team WHERE name = $1").tables
    ('team',)
    >>> parse("SELECT now()").opaque
    'calls now(), which is not known to depend on its arguments alone: pass in its value'
    """
    try:
        tokens = sqlglot.tokenize(statement, dialect="postgres")
        trees = sqlglot.parse(statement, dialect="postgres")
    except (SqlglotError, RecursionError) as exc:
        return Parsed(opaque=f"runs text that cannot be parsed ({str(exc).splitlines()[0]})")
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        return Parsed(opaque="runs text that is not one SELECT: write in a mutation")
    tree: Any = trees[0]
    ctes = frozenset(_name(cte.args["alias"].this) for cte in tree.find_all(exp.CTE))
    aliases = _aliases(tree)
    opaque = _called(tokens, ctes | aliases) or _split_literal(tokens) or _unknown(tree)
    if opaque is not None:
        return Parsed(opaque=opaque)
    tables = dict.fromkeys(_table_name(table) for table in tree.find_all(exp.Table) if not _is_function(table))
    return Parsed(
        tables=tuple(tables),
        ctes=ctes,
        cast_columns=frozenset(
            _name(cast.this.this) for cast in _date_casts(tree) if isinstance(cast.this, exp.Column)
        ),
        attributes=frozenset(_name(column.this) for column in _attributes(tree)),
        aliases=aliases,
        words=frozenset(_word(token) for token in tokens if token.token_type.name not in _VALUES),
    )


def _name(identifier: Any) -> str:
    """Return a name as PostgreSQL knows it: in lower case, unless it is quoted."""
    text = str(identifier.name)
    return text if isinstance(identifier, exp.Identifier) and identifier.args.get("quoted") else text.lower()


def _table_name(table: Any) -> str:
    parts = [table.args.get("catalog"), table.args.get("db"), table.this]
    return ".".join(_name(part) for part in parts if part is not None)


def _is_function(table: Any) -> bool:
    return not isinstance(table.this, exp.Identifier)


def _aliases(tree: Any) -> frozenset[str]:
    """Return every name that the text itself gives, to columns or to what stands in a FROM."""
    found = {_name(alias.args["alias"]) for alias in tree.find_all(exp.Alias)}
    for alias in tree.find_all(exp.TableAlias):
        found.update(_name(part) for part in [alias.this, *(alias.args.get("columns") or ())] if part is not None)
    return frozenset(found)


def _attributes(tree: Any) -> Iterator[Any]:
    return (column for column in tree.find_all(exp.Column) if column.args.get("table") and not column.is_star)


def _date_casts(tree: Any) -> Iterator[Any]:
    return (cast for cast in tree.find_all(exp.Cast) if _type_name(cast) in _DATE_TYPES)


def _type_name(cast: Any) -> str:
    return str(cast.to.this.name) if isinstance(cast.to.this, exp.DataType.Type) else str(cast.to.this)


def _word(token: Any) -> str:
    return str(token.text) if token.token_type.name == "IDENTIFIER" else str(token.text).lower()


def _called(tokens: list[Any], given: frozenset[str]) -> str | None:
    """Return what the text calls and should not; `given` are the names of its own that may precede a column list."""
    before = [""] + [token.text.lower() for token in tokens]
    after = [token.text for token in tokens[1:]] + [""]
    for token, preceding, following in zip(tokens, before, after, strict=False):
        kind, is_qualified = token.token_type.name, preceding == "."
        word = _word(token)
        if kind != "IDENTIFIER" and not is_qualified and word in _CLOCK_WORDS:
            return f"asks for {word.upper()}: pass in its value"
        if kind in _VALUES or following != "(" or not _WORD.fullmatch(word):
            continue
        is_syntax = kind != "IDENTIFIER" and (word in _BEFORE_PARENTHESES or preceding in _BETWEEN.get(word, ()))
        is_given = word in given and word.upper() not in Postgres.Parser.FUNCTIONS
        if is_qualified or not (word in _PURE or is_syntax or is_given):
            return _impure(word)
    return None


def _impure(function: str) -> str:
    return f"calls {function}(), which is not known to depend on its arguments alone: pass in its value"


def _split_literal(tokens: list[Any]) -> str | None:
    """Refuse a literal that goes on after a line break: what it says as a whole, the tree does not tell."""
    pairs = pairwise(token.token_type.name for token in tokens)
    return "runs text with a literal in several parts: write it in one" if ("STRING", "STRING") in pairs else None


def _unknown(tree: Any) -> str | None:
    """Return what the tree holds that is not known to be a matter of rows alone."""
    for node in tree.walk():
        kind = type(node).__name__
        if isinstance(node, exp.Lock):
            return "locks rows (FOR UPDATE): lock in a mutation"
        if isinstance(node, exp.Anonymous) and str(node.name).lower() not in _PURE | _QUANTIFIERS:
            return _impure(node.name)
        if not isinstance(node, exp.Func) and kind not in _UNDERSTOOD:
            return f"runs text with {kind}, which is not understood"
        if isinstance(node, exp.Literal) and node.is_string and is_clock_word(node.this):
            return f"runs text with '{node.this}', which may be a date: pass in its value"
        if isinstance(node, exp.Column) and _name(node.this) in _SYSTEM_COLUMNS:
            return f"reads {node.name}, a system column whose writes are not captured"
        if isinstance(node, exp.Cast) and not _is_understood(node):
            return f"casts to {_type_name(node).lower()} what may be the text 'now': cast in Python"
    return None


def _is_understood(cast: Any) -> bool:
    """Tell whether a cast reads no clock: to no date, or of a literal, a parameter, a column (see `Parsed`)."""
    name = _type_name(cast)
    if name in _DATE_TYPES:
        return isinstance(cast.this, exp.Literal | exp.Parameter | exp.Placeholder | exp.Column | exp.Null)
    if name == "ARRAY":
        return all(str(item.this.name) in _DATELESS_TYPES for item in cast.to.expressions)
    return name in _DATELESS_TYPES


class PostgreSQLOracle:
    """Tells what a text reads on PostgreSQL, see `text_reads.Oracle`. Safe across threads."""

    def __init__(self) -> None:
        self._remembered: dict[str, Parsed] = {}

    def __call__(self, connection: Connection, statement: str, parameters: Any, schema: Schema) -> TextRead:
        """Return what `statement` is about to read on `connection`."""
        values = parameters.values() if isinstance(parameters, dict) else parameters or ()
        if any(map(is_clock_word, values)):
            return refused("runs text with a parameter that may be a date such as 'today': pass in its value")
        return _text_read(self._parsed(_numbered(statement, connection.dialect.paramstyle)), schema)

    def _parsed(self, statement: str) -> Parsed:
        if statement not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered = {}
            self._remembered[statement] = parse(statement)
        return self._remembered[statement]


def _numbered(statement: str, paramstyle: str) -> str:
    """Return the text with parameters as PostgreSQL itself writes them."""
    if paramstyle not in ("pyformat", "format"):
        return statement
    return _PYFORMAT.sub("$1", statement).replace("%%", "%")


def _text_read(parsed: Parsed, schema: Schema) -> TextRead:
    if parsed.opaque is not None:
        return refused(parsed.opaque)
    tables: set[str] = set()
    has_views = False
    for name in parsed.tables:
        table, view = schema.table(name), schema.view(name)
        if table is not None:
            tables.add(table)
        elif view is not None:
            if view.opaque is not None:
                return refused(f"reads view {name}, which {view.opaque}")
            has_views = True
            tables |= view.tables
        elif name not in parsed.ctes:
            return refused(f"reads table {name}, whose writes are not captured")
    unseen = next((table for table in sorted(tables) if not schema.captured(table)), None)
    if unseen is not None:
        return refused(f"reads table {unseen}, whose writes are not captured")
    doubtful = _doubtful(parsed, tables, schema, has_views=has_views)
    doubtful = doubtful or _redefined(parsed, schema)
    return refused(doubtful) if doubtful else TextRead(dict.fromkeys(sorted(tables)))


def _redefined(parsed: Parsed, schema: Schema) -> str | None:
    name = next(filter(schema.redefines, sorted(parsed.words)), None)
    return None if name is None else f"calls {name}, which somebody has defined in this database: pass in its value"


def _doubtful(parsed: Parsed, tables: set[str], schema: Schema, *, has_views: bool) -> str | None:
    """Return which name may be more than a column: text that is cast to a date, or a function (`t.f` is `f(t)`)."""
    for column in sorted(parsed.cast_columns):
        kinds = {schema.kind(table, column) for table in tables if column in schema.columns(table)}
        if has_views or column in parsed.aliases or not kinds or not kinds <= _DATE_KINDS:
            return f"casts {column} to a date, which may be the text 'now': cast in Python"
    known = parsed.aliases.union(*(schema.columns(table) for table in tables))
    unknown = sorted(parsed.attributes - known)
    return f"reads {unknown[0]}, which is no captured column" if unknown and not has_views else None
