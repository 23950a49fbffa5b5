"""The context: on whose behalf a call is made, and what a handler may see of it.

An application's own class may stand in for `Context`: a frozen dataclass, a named tuple or a pydantic model. The cache
keeps the results of a handler that takes `ctx` apart by the whole context, unless its `scope` says otherwise.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NoReturn

from reactive_rpc.errors import DefinitionError

__all__ = ["Context", "TenantView"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Who calls, and for which tenant; None is nobody. Subclass it for more.

    >>> Context(identity="user-1", tenant="org-1").tenant
    'org-1'
    """

    identity: str | None = None
    tenant: str | None = None


class TenantView:
    """What a handler with `scope="tenant"` sees of a context: the tenant, and nothing that tells two callers apart.

    Its result is shared by the whole tenant; reading anything else of the context would hand one user's view to
    another, so it fails loudly instead.
    """

    __slots__ = ("_path", "tenant")

    def __init__(self, tenant: Any, path: str) -> None:
        self.tenant = tenant
        self._path = path

    def __deepcopy__(self, memo: dict[int, Any]) -> TenantView:
        return TenantView(deepcopy(self.tenant, memo), self._path)

    def __getattr__(self, name: str) -> NoReturn:
        raise DefinitionError(
            f"{self._path} has scope='tenant' and reads ctx.{name}: its result is shared by the whole tenant. "
            "Leave scope out to keep results apart by caller, or give a function as scope that returns what is needed"
        )
