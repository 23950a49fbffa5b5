"""Transformers: how a mount's values are spelled, as its clients and it have agreed. None, or superjson.

They apply to each input, to each result's data, to each error, to each whole line of a batch that is streamed, and to
the data of each event; not to `connectionParams`, nor to the events `connected`, `ping` and `return`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from reactive_rpc.web.trpc.superjson import Annotator, Tree, annotator_of, plain_input, prefixed, wrapped

__all__ = ["PLAIN", "SuperJSON", "Transformer"]


class Transformer:
    """Leaves values as they are."""

    is_plain = True

    def read(self, text: bytes) -> bytes:
        """Return an input as our JSON.

        Raises:
            BadRequestError: it is none that the client's transformer has written.
        """
        return text

    def value(self, data: bytes, path: str | None = None) -> bytes:
        """Return a value as the client's transformer reads it.

        Args:
            path: of the procedure that it is a result of; None if it is no result.
        """
        return data

    def enclosed(self, before: bytes, data: bytes, after: bytes, *, path: str | None = None, at: str = "") -> bytes:
        """Return JSON that holds a value.

        Args:
            before: the JSON up to the value.
            after: the JSON behind it.
            path: as for `value`.
            at: the place of the value in it, as superjson spells paths.
        """
        return before + data + after

    def line(self, before: bytes, data: bytes, after: bytes, *, path: str | None = None, at: str = "") -> bytes:
        """Return a line of a batch that is streamed; the arguments are those of `enclosed`."""
        return self.enclosed(before, data, after, path=path, at=at) + b"\n"


PLAIN = Transformer()


class SuperJSON(Transformer):
    """Writes and reads the format of superjson.

    Args:
        schema_of: returns the JSON schema, with our marks, of the results of the procedure at a path; None if there is
            none.
    """

    is_plain = False

    def __init__(self, schema_of: Callable[[str], Mapping[str, Any] | None]) -> None:
        self._schema_of = schema_of
        self._annotators: dict[str, Annotator | None] = {}

    def read(self, text: bytes) -> bytes:
        """Return an input as our JSON."""
        return plain_input(text)

    def value(self, data: bytes, path: str | None = None) -> bytes:
        """Return a value with its annotations."""
        return wrapped(*self._annotated(data, path))

    def enclosed(self, before: bytes, data: bytes, after: bytes, *, path: str | None = None, at: str = "") -> bytes:
        """Return JSON with the annotations of its value."""
        value, tree = self._annotated(data, path)
        return wrapped(before + value + after, prefixed(tree, at))

    def _annotated(self, data: bytes, path: str | None) -> tuple[bytes, Tree]:
        annotator = None if path is None else self._annotator(path)
        if annotator is None:
            return data, None
        value, tree = annotator(from_json(data))
        return to_json(value), tree

    def _annotator(self, path: str) -> Annotator | None:
        if path not in self._annotators:
            schema = self._schema_of(path)
            self._annotators[path] = None if schema is None else annotator_of(schema)
        return self._annotators[path]
