"""Topics, as an application names them: `dependencies=[weather]`, or `[weather.of(lambda input: input.city)]`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reactive_rpc.dependencies.read_set import Constraint
from reactive_rpc.dependencies.topics import MAX_KEYS, constraint_on, stored_key, table_of
from reactive_rpc.errors import DefinitionError, InternalServerError

__all__ = ["KeyedTopic", "Topic", "stored_keys", "topic"]


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that changes and is no table; made by `topic`.

    >>> topic("weather").name
    'weather'

    Attributes:
        name: the same in every process.
        table: what it is called among the tables of an event.
    """

    name: str
    table: str

    def of(self, key: Callable[[Any], str]) -> KeyedTopic:
        """Depend on one key of it, which `key` makes of the input.

        Raises:
            DefinitionError: `key` is no function.
        """
        if not callable(key):
            raise DefinitionError(f"topic({self.name!r}).of({key!r}): give a function: .of(lambda input: input.city)")
        return KeyedTopic(self, key)


@dataclass(frozen=True, slots=True)
class KeyedTopic:
    """One key of a topic for each input."""

    topic: Topic
    key: Callable[[Any], str]

    def constraint(self, path: str, input: object) -> Constraint:
        """Return what a call with `input` depends on.

        Raises:
            InternalServerError: the function fails, or makes no text of the input.
        """
        try:
            return constraint_on(self.topic.table, stored_key(self.key(input)))
        except Exception as exc:  # the function is the application's
            raise InternalServerError(
                f"{path}: topic({self.topic.name!r}).of(...) makes no key of the input: {exc}", path=path
            ) from exc


def topic(name: str) -> Topic:
    """Name something that changes and is no table, for `dependencies` and `rpc.invalidate`.

    >>> weather = topic("weather")
    >>> weather.table
    'topic:weather'

    Raises:
        DefinitionError: the name cannot be one.
    """
    return Topic(name, table_of(name))


def stored_keys(topic: object, keys: Iterable[str] | None) -> tuple[str, list[str] | None]:
    """Return the table of a topic and what is announced of it; None for all keys.

    Raises:
        DefinitionError: it is no topic, or a key is no text.
    """
    if not isinstance(topic, Topic):
        raise DefinitionError(
            f"{topic!r} is no topic: make one with topic('weather'). Writes to tables need no call: they are seen"
        )
    if keys is None:
        return topic.table, None
    if isinstance(keys, str):
        raise DefinitionError(f"keys={keys!r} is no list: write keys=[{keys!r}]")
    try:
        found = [stored_key(key) for key in keys]
    except TypeError as exc:
        raise DefinitionError(f"invalidate({topic.name!r}): {exc}") from exc
    return topic.table, found if len(found) <= MAX_KEYS else None
