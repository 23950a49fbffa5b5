"""Tables of projects and their members, and random queries and writes about who may see what.

A row leads to many rows of another table here: a project to its members, an item of a project to them as well. So most
of what is read is read by conditions on parents, by one key or several, one hop or several away.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import registry, relationship

__all__ = ["METADATA", "TABLES", "Memberships"]

METADATA: Final = MetaData()
USERS: Final = Table(
    "users",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String),
    Column("status", String, index=True),
    Column("team_id", Integer, index=True),
)
PROJECTS: Final = Table(
    "projects",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("status", String),
    Column("name", String),
    Column("owner_id", Integer, index=True),
)
MEMBERS: Final = Table(
    "members",
    METADATA,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True, index=True),
    Column("role", String),
    Column("level", Integer),
)
ITEMS: Final = Table(
    "items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("project_id", Integer, index=True),
    Column("assignee_id", Integer, index=True),
    Column("title", String),
    Column("points", Integer),
)
TABLES: Final = (USERS, PROJECTS, MEMBERS, ITEMS)
"""Parents before children."""

IDS: Final = 6
"""Of users and projects."""
STATUSES: Final = ("open", "closed", "Open", "archived", None)
ROLES: Final = ("admin", "guest", "Guest", None)


class User:
    """ORM class of `users`."""

    id: Any
    status: Any


class Project:
    """ORM class of `projects`."""

    id: Any
    status: Any
    members: Any
    items: Any


class Item:
    """ORM class of `items`."""

    id: Any
    project: Any


_MAPPER: Final = registry(metadata=METADATA)
_MAPPER.map_imperatively(User, USERS)
_MAPPER.map_imperatively(
    Project,
    PROJECTS,
    properties={
        "members": relationship(User, secondary=MEMBERS, viewonly=True),
        "items": relationship(
            Item, primaryjoin=PROJECTS.c.id == ITEMS.c.project_id, foreign_keys=ITEMS.c.project_id, viewonly=True
        ),
    },
)
_MAPPER.map_imperatively(
    Item,
    ITEMS,
    properties={
        "project": relationship(
            Project, primaryjoin=PROJECTS.c.id == ITEMS.c.project_id, foreign_keys=ITEMS.c.project_id, viewonly=True
        )
    },
)


@dataclass(frozen=True, slots=True)
class Memberships:
    """Draws queries and writes."""

    random: random.Random

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def pick(self, choices: Any) -> Any:
        return self.random.choice(list(choices))

    def id(self) -> int:
        return self.random.randint(1, IDS)

    # Rows.

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return `{table: rows}`."""
        return {
            "users": [{"id": number, **self._user()} for number in range(1, IDS + 1)],
            "projects": [{"id": number, **self._project()} for number in range(1, IDS + 1)],
            "members": [
                {"project_id": project, "user_id": user, **self._member()}
                for project in range(1, IDS + 1)
                for user in range(1, IDS + 1)
                if self.chance(3)
            ],
            "items": [{"id": number, **self._item()} for number in range(1, 2 * IDS)],
        }

    def _user(self) -> dict[str, Any]:
        return {"name": self.pick("abc"), "status": self.pick(STATUSES), "team_id": self.pick([1, 2, 3, None])}

    def _project(self) -> dict[str, Any]:
        return {"status": self.pick(STATUSES), "name": self.pick("abc"), "owner_id": self.pick([self.id(), None])}

    def _member(self) -> dict[str, Any]:
        return {"role": self.pick(ROLES), "level": self.pick([0, 1, 2, None])}

    def _item(self) -> dict[str, Any]:
        keys = {"project_id": self.pick([self.id(), self.id(), None]), "assignee_id": self.pick([self.id(), None])}
        return {**keys, "title": self.pick("xyz"), "points": self.random.randrange(4)}

    # Conditions.

    def of_status(self, column: Any) -> Any:
        """Return a condition on a column of text."""
        shapes = [
            column == self.pick(STATUSES[:4]),
            column != self.pick(STATUSES[:4]),
            column.in_(["open", "admin", "closed"]),
            column.not_in(["archived", "guest"]),
            column.is_(None),
            column.is_not(None),
            column.like("%o%"),
            column.ilike("OPEN"),
            func.lower(column) == self.pick(["open", "guest"]),
            func.coalesce(column, "open") == "open",
            column.is_distinct_from("open"),
            case((column == "open", 1), else_=0) == self.random.randrange(2),
            or_(column == "open", column == "guest", column.is_(None)),
            column + "x" != "openx",
        ]
        return self.pick(shapes)

    def of_level(self, column: Any) -> Any:
        """Return a condition on a column of numbers."""
        shapes = [
            column >= self.random.randrange(3),
            column != self.random.randrange(3),
            column.between(0, 1),
            column % 2 == 0,
        ]
        return self.pick(shapes)

    def of_member(self, member: Any) -> list[Any]:
        """Return conditions on a membership; mostly, whose it is."""
        found = [] if self.chance(6) else [member.c.user_id == self.id()]
        if self.chance(3) or not found:
            found.append(self.pick([self.of_status(member.c.role), self.of_level(member.c.level)]))
        return found

    def of_user(self, user: Any) -> Any:
        """Return a condition on a user."""
        shapes = [user.c.id == self.id(), user.c.team_id == self.random.randint(1, 3), self.of_status(user.c.status)]
        return self.pick(shapes)

    def is_member(self, key: Any) -> Any:
        """Return that a project has a member who satisfies something, in one of the spellings of that."""
        member, user = (
            MEMBERS.alias(f"m{self.random.randrange(10**6)}"),
            USERS.alias(f"u{self.random.randrange(10**6)}"),
        )
        shapes: list[Callable[[], Any]] = [
            lambda: exists().where(member.c.project_id == key, *self.of_member(member)),
            lambda: key.in_(select(member.c.project_id).where(*self.of_member(member))),
            lambda: key.in_(select(select(member).where(*self.of_member(member)).subquery().c.project_id)),
            lambda: exists().where(
                member.c.project_id == key, member.c.user_id == user.c.id, self.of_user(user), *self.some_of(member)
            ),
            lambda: exists().where(self._common(member, user).c.project_id == key),
            lambda: key.in_(
                select(member.c.project_id).where(
                    member.c.user_id.in_(select(user.c.id).where(self.of_user(user)).scalar_subquery())
                )
            ),
            lambda: key.in_(
                select(member.c.project_id)
                .where(*self.of_member(member))
                .order_by(member.c.project_id, member.c.user_id)
                .limit(2)
            ),
            lambda: ~exists().where(member.c.project_id == key, *self.of_member(member)),
        ]
        return self.pick(shapes)()

    def _common(self, member: Any, user: Any) -> Any:
        """Return the members that satisfy something, with their users, as a CTE."""
        joined = select(member.c.project_id, user.c.name).join(user, member.c.user_id == user.c.id)
        return joined.where(self.of_user(user)).cte()

    def some_of(self, member: Any) -> list[Any]:
        return self.of_member(member) if self.chance(3) else []

    # Queries.

    def query(self) -> Any:
        """Return a statement."""
        shapes = {
            self._items: 4,
            self._projects: 4,
            self._joined: 5,
            self._outer: 2,
            self._of_parent: 4,
            self._twice: 2,
            self._of_relationship: 3,
            self._users: 2,
        }
        statement = self.random.choices(list(shapes), list(shapes.values()))[0]()
        return self._shaped(statement)

    def _shaped(self, statement: Any) -> Any:
        shape = self.random.randrange(8)
        if shape == 0:
            return select(func.count()).select_from(statement.subquery())
        if shape == 1:
            return statement.distinct()
        if shape == 2:
            return statement.order_by(*statement.selected_columns).limit(3)
        return statement

    def _item_columns(self) -> Any:
        return select(*self.random.sample([ITEMS.c.id, ITEMS.c.title, ITEMS.c.points, ITEMS.c.project_id], 2))

    def _items(self) -> Any:
        statement = self._item_columns().where(self.is_member(ITEMS.c.project_id))
        return statement.where(self._own()) if self.chance(2) else statement

    def _own(self) -> Any:
        return self.pick(
            [ITEMS.c.points > 1, ITEMS.c.title == "x", ITEMS.c.title != "x", ITEMS.c.assignee_id == self.id()]
        )

    def _projects(self) -> Any:
        statement = select(PROJECTS.c.id, PROJECTS.c.name).where(self.is_member(PROJECTS.c.id))
        return statement.where(self.of_status(PROJECTS.c.status)) if self.chance(2) else statement

    def _joined(self) -> Any:
        key = self.pick([ITEMS.c.project_id, PROJECTS.c.id])
        shown = [each for each in key.table.c if each.name != "status"]
        joined = key.table.join(MEMBERS, MEMBERS.c.project_id == key)
        conditions = self.of_member(MEMBERS)
        if self.chance(3):
            joined = joined.join(USERS, USERS.c.id == MEMBERS.c.user_id)
            conditions = [self.of_user(USERS), *self.some_of(MEMBERS)]
        if key.table is ITEMS and self.chance(3):
            joined = joined.join(PROJECTS, PROJECTS.c.id == ITEMS.c.project_id)
            conditions.append(self.of_status(PROJECTS.c.status))
        if self.chance(3):
            shown.append(MEMBERS.c.role)
        return select(*self.random.sample(shown, 2)).select_from(joined).where(*conditions)

    def _outer(self) -> Any:
        on = [MEMBERS.c.project_id == PROJECTS.c.id, *self.some_of(MEMBERS)]
        joined = PROJECTS.outerjoin(MEMBERS, and_(*on))
        if self.chance(2):
            joined = joined.outerjoin(ITEMS, ITEMS.c.project_id == PROJECTS.c.id)
        shown = self.pick([[PROJECTS.c.id, MEMBERS.c.role], [PROJECTS.c.name]])
        return select(*shown).select_from(joined).where(*self.of_member(MEMBERS))

    def _of_parent(self) -> Any:
        """Read items by what their project, or its owner, is like."""
        owner = USERS.alias("owner")
        joined = ITEMS.join(PROJECTS, PROJECTS.c.id == ITEMS.c.project_id, isouter=self.chance(4))
        conditions = [self.of_status(PROJECTS.c.status)]
        if self.chance(2):
            joined = joined.join(owner, owner.c.id == PROJECTS.c.owner_id, isouter=self.chance(4))
            conditions = [self.of_user(owner), *(conditions if self.chance(3) else [])]
        return self._item_columns().select_from(joined).where(*conditions)

    def _twice(self) -> Any:
        """Ask for two members of one project."""
        key = self.pick([ITEMS.c.project_id, PROJECTS.c.id])
        joined = [self.is_member(key), self.is_member(key)]
        return select(key.table.c.id, key).where(or_(*joined) if self.chance(4) else and_(*joined))

    def _of_relationship(self) -> Any:
        of_members = Project.members.any(
            self.pick([User.id == self.id(), User.status == "open", User.status != "open"])
        )
        statements = [
            select(Project.id, Project.status).where(of_members),
            select(Item.id).where(Item.project.has(of_members)),
            select(Item.id).where(Item.project.has(self.of_status(Project.status))),
            select(Item.id).join(Item.project).join(Project.members).where(User.id == self.id()),
            select(Project.id).where(Project.items.any(self._own())),
        ]
        return self.pick(statements)

    def _users(self) -> Any:
        """Read who shares a project with somebody, or works on its items."""
        mine, theirs = MEMBERS.alias("mine"), MEMBERS.alias("theirs")
        if self.chance(2):
            shared = exists().where(
                theirs.c.user_id == USERS.c.id, theirs.c.project_id == mine.c.project_id, mine.c.user_id == self.id()
            )
            return select(USERS.c.id, USERS.c.name).where(shared)
        return select(USERS.c.id, USERS.c.name).where(
            USERS.c.id.in_(select(ITEMS.c.assignee_id).where(ITEMS.c.project_id == self.id(), true()))
        )

    # Writes.

    def write(self) -> Any:
        """Return one write."""
        table = self.random.choices(TABLES, (2, 3, 4, 5))[0]
        shape = self.random.randrange(8)
        if table is MEMBERS:
            return self._write_member(shape)
        identity = self.id() if table is not ITEMS else self.random.randint(1, 2 * IDS)
        row = {USERS: self._user, PROJECTS: self._project, ITEMS: self._item}[table]()
        here = table.c.id == identity
        if shape == 0:
            return table.delete().where(here)
        if shape == 1:
            return table.insert().values(id=identity, **row)
        if shape == 2 and table is not ITEMS:
            return table.update().where(here).values(id=self.id())
        changed = self.random.sample(sorted(row), self.random.choice([1, 1, 2]))
        return table.update().where(here).values({name: row[name] for name in changed})

    def _write_member(self, shape: int) -> Any:
        row = {"project_id": self.id(), "user_id": self.id(), **self._member()}
        here = and_(MEMBERS.c.project_id == row["project_id"], MEMBERS.c.user_id == row["user_id"])
        if shape <= 2:
            return MEMBERS.insert().values(row)
        if shape <= 4:
            return MEMBERS.delete().where(here)
        if shape == 5:
            return MEMBERS.update().where(here).values(self.pick([{"project_id": self.id()}, {"user_id": self.id()}]))
        name = self.pick(["role", "level"])
        return MEMBERS.update().where(MEMBERS.c.project_id == row["project_id"]).values({name: row[name]})
