"""Fill a database with a believable TeamHub: `python -m app.seed`.

The same rows each time, but for the salt of the one password that everybody has, and the moments: the last message is
of just now. All in one transaction, so a database is either seeded or not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, insert
from sqlmodel import SQLModel, select

from app.database import database_url, new_engine
from app.models import Agent, Memory, Message, Organization, Tool, User, now
from app.security import passwords
from app.seed_texts import DESCRIPTIONS, FILLINGS, MEMORIES, ROLES, THREADS, Line
from app.settings import get_settings
from reactive_rpc import Login

__all__ = ["CONTEXTS", "DEMO", "EMAIL", "PASSWORD", "main", "seed"]

logger = logging.getLogger(__name__)

COMPANIES = ("Meridian", "Alder", "Beacon", "Cobalt", "Dune", "Ember", "Fjord", "Granite", "Harbour", "Indigo")
KINDS = ("Research", "Analytics", "Logistics", "Publishing", "Energy")
ORGANIZATIONS = len(COMPANIES) * len(KINDS)
NAMES = (
    "Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ivan",
    "John", "Katherine", "Leslie", "Margaret", "Niklaus", "Radia", "Robin", "Sophie", "Tim", "Vint",
)  # fmt: skip
"""Of the agents of each organization."""
MESSAGES = (2_360, 360)
MEMORIES_EACH = 200
"""How many an organization has; of messages the first one more, as it is the one that is shown."""
DAYS = 14
"""Over how many days messages and memories are spread."""

EMAIL = "ada@org-01.example"
PASSWORD = "teamhub"  # noqa: S105  # printed by `make run`, for everybody to try
COLLEAGUES = ("lin", "omar")
"""Who logs in for the first organization too, so that several people can be tried."""
DEMO = Login(identity="user-01", tenant="org-01")
"""Whose rows the documentation's examples are."""

CONTEXTS = {"owner": DEMO, "stranger": Login(identity="user-02", tenant="org-02")}
"""On whose behalf `reactive-rpc doctor` and `check` may call: `--context app.seed:CONTEXTS`."""

TOOLS = ("Calculator", "Calendar", "Code runner", "Mail", "Search")

Row = dict[str, Any]


def seed(database: Path | str, *, until: datetime | None = None) -> bool:
    """Make the tables and fill them; return False, having changed nothing, where there are organizations already.

    Args:
        database: a SQLite file, or a URL.
        until: when the last message was sent; now if left out.
    """
    engine = new_engine(database, create=True)
    SQLModel.metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.execute(select(Organization.id).limit(1)).first() is not None:
            return False
        _fill(connection, Random(1), until or now())  # noqa: S311  # the same data each time is the point
    return True


def _fill(connection: Connection, random: Random, until: datetime) -> None:
    """Insert every table, parents first."""
    beginning = until - timedelta(days=DAYS)
    rows: dict[type[SQLModel], Iterator[Row]] = {
        Organization: _organizations(beginning),
        User: _users(passwords.hash(PASSWORD), beginning),
        Agent: _agents(random, beginning),
        Tool: _tools(random, beginning),
        Message: _messages(random, until),
        Memory: _memories(random, until),
    }
    for model, values in rows.items():
        connection.execute(insert(model), list(values))


def _organizations(beginning: datetime) -> Iterator[Row]:
    names = [f"{company} {kind}" for kind in KINDS for company in COMPANIES]
    for number, name in enumerate(names, start=1):
        yield {"id": f"org-{number:02}", "name": name, "created_at": beginning}


def _users(password_hash: str, beginning: datetime) -> Iterator[Row]:
    logins = [("ada", organization) for organization in range(1, ORGANIZATIONS + 1)]
    for number, (name, organization) in enumerate(logins + [(name, 1) for name in COLLEAGUES], start=1):
        yield {
            "id": f"user-{number:02}",
            "organization_id": f"org-{organization:02}",
            "email": f"{name}@org-{organization:02}.example",
            "password_hash": password_hash,
            "created_at": beginning,
        }


def _agents(random: Random, beginning: datetime) -> Iterator[Row]:
    for organization in range(1, ORGANIZATIONS + 1):
        for place, (name, role) in enumerate(zip(NAMES, ROLES, strict=True)):
            yield {
                "id": _agent_id(organization, place),
                "organization_id": f"org-{organization:02}",
                "name": name,
                "role": role,
                "description": DESCRIPTIONS[role],
                "is_active": random.random() < 0.85,
                "created_at": beginning + timedelta(minutes=place),
            }


def _tools(random: Random, beginning: datetime) -> Iterator[Row]:
    for organization in range(1, ORGANIZATIONS + 1):
        for number, name in enumerate(TOOLS, start=1):
            yield {
                "id": f"tool-{organization:02}-{number}",
                "organization_id": f"org-{organization:02}",
                "name": name,
                "description": f"Lets an agent use the {name.lower()}.",
                "is_enabled": random.random() < 0.8,
                "created_at": beginning,
            }


def _messages(random: Random, until: datetime) -> Iterator[Row]:
    """Yield the messages of each organization, oldest first: conversations that follow one another."""
    number = 0
    for organization in range(1, ORGANIZATIONS + 1):
        lines = list(islice(_lines(random, organization), MESSAGES[min(organization, 2) - 1]))
        for line, moment in zip(lines, _moments(random, len(lines), until), strict=True):
            number += 1
            yield {"id": f"message-{number:05}", "created_at": moment, **line}


def _lines(random: Random, organization: int) -> Iterator[Row]:
    """Yield messages without end: a thread after another, each between agents who are drawn for it."""
    while True:
        for thread in random.sample(THREADS, len(THREADS)):
            agents = [_agent_id(organization, place) for place in random.sample(range(len(NAMES)), 3)]
            words = _words(random)
            for line in thread:
                yield _said(line, agents, words)


def _said(line: Line, agents: Sequence[str], words: Mapping[str, str]) -> Row:
    receiver = None if line.receiver is None else agents[line.receiver]
    return {"from_agent_id": agents[line.speaker], "to_agent_id": receiver, "body": _filled(line.text, words)}


def _memories(random: Random, until: datetime) -> Iterator[Row]:
    number = 0
    for organization in range(1, ORGANIZATIONS + 1):
        for moment in _moments(random, MEMORIES_EACH, until):
            number += 1
            yield {
                "id": f"memory-{number:05}",
                "agent_id": _agent_id(organization, random.randrange(len(NAMES))),
                "content": _filled(random.choice(MEMORIES), _words(random)),
                "created_at": moment,
            }


def _moments(random: Random, count: int, until: datetime) -> list[datetime]:
    """Return moments in their order, the more of them the later: the last is `until` less a few seconds."""
    seconds = sorted((random.random() ** 1.3 * DAYS * 86_400 for _ in range(count - 1)), reverse=True)
    return [until - timedelta(seconds=20 + each) for each in seconds] + [until - timedelta(seconds=12)]


def _words(random: Random) -> dict[str, str]:
    return {name: random.choice(choices) for name, choices in FILLINGS.items()}


def _filled(text: str, words: Mapping[str, str]) -> str:
    filled = text.format_map(words)
    return filled[:1].upper() + filled[1:]


def _agent_id(organization: int, place: int) -> str:
    return f"agent-{(organization - 1) * len(NAMES) + place + 1:04}"


def main() -> None:
    """Seed the database of the settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    database = get_settings().database
    name = database_url(database).render_as_string() if "://" in database else database  # without its password
    logger.info("%s is %s", name, "seeded" if seed(database) else "seeded already")


if __name__ == "__main__":
    main()
