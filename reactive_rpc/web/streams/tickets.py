"""Tickets: credentials for a URL, if a client cannot send headers (a browser's `EventSource`).

`POST /rpc/events/ticket`, with the caller's own credentials, gives a ticket of 256 random bits; `GET
/rpc/events?ticket=...` uses it up, at any worker, once, within `Settings.ticket_seconds`. The server then opens the
stream as if that request had carried the credentials itself. What is kept where, and which headers a ticket carries:
docs/internals/tickets.md.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from hashlib import blake2b
from urllib.parse import unquote_to_bytes

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.requests import Request
from starlette.types import Receive, Scope

from reactive_rpc.changes.ephemeral_store import EphemeralStore
from reactive_rpc.clock import IdSource
from reactive_rpc.errors import BadRequestError, UnauthorizedError
from reactive_rpc.protocol.events import Ticket
from reactive_rpc.subscriptions.limits import Limits
from reactive_rpc.web.routing.body import BodyLimits, read_json_body, replay
from reactive_rpc.web.routing.callers import caller_of, owner_of
from reactive_rpc.web.routing.dependencies import resolved
from reactive_rpc.web.routing.dispatcher import Endpoint
from reactive_rpc.web.routing.responses import Answer

__all__ = ["TicketEndpoint", "Tickets", "take_ticket"]

NONCE_BYTES = 12

RawHeaders = list[tuple[bytes, bytes]]


class Tickets:
    """Tickets in an ephemeral store. Used on one event loop.

    Args:
        keyed_headers: those that dependencies of handlers declare, which are carried too.
        endpoint_headers: returns those that dependencies of watched endpoints declare; likewise.
    """

    def __init__(
        self,
        store: EphemeralStore,
        *,
        ttl_seconds: float,
        keyed_headers: frozenset[str] = frozenset(),
        endpoint_headers: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._keyed_headers = keyed_headers
        self._endpoint_headers = endpoint_headers
        self._store = store
        self._ttl_seconds = ttl_seconds

    async def issue(self, headers: RawHeaders, dependencies: Iterable[Dependant], *, owner: str) -> Ticket:
        """Return a ticket for the credentials in `headers`.

        Args:
            owner: whom it counts for.

        Raises:
            PayloadTooLargeError: the credentials are more than one owner may have stored.
            ServiceUnavailableError: there is no room, or the ephemeral store cannot be reached.
        """
        ticket = secrets.token_urlsafe(32)
        declared = {name.encode("latin-1") for name in self._keyed_headers | self._endpoint_headers()}
        carried = _credentials(dependencies) | _declared(dependencies) | declared
        content = json.dumps([[name.decode(), value.decode("latin-1")] for name, value in headers if name in carried])
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + AESGCM(_key(ticket)).encrypt(nonce, content.encode(), None)
        await self._store.put("ticket", {_name(ticket): sealed}, ttl_seconds=self._ttl_seconds, owner=owner)
        return Ticket(ticket=ticket, expires_in=self._ttl_seconds)

    async def redeem(self, ticket: str, headers: RawHeaders, dependencies: Iterable[Dependant]) -> RawHeaders:
        """Use a ticket up and return the headers of a request that its owner would have made.

        Raises:
            UnauthorizedError: there is no such ticket, or not any more.
            ServiceUnavailableError: the ephemeral store cannot be reached.
        """
        name = _name(ticket)
        sealed = (await self._store.take("ticket", [name])).get(name, b"")
        try:
            content = AESGCM(_key(ticket)).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            raise UnauthorizedError(
                f"the ticket is unknown, expired or used: it lasts {self._ttl_seconds:g} s and opens one stream; ask "
                "for a new one (POST /rpc/events/ticket)"
            ) from None
        carried = [(name.encode(), value.encode("latin-1")) for name, value in json.loads(content)]
        credentials = _credentials(dependencies)
        kept = [(name, value) for name, value in headers if name not in credentials]
        present = {name for name, _ in kept}
        return kept + [(name, value) for name, value in carried if name not in present]


def take_ticket(scope: Scope) -> str | None:
    """Remove the ticket from a request's URL and return it; None if there is none.

    Raises:
        BadRequestError: there are several.
    """
    kept, found = [], []
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if unquote_to_bytes(name.replace(b"+", b" ")) == b"ticket":
            found.append(unquote_to_bytes(value).decode("latin-1"))
        else:
            kept.append(part)
    if not found:
        return None
    scope["query_string"] = b"&".join(kept)
    if len(found) > 1:
        raise BadRequestError(f"the URL names {len(found)} tickets: send one")
    return found[0]


class TicketEndpoint(Endpoint):
    """Gives a ticket to callers whom the context lets through."""

    def __init__(self, path: str, tickets: Tickets, limits: Limits, ids: IdSource, *, body: BodyLimits) -> None:
        super().__init__(path, ids)
        self._tickets = tickets
        self._limits = limits
        self._body = body

    async def answer(self, scope: Scope, receive: Receive, dependencies: list[Dependant]) -> Answer:
        """Issue a ticket for the credentials of this request; its body may be empty, but must be said to be JSON."""
        self.require_method(scope, ("POST",))
        body = await read_json_body(scope, receive, limits=self._body)
        async with resolved(Request(scope, replay(body)), dependencies) as found:
            caller = caller_of(scope, found.context)
            self._limits.count_stored(caller)
            ticket = await self._tickets.issue(scope["headers"], dependencies, owner=owner_of(caller))
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        return found.add_to(Answer(200, ticket.model_dump_json().encode(), headers))


def _name(ticket: str) -> str:
    return blake2b(ticket.encode(errors="replace"), digest_size=32, person=b"ticket name").hexdigest()


def _key(ticket: str) -> bytes:
    return blake2b(ticket.encode(errors="replace"), digest_size=32, person=b"ticket key").digest()


def _credentials(dependencies: Iterable[Dependant]) -> set[bytes]:
    """Return the names of the headers by which a caller proves who they are."""
    names = {b"authorization", b"cookie"}
    for dependant in _with_inner(dependencies):
        if isinstance(dependant.call, SecurityBase):
            scheme = dependant.call.model
            if isinstance(scheme, APIKey) and scheme.in_ is APIKeyIn.header:
                names.add(scheme.name.lower().encode())
    return names


def _declared(dependencies: Iterable[Dependant]) -> set[bytes]:
    """Return the names of the headers that dependencies declare as parameters, alone or as fields of a model."""
    names: set[str] = set()
    for dependant in _with_inner(dependencies):
        for parameter in dependant.header_params:
            annotation = parameter.field_info.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                names.update(field.alias or name for name, field in annotation.model_fields.items())
            else:
                names.add(parameter.alias)
    return {spelled.lower().encode() for name in names for spelled in (name, name.replace("_", "-"))}


def _with_inner(dependencies: Iterable[Dependant]) -> Iterable[Dependant]:
    for dependant in dependencies:
        yield dependant
        yield from _with_inner(dependant.dependencies)
