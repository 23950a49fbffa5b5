"""Every error of the project, in one tree; docs/reference/errors.md draws all of it.

    ReactiveRPCError
    ├── DefinitionError        a function, a relation or a router is declared wrongly (raised at start)
    │   └── RuleError          a rule is wrong, or cannot be decided alike everywhere: `records/errors.py`
    ├── CaptureError           writes cannot be captured on this database (raised at start)
    ├── MissingExtraError      a part was asked for that needs an extra, which is not installed
    ├── ConnectionFailedError  the client could not reach the server
    ├── WireError              the other side sent a message that this protocol does not know
    └── RPCError               the answer to a call that failed: a stable `code`, a message, details
        ├── one class for each code of `protocol/codes.py`: NotFoundError has NOT_FOUND, and so on
        └── DeclaredError      base of an application's own, which have typed fields: `procedures/declared_errors.py`

A handler raises an `RPCError`; the generated client raises the same class with the same code, message and details.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from contextlib import suppress
from copy import deepcopy
from typing import Any, ClassVar

__all__ = [
    "BadRequestError",
    "CaptureError",
    "ConflictError",
    "ConnectionFailedError",
    "DefinitionError",
    "ForbiddenError",
    "InternalServerError",
    "MethodNotSupportedError",
    "MissingExtraError",
    "NotFoundError",
    "ParseError",
    "PayloadTooLargeError",
    "PreconditionFailedError",
    "RPCError",
    "ReactiveRPCError",
    "RequestTimeoutError",
    "ServiceUnavailableError",
    "TooManyRequestsError",
    "UnauthorizedError",
    "UnprocessableContentError",
    "UnsupportedMediaTypeError",
    "WireError",
    "reason_of",
    "rpc_error",
]


class ReactiveRPCError(Exception):
    """Base of every error that this project raises.

    >>> try:
    ...     raise ConnectionFailedError("no answer from http://localhost:8000")
    ... except ReactiveRPCError as error:
    ...     error.code
    'CONNECTION_FAILED'
    """

    code: str = "REACTIVE_RPC_ERROR"


class DefinitionError(ReactiveRPCError):
    """Say which function or relation is declared wrongly, what is wrong, and the way out.

    >>> from reactive_rpc import Cache
    >>> Cache(ttl_seconds=0)
    Traceback (most recent call last):
    reactive_rpc.errors.DefinitionError: Cache(ttl_seconds=0): give a number of seconds, at least 1
    """

    code = "DEFINITION_ERROR"


class CaptureError(ReactiveRPCError):
    """Say why the writes of a database cannot be captured, and what to do about it.

    >>> print(CaptureError("team.db is not in WAL mode. Run:", statements=["PRAGMA journal_mode=WAL"]))
    team.db is not in WAL mode. Run:
    PRAGMA journal_mode=WAL;

    Args:
        summary: what is wrong, in a sentence or two.
        statements: the SQL that mends it; it stands at the end of the message.

    Attributes:
        summary: as given.
        statements: as given.
    """

    code = "CAPTURE_ERROR"

    def __init__(self, summary: str, *, statements: Iterable[str] = ()) -> None:
        self.summary = summary
        self.statements = tuple(statements)
        super().__init__("\n".join((summary, *(f"{statement};" for statement in self.statements))))


class MissingExtraError(ReactiveRPCError, ImportError):
    """Tell that a part of this package needs what only one of its extras installs; the message says how to get it."""

    code = "MISSING_EXTRA"


class ConnectionFailedError(ReactiveRPCError):
    """Tell that no answer came: refused, cut, or timed out."""

    code = "CONNECTION_FAILED"


class WireError(ReactiveRPCError):
    """Tell that the other side sent what this protocol does not know."""

    code = "WIRE_ERROR"


class RPCError(ReactiveRPCError):
    """What a call is answered with.

    >>> print(RPCError("no room is free", code="CONFLICT", path="rooms.book"))
    rooms.book: no room is free [CONFLICT]

    Args:
        message: one sentence for the caller; never the internals of the server.
        code: a key of `protocol.codes.CODES`; the class's own where left out.
        details: anything JSON can hold, for programs to read.
        path: the procedure, for example `agents.get_all`.
        request_id: the server's id of the failed request, to find it in the logs.
        headers: further HTTP headers of the answer, for example `www-authenticate`.

    Attributes:
        type: the name of a `DeclaredError`, also where its class is not known; None of any other error.
    """

    code = "INTERNAL_SERVER_ERROR"
    type: str | None = None
    by_code: ClassVar[dict[str, builtins.type[RPCError]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the classes of this module under their codes: `rpc_error` makes them of what the wire tells."""
        if cls.__module__ == __name__:
            RPCError.by_code[cls.code] = cls

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        details: Any = None,
        path: str | None = None,
        request_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.code = code or type(self).code
        self.message = message or self.code.replace("_", " ").lower()
        self.details = details
        self.path = path
        self.request_id = request_id
        self.headers = headers or {}
        super().__init__(self.message)

    def detached(self, *, path: str | None = None) -> RPCError:
        """Return a copy without the traceback, whose frames would keep what they hold alive.

        Args:
            path: the procedure, where the error does not name one itself.
        """
        copy = type(self).__new__(type(self), *self.args)  # an application's own class may have its own constructor
        copy.__dict__.update(self.__dict__)
        copy.path = self.path or path
        with suppress(Exception):  # what cannot be copied is shared
            copy.details = deepcopy(self.details)
        return copy

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message} [{self.code}]"


class ParseError(RPCError):
    """The request is no JSON."""

    code = "PARSE_ERROR"


class BadRequestError(RPCError):
    """The input does not fit the procedure; `details` lists each fault as `{"loc", "message", "type"}`.

    >>> raise BadRequestError("room: Field required")
    Traceback (most recent call last):
    reactive_rpc.errors.BadRequestError: room: Field required [BAD_REQUEST]
    """

    code = "BAD_REQUEST"


class UnauthorizedError(RPCError):
    """Nobody is logged in, or the token has expired.

    >>> raise UnauthorizedError("log in")
    Traceback (most recent call last):
    reactive_rpc.errors.UnauthorizedError: log in [UNAUTHORIZED]
    """

    code = "UNAUTHORIZED"


class ForbiddenError(RPCError):
    """The caller is known and may not do this.

    >>> raise ForbiddenError("only its author may change a note")
    Traceback (most recent call last):
    reactive_rpc.errors.ForbiddenError: only its author may change a note [FORBIDDEN]
    """

    code = "FORBIDDEN"


class NotFoundError(RPCError):
    """No such procedure, or no such record.

    >>> raise NotFoundError("no note 7")
    Traceback (most recent call last):
    reactive_rpc.errors.NotFoundError: no note 7 [NOT_FOUND]
    """

    code = "NOT_FOUND"


class MethodNotSupportedError(RPCError):
    """The HTTP method does not fit: a mutation by GET, for example."""

    code = "METHOD_NOT_SUPPORTED"


class RequestTimeoutError(RPCError):
    """The server gave up waiting."""

    code = "TIMEOUT"


class ConflictError(RPCError):
    """The write contradicts what is stored: a unique or foreign key, for example.

    >>> raise ConflictError("the seat is taken")
    Traceback (most recent call last):
    reactive_rpc.errors.ConflictError: the seat is taken [CONFLICT]
    """

    code = "CONFLICT"


class PreconditionFailedError(RPCError):
    """A condition that the request depends on does not hold.

    >>> raise PreconditionFailedError("the draft has changed meanwhile")
    Traceback (most recent call last):
    reactive_rpc.errors.PreconditionFailedError: the draft has changed meanwhile [PRECONDITION_FAILED]
    """

    code = "PRECONDITION_FAILED"


class PayloadTooLargeError(RPCError):
    """The request's body is over the server's limit."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaTypeError(RPCError):
    """The body is not `application/json`."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class UnprocessableContentError(RPCError):
    """The input is well formed and makes no sense.

    >>> raise UnprocessableContentError("it ends before it begins")
    Traceback (most recent call last):
    reactive_rpc.errors.UnprocessableContentError: it ends before it begins [UNPROCESSABLE_CONTENT]
    """

    code = "UNPROCESSABLE_CONTENT"


class TooManyRequestsError(RPCError):
    """A limit of the server is reached; the message names it.

    >>> raise TooManyRequestsError("three exports an hour")
    Traceback (most recent call last):
    reactive_rpc.errors.TooManyRequestsError: three exports an hour [TOO_MANY_REQUESTS]
    """

    code = "TOO_MANY_REQUESTS"


class ServiceUnavailableError(RPCError):
    """The database is locked or gone; try again later.

    >>> raise ServiceUnavailableError("the printer is off")
    Traceback (most recent call last):
    reactive_rpc.errors.ServiceUnavailableError: the printer is off [SERVICE_UNAVAILABLE]
    """

    code = "SERVICE_UNAVAILABLE"


class InternalServerError(RPCError):
    """Something unexpected: the server has logged it under `request_id` and sends no more than that."""

    code = "INTERNAL_SERVER_ERROR"


def rpc_error(
    code: str,
    message: str,
    *,
    details: Any = None,
    type: str | None = None,
    path: str | None = None,
    request_id: str | None = None,
) -> RPCError:
    """Return the error of the class that belongs to `code`; a code that is not known here stays on an `RPCError`.

    The `type` of a declared error is noted on it.

    >>> rpc_error("NOT_FOUND", "no agent zz")
    NotFoundError('no agent zz')
    """
    error_class = RPCError.by_code.get(code, RPCError)
    error = error_class(message, code=code, details=details, path=path, request_id=request_id)
    error.type = type
    return error


def reason_of(error: BaseException) -> str:
    """Return one line for the server's log: the cause, which callers are not told, or what the error says itself.

    >>> reason_of(TimeoutError())
    'TimeoutError'
    """
    cause = error.__cause__ or error
    line, _, _ = str(cause).partition("\n")
    if line:
        return line
    return f"{error} ({type(cause).__name__})" if str(error) else type(cause).__name__
