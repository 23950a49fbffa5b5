"""Relations: "a change here also counts as a change there".

`{"agent": ["organization", "message.from_agent_id"]}` says that a change of agent X also counts as a change of the
messages whose `from_agent_id` is X, and of the organization that X refers to. It only ever widens: the read sets
find what a query read; relations are for what no query shows (a computation outside the database, a habit of the
team). One step: what a relation adds is not widened again.

`"auto"` takes every foreign key, both ways: a change of a row counts as a change of the row that it refers to, and of
the rows that refer to it. With `message.from_agent_id` a foreign key to `agent`, a new message of agent X counts as a
change of agent X, and a change of agent X as one of each of its messages; but not as one of the organization that X
belongs to *because* a message was written: that would be a second step. Columns whose values do not compare exactly tie
no rows together: there the whole table counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from reactive_rpc.dependencies.change import UNKNOWN, Change, Known, Unknown
from reactive_rpc.dependencies.schema import ColumnKind
from reactive_rpc.errors import DefinitionError

__all__ = ["Relation", "Relations", "TableShape", "parse_relations", "widen"]

Relations = Mapping[str, Sequence[str]] | Literal["auto"]
"""`{source table: targets}`, or every foreign key both ways."""


class TableShape(Protocol):
    """The columns that relations ask of a table."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column."""
        ...

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key, in order."""
        ...

    @property
    def kinds(self) -> Mapping[str, ColumnKind | None]:
        """`{column: how it compares}`."""
        ...

    @property
    def foreign_keys(self) -> tuple[tuple[str, str, str], ...]:
        """`(column, referred table, referred column)`, one a column."""
        ...


@dataclass(frozen=True, slots=True)
class Relation:
    """A change of a `source` row counts as one of the `target` rows whose `column` equals its `source_column`.

    `column` and `source_column` are None if nothing ties the rows together: then the whole target counts.
    """

    source: str
    source_column: str | None
    target: str
    column: str | None


def parse_relations(relations: Relations, tables: Mapping[str, TableShape]) -> dict[str, list[Relation]]:
    """Return `{source table: relations}`.

    Raises:
        DefinitionError: a table or a column is unknown; the message names it and those that exist.
    """
    if relations == "auto":
        return _by_foreign_keys(tables)
    if not isinstance(relations, Mapping):
        raise DefinitionError(f"relations={relations!r}: write {{'table': ['other', 'third.column']}}, or 'auto'")
    for source, targets in relations.items():
        if isinstance(targets, str) or not isinstance(targets, Sequence):
            raise DefinitionError(f"relations[{source!r}] is {targets!r}, no list: write [{targets!r}]")
    return {
        source: [_parse(source, target, tables) for target in targets]
        for source, targets in relations.items()
        if _known(source, source, tables)
    }


def _by_foreign_keys(tables: Mapping[str, TableShape]) -> dict[str, list[Relation]]:
    """Return the relations of every foreign key, to the row it refers to and back; a key of several columns by each."""
    found: dict[str, list[Relation]] = {}
    for child, shape in tables.items():
        for column, parent, referred in shape.foreign_keys:
            if parent in tables:
                found.setdefault(child, []).append(_tied(child, column, parent, referred, tables))
                found.setdefault(parent, []).append(_tied(parent, referred, child, column, tables))
    return {source: list(dict.fromkeys(relations)) for source, relations in found.items()}


def _known(table: str, text: str, tables: Mapping[str, TableShape]) -> bool:
    if table not in tables:
        raise DefinitionError(
            f"relations: {text!r} names the unknown table {table!r}; there are {', '.join(sorted(tables))}"
        )
    return True


def _parse(source: str, text: str, tables: Mapping[str, TableShape]) -> Relation:
    target, _, column = text.partition(".")
    _known(target, text, tables)
    if not column:
        return _referred(source, target, tables)
    if column not in tables[target].columns:
        columns = ", ".join(tables[target].columns)
        raise DefinitionError(f"relations: {text!r}: table {target!r} has no column {column!r}; it has {columns}")
    for own, referred, referred_column in tables[target].foreign_keys:
        if own == column and referred == source:
            return _tied(source, referred_column, target, column, tables)
    key = tables[source].primary_key
    return _tied(source, key[0] if len(key) == 1 else None, target, column, tables)


def _referred(source: str, target: str, tables: Mapping[str, TableShape]) -> Relation:
    keys = tables[source].foreign_keys
    found = [(column, referred_column) for column, referred, referred_column in keys if referred == target]
    if len(found) == 1:
        return _tied(source, found[0][0], target, found[0][1], tables)
    return Relation(source, None, target, None)


def _tied(
    source: str, source_column: str | None, target: str, column: str, tables: Mapping[str, TableShape]
) -> Relation:
    """Tie the rows by equal values, if both columns compare alike and exactly; else the whole target counts."""
    kind = None if source_column is None else tables[source].kinds.get(source_column)
    if kind is None or tables[target].kinds.get(column) != kind:
        return Relation(source, None, target, None)
    return Relation(source, source_column, target, column)


def widen(changes: Iterable[Change], relations: Mapping[str, Sequence[Relation]]) -> list[Change]:
    """Return the changes that `changes` also count as, in their order; not `changes` themselves."""
    return [_follow(change, relation) for change in changes for relation in relations.get(change.table, ())]


def _follow(change: Change, relation: Relation) -> Change:
    bulk = Change(table=relation.target, operation="bulk")
    if change.operation == "bulk" or relation.source_column is None or relation.column is None:
        return bulk
    images: list[dict[str, Known] | None] = []
    for image in (change.before, change.after):
        value = UNKNOWN if image is None else image.get(relation.source_column, UNKNOWN)
        if image is not None and isinstance(value, Unknown | frozenset):
            return bulk
        is_there = image is not None and value is not None
        images.append({relation.column: value} if is_there else None)  # type: ignore[dict-item]  # known, as looked at
    keys = frozenset([*(value for image in images if image is not None for value in image.values()), UNKNOWN])
    return Change(table=relation.target, operation="update", before=images[0], after=images[1], keys=keys)
