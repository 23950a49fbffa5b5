"""Rules drawn at random, each twice: as its author would write it, and as plain SQL text with every NOT and NULL in it.

INVARIANT (the text shares nothing with the readers): it is made beside the rule and not of it, and it keeps the three
values of SQL. Readers that were compared with one another only would agree on a wrong normal form.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reactive_rpc.records.rules import Rule, anyone, nobody, record, some, user

from .rule_models import ANNOTATIONS, COLUMNS
from .rule_values import as_sql, draw_value

__all__ = ["USER_ATTRIBUTES", "DrawnRule", "draw_rule", "draw_user"]

User = Mapping[str, Any]
ORDERED = ("text", "int", "decimal", "moment", "local", "date")
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

USER_ATTRIBUTES: dict[str, Any] = {
    **ANNOTATIONS,
    **{f"{kind}s": list[annotation] for kind, annotation in ANNOTATIONS.items()},  # type: ignore[valid-type]  # made of values
}
"""One attribute of each kind, and a list of each."""

JOINS = {
    "parts": "FROM part {inner} WHERE {inner}.item_id = {outer}.id",
    "tags": "FROM tag {inner} JOIN item_tag t ON t.tag_id = {inner}.id WHERE t.item_id = {outer}.id",
    "group": "FROM item_group {inner} WHERE {inner}.id = {outer}.group_id",
}


@dataclass(frozen=True)
class DrawnRule:
    """A rule, twice.

    Attributes:
        write: gets the rows of the rule, the record first, and returns it.
        sql: gets the user and the names of those rows in SQL.
    """

    write: Callable[[Sequence[Any]], Rule]
    sql: Callable[[User, Sequence[str]], str]

    @property
    def rule(self) -> Rule:
        """The rule of a record."""
        return self.write((record,))

    def reference(self, who: User) -> str:
        """Return the statement of the ids of the items of which it is true."""
        return f"SELECT item.id FROM item WHERE {self.sql(who, ('item',))}"


def draw_user(rng: random.Random) -> dict[str, Any]:
    """Draw a user."""
    drawn = {kind: draw_value(rng, kind, stored=False, null_share=0.25) for kind in ANNOTATIONS}
    for kind in ANNOTATIONS:
        items = [draw_value(rng, kind, stored=False, null_share=0.15) for _ in range(rng.randint(0, 3))]
        drawn[f"{kind}s"] = None if rng.random() < 0.1 else items
    return drawn


def draw_rule(rng: random.Random, *, depth: int = 0, levels: int = 1) -> DrawnRule:
    """Draw a rule.

    Args:
        depth: how far inside of others it stands.
        levels: how many rows it may speak of.
    """
    choice = rng.random()
    if depth > 3 or choice < 0.3:
        return _draw_leaf(rng, depth, levels)
    if choice < 0.5:
        part = draw_rule(rng, depth=depth + 1, levels=levels)
        return DrawnRule(lambda rows: ~part.write(rows), lambda who, names: f"(NOT {part.sql(who, names)})")
    left = draw_rule(rng, depth=depth + 1, levels=levels)
    right = draw_rule(rng, depth=depth + 1, levels=levels)
    if choice < 0.75:
        return DrawnRule(
            lambda rows: left.write(rows) & right.write(rows),
            lambda who, names: f"({left.sql(who, names)} AND {right.sql(who, names)})",
        )
    return DrawnRule(
        lambda rows: left.write(rows) | right.write(rows),
        lambda who, names: f"({left.sql(who, names)} OR {right.sql(who, names)})",
    )


def _draw_leaf(rng: random.Random, depth: int, levels: int) -> DrawnRule:
    choice = rng.random()
    if levels < 3 and depth < 4 and choice < 0.15:
        return _draw_some(rng, depth, levels)
    if choice < 0.17:
        value = rng.random() < 0.5
        return DrawnRule(lambda _: anyone if value else nobody, lambda *_: "1" if value else "0")
    if choice < 0.3:
        return _draw_null_test(rng, levels)
    if choice < 0.5:
        return _draw_membership(rng, levels)
    return _draw_comparison(rng, levels)


@dataclass(frozen=True)
class DrawnTerm:
    """A field, an attribute or a value, twice.

    Attributes:
        write: gets the rows of the rule.
        sql: gets the user and the names of those rows in SQL.
        is_term: whether it is no value.
    """

    write: Callable[[Sequence[Any]], Any]
    sql: Callable[[User, Sequence[str]], str]
    is_term: bool = True


def _draw_field(rng: random.Random, kind: str, levels: int, *, alike: bool = False) -> DrawnTerm:
    """Draw a field; with `alike`, one that is stored as others of its kind."""
    names = [name for name, of in COLUMNS.items() if of == kind and not (alike and name.endswith("3"))]
    name, level = rng.choice(names), rng.randrange(levels)
    return DrawnTerm(lambda rows: getattr(rows[level], name), lambda _, names: f"{names[level]}.{name}")


def _attribute(kind: str) -> DrawnTerm:
    return DrawnTerm(lambda _: getattr(user, kind), lambda who, _: as_sql(kind, who[kind]))


def _draw_constant(rng: random.Random, kind: str) -> DrawnTerm:
    value = draw_value(rng, kind, stored=False)
    return DrawnTerm(lambda _: value, lambda *_: as_sql(kind, value), is_term=False)


def _draw_sides(rng: random.Random, kind: str, levels: int) -> tuple[DrawnTerm, DrawnTerm]:
    """Draw both sides of a comparison: a field or an attribute, and either of them or a value."""
    choice = rng.random()
    if choice < 0.3:
        return _draw_field(rng, kind, levels, alike=True), _draw_field(rng, kind, levels, alike=True)
    left = _draw_field(rng, kind, levels) if rng.random() < 0.8 else _attribute(kind)
    right = _attribute(kind) if rng.random() < 0.5 else _draw_constant(rng, kind)
    return (right, left) if choice < 0.4 and right.is_term else (left, right)


def _draw_comparison(rng: random.Random, levels: int) -> DrawnRule:
    kind = rng.choice([*ANNOTATIONS, *ORDERED, "text", "text", "decimal"])
    symbol = rng.choice(["=", "<>", *(("<", "<=", ">", ">=") if kind in ORDERED else ())])
    left, right = _draw_sides(rng, kind, levels)
    return DrawnRule(
        lambda rows: OPERATORS[symbol](left.write(rows), right.write(rows)),
        lambda who, names: f"({left.sql(who, names)} {symbol} {right.sql(who, names)})",
    )


def _draw_null_test(rng: random.Random, levels: int) -> DrawnRule:
    kind, is_null = rng.choice([*ANNOTATIONS]), rng.random() < 0.5
    term = _draw_field(rng, kind, levels) if rng.random() < 0.7 else _attribute(kind)
    return DrawnRule(
        lambda rows: term.write(rows).is_null() if is_null else term.write(rows).not_null(),
        lambda who, names: f"({term.sql(who, names)} {'IS' if is_null else 'IS NOT'} NULL)",
    )


def _draw_membership(rng: random.Random, levels: int) -> DrawnRule:
    kind, is_in = rng.choice([*ANNOTATIONS]), rng.random() < 0.5
    left = _draw_field(rng, kind, levels) if rng.random() < 0.75 else _attribute(kind)
    of_user = rng.random() < 0.5
    values = [draw_value(rng, kind, stored=False) for _ in range(rng.randint(0, 3))]

    def write(rows: Sequence[Any]) -> Rule:
        among = getattr(user, f"{kind}s") if of_user else values
        written: Rule = left.write(rows).in_(among) if is_in else left.write(rows).not_in(among)
        return written

    def sql(who: User, names: Sequence[str]) -> str:
        among = who[f"{kind}s"] if of_user else values
        if among is None:
            return "NULL"
        items = ", ".join(as_sql(kind, value) for value in among)
        return f"({left.sql(who, names)} {'IN' if is_in else 'NOT IN'} ({items}))"

    return DrawnRule(write, sql)


def _draw_some(rng: random.Random, depth: int, levels: int) -> DrawnRule:
    # Only of the record: parts, tags and groups have none of these associations themselves.
    association = rng.choice([*JOINS])
    part = draw_rule(rng, depth=max(2, depth + 1), levels=levels + 1)

    def sql(who: User, names: Sequence[str]) -> str:
        inner = f"r{levels}"
        join = JOINS[association].format(inner=inner, outer=names[0])
        return f"EXISTS (SELECT 1 {join} AND {part.sql(who, (*names, inner))})"

    return DrawnRule(
        lambda rows: some(getattr(rows[0], association), lambda row: part.write((*rows, row))),
        sql,
    )
