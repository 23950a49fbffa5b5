"""Who a request comes from, as far as the context tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.types import Scope

from reactive_rpc.procedures.exchange import Exchange
from reactive_rpc.procedures.steps import AskedContext, CallOrigin, CallTransport
from reactive_rpc.subscriptions.limits import CallerKey

__all__ = ["caller_of", "identity_of", "origin_of", "owner_of"]


class RequestHeaders(Mapping[str, str]):
    """The headers of a request by their names in lower case, decoded when somebody asks; of several, the last."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1")
        for found, value in reversed(self._scope["headers"]):
            if found == wanted:
                decoded: str = value.decode("latin-1")
                return decoded
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self._scope["headers"]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def origin_of(
    scope: Scope,
    transport: CallTransport = "http",
    *,
    exchange: Exchange | None = None,
    asked: AskedContext | None = None,
) -> CallOrigin:
    """Return where a request comes from, as steps, wrappers and dependencies see it; `asked` as `CallOrigin` says."""
    client = scope.get("client")
    return CallOrigin(
        transport,
        headers=RequestHeaders(scope),
        client=client[0] if client else None,
        raw_headers=scope["headers"],
        exchange=exchange,
        asked=asked,
        overrides=getattr(scope.get("app"), "dependency_overrides", {}),
    )


def identity_of(ctx: object) -> str | None:
    """Return the identity that a context names; None where it names nobody.

    >>> from reactive_rpc import Login
    >>> identity_of(Login(identity="user-1")), identity_of(None)
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
