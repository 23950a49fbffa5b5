"""What a key is stored under: keys come from clients, and may be long or hold what a database refuses in a text."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["by_name", "name_of"]


def name_of(key: str) -> str:
    """Return 48 hexadecimal characters that nobody can find another key for.

    >>> len(name_of("a" * 1000)), name_of("a") == name_of("b")
    (48, False)
    """
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


def by_name(keys: Iterable[str]) -> dict[str, str]:
    """Return `{name: key}`."""
    return {name_of(key): key for key in keys}
