"""What a text reads on PostgreSQL: a parser says what it may not contain, and names its tables.

The tables that stand in a text are read whole; those behind them are found by their locks. Its result follows from
their rows only if the text is one query whose every construct is in a list and whose every function is pure. A text
that the parser does not understand is opaque. Answers are remembered by text, as they are about the text alone; names
are looked up anew each time. docs/internals/postgresql.md has the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import sqlglot
from sqlalchemy.engine import Connection
from sqlglot import exp
from sqlglot.errors import SqlglotError

from reactive_rpc.dependencies.schema import ColumnKind, Schema
from reactive_rpc.statements.functions import is_clock_word, looked_at_functions, pure_functions
from reactive_rpc.statements.postgresql_grammar import Grammar, literal_texts, numbered
from reactive_rpc.statements.text_dates import Dates, name_of
from reactive_rpc.statements.text_reads import TextRead, refused

__all__ = ["Parsed", "PostgreSQLOracle", "parse"]

MAX_REMEMBERED: Final = 1_000
"""How many texts are remembered; then all are forgotten."""

# fmt: off
_UNDERSTOOD: Final = frozenset({
    "Add", "Alias", "Aliases", "All", "Any", "AtTimeZone", "Between", "BitString", "BitwiseAnd", "BitwiseLeftShift",
    "BitwiseNot", "BitwiseOr", "BitwiseRightShift", "BitwiseXor", "Boolean", "Bracket", "ByteString", "CTE", "Column",
    "ColumnDef", "Cube", "DPipe", "DataType", "DataTypeParam", "Distinct", "Div", "Dot", "EQ", "Escape", "Except",
    "Fetch", "Filter", "From", "GT", "GTE", "Glob", "Group", "GroupingSets", "Having", "HavingMax", "HexString",
    "ILike", "Identifier", "In", "Intersect", "Interval", "Is", "JSON", "JSONBContains", "JSONPath", "JSONPathKey",
    "JSONPathRoot", "JSONPathSubscript", "Join", "Kwarg", "LT", "LTE", "Lateral", "Like", "Limit", "LimitOptions",
    "Literal", "Mod", "Mul", "NEQ", "National", "Neg", "Not", "Null", "NullSafeEQ", "NullSafeNEQ", "ObjectIdentifier",
    "Offset", "Operator", "Order", "Ordered", "Overlaps", "Parameter", "Paren", "Placeholder", "PropertyEQ",
    "RawString", "RecursiveWithSearch", "Rollup", "Select", "SimilarTo", "Slice", "Star", "Sub", "Subquery", "Table",
    "TableAlias", "Tuple", "UnicodeString", "Union", "Values", "Var", "Variadic", "Where", "Window", "WindowSpec",
    "With", "WithinGroup",
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
_LOOKED_AT: Final = looked_at_functions("postgresql") | {"date", "operator"}
"""What is pure in some calls alone: the tree tells in which."""
_QUANTIFIERS: Final = frozenset({"all", "any", "some"})
_WORD: Final = re.compile(r"\w+")
_SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_DATE_TYPES: Final = frozenset({"DATE", "TIME", "TIMETZ", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPLTZ", "TIMESTAMPNTZ"})
_DATES: Final = (
    exp.Add, exp.Sub, exp.AtTimeZone, exp.Date, exp.DateBin, exp.ExplodingGenerateSeries, exp.StrToDate, exp.StrToTime,
    exp.TimestampFromParts, exp.TimestampTrunc, exp.UnixToTime,
)  # fmt: skip
"""What is no text, whatever it is made of: text cannot be added, and has no time zone."""
_DATE_FUNCTIONS: Final = frozenset({"make_date", "make_time", "make_timestamptz", "timezone"})
_DATE_KINDS: Final[frozenset[ColumnKind | None]] = frozenset({"date", "timestamp", "timestamptz"})
_DATELESS_TYPES: Final = frozenset({
    "BIGDECIMAL", "BIGINT", "BIGSERIAL", "BIT", "BOOLEAN", "CHAR", "DECIMAL", "DOUBLE", "FLOAT", "INET", "INT",
    "INT4MULTIRANGE", "INT4RANGE", "INT8MULTIRANGE", "INT8RANGE", "INTERVAL", "JSON", "JSONB", "MONEY", "NAME",
    "NUMMULTIRANGE", "NUMRANGE", "SERIAL", "SMALLINT", "TEXT", "UUID", "VARBINARY", "VARCHAR", "char", "cidr", "citext",
    "hstore", "inet", "jsonpath", "macaddr", "tsquery", "tsvector", "varbit",
})  # fmt: skip
_CONSTANTS: Final = (
    exp.Literal, exp.RawString, exp.ByteString, exp.National, exp.UnicodeString, exp.Parameter, exp.Placeholder,
    exp.Null,
)  # fmt: skip
"""What holds no clock, since its text is looked at by itself; cast to any type, it is that type's."""
_NO_ATTRIBUTES: Final = frozenset({"age", "currval", "current_setting", "nextval"}) | {t.lower() for t in _DATE_TYPES}
"""Names after a dot that are functions, where nothing else has them: `(x).age` is `age(x)`."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser says of a text.

    Attributes:
        tables: every table named, as PostgreSQL spells it; the names of common table expressions among them.
        ctes: those names.
        cast_columns: columns that are cast to a date.
        given_dates: those of these names that the text itself gives to dates.
        attributes: what is selected from something by a dot.
        aliases: the names that the text gives to columns.
        words: everything that may be the name of a function or an operator.
        opaque: why the result does not follow from the tables' rows; None where it does.
    """

    tables: tuple[str, ...] = ()
    ctes: frozenset[str] = frozenset()
    cast_columns: frozenset[str] = frozenset()
    given_dates: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    opaque: str | None = None


_STRINGS: Final = frozenset({
    "BIT_STRING", "BYTE_STRING", "HEREDOC_STRING", "HEX_STRING", "NATIONAL_STRING", "RAW_STRING", "STRING",
    "UNICODE_STRING",
})  # fmt: skip
_VALUES: Final = _STRINGS | {"NUMBER"}


def parse(statement: str) -> Parsed:
    """Return what `statement`, with its parameters as `$1`, reads.

    >>> parse("SELECT id FROM team WHERE name = $1").tables
    ('team',)
    >>> parse("SELECT now()").opaque
    'calls now(), which is not known to depend on its arguments alone: pass in its value'
    """
    try:
        tokens = sqlglot.tokenize(statement, dialect=Grammar)
        trees = sqlglot.parse(statement, dialect=Grammar)
    except (SqlglotError, RecursionError) as exc:
        return Parsed(opaque=f"runs text that cannot be parsed ({str(exc).splitlines()[0]})")
    if len(trees) != 1 or not isinstance(trees[0], exp.Query | exp.Values):
        return Parsed(opaque="runs text that is not one SELECT: define it with define_reactive_function.mutation")
    tree: Any = trees[0]
    ctes = frozenset(name_of(cte.args["alias"].this) for cte in tree.find_all(exp.CTE))
    aliases = _aliases(tree)
    dates = Dates(tree, _is_date)
    opaque = _called(tokens, ctes | aliases) or _split_literal(tokens) or _clock_word(tree) or _unknown(tree, dates)
    if opaque is not None:
        return Parsed(opaque=opaque)
    tables = dict.fromkeys(_table_name(table) for table in tree.find_all(exp.Table) if not _is_function(table))
    return Parsed(
        tables=tuple(tables),
        ctes=ctes,
        cast_columns=dates.columns,
        given_dates=dates.given,
        attributes=frozenset(_attributes(tree)),
        aliases=aliases,
        words=frozenset(_word(token) for token in tokens if token.token_type.name not in _VALUES),
    )


def _table_name(table: Any) -> str:
    parts = [table.args.get("catalog"), table.args.get("db"), table.this]
    return ".".join(name_of(part) for part in parts if part is not None)


def _is_function(table: Any) -> bool:
    return not isinstance(table.this, exp.Identifier)


def _aliases(tree: Any) -> frozenset[str]:
    """Return every name that the text itself gives, to columns or to what stands in a FROM."""
    found = {name_of(alias.args["alias"]) for alias in tree.find_all(exp.Alias)}
    for alias in tree.find_all(exp.TableAlias):
        parts = [alias.this, *(alias.args.get("columns") or ())]
        found.update(name_of(part.this if isinstance(part, exp.ColumnDef) else part) for part in parts if part)
    offsets = (each.args.get("offset") for each in tree.find_all(exp.Unnest))  # WITH ORDINALITY AS u(value, offset)
    found.update(name_of(offset) for offset in offsets if isinstance(offset, exp.Identifier))
    return frozenset(found)


def _attributes(tree: Any) -> Iterator[str]:
    """Yield what is selected by a dot from something that may be a row of a table: `t.name`, `(t).name`."""
    functions = _function_aliases(tree)
    for column in tree.find_all(exp.Column):
        qualifier = column.args.get("table")
        if qualifier is not None and not column.is_star and name_of(qualifier) not in functions:
            yield name_of(column.this)
    for dot in tree.find_all(exp.Dot):
        if not isinstance(dot.expression, exp.Star):
            yield name_of(dot.expression)


def _function_aliases(tree: Any) -> set[str]:
    """Return the names of what functions return (`jsonb_each(data) AS e`): its columns are theirs, and no functions."""
    of_functions, others = set(), set()
    for alias in tree.find_all(exp.TableAlias):
        if alias.this is not None:
            of_functions.add(name_of(alias.this)) if _is_of_function(alias) else others.add(name_of(alias.this))
    others.update(name_of(table.this) for table in tree.find_all(exp.Table) if not _is_function(table))
    return of_functions - others


def _is_of_function(alias: Any) -> bool:
    source = alias.parent
    if isinstance(source, exp.Lateral):
        return isinstance(source.this, exp.Func)
    return isinstance(source, exp.Unnest) or (isinstance(source, exp.Table) and _is_function(source))


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
        is_given = word in given and word.upper() not in Grammar.Parser.FUNCTIONS
        if is_qualified or not (word in _PURE or word in _LOOKED_AT or is_syntax or is_given):
            return _impure(word)
    return None


def _impure(function: str) -> str:
    return f"calls {function}(), which is not known to depend on its arguments alone: pass in its value"


def _split_literal(tokens: list[Any]) -> str | None:
    """Refuse a literal that goes on after a line break: what it says as a whole, the tree does not tell."""
    kinds = pairwise(token.token_type.name for token in tokens)
    is_split = any(first in _STRINGS and second == "STRING" for first, second in kinds)
    return "runs text with a literal in several parts: write it in one" if is_split else None


def _clock_word(tree: Any) -> str | None:
    word = next(filter(is_clock_word, literal_texts(tree)), None)
    return None if word is None else f"runs text with '{word}', which may be a date: pass in its value"


def _unknown(tree: Any, dates: Dates) -> str | None:
    """Return what the tree holds that is not known to be a matter of rows alone."""
    for node in tree.walk():
        looks = (look(node, dates) for kind, look in _LOOKS.items() if isinstance(node, kind))
        reason = next(filter(None, looks), None)
        if reason is not None:
            return reason
        if not isinstance(node, exp.Func) and type(node).__name__ not in _UNDERSTOOD:
            return f"runs text with {type(node).__name__}, which is not understood"
    return None


def _look_at_call(call: Any, _dates: Dates) -> str | None:
    name = str(call.name).lower()
    if name in _LOOKED_AT:
        return None if _is_pure_call(name, call) else _impure(name)
    return None if name in _PURE | _QUANTIFIERS else _impure(name)


def _is_pure_call(name: str, call: Any) -> bool:
    if name == "age":  # of one date, it is its distance from today
        return len(call.expressions) == 2
    alias = call.parent.args.get("alias") if isinstance(call.parent, exp.Table) else None
    columns = alias.args.get("columns") or () if alias else ()
    # Of JSON a record is made by casts, which for a date read 'now'.
    return bool(columns) and all(isinstance(each, exp.ColumnDef) and _is_dateless(each.kind) for each in columns)


def _look_at_column(column: Any, _dates: Dates) -> str | None:
    is_system = name_of(column.this) in _SYSTEM_COLUMNS
    return f"reads {column.name}, a system column whose writes are not captured" if is_system else None


def _look_at_dot(dot: Any, _dates: Dates) -> str | None:
    if isinstance(dot.expression, exp.Star):
        return None
    if not isinstance(dot.expression, exp.Identifier):
        return "runs text with a name in several parts, which is not understood"
    name = name_of(dot.expression)
    if name in _SYSTEM_COLUMNS:
        return f"reads {name}, a system column whose writes are not captured"
    return _impure(name) if name in _NO_ATTRIBUTES else None


def _look_at_cast(cast: Any, dates: Dates) -> str | None:
    if isinstance(cast.to, exp.ObjectIdentifier):
        return f"casts to {_type_name(cast.to).lower()}, which depends on more than rows: pass in its value"
    if (
        isinstance(cast.this, _CONSTANTS)
        or _is_dateless(cast.to)
        or (_type_name(cast.to) in _DATE_TYPES and dates.hold(cast.this))
    ):
        return None
    return f"casts to {_type_name(cast.to).lower()} what may be the text 'now': cast in Python"


def _is_date(value: Any) -> bool | None:
    if isinstance(value, exp.Cast):
        return _type_name(value.to) in _DATE_TYPES  # which is looked at where it stands
    if isinstance(value, exp.Anonymous):
        return str(value.name).lower() in _DATE_FUNCTIONS
    return isinstance(value, (*_DATES, *_CONSTANTS)) or None


def _type_name(type_: Any) -> str:
    """Return the name of a type that something is cast to: one that sqlglot knows is in upper case."""
    kind = type_.args.get("kind")
    if kind is not None:
        return str(kind.name if isinstance(kind, exp.Identifier) else kind)
    return str(type_.this.name) if isinstance(type_.this, exp.DataType.Type) else str(type_.this)


def _is_dateless(type_: Any) -> bool:
    """Tell whether no text is a date in this type."""
    if _type_name(type_) == "ARRAY":
        return all(map(_is_dateless, type_.expressions))
    return _type_name(type_) in _DATELESS_TYPES


def _look_at_date(call: Any, dates: Dates) -> str | None:
    """Look at `date(x)`, which is `x::date`."""
    arguments = list(call.iter_expressions())
    is_date = len(arguments) == 1 and dates.hold(arguments[0])
    return None if is_date else "casts to date what may be the text 'now': cast in Python"


def _look_at_operator(operator: Any, _dates: Dates) -> str | None:
    sign = str(operator.args["operator"])
    is_built_in = sign.startswith("pg_catalog.") or "." not in sign
    return None if is_built_in else f"calls the operator {sign}, which somebody has defined in this database"


_LOOKS: Final[Mapping[type, Callable[[Any, Dates], str | None]]] = {
    exp.Anonymous: _look_at_call,
    exp.Cast: _look_at_cast,
    exp.Column: _look_at_column,
    exp.Date: _look_at_date,
    exp.Dot: _look_at_dot,
    exp.Lock: lambda _lock, _dates: (
        "locks rows (FOR UPDATE): leave that out, or define it with define_reactive_function.mutation"
    ),
    exp.Operator: _look_at_operator,
}


class PostgreSQLOracle:
    """Tells what a text reads on PostgreSQL, see `text_reads.Oracle`. Safe across threads."""

    def __init__(self) -> None:
        self._remembered: dict[str, Parsed] = {}

    def __call__(self, connection: Connection, statement: str, parameters: Any, schema: Schema) -> TextRead:
        """Return what `statement` is about to read on `connection`."""
        values = parameters.values() if isinstance(parameters, dict) else parameters or ()
        if any(map(is_clock_word, values)):
            return refused("runs text with a parameter that may be a date such as 'today': pass in its value")
        return _text_read(self._parsed(numbered(statement, connection.dialect.paramstyle)), schema)

    def _parsed(self, statement: str) -> Parsed:
        if statement not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered = {}
            self._remembered[statement] = parse(statement)
        return self._remembered[statement]


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
        is_given = column in parsed.given_dates
        is_date = kinds <= _DATE_KINDS and (is_given or (kinds and column not in parsed.aliases))
        if not is_date or (has_views and not is_given):
            return f"casts {column} to a date, which may be the text 'now': cast in Python"
    known = parsed.aliases.union(*(schema.columns(table) for table in tables))
    unknown = sorted(parsed.attributes - known)
    return f"reads {unknown[0]}, which is no captured column" if unknown and not has_views else None
