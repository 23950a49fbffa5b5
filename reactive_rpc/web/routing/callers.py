"""Who a request comes from, as far as the context tells."""

from __future__ import annotations

from starlette.types import Scope

from reactive_rpc.subscriptions.limits import CallerKey

__all__ = ["caller_of", "identity_of", "owner_of"]


def identity_of(ctx: object) -> str | None:
    """Return the identity that a context names; None where it names nobody.

    >>> from reactive_rpc.procedures.context import Context
    >>> identity_of(Context(identity="user-1")), identity_of(None)
    ('user-1', None)
    """
    identity = getattr(ctx, "identity", None)
    return None if identity is None else str(identity)


def caller_of(scope: Scope, ctx: object) -> CallerKey:
    """Return whom limits count: the identity, or else the address that the connection came from.

    Behind a proxy that is the proxy's, unless the server is told to believe it (`uvicorn --proxy-headers`).
    """
    identity = identity_of(ctx)
    if identity is not None:
        return "identity", identity
    client = scope.get("client")
    return "address", client[0] if client else "unknown"


def owner_of(caller: CallerKey) -> str:
    """Return for whom an ephemeral store keeps what a caller stores.

    >>> owner_of(("identity", "user-1"))
    'identity:user-1'
    """
    return ":".join(caller)
