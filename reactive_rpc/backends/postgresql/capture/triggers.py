"""The triggers of a table on PostgreSQL, which record every write in the outbox, in the writer's own transaction.

Each relation has one statement-level trigger for each of INSERT, UPDATE, DELETE and TRUNCATE. All four call one
function of that relation. It writes one row of the outbox: the images of the rows, or `B` if the whole table may have
changed. A write that cannot be recorded fails; no other error of ours fails a user's statement.

`docs/internals/capture-postgresql.md` argues how rows are paired, whose code may run in these functions, and which ways
were rejected. The INVARIANT comments mark the lines that the arguments rest on.
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
from reactive_rpc.backends.postgresql.capture.wake_up import WAKE
from reactive_rpc.changes.base_log import DEFAULT_LIMITS

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

BULK_ROWS: Final = DEFAULT_LIMITS.bulk_threshold
"""A statement that writes more rows is told of as a change of the whole table: no log would take in so many at once."""

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
# INVARIANT (each trigger names the outbox): PostgreSQL then refuses to drop the outbox, or drops the triggers with it,
# so no writer fails for want of it.
ALWAYS: Final = f"NULL::{SCHEMA}.outbox IS NULL"
"""A WHEN that always holds, by which PostgreSQL knows that a trigger depends on the outbox."""
FUNCTION_SETTINGS: Final = "search_path=pg_catalog, pg_temp"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationTriggers:
    """The triggers and the function that must stand on one relation.

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
        """Return the DDL that puts everything in place, whatever stands there now.

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
    """Return the triggers of a captured table and of its partitions.

    Args:
        related: every captured table, by name.
        only_read: whether images are written only for tables that somebody reads.
    """
    recorded = [table, *(related[name] for name in table.ancestors if name in related)]
    widened = [name for name in table.descendants if name in related]
    body = _body(recorded, widened, only_read=only_read)
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


def _body(recorded: Sequence[PostgreSQLTable], widened: Sequence[str], *, only_read: bool) -> str:
    names = [table.name for table in recorded] + list(widened)
    steps = "\n".join(_step(table, only_read=only_read) for table in recorded)
    bulk = "\n".join(f"    {_log_bulk(name)}" for name in widened)
    widening = f"  IF TG_OP <> 'INSERT' THEN\n{bulk}\n  END IF;\n" if widened else ""
    truncated = "".join(f"    {_log_bulk(name)}\n" for name in names)
    return (
        "\nDECLARE\n  wrote bool := false;\n  fits bool;\n  total bigint;\n  olds bigint;\n  news bigint;\n"
        f"  items jsonb;\nBEGIN\n  IF TG_OP = 'TRUNCATE' THEN\n{truncated}  ELSE\n{steps}\n{widening}  END IF;\n"
        f"  IF NOT wrote THEN\n    RETURN NULL;\n  END IF;{WAKE}  RETURN NULL;\nEND\n"
    )


def _log_bulk(name: str) -> str:
    return f"INSERT INTO {SCHEMA}.outbox(tbl, op) VALUES ({literal(name)}, 'B'); wrote := true;"


def _step(table: PostgreSQLTable, *, only_read: bool) -> str:
    """Return the statements that record the rows written as changes of one table."""
    name = literal(table.name)
    is_read = f"EXISTS (SELECT FROM {SCHEMA}.reads AS m WHERE m.tbl = {name})" if only_read else "true"
    # INVARIANT (all that can fail stands in the inner block, and the block writes nothing): a user's statement must not
    # fail by us, and a block that writes would take a transaction id for its subtransaction.
    # INVARIANT (`_fits` first): plpgsql parses a statement when it is first run, and of a column that has become of
    # another type, an operator below might be one that the type's owner has defined.
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
    INSERT INTO {SCHEMA}.outbox(tbl, op, rows) VALUES ({name}, left(TG_OP, 1)::"char", items); wrote := true;
  END IF;"""


def _update(table: PostgreSQLTable) -> str:
    masks = _masks(table.columns)
    chunks = [f"({mask}) AS m{place}" for place, mask in enumerate(masks)]
    any_changed = " OR ".join(f"p.m{place} <> 0" for place in range(len(masks))) or "false"
    # INVARIANT (the mask is given only if both rows have the same key): rows pair by number, and a pair of two
    # different rows does not say which columns of one row have changed.
    mask = f"jsonb_build_array({', '.join(f'p.m{place}' for place in range(len(masks)))})"
    imaged = [place for place, column in enumerate(table.columns) if column.kind is not None]
    taken = [f"{side}.c{place} AS {side}{place}" for side in "on" for place in imaged]
    outputs = ", ".join([f"{_same_key(table)} AS same", *chunks, *taken])
    before, after = (_array(_items(table, f"p.{side}")) for side in "on")
    items = (
        f"jsonb_agg(jsonb_build_array(CASE WHEN p.same THEN {mask} END, {before}, {after}))"
        f" FILTER (WHERE {any_changed})"
    )
    # A FULL JOIN is always hashed or merged: a plan that was made for one row compares no 100 million pairs later.
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
    """Return the test that the columns of `t` whose values are used still have the types they had.

    If a column is gone, the test itself fails, and the whole table counts as changed.
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
    """Return one jsonb array of any number of values, of which one call takes 100 at most."""
    found = list(values)
    chunks = [found[start : start + _ARGUMENTS] for start in range(0, len(found), _ARGUMENTS)] or [[]]
    return " || ".join(f"jsonb_build_array({', '.join(chunk)})" for chunk in chunks)


def _differs(column: PostgreSQLColumn, place: int) -> str:
    old, new = f"o.c{place}", f"n.c{place}"
    # Byte by byte: `=` calls 1.0 and 1.00 equal, and -0.0 and 0.0.
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

ANNOUNCE_BODY: Final = f"""
BEGIN
  INSERT INTO {SCHEMA}.outbox(tbl, op, rows) VALUES ('topic:' || topic, 'T', keys);{WAKE}END
"""

_ANNOUNCE: Final = f"{SCHEMA}.announce(text, jsonb)"


def announce_statements(owner: str) -> list[str]:
    """Return the DDL of the function by which topics are announced."""
    return [
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.announce(topic text, keys jsonb DEFAULT NULL) RETURNS void"
        " LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
        f" AS $announce${ANNOUNCE_BODY}$announce$",
        *owned_by(owner, _ANNOUNCE),
    ]


def base_statements(existing: Iterable[str]) -> list[str]:
    """Return the DDL of those of our own tables that are missing.

    Args:
        existing: the tables of `BASE` that stand.
    """
    missing = [name for name in BASE if name not in set(existing)]
    statements = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"] if missing else []
    return statements + [statement for name in missing for statement in BASE[name]]
