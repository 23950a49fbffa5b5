"""What is copied beside the tables: nothing of tables that nobody reads, and no secret, on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import String, TypeDecorator, make_url
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reactive_rpc import Capture, DefinitionError, ReactiveRPC, define_reactive_function
from reactive_rpc.changes.image_policy import ImagePolicy
from reactive_rpc.changes.secrets import says_secret, says_secret_as
from reactive_rpc.procedures.procedure import AnyProcedure
from tests.support.calls import by_path


class EncryptedString(TypeDecorator[str]):
    """A type that says what it holds."""

    impl = String
    cache_ok = True


class Account(SQLModel, table=True):
    """A table that is read."""

    __tablename__: ClassVar[Any] = "secrets_account"
    id: int | None = Field(default=None, primary_key=True)
    name: str = ""
    status: str = "new"
    reset_token: str | None = None
    password_hash: str = ""
    token_count: int = 0
    note: str = Field(default="", sa_type=EncryptedString)
    answer: SecretStr = Field(default=SecretStr(""), sa_type=String)


class Vault(SQLModel, table=True):
    """A table that nothing reads."""

    __tablename__: ClassVar[Any] = "secrets_vault"
    id: int | None = Field(default=None, primary_key=True)
    content: str = ""


class Named(BaseModel):
    name: str


class Token(BaseModel):
    token: str


@define_reactive_function
async def by_name(db: AsyncSession, input: Named) -> int:
    """Read by what may be copied."""
    return len((await db.exec(select(Account.id).where(Account.name == input.name))).all())


@define_reactive_function
async def by_token(db: AsyncSession, input: Token) -> int:
    """Read by a secret."""
    return len((await db.exec(select(Account.id).where(col(Account.reset_token) == input.token))).all())


FUNCTIONS: dict[str, dict[str, AnyProcedure]] = {"accounts": {"by_name": by_name, "by_token": by_token}}
ACCOUNT = (
    "INSERT INTO secrets_account(name, status, reset_token, password_hash, token_count, note, answer)"
    " VALUES ('{0}', 'new', 'tok-{0}', 'hash-{0}', 4711, 'note-{0}', 'answer-{0}')"
)


class Place:
    """A database, written and looked into past the application."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_file = url.startswith("sqlite")
        self.outbox = '"_reactive_rpc_outbox"' if self._is_file else "reactive_rpc.outbox"
        self.reads = '"_reactive_rpc_reads"' if self._is_file else "reactive_rpc.reads"

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own."""
        if self._is_file:
            with closing(sqlite3.connect(make_url(self.url).database or "")) as connection, connection:
                return connection.execute(statement).fetchall()
        plain = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as remote:
            cursor = remote.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def copied(self, table: str) -> str:
        """Return all that the outbox holds of a table, as one text."""
        return repr([row for row in self.run(f"SELECT * FROM {self.outbox}") if table in row])

    def operations(self, table: str) -> set[str]:
        """Return the operations that the outbox holds of a table."""
        return {op for (op,) in self.run(f"SELECT CAST(op AS text) FROM {self.outbox} WHERE tbl = '{table}'")}


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty database."""
    if request.param == "sqlite":
        return Place(f"sqlite+aiosqlite:///{tmp_path / 'secrets.db'}")
    return Place(request.getfixturevalue("postgresql_url"))


@asynccontextmanager
async def opened(place: Place, **options: Any) -> AsyncIterator[ReactiveRPC]:
    rpc = ReactiveRPC(place.url, functions=FUNCTIONS, metadata=SQLModel.metadata, **options)
    await rpc.admin.open()
    try:
        yield rpc
    finally:
        await rpc.admin.aclose()


async def test_a_table_that_nothing_reads_leaves_no_values(place: Place) -> None:
    """Its changes are told as the whole table's, keys included; from its first read on, values are told."""
    async with opened(place) as rpc:
        place.run("INSERT INTO secrets_vault(content) VALUES ('treasure')")
        place.run("UPDATE secrets_vault SET content = 'treasures'")
        place.run("DELETE FROM secrets_vault")
        place.run(ACCOUNT.format("early"))
        assert place.operations("secrets_vault") == {"B"}
        assert "treasure" not in place.copied("secrets_vault")
        assert place.operations("secrets_account") == {"B"}
        assert await by_path(rpc)("accounts.by_name", name="ada") == 0
        place.run(ACCOUNT.format("ada"))
        assert "ada" in place.copied("secrets_account")
        assert await by_path(rpc)("accounts.by_name", name="ada") == 1


async def test_precision_begins_with_the_first_read(place: Place) -> None:
    """What was computed first is kept through the next write that does not concern it."""
    async with opened(place) as rpc:
        await by_path(rpc)("accounts.by_name", name="ada")
        place.run(ACCOUNT.format("bob"))
        await by_path(rpc)("accounts.by_name", name="ada")
        assert rpc.admin.stats()["hits"] == 1


async def test_no_secret_stands_in_the_outbox(place: Place) -> None:
    """A column whose name or type says secret is never copied; a query by it is right, and forgotten with any write."""
    async with opened(place) as rpc:
        for path, input in (("accounts.by_token", {"token": "tok-ada"}), ("accounts.by_name", {"name": "ada"})):
            assert await by_path(rpc)(path, **input) == 0
        place.run(ACCOUNT.format("ada"))
        place.run("UPDATE secrets_account SET reset_token = 'tok-new', note = 'note-new'")
        copied = place.copied("secrets_account")
        assert "ada" in copied
        for secret in ("tok-", "hash-", "note-", "answer-"):
            assert secret not in copied
        assert await by_path(rpc)("accounts.by_token", token="tok-ada") == 0
        assert await by_path(rpc)("accounts.by_token", token="tok-new") == 1
        assert "4711" in copied


@pytest.mark.parametrize("exclude", [[Account.name], ["secrets_account.name"], [Account], ["secrets_account"]])
async def test_what_is_excluded_is_never_copied(place: Place, exclude: Sequence[object]) -> None:
    """By column or table, by model or name; what is named as an image is copied although its name says secret."""
    capture = Capture(exclude=exclude, images=["secrets_account.reset_token"])
    async with opened(place, capture=capture) as rpc:
        assert await by_path(rpc)("accounts.by_name", name="ada") == 0
        place.run(ACCOUNT.format("ada"))
        assert "'ada" not in place.copied("secrets_account").replace("sada", "'ada")
        assert ("tok-ada" in place.copied("secrets_account")) == (exclude[0] in (Account.name, "secrets_account.name"))
        assert await by_path(rpc)("accounts.by_name", name="ada") == 1


async def test_an_excluded_column_that_is_renamed_is_not_copied(place: Place) -> None:
    """Who runs on knows it by the old name alone: of its table nothing is copied until the next start."""
    async with opened(place, capture=Capture(exclude=["secrets_account.name"])) as rpc:
        assert await by_path(rpc)("accounts.by_token", token="tok-ada") == 0
        place.run("ALTER TABLE secrets_account RENAME COLUMN name TO called")
        assert await by_path(rpc)("accounts.by_token", token="tok-ada") == 0
        place.run(ACCOUNT.format("ada").replace("(name", "(called"))
        assert await by_path(rpc)("accounts.by_token", token="tok-ada") == 1
        assert "ada" not in place.copied("secrets_account")
        assert place.copied("secrets_account") != "[]"


async def test_who_looks_again_takes_what_was_imposed(place: Place) -> None:
    """A policy is imposed at a start, in a new epoch; workers that run on do not undo it, and stay right."""
    async with opened(place) as old:
        assert await by_path(old)("accounts.by_name", name="ada") == 0
        before = old.admin.report().epoch
        async with opened(place, capture=Capture(exclude=[Account.name])) as new:
            epoch = new.admin.report().epoch
            place.run(ACCOUNT.format("ada"))
            for rpc in (old, new):
                assert await by_path(rpc)("accounts.by_name", name="ada") == 1
            assert (old.admin.report().epoch, new.admin.report().epoch) == (epoch, epoch)
            assert epoch != before
        assert "ada" not in place.copied("secrets_account").replace("tok-ada", "")


async def test_a_note_that_nobody_repeats_is_forgotten(place: Place) -> None:
    """After 30 days without a read, a table leaves no values again."""
    async with opened(place) as rpc:
        await by_path(rpc)("accounts.by_name", name="ada")
        assert place.run(f"SELECT tbl FROM {place.reads}") == [("secrets_account",)]
        rpc._capture.prune(3600)
        assert place.run(f"SELECT tbl FROM {place.reads}") == [("secrets_account",)]
        aged = "at - 2600000" if "sqlite" in place.url else "at - interval '31 days'"
        place.run(f"UPDATE {place.reads} SET at = {aged}")
        rpc._capture.prune(3600)
        assert place.run(f"SELECT tbl FROM {place.reads}") == []


async def test_a_name_that_names_nothing_stops_the_start(place: Place) -> None:
    """A misspelt secret would be copied: the message names it."""
    for wrong in ("secrets_account.passwrd", "acount"):
        with pytest.raises(DefinitionError, match=wrong):
            async with opened(place, capture=Capture(exclude=[wrong])):
                pass
    with pytest.raises(DefinitionError, match="give a column"):
        Capture(exclude=[5])
    with pytest.raises(DefinitionError, match="give a list"):
        Capture(exclude="user.email")


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "passwordHash",
        "api_key",
        "apiKey",
        "otp",
        "totp_secret",
        "ssn",
        "IBAN",
        "pin",
        "credit_card_number",
        "salt",
        "access_token",
        "refreshToken",
        "private_key",
        "recovery_codes",
        "PasswordType",
        "EncryptedString",
        "smtp_pass",
        "mfa",
        "csrf",
        "passport_number",
        "encryptionKey",
        "accesstoken",
        "activation_code",
        "client_key",
        "pw",
    ],
)
def test_a_name_says_secret(name: str) -> None:
    """However it is spelled."""
    assert says_secret(name)


@pytest.mark.parametrize(
    "name", ["status", "owner", "email", "pinned", "token_count", "is_secret", "password_set_at", "author", "zip_code"]
)
def test_a_name_says_no_secret(name: str) -> None:
    """What tells of a secret, or only sounds like one, holds none."""
    assert not says_secret(name)


@pytest.mark.parametrize("name", ["session_id", "sessionId", "sid", "auth", "seed"])
def test_a_name_says_secret_of_a_text(name: str) -> None:
    """As a number or UUID the same name refers to a row."""
    assert all(says_secret_as(name, type_name) for type_name in ("text", "VARCHAR(64)"))
    assert not any(says_secret_as(name, type_name) for type_name in ("int8", "INTEGER", "uuid"))


def test_a_time_is_no_secret_and_exclusion_goes_before() -> None:
    """Types that hold no secret are copied whatever the column is called; what is excluded is excluded."""
    policy = ImagePolicy(exclude=frozenset({"t.images"}), images=frozenset({"t.images", "t.pin"}))
    assert policy.holds(["t"], "password_reset", "timestamptz")
    assert policy.holds(["t"], "pin", "text")
    assert not policy.holds(["t"], "images", "text")
