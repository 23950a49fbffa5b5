"""Random figures: aggregates of conditions, in groups and in one, of one table and of joins."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, String, Uuid, case, func, select

from .generator import Generator

__all__ = ["AggregateGenerator"]


class AggregateGenerator(Generator):
    """Draws statements that show aggregates, most of which see few of the rows."""

    def query(self) -> Any:
        """Return a statement of up to three aggregates, seldom beside something else."""
        joined, sources = self.froms() if self.chance(2) else self._one_table()
        shown = [self._figure(sources) for _ in range(self.pick([1, 1, 2, 3]))]
        if self.chance(8):
            shown.append(func.row_number().over(order_by=func.count()))
        if self.chance(4):
            summed = func.sum(case((self.tree(sources, 1), self.integer(self.pick(sources)))))
            shown.append(func.coalesce(summed, 0) + 1)
        labelled = [each.label(f"k{number}") for number, each in enumerate(shown)]
        statement = select(*labelled).select_from(joined)
        for _ in range(self.pick([0, 0, 1, 2])):
            statement = statement.where(self.tree(sources, 1))
        return self._grouped(statement, sources) if self.chance(3) else statement

    def _grouped(self, statement: Any, sources: list[Any]) -> Any:
        number = self.integer(self.pick(sources))
        grouped = statement.group_by(number)
        if not self.chance(3):
            grouped = grouped.add_columns(number.label("of"))
        return grouped.having(func.count() > self.random.randrange(2)) if self.chance(3) else grouped

    def _one_table(self) -> tuple[Any, list[Any]]:
        source = self.alias(self.pick(["parents", "children", "grandchildren"]))
        return source, [source]

    def _figure(self, sources: list[Any]) -> Any:
        source = self.pick(sources)
        taken, number = self.pick([each for each in source.c if not isinstance(each.type, JSON)]), self.integer(source)
        condition = self.tree([source] if not self.chance(6) else sources, 1)
        # The least of two texts that a collation takes for equal is either of them.
        is_in_order = not isinstance(taken.type, Boolean | Uuid | String)
        greatest = self.pick([func.max, func.min])(taken if is_in_order else number)
        shapes = [
            func.count().filter(condition),
            func.count(taken),
            func.count(taken.distinct()),
            func.count(case((condition, 1))),
            func.count(case((condition, taken))),
            func.sum(case((condition, number), else_=0)),
            func.sum(case((condition, 1), (number > 1, 2), else_=0)),
            func.sum(number).filter(condition),
            func.sum(number * self.random.randint(1, 2)),
            greatest,
            greatest.filter(condition),
        ]
        return self.pick(shapes) if not self.chance(10) else func.count()
