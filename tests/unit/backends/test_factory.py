"""What is said of a database URL that cannot be used, and that no password is."""

from __future__ import annotations

import traceback

import pytest
from sqlalchemy import create_engine, make_url

from reactive_rpc.backends.factory import Backend, make_backend
from reactive_rpc.clock import RandomIds
from reactive_rpc.errors import DefinitionError
from reactive_rpc.settings import Settings


def source(url: str) -> Backend:
    return make_backend(url, settings=Settings(), ids=RandomIds())


@pytest.mark.parametrize(
    "url", ["postgresql//u:s3cret@h/db", "postgresql://u@h:s3cret/db", " postgresql://u:s3cret@h/db", "s3cret"]
)
def test_what_is_no_url_is_not_echoed(url: str) -> None:
    """Neither in the message nor in the traceback: it may hold a password."""
    with pytest.raises(DefinitionError, match="is no database URL") as caught:
        source(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["postgres://u:s3cret@h/db", "postgres://u@h/db?password=s3cret"])
def test_postgres_is_told_its_name(url: str) -> None:
    """The name that hosting services give in their URLs is answered with the one that is meant."""
    with pytest.raises(DefinitionError, match=r"postgresql\+asyncpg://") as caught:
        source(url)
    assert "s3cret" not in str(caught.value)


def test_a_password_among_the_parameters_is_hidden() -> None:
    """The database's name, which logs and errors show, does not hold it, and the refusal of a URL does not either."""
    assert "s3cret" not in source("postgresql+asyncpg://u@h/db?password=s3cret").database.name
    with pytest.raises(DefinitionError, match="triggers are known for") as caught:
        source("mssql://u@h/db?password=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [str(make_url("postgresql+psycopg://u:s3cret@h/db")), "postgresql+asyncpg://u@h/db?password=***"]
)
def test_a_hidden_password_is_no_password(url: str) -> None:
    """`str(engine.url)` writes asterisks, with which the database would say no more than that they are wrong."""
    with pytest.raises(DefinitionError, match=r"engine\.url"):
        source(url)


def test_a_sync_engine_is_answered_with_its_url() -> None:
    """Which is what an application with sync sessions has to give; the engine may go on beside it."""
    engine = create_engine("postgresql+psycopg://u:s3cret@h/db")
    with pytest.raises(DefinitionError, match=r"give its URL \(engine\.url\)") as caught:
        make_backend(engine, settings=Settings(), ids=RandomIds())  # type: ignore[arg-type]  # as a beginner does
    assert "s3cret" not in str(caught.value)
    assert make_backend(engine.url, settings=Settings(), ids=RandomIds())
