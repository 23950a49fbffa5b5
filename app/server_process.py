"""TeamHub served by a process of its own, as the demo and the acceptance tests want it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from reactive_rpc import testing

__all__ = ["serving"]


def serving(database: Path | str, *, environment: Mapping[str, str] | None = None) -> AbstractContextManager[str]:
    """Serve `database` on a free port of 127.0.0.1, give the base URL, and stop the server on leaving.

    Args:
        database: a SQLite file, or the URL of a PostgreSQL database.
        environment: further variables of the server's environment.

    Raises:
        RuntimeError: the server ended, or did not listen in time; its own words are on stderr.
    """
    return testing.serving("app.main:app", environment={"TEAMHUB_DATABASE": str(database), **(environment or {})})
