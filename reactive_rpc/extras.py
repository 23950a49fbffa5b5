"""What is installed with an extra only (`pip install 'reactive-rpc[cli]'`), and the error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reactive_rpc.errors import MissingExtraError

__all__ = ["needs"]


@contextmanager
def needs(extra: str, part: str) -> Iterator[None]:
    """Import in this block what only `extra` installs.

    >>> with needs("cli", "checking"):
    ...     import nothing_of_this_name
    Traceback (most recent call last):
    reactive_rpc.errors.MissingExtraError: checking needs nothing_of_this_name: pip install 'reactive-rpc[cli]'

    Args:
        extra: as pip takes it, several with commas in between.
        part: of this package; the message begins with it.

    Raises:
        MissingExtraError: a module is not installed; the message says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        name = (exc.name or "").partition(".")[0]
        if name in ("", "reactive_rpc"):
            raise
        raise MissingExtraError(f"{part} needs {name}: pip install 'reactive-rpc[{extra}]'", name=name) from exc
