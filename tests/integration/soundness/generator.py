"""Random queries. Weights are chosen so that every seeded bug of `test_soundness.py` is found soon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Integer,
    String,
    Text,
    Uuid,
    and_,
    case,
    cast,
    column,
    except_,
    exists,
    func,
    intersect,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
    values,
)

from tests.integration.statements.distinct import distinct_on

from .drawing import Drawing
from .model import FOREIGN_KEYS, TABLES, VIEWS
from .orm_queries import OrmQuery, orm_query

__all__ = ["Generator"]

_SELDOM: Final = ["null", "unequal", "columns", "rows"]
_UNORDERED: Final = (Boolean, JSON, Uuid)


@dataclass(slots=True)
class Generator(Drawing):
    """Draws queries, beside rows and writes."""

    aliases: int = 0

    def query(self) -> Any:
        """Return a statement, or a callable that asks a session."""
        return self.orm() if self.chance(6) else self.core()

    def orm(self) -> OrmQuery:
        """Return a query of the ORM."""
        return orm_query(self)

    # Predicates.

    def alias(self, name: str, always: bool = False) -> Any:
        self.aliases += 1
        return TABLES[name] if not always and self.chance(3) else TABLES[name].alias(f"{name[0]}{self.aliases}")

    def integer(self, source: Any) -> Any:
        return self.pick([each for each in source.c if type(each.type) is Integer])

    def atom(self, sources: list[Any], depth: int) -> Any:
        """Return a condition on one column, or a subquery."""
        source = self.pick(sources)
        if depth > 0 and self.chance(5):
            return self.subquery_condition(source)
        compared = self.pick(source.c) if not self.chance(3) else self.integer(source)
        if isinstance(compared.type, JSON):
            return self.pick([compared.is_(None), compared.is_not(None), compared["k"].as_integer() == 1])
        shape = self.pick(["equal"] * 4 + ["order"] * 3 + ["set"] * 2 + ["wide"] * 3 + _SELDOM)
        if shape == "order" and isinstance(compared.type, _UNORDERED):
            shape = "equal"
        return getattr(self, f"_{shape}")(compared, sources)

    def _equal(self, compared: Any, _sources: Any) -> Any:
        if isinstance(compared.type, Boolean):
            plain = compared == True  # noqa: E712  # SQL
            return self.pick([compared, ~compared, compared.is_(True), compared.is_(False), plain])
        return compared == self.value(compared)

    def _order(self, compared: Any, _sources: Any) -> Any:
        low, high = self.value(compared), self.value(compared)
        return self.pick(
            [compared > low, compared >= low, compared < high, compared <= high, compared.between(low, high)]
        )

    def _rows(self, compared: Any, sources: list[Any]) -> Any:
        """Compare row values in order, as keyset pages do."""
        ordered = [each for each in compared.table.c if not isinstance(each.type, _UNORDERED)]
        if len(ordered) < 2:
            return self._equal(compared, sources)
        columns = self.random.sample(ordered, 2 + self.chance(3) if len(ordered) > 2 else 2)
        row, after = tuple_(*columns), tuple(self.value(each) for each in columns)
        until = tuple(self.value(each) for each in columns)
        return self.pick([row > after, row >= after, row < after, row <= after, and_(row > after, row <= until)])

    def _set(self, compared: Any, _sources: Any) -> Any:
        listed = [self.value(compared) for _ in range(self.random.randrange(4))]
        if self.chance(6):
            listed.append(None)
        return compared.in_(listed) if not self.chance(4) else compared.not_in(listed)

    def _null(self, compared: Any, _sources: Any) -> Any:
        return self.pick([compared.is_(None), compared.is_not(None)])

    def _unequal(self, compared: Any, _sources: Any) -> Any:
        return compared != self.value(compared)

    def _columns(self, compared: Any, sources: list[Any]) -> Any:
        others = [other for source in sources for other in source.c if not isinstance(other.type, JSON)]
        if self.dialect == "postgresql":
            others = [other for other in others if other.type._type_affinity is compared.type._type_affinity]
        return compared == self.pick(others)

    def _wide(self, compared: Any, sources: list[Any]) -> Any:
        """Compare what is computed from columns, or with two values of NULL, or by a pattern."""
        if type(compared.type) is String:
            return self.pick([self._pattern, self._of_text])(compared)
        if type(compared.type) is Integer:
            return self._of_number(compared, sources)
        value = self.value(compared)
        return self.pick([compared.is_distinct_from(value), compared.is_not_distinct_from(value), compared == value])

    def _pattern(self, compared: Any) -> Any:
        word = self.pick(["p", "P", "q", "pq", "", "p_", "P%", "i"])
        shapes = [
            compared.like(f"%{word}"),
            compared.not_like(f"{word}%"),
            compared.ilike(word),
            compared.startswith(word),
            compared.contains(word, autoescape=True),
            ~compared.endswith(word),
            compared.icontains(word),
        ]
        return self.pick(shapes)

    def _of_text(self, compared: Any) -> Any:
        collated = compared.collate("NOCASE" if self.dialect == "sqlite" else "C")
        shapes = [
            func.lower(compared) == "p",
            func.upper(compared).in_(["P", "PQ"]),
            collated == "p",
            func.length(compared) > self.random.randrange(3),
            func.coalesce(compared, "p") == self.pick(["p", "q"]),
            func.nullif(compared, "p").is_(None),
            compared + "q" == "pq",
            case((compared == "p", "first"), (compared > "p", "later"), else_="none") != "first",
            compared.is_distinct_from(self.pick(["p", None])),
            cast(compared, Text) == "P",
        ]
        return self.pick(shapes)

    def _of_number(self, compared: Any, _sources: Any) -> Any:
        value, other = self.value(compared), self.integer(compared.table)
        shapes = [
            compared + 1 == value,
            compared * 2 - other > value,
            compared % 2 == 1,
            compared >= other,
            compared != other,
            compared.is_distinct_from(self.pick([value, None])),
            compared.is_not_distinct_from(other),
            func.coalesce(compared, other, 2) > value,
            case((compared.is_(None), 3), (compared > 1, other), else_=compared) == value,
            cast(compared, String) == str(value),
            not_(or_(compared == value, other < 2)),
        ]
        return self.pick(shapes)

    def subquery_condition(self, source: Any) -> Any:
        """Return EXISTS (correlated), IN (SELECT ...) or a compared aggregate."""
        if self.chance(2):
            return self.asked(source, self.random.randrange(2))
        inner = self.alias(self.table(), always=True)
        condition = self.tree([inner], 0)
        if self.chance(2):
            correlated = exists().where(self.integer(inner) == self.integer(source), condition)
            return correlated if not self.chance(3) else ~correlated
        if self.chance(2):
            subquery = select(self.integer(inner)).where(condition)
            compared = self.integer(source)
            return compared.in_(subquery) if self.chance(2) else compared.not_in(subquery)
        counted = select(func.count()).select_from(inner).where(condition)
        if self.chance(2):
            counted = counted.where(self.integer(inner) == self.integer(source))
        return counted.scalar_subquery() > self.random.randrange(3)

    def asked(self, source: Any, depth: int) -> Any:
        """Return that there is a row that joins with `source`, in one of the spellings of that; seldom, that not."""
        name = self.table()
        # Without an alias of its own a table may stand in several bodies, and is another row in each.
        inner = TABLES[name] if name != _name(source) and self.chance(2) else self.alias(name, always=True)
        equality = self.key_equality(inner, source)
        own, other = (
            (equality.left, equality.right) if equality.left.table is inner else (equality.right, equality.left)
        )
        condition = self.asked(inner, depth - 1) if depth > 0 and self.chance(2) else self.tree([inner], 1)
        chosen = select(own).where(condition).correlate(source)
        shape = self.pick(["exists"] * 3 + ["in"] * 3 + ["limit", "compared", "grouped", "greatest", "counted", "not"])
        if shape == "in":
            return other.in_(chosen.distinct() if self.chance(4) else chosen)
        if shape == "limit":
            return other.in_(chosen.order_by(*_ordered(inner)).limit(self.random.randint(1, 2)))
        if shape == "compared":
            return other == chosen.order_by(*_ordered(inner)).limit(1).scalar_subquery()
        if shape == "grouped":
            return other.in_(chosen.group_by(own).having(func.count() > self.random.randrange(2)))
        if shape == "greatest" and not isinstance(own.type, _UNORDERED):
            return other.in_(select(func.max(own)).where(condition).correlate(source))
        if shape == "counted":
            return exists(select(func.count()).select_from(inner).where(equality, condition).correlate(source))
        joining = exists().where(equality, condition).correlate(source)
        return ~joining if shape == "not" else joining

    def correlated(self, sources: list[Any]) -> list[Any]:
        """Return an EXISTS and what restricts the column, or the row, that it is correlated by."""
        source = self.pick(sources)
        compared = self.integer(source)
        inner = self.alias(self.table(), always=True)
        restricted = compared == self.value(compared) if self.chance(2) else self.atom([source], 0)
        if self.chance(3):
            restricted = or_(restricted, self.atom(sources, 0))
        joined = self.integer(inner) == compared if self.chance(2) else self.key_equality(inner, source)
        return [restricted, exists().where(joined)]

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

    # FROM.

    def key_equality(self, left: Any, right: Any) -> Any:
        """Return an equality: of the foreign key where there is one, of tokens, or of any integers."""
        if self.chance(5) and "badge" in left.c and "badge" in right.c:
            return left.c.badge == right.c.badge
        for child, referring, parent in FOREIGN_KEYS:
            for first, second in ((left, right), (right, left)):
                if _name(first) == child and _name(second) == parent and not self.chance(4):
                    return first.c[referring] == second.c.id
        return self.integer(left) == self.integer(right)

    def on(self, left: Any, right: Any) -> Any:
        """Return an ON clause: an equality, and sometimes more."""
        condition = self.key_equality(left, right)
        if self.chance(3):
            return and_(condition, self.atom([self.pick([left, right])], 0))
        return or_(condition, self.atom([self.pick([left, right])], 0)) if self.chance(8) else condition

    def froms(self) -> tuple[Any, list[Any]]:
        """Return a FROM and the tables in it."""
        sources: list[Any] = []
        for _ in range(self.pick([1, 1, 2, 2, 2, 3])):
            source = self.alias(self.table())
            sources.append(source if source not in sources else self.alias(_name(source), always=True))
        joined = sources[0]
        for number, source in enumerate(sources[1:]):
            shape = self.random.randrange(8)
            condition = self.on(self.pick(sources[: number + 1]) if self.chance(3) else sources[number], source)
            if shape <= 2:
                joined = joined.join(source, condition)
            elif shape <= 4:
                joined = joined.outerjoin(source, condition)
            elif shape == 5:
                joined = joined.join(source, condition, full=True)
            else:
                joined = source.outerjoin(joined, condition)
        return joined, sources

    # Statements.

    def select(self) -> Any:
        """Return a SELECT of one body, with its subqueries."""
        joined, sources = self.froms()
        columns = [each for source in sources for each in source.c]
        statement = self._selected(joined, columns)
        shape = self.random.randrange(8)
        if shape == 0:
            return statement.where(self.pick(sources).c.id.is_(None))
        if shape == 3:
            return statement.where(*self.correlated(sources))
        if shape == 4:
            asked = [self.asked(sources[0], 2) for _ in range(self.random.randint(1, 2))]
            return statement.where(*asked, *([self.atom([sources[0]], 0)] if self.chance(2) else []))
        if shape <= 2:
            return statement.where(self.atom(sources, 2))
        if shape == 7:
            # A parent's condition and no more: what a virtual column is for.
            return statement.where(self.atom([sources[-1]], 0), *self._joined_by_where(sources))
        for _ in range(self.pick([0, 1, 1, 2])):
            statement = statement.where(self.tree(sources, 2))
        return statement

    def _joined_by_where(self, sources: list[Any]) -> list[Any]:
        return [self.key_equality(*self.random.sample(sources, 2))] if len(sources) > 1 and self.chance(3) else []

    def _selected(self, joined: Any, columns: list[Any]) -> Any:
        shape = self.random.randrange(10)
        plain = [each for each in columns if not isinstance(each.type, JSON)]
        greatest = [each for each in plain if not isinstance(each.type, _UNORDERED)]
        if shape == 0:
            return select(func.count()).select_from(joined)
        if shape == 1:
            return select(func.count(self.pick(columns)), func.max(_distinguished(self.pick(greatest)))).select_from(
                joined
            )
        if shape == 2:
            group = _distinguished(self.pick(plain))
            least = func.min(_distinguished(self.pick(greatest)))
            grouped = select(group, func.count(), least).select_from(joined).group_by(group)
            return grouped.having(func.count() > self.random.randrange(3)) if self.chance(2) else grouped
        picked = [self.pick(columns) for _ in range(self.random.randint(1, 3))]
        if shape == 3:
            picked = [_distinguished(column) for column in picked]
        chosen = [column.label(f"k{number}") for number, column in enumerate(picked)]
        statement = select(*chosen).select_from(joined)
        if shape == 3:
            return statement.distinct()
        if shape == 4:
            return statement.order_by(*columns).limit(self.random.randint(1, 3)).offset(self.random.randrange(2))
        if shape == 5:
            return statement.add_columns(self._window(columns).label("rank"))
        if shape == 6:
            inner = self.alias(self.pick(["children", "grandchildren"]), always=True)
            outer = self.pick([each for each in columns if type(each.type) is Integer])
            counted = select(func.count()).select_from(inner).where(self.integer(inner) == outer)
            return statement.add_columns(counted.scalar_subquery().label("counted"))
        if shape == 7 and self.dialect == "postgresql":
            first = self.pick(plain)
            return distinct_on(statement, first).order_by(first, *columns)
        return statement

    def _window(self, columns: list[Any]) -> Any:
        number = self.pick([each for each in columns if type(each.type) is Integer])
        functions = [func.row_number(), func.lag(number), func.sum(number), func.dense_rank()]
        return self.pick(functions).over(partition_by=self.pick([None, number]), order_by=columns)

    def core(self) -> Any:
        """Return a Core statement."""
        shapes = {
            self.select: 16,
            self._derived: 3,
            self._common: 2,
            self._compound: 4,
            self._recursive: 1,
            self._values: 1,
            self._of_view: 1,
            self._textual: 1,
        }
        if self.dialect == "postgresql":
            shapes[self._lateral] = 2
        return self.random.choices(list(shapes), list(shapes.values()))[0]()

    def _derived(self) -> Any:
        derived = self.select().subquery("derived")
        filtered = self.pick(derived.c)
        if self.chance(2):
            return select(derived).where(self.pick([filtered.is_not(None), filtered.is_(None)]))
        joined, sources = self.froms()
        numbers = [each for each in derived.c if type(each.type) is Integer]
        condition = self.pick(numbers) == self.integer(sources[0]) if numbers else true()
        statement = select(self.integer(sources[0]), derived).select_from(joined.join(derived, condition))
        return statement.where(self.atom(sources, 0))

    def _common(self) -> Any:
        common = self.select().cte("common")
        if self.chance(2):
            return select(func.count()).select_from(common)
        again = common.alias("again")
        return select(func.count()).select_from(common.join(again, true()))

    def _compound(self) -> Any:
        branches = []
        kind = self.pick([Integer, String])
        for _ in range(2):
            joined, sources = self.froms()
            columns = [each for source in sources for each in source.c if type(each.type) is kind]
            if not columns:
                source = self.alias("parents", always=True)
                joined, sources, columns = source, [source], [each for each in source.c if type(each.type) is kind]
            column = _distinguished(self.pick(columns)).label("u")
            branches.append(select(column).select_from(joined).where(self.tree(sources, 1)))
        return self.pick([union, union_all, except_, intersect])(*branches)

    def _recursive(self) -> Any:
        """Follow an integer column from row to row."""
        table = self.alias(self.table(), always=True)
        start = select(table.c.id.label("id")).where(self.atom([table], 0)).cte("reached", recursive=True)
        further = self.alias(_name(table), always=True)
        step = select(further.c.id).join(start, self.integer(further) == start.c.id)
        if self.chance(2):
            step = step.where(self.atom([further], 0))
        reached = start.union(step)
        return select(reached.c.id)

    def _values(self) -> Any:
        rows = [(self.random.randrange(4),) for _ in range(self.random.randint(1, 3))]
        listed = values(column("v", Integer), name="listed").data(rows)
        source: Any = listed if self.dialect == "postgresql" and self.chance(2) else listed.cte("listed_rows")
        table = self.alias(self.table(), always=True)
        joined = source.join(table, self.integer(table) == source.c.v, isouter=self.chance(2))
        return select(source.c.v, self.integer(table)).select_from(joined).where(self.atom([table], 0))

    def _lateral(self) -> Any:
        outer, inner = self.alias(self.table()), self.alias(self.table(), always=True)
        matching = self.key_equality(inner, outer)
        newest = select(inner).where(matching, self.atom([inner], 0)).order_by(*inner.c).limit(1).lateral("newest")
        joined = outer.join(newest, true(), isouter=self.chance(2))
        return select(outer.c.id, newest.c.id).select_from(joined).where(self.atom([outer], 0))

    def _of_view(self) -> Any:
        view = VIEWS[self.pick(VIEWS)]
        table = self.alias(self.table(), always=True)
        shape = self.random.randrange(3)
        if shape == 0:
            return select(view).where(view.c.x == self.random.randrange(4))
        if shape == 1:
            return select(view.c.id, self.integer(table)).where(view.c.x == self.integer(table), self.atom([table], 0))
        return select(func.count()).select_from(view)

    def _textual(self) -> Any:
        number = self.random.randrange(4)
        return self.pick(
            [
                text("SELECT c.id, p.s FROM children c JOIN parents p ON p.id = c.parent_id WHERE p.x = :x"),
                text("SELECT count(*) FROM bright WHERE x <> :x"),
                text("WITH some AS (SELECT z FROM grandchildren WHERE z = :x) SELECT max(z) FROM some"),
            ]
        ).bindparams(x=number)


def _name(source: Any) -> str:
    """Return the name of the table behind an alias."""
    return str(source.element.name if hasattr(source, "element") else source.name)


def _ordered(source: Any) -> list[Any]:
    return [each for each in source.c if not isinstance(each.type, JSON)]


def _distinguished(column: Any) -> Any:
    """Return a column whose equal values look alike: whether 'p' or 'P' stands for both is the database's to choose."""
    return func.lower(column) if getattr(column.type, "collation", None) == "NOCASE" else column
