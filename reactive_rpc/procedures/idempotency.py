"""Idempotency: a mutation that is sent again under the same `Idempotency-Key` is made once.

The mutation's own transaction stores the answer (`changes/answers.py`), and a call with the same key, caller and input
is answered with it, by any worker, for as long as it is stored. A mutation that failed has stored nothing: sent again,
it runs again. `docs/internals/procedures.md` says to whom a key belongs.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from reactive_rpc.changes.answers import Answers, Claim
from reactive_rpc.errors import (
    BadRequestError,
    ConflictError,
    PreconditionFailedError,
    UnprocessableContentError,
)
from reactive_rpc.procedures.canonical import canonical

__all__ = ["ANONYMOUS_KEY_CHARACTERS", "KEY_PATTERN", "MAX_KEY_CHARACTERS", "NO_KEYS", "IdempotentCall", "claim_of"]

logger = logging.getLogger(__name__)

MAX_KEY_CHARACTERS: Final = 255
ANONYMOUS_KEY_CHARACTERS: Final = 20
"""How long the key of a caller without an identity must be: a UUID is, and 20 random characters cannot be guessed."""

KEY_PATTERN: Final = "^[!#-~]([ -~]*[!#-~])?$"
"""As a regular expression: printable ASCII, without what is taken off at the ends, white space and quotes."""


NO_KEYS: Final = {"idempotency_key": "unsupported"}
"""The details of a refusal because of the key alone: the call may be sent without one."""


def claim_of(path: str, ctx: object, key: str, body: bytes, *, files: bytes = b"") -> Claim:
    """Return what a call claims.

    Args:
        ctx: whose call it is.
        key: as the caller gave it.
        body: the input as JSON; equal ones may be spelled in different ways.
        files: the digest of those that come beside it: another file is another input.

    Raises:
        BadRequestError: the key is none, or too short for a caller whom nothing names.
        PreconditionFailedError: nobody can tell whose call it is.
    """
    identity = getattr(ctx, "identity", None)
    if not 0 < len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise BadRequestError(
            f"an idempotency key is 1 to {MAX_KEY_CHARACTERS} printable ASCII characters: send a UUID"
        )
    if identity is None and len(key) < ANONYMOUS_KEY_CHARACTERS:
        raise BadRequestError(
            f"nothing tells this caller from others, so the idempotency key must have {ANONYMOUS_KEY_CHARACTERS} "
            "characters at least, lest another guess it: send a UUID"
        )
    owner = _owner(path, ctx if identity is None else [identity, getattr(ctx, "tenant", None)])
    return Claim(_digest(path.encode(), owner, key.encode()), _digest(_normalized(body), files))


def _owner(path: str, whose: object) -> bytes:
    try:
        return canonical(whose)
    except TypeError as exc:
        logger.warning("%s was called with an idempotency key, and nothing tells whose: %s", path, exc)
        raise PreconditionFailedError(
            "an idempotency key was sent, and this server cannot tell whose it is: its context names no identity. "
            "Nothing was done; leave the key out, and do not send the call again by itself",
            details=NO_KEYS,
        ) from exc


def _digest(*parts: bytes) -> str:
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def _normalized(body: bytes) -> bytes:
    """Return JSON whose order of names and white space say nothing; numbers stay as they are spelled."""
    if not body:
        return b"{}"
    try:
        return json.dumps(json.loads(body, parse_float=_as_spelled), sort_keys=True).encode()
    except (ValueError, RecursionError):  # of a mutation that takes no input: nobody else has read it
        return body


def _as_spelled(number: str) -> list[str]:
    """Keep a number as it is spelled: two that one float stands for may be two decimals."""
    return ["\0number", number]


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """Makes one call once, within its transaction.

    Args:
        answers: of the database that the transaction is of; None where it keeps none.
    """

    answers: Answers | None
    claim: Claim

    def stored_answer(self, session: Session) -> bytes | None:
        """Return the answer of an earlier call with this key; None if the call is now to be made.

        Raises:
            ConflictError: the first call is still running, or its answer was too long to be kept.
            PreconditionFailedError: answers are not kept.
            UnprocessableContentError: the key was used with another input.
        """
        if self.answers is None:
            raise PreconditionFailedError(
                "an idempotency key was sent, and this server keeps no answers: it captures by session, without tables "
                "of its own. Nothing was done; leave the key out, and do not send the call again by itself",
                details=NO_KEYS,
            )
        kept = self.answers.claim(_connection(session), self.claim)
        if kept is None:
            return None
        if kept.input is None:
            raise ConflictError(
                "the call with this idempotency key is still running: ask again",
                details={"retry": True},
                headers={"retry-after": "1"},
            )
        if kept.input != self.claim.input:
            raise UnprocessableContentError("this idempotency key was used with another input: give each call its own")
        if kept.answer is None:
            raise ConflictError("the call with this idempotency key was made, and its answer was too long to be kept")
        return kept.answer

    def store_answer(self, session: Session, answer: bytes) -> None:
        """Store the answer, which is committed with what the call wrote."""
        if self.answers is not None:
            self.answers.keep(_connection(session), self.claim, answer)


def _connection(session: Session) -> Connection:
    """Return the connection below the session: what a handler rolls back there must not take the claim with it."""
    bound: Any = session.get_bind()
    return bound if isinstance(bound, Connection) else session.connection()
