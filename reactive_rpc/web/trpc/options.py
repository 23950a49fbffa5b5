"""The options of one mount of tRPC's wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reactive_rpc.errors import DefinitionError

__all__ = ["TRPCOptions", "TransformerName"]

TransformerName = Literal["superjson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TRPCOptions:
    """How one mount answers.

    Attributes:
        prefix: of its paths.
        transformer: how values are spelled: as JSON spells them, or as superjson does.
        allow_batching: whether a request may hold several calls.
        max_batch_size: how many, at most.
        allow_method_override: whether queries and subscriptions may be sent by POST.
        connection_headers: the headers that an EventSource, which can send none, may give by `connectionParams`; they
            travel in the URL, which servers and proxies log.

    Raises:
        DefinitionError: one of them is none that could be meant.
    """

    prefix: str
    transformer: TransformerName | None = None
    allow_batching: bool = True
    max_batch_size: int = 100
    allow_method_override: bool = False
    connection_headers: frozenset[str] = frozenset({"authorization"})

    def __post_init__(self) -> None:
        if not self.prefix.startswith("/") or self.prefix.endswith("/") or "{" in self.prefix:
            raise DefinitionError(
                f"the prefix of tRPC is {self.prefix!r}: give a plain path such as '/trpc', below "
                "which nothing else stands"
            )
        if any(name != name.lower() for name in self.connection_headers):
            raise DefinitionError(f"connection_headers={set(self.connection_headers)}: spell headers in lower case")
        if self.transformer not in (None, "superjson"):
            raise DefinitionError(f"transformer={self.transformer!r}: there is 'superjson', or None")
        if self.max_batch_size < 1:
            raise DefinitionError(f"max_batch_size={self.max_batch_size}: a batch holds one call at least")
