"""A database with tables that Alembic has made, and a folder of migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from textwrap import indent
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine

from reactive_rpc.testing.postgresql import PostgreSQL

ENV = """
from alembic import context
from sqlalchemy import NullPool, create_engine

from reactive_rpc.alembic import include_name, include_object, migrating

config = context.config
with create_engine(config.attributes["url"], poolclass=NullPool).connect() as connection:
    filters = {"include_name": include_name, "include_object": include_object}
    options = filters if config.attributes["filters"] else {}
    options["include_schemas"] = config.attributes["schemas"]
    context.configure(connection=connection, target_metadata=config.attributes["metadata"], **options)
    with context.begin_transaction(), migrating(connection):
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision = {name!r}
down_revision = {previous!r}


def upgrade():
{up}


def downgrade():
{down}
"""
TEMPLATE = """
import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
"""
TABLES = """
op.create_table(
    "team",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False, unique=True),
    sa.Column("size", sa.Integer),
)
op.create_table(
    "member",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("team_id", sa.Integer, sa.ForeignKey("team.id", name="of_team")),
    sa.Column("role", sa.String(40)),
)
"""
ROWS = (
    "INSERT INTO team(id, name, size) VALUES (1, 'red', 5), (2, 'blue', 7)",
    "INSERT INTO member(id, role) VALUES (1, 'lead')",
)


@dataclass
class Migrations:
    """A folder of migrations, the database that they are of, and somebody who writes to it."""

    folder: Path
    url: str
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    metadata: MetaData = field(default_factory=MetaData)
    filters: bool = True

    @property
    def config(self) -> Config:
        """What Alembic is given."""
        config = Config()
        config.set_main_option("script_location", str(self.folder))
        attributes = {
            "url": self.url,
            "metadata": self.metadata,
            "filters": self.filters,
            "schemas": not self.is_sqlite,
        }
        config.attributes.update(attributes)
        return config

    @property
    def is_sqlite(self) -> bool:
        """Which of the two databases it is."""
        return self.url.startswith("sqlite")

    def add(self, up: str, down: str) -> Path:
        """Write one more migration, which goes on from the first; it is not run."""
        name = f"r{next(self.numbers)}"
        previous = None if name == "r1" else "r1"
        text = REVISION.format(name=name, previous=previous, up=indent(up, "    "), down=indent(down, "    "))
        path = self.folder / "versions" / f"{name}.py"
        path.write_text(text)
        return path

    @contextmanager
    def added(self, up: str, down: str) -> Iterator[None]:
        """Have one more migration for a while, of tables that hold what they first held."""
        self.write("DELETE FROM member", "DELETE FROM team", *ROWS)
        path = self.add(up, down)
        yield
        path.unlink()

    def upgrade(self, revision: str = "head") -> None:
        """Run the migrations up to one."""
        command.upgrade(self.config, revision)

    def downgrade(self, revision: str) -> None:
        """Run them back to one."""
        command.downgrade(self.config, revision)

    def generate(self) -> str:
        """Write what `revision --autogenerate` makes of the database, and return it."""
        script: Any = command.revision(self.config, autogenerate=True, message="generated")
        return Path(script.path).read_text()

    def write(self, *statements: str) -> None:
        """Write as somebody who knows nothing of any of this."""
        if self.is_sqlite:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10)) as connection, connection:
                for statement in statements:
                    connection.execute(statement)
            return
        with psycopg.connect(self._libpq, autocommit=True) as server:
            for statement in statements:
                server.execute(statement.encode())

    def rows(self, table: str) -> list[dict[str, Any]] | None:
        """Return the rows of a table, read by another connection; None where there is no such table."""
        query = f"SELECT * FROM {table} ORDER BY id"
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = _rows(connection, query) if engine.dialect.has_table(connection, table) else None
        engine.dispose()
        return found

    @property
    def _libpq(self) -> str:
        return self.url.replace("+psycopg", "")


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.exec_driver_sql(query).mappings()]


def _migrations(folder: Path, url: str) -> Migrations:
    """Return a database with two tables, made by a first migration."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "script.py.mako").write_text(TEMPLATE)
    found = Migrations(folder, url)
    found.add(TABLES, "op.drop_table('member')\nop.drop_table('team')")
    found.upgrade()
    found.write(*ROWS)
    return found


@pytest.fixture
def sqlite(tmp_path: Path) -> Migrations:
    """Return a SQLite file and its migrations."""
    return _migrations(tmp_path / "migrations", f"sqlite:///{tmp_path}/team.db")


@pytest.fixture
def postgresql_migrations(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[Migrations]:
    """Give a PostgreSQL database and its migrations."""
    url = postgresql.new_database(driver="postgresql+psycopg")
    yield _migrations(tmp_path / "migrations", url)
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql_migrations"], ids=["sqlite", "postgresql"])
def migrations(request: pytest.FixtureRequest) -> Migrations:
    """Return the migrations of each database in turn."""
    found: Migrations = request.getfixturevalue(request.param)
    return found
