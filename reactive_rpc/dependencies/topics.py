"""Topics: names of things that change and are no tables, an HTTP service for one.

Somebody announces such a change, and it goes the way of any write.

In a log a topic is the table `topic:<name>`, and each key that was named a row of it, inserted with `{"key": key}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import blake2b
from typing import Final

from reactive_rpc.dependencies.change import Change
from reactive_rpc.dependencies.read_set import Constraint, Equals
from reactive_rpc.errors import DefinitionError

__all__ = ["KEY", "MAX_KEYS", "PREFIX", "changes_of", "constraint_on", "stored_key", "table_of"]

PREFIX: Final = "topic:"
KEY: Final = "key"
"""The one column of a topic."""

MAX_KEYS: Final = 1_000
"""If more are named at once, the whole topic counts."""

_MAX_BYTES: Final = 48
_NAME: Final = re.compile(r"\w[\w.:/-]{0,63}", re.ASCII)


def table_of(name: str) -> str:
    """Return the name of a topic in a log.

    Raises:
        DefinitionError: the name cannot be one.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DefinitionError(
            f"topic({name!r}): a topic's name is 1 to 64 letters, digits and . : / _ -, and begins with no sign"
        )
    return PREFIX + name


def stored_key(key: object) -> str:
    """Return the text of a key in the log: the key itself, or a hash of one that is long or holds NUL.

    >>> stored_key("berlin"), len(stored_key("x" * 100))
    ('berlin', 42)

    Raises:
        TypeError: it is no text, or none that can be encoded.
    """
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is no key of a topic: a key is a str")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as exc:
        raise TypeError(f"{key!r} is no key of a topic: it holds half a surrogate pair") from exc
    if len(encoded) <= _MAX_BYTES and b"\0" not in encoded:
        return str.__str__(key)
    return "#:" + blake2b(encoded, digest_size=20).hexdigest()


def constraint_on(table: str, key: str | None) -> Constraint:
    """Return the dependency on a topic, or on one stored key of it."""
    return Constraint(table, None, {} if key is None else {KEY: Equals(frozenset({key}))})


def changes_of(table: str, keys: Collection[str] | None) -> tuple[Change, ...]:
    """Return the changes of an announcement: of each stored key, or, if they are None, of the whole topic."""
    if keys is None:
        return (Change(table=table, operation="bulk"),)
    return tuple(
        Change(table=table, operation="insert", after={KEY: key}, keys=frozenset({key})) for key in dict.fromkeys(keys)
    )
