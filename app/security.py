"""Logging in: OAuth2's password flow, Argon2 for passwords, signed tokens that end by themselves.

A token says who calls (`sub`) and for which organization (`org`). `get_context` also looks the user up: it takes a
session, so its outcome is kept by the token until it expires or the user's row changes. A user who is deleted, or moves
to another organization, is out at once: the next call is refused, and open streams end.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import jwt
from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pydantic import BaseModel
from sqlalchemy.exc import DataError, OperationalError
from sqlmodel import Session, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.database import new_engine
from app.models import User, now
from app.settings import get_settings
from reactive_rpc import Login

__all__ = ["Token", "get_context", "passwords", "router"]

ALGORITHM = "HS256"

router = APIRouter(tags=["login"])
passwords = PasswordHash([Argon2Hasher()])
bearer = OAuth2PasswordBearer(tokenUrl="login")


class Token(BaseModel):
    """What OAuth2 calls an access token response (RFC 6749, section 5.1)."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # RFC 6749's word for it, no password
    expires_in: int


@router.post(
    "/login",
    summary="Log in",
    responses={
        400: {"description": "The e-mail has characters that no e-mail has."},
        401: {"description": "The e-mail or the password is wrong."},
    },
)
def login(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Token:
    """Exchange an e-mail and a password for a token; send it as `Authorization: Bearer`."""
    user = _find_user(form.username)
    # An unknown user costs one verification too: otherwise the time of the answer tells who has an account.
    is_right = passwords.verify(form.password, user.password_hash if user else _nobodys_hash())
    if user is None or not is_right:
        raise _unauthorized("the e-mail or the password is wrong", challenge="Bearer")
    lifetime_seconds = get_settings().token_lifetime_seconds
    return Token(access_token=_new_token(user, lifetime_seconds), expires_in=lifetime_seconds)


async def get_context(token: Annotated[str, Depends(bearer)], db: AsyncSession) -> Login:
    """Return on whose behalf the request is made.

    Raises:
        HTTPException: 401, the token is missing, expired or invalid, or its user is gone; why it is invalid is not
            told.
    """
    try:
        claims = jwt.decode(
            token,
            _signing_key(),
            algorithms=[ALGORITHM],
            options={"require": ["exp", "sub", "org"]},
        )
    except jwt.ExpiredSignatureError as exc:
        raise _invalid_token("the token has expired: log in again") from exc
    except jwt.InvalidTokenError as exc:
        raise _invalid_token("the token is invalid") from exc
    wanted = select(User.id).where(User.id == claims["sub"], User.organization_id == claims["org"])
    if (await db.exec(wanted)).first() is None:
        raise _invalid_token("the user of the token is gone")
    expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    return Login(identity=claims["sub"], tenant=claims["org"], expires_at=expires_at)


def _find_user(email: str) -> User | None:
    engine = new_engine(get_settings().database)
    try:
        with Session(engine) as session:
            return session.exec(select(User).where(User.email == email.strip().lower())).first()
    except DataError as exc:
        raise HTTPException(400, "the e-mail has characters that the database does not hold") from exc
    except OperationalError as exc:
        raise HTTPException(503, "the database is locked or cannot be reached; try again") from exc


@cache
def _nobodys_hash() -> str:
    return passwords.hash(secrets.token_urlsafe())


def _new_token(user: User, lifetime_seconds: int) -> str:
    expires = now() + timedelta(seconds=lifetime_seconds)
    claims = {"sub": user.id, "org": user.organization_id, "exp": expires}
    return jwt.encode(claims, _signing_key(), ALGORITHM)


@cache
def _signing_key() -> str:
    settings = get_settings()
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    return _kept_secret(settings.secret_file)


def _kept_secret(path: Path) -> str:
    """Return the secret in `path`; make one where there is none, readable by its owner alone.

    It is written aside and linked into place: of several workers that start at once one wins, the others read its
    secret, and nobody reads half of one.
    """
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii")


def _invalid_token(message: str) -> HTTPException:
    return _unauthorized(message, challenge=f'Bearer error="invalid_token", error_description="{message}"')


def _unauthorized(message: str, *, challenge: str) -> HTTPException:
    """Return a 401 with its challenge (RFC 6750, section 3)."""
    return HTTPException(401, message, headers={"WWW-Authenticate": challenge})
