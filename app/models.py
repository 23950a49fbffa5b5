"""The tables. Each but `User` is also what clients are shown of a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import DateTime, Dialect, Index
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

__all__ = ["Agent", "Memory", "Message", "Organization", "Tool", "User", "new_id", "now"]

MAX_ID = 64


class UTCDateTime(TypeDecorator[datetime]):
    """Store a moment as UTC and give it back as UTC: SQLite drops the offset, and a client would take it for local."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC without its offset.

        Raises:
            ValueError: the value has no offset, so nobody knows which moment it is.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no offset: give a moment in UTC, datetime.now(UTC) for example")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the stored moment with its offset."""
        return None if value is None else value.replace(tzinfo=UTC)


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


def new_id(kind: str) -> str:
    """Return an id that nobody else makes: `agent-` and 32 hexadecimal digits, for example."""
    return f"{kind}-{uuid4().hex}"


class Organization(SQLModel, table=True):
    """A tenant: nothing of it is seen from another."""

    id: str = Field(primary_key=True, max_length=MAX_ID)
    name: str = Field(max_length=100)
    created_at: datetime = Field(sa_type=UTCDateTime)


class User(SQLModel, table=True):
    """A person who logs in; never sent to a client."""

    id: str = Field(primary_key=True, max_length=MAX_ID)
    organization_id: str = Field(foreign_key="organization.id", index=True, max_length=MAX_ID)
    email: str = Field(unique=True, max_length=254)
    password_hash: str
    created_at: datetime = Field(sa_type=UTCDateTime)


class Agent(SQLModel, table=True):
    """An agent of an organization."""

    id: str = Field(primary_key=True, max_length=MAX_ID)
    organization_id: str = Field(foreign_key="organization.id", index=True, max_length=MAX_ID)
    name: str = Field(max_length=100)
    role: str = Field(max_length=100)
    description: str | None = Field(max_length=1000)
    is_active: bool
    created_at: datetime = Field(sa_type=UTCDateTime)


class Tool(SQLModel, table=True):
    """Something the agents of an organization can use."""

    id: str = Field(primary_key=True, max_length=MAX_ID)
    organization_id: str = Field(foreign_key="organization.id", index=True, max_length=MAX_ID)
    name: str = Field(max_length=100)
    description: str = Field(max_length=1000)
    is_enabled: bool
    created_at: datetime = Field(sa_type=UTCDateTime)


class Message(SQLModel, table=True):
    """What one agent said: to another of its organization, or to all of it where `to_agent_id` is null."""

    __table_args__ = (
        Index("ix_message_from_agent_id", "from_agent_id", "created_at"),
        Index("ix_message_to_agent_id", "to_agent_id", "created_at"),
    )

    id: str = Field(primary_key=True, max_length=MAX_ID)
    from_agent_id: str = Field(foreign_key="agent.id", max_length=MAX_ID)
    to_agent_id: str | None = Field(foreign_key="agent.id", max_length=MAX_ID)
    body: str = Field(max_length=4000)
    created_at: datetime = Field(sa_type=UTCDateTime)


class Memory(SQLModel, table=True):
    """What an agent remembers."""

    __table_args__ = (Index("ix_memory_agent_id", "agent_id", "created_at"),)

    id: str = Field(primary_key=True, max_length=MAX_ID)
    agent_id: str = Field(foreign_key="agent.id", max_length=MAX_ID)
    content: str = Field(max_length=4000)
    created_at: datetime = Field(sa_type=UTCDateTime)
