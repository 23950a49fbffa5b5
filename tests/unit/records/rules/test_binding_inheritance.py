"""Rules of models that inherit: they decide right, on SQLite, or are refused as they are bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, delete, select, update
from sqlalchemy.orm import Session, aliased

from reactive_rpc.records.rules import RuleError, anyone, bind, record, some, user
from tests.unit.records.rules.models import USER, Base, Engineer, Manager, Person, Team

TABLES = [Base.metadata.tables[name] for name in ("team", "person", "engineer")]


@pytest.fixture
def session() -> Iterator[Session]:
    """Return a session in which each team has one member, of another model and client."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine, tables=TABLES)
    with Session(engine) as opened:
        opened.add_all([Team(id=1), Team(id=2), Team(id=3)])
        opened.add(Person(id=1, team_id=1, user_id="ada", client_id="c1"))
        opened.add(Manager(id=2, team_id=2, user_id="ada", client_id="c2"))
        opened.add(Engineer(id=3, team_id=3, user_id="bob", client_id="c1", level=0))
        opened.commit()
        yield opened


def test_a_model_of_two_tables_is_refused() -> None:
    """An UPDATE of one by a column of the other would change every row."""
    with pytest.raises(RuleError, match=r"Engineer is mapped to a join of tables.* bind the rule to the model"):
        bind(record.client_id == user.client_id, Engineer, USER)


def test_a_rule_of_the_parent_filters_the_child(session: Session) -> None:
    """The way out; an UPDATE of the child alone is refused."""
    policy = bind(record.client_id == user.client_id, Person, USER)
    for client, expected in (("c1", [3]), ("c2", [])):
        assert list(session.scalars(policy.filter(select(Engineer.id), {"client_id": client}))) == expected
    with pytest.raises(RuleError, match="that it does not read"):
        policy.filter(update(Engineer).values(level=1), {"client_id": "c1"})


def test_an_association_with_a_model_of_two_tables_is_right(session: Session) -> None:
    """EXISTS looks at the join of both."""
    policy = bind(some("engineers", lambda one: (one.level == 0) & (one.client_id == "c1")), Team, USER)
    assert list(session.scalars(policy.filter(select(Team.id), {}))) == [3]


def test_an_association_with_a_model_in_its_parent_s_table_is_refused() -> None:
    """SQLAlchemy narrows it by a column of the wrong row, so that `~some` is true of too many."""
    way_out = "Manager, which shares the table of Person: declare a relationship with Person, and compare its kind"
    for association, model in (("managers", Team), ("boss", Person), ("boss", Manager)):
        for rule in (some(association, lambda one: one.user_id == user.id), ~some(association, lambda _: anyone)):
            with pytest.raises(RuleError, match=rf"{model.__name__}: some\('{association}', .*{way_out}"):
                bind(rule, model, USER)
    for association, read_by in (("managers", Team), ("boss", Person)):
        with pytest.raises(RuleError, match="is no rule of this model"):
            bind(record.id == 1, read_by, USER).read(f'["none",0,"{association}",true]')


def test_an_association_with_the_parent_is_the_way_out(session: Session) -> None:
    """With its kind compared."""
    managed = some("people", lambda one: (one.kind == "manager") & (one.user_id == user.id))
    for rule, expected in ((managed, [2]), (~managed, [1, 3])):
        statement = bind(rule, Team, USER).filter(select(Team.id), {"id": "ada"})
        assert list(session.scalars(statement)) == expected


def test_a_model_in_its_parent_s_table_is_filtered(session: Session) -> None:
    """A statement of it has its own rows alone, whatever it does and by whatever name."""
    policy = bind(record.user_id == user.id, Manager, USER)
    ada, alias = {"id": "ada"}, aliased(Manager)
    assert list(session.scalars(policy.filter(select(Manager.id), ada))) == [2]
    assert list(session.scalars(select(alias.id).where(policy.fold(ada).condition(alias)))) == [2]
    session.execute(policy.filter(update(Manager).values(client_id="new"), ada))
    assert list(session.scalars(select(Person.id).where(Person.client_id == "new"))) == [2]
    session.execute(policy.filter(delete(Manager), ada))
    assert list(session.scalars(select(Person.id))) == [1, 3]
