"""The recorder on real connections: sessions, threads, raw SQL, several installs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from reactive_rpc.dependencies.read_set import Constraint, Equals, ReadSet
from reactive_rpc.dependencies.schema import Schema
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install
from reactive_rpc.statements.text_reads import TextRead

from .tables import METADATA, TASKS, TEAMS, Known


def team(number: int) -> Constraint:
    return Constraint("teams", frozenset({"id"}), {"id": Equals(frozenset({number}))})


def test_every_statement_is_added_once(engine: Engine) -> None:
    """Constraints stand in the order of reading, without duplicates."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        for number in (2, 1, 2):
            connection.execute(select(TEAMS.c.id).where(TEAMS.c.id == number))
    assert recorder.read_set().constraints == (team(2), team(1))


def test_a_session_on_a_recorded_connection_is_recorded(engine: Engine) -> None:
    """A session bound to the connection records, savepoints and all."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            session.scalars(select(TEAMS.c.id).where(TEAMS.c.id == 1)).all()
    assert recorder.read_set().opaque is None
    assert recorder.read_set().constraints == (team(1),)


def test_a_connection_without_a_recorder_is_left_alone(engine: Engine) -> None:
    """A recorder sees its own connection's statements and no other's."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execute(select(TASKS.c.id))
    assert recorder.read_set().constraints == ()


def test_raw_sql_is_opaque_and_the_first_reason_stays(engine: Engine) -> None:
    """What reaches the driver as text cannot be told without an oracle; later faults do not hide the first."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.exec_driver_sql("SELECT 1")
        connection.execute(TEAMS.delete())
    assert recorder.read_set().opaque == "renders exec_driver_sql(), which is not analysed: write it with select()"


def test_a_text_reads_what_the_oracle_says(engine: Engine) -> None:
    """The oracle is given what the driver gets, and its answer is the read set; a refusal names the construct."""
    asked: list[tuple[str, Any]] = []

    def oracle(_connection: Connection, statement: str, parameters: Any, _schema: Schema) -> TextRead:
        asked.append((statement, parameters))
        return TextRead({"teams": frozenset({"id"})}) if "tasks" not in statement else TextRead(opaque="calls now()")

    recorder = Recorder(Known(), oracle)
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.execute(text("SELECT id FROM teams WHERE id = :id"), {"id": 1})
        assert recorder.read_set() == ReadSet((Constraint("teams", frozenset({"id"})),))
        connection.execute(select(TASKS.c.id).where(text("done")))
    assert asked[0] == ("SELECT id FROM teams WHERE id = ?", (1,))
    assert recorder.read_set().opaque == "calls now() (in text())"


def test_tables_are_widened(engine: Engine) -> None:
    """A table that was read unseen counts as read whole, beside what is known of it."""
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.execute(select(TEAMS.c.id).where(TEAMS.c.id == 1))
    recorder.widen(["teams", "tasks"])
    assert recorder.read_set().constraints == (team(1), Constraint("teams"), Constraint("tasks"))


def test_install_twice_records_once() -> None:
    """Installing again changes neither compiler nor listeners."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    install(engine)
    compiler = engine.dialect.statement_compiler
    install(engine)
    assert engine.dialect.statement_compiler is compiler
    engine.dispose()


def test_what_was_compiled_before_install_is_compiled_anew() -> None:
    """A statement in the cache from before is analysed too."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    METADATA.create_all(engine)
    statement = select(TEAMS.c.id).where(TEAMS.c.id == 1)
    recorder = Recorder(Known())
    with engine.connect() as connection:
        connection.execute(statement)
        install(engine)
        connection.execution_options(**{RECORDER_OPTION: recorder})
        connection.execute(statement)
    assert recorder.read_set().constraints == (team(1),)
    engine.dispose()


def test_threads_that_share_a_compiled_statement_keep_their_values(tmp_path: Path) -> None:
    """Two threads run the same cached text at once; each recorder has its own thread's values."""
    engine = create_engine(f"sqlite:///{tmp_path / 'threads.db'}")
    install(engine)
    METADATA.create_all(engine)
    start = threading.Barrier(4)

    def read(thread: int) -> list[Constraint]:
        recorder = Recorder(Known())
        with engine.connect() as connection:
            connection.execution_options(**{RECORDER_OPTION: recorder})
            start.wait()
            for number in range(50):
                connection.execute(select(TEAMS.c.id).where(TEAMS.c.id == 100 * thread + number))
        return list(recorder.read_set().constraints)

    with ThreadPoolExecutor(4) as pool:
        for thread, constraints in enumerate(pool.map(read, range(4))):
            assert constraints == [team(100 * thread + number) for number in range(50)]
    engine.dispose()


async def _read_async(tmp_path: Path) -> Recorder:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.db'}")
    install(engine.sync_engine)
    recorder = Recorder(Known())
    async with engine.connect() as connection:
        await connection.run_sync(METADATA.create_all)
        await connection.execution_options(**{RECORDER_OPTION: recorder})
        async with AsyncSession(bind=connection) as session:
            await session.scalars(select(TEAMS.c.id).where(TEAMS.c.id == 1))
    await engine.dispose()
    return recorder


def test_an_async_session_is_recorded(tmp_path: Path) -> None:
    """An async engine is installed through its sync engine, and its sessions record."""
    assert asyncio.run(_read_async(tmp_path)).read_set().constraints == (team(1),)
