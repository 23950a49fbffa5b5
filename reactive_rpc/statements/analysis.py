"""From the SQL that a compiled statement rendered to a template of its reads.

The template is made once a `Compiled`, kept with it, and holds no value: parameters are named, so that one template
serves every execution. Each SELECT body is taken on its own; for each of its tables and each conjunction of its WHERE,
the atoms about that table make one *read*. A row that satisfies no read of its table cannot appear in the body's
joined rows, nor keep another from appearing.

`docs/internals/read-sets.md` argues why that suffices; the INVARIANT comments mark the lines that it rests on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Final

from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import Compiled, SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import TypeDecorator

from reactive_rpc.compat.sqlalchemy import has_bind_expression, is_custom_construct
from reactive_rpc.statements.bodies import Body, JoinedRows, flattened, open_bodies
from reactive_rpc.statements.parent_conditions import parent_atoms
from reactive_rpc.statements.predicates import MAX_TERMS, Nullness
from reactive_rpc.statements.propagation import carried, known
from reactive_rpc.statements.recording_compiler import RecordingCompiler, Rendering, SelectBody, is_dateless
from reactive_rpc.statements.row_tests import RowTests
from reactive_rpc.statements.scope import Restriction, restricting
from reactive_rpc.statements.template import Read, RowAtom, Template, Window
from reactive_rpc.statements.windows import is_limited, order_of

__all__ = ["analyse", "template_of"]

_NOT_SQL: Final = Template(
    opaque="runs a statement that is no SELECT: define it with define_reactive_function.mutation"
)


def template_of(compiled: Compiled) -> Template:
    """Return the template kept with `compiled`; make it if there is none yet."""
    if not isinstance(compiled, RecordingCompiler):
        return _NOT_SQL
    if compiled.template is None:
        compiled.template = analyse(compiled)
    return compiled.template


def analyse(compiled: RecordingCompiler) -> Template:
    """Return the reads of `compiled`."""
    rendering = compiled.rendering
    if rendering.opaque is not None:
        return Template(opaque=rendering.opaque)
    textual = rendering.textual or _unknown_construct(compiled)
    if textual is not None:
        return Template(textual=textual)
    name_of = _ColumnNames(compiled).name_of
    opened = open_bodies([body for body in rendering.bodies if body is not None], name_of)
    tests = RowTests(name_of, rendering, opened)
    whole = _whole(compiled)
    window = None if whole is None else order_of(whole, opened[0], name_of=name_of, dialect=compiled.dialect)
    reads = [read for joined in flattened(opened) for read in _reads(joined, tests, window)]
    return Template(
        reads=tuple(dict.fromkeys([*reads, *_unaccounted(rendering, opened)])),
        tables=tuple(rendering.tables),
        dates=_dates(compiled),
        calls=frozenset(rendering.calls),
        unread=tuple(each for body in opened for each in body.unread if not tests.has_read(each)),
        is_limited=is_limited(whole),
        window=window,
    )


def _whole(compiled: RecordingCompiler) -> SelectBody | None:
    """Return the SELECT that the whole statement is; None of a UNION."""
    first = compiled.rendering.bodies[0] if compiled.rendering.bodies else None
    return first if first is not None and first.origin is compiled.statement else None


def _unknown_construct(compiled: RecordingCompiler) -> str | None:
    """Name a construct that the compiler's methods did not see: constructs that render themselves, renamed schemas."""
    if compiled.schema_translate_map:
        return "schema_translate_map"
    if None in compiled.rendering.bodies:
        return "a SELECT of a kind of its own"
    if not all(_is_rendered_as_value(parameter.type) for parameter in compiled.literal_execute_params):
        return "a value of a type that renders itself (literal_execute)"
    statements: list[Any] = [body.statement for body in compiled.rendering.bodies if body is not None]
    for statement in [compiled.statement, *statements]:
        for element in visitors.iterate(statement) if statement is not None else ():
            if is_custom_construct(element):
                return f"{type(element).__name__}, a construct of its own (@compiles)"
    return None


_RENDERING: Final = ("literal_processor", "process_literal_param", "bind_expression")


def _is_rendered_as_value(type_: Any) -> bool:
    """Tell whether SQLAlchemy itself writes a value of this type into a text: then it is that value, and no SQL."""
    others = [kind for kind in type(type_).__mro__ if not kind.__module__.startswith("sqlalchemy.")]
    if any(name in vars(kind) for kind in others for name in _RENDERING):
        return False
    return not isinstance(type_, TypeDecorator) or _is_rendered_as_value(type_.impl_instance)


def _dates(compiled: RecordingCompiler) -> tuple[str, ...]:
    """Return the names of the parameters whose text, if they are one, could be read as a date.

    A value that is rendered into the text has no type there that would keep it from being one.
    """
    literal = compiled.literal_execute_params
    return tuple(
        name
        for parameter, name in compiled.bind_names.items()
        if parameter in literal or not is_dateless(parameter.type)
    )


def _reads(joined: JoinedRows, tests: RowTests, window: Window | None) -> Iterator[Read]:
    term, links = joined.term, joined.links
    facts = known(term, joined.inherited)
    # INVARIANT (conditions carried over links never go back into WHERE): they hold for the rows that matter, not for
    # every joined row. So parents are read by `facts` alone.
    linked = carried(facts, links)
    atoms = [*(atom for atom in term if isinstance(atom, Nullness)), *facts, *linked]
    formulas = [formula for body in joined.bodies for formula in tests.formulas(body)]
    parents = parent_atoms(term, facts, formulas, links=links)
    for body in joined.bodies:
        for identity, source in body.sources.items():
            own = restricting(atoms, identity, source.nullable)
            for extra in _alternatives(body.restrictions.get(identity, ()), identity):
                conditions = tuple(dict.fromkeys(own + extra))
                columns = tests.columns(body, identity, conditions)
                yield Read(
                    source.table,
                    columns,
                    conditions,
                    parents.get(identity, ()),
                    tests.test(body, identity),
                    # Identities are those of one occurrence in one body, so this is the one that has the order.
                    is_windowed=window is not None and window.source == identity,
                )


def _alternatives(restrictions: Sequence[Restriction], source: int) -> list[tuple[RowAtom, ...]]:
    """Return the atoms of the ON clauses about `source`, as alternatives."""
    alternatives: list[tuple[RowAtom, ...]] = [()]
    for restriction in restrictions:
        terms = [restricting(term, source, restriction.nullable) for term in restriction.terms]
        if len(alternatives) * len(terms) <= MAX_TERMS:
            alternatives = [left + right for left, right in product(alternatives, terms)]
    return alternatives


def _unaccounted(rendering: Rendering, bodies: list[Body]) -> Iterator[Read]:
    """Read a table as a whole if it stands in the text more often than in the bodies' FROM lists."""
    accounted = Counter(source.table for body in bodies for source in body.sources.values())
    for table, count in rendering.tables.items():
        # INVARIANT (each rendered table is accounted for): a construct that is not understood may read any of its rows.
        if count > accounted[table]:
            yield Read(table, None)


class _ColumnNames:
    """Names the bound parameters of a compiled statement."""

    def __init__(self, compiled: SQLCompiler) -> None:
        self._compiled = compiled

    def name_of(self, parameter: BindParameter[Any]) -> str | None:
        """Return the name; None if the type wraps the parameter into SQL: another value is compared."""
        if has_bind_expression(parameter.type, self._compiled.dialect):
            return None
        return self._compiled.bind_names.get(parameter)
