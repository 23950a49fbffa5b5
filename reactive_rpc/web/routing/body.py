"""Reading a request's body: JSON only, bounded in bytes and in time, whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from reactive_rpc.errors import (
    BadRequestError,
    ParseError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnsupportedMediaTypeError,
)
from reactive_rpc.protocol.faults import faults_of, places_of

__all__ = ["BodyLimits", "UploadLimits", "decode_json_body", "read_json_body", "replay"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much one body with files may hold.

    Attributes:
        max_bytes: the largest body, files and all.
        max_files: how many files.
        seconds: how long it may take to arrive.
    """

    max_bytes: int
    max_files: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much a client may send.

    Attributes:
        max_bytes: the largest body of JSON, also as the part of a body with files.
        seconds: how long it may take to arrive; a body is held before anybody knows whose it is.
        uploads: of bodies with files.
    """

    max_bytes: int
    seconds: float
    uploads: UploadLimits


async def read_json_body(scope: Scope, receive: Receive, *, limits: BodyLimits) -> bytes:
    """Return the whole body.

    Asking for `application/json`, also of an empty body, is what keeps a page of another site from calling a mutation
    with the visitor's cookies: a browser asks our leave (CORS) before it sends such a request there.

    Raises:
        UnsupportedMediaTypeError: it is not declared to be JSON.
        PayloadTooLargeError: it is too large, declared or counted.
        RequestTimeoutError: it has not arrived in time.
        ClientDisconnect: the client went away before the end.
    """
    headers = dict(scope["headers"])
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        found = f"the content type is {media_type.decode('latin-1')!r}" if media_type else "there is no content type"
        raise UnsupportedMediaTypeError(f"{found}: send JSON as application/json")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.max_bytes:
        raise _too_large(limits.max_bytes)
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read(receive, limits.max_bytes)
    except TimeoutError:
        raise RequestTimeoutError(
            f"the body has not arrived within {limits.seconds:g} s (body_seconds): send it faster, or less of it",
            headers={"connection": "close"},
        ) from None


def decode_json_body(model: type[M], body: bytes) -> M:
    """Return what a body spells.

    Raises:
        ParseError: it is no JSON.
        BadRequestError: it does not fit `model`; `details` lists each fault.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        faults = faults_of(exc.errors(include_url=False))
        if faults[0]["type"] == "json_invalid":
            raise ParseError(f"the body is no JSON: {faults[0]['message']}") from exc
        places = places_of(faults, whole="the whole")
        raise BadRequestError(f"the body is no {model.__name__}: {places}", details=faults) from exc


def replay(body: bytes) -> Receive:
    """Return a `receive` that gives `body` again: a dependency may want to read it (to check a signature)."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(max_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"the body is over the limit of {max_bytes} bytes", headers={"connection": "close"})
