"""Read the tables of a PostgreSQL database: columns, how they compare, keys, partitions and inheritance.

A *table* here is one that statements name: a partitioned table stands for all its partitions, which are no tables of
their own. A table of old-style inheritance stays a table, because its children have columns that it lacks; but a
statement that names it reads and writes their rows too.

A table that the search path finds is called by its bare name, any other `schema.table`. These are not captured: a name
that could mean two tables; relations that can be written past statement triggers, and tables that have such a part;
tables whose row-level security depends on more than the row.

Sources: the PostgreSQL manual, "System Catalogs", "Overview of Trigger Behavior", "Logical Replication Architecture".
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg.rows import class_row

from reactive_rpc.backends.postgresql.capture.meaning import read_doubtful_types
from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.changes.captured_schema import ForeignKey, TableCapture
from reactive_rpc.changes.image_policy import ImagePolicy
from reactive_rpc.dependencies.schema import ColumnKind

__all__ = [
    "CATALOG_ONLY",
    "FINGERPRINT",
    "SCHEMA",
    "Catalog",
    "PostgreSQLColumn",
    "PostgreSQLRelation",
    "PostgreSQLTable",
    "read_catalog",
    "read_visible",
]

SCHEMA: Final = "reactive_rpc"
CATALOG_ONLY: Final[LiteralString] = "SET search_path = pg_catalog, pg_temp"
_VISIBLE: Final[LiteralString] = (
    "SELECT c.oid::pg_catalog.int8 FROM pg_catalog.pg_class c WHERE pg_catalog.pg_table_is_visible(c.oid)"
)

_KINDS: Final[Mapping[str, ColumnKind]] = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "bool": "integer",
    "float8": "real",
    "numeric": "decimal",
    "uuid": "uuid",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}
_TEXTS: Final = frozenset({"text", "varchar"})
# Of these types, values that `=` calls equal are equal byte by byte (so is text, under a deterministic collation).
_PLAIN: Final = frozenset({"int2", "int4", "int8", "bool", "uuid", "date", "timestamp", "timestamptz"})

_UNCAPTURED_KINDS: Final[Mapping[str, str]] = {
    "f": "a foreign table can be written without its triggers",
    "m": "a materialized view is filled without triggers: REFRESH cannot be seen",
}


class PostgreSQLColumn(NamedTuple):
    """One column.

    Attributes:
        version: changes whenever the column is altered.
        kind: how it compares; None if images cannot hold its values.
        generated: empty, `s` (stored) or `v` (virtual: triggers do not see its value).
        is_plain: equal values are equal byte by byte.
        type: its oid.
        type_name: without its schema.
        is_enum: whether it is an enum, or a domain over one.
        is_small: whether it is a smallint, or a domain over one.
    """

    name: str
    number: int
    version: str
    kind: ColumnKind | None
    generated: str
    is_plain: bool
    type: int
    type_name: str
    is_enum: bool
    is_small: bool

    @property
    def called(self) -> tuple[str, str]:
        """The names by which it may say that it is a secret."""
        return (self.name, self.type_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLRelation:
    """A table or a partition, on which triggers stand.

    Attributes:
        version: changes with most of what ALTER TABLE, TRUNCATE, GRANT and the first CREATE INDEX do.
        link: changes whenever the relation is attached, detached or made to inherit.
        owner: the role.
    """

    oid: int
    schema: str
    name: str
    version: str
    link: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLTable:
    """All from which the triggers of one table are made.

    Attributes:
        capture: the description for the rest of the program.
        columns: as in `capture.columns`.
        relations: those that must have triggers: the table itself, then its partitions.
        ancestors: the tables it inherits from, by canonical name: its rows are theirs too.
        descendants: the tables that inherit from it.
        facts: everything else that decides which rows a statement finds: security policies, the oid, the heirs' links.
    """

    capture: TableCapture
    columns: tuple[PostgreSQLColumn, ...]
    relations: tuple[PostgreSQLRelation, ...]
    ancestors: tuple[str, ...] = ()
    descendants: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The canonical name."""
        return self.capture.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every table, by name, and the other names that statements may use for them."""

    tables: tuple[PostgreSQLTable, ...]
    names: Mapping[str, str]
    by_oid: Mapping[int, str]
    """`{oid of a table or partition: canonical name of its table}`."""


@dataclass(frozen=True, slots=True)
class _RelationRow:
    oid: int
    schema: str
    name: str
    kind: str
    version: str
    is_partition: bool
    reason: str | None
    security: str
    owner: str
    schema_owner: str


FINGERPRINT: Final[LiteralString] = r"""
(WITH spaces AS MATERIALIZED (
   SELECT n.oid, n.xmin FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
 relations AS MATERIALIZED (
   SELECT c.oid, c.xmin, c.relfilenode FROM pg_class c
   WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND c.relnamespace IN (SELECT oid FROM spaces))
 SELECT concat_ws('/',
  (SELECT system_identifier FROM pg_control_system()),
  (SELECT oid FROM pg_database WHERE datname = current_database()),
  CASE WHEN pg_is_in_recovery() THEN 'standby'
       ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
  (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM spaces),
  (SELECT sum(hashint8extended(oid::bigint << 32 | relfilenode::bigint, xmin::text::bigint)) FROM relations),
  (SELECT sum(hashint8extended(a.attrelid::bigint << 16 | a.attnum, a.xmin::text::bigint)) FROM pg_attribute a
   WHERE a.attrelid >= 16384 AND a.attnum > 0 AND a.attrelid IN (SELECT oid FROM relations)),
  (SELECT sum(hashint8extended(t.oid::bigint, t.xmin::text::bigint)) FROM pg_trigger t
   WHERE t.oid >= 16384 AND t.tgname ^@ 'reactive_rpc_'),
  (SELECT sum(hashint8extended(p.oid::bigint, p.xmin::text::bigint)) FROM pg_proc p
   WHERE p.oid >= 16384),
  (SELECT sum(hashint8extended(o.oid::bigint, o.xmin::text::bigint)) FROM pg_operator o WHERE o.oid >= 16384),
  (SELECT sum(hashint8extended(x.oid::bigint, x.xmin::text::bigint)) FROM pg_cast x WHERE x.oid >= 16384),
  (SELECT count(*) || '/' || sum(CASE age(m.xmin) WHEN 2147483647 THEN 0
    ELSE age('3'::xid)::bigint - age(m.xmin) END) FROM pg_ts_config_map m),
  (SELECT sum(hashint8extended(d.oid::bigint, d.xmin::text::bigint)) FROM pg_ts_dict d),
  (SELECT sum(hashint8extended(r.oid::bigint, r.xmin::text::bigint)) FROM pg_rewrite r
   WHERE r.oid >= 16384 AND r.ev_class IN (SELECT oid FROM relations)),
  (SELECT sum(hashint8extended(i.inhrelid::bigint << 32 | i.inhparent::bigint, i.xmin::text::bigint)) FROM pg_inherits i
   WHERE i.inhrelid IN (SELECT oid FROM relations)),
  (SELECT sum(hashint8extended(p.oid::bigint, p.xmin::text::bigint)) FROM pg_policy p),
  (SELECT sum(hashint8extended(e.oid::bigint, e.xmin::text::bigint)) FROM pg_enum e),
  (SELECT sum(hashint8extended(s.srsubid::bigint, s.srrelid::bigint)) FROM pg_subscription_rel s)))
"""
"""SQL of one text: `CaptureState.schema_fingerprint` as this snapshot shows it.

The distance of their transactions from the first distinguishes the 600 rows of text search, at a tenth of the cost of
hashing them; those that initdb made before any transaction have the greatest age there is.
"""

_RELATIONS: Final[LiteralString] = """
SELECT c.oid::bigint, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.xmin::text AS version,
  c.relispartition AS is_partition, pg_get_userbyid(c.relowner)::text AS owner,
  pg_get_userbyid(n.nspowner)::text AS schema_owner,
  CASE WHEN EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid)
       THEN 'a subscription writes it, which fires no statement triggers'
       WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype = 'e')
       THEN 'it belongs to an extension' END AS reason,
  CASE WHEN c.relrowsecurity THEN c.relforcerowsecurity || coalesce((SELECT string_agg(p.oid || '/' || p.xmin, ','
    ORDER BY p.oid) FROM pg_policy p WHERE p.polrelid = c.oid), '') ELSE '' END AS security
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'reactive_rpc')
ORDER BY n.nspname, c.relname
"""

_COLUMNS: Final[LiteralString] = """
WITH RECURSIVE base(type, oid, name, kind, schema) AS (
  SELECT t.oid, t.oid, t.typname, t.typtype, t.typnamespace FROM pg_type t
  UNION ALL
  SELECT b.type, t.oid, t.typname, t.typtype, t.typnamespace
  FROM base b JOIN pg_type d ON d.oid = b.oid JOIN pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd'
)
SELECT a.attrelid::bigint, a.attname, a.attnum::int,
  a.xmin || coalesce('/' || (SELECT d.oid || '/' || d.xmin FROM pg_attrdef d
    WHERE a.attgenerated <> '' AND d.adrelid = a.attrelid AND d.adnum = a.attnum), ''),
  a.attgenerated::text,
  CASE WHEN b.kind = 'e' THEN 'enum' WHEN b.schema = 'pg_catalog'::regnamespace THEN b.name ELSE '' END,
  CASE WHEN a.attcollation = 0 THEN ''
       WHEN NOT l.collisdeterministic THEN 'nondeterministic'
       WHEN l.collname = 'default' AND l.collnamespace = 'pg_catalog'::regnamespace THEN 'default'
       WHEN l.collprovider = 'b' OR l.collprovider = 'c' AND l.collcollate IN ('C', 'POSIX') THEN 'code points'
       ELSE 'other' END,
  a.atttypid::bigint, (SELECT t.typname::text FROM pg_type t WHERE t.oid = a.atttypid),
  ARRAY(SELECT t.oid::bigint FROM base t WHERE t.type = a.atttypid)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN base b ON b.type = a.atttypid AND b.kind <> 'd'
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'reactive_rpc')
ORDER BY a.attrelid, a.attnum
"""

_KEYS: Final[LiteralString] = """
SELECT i.indrelid::bigint, i.indisprimary,
  i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indimmediate AND i.indisvalid AND k.attnum IS NOT NULL
    AND i.indclass[0] < 16384,
  k.names
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
CROSS JOIN LATERAL (
  SELECT array_agg(a.attname::text ORDER BY p.place) AS names, min(a.attnum) AS attnum
  FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS p(number, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = p.number
  WHERE p.place <= i.indnkeyatts
) AS k
WHERE i.indisunique AND c.relkind IN ('r', 'p') AND i.indrelid >= 16384
ORDER BY i.indexrelid
"""

_INDEXED: Final[LiteralString] = """
SELECT DISTINCT i.indrelid::bigint, a.attname::text
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_am m ON m.oid = x.relam AND m.amname IN ('btree', 'hash')
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indpred IS NULL AND i.indisvalid AND i.indclass[0] < 16384 AND c.relkind IN ('r', 'p') AND i.indrelid >= 16384
"""

_FOREIGN_KEYS: Final[LiteralString] = """
SELECT f.conrelid::bigint, a.attname, f.confrelid::bigint, b.attname
FROM pg_constraint f
CROSS JOIN LATERAL unnest(f.conkey, f.confkey) WITH ORDINALITY AS p(child, parent, place)
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = p.child
JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = p.parent
WHERE f.contype = 'f'
ORDER BY f.conrelid, f.conname, f.oid, p.place
"""

_PARENTS: Final[LiteralString] = (
    "SELECT inhrelid::bigint, inhparent::bigint, xmin::text FROM pg_inherits ORDER BY inhrelid, inhparent"
)

_DATABASE: Final[LiteralString] = """
SELECT pg_encoding_to_char(encoding) = 'UTF8', pg_encoding_to_char(encoding) = 'SQL_ASCII',
  coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'b'
  OR (coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c' AND datcollate IN ('C', 'POSIX'))
FROM pg_database d WHERE datname = current_database()
"""


def read_visible(connection: psycopg.Connection[Any]) -> frozenset[int]:
    """Return the oids of the relations that the application's search path finds by their bare names.

    The statement that runs under that path names all it calls in full: anybody who may create functions in one of its
    schemas could else have theirs run by this role (CVE-2018-1058). Every other statement sees `pg_catalog` alone.
    """
    connection.execute("RESET search_path")
    try:
        rows = connection.execute(_VISIBLE).fetchall()
    finally:
        connection.execute(CATALOG_ONLY)
    return frozenset(oid for (oid,) in rows)


def read_catalog(
    connection: psycopg.Connection[Any],
    insecure: Mapping[int, str],
    visible: Set[int],
    policy: ImagePolicy,
    *,
    strangers: Set[str],
) -> Catalog:
    """Return every table of the user's schemas but temporary ones.

    Args:
        insecure: `{oid: why its row-level security makes results depend on the session}`.
        visible: the relations that are called by their bare names.
        policy: which values images may hold; a column that they may not hold has no kind.
        strangers: the owners whose tables must not be looked into.
    """
    reader = _CatalogReader(connection, insecure, visible, policy, strangers=strangers)
    tables = [reader.table(relation) for relation in reader.relations.values() if not relation.is_partition]
    return _named(tables, reader)


class _CatalogReader:
    """The rows of the catalogs, by oid."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        insecure: Mapping[int, str],
        visible: Set[int],
        policy: ImagePolicy,
        *,
        strangers: Set[str],
    ) -> None:
        self.visible = visible
        self._strangers = strangers
        self._policy = policy
        with connection.cursor(row_factory=class_row(_RelationRow)) as cursor:
            self.relations = {relation.oid: relation for relation in cursor.execute(_RELATIONS)}
        self._insecure = insecure
        self._columns = _read_columns(connection)
        self._primary_keys: dict[int, tuple[str, ...]] = {}
        self._unique: dict[int, set[str]] = defaultdict(set)
        for oid, is_primary, is_unique, names in connection.execute(_KEYS):
            if is_primary:
                self._primary_keys[oid] = tuple(names)
            if is_unique:
                self._unique[oid].add(names[0])
        self._indexed: dict[int, set[str]] = defaultdict(set)
        for oid, name in connection.execute(_INDEXED):
            self._indexed[oid].add(name)
        self._foreign_keys: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
        for oid, column, parent, referred in connection.execute(_FOREIGN_KEYS):
            self._foreign_keys[oid].append((column, parent, referred))
        self._parents: dict[int, list[int]] = defaultdict(list)
        self._children: dict[int, list[int]] = defaultdict(list)
        self._links: dict[int, str] = defaultdict(str)
        for child, parent, version in connection.execute(_PARENTS):
            self._parents[child].append(parent)
            self._children[parent].append(child)
            self._links[child] += f"{parent}/{version} "

    def root(self, oid: int) -> int:
        """Return the table that a partition is a part of; of any other relation itself."""
        while oid in self.relations and self.relations[oid].is_partition:
            oid = self._parents[oid][0]
        return oid

    def below(self, oid: int) -> list[int]:
        """Return every partition, or every table that inherits, at any depth."""
        return _closure(oid, self._children)

    def above(self, oid: int) -> list[int]:
        """Return every table that a table inherits from, at any depth."""
        return _closure(oid, self._parents)

    def name(self, oid: int) -> str:
        """Return the canonical name of a table."""
        relation = self.relations[oid]
        return relation.name if oid in self.visible else f"{relation.schema}.{relation.name}"

    def table(self, relation: _RelationRow) -> PostgreSQLTable:
        """Return one table; names that clash are not seen to here."""
        below = [oid for oid in self.below(relation.oid) if oid in self.relations]
        partitions = below if relation.kind == "p" else []
        heirs = [] if relation.kind == "p" else below
        reason = next(filter(None, map(self._unseen, (relation.oid, *below))), None)
        columns = tuple(
            column if self._holds(relation, column) else column._replace(kind=None)
            for column in self._columns.get(relation.oid, ())
        )
        primary_key = self._primary_keys.get(relation.oid, ())
        foreign_keys = self._foreign_keys_of(relation.oid)
        return PostgreSQLTable(
            capture=TableCapture(
                name=self.name(relation.oid),
                identifier=quoted(relation.schema, relation.name),
                columns=tuple(column.name for column in columns),
                image=tuple(column.name for column in columns if column.kind is not None),
                kinds={column.name: column.kind for column in columns},
                small=frozenset(column.name for column in columns if column.is_small),
                enums=frozenset(column.name for column in columns if column.is_enum),
                withheld=frozenset(column.name for column in columns if not self._holds(relation, column)),
                key_columns=tuple(dict.fromkeys((*primary_key, *(column for column, _, _ in foreign_keys)))),
                primary_key=primary_key,
                foreign_keys=foreign_keys,
                unique=frozenset() if heirs else frozenset(self._unique[relation.oid]),
                indexed=frozenset() if heirs else frozenset(self._indexed[relation.oid]),
                captured=reason is None and relation.oid not in self._insecure,
                reason=reason or self._insecure.get(relation.oid),
                stranger=next(filter(None, map(self._stranger, (relation.oid, *below))), None),
            ),
            columns=columns,
            relations=tuple(self._relation(oid) for oid in (relation.oid, *partitions)),
            ancestors=tuple(self.name(oid) for oid in self.above(relation.oid) if oid in self.relations),
            descendants=tuple(self.name(oid) for oid in heirs),
            facts=(relation.security, str(relation.oid), *(self._links[oid] for oid in heirs)),
        )

    def _holds(self, relation: _RelationRow, column: PostgreSQLColumn) -> bool:
        names = (self.name(relation.oid), f"{relation.schema}.{relation.name}")
        columns = [each.name for each in self._columns.get(relation.oid, ())]
        return self._policy.holds(names, *column.called, columns)

    def _unseen(self, oid: int) -> str | None:
        """Return why writes to a relation may go unseen; None if none can."""
        relation = self.relations[oid]
        return _UNCAPTURED_KINDS.get(relation.kind, relation.reason)

    def _stranger(self, oid: int) -> str | None:
        """Return the stranger who owns a relation or its schema, and could put another in its place."""
        relation = self.relations[oid]
        return next((owner for owner in (relation.owner, relation.schema_owner) if owner in self._strangers), None)

    def _relation(self, oid: int) -> PostgreSQLRelation:
        found = self.relations[oid]
        columns = "/".join(column.version for column in self._columns.get(oid, ()))
        return PostgreSQLRelation(
            oid=oid,
            schema=found.schema,
            name=found.name,
            version=f"{found.version}/{zlib.crc32(columns.encode())}",
            link=self._links.get(oid, ""),
            owner=found.owner,
        )

    def _foreign_keys_of(self, oid: int) -> tuple[ForeignKey, ...]:
        keys = [
            (column, self.name(self.root(parent)), referred)
            for column, parent, referred in self._foreign_keys[oid]
            if self.root(parent) in self.relations
        ]
        # A key to a partitioned table has further entries, one for each partition.
        return tuple(dict.fromkeys(keys))


def _closure(oid: int, edges: Mapping[int, list[int]]) -> list[int]:
    found: dict[int, None] = {}
    waiting = list(edges.get(oid, ()))
    while waiting:
        following = waiting.pop(0)
        if following not in found:
            found[following] = None
            waiting.extend(edges.get(following, ()))
    return list(found)


def _read_columns(connection: psycopg.Connection[Any]) -> dict[int, tuple[PostgreSQLColumn, ...]]:
    row = connection.execute(_DATABASE).fetchone()
    is_utf8, is_ascii, is_by_code_points = row if row is not None else (False, True, False)
    doubtful = read_doubtful_types(connection)
    columns: dict[int, list[PostgreSQLColumn]] = defaultdict(list)
    for oid, name, number, version, generated, base, collation, type_, type_name, types in connection.execute(_COLUMNS):
        order = ("code points" if is_by_code_points else "other") if collation == "default" else collation
        kind = _kind(base, order, is_utf8=is_utf8, is_ascii=is_ascii)
        if generated == "v" or not doubtful.isdisjoint(types):
            kind = None
        is_plain = base in _PLAIN or (base in _TEXTS and order != "nondeterministic")
        columns[oid].append(
            PostgreSQLColumn(
                name,
                number,
                version,
                kind,
                generated,
                is_plain,
                type_,
                type_name,
                is_enum=base == "enum",
                is_small=base == "int2",
            )
        )
    return {oid: tuple(found) for oid, found in columns.items()}


def _kind(base: str, order: str, *, is_utf8: bool, is_ascii: bool) -> ColumnKind | None:
    if base not in _TEXTS:
        return "label" if base == "enum" and not is_ascii else _KINDS.get(base)
    if order == "nondeterministic" or is_ascii:
        return None
    # In other encodings the order of bytes is not that of code points.
    return "text" if order == "code points" and is_utf8 else "label"


def _named(tables: Iterable[PostgreSQLTable], reader: _CatalogReader) -> Catalog:
    """Return the catalog; a name with two meanings is no table's, and a table without a name is not captured."""
    meanings: dict[str, set[str]] = defaultdict(set)
    by_name: dict[str, list[PostgreSQLTable]] = defaultdict(list)
    by_oid = {}
    for table in tables:
        by_name[table.name].append(table)
    for oid, relation in reader.relations.items():
        name = reader.name(reader.root(oid))
        by_oid[oid] = name
        meanings[f"{relation.schema}.{relation.name}"].add(name)
        if oid in reader.visible:
            meanings[relation.name].add(name)
    found = [_unambiguous(sharing) for _, sharing in sorted(by_name.items())]
    # A canonical name that also spells another table is that other table's to some statements.
    found = [table if meanings[table.name] == {table.name} else _refused(table) for table in found]
    names = {name: next(iter(of)) for name, of in meanings.items() if len(of) == 1 and name not in by_name}
    return Catalog(tables=tuple(found), names=names, by_oid=by_oid)


def _unambiguous(sharing: list[PostgreSQLTable]) -> PostgreSQLTable:
    return sharing[0] if len(sharing) == 1 else _refused(sharing[0])


def _refused(table: PostgreSQLTable) -> PostgreSQLTable:
    return replace(
        table, capture=replace(table.capture, captured=False, reason="another table can be spelled in the same way")
    )
