"""How decimal numbers are ordered, alike for servers, clients and PostgreSQL."""

from __future__ import annotations

from decimal import Decimal

__all__ = ["decimal_key"]


def decimal_key(value: Decimal) -> tuple[int, Decimal]:
    """Return a key that orders as PostgreSQL does, to which NaN is equal to itself and greater than all numbers.

    >>> decimal_key(Decimal("NaN")) == decimal_key(Decimal("NaN")) > decimal_key(Decimal("Infinity"))
    True
    """
    if value.is_nan():
        return (3, Decimal(0))
    if value.is_infinite():
        return (2 if value > 0 else 0, Decimal(0))
    return (1, value)
