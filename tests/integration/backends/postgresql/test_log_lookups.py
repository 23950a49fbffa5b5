"""Look-ups of parents on PostgreSQL: whose code they run, and what happens to a parent that is altered meanwhile.

The order of a poll and of what others do is made certain by doing it where the log's own statement has just ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import psycopg
import pytest
from psycopg import errors
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.owner import read_strangers
from reactive_rpc.backends.postgresql.capture.tables import CATALOG_ONLY
from reactive_rpc.backends.postgresql.connection import ONLY_TABLES
from reactive_rpc.backends.postgresql.outbox import PollResult
from reactive_rpc.backends.postgresql.snapshot import TransactionSnapshot
from reactive_rpc.backends.postgresql.url import libpq_url
from reactive_rpc.clock import RandomIds
from reactive_rpc.dependencies.change import UNKNOWN
from reactive_rpc.dependencies.lookup import Lookup

from .tails import OpenTail, Tail, connected, create

ROLES = ("stranger", "server", "other")
TEAM = Lookup("w", "writer", "author", "id", "team")
STRANGERS_TEAM = Lookup("w", "writer", "stranger.author", "id", "team")
TRACE = 4711
"""The advisory lock that the stranger's function takes: whoever ran it holds it until it disconnects."""

STRANGERS_TABLE = f"""
CREATE SCHEMA stranger AUTHORIZATION stranger; SET ROLE stranger;
CREATE FUNCTION stranger.trojan(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM pg_catalog.pg_advisory_lock_shared({TRACE}); RETURN a; END $$;
CREATE TYPE stranger.key AS (n int);
CREATE FUNCTION stranger.number(stranger.key) RETURNS int8 LANGUAGE sql AS $$ SELECT stranger.trojan(($1).n) $$;
CREATE CAST (stranger.key AS int8) WITH FUNCTION stranger.number(stranger.key) AS IMPLICIT;
CREATE TABLE stranger.author (id int PRIMARY KEY, team int); INSERT INTO stranger.author VALUES (1, 7);
CREATE TABLE stranger.keyed (id stranger.key, team int); INSERT INTO stranger.keyed VALUES (ROW(1), 8);
"""
WAYS = {
    "an index": "CREATE INDEX ON stranger.author (stranger.trojan(1))",
    "a partial index": "CREATE INDEX ON stranger.author (team) WHERE stranger.trojan(1) = 1",
    "statistics": "CREATE STATISTICS stranger.s ON (stranger.trojan(1)), team FROM stranger.author",
    "a view in its place": "ALTER TABLE stranger.author RENAME TO aside;"
    " CREATE VIEW stranger.author AS SELECT id, stranger.trojan(team) AS team FROM stranger.aside",
    "a key that is cast": "ALTER TABLE stranger.author RENAME TO aside; ALTER TABLE stranger.keyed RENAME TO author",
    "another schema of its name": "ALTER SCHEMA stranger RENAME TO aside; CREATE SCHEMA stranger;"
    " CREATE TABLE stranger.author (id int, team int);"
    " CREATE INDEX ON stranger.author (aside.trojan(1))",
}
EXCHANGES = {
    "emptied": "TRUNCATE author",
    "dropped": "DROP TABLE author",
    "exchanged": "ALTER TABLE author RENAME TO aside; ALTER TABLE new_author RENAME TO author",
    "a view in its place": "ALTER TABLE author RENAME TO aside; CREATE VIEW author AS SELECT 1 AS id, 8 AS team",
}


@pytest.fixture
def url(postgresql_url: str) -> str:
    """Return the URL of a database with the tables `w(id, writer)` and `author(id, team)`, which holds (1, 7)."""
    create(postgresql_url)
    with closing(connected(postgresql_url)) as connection:
        connection.execute("CREATE TABLE author (id INTEGER PRIMARY KEY, team INTEGER)")
        connection.execute("INSERT INTO author VALUES (1, 7)")
        connection.execute("CREATE TABLE new_author (id INTEGER PRIMARY KEY, team INTEGER)")
    return postgresql_url


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return a superuser's connection that waits for no lock, to a database in which the roles have nothing yet."""
    with closing(connected(url)) as connection:
        connection.execute("SET lock_timeout = '1ms'")
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN".encode())
        yield connection
        connection.execute("RESET ROLE; RESET lock_timeout; DROP SCHEMA IF EXISTS reactive_rpc CASCADE")
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def _run(connection: psycopg.Connection[Any], script: str) -> None:
    connection.execute(script.encode())


def _after_each_poll(tail: Tail, act: Callable[[int], None]) -> None:
    """Call `act` with the number of the poll whenever the statement that reads the outbox has ended."""
    polled, count = tail.log._outbox.poll, 0

    async def poll(after: TransactionSnapshot | None) -> PollResult:
        nonlocal count
        look = await polled(after)
        count += 1
        act(count)
        return look

    tail.log._outbox.poll = poll  # type: ignore[method-assign]  # the one place where the order can be told


def _wanted(tail: Tail, *lookups: Lookup) -> None:
    tail.log.enrich_with(lambda table: lookups if table == "w" else ())


def _values(tail: Tail, lookup: Lookup) -> list[object]:
    """Poll and return what the virtual column holds of each row that was inserted."""
    return [change.after.get(lookup.name, UNKNOWN) for batch in tail.poll() for change in batch.changes if change.after]


def _ran(tail: Tail, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the log's connection has run what the stranger defined."""
    (count,) = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = %s",
        (TRACE, tail.log._outbox._connection.get_server_pid()),
    ).fetchone() or (None,)
    return bool(count)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_look_up_runs_nothing_that_a_stranger_has_defined(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any], way: str
) -> None:
    """Neither what stands on the table already nor what its owner adds between the poll and the look-up."""
    _run(admin, f'GRANT CREATE ON DATABASE "{make_url(url).database}" TO stranger; {STRANGERS_TABLE} RESET ROLE')
    tail = open_tail(url)
    _wanted(tail, STRANGERS_TEAM)

    ways = [way]

    def sabotage(poll: int) -> None:
        if poll == 2 and ways:
            with suppress(errors.LockNotAvailable):
                _run(admin, f"SET ROLE stranger; {ways.pop()}")
            _run(admin, "RESET ROLE")

    _after_each_poll(tail, sabotage)
    for n in (1, 2, 3):
        _run(admin, f"INSERT INTO w VALUES ({n}, 1)")
        values = _values(tail, STRANGERS_TEAM)
        assert not _ran(tail, admin)
        assert [value for value in values if value is not UNKNOWN] == []
    assert ways == []


def test_a_stranger_s_parent_is_warned_of_once(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The owner's name and the way out; the look-up is not tried again with every batch."""
    _run(admin, f"{STRANGERS_TABLE} RESET ROLE")
    tail = open_tail(url)
    _wanted(tail, STRANGERS_TEAM)
    for n in (1, 2):
        _run(admin, f"INSERT INTO w VALUES ({n}, 1)")
        tail.poll()
    (message,) = [record.getMessage() for record in caplog.records if "looked up" in record.getMessage()]
    assert "what 'stranger' defines there" in message
    assert "GRANT it this role" in message


def test_the_stranger_s_function_leaves_its_trace(admin: psycopg.Connection[Any]) -> None:
    """Planning a SELECT of built-in types runs it as whoever selects, which the test above rests on."""
    _run(admin, f"{STRANGERS_TABLE} {WAYS['an index']}; RESET ROLE; SELECT pg_advisory_unlock_all()")
    _run(admin, "SELECT team FROM stranger.author WHERE id = 1")
    held = admin.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid()", [TRACE]
    )
    assert held.fetchone() == (1,)


@pytest.mark.parametrize("ddl", EXCHANGES.values(), ids=EXCHANGES)
def test_a_parent_stays_what_was_verified_until_it_has_been_looked_up(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any], ddl: str
) -> None:
    """Nobody can exchange or empty it in between, when a row that is there would seem not to be."""
    tail = open_tail(url)
    _wanted(tail, TEAM)
    refused: list[int] = []

    def exchange(poll: int) -> None:
        if poll == 2:
            try:
                _run(admin, ddl)
            except errors.LockNotAvailable:
                refused.append(poll)

    _after_each_poll(tail, exchange)
    _run(admin, "INSERT INTO w VALUES (1, 1)")
    assert _values(tail, TEAM) == [{7}]
    assert refused == [2]
    _run(admin, ddl)


@pytest.mark.parametrize("ddl", EXCHANGES.values(), ids=EXCHANGES)
def test_a_parent_that_was_exchanged_before_it_was_locked_is_verified_anew(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any], ddl: str
) -> None:
    """The first poll verified another table: nothing is said of its rows by what stands in its place now."""
    tail = open_tail(url)
    _wanted(tail, TEAM)
    _after_each_poll(tail, lambda poll: _run(admin, ddl) if poll == 1 else None)
    _run(admin, "INSERT INTO w VALUES (1, 1)")
    batches = tail.poll()
    received = [change.after.get(TEAM.name, UNKNOWN) for batch in batches for change in batch.changes if change.after]
    assert received == ([set()] if ddl.startswith("TRUNCATE") else []), "a new epoch forgets all, and tells no row"
    assert [batch.flush is not None for batch in batches] == [not ddl.startswith("TRUNCATE")]


def test_a_parent_that_somebody_alters_is_unknown_and_not_waited_for(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any]
) -> None:
    """A migration that holds a parent holds up no poll; once it has ended, the parent is looked up again."""
    tail = open_tail(url)
    _wanted(tail, TEAM)
    with closing(connected(url)) as migration:
        migration.execute("BEGIN; LOCK TABLE author IN ACCESS EXCLUSIVE MODE")
        _run(admin, "INSERT INTO w VALUES (1, 1)")
        assert _values(tail, TEAM) == [UNKNOWN]
        migration.execute("ROLLBACK")
    _run(admin, "INSERT INTO w VALUES (2, 1)")
    assert _values(tail, TEAM) == [{7}]


def test_one_parent_that_may_not_be_read_costs_no_other(
    url: str, open_tail: OpenTail, admin: psycopg.Connection[Any]
) -> None:
    """Each is locked for itself: what fails is left out of the same transaction."""
    tail = open_tail(url)
    hidden = Lookup("w", "writer", "new_author", "id", "team")
    _wanted(tail, hidden, TEAM)
    _run(admin, "GRANT USAGE ON SCHEMA reactive_rpc TO other; GRANT SELECT ON author TO other")
    _run(admin, "GRANT SELECT ON ALL TABLES IN SCHEMA reactive_rpc TO other; GRANT pg_monitor TO other")
    tail.run(tail.log._outbox._connection.execute("SET ROLE other"))
    for n in (1, 2):
        _run(admin, f"INSERT INTO w VALUES ({n}, 1)")
        (batch,) = tail.poll()
        images = [change.after for change in batch.changes if change.after]
        assert [(image.get(hidden.name, UNKNOWN), image[TEAM.name]) for image in images] == [(UNKNOWN, frozenset({7}))]


WHOM = {
    "a superuser trusts no ordinary role": ("postgres", "", {"stranger", "other"}),
    "but one that may become it": ("postgres", "GRANT postgres TO other", {"stranger"}),
    "and no other owner of a database's schema public": (
        "postgres",
        "ALTER DATABASE {database} OWNER TO other",
        {"stranger", "other", "pg_database_owner"},
    ),
    "an ordinary role trusts whom it is a member of": ("server", "GRANT other TO server", {"stranger"}),
    "and the owner of the database": ("server", "ALTER DATABASE {database} OWNER TO other", {"stranger"}),
    "and the one to whom all belongs": ("server", "ALTER TABLE theirs OWNER TO stranger", set()),
    "but nobody if it may do more than others": (
        "server",
        "ALTER ROLE server REPLICATION; ALTER TABLE theirs OWNER TO stranger",
        {"stranger"},
    ),
}


@pytest.mark.parametrize(("reader", "ddl", "strangers"), WHOM.values(), ids=WHOM)
def test_whom_a_reader_trusts(
    url: str, admin: psycopg.Connection[Any], reader: str, ddl: str, strangers: set[str]
) -> None:
    """Those who gain nothing by acting as the reader; whoever else owns a table or a schema is a stranger."""
    _run(admin, "DROP TABLE w, author, new_author; CREATE TABLE his (id int); ALTER TABLE his OWNER TO stranger")
    _run(admin, "CREATE TABLE theirs (id int); ALTER TABLE theirs OWNER TO other")
    _run(admin, ddl.format(database=make_url(url).database))
    with psycopg.connect(libpq_url(make_url(url).set(username=reader)), autocommit=True) as connection:
        connection.execute(CATALOG_ONLY)
        assert read_strangers(connection) == strangers
    _run(admin, f"ALTER DATABASE {make_url(url).database} OWNER TO postgres")


def test_the_owner_of_a_schema_or_a_partition_may_be_the_stranger(url: str, admin: psycopg.Connection[Any]) -> None:
    """Either can put another table in the place of what is trusted, or code into the plan."""
    _run(
        admin,
        "CREATE SCHEMA theirs AUTHORIZATION other; CREATE TABLE theirs.plain (id int);"
        " CREATE TABLE parted (id int) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF parted DEFAULT;"
        " ALTER TABLE part OWNER TO stranger",
    )
    tables = PostgreSQLCapture(make_url(url), ids=RandomIds()).install().tables
    assert {name: table.stranger for name, table in tables.items() if table.stranger} == {
        "theirs.plain": "other",
        "parted": "stranger",
    }
    assert tables["author"].stranger is None


def test_connections_of_our_own_read_no_view(url: str, open_tail: OpenTail, admin: psycopg.Connection[Any]) -> None:
    """The last line of defence, on servers that know the setting; on others the statement does nothing."""
    _run(admin, "CREATE VIEW v AS SELECT 1")
    tail = open_tail(url)
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="non-system view"):
        tail.run(tail.log._outbox._connection.execute("SELECT * FROM public.v"))
    capture = PostgreSQLCapture(make_url(url), ids=RandomIds())
    with capture._connected() as connection, pytest.raises(errors.ObjectNotInPrerequisiteState):
        connection.execute("SELECT * FROM public.v")
    unknown = ONLY_TABLES.replace("restrict_nonsystem_relation_kind", "restrict_nothing")
    assert admin.execute(unknown.encode()).fetchall() == []
