"""A request of tRPC's HTTP wire: which procedures it calls, how it spells their inputs, and how it wants the answer.

Source: tRPC v11, `packages/server/src/unstable-core-do-not-import/http/contentType.ts` and `resolveResponse.ts`. The
order of the checks is theirs, so that a request with several faults is told the same one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from reactive_rpc.errors import BadRequestError, MethodNotSupportedError, UnsupportedMediaTypeError
from reactive_rpc.web.routing.dispatcher import MAX_QUERY_STRING_BYTES
from reactive_rpc.web.routing.file_body import OCTETS
from reactive_rpc.web.trpc.envelopes import URITooLongError

__all__ = ["TRPCRequest", "header_of", "media_type_of", "parameters_in", "read_request"]

JSONL: Final = "application/jsonl"
UPLOADS: Final = ("multipart/form-data", OCTETS)

MAX_NAME: Final = 200
"""So much of an unknown path is repeated in a message."""

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class TRPCRequest:
    """One request.

    Attributes:
        paths: of the procedures that it calls.
        is_batch: whether it says that they may be several.
        is_streamed: whether each answer is to be sent as soon as it is there.
        is_upload: whether its body is a form with files, or one file.
        parameters: of its URL, the first of each name.
    """

    paths: tuple[str, ...]
    is_batch: bool
    is_streamed: bool
    is_upload: bool
    parameters: Mapping[str, str]


def read_request(scope: Scope, name: str, *, max_batch_size: int) -> TRPCRequest:
    """Return a request, as far as its head says it.

    Args:
        name: the path below the prefix.
        max_batch_size: how many calls it may hold.

    Raises:
        BadRequestError: its path is spelled wrongly, or it holds too many calls.
        MethodNotSupportedError: a form or a file was sent by another method than POST.
        UnsupportedMediaTypeError: its body is neither JSON nor such.
        URITooLongError: its URL is longer than is read.
    """
    _require_spelled(scope)
    parameters = parameters_in(scope["query_string"])
    is_upload = _require_media_type(scope)
    is_batch = parameters.get("batch") == "1" and not is_upload
    paths = tuple(name.split(",")) if is_batch else (name,)
    if len(paths) > max_batch_size:
        raise BadRequestError(
            f"Batch call exceeds maximum size: it holds {len(paths)} calls, and may hold {max_batch_size} (maxItems)"
        )
    return TRPCRequest(paths, is_batch, not is_upload and _wants_lines(scope), is_upload, parameters)


def parameters_in(query_string: bytes) -> dict[str, str]:
    """Return the parameters of a URL as `URLSearchParams` reads them: nothing is malformed, and the first one counts.

    >>> sorted(parameters_in(b"input=%7B%22a%22:1%7D&batch=1&batch=2&x=%zz").items())
    [('batch', '1'), ('input', '{"a":1}'), ('x', '%zz')]

    Raises:
        URITooLongError: they are longer than is read.
    """
    if not query_string:
        return {}
    if len(query_string) > MAX_QUERY_STRING_BYTES:
        raise URITooLongError(
            f"the query string is over {MAX_QUERY_STRING_BYTES} bytes: let the link send fewer calls at once "
            "(maxURLLength), or send queries by POST (methodOverride, and allow_method_override=True on the server)"
        )
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace")
    return dict(reversed(pairs))


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, by its name in lower case; None if there is none."""
    for found, value in scope["headers"]:
        if found == name:
            decoded: str = value.decode("latin-1")
            return decoded
    return None


def media_type_of(scope: Scope) -> str:
    """Return the type of a request's body in lower case, without parameters; empty if it is not said."""
    return (header_of(scope, b"content-type") or "").partition(";")[0].strip().lower()


def _require_spelled(scope: Scope) -> None:
    raw = (scope.get("raw_path") or b"").partition(b"?")[0]
    if len(raw) > MAX_QUERY_STRING_BYTES:
        raise URITooLongError(f"the path is over {MAX_QUERY_STRING_BYTES} bytes: let the link send fewer calls at once")
    if _BAD_ESCAPE.search(raw):
        raise BadRequestError("Invalid URL-encoding in path")


def _require_media_type(scope: Scope) -> bool:
    """Let only a body through that can be read; return whether it holds files.

    Asking for `application/json`, also of an empty body, keeps pages of other sites from calling mutations with the
    visitor's cookies, see `read_json_body`; files are asked for their origin when they are read.
    """
    media_type = media_type_of(scope)
    if media_type == "application/json":
        return False
    if media_type in UPLOADS:
        if scope["method"] != "POST":
            raise MethodNotSupportedError(
                f"Only POST requests are supported for {media_type} requests", headers={"allow": "POST"}
            )
        return True
    if scope["method"] == "GET":
        return False
    raise UnsupportedMediaTypeError(
        f"Unsupported content-type {media_type[:MAX_NAME]!r}" if media_type else "Missing content-type header"
    )


def _wants_lines(scope: Scope) -> bool:
    asked = header_of(scope, b"trpc-accept")
    if asked is not None:
        return asked == JSONL
    return any(part.strip() == JSONL for part in (header_of(scope, b"accept") or "").split(","))
