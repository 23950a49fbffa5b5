"""The errors of records that are definitions' own."""

from __future__ import annotations

from reactive_rpc.errors import DefinitionError

__all__ = ["RuleError"]


class RuleError(DefinitionError):
    """Say which part of a rule would not mean the same everywhere, and how to write it.

    >>> from reactive_rpc.records.rules import record
    >>> record.owner_id == None
    Traceback (most recent call last):
    reactive_rpc.records.errors.RuleError: record.owner_id == None is never true in SQL: write record.owner_id.is_null()
    """
