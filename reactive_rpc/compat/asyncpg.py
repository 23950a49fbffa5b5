"""What asyncpg does by itself, and has no public name for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncpg import Connection  # type: ignore[import-untyped]  # it ships no types

__all__ = ["TypeLookups"]


class TypeLookups(Connection):  # type: ignore[misc]  # the same
    """A connection of asyncpg's that tells before it looks types up in the catalogs, which takes locks on them."""

    async def look_up_types(self, look_up: Callable[[], Any]) -> Any:
        """Return what awaiting `look_up()` gives; called for every look-up."""
        return await look_up()

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # asyncpg's own method
        look_up = super()._introspect_types
        return await self.look_up_types(lambda: look_up(typeoids, timeout))
