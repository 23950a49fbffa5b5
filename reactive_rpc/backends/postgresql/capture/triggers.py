"""The triggers of a table on PostgreSQL: what makes every write land in the outbox, in the writer's own transaction.

One statement-level trigger for each of INSERT, UPDATE, DELETE and TRUNCATE, on the table and on each of its partitions
(a statement fires the triggers of the relation that it names, of no other), all calling one function of that relation.
`ENABLE ALWAYS` keeps them firing under `session_replication_role = replica`.

**A trigger must not make the user's statement fail.** Everything that can fail (a column that was renamed since, an
array past jsonb's 256 MB) is computed in a block that catches all, and writes nothing, so its subtransaction takes no
transaction id. Then comes the one INSERT: the images, or after a failure or above 10,000 rows, `B`: the whole table may
have changed. Only that INSERT may fail, because a write that cannot be told must not commit.

**No outbox, no trigger.** Each names the outbox in a WHEN that always holds, so the outbox cannot be dropped without
them: `DROP TABLE` alone is refused, and with CASCADE it takes them along, so no writer fails for want of it.

**Pairs of rows.** UPDATE has two transition tables without a common key, both in the order in which the rows were
written, so rows pair by number. What rests on it is safe whatever the pairing: a statement takes some rows away and
brings others, and any way to pair them describes the same difference; a pair of equal rows cancels out, and a result
that uses no column in which a pair differs cannot tell them apart. Still the mask is given only where the primary key
shows that it is the same row, so that `changed` means what its reader thinks. Where the numbers of rows differ (a
trigger of the user's swallowed a row on its way to another partition), it is `B`.

**What changed** is decided byte by byte (`*<>`), because `=` calls 1.0 and 1.00 equal, and -0.0 and 0.0; of types where
it makes no difference by the cheaper IS DISTINCT FROM. Virtual generated columns have no value in a trigger: they count
as changed with any other.

**Rights.** A writer has none on our schema, so the function runs with its owner's: a role that may insert into the
outbox and nothing else (`postgresql_owner.py`). What a table's or a type's owner has defined must not run with even
these. So the function calls what is built in alone, found in `pg_catalog`, of values whose types leave no cast of
anybody's to be found: built-in types, and an enum's own output function (`postgresql_images.py`). Those are the types
that the columns had when it was made, so before anything else is even parsed it looks whether they still have them; of
a column that has become something else, `||` might be the new owner's cast. And nobody but its owner may call it, or
put it on a table.

**Names.** The function sees `pg_catalog` only, whatever the writer's search path. Columns are renamed at once to `c0`,
`c1` and so on, so none can be mistaken for a transition table, an alias or a variable of plpgsql.

**Plans** are made once a session, perhaps for a statement of one row, and used for one of 10,000. A FULL JOIN is always
hashed or merged, so it never compares 100 million pairs. An update of one row, the usual one, has a query of its own,
without numbers and hashes: a third cheaper.

**Inheritance.** What is written to a child is told of its ancestors too, with their columns. What is updated or deleted
through a parent may be rows of any child: the children count as changed whole.

Rejected: row triggers (a call a row, and COPY of a million rows writes a million outbox rows); full images
(`to_jsonb(row)` fetches every long value, and copies secrets); joining by the primary key (a new key has no partner).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from reactive_rpc.backends.postgresql.capture.answers import DDL as ANSWERS_DDL
from reactive_rpc.backends.postgresql.capture.images import MASK_COLUMNS, item_sql
from reactive_rpc.backends.postgresql.capture.names import literal, quoted
from reactive_rpc.backends.postgresql.capture.owner import owned_by
from reactive_rpc.backends.postgresql.capture.tables import (
    SCHEMA,
    PostgreSQLColumn,
    PostgreSQLRelation,
    PostgreSQLTable,
)

__all__ = [
    "ALWAYS",
    "ANNOUNCE_BODY",
    "BASE",
    "BULK_ROWS",
    "FUNCTION_SETTINGS",
    "TRIGGER_PREFIX",
    "RelationTriggers",
    "announce_statements",
    "base_statements",
    "triggers_of",
]

BULK_ROWS: Final = 10_000
TRIGGER_PREFIX: Final = "reactive_rpc_"

_ARGUMENTS: Final = 100
_OLD, _NEW = "reactive_rpc_old", "reactive_rpc_new"

# pg_trigger.tgtype of a statement-level AFTER trigger, by event.
_EVENTS: Final = {
    "insert": (4, f"AFTER INSERT ON {{}} REFERENCING NEW TABLE AS {_NEW}"),
    "delete": (8, f"AFTER DELETE ON {{}} REFERENCING OLD TABLE AS {_OLD}"),
    "update": (16, f"AFTER UPDATE ON {{}} REFERENCING OLD TABLE AS {_OLD} NEW TABLE AS {_NEW}"),
    "truncate": (32, "AFTER TRUNCATE ON {}"),
}
ALWAYS: Final = f"NULL::{SCHEMA}.outbox IS NULL"
"""Holds, and has PostgreSQL know that a trigger rests on the outbox: nobody drops that and leaves writers that fail."""
FUNCTION_SETTINGS: Final = "search_path=pg_catalog, pg_temp"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationTriggers:
    """What must stand on one relation.

    Attributes:
        function: its name in our schema.
        body: its plpgsql.
    """

    relation: PostgreSQLRelation
    function: str
    body: str

    @property
    def signatures(self) -> dict[str, tuple[object, ...]]:
        """Return `{trigger: (function, tgtype, tgenabled, old table, new table)}` as the catalog should show it."""
        return {
            f"{TRIGGER_PREFIX}{event}": (
                self.function,
                kind,
                "A",
                _OLD if "OLD TABLE" in clause else None,
                _NEW if "NEW TABLE" in clause else None,
            )
            for event, (kind, clause) in _EVENTS.items()
        }

    def statements(self, owner: str) -> list[str]:
        """Return the DDL that puts everything in place, whatever stands there.

        The lock waits for every transaction that has written to the relation, perhaps by an older function, and a bulk
        row is logged after them by whoever runs this.

        Args:
            owner: the role that is to own the function.
        """
        table = quoted(self.relation.schema, self.relation.name)
        function = f"{quoted(SCHEMA, self.function)}()"
        return [
            f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE",
            f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql"
            " SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
            f" AS {_dollars(self.body)}",
            *owned_by(owner, function),
            *(
                f"CREATE OR REPLACE TRIGGER {TRIGGER_PREFIX}{event} {clause.format(table)}"
                f" FOR EACH STATEMENT WHEN ({ALWAYS}) EXECUTE FUNCTION {function}"
                for event, (_, clause) in _EVENTS.items()
            ),
            f"ALTER TABLE ONLY {table} "
            + ", ".join(f"ENABLE ALWAYS TRIGGER {TRIGGER_PREFIX}{event}" for event in _EVENTS),
        ]


def triggers_of(
    table: PostgreSQLTable, related: dict[str, PostgreSQLTable], *, only_read: bool
) -> list[RelationTriggers]:
    """Return what must stand on a captured table and its partitions.

    Args:
        related: every captured table, by name.
        only_read: whether the values are told of those tables alone that somebody reads.
    """
    told = [table, *(related[name] for name in table.ancestors if name in related)]
    widened = [name for name in table.descendants if name in related]
    body = _body(told, widened, only_read=only_read)
    return [
        RelationTriggers(relation=relation, function=_function_name(relation), body=body)
        for relation in table.relations
    ]


def _function_name(relation: PostgreSQLRelation) -> str:
    """Return a name that is readable, within 63 bytes, and another for every relation."""
    digest = hashlib.sha256(quoted(relation.schema, relation.name).encode()).hexdigest()[:10]
    readable = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in relation.name)
    return f"capture_{readable[:40]}_{digest}"


def _dollars(body: str) -> str:
    tag = "$capture$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"{tag}{body}{tag}"


def _body(told: Sequence[PostgreSQLTable], widened: Sequence[str], *, only_read: bool) -> str:
    names = [table.name for table in told] + list(widened)
    steps = "\n".join(_step(table, only_read=only_read) for table in told)
    bulk = "\n".join(f"    {_log_bulk(name)}" for name in widened)
    widening = f"  IF TG_OP <> 'INSERT' THEN\n{bulk}\n  END IF;\n" if widened else ""
    return (
        "\nDECLARE\n  fits bool;\n  total bigint;\n  olds bigint;\n  news bigint;\n  items jsonb;\nBEGIN\n"
        "  IF TG_OP = 'TRUNCATE' THEN\n"
        + "".join(f"    {_log_bulk(name)}\n" for name in names)
        + f"    RETURN NULL;\n  END IF;\n{steps}\n{widening}  RETURN NULL;\nEND\n"
    )


def _log_bulk(name: str) -> str:
    return f"INSERT INTO {SCHEMA}.outbox(tbl, op) VALUES ({literal(name)}, 'B');"


def _step(table: PostgreSQLTable, *, only_read: bool) -> str:
    """Return the statements that tell one table of the rows written."""
    name = literal(table.name)
    is_read = f"EXISTS (SELECT FROM {SCHEMA}.reads AS m WHERE m.tbl = {name})" if only_read else "true"
    return f"""  BEGIN
    items := NULL;
    IF TG_OP = 'INSERT' THEN
      SELECT {_fits(table)} INTO fits FROM {_NEW} AS t LIMIT 1;
    ELSE
      SELECT count(*), bool_and(r.fits) INTO olds, fits
      FROM (SELECT {_fits(table)} AS fits FROM {_OLD} AS t LIMIT 2) AS r;
    END IF;
    IF fits IS NULL THEN
      total := 0;
    ELSIF NOT (fits AND {is_read}) THEN
      total := -1;
    ELSIF TG_OP = 'INSERT' THEN
      SELECT count(*), jsonb_agg({_image(table, "r")}) INTO total, items
      FROM (SELECT {_renamed(table.columns)} FROM {_NEW} AS t LIMIT {BULK_ROWS + 1}) AS r;
    ELSIF TG_OP = 'DELETE' THEN
      SELECT count(*), jsonb_agg({_image(table, "r")}) INTO total, items
      FROM (SELECT {_renamed(table.columns)} FROM {_OLD} AS t LIMIT {BULK_ROWS + 1}) AS r;
    ELSE
{_update(table)}
      IF olds <> news THEN
        total := -1;
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    total := -1;
  END;
  IF total NOT BETWEEN 0 AND {BULK_ROWS} THEN
    {_log_bulk(table.name)}
  ELSIF items IS NOT NULL THEN
    INSERT INTO {SCHEMA}.outbox(tbl, op, rows) VALUES ({name}, left(TG_OP, 1)::"char", items);
  END IF;"""


def _update(table: PostgreSQLTable) -> str:
    masks = _masks(table.columns)
    chunks = [f"({mask}) AS m{place}" for place, mask in enumerate(masks)]
    any_changed = " OR ".join(f"p.m{place} <> 0" for place in range(len(masks))) or "false"
    mask = f"jsonb_build_array({', '.join(f'p.m{place}' for place in range(len(masks)))})"
    imaged = [place for place, column in enumerate(table.columns) if column.kind is not None]
    taken = [f"{side}.c{place} AS {side}{place}" for side in "on" for place in imaged]
    outputs = ", ".join([f"{_same_key(table)} AS same", *chunks, *taken])
    before, after = (_array(_items(table, f"p.{side}")) for side in "on")
    items = (
        f"jsonb_agg(jsonb_build_array(CASE WHEN p.same THEN {mask} END, {before}, {after}))"
        f" FILTER (WHERE {any_changed})"
    )
    renamed, numbered = _renamed(table.columns), _numbered(table.columns)
    return f"""      IF olds = 1 THEN
        SELECT count(*), count(*), {items} INTO total, news, items
        FROM (
          SELECT {outputs}
          FROM (SELECT {renamed} FROM {_OLD} AS t LIMIT 1) AS o
          CROSS JOIN (SELECT {renamed} FROM {_NEW} AS t LIMIT 2) AS n
          OFFSET 0
        ) AS p;
      ELSE
        SELECT count(*), count(p.ok), count(p.nk), {items} INTO total, olds, news, items
        FROM (
          SELECT o.k AS ok, n.k AS nk, {outputs}
          FROM (SELECT {numbered} FROM {_OLD} AS t LIMIT {BULK_ROWS + 1}) AS o
          FULL JOIN (SELECT {numbered} FROM {_NEW} AS t LIMIT {BULK_ROWS + 1}) AS n ON n.k = o.k
          OFFSET 0
        ) AS p;
      END IF;"""


def _fits(table: PostgreSQLTable) -> str:
    """Return the test that the columns of `t` which are looked into still have the types they had.

    A column that is gone makes it fail, which is told as the whole table as well.
    """
    pinned = [column for column in table.columns if column.generated != "v" and (column.kind or column.is_plain)]
    types = ", ".join(f"pg_typeof(t.{quoted(column.name)})" for column in pinned)
    oids = ",".join(str(column.type) for column in pinned)
    return f"ARRAY[{types}]::oid[] = '{{{oids}}}'::oid[]" if pinned else "true"


def _renamed(columns: Iterable[PostgreSQLColumn]) -> str:
    return ", ".join(f"t.{quoted(column.name)} AS c{place}" for place, column in enumerate(columns))


def _numbered(columns: Sequence[PostgreSQLColumn]) -> str:
    return ", ".join(["row_number() OVER () AS k", *filter(None, [_renamed(columns)])])


def _image(table: PostgreSQLTable, alias: str) -> str:
    return _array(_items(table, f"{alias}.c"))


def _items(table: PostgreSQLTable, prefix: str) -> Iterator[str]:
    """Yield the items of an image, of columns that are called `prefix` and their place."""
    for place, column in enumerate(table.columns):
        if column.kind is not None:
            yield item_sql(column.kind, f"{prefix}{place}", is_enum=column.is_enum)


def _array(values: Iterable[str]) -> str:
    """Return one jsonb array of any number of values: a call takes 100 at most."""
    found = list(values)
    chunks = [found[start : start + _ARGUMENTS] for start in range(0, len(found), _ARGUMENTS)] or [[]]
    return " || ".join(f"jsonb_build_array({', '.join(chunk)})" for chunk in chunks)


def _differs(column: PostgreSQLColumn, place: int) -> str:
    old, new = f"o.c{place}", f"n.c{place}"
    return f"{old} IS DISTINCT FROM {new}" if column.is_plain else f"ROW({old})::record *<> ROW({new})::record"


def _masks(columns: Sequence[PostgreSQLColumn]) -> list[str]:
    """Return the numbers of the mask, each of 60 columns, as SQL."""
    seen = [_differs(column, place) for place, column in enumerate(columns) if column.generated != "v"]
    any_seen = "(" + (" OR ".join(seen) or "false") + ")"
    bits = [
        f"({any_seen if column.generated == 'v' else _differs(column, place)})::int::bigint << {place % MASK_COLUMNS}"
        for place, column in enumerate(columns)
    ]
    return [
        " | ".join(f"({bit})" for bit in bits[start : start + MASK_COLUMNS])
        for start in range(0, len(bits), MASK_COLUMNS)
    ]


def _same_key(table: PostgreSQLTable) -> str:
    keyed = [
        f"NOT ({_differs(column, place)})"
        for place, column in enumerate(table.columns)
        if column.name in table.capture.primary_key
    ]
    return " AND ".join(keyed) or "false"


BASE: Final = {
    "outbox": (
        f"CREATE TABLE {SCHEMA}.outbox (id bigint GENERATED ALWAYS AS IDENTITY,"
        ' xid xid8 NOT NULL DEFAULT pg_current_xact_id(), tbl text NOT NULL, op "char" NOT NULL, rows jsonb)',
        f"CREATE INDEX outbox_xid_id ON {SCHEMA}.outbox (xid, id)",
    ),
    "meta": (f"CREATE TABLE {SCHEMA}.meta (key text PRIMARY KEY, value text NOT NULL)",),
    "reads": (f"CREATE TABLE {SCHEMA}.reads (tbl text PRIMARY KEY, at timestamptz NOT NULL)",),
    "horizon": (f"CREATE TABLE {SCHEMA}.horizon (at timestamptz NOT NULL, xid xid8 NOT NULL)",),
    "ephemeral_store": (
        f"CREATE UNLOGGED TABLE {SCHEMA}.ephemeral_store (kind text NOT NULL, name text NOT NULL, owner text NOT NULL,"
        " size integer NOT NULL, content bytea NOT NULL, expires_at timestamptz NOT NULL, PRIMARY KEY (kind, name))",
        f"CREATE INDEX ephemeral_store_owner ON {SCHEMA}.ephemeral_store (kind, owner, expires_at)"
        " INCLUDE (size, name)",
    ),
    "answers": (ANSWERS_DDL,),
}
"""Our tables, and the DDL of each."""

ANNOUNCE_BODY: Final = f"INSERT INTO {SCHEMA}.outbox(tbl, op, rows) VALUES ('topic:' || topic, 'T', keys)"

_ANNOUNCE: Final = f"{SCHEMA}.announce(text, jsonb)"


def announce_statements(owner: str) -> list[str]:
    """Return the DDL of the function by which topics are announced."""
    return [
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.announce(topic text, keys jsonb DEFAULT NULL) RETURNS void LANGUAGE sql"
        f" SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $announce${ANNOUNCE_BODY}$announce$",
        *owned_by(owner, _ANNOUNCE),
    ]


def base_statements(existing: Iterable[str]) -> list[str]:
    """Return the DDL of what is missing of our own tables.

    Args:
        existing: the tables of `BASE` that stand.
    """
    missing = [name for name in BASE if name not in set(existing)]
    statements = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"] if missing else []
    return statements + [statement for name in missing for statement in BASE[name]]
