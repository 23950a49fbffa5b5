"""What SQLAlchemy knows of a statement, an execution, a type or an engine, and has no public name for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from sqlalchemy import Column, Engine, QueuePool
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.cursor import _DEFAULT_FETCH, FullyBufferedCursorFetchStrategy
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import _label_reference
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlalchemy.util import await_only

__all__ = [
    "CompilerHooks",
    "adapts_by_name",
    "affinity_of",
    "annotations_of",
    "begin_now",
    "bind_processors",
    "copy_engine",
    "declared_type",
    "expanded_parameters",
    "has_begun",
    "has_bind_expression",
    "has_column_expression",
    "has_columns_only",
    "has_default_isolation_level",
    "has_hints",
    "has_order_or_bounds",
    "is_custom_construct",
    "is_for_update",
    "is_of_crud",
    "is_one_row_insert",
    "is_plain_select",
    "limit_of",
    "maps_column",
    "order_by_clauses",
    "resolved_lambda",
    "rows_come_from_rows",
    "take_rows",
    "unlabelled_order",
    "unwrapped_type",
    "use_connection_class",
    "variant_of",
    "where_criteria",
    "yields_each_row",
]


class CompilerHooks(SQLCompiler):
    """Mixed in before a dialect's own compiler: tells of each SELECT's body and of each expansion of parameters."""

    @property
    def renderer(self) -> Any:
        """The dialect's own compiler; its methods are not typed."""
        return super()

    def note_select_body(self, select: Any, froms: Sequence[Any]) -> None:
        """Take in a SELECT as the ORM made it, and the elements of its FROM; called before it is rendered."""

    def note_expansion(self, expansion: Mapping[str, list[str]], literals: Mapping[str, object]) -> Mapping[str, Any]:
        """Return what takes the place of `{parameter: the names of those in its place}`.

        Args:
            literals: the values that are rendered into the text (`literal_execute`), by their parameters.
        """
        return expansion

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self.note_select_body(select, froms)
        compose = self.renderer._compose_select_body
        return compose(text, select, compile_state, inner_columns, froms, *args, **kwargs)

    def _process_parameters_for_postcompile(self, parameters: Any, *args: Any, **kwargs: Any) -> Any:
        # The values that go into the text are taken out of `parameters` by the base class.
        literal = {self.bind_names[parameter] for parameter in self.literal_execute_params}
        literals = {name: parameters[name] for name in literal & parameters.keys()}
        state = self.renderer._process_parameters_for_postcompile(parameters, *args, **kwargs)
        return state._replace(parameter_expansion=self.note_expansion(state.parameter_expansion, literals))


# -- statements


def where_criteria(statement: Any) -> Sequence[Any]:
    """Return the criteria of a SELECT, UPDATE or DELETE; AND joins them."""
    criteria: Sequence[Any] = statement._where_criteria
    return criteria


def is_for_update(select: Any) -> bool:
    """Tell whether a SELECT locks rows."""
    return select._for_update_arg is not None


def has_hints(select: Any) -> bool:
    """Tell whether a SELECT has hints, which are text."""
    return bool(select._hints or select._statement_hints)


def is_plain_select(select: Any) -> bool:
    """Tell whether a SELECT yields a row for every row of its FROM and WHERE: no DISTINCT, GROUP BY, HAVING, LIMIT."""
    return yields_each_row(select) and not select._has_row_limiting_clause


def yields_each_row(select: Any) -> bool:
    """Tell whether a SELECT neither groups rows nor leaves out those that are alike; it may have a LIMIT."""
    return not (select._distinct or select._group_by_clauses or select._having_criteria)


def limit_of(select: Any) -> Any:
    """Return the LIMIT of a SELECT; None if it has none, or FETCH, which may mean ties or a share of the rows."""
    return None if select._fetch_clause is not None else select._limit_clause


def order_by_clauses(select: Any) -> Sequence[Any]:
    """Return what a SELECT orders by, the first thing first."""
    clauses: Sequence[Any] = select._order_by_clauses
    return clauses


def unlabelled_order(element: Any) -> Any:
    """Return what ORDER BY names, without the mark that it may be rendered as a label."""
    return element.element if isinstance(element, _label_reference) else element


def rows_come_from_rows(select: Any) -> bool:
    """Tell whether every row that a SELECT yields comes of a joined row that passes its WHERE.

    Not so of an aggregate without GROUP BY, which yields a row of none.
    """
    is_grouped = bool(select._group_by_clauses)
    # ROLLUP, CUBE and GROUPING SETS are functions, too, and yield a row of none.
    parts = select._group_by_clauses if is_grouped else (*select._raw_columns, *select._order_by_clauses)
    if any(isinstance(each, FunctionElement) for part in parts for each in visitors.iterate(part)):
        return False
    return is_grouped or not select._having_criteria


def has_order_or_bounds(select: Any) -> bool:
    """Tell whether a SELECT has an order, or yields not a row for every row of its FROM and WHERE."""
    return bool(select._order_by_clauses) or not is_plain_select(select)


def has_columns_only(statement: Any) -> bool:
    """Tell whether an INSERT, UPDATE or DELETE has no CTE and no prefix beside it."""
    return not (statement._independent_ctes or statement._prefixes)


def is_one_row_insert(insert: Any) -> bool:
    """Tell whether an INSERT gives the values of rows one by one, and says nothing after them (ON CONFLICT)."""
    return insert.select is None and not insert._multi_values and insert._post_values_clause is None


def is_of_crud(parameter: Any) -> bool:
    """Tell whether a bound parameter is one that VALUES or SET has made for a column."""
    return bool(parameter._is_crud)


def resolved_lambda(element: Any) -> Any:
    """Return the expression that a `LambdaElement` stands for."""
    return element._resolved


def is_custom_construct(element: object) -> bool:
    """Tell whether `@compiles` renders the element."""
    return hasattr(type(element), "_compiler_dispatcher")


def annotations_of(element: Any) -> Mapping[str, Any]:
    """Return what the ORM has noted on an element of a statement."""
    annotations: Mapping[str, Any] = element._annotations
    return annotations


def adapts_by_name(aliased: Any) -> bool:
    """Tell whether an aliased entity takes columns by their names from any selectable."""
    return bool(aliased._adapt_on_names)


def maps_column(mapper: Mapper[Any], column: Column[Any]) -> bool:
    """Tell whether an attribute of the class holds the column."""
    return column in mapper._columntoproperty


# -- executions


def expanded_parameters(context: DefaultExecutionContext) -> Mapping[str, Sequence[str]]:
    """Return `{parameter: the names of those in its place}` of an execution: what `note_expansion` has returned."""
    return context._expanded_parameters


def take_rows(context: DefaultExecutionContext) -> Sequence[Any] | None:
    """Read the rows of a SELECT that has just run, as the driver has them; its result hands them on.

    None if they are to come one after the other (`stream_results`, `yield_per`).
    """
    if context._is_server_side or context.execution_options.get("stream_results", False):
        return None
    if context.cursor_fetch_strategy is not _DEFAULT_FETCH:
        return None
    rows: Sequence[Any] = context.cursor.fetchall()
    context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(context.cursor, initial_buffer=rows)
    return rows


def bind_processors(compiled: SQLCompiler) -> Mapping[str, Any]:
    """Return `{parameter: what turns its value into the driver's}`, where anything does."""
    processors: Mapping[str, Any] = compiled._bind_processors
    return processors


# -- types


def affinity_of(type_: Any) -> type[TypeEngine[Any]]:
    """Return the generic type that a type is a kind of."""
    affinity: type[TypeEngine[Any]] = type_._type_affinity
    return affinity


def unwrapped_type(type_: TypeEngine[Any], dialect: Dialect) -> Any:
    """Return a type as the dialect has it, without decorators."""
    return type_._unwrapped_dialect_impl(dialect)


def variant_of(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    """Return the type that is used on a database, of those that `with_variant` has joined."""
    variant = type_._variant_mapping.get(dialect.name)
    if variant is not None or not type_._variant_mapping:
        return variant or type_
    alone = copy(type_)
    alone._variant_mapping = alone._variant_mapping.__class__()
    alone.__dict__.pop("_static_cache_key", None)
    return alone


def declared_type(type_: TypeEngine[Any], dialect: Dialect) -> Any:
    """Return a type as its author gave it for this database: without decorators, and not the dialect's own yet."""
    while True:
        variant = variant_of(type_, dialect)
        if not isinstance(variant, TypeDecorator):
            return variant
        type_ = variant.load_dialect_impl(dialect)


def has_bind_expression(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether the type puts SQL around a parameter."""
    return type_.dialect_impl(dialect)._has_bind_expression


def has_column_expression(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether the type puts SQL around a column that is read."""
    return type_.dialect_impl(dialect)._has_column_expression


# -- transactions on asyncpg


def has_begun(connection: Connection) -> bool:
    """Tell whether SQLAlchemy's adapter around asyncpg has sent BEGIN, which it does with the first statement."""
    adapter: Any = connection.connection.dbapi_connection
    return adapter._transaction is not None


def begin_now(connection: Connection) -> None:
    """Have the adapter send BEGIN, with no statement yet; in a greenlet.

    Raises:
        DBAPIError: as of a statement.
    """
    adapter: Any = connection.connection.dbapi_connection
    try:
        await_only(adapter._start_transaction())
    except BaseException as exc:
        connection._handle_dbapi_exception(exc, None, None, None, None)


# -- engines


def use_connection_class(engine: Engine, connection_class: type[Connection]) -> None:
    """Have the engine's connections be of this class."""
    engine._connection_cls = connection_class


def has_default_isolation_level(engine: Any) -> bool:
    """Tell whether `create_engine(isolation_level=...)` was given."""
    return getattr(engine.dialect, "_on_connect_isolation_level", None) is not None


def copy_engine(engine: Engine) -> Engine:
    """Return an engine that connects and listens as `engine` does, and shares nothing with it that could be changed.

    Its pool never makes anybody wait: a query inside of another must not, and who calls is bounded elsewhere.
    """
    pool = engine.pool.recreate()
    if isinstance(pool, QueuePool):
        pool._max_overflow = -1
    # Its type maps, JSON functions and whatever else was configured, but a compiler of its own.
    echo: Any = engine.echo  # typed as what is set, not as what is got
    twin = Engine(pool, copy(engine.dialect), engine.url, echo=echo, hide_parameters=engine.hide_parameters)
    twin.update_execution_options(**engine.get_execution_options())
    twin.dispatch._update(engine.dispatch, only_propagate=False)  # as Pool.recreate does
    twin._has_events = engine._has_events
    return twin
