"""Random queries and writes. Weights are chosen so that every seeded bug of `test_soundness.py` is found soon."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Integer,
    String,
    Uuid,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    union,
    union_all,
)
from sqlalchemy.orm import Session, contains_eager, joinedload, selectinload, with_loader_criteria

from .model import FOREIGN_KEYS, TABLES, VALUES, Child, Grandchild, Parent

__all__ = ["Generator", "OrmQuery", "Write"]

OrmQuery = Callable[[Session], Any]
Write = Callable[[Connection], Any]

_UNORDERED: Final = (Boolean, JSON, Uuid)


@dataclass(slots=True)
class Generator:
    """Draws from one source of randomness, so that a seed gives the same case again."""

    random: random.Random
    aliases: int = 0

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def pick(self, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def value(self, column: Any) -> Any:
        """Return a value for `column`, never None."""
        return self.pick(VALUES[next(each for each in VALUES if type(column.type) is each)])

    def stored(self, column: Any) -> Any:
        """Return a value for `column`, or None."""
        return None if self.chance(5) else self.value(column)

    # Rows and writes.

    def rows(self, table: str, least: int, most: int, parents: int) -> list[dict[str, Any]]:
        """Return rows of `table` whose foreign key is one of `parents` ids, or NULL."""
        references = [name for child, name, _ in FOREIGN_KEYS if child == table]
        rows = []
        for identity in range(self.random.randint(least, most)):
            row = {column.name: self.stored(column) for column in TABLES[table].c}
            row["id"] = identity
            row.update({name: self.pick([None, *range(parents)]) for name in references})
            rows.append(row)
        return rows

    def write(self) -> Write:
        """Return one write, of the shapes that change rows in different ways."""
        table = TABLES[self.pick(TABLES)]
        identity = self.random.randrange(5)
        columns = [column for column in table.c if column.name != "id"]
        # Integers are what joins and most conditions rest on.
        columns += [column for column in columns if type(column.type) is Integer] * 2
        shape = self.random.randrange(9)
        if shape <= 1:
            row = {column.name: self.stored(column) for column in columns}
            prefix = "OR REPLACE" if shape else "OR IGNORE"
            return lambda connection: connection.execute(table.insert().prefix_with(prefix), {**row, "id": identity})
        if shape == 2:
            return lambda connection: connection.execute(table.delete().where(table.c.id == identity))
        if shape == 3:
            renamed = table.update().where(table.c.id == identity).values(id=identity + 10)
            return lambda connection: connection.execute(renamed)
        changes = {column.name: self.stored(column) for column in self.random.sample(columns, self.pick([1, 1, 2]))}
        where = table.c.id == identity
        if shape == 4:
            column = self.pick([each for each in columns if not isinstance(each.type, JSON)])
            where = column == self.stored(column)
        return lambda connection: connection.execute(table.update().where(where).values(changes))

    # Predicates.

    def alias(self, name: str, always: bool = False) -> Any:
        self.aliases += 1
        return TABLES[name] if not always and self.chance(3) else TABLES[name].alias(f"{name[0]}{self.aliases}")

    def integer(self, source: Any) -> Any:
        return self.pick([column for column in source.c if type(column.type) is Integer])

    def atom(self, sources: list[Any], depth: int) -> Any:
        """Return a condition on one column, or a subquery."""
        source = self.pick(sources)
        if depth > 0 and self.chance(5):
            return self.subquery_condition(source)
        column = self.pick(source.c) if not self.chance(3) else self.integer(source)
        if isinstance(column.type, JSON):
            return self.pick([column.is_(None), column.is_not(None), column["k"].as_integer() == 1])
        shape = self.pick(["equal"] * 4 + ["order"] * 3 + ["set"] * 2 + ["null", "unequal", "columns", "wide"])
        if shape == "order" and isinstance(column.type, _UNORDERED):
            shape = "equal"
        return getattr(self, f"_{shape}")(column, sources)

    def _equal(self, column: Any, _sources: Any) -> Any:
        if isinstance(column.type, Boolean):
            return self.pick([column, ~column, column.is_(True), column.is_(False), column == True])  # noqa: E712  # SQL
        return column == self.value(column)

    def _order(self, column: Any, _sources: Any) -> Any:
        low, high = self.value(column), self.value(column)
        return self.pick([column > low, column >= low, column < high, column <= high, column.between(low, high)])

    def _set(self, column: Any, _sources: Any) -> Any:
        values = [self.value(column) for _ in range(self.random.randrange(4))]
        if self.chance(6):
            values.append(None)
        return column.in_(values) if not self.chance(4) else column.not_in(values)

    def _null(self, column: Any, _sources: Any) -> Any:
        return self.pick([column.is_(None), column.is_not(None)])

    def _unequal(self, column: Any, _sources: Any) -> Any:
        return column != self.value(column)

    def _columns(self, column: Any, sources: list[Any]) -> Any:
        others = [other for source in sources for other in source.c if not isinstance(other.type, JSON)]
        return column == self.pick(others)

    def _wide(self, column: Any, _sources: Any) -> Any:
        if type(column.type) is String:
            return self.pick([func.lower(column) == "p", column.collate("NOCASE") == "p", column.like("P%")])
        return column + 1 == self.value(column) if type(column.type) is Integer else column == self.value(column)

    def subquery_condition(self, source: Any) -> Any:
        """Return EXISTS (correlated), IN (SELECT ...) or a compared aggregate."""
        inner = self.alias(self.pick(TABLES), always=True)
        condition = self.tree([inner], 0)
        if self.chance(2):
            correlated = exists().where(self.integer(inner) == self.integer(source), condition)
            return correlated if not self.chance(3) else ~correlated
        if self.chance(2):
            subquery = select(self.integer(inner)).where(condition)
            column = self.integer(source)
            return column.in_(subquery) if self.chance(2) else column.not_in(subquery)
        counted = select(func.count()).select_from(inner).where(condition)
        if self.chance(2):
            counted = counted.where(self.integer(inner) == self.integer(source))
        return counted.scalar_subquery() > self.random.randrange(3)

    def correlated(self, sources: list[Any]) -> list[Any]:
        """Return an EXISTS and what restricts the column that it is correlated by."""
        column = self.integer(self.pick(sources))
        inner = self.alias(self.pick(TABLES), always=True)
        restricted = column == self.value(column)
        if self.chance(2):
            restricted = or_(restricted, self.atom(sources, 0))
        return [restricted, exists().where(self.integer(inner) == column)]

    def tree(self, sources: list[Any], depth: int) -> Any:
        """Return a condition of AND, OR and NOT."""
        if depth <= 0 or self.chance(3):
            return self.atom(sources, depth)
        shape = self.random.randrange(5)
        if shape < 2:
            return and_(self.tree(sources, depth - 1), self.tree(sources, depth - 1))
        if shape < 4:
            return or_(self.tree(sources, depth - 1), self.tree(sources, depth - 1))
        return not_(self.tree(sources, depth - 1))

    # Statements.

    def on(self, left: Any, right: Any) -> Any:
        """Return an ON clause: the foreign key where there is one, and sometimes more."""
        names = {left: left.element.name if hasattr(left, "element") else left.name}
        names[right] = right.element.name if hasattr(right, "element") else right.name
        condition = self.integer(left) == self.integer(right)
        for child, column, parent in FOREIGN_KEYS:
            for first, second in ((left, right), (right, left)):
                if names[first] == child and names[second] == parent:
                    condition = first.c[column] == second.c.id
        if self.chance(3):
            return and_(condition, self.atom([self.pick([left, right])], 0))
        return or_(condition, self.atom([self.pick([left, right])], 0)) if self.chance(8) else condition

    def froms(self) -> tuple[Any, list[Any]]:
        """Return a FROM and the tables in it."""
        sources: list[Any] = []
        for _ in range(self.pick([1, 1, 2, 2, 3])):
            source = self.alias(self.pick(TABLES))
            sources.append(source if source not in sources else self.alias(source.name, always=True))
        joined = last = sources[0]
        for source in sources[1:]:
            shape = self.random.randrange(7)
            condition = self.on(last, source)
            if shape <= 2:
                joined = joined.join(source, condition)
            elif shape <= 4:
                joined = joined.outerjoin(source, condition)
            elif shape == 5:
                joined = joined.join(source, condition, full=True)
            else:
                joined = source.outerjoin(joined, condition)
            last = source
        return joined, sources

    def select(self) -> Any:
        """Return a SELECT of one body, with its subqueries."""
        joined, sources = self.froms()
        columns = [column for source in sources for column in source.c]
        statement = self._selected(joined, columns)
        shape = self.random.randrange(7)
        if shape == 0:
            return statement.where(self.pick(sources).c.id.is_(None))
        if shape == 3:
            return statement.where(*self.correlated(sources))
        if shape <= 2:
            return statement.where(self.atom(sources, 2))
        for _ in range(self.pick([0, 1, 1, 2])):
            statement = statement.where(self.tree(sources, 2))
        return statement

    def _selected(self, joined: Any, columns: list[Any]) -> Any:
        shape = self.random.randrange(8)
        plain = [column for column in columns if not isinstance(column.type, JSON)]
        if shape == 0:
            return select(func.count()).select_from(joined)
        if shape == 1:
            return select(func.count(self.pick(columns)), func.max(self.pick(plain))).select_from(joined)
        if shape == 2:
            group = self.pick(plain)
            grouped = select(group, func.count(), func.max(self.pick(plain))).select_from(joined).group_by(group)
            return grouped.having(func.count() > self.random.randrange(3)) if self.chance(2) else grouped
        chosen = [self.pick(columns).label(f"k{number}") for number in range(self.random.randint(1, 3))]
        statement = select(*chosen).select_from(joined)
        if shape == 3:
            return statement.distinct()
        if shape == 4:
            return statement.order_by(*columns).limit(self.random.randint(1, 3)).offset(self.random.randrange(2))
        if shape == 5:
            return statement.add_columns(func.row_number().over(order_by=columns).label("rank"))
        if shape == 6:
            inner = self.alias(self.pick(["children", "grandchildren"]), always=True)
            outer = self.pick([column for column in columns if type(column.type) is Integer])
            counted = select(func.count()).select_from(inner).where(self.integer(inner) == outer)
            return statement.add_columns(counted.scalar_subquery().label("counted"))
        return statement

    def core(self) -> Any:
        """Return a Core statement: a SELECT, a derived table, a CTE or a UNION."""
        shape = self.random.randrange(8)
        if shape == 0:
            derived = self.select().subquery("derived")
            column = self.pick(derived.c)
            return select(derived).where(self.pick([column.is_not(None), column.is_(None)]))
        if shape == 1:
            return select(func.count()).select_from(self.select().cte("common"))
        if shape == 2:
            branches = []
            kind = self.pick([Integer, String])
            for _ in range(2):
                joined, sources = self.froms()
                columns = [column for source in sources for column in source.c if type(column.type) is kind]
                chosen = self.pick(columns or [self.integer(sources[0])]).label("u")
                branches.append(select(chosen).select_from(joined).where(self.tree(sources, 1)))
            return self.pick([union, union_all])(*branches)
        return self.select()

    def orm(self) -> OrmQuery:
        """Return a query of the ORM: loader strategies, relationship conditions, loader criteria."""
        number = self.random.randrange(4)
        query: OrmQuery = self.pick(
            [
                lambda session: _parents(
                    session, select(Parent).where(Parent.x == number).options(selectinload(Parent.children))
                ),
                lambda session: _parents(
                    session,
                    select(Parent)
                    .where(Parent.x == number)
                    .options(joinedload(Parent.children))
                    .order_by(Parent.id)
                    .limit(2),
                ),
                lambda session: _child(session.get(Child, number)),
                lambda session: sorted(
                    session.scalars(select(Parent.id).where(Parent.children.any(Child.y == number)))
                ),
                lambda session: sorted(
                    session.scalars(select(Child.id).where(Child.parent.has(Parent.s == "p"), Child.y <= number))
                ),
                lambda session: _grandchildren(
                    session,
                    select(Child)
                    .join(Child.parent)
                    .where(Parent.id == number)
                    .options(selectinload(Child.grandchildren), with_loader_criteria(Grandchild, Grandchild.z > 0)),
                ),
                lambda session: _parents(
                    session,
                    select(Parent)
                    .outerjoin(Parent.children)
                    .options(contains_eager(Parent.children))
                    .where(Parent.f.is_(True)),
                ),
            ]
        )
        return query


def _parents(session: Session, statement: Any) -> list[Any]:
    parents = session.scalars(statement).unique()
    return sorted((parent.id, sorted((child.id, child.y or -1) for child in parent.children)) for parent in parents)


def _child(child: Any) -> Any:
    if child is None:
        return None
    parent = child.parent and (child.parent.id, child.parent.s)
    return child.id, parent, sorted(each.z or 0 for each in child.grandchildren)


def _grandchildren(session: Session, statement: Any) -> list[Any]:
    return sorted((child.id, sorted(each.id for each in child.grandchildren)) for child in session.scalars(statement))
