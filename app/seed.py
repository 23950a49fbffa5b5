"""Fill a database with a believable TeamHub: `python -m app.seed`.

The same rows each time, but for the salt of the one password that everybody has. All in one transaction, so a
database is either seeded or not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, insert
from sqlmodel import SQLModel, select

from app.database import database_url, new_engine
from app.models import Agent, Memory, Message, Organization, Tool, User
from app.security import passwords
from app.settings import get_settings
from reactive_rpc import Login

__all__ = ["CONTEXTS", "DEMO", "EMAIL", "PASSWORD", "main", "seed"]

logger = logging.getLogger(__name__)

ORGANIZATIONS = 50
AGENTS = 1_000
MESSAGES = 20_000
MEMORIES = 10_000
EMAIL = "ada@org-01.example"
PASSWORD = "teamhub"  # noqa: S105  # printed by `make run`, for everybody to try
DEMO = Login(identity="user-01", tenant="org-01")
"""Whose rows the documentation's examples are."""

CONTEXTS = {"owner": DEMO, "stranger": Login(identity="user-02", tenant="org-02")}
"""On whose behalf `reactive-rpc doctor` and `check` may call: `--context app.seed:CONTEXTS`."""
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

NAMES = ("Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Grace", "Hedy", "John", "Katherine", "Leslie", "Tim")
ROLES = ("analyst", "assistant", "planner", "researcher", "reviewer", "scheduler", "translator", "writer")
TOOLS = ("calculator", "calendar", "code runner", "mail", "search")
VERBS = ("checked", "drafted", "found", "finished", "moved", "reviewed", "summarized", "updated")
THINGS = ("the budget", "the contract", "the design", "the figures", "the meeting notes", "the report", "the roadmap")

Row = dict[str, Any]


def seed(database: Path | str) -> bool:
    """Make the tables and fill them; return False, having changed nothing, where there are organizations already."""
    engine = new_engine(database, create=True)
    SQLModel.metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.execute(select(Organization.id).limit(1)).first() is not None:
            return False
        _fill(connection, Random(1))  # noqa: S311  # the same data each time is the point
    return True


def _fill(connection: Connection, random: Random) -> None:
    """Insert every table, parents first."""
    rows: dict[type[SQLModel], Iterator[Row]] = {
        Organization: _organizations(),
        User: _users(passwords.hash(PASSWORD)),
        Agent: _agents(random),
        Tool: _tools(random),
        Message: _messages(random),
        Memory: _memories(random),
    }
    for model, values in rows.items():
        connection.execute(insert(model), list(values))


def _organizations() -> Iterator[Row]:
    for number in range(1, ORGANIZATIONS + 1):
        yield {"id": f"org-{number:02}", "name": f"Organization {number}", "created_at": BEGINNING}


def _users(password_hash: str) -> Iterator[Row]:
    for number in range(1, ORGANIZATIONS + 1):
        yield {
            "id": f"user-{number:02}",
            "organization_id": f"org-{number:02}",
            "email": f"ada@org-{number:02}.example",
            "password_hash": password_hash,
            "created_at": BEGINNING,
        }


def _agents(random: Random) -> Iterator[Row]:
    for number in range(1, AGENTS + 1):
        role = random.choice(ROLES)
        yield {
            "id": f"agent-{number:04}",
            "organization_id": f"org-{_organization_of(number):02}",
            "name": f"{random.choice(NAMES)} {number}",
            "role": role,
            "description": f"A {role} that works by day and by night." if random.random() < 0.8 else None,
            "is_active": random.random() < 0.9,
            "created_at": BEGINNING + timedelta(minutes=number),
        }


def _tools(random: Random) -> Iterator[Row]:
    for organization in range(1, ORGANIZATIONS + 1):
        for number, name in enumerate(TOOLS, start=1):
            yield {
                "id": f"tool-{organization:02}-{number}",
                "organization_id": f"org-{organization:02}",
                "name": name,
                "description": f"Lets an agent use the {name}.",
                "is_enabled": random.random() < 0.8,
                "created_at": BEGINNING,
            }


def _messages(random: Random) -> Iterator[Row]:
    for number in range(1, MESSAGES + 1):
        sender = random.randint(1, AGENTS)
        recipient = _colleague(sender, random)
        yield {
            "id": f"message-{number:05}",
            "from_agent_id": f"agent-{sender:04}",
            "to_agent_id": None if recipient == sender else f"agent-{recipient:04}",
            "body": f"I have {random.choice(VERBS)} {random.choice(THINGS)}.",
            "created_at": BEGINNING + timedelta(days=1, minutes=number),
        }


def _memories(random: Random) -> Iterator[Row]:
    for number in range(1, MEMORIES + 1):
        yield {
            "id": f"memory-{number:05}",
            "agent_id": f"agent-{random.randint(1, AGENTS):04}",
            "content": f"Somebody {random.choice(VERBS)} {random.choice(THINGS)}.",
            "created_at": BEGINNING + timedelta(days=1, minutes=2 * number),
        }


def _organization_of(agent: int) -> int:
    """Return the organization's number: each has the same number of agents, one after the other."""
    return (agent - 1) * ORGANIZATIONS // AGENTS + 1


def _colleague(agent: int, random: Random) -> int:
    """Return an agent of the same organization, perhaps the same one."""
    size = AGENTS // ORGANIZATIONS
    return (_organization_of(agent) - 1) * size + random.randint(1, size)


def main() -> None:
    """Seed the database of the settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    database = get_settings().database
    name = database_url(database).render_as_string() if "://" in database else database  # without its password
    logger.info("%s is %s", name, "seeded" if seed(database) else "seeded already")


if __name__ == "__main__":
    main()
