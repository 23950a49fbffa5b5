"""With whose rights what others have defined runs, where our triggers are: never with more than the writer's own.

The hostile functions say as whom they run by a notice, which survives whatever is rolled back or caught.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import make_url

from reactive_rpc.backends.postgresql.capture.backend import PostgreSQLCapture
from reactive_rpc.backends.postgresql.capture.owner import ROLE
from reactive_rpc.backends.postgresql.connection import connect
from reactive_rpc.backends.postgresql.database import _PLACE
from reactive_rpc.backends.postgresql.ephemeral_store import PostgreSQLEphemeralStore
from reactive_rpc.backends.postgresql.leftovers import _CLEAN, _OWN
from reactive_rpc.backends.postgresql.locks import ASK_LOCKED, ASK_SHOWN
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import CaptureError
from reactive_rpc.testing.postgresql import PostgreSQL

ROLES = ("villain", "writer", "plain_app", "dba")
VILLAIN = """
SET ROLE villain;
CREATE SEQUENCE calls; GRANT USAGE ON SEQUENCE calls TO PUBLIC;
CREATE FUNCTION trojan(what text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM pg_catalog.nextval('villain.calls');
  RAISE NOTICE 'ran as % %', current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
  RETURN what || ' (changed)'; END $$;
CREATE TYPE mood AS ENUM ('red', 'green');
CREATE TYPE hue AS ENUM ('red', 'green');
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION hue_text(hue) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT villain.trojan('constant') $$;
CREATE CAST (hue AS text) WITH FUNCTION hue_text(hue) AS ASSIGNMENT;
CREATE FUNCTION mood_text(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT villain.trojan('constant') $$;
CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql AS $$ SELECT to_json(villain.trojan('x')) $$;
CREATE FUNCTION pair_text(pair) RETURNS text LANGUAGE sql AS $$ SELECT villain.trojan('x') $$;
CREATE FUNCTION is_fine(text) RETURNS bool LANGUAGE sql AS $$ SELECT villain.trojan('x') <> '' $$;
CREATE FUNCTION octet_length(mood) RETURNS int LANGUAGE sql AS $$ SELECT length(villain.trojan('x')) $$;
CREATE FUNCTION textin(mood) RETURNS text LANGUAGE sql AS $$ SELECT villain.trojan('x') $$;
CREATE FUNCTION enum_out(mood) RETURNS text LANGUAGE sql AS $$ SELECT villain.trojan('x') $$;
CREATE FUNCTION jsonb_agg(jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(villain.trojan('x')) $$;
CREATE FUNCTION same(mood, mood) RETURNS bool LANGUAGE sql AS $$ SELECT villain.trojan('x') = '' $$;
CREATE FUNCTION same(mood, text) RETURNS bool LANGUAGE sql AS $$ SELECT villain.trojan('x') = '' $$;
CREATE FUNCTION glued(text, mood) RETURNS text LANGUAGE sql AS $$ SELECT villain.trojan('x') $$;
CREATE OPERATOR = (leftarg = mood, rightarg = mood, function = same);
CREATE OPERATOR = (leftarg = mood, rightarg = text, function = same);
CREATE OPERATOR *<> (leftarg = mood, rightarg = mood, function = same);
CREATE OPERATOR || (leftarg = text, rightarg = mood, function = glued);
CREATE CAST (mood AS text) WITH FUNCTION mood_text(mood) AS IMPLICIT;
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood) AS IMPLICIT;
CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair) AS IMPLICIT;
CREATE DOMAIN checked AS text CHECK (villain.is_fine(VALUE));
CREATE DOMAIN feeling AS mood;
CREATE TABLE lamp (
  id int PRIMARY KEY, state mood, hue hue DEFAULT 'green', felt feeling, note text, name text, p pair,
  word checked DEFAULT villain.trojan('x'),
  made text GENERATED ALWAYS AS (villain.trojan('x')) STORED, CHECK (villain.is_fine(note))
);
CREATE INDEX ON lamp (villain.trojan(note));
ALTER TABLE lamp ENABLE ROW LEVEL SECURITY; ALTER TABLE lamp FORCE ROW LEVEL SECURITY;
CREATE POLICY everything ON lamp USING (id IS NOT NULL);
CREATE TABLE parts (id int, state mood) PARTITION BY LIST (state);
CREATE TABLE parts_red PARTITION OF parts FOR VALUES IN ('red');
CREATE TABLE bulbs (watts int) INHERITS (lamp);
GRANT USAGE ON SCHEMA villain TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA villain TO writer;
RESET ROLE;
"""
WRITES = (
    "INSERT INTO villain.lamp(id, state, felt, note, p) VALUES ({n}, 'red', 'green', 'a', '(1,x)'),"
    " ({n} + 1, 'red', 'red', 'b', NULL)",
    "UPDATE villain.lamp SET state = 'green' WHERE id = {n}",
    "UPDATE villain.lamp SET state = 'red', note = 'z', p = '(2,y)'",
    "INSERT INTO villain.parts VALUES ({n}, 'red')",
    "INSERT INTO villain.parts_red VALUES ({n}, 'red')",
    "DELETE FROM villain.parts",
    "INSERT INTO villain.bulbs(id, state, note) VALUES ({n} + 2, 'red', 'c')",
    "DELETE FROM villain.lamp",
    "TRUNCATE villain.lamp CASCADE",
)
RETYPED = ("ALTER TABLE villain.lamp ALTER COLUMN name TYPE villain.mood USING 'red'",)


def _plain(url: str, **changed: Any) -> str:
    return make_url(url).set(drivername="postgresql", **changed).render_as_string(hide_password=False)


def _capture(url: str, role: str | None = None, *, manage: bool = True) -> PostgreSQLCapture:
    parsed = make_url(url) if role is None else make_url(url).set(username=role)
    return PostgreSQLCapture(parsed, ids=RandomIds(), manage=manage)


class Stage:
    """A database with hostile definitions, and roles that write."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[str] = []
        self.admin = psycopg.connect(_plain(url), autocommit=True)
        self.admin.add_notice_handler(lambda notice: self.heard.append(notice.message_primary or ""))

    def run(self, script: str) -> None:
        """Run a script as the superuser."""
        self.admin.execute(script.encode())

    def value(self, sql: str) -> Any:
        """Return one value."""
        row = self.admin.execute(sql.encode()).fetchone()
        assert row is not None
        return row[0]

    def ran_as(self) -> set[str]:
        """Return as whom hostile functions have run since the last call, `role is_superuser`."""
        found = {match[1] for text in self.heard if (match := re.match("ran as (.*)", text))}
        self.heard.clear()
        return found


@pytest.fixture
def stage(postgresql_url: str, postgresql: PostgreSQL) -> Iterator[Stage]:
    """Return the stage, before capture is installed."""
    stage = Stage(postgresql_url)
    drop = "".join(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role};" for role in ROLES)
    stage.run("".join(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN;" for role in ROLES))
    stage.run("CREATE SCHEMA villain AUTHORIZATION villain; SET search_path = villain, pg_catalog;" + VILLAIN)
    stage.run("RESET search_path")
    stage.ran_as()
    yield stage
    stage.run(f"RESET ROLE; DROP SCHEMA IF EXISTS reactive_rpc CASCADE; {drop}")
    stage.admin.close()


def _write(stage: Stage, setting: str, number: int) -> None:
    stage.run(f"SET ROLE writer; {setting}")
    for write in WRITES:
        stage.run(write.format(n=number))
    stage.run("RESET ROLE; RESET search_path")


def test_what_an_owner_defines_never_runs_with_more_than_the_writers_rights(stage: Stage) -> None:
    """Casts, operators, functions, domains and defaults of a hostile owner run as the writer, or not at all.

    Also where the search path finds them first, and where the owner has altered a column since the triggers were made.
    """
    _capture(stage.url).install()
    assert stage.ran_as() == set()
    for number, setting in enumerate(("", "SET search_path = villain, pg_catalog, public")):
        _write(stage, setting, number * 10)
        assert stage.ran_as() == {"writer f"}
    stage.run("SET ROLE villain")
    for altered in RETYPED:
        stage.run(altered)
    stage.run("RESET ROLE")
    stage.ran_as()
    _write(stage, "", 100)
    assert stage.ran_as() == {"writer f"}
    last = "SELECT DISTINCT op::text FROM reactive_rpc.outbox WHERE tbl = 'villain.lamp' AND id > {}"
    assert stage.value(last.format(stage.value("SELECT max(id) FROM reactive_rpc.outbox") - 3)) == "B"


def test_the_triggers_add_no_call_of_what_an_owner_defines(stage: Stage) -> None:
    """A table whose columns alone are hostile calls nothing of its owner's when it is written: images need none."""
    stage.run("SET search_path = villain, pg_catalog; SET ROLE villain")
    stage.run(
        "CREATE TABLE calm (id int PRIMARY KEY, state mood, felt feeling, p pair, m mood[], hue hue DEFAULT 'red')"
    )
    stage.run("GRANT ALL ON calm TO writer; RESET ROLE; RESET search_path")
    capture = _capture(stage.url)
    state = capture.install()
    stage.run(
        "SET ROLE writer; INSERT INTO villain.calm"
        " VALUES (1, 'red', 'green', '(1,x)', '{red}'), (2, NULL, NULL, NULL, NULL)"
    )
    stage.run("UPDATE villain.calm SET state = 'green', felt = NULL; DELETE FROM villain.calm; RESET ROLE")
    assert stage.ran_as() == set()
    assert state.tables["villain.calm"].captured


def test_images_hold_the_label_and_not_what_a_cast_makes_of_it(postgresql_url: str) -> None:
    """An explicit cast of the owner's leaves comparisons as they are, and the image holds what they compare."""
    with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
        connection.execute("CREATE TYPE state AS ENUM ('red', 'green'); CREATE DOMAIN mode AS state")
        connection.execute("CREATE FUNCTION changed(state) RETURNS text LANGUAGE sql AS $$ SELECT 'Rot' $$")
        connection.execute("CREATE CAST (state AS text) WITH FUNCTION changed(state) AS ASSIGNMENT")
        connection.execute("CREATE TABLE lamp (id int PRIMARY KEY, state state, mode mode)")
        assert _capture(postgresql_url).install().tables["lamp"].kinds == {
            "id": "integer",
            "state": "label",
            "mode": "label",
        }
        connection.execute("INSERT INTO lamp VALUES (1, 'red', 'green')")
        rows = connection.execute("SELECT rows FROM reactive_rpc.outbox WHERE op = 'I'").fetchall()
    assert rows == [([[1, "sred", "sgreen"]],)]


DOUBTFUL = {
    "an implicit cast by a function": "CREATE CAST (state AS text) WITH FUNCTION f(state) AS IMPLICIT",
    "an implicit cast to it": "CREATE CAST (varchar AS state) WITH FUNCTION g(varchar) AS IMPLICIT",
    "an operator of it with text": "CREATE OPERATOR = (leftarg = state, rightarg = text, function = h)",
    "an operator of it with itself": "CREATE OPERATOR < (leftarg = state, rightarg = state, function = h)",
}


@pytest.mark.parametrize("ddl", DOUBTFUL.values(), ids=DOUBTFUL)
def test_no_condition_rests_on_what_may_be_compared_by_a_users_function(postgresql_url: str, ddl: str) -> None:
    """Where comparisons may be the users' own, the column's kind is gone, in a new epoch; with them it comes back."""
    with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
        connection.execute("""
            CREATE TYPE state AS ENUM ('red', 'green'); CREATE TABLE lamp (id int PRIMARY KEY, state state, t text);
            CREATE FUNCTION f(state) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
            CREATE FUNCTION g(varchar) RETURNS state LANGUAGE sql AS $$ SELECT 'red'::state $$;
            CREATE FUNCTION h(state, text) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
            CREATE FUNCTION h(state, state) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
        """)
        capture = _capture(postgresql_url)
        before = capture.install()
        connection.execute(ddl.encode())
        after = capture.refresh()
    assert before.kind("lamp", "state") == "label"
    assert after.kind("lamp", "state") is None
    assert after.kind("lamp", "id") == "integer"
    assert (after.epoch != before.epoch, after.schema_fingerprint != before.schema_fingerprint) == (True, True)


def test_operators_and_casts_between_a_users_own_types_are_no_concern(postgresql_url: str) -> None:
    """A type of the user's with comparisons and a cast by text widens nothing; on built-in types it widens those."""
    with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
        connection.execute("""
            CREATE TYPE state AS ENUM ('red'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN code AS varchar;
            CREATE TABLE lamp (id int PRIMARY KEY, state state, v varchar, t text, c code);
            CREATE FUNCTION h(pair, pair) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
            CREATE FUNCTION h(varchar, varchar) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
            CREATE FUNCTION h(code, code) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
            CREATE OPERATOR = (leftarg = pair, rightarg = pair, function = h);
            CREATE CAST (varchar AS state) WITH INOUT AS IMPLICIT;
        """)
        capture = _capture(postgresql_url)
        state = capture.install()
        assert None not in state.tables["lamp"].kinds.values()
        assert not state.redefines("operator =")
        connection.execute("CREATE OPERATOR = (leftarg = code, rightarg = code, function = h)")
        state = capture.refresh()
        assert {name for name, kind in state.tables["lamp"].kinds.items() if kind is None} == {"c"}
        connection.execute("CREATE OPERATOR = (leftarg = varchar, rightarg = varchar, function = h)")
        state = capture.refresh()
    assert {name for name, kind in state.tables["lamp"].kinds.items() if kind is None} == {"v", "c"}
    assert state.redefines("operator =")


def test_altered_text_search_begins_an_epoch(postgresql_url: str) -> None:
    """What `to_tsvector` makes of a text is part of what a result rests on; a new configuration is nobody's concern."""
    with psycopg.connect(_plain(postgresql_url), autocommit=True) as connection:
        connection.execute("CREATE TEXT SEARCH CONFIGURATION ours (COPY = english)")
        capture = _capture(postgresql_url)
        states = [capture.install()]
        connection.execute("CREATE TEXT SEARCH CONFIGURATION another (COPY = english)")
        assert capture.refresh().epoch == states[0].epoch
        for ddl in (
            "ALTER TEXT SEARCH CONFIGURATION ours ALTER MAPPING FOR asciiword WITH simple",
            "ALTER TEXT SEARCH CONFIGURATION ours DROP MAPPING FOR word",
            "ALTER TEXT SEARCH CONFIGURATION pg_catalog.english ALTER MAPPING FOR asciiword WITH simple",
            "ALTER TEXT SEARCH DICTIONARY english_stem (StopWords = russian)",
        ):
            connection.execute(ddl.encode())
            states.append(capture.refresh())
    assert len({state.epoch for state in states}) == len({state.schema_fingerprint for state in states}) == len(states)


def test_our_functions_have_rights_on_the_outbox_and_nothing_else(stage: Stage) -> None:
    """Whoever installs, the functions belong to a role that cannot log in and can do nothing but insert."""
    _capture(stage.url).install()
    owners = "SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'reactive_rpc'::regnamespace"
    assert stage.admin.execute(owners.encode()).fetchall() == [(ROLE,)]
    assert not stage.value(f"SELECT rolcanlogin OR rolsuper FROM pg_roles WHERE rolname = '{ROLE}'")
    assert not stage.value(f"SELECT has_schema_privilege('{ROLE}', 'reactive_rpc', 'CREATE')")
    stage.run(f"SET ROLE {ROLE}")
    stage.run("INSERT INTO reactive_rpc.outbox(tbl, op) VALUES ('x', 'B')")
    for refused in (
        "SELECT FROM reactive_rpc.outbox",
        "DELETE FROM reactive_rpc.outbox",
        "UPDATE reactive_rpc.meta SET value = ''",
        "SELECT FROM reactive_rpc.meta",
        "SELECT FROM reactive_rpc.ephemeral_store",
        "INSERT INTO reactive_rpc.outbox(tbl, op, xid) VALUES ('x', 'B', '1')",
        "CREATE FUNCTION reactive_rpc.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT FROM villain.lamp",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            stage.run(refused)
    stage.run("RESET ROLE")


def test_a_writer_can_neither_call_our_functions_nor_put_them_on_tables_of_their_own(stage: Stage) -> None:
    """Even one who may look into our schema: EXECUTE is nobody's but the owner's."""
    _capture(stage.url).install()
    name = stage.value(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'reactive_rpc'::regnamespace AND proname ~ 'lamp' LIMIT 1"
    )
    stage.run("GRANT USAGE ON SCHEMA reactive_rpc TO villain; SET ROLE villain")
    for refused in (
        f"CREATE TRIGGER t AFTER INSERT ON villain.lamp EXECUTE FUNCTION reactive_rpc.{name}()",
        "SELECT reactive_rpc.announce('x')",
        "INSERT INTO reactive_rpc.outbox(tbl, op) VALUES ('x', 'B')",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            stage.run(refused)
    stage.run("RESET ROLE")


@pytest.mark.parametrize(
    "weakened",
    [
        "ALTER FUNCTION reactive_rpc.{f}() OWNER TO CURRENT_USER",
        "GRANT EXECUTE ON FUNCTION reactive_rpc.{f}() TO PUBLIC",
        "ALTER FUNCTION reactive_rpc.announce(text, jsonb) OWNER TO CURRENT_USER",
        f"REVOKE INSERT (rows) ON reactive_rpc.outbox FROM {ROLE}",
    ],
)
def test_an_installation_with_other_rights_is_reported_and_mended(stage: Stage, weakened: str) -> None:
    """What runs as somebody else, as installations of before do, fails `verify`; a start mends it in a new epoch."""
    capture = _capture(stage.url)
    epoch = capture.install().epoch
    function = stage.value(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'reactive_rpc'::regnamespace AND proname ~ 'lamp' LIMIT 1"
    )
    stage.run(weakened.format(f=function))
    with pytest.raises(CaptureError, match="not in place"):
        capture.verify()
    assert capture.install().epoch != epoch
    assert capture.verify().epoch == capture.install().epoch


def test_an_ordinary_role_that_owns_its_tables_needs_no_other(stage: Stage) -> None:
    """Without CREATEROLE the functions are its own, which gives the tables' owner nothing new; writers are captured."""
    stage.run("CREATE SCHEMA app AUTHORIZATION plain_app; DROP SCHEMA villain CASCADE")
    stage.run(f'GRANT CREATE ON DATABASE "{stage.value("SELECT current_database()")}" TO plain_app')
    stage.run("SET ROLE plain_app; CREATE TABLE app.note (id int); GRANT USAGE ON SCHEMA app TO writer;")
    stage.run("GRANT INSERT ON app.note TO writer; RESET ROLE")
    capture = _capture(stage.url, "plain_app")
    assert capture.install().tables["app.note"].captured
    assert capture.verify().tables["app.note"].captured
    stage.run("SET ROLE writer; INSERT INTO app.note VALUES (1); RESET ROLE")
    assert stage.value("SELECT count(*) FROM reactive_rpc.outbox WHERE op = 'I'") == 1
    with pytest.raises(CaptureError, match="belongs to plain_app"):
        _capture(stage.url).install()


def test_a_role_that_makes_roles_installs_without_being_superuser(stage: Stage) -> None:
    """As on managed servers: it makes the role, gives it the functions, and keeps nothing that it does not need."""
    stage.run("ALTER ROLE dba CREATEROLE; GRANT villain TO dba")
    stage.run(f'GRANT CREATE ON DATABASE "{stage.value("SELECT current_database()")}" TO dba')
    stage.run(f"GRANT {ROLE} TO dba WITH ADMIN OPTION" if stage.value(_HAS_ROLE) else "SELECT 1")
    capture = _capture(stage.url, "dba")
    assert capture.install().tables["villain.lamp"].captured
    assert capture.script() == ""
    _write(stage, "", 0)
    assert stage.ran_as() == {"writer f"}


_HAS_ROLE = f"SELECT count(*) FROM pg_roles WHERE rolname = '{ROLE}'"


def test_a_role_that_may_not_make_the_owner_is_told_the_sql(stage: Stage) -> None:
    """An installer that owns no table and makes no roles is refused; what an administrator then runs is enough."""
    stage.run("GRANT villain TO plain_app")
    stage.run(f'GRANT CREATE ON DATABASE "{stage.value("SELECT current_database()")}" TO plain_app')
    with pytest.raises(CaptureError, match="Let an administrator run") as refused:
        _capture(stage.url, "plain_app").install()
    stage.run(str(refused.value).split("transaction", 1)[1].split("\n", 1)[1])
    assert _capture(stage.url, "plain_app", manage=False).install().tables["villain.lamp"].captured


def test_what_a_stranger_has_laid_out_in_our_schema_is_refused(stage: Stage) -> None:
    """A schema that somebody else made before us, with triggers of theirs, is not written into; it may be dropped."""
    stage.run("CREATE SCHEMA reactive_rpc AUTHORIZATION villain; SET ROLE villain")
    stage.run('CREATE TABLE reactive_rpc.outbox (id int, xid xid8, tbl text, op "char", rows jsonb)')
    stage.run(
        "CREATE FUNCTION reactive_rpc.spring() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM villain.trojan('x'); RETURN NULL; END $$"
    )
    stage.run("CREATE TRIGGER spring AFTER INSERT ON reactive_rpc.outbox EXECUTE FUNCTION reactive_rpc.spring()")
    stage.run("RESET ROLE")
    for capture in (_capture(stage.url), _capture(stage.url, "plain_app")):
        with pytest.raises(CaptureError, match="belongs to villain"):
            capture.install()
    assert stage.ran_as() == set()
    _capture(stage.url).uninstall()
    assert _capture(stage.url).install().tables["villain.lamp"].captured


def test_the_installer_calls_nothing_that_users_have_defined(stage: Stage) -> None:
    """Functions and operators that fit our own queries better than the built-in ones are not found by them."""
    stage.run(
        "SET ROLE villain; CREATE FUNCTION villain.glued(oid, text) RETURNS text LANGUAGE sql AS"
        " $$ SELECT villain.trojan('x') $$"
    )
    stage.run("CREATE OPERATOR villain.|| (leftarg = oid, rightarg = text, function = villain.glued)")
    stage.run(
        "CREATE FUNCTION villain.concat_ws(text, oid, xid) RETURNS text LANGUAGE sql AS"
        " $$ SELECT villain.trojan('x') $$; RESET ROLE"
    )
    stage.run("ALTER ROLE postgres SET search_path = villain, public; ALTER SEQUENCE villain.calls RESTART")
    try:
        capture = _capture(stage.url)
        assert capture.install().tables["lamp"].captured
        assert capture.refresh(renew=True).names["villain.lamp"] == "lamp"
    finally:
        stage.run("ALTER ROLE postgres RESET search_path")
    # Notices tell of this test's connection alone, the sequence of any.
    assert stage.value("SELECT is_called FROM villain.calls") is False


def test_what_we_ask_beside_a_handler_calls_nothing_that_users_have_defined(stage: Stage) -> None:
    """Under the application's search path, where a function that fits better than one of any arguments is preferred."""
    numbers = "bigint, boolean, numeric"
    stage.run(
        f"SET ROLE villain; CREATE FUNCTION villain.concat_ws(text, {numbers}) RETURNS text LANGUAGE sql AS"
        " $$ SELECT villain.trojan('x') $$; CREATE FUNCTION villain.json_build_array(text, json) RETURNS json"
        " LANGUAGE sql AS $$ SELECT to_json(villain.trojan('x')) $$;"
        " CREATE FUNCTION villain.json_build_array(text, text, text, boolean) RETURNS json"
        " LANGUAGE sql AS $$ SELECT to_json(villain.trojan('x')) $$; RESET ROLE"
    )
    stage.run("SET search_path = villain, public; ALTER SEQUENCE villain.calls RESTART")
    for statement in (ASK_SHOWN, ASK_LOCKED, _PLACE, _OWN, _CLEAN):
        stage.run(statement)
    assert stage.value("SELECT is_called FROM villain.calls") is False


def test_the_ephemeral_store_calls_nothing_that_users_have_defined(stage: Stage) -> None:
    """A function that takes a text is preferred for a parameter of no known type."""
    _capture(stage.url).install()
    stage.run(
        "SET ROLE villain; CREATE FUNCTION villain.make_interval(secs text) RETURNS interval LANGUAGE sql AS"
        " $$ SELECT pg_catalog.make_interval(secs => 60 + length(villain.trojan('x'))) $$; RESET ROLE"
    )
    stage.run("ALTER ROLE postgres SET search_path = villain, public; ALTER SEQUENCE villain.calls RESTART")

    async def put() -> None:
        store = PostgreSQLEphemeralStore(make_url(stage.url))
        await store.open()
        with suppress(Exception):  # the parameter is a text to that function
            await store.put("set", {"a": b"b"}, ttl_seconds=60)
        await store.aclose()

    try:
        asyncio.run(put())
    finally:
        stage.run("ALTER ROLE postgres RESET search_path")
    assert stage.value("SELECT is_called FROM villain.calls") is False
    assert stage.value("SELECT count(*) FROM reactive_rpc.ephemeral_store") == 1


def test_a_connection_of_our_own_searches_the_schemas_it_names(stage: Stage) -> None:
    """Two, and not one that has a comma in its name: temporary tables then come last."""

    async def schemas() -> list[str]:
        connection = await connect(make_url(stage.url), "a test", {"search_path": "pg_catalog, pg_temp"})
        try:
            await connection.execute("CREATE TEMP TABLE pg_class(a int)")
            found: list[str] = await connection.fetchval("SELECT pg_catalog.current_schemas(true)")
            assert await connection.fetchval("SELECT count(*) FROM pg_class") > 0
            return found
        finally:
            await connection.close()

    first, last = asyncio.run(schemas())
    assert (first, last[:8]) == ("pg_catalog", "pg_temp_")


def test_a_mighty_role_of_our_name_is_refused(stage: Stage, make_role: Callable[[str], None]) -> None:
    """A role that somebody gave more than it should have is not trusted with the functions."""
    _capture(stage.url).install()
    make_role(f"ALTER ROLE {ROLE} LOGIN")
    with pytest.raises(CaptureError, match="may do more than it should"):
        _capture(stage.url).install()


@pytest.fixture
def make_role(stage: Stage) -> Iterator[Callable[[str], None]]:
    """Return what alters the role; it is put right afterwards, as other databases of the server use it."""
    yield stage.run
    stage.run(f"ALTER ROLE {ROLE} NOLOGIN")
