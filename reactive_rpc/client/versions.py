"""Versions: which of two results is the later.

A server says of a result which version of its log it reflects, exactly (`reactive-version`). Versions of one epoch are
places in one history and compare by their number. Versions of two epochs do not compare, and none compares with any.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Version", "is_older", "parse_version", "passes"]

_TEXT: Final = re.compile(r"([^:]{1,100}):([0-9]{1,20})(?:[:@].*)?")


class Version(NamedTuple):
    """A place in the history of a database."""

    epoch: str
    number: int


def parse_version(text: str | None) -> Version | None:
    """Return the version that `text` spells, a cursor's too; None if it spells none, as nobody could compare it.

    >>> parse_version("Xk3:17"), parse_version("unknown"), parse_version(None)
    (Version(epoch='Xk3', number=17), None, None)
    """
    found = None if text is None else _TEXT.fullmatch(text)
    return None if found is None else Version(found[1], int(found[2]))


def passes(one: Version | None, other: Version | None) -> bool:
    """Tell whether a result at `one` surely shows all that `other` shows."""
    return one is not None and other is not None and one.epoch == other.epoch and one.number >= other.number


def is_older(one: Version | None, other: Version | None) -> bool:
    """Tell whether a result at `one` surely shows less than one at `other`."""
    return one is not None and other is not None and one.epoch == other.epoch and one.number < other.number
