"""A small schema on a real SQLite, and the read set of one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from reactive_rpc.dependencies.read_set import ReadSet
from reactive_rpc.statements.recorder import RECORDER_OPTION, Recorder, install

from .tables import METADATA, Known

ReadSetOf = Callable[[Any], ReadSet]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool, enable_from_linting=False)
    install(engine)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def read_set_of(engine: Engine) -> ReadSetOf:
    """Execute a statement on a recorded connection and return what it read."""

    def read(statement: Any) -> ReadSet:
        recorder = Recorder(Known())
        with engine.connect() as connection:
            connection.execution_options(**{RECORDER_OPTION: recorder})
            connection.execute(statement)
        return recorder.read_set()

    return read
