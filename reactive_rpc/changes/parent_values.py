"""Virtual columns for the images of a batch: which parents to look up, and what to make of what was found.

The logs read the parents, each in its own dialect, in the snapshot that shows the batch (`dependencies/lookup.py`
argues why it must be that one). What is here is the same for all of them.

**Left out is unknown.** An image that lacks a virtual column matches every condition on it. So everything doubtful is
left out: a key that was not captured, a column without an exact kind, kinds that differ (the join's comparison would
then convert), text in a column of numbers (compared by a collation that images do not know), a value that is itself
unknown, two parents where there should be one, and a look-up with so many keys that the table is as good as read whole.

**None is known.** A NULL key has no parent, and neither has one that the snapshot does not show: nothing joins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from reactive_rpc.changes.log import WantedLookups
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Known, Unknown, Value
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind, Schema

__all__ = ["Found", "by_key", "enriched", "followed", "keys_of", "keys_to_look_up", "lookups_of"]

MAX_KEYS = 1_000

Found = Mapping[Lookup, Mapping[Known, Value | Unknown]]
"""`{lookup: {key: the parent's value}}`; keys that were asked for and are missing have no parent."""

_NUMBERS: Collection[ColumnKind] = ("integer", "real", "decimal")


def lookups_of(tables: Iterable[str], wanted: WantedLookups, schema: Schema) -> tuple[Lookup, ...]:
    """Return the look-ups that images of `tables` should hold and that can be answered exactly."""
    return tuple(lookup for table in tables for lookup in wanted(table) if _is_exact(lookup, schema))


def keys_to_look_up(
    changes: Iterable[Change], lookups: Iterable[Lookup], schema: Schema
) -> dict[Lookup, frozenset[Known]]:
    """Return `{lookup: the keys that occur}`; without the look-ups that have too many."""
    keys: dict[Lookup, set[Known]] = {lookup: set() for lookup in lookups}
    by_table = _by_table(keys)
    for change in changes:
        for lookup in by_table.get(change.table, ()):
            for image in (change.before, change.after):
                key = None if image is None else _key(image, lookup, schema)
                if key is not None and not isinstance(key, Unknown):
                    keys[lookup].add(key)
    return {lookup: frozenset(found) for lookup, found in keys.items() if len(found) <= MAX_KEYS}


def by_key(pairs: Iterable[tuple[Value | Unknown, Value | Unknown]]) -> dict[Known, Value | Unknown]:
    """Return `{key: value}` of the parents found; a key found twice has an unknown value.

    >>> by_key([(1, "a"), (2, None), (1, "b")])
    {1: UNKNOWN, 2: None}
    """
    values: dict[Known, Value | Unknown] = {}
    for key, value in pairs:
        if key is not None and not isinstance(key, Unknown):
            values[key] = UNKNOWN if key in values else value
    return values


def followed(
    first: Mapping[Known, Value | Unknown], then: Mapping[Known, Value | Unknown]
) -> dict[Known, Value | Unknown]:
    """Return `{key: value}` of parents' parents: `first` leads to the keys of `then`, in one snapshot.

    >>> followed({1: "a", 2: None, 3: UNKNOWN, 4: "b"}, {"a": 7})
    {1: 7, 2: None, 3: UNKNOWN, 4: None}
    """
    return {key: step if step is None or isinstance(step, Unknown) else then.get(step) for key, step in first.items()}


def keys_of(found: Mapping[Known, Value | Unknown]) -> frozenset[Known]:
    """Return the values found, as the keys of a further look-up."""
    return frozenset(value for value in found.values() if value is not None and not isinstance(value, Unknown))


def enriched(changes: Iterable[Change], found: Found, schema: Schema) -> tuple[Change, ...]:
    """Return the changes, their images with the virtual columns that were found."""
    by_table = _by_table(found)
    return tuple(
        replace(
            change,
            before=_with_parents(change.before, by_table[change.table], found, schema),
            after=_with_parents(change.after, by_table[change.table], found, schema),
        )
        if change.table in by_table
        else change
        for change in changes
    )


def _is_exact(lookup: Lookup, schema: Schema) -> bool:
    kind = schema.kind(lookup.table, lookup.column)
    return (
        kind is not None
        and kind == schema.kind(lookup.parent, lookup.key)
        and schema.kind(lookup.parent, lookup.value) is not None
        and (lookup.further is None or _is_exact(lookup.further, schema))
    )


def _by_table(lookups: Iterable[Lookup]) -> dict[str, list[Lookup]]:
    grouped: dict[str, list[Lookup]] = {}
    for lookup in lookups:
        grouped.setdefault(lookup.table, []).append(lookup)
    return grouped


def _key(image: Image, lookup: Lookup, schema: Schema) -> Value | Unknown:
    key = image.get(lookup.column, UNKNOWN)
    if isinstance(key, str) and schema.kind(lookup.table, lookup.column) in _NUMBERS:
        return UNKNOWN
    return key


def _with_parents(image: Image | None, lookups: Iterable[Lookup], found: Found, schema: Schema) -> Image | None:
    if image is None:
        return None
    virtual: dict[str, Value | Unknown] = {}
    for lookup in lookups:
        key = _key(image, lookup, schema)
        value = key if key is None or isinstance(key, Unknown) else found[lookup].get(key)
        if not isinstance(value, Unknown):
            virtual[lookup.name] = value
    return {**image, **virtual} if virtual else image
