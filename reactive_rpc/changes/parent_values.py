"""Virtual columns for the images of a batch: which parents to look up, and what to make of what was found.

The logs read the parents, each in its own dialect, in the snapshot that shows the batch (`dependencies/lookup.py`
argues why it must be that one). What is here is the same for all of them.

**Left out is unknown.** An image that lacks a virtual column matches every condition on it. So everything doubtful is
left out: a key that was not captured, a column without an exact kind, kinds that differ (the join's comparison would
then convert), text in a column of numbers (compared by a collation that images do not know), a value that is itself
unknown, a row whose parents are too many, and a look-up with so many keys or parents that the table is as good as read
whole.

**None is known.** A NULL key has no parent, and neither has one that the snapshot does not show: nothing joins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from reactive_rpc.changes.log import WantedLookups
from reactive_rpc.dependencies.change import UNKNOWN, Change, Image, Known, ParentValues, Unknown, Value
from reactive_rpc.dependencies.lookup import Lookup
from reactive_rpc.dependencies.schema import ColumnKind, Schema

__all__ = [
    "Found",
    "Parents",
    "by_key",
    "enriched",
    "followed",
    "keys_of",
    "keys_to_look_up",
    "lookups_of",
    "most_parents",
]

MAX_KEYS = 1_000
MAX_PARENTS = 2_000
"""So many parents are read for one look-up."""
MAX_VALUES = 256
"""So many of them for one key."""

Parents = Mapping[Known, ParentValues | Unknown]
"""`{key: the values of the parents}`; keys that were asked for and are missing have none."""
Found = Mapping[Lookup, Parents]

_NO_PARENTS: ParentValues = frozenset()

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


def most_parents(keys: Collection[Known]) -> int:
    """Return how many parents of these keys are read; a log asks for one more, to see that there are too many."""
    return min(MAX_PARENTS, MAX_VALUES * len(keys))


def by_key(
    pairs: Iterable[tuple[Value | Unknown, Value | Unknown]], at_most: int
) -> dict[Known, ParentValues | Unknown] | None:
    """Return `{key: values}` of the parents found; None if they are more than `at_most`.

    >>> by_key([(1, "a"), (2, None), (2, UNKNOWN)], at_most=3)
    {1: frozenset({'a'}), 2: UNKNOWN}
    """
    values: dict[Known, set[Value | Unknown]] = {}
    for number, (key, value) in enumerate(pairs):
        if number == at_most:
            return None
        if key is not None and not isinstance(key, Unknown):
            values.setdefault(key, set()).add(value)
    return {key: _bounded(found) for key, found in values.items()}


def followed(first: Parents, then: Parents) -> dict[Known, ParentValues | Unknown]:
    """Return `{key: values}` of parents' parents: `first` leads to the keys of `then`, in one snapshot.

    >>> then = {"a": frozenset({7}), "b": frozenset({8, 9})}
    >>> followed({1: frozenset({"a", "b"}), 2: frozenset({None}), 3: UNKNOWN, 4: frozenset({"c"})}, then)
    {1: frozenset({8, 9, 7}), 2: frozenset(), 3: UNKNOWN, 4: frozenset()}
    """
    return {key: steps if isinstance(steps, Unknown) else _reached(steps, then) for key, steps in first.items()}


def _reached(steps: ParentValues, then: Parents) -> ParentValues | Unknown:
    found: set[Value | Unknown] = set()
    for step in steps - {None}:
        values = then.get(step, _NO_PARENTS)  # type: ignore[arg-type]  # None was taken out
        found.update({values} if isinstance(values, Unknown) else values)
    return _bounded(found)


def _bounded(values: Collection[Value | Unknown]) -> ParentValues | Unknown:
    # INVARIANT (all or none): a value that is left out could be the one that a condition asks for.
    known = frozenset(value for value in values if not isinstance(value, Unknown))
    return known if len(known) == len(values) <= MAX_VALUES else UNKNOWN


def keys_of(found: Parents) -> frozenset[Known] | None:
    """Return the values found, as the keys of a further look-up; None if they are too many."""
    keys = frozenset(
        value for values in found.values() if not isinstance(values, Unknown) for value in values if value is not None
    )
    return keys if len(keys) <= MAX_KEYS else None


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
    if isinstance(key, frozenset):
        return UNKNOWN  # no column of the table's own
    if isinstance(key, str) and schema.kind(lookup.table, lookup.column) in _NUMBERS:
        return UNKNOWN
    return key


def _with_parents(image: Image | None, lookups: Iterable[Lookup], found: Found, schema: Schema) -> Image | None:
    if image is None:
        return None
    virtual: dict[str, ParentValues] = {}
    for lookup in lookups:
        key = _key(image, lookup, schema)
        if isinstance(key, Unknown):
            continue
        values = _NO_PARENTS if key is None else found[lookup].get(key, _NO_PARENTS)
        if not isinstance(values, Unknown):
            virtual[lookup.name] = values
    return {**image, **virtual} if virtual else image
