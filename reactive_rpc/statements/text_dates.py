"""Which expressions of a parsed text are dates, so that no clock is read if they are taken for one.

If a database wants a date, the text 'now' is the clock: in a cast on PostgreSQL, in `date()` and its kin on SQLite.
So the expression there must be no text: a date already, or made of dates. A literal says so itself; of a
column only the database knows, so those that an expression is made of are collected for whoever can ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlglot import exp

__all__ = ["Dates", "name_of"]

_ONE_OF_ITS_ARGUMENTS: Final = (
    exp.AnyValue, exp.Coalesce, exp.FirstValue, exp.Greatest, exp.Lag, exp.LastValue, exp.Lead, exp.Least, exp.Max,
    exp.Min, exp.NthValue, exp.Nullif,
)  # fmt: skip
_WRAPPERS: Final = (exp.Alias, exp.Collate, exp.Filter, exp.Paren, exp.Window)


def name_of(identifier: Any) -> str:
    """Return a name without its quotes; in lower case, unless it had some."""
    text = str(identifier.name)
    return text if isinstance(identifier, exp.Identifier) and identifier.args.get("quoted") else text.lower()


class Dates:
    """Follows the expressions that a text takes for dates to the columns that it is made of.

    Args:
        tree: the whole text.
        is_date: tells of an expression whether it is a date; None if that depends on its parts.
        name_of: returns an identifier's name, equal for all spellings that the database takes for one.
    """

    def __init__(
        self, tree: Any, is_date: Callable[[Any], bool | None], *, name_of: Callable[[Any], str] = name_of
    ) -> None:
        self._is_date = is_date
        self._name_of = name_of
        self._given: dict[str, list[Any]] = {}
        for name, value in _given(tree):
            self._given.setdefault(name_of(name), []).append(value)
        self._columns: set[str] = set()

    @property
    def columns(self) -> frozenset[str]:
        """Every column that was met, by name."""
        return frozenset(self._columns)

    @property
    def given(self) -> frozenset[str]:
        """Of these, the names that the text itself gives to dates; a table may have a column of that name too."""
        return self.columns & self._given.keys()

    def hold(self, value: Any) -> bool:
        """Tell whether `value` is a date, if `columns` hold dates."""
        if isinstance(value, exp.Column):
            return self._holds_column(self._name_of(value.this))
        known = self._is_date(value)
        if known is not None:
            return known
        parts = _parts(value)
        return bool(parts) and all(map(self.hold, parts))

    def _holds_column(self, name: str) -> bool:
        if name not in self._columns:  # else it is being looked at: a column of a recursive query
            self._columns.add(name)
            return all(map(self.hold, self._given.get(name, ())))
        return True


def _parts(value: Any) -> list[Any]:
    """Return the expressions one of which `value` is; none if that is not known."""
    if isinstance(value, _WRAPPERS):
        return [value.this]
    if isinstance(value, exp.Case):
        return [*(each.args["true"] for each in value.args["ifs"]), *filter(None, [value.args.get("default")])]
    if isinstance(value, exp.If):
        return [value.args["true"], *filter(None, [value.args.get("false")])]
    if isinstance(value, exp.Subquery) and isinstance(value.this, exp.Select):
        return list(value.this.expressions) if len(value.this.expressions) == 1 else []
    if isinstance(value, exp.Substring):  # no part of a date is another one's name
        return [value.this]
    return list(value.iter_expressions()) if isinstance(value, _ONE_OF_ITS_ARGUMENTS) else []


def _given(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every identifier that the text gives to a column, with its expression; None if that is not known."""
    for alias in tree.find_all(exp.Alias):
        yield alias.args["alias"], alias.this
    for alias in tree.find_all(exp.TableAlias):
        source = alias.parent.this if isinstance(alias.parent, exp.CTE | exp.Subquery | exp.Table) else None
        names = list(alias.args.get("columns") or ())
        if isinstance(source, exp.Func) and alias.this is not None:
            names.append(alias.this)  # the name of a function's result is that of its one column, too
        for place, name in enumerate(names):
            for value in _column_values(source, place):
                yield name, value


def _column_values(source: Any, place: int) -> Sequence[Any]:
    """Return the expressions that the column of `source` at `place` may be; None if that is not known."""
    if isinstance(source, exp.SetOperation):
        return [*_column_values(source.this, place), *_column_values(source.expression, place)]
    if isinstance(source, exp.Select) and not any(each.is_star for each in source.expressions):
        return source.expressions[place : place + 1]
    return [source if isinstance(source, exp.Func) else None]
