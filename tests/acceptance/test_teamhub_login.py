"""Logging in to TeamHub, and what a bad token gets."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from app.seed import EMAIL, PASSWORD
from app.server_process import serving

from .conftest import Server, log_in

URL = "/rpc/organizations.get_mine"


def token(key: str, **claims: Any) -> str:
    """Return a token that would be good, but for the key and the claims given here; None leaves a claim out."""
    good = {"sub": "user-01", "org": "org-01", "exp": datetime.now(UTC) + timedelta(minutes=5)}
    return jwt.encode({name: value for name, value in (good | claims).items() if value is not None}, key, "HS256")


def call(http: httpx.Client, bearer: str) -> httpx.Response:
    """Call a query with a token."""
    return http.get(URL, headers={"Authorization": f"Bearer {bearer}"})


def test_a_login_gives_a_bearer_token(stranger: httpx.Client) -> None:
    """The answer is what OAuth2 clients expect, and the token is good for calls."""
    answer = stranger.post("/login", data={"grant_type": "password", "username": EMAIL, "password": PASSWORD})

    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert call(stranger, answer.json()["access_token"]).json()["id"] == "org-01"


def test_an_email_is_the_same_in_any_case(stranger: httpx.Client) -> None:
    """People capitalize their addresses as they like."""
    assert stranger.post("/login", data={"username": f" {EMAIL.upper()}", "password": PASSWORD}).status_code == 200


def test_a_wrong_password_and_an_unknown_user_look_alike(stranger: httpx.Client) -> None:
    """Nobody learns from the answer who has an account."""
    wrong = stranger.post("/login", data={"username": EMAIL, "password": "wrong"})
    unknown = stranger.post("/login", data={"username": "nobody@org-01.example", "password": PASSWORD})

    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())
    assert wrong.status_code == 401
    assert wrong.headers["www-authenticate"] == "Bearer"


def test_a_call_without_a_token_is_unauthorized(stranger: httpx.Client) -> None:
    """The answer is our envelope, with the challenge that tells how to log in."""
    answer = stranger.get(URL)

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_stream_without_a_token_is_unauthorized(stranger: httpx.Client) -> None:
    """Events are for the same callers as results."""
    answer = stranger.post("/rpc/events", json={"queries": [{"path": "organizations.get_mine"}]})
    assert answer.status_code == 401


def test_an_expired_token_says_so(stranger: httpx.Client, server: Server) -> None:
    """The client learns that logging in again helps."""
    answer = call(stranger, token(server.secret, exp=datetime.now(UTC) - timedelta(seconds=1)))

    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "the token has expired: log in again"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_every_other_bad_token_is_just_invalid(stranger: httpx.Client, server: Server) -> None:
    """Forged, unsigned, cut, or without a claim: the answer does not tell which."""
    good = token(server.secret)
    assert call(stranger, good).status_code == 200
    head, payload, signature = good.split(".")
    unsigned = jwt.encode({"sub": "user-01", "org": "org-01", "exp": 9_999_999_999}, "", "none")
    bad = [
        token("another secret, just as long as the right one"),
        token(server.secret, exp=None),
        token(server.secret, org=None),
        token(server.secret, sub=None),
        token("another secret, just as long as the right one", exp=datetime.now(UTC) - timedelta(seconds=1)),
        unsigned,
        f"{head}.{payload}.{signature[::-1]}",
        f"{head}.{payload}",
        "nonsense",
    ]

    answers = [call(stranger, value) for value in bad]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["error"]["message"] for answer in answers} == {"the token is invalid"}


def test_a_login_outlives_a_restart(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TEAMHUB_SECRET one is made, kept beside the database for its owner alone, and found again."""
    monkeypatch.delenv("TEAMHUB_SECRET", raising=False)
    with serving(database) as url, httpx.Client(base_url=url) as http:
        log_in(http, EMAIL)
        bearer = http.headers["Authorization"]
        assert http.get(URL).status_code == 200

    secret = database.with_name("teamhub.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert sorted(path.name for path in database.parent.glob("*.secret*")) == ["teamhub.secret"]
    with serving(database) as url, httpx.Client(base_url=url) as http:
        assert http.get(URL, headers={"Authorization": bearer}).status_code == 200


def test_a_database_that_is_gone_refuses_logins(database: Path) -> None:
    """A login answers 503, and does not bring the file back empty."""
    with serving(database) as url, httpx.Client(base_url=url) as http:
        for path in database.parent.glob("teamhub.db*"):
            path.unlink()
        answer = http.post("/login", data={"username": EMAIL, "password": PASSWORD})

    assert answer.status_code == 503
    assert not database.exists()
