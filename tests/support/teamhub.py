"""A TeamHub that browser tests load pages from: it is killed and started again, and others write to its database."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt

from app.seed import EMAIL, PASSWORD
from tests.support.processes import Uvicorn
from tests.support.waiting import wait_until

__all__ = ["TeamHub"]

SECRET = "a secret of the tests, long enough for HS256"

PATIENCE_SECONDS = 60.0
"""How long an answer may take on a machine that does other work too."""


class TeamHub(Uvicorn):
    """TeamHub in a process of its own, with pages under `/pages`; as a context manager it runs as long as the block.

    Args:
        folder: for its database and its log.
        seeded: a database that `app.seed` has filled; it is copied.
        pages: the folder that `tests/typescript/support/bundle.ts` has written.
        environment: variables beside this process's own.
    """

    def __init__(
        self, folder: Path, *, seeded: Path, pages: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.database = folder / "teamhub.db"
        shutil.copy(seeded, self.database)
        variables = {"TEAMHUB_DATABASE": str(self.database), "TEAMHUB_SECRET": SECRET, "PAGES": str(pages)}
        super().__init__(
            "tests.support.teamhub_with_pages:app",
            asks="/pages/queries.html", log=folder / "teamhub.log", environment={**variables, **(environment or {})},
        )  # fmt: skip

    def log_in(self, email: str = EMAIL) -> str:
        """Return the token of somebody; the one who is left out is Ada of the first organization."""
        answer = httpx.post(
            f"{self.url}/login", data={"username": email, "password": PASSWORD}, timeout=PATIENCE_SECONDS
        )
        return str(answer.raise_for_status().json()["access_token"])

    def token_for(self, seconds: float) -> str:
        """Return a token of the same person, which ends so soon: nobody logs in for less than an hour."""
        claims = {"sub": "user-01", "org": "org-01", "exp": time.time() + seconds}
        return jwt.encode(claims, SECRET, "HS256")

    def page(self, name: str = "queries", **orders: Any) -> str:
        """Return the address of a page that does as it is told (`Orders` in `tests/typescript/pages/page.ts`)."""
        return f"{self.url}/pages/{name}.html#{quote(json.dumps(orders))}"

    def call(self, path: str, *, token: str, **input: Any) -> Any:
        """Return what a procedure answers somebody who uses none of our clients."""
        headers = {"authorization": f"Bearer {token}"}
        answer = httpx.post(f"{self.url}/rpc/{path}", json=input, headers=headers, timeout=PATIENCE_SECONDS)
        return answer.raise_for_status().json()

    def write(self, statement: str, *parameters: object) -> None:
        """Write with the plain driver: the server is not asked."""
        with closing(sqlite3.connect(self.database, timeout=60)) as connection, connection:
            connection.execute(statement, parameters)

    def metric(self, name: str) -> float:
        """Return a figure of `/metrics`: `streams`, `streams_opened_total`."""
        text = httpx.get(f"{self.url}/rpc/metrics", timeout=PATIENCE_SECONDS).raise_for_status().text
        lines = (line.split() for line in text.splitlines())
        return next(float(words[1]) for words in lines if words[0] == f"reactive_rpc_{name}")

    def wait_for_streams(self, number: int) -> None:
        """Wait until so many streams are open."""
        wait_until(lambda: self.metric("streams") == number, lambda: f"there are {self.metric('streams')} streams")
