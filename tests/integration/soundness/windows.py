"""Random pages: statements with an order and a LIMIT, some of whose keys are shown, and some tie."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Integer, func, select

from .generator import Generator

__all__ = ["WindowGenerator"]


class WindowGenerator(Generator):
    """Draws pages, of one table and of joins."""

    def query(self) -> Any:
        """Return a statement whose order is total: the ids come last."""
        joined, sources = self.froms() if self.chance(2) else self._one_table()
        first = self.pick(sources[:1] * 3 + sources)
        keys = [self.pick(_plain(first)) for _ in range(self.random.randint(0, 2))] + [first.c.id]
        if self.chance(6):
            keys.insert(self.random.randrange(len(keys)), self.pick(_plain(self.pick(sources))))
        shown = [*(key for key in keys if not self.chance(8)), self.pick(self.pick(sources).c)]
        self.random.shuffle(shown)
        statement = self._shown(shown, joined)
        for _ in range(self.pick([0, 0, 1])):
            statement = statement.where(self.tree(sources, 1))
        order = [*map(self._directed, keys), *(source.c.id for source in sources)]
        statement = statement.order_by(*order).limit(self.pick([1, 1, 2, 2, 3]))
        return statement.offset(1) if self.chance(4) else statement

    def _one_table(self) -> tuple[Any, list[Any]]:
        source = self.alias(self.pick(["parents", "children", "grandchildren"]))
        return source, [source]

    def _shown(self, shown: list[Any], joined: Any) -> Any:
        labelled = [each.label(f"k{number}") for number, each in enumerate(shown)]
        statement = select(*labelled).select_from(joined)
        kind = self.random.randrange(12)
        if kind == 0:
            return statement.distinct()
        if kind == 1:
            return statement.add_columns(func.count().over().label("all"))
        return statement

    def _directed(self, key: Any) -> Any:
        """Order by a key up or down, with NULLs where they are by themselves, or where somebody wants them."""
        if type(key.type) is Integer and self.chance(6):
            return func.coalesce(key, self.value(key))
        way = self.pick([key, key.asc(), key.desc(), key.desc()])
        return self.pick([way, way, way.nulls_first(), way.nulls_last()])


def _plain(source: Any) -> list[Any]:
    return [each for each in source.c if not isinstance(each.type, JSON)]
