"""Compare the catalogs of the database with the DDL that should stand, and with the record of the last state.

`Findings` says which DDL is missing, whether an epoch ends, and which tables count as changed. All that it rests on was
read at one moment of the catalogs, which `FINGERPRINT` names.

`docs/internals/capture-postgresql.md` lists the changes that end an epoch and those that do not, and argues why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, LiteralString, NamedTuple

import psycopg

from reactive_rpc.backends.postgresql.capture.meaning import read_redefined
from reactive_rpc.backends.postgresql.capture.names import quoted
from reactive_rpc.backends.postgresql.capture.owner import ROLE, Owner, read_owner, read_strangers, refuse_strangers
from reactive_rpc.backends.postgresql.capture.record import EMPTY, Record, TableRecord, read_record
from reactive_rpc.backends.postgresql.capture.tables import (
    FINGERPRINT,
    SCHEMA,
    Catalog,
    PostgreSQLTable,
    read_catalog,
    read_visible,
)
from reactive_rpc.backends.postgresql.capture.triggers import (
    ALWAYS,
    ANNOUNCE_BODY,
    BASE,
    FUNCTION_SETTINGS,
    TRIGGER_PREFIX,
    RelationTriggers,
    announce_statements,
    base_statements,
    triggers_of,
)
from reactive_rpc.backends.postgresql.capture.views import Views, read_insecure, read_views
from reactive_rpc.changes.captured_schema import CaptureState, TableCapture, digest_of
from reactive_rpc.changes.image_policy import READ_TABLES, ImagePolicy
from reactive_rpc.statements.functions import pure_functions

__all__ = ["INCARNATION", "Findings", "inspect"]

_PURE: Final = pure_functions("postgresql")

INCARNATION: Final[LiteralString] = """concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
  extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))"""
"""SQL that names one run of the server: another after each start, and after each recovery from a crash, which drops the
statistics. A crash undoes transactions that were not on disk yet, and gives their ids out again (see `log.py`)."""

_SERVER: Final[LiteralString] = f"""
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || d.oid,
  substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '/' || {INCARNATION}
FROM pg_database d WHERE datname = current_database()
"""
# The definitions of enum labels, composite types and text search, wherever they are used.
_TYPES: Final[LiteralString] = """
SELECT 'e' || oid, enumlabel::text FROM pg_enum
UNION ALL
SELECT 'c' || a.attrelid, string_agg(a.attname || '/' || a.xmin, ' ' ORDER BY a.attnum)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind = 'c' AND c.oid >= 16384 AND a.attnum > 0
GROUP BY a.attrelid
UNION ALL
SELECT 't' || mapcfg, md5(string_agg(concat_ws('/', maptokentype, mapseqno, mapdict, xmin), ' '
  ORDER BY maptokentype, mapseqno)) FROM pg_ts_config_map GROUP BY mapcfg
UNION ALL
SELECT 'd' || oid, xmin::text FROM pg_ts_dict
ORDER BY 1
"""
_OURS: Final[LiteralString] = f"""
SELECT c.relname::text, c.oid || '/' || c.relfilenode FROM pg_class c
WHERE c.relnamespace = to_regnamespace('{SCHEMA}') AND c.relkind = 'r'
"""
_FUNCTIONS: Final[LiteralString] = f"""
SELECT p.proname::text, p.oid || '/' || p.xmin, p.prosrc,
  CASE WHEN r.rolname = '{ROLE}' OR NOT (r.rolsuper OR r.rolcreaterole) THEN r.rolname::text ELSE '' END,
  p.prosecdef AND p.proconfig = '{{"{FUNCTION_SETTINGS}"}}'
    AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.pronamespace = to_regnamespace('{SCHEMA}')
"""
_TRIGGERS: Final[LiteralString] = f"""
SELECT t.tgrelid::bigint, t.tgname::text, t.oid || '/' || t.xmin,
  CASE WHEN p.pronamespace = to_regnamespace('{SCHEMA}') THEN p.proname::text ELSE '' END,
  t.tgtype::int, t.tgenabled::text, t.tgoldtable::text, t.tgnewtable::text,
  pg_get_expr(t.tgqual, t.tgrelid) IN ('({ALWAYS})', '({ALWAYS.replace(f"{SCHEMA}.", "")})')
    AND t.tgattr = '' AND t.tgnargs = 0, n.nspname::text, c.relname::text
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND starts_with(t.tgname::text, '{TRIGGER_PREFIX}') AND c.relpersistence <> 't'
"""


class _Function(NamedTuple):
    """How a function of ours stands.

    Attributes:
        owner: empty if it is one that should own none.
        is_right: whether it is defined as it should be otherwise, and nobody but its owner may use it by default.
    """

    version: str
    body: str
    owner: str
    is_right: bool


_NO_FUNCTION: Final = _Function("", "", "", is_right=False)

_REPLACEABLE: Final = frozenset({"answers", "ephemeral_store", "reads"})

_Trigger = tuple[str, tuple[object, ...]]
"""`(version, signature)`."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The objects that stand in the database, and those that should.

    Attributes:
        record: the last one.
        schema_fingerprint: see `FINGERPRINT`, as it is now.
        catalog: every table, captured or not.
        expected: `{table: the triggers of it and its partitions}` of the tables to capture.
        policy: which values images are to hold.
        owner: who is to own our functions.
        functions: `{function of ours: how it stands}`.
        triggers: `{relation: {trigger of ours: (version, signature)}}`.
        relations: `{relation with triggers of ours: quoted name}`.
        ours: `{table of ours: oid and file}`; TRUNCATE, too, gives it another file.
    """

    record: Record
    schema_fingerprint: str
    catalog: Catalog
    views: Views
    expected: Mapping[str, Sequence[RelationTriggers]]
    policy: ImagePolicy
    owner: Owner
    functions: Mapping[str, _Function]
    triggers: Mapping[int, Mapping[str, _Trigger]]
    relations: Mapping[int, str]
    ours: Mapping[str, str]
    server: tuple[str, str]
    types: Mapping[str, str]
    redefined: frozenset[str]

    @cached_property
    def base(self) -> list[str]:
        """The DDL of our own objects that are missing: tables, their owner, the function that announces."""
        statements = [*base_statements(self.ours), *self.owner.missing]
        announce = self.functions.get("announce", _NO_FUNCTION)
        if announce.is_right and announce.body == ANNOUNCE_BODY and announce.owner:
            return statements
        return [*statements, *self.owner.opening, *announce_statements(self.owner.name), *self.owner.closing]

    @property
    def all_drops(self) -> list[list[str]]:
        """The DDL that takes everything away."""
        triggers = [
            [f"DROP TRIGGER {quoted(name)} ON {self.relations[oid]}" for name in on]
            for oid, on in self.triggers.items()
        ]
        return [*triggers, [f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"]]

    @cached_property
    def drops(self) -> list[list[str]]:
        """The DDL that drops triggers of ours from relations that should have none, a list for each."""
        wanted = {triggers.relation.oid for group in self.expected.values() for triggers in group}
        return [
            [f"DROP TRIGGER {quoted(name)} ON {self.relations[oid]}" for name in triggers]
            for oid, triggers in self.triggers.items()
            if oid not in wanted
        ]

    @cached_property
    def changes(self) -> list[list[str]]:
        """The DDL that is missing on tables, a list for each relation, in an order that works."""
        missing = [
            triggers.statements(self.owner.name)
            for group in self.expected.values()
            for triggers in group
            if not self._stands(triggers)
        ]
        around = [list(part) for part in (self.owner.opening, self.owner.closing) if part and missing]
        return self.drops + around[:1] + missing + around[1:]

    @property
    def statements(self) -> list[str]:
        """All the DDL that is missing."""
        return self.base + [statement for group in self.changes for statement in group]

    def _stands(self, wanted: RelationTriggers) -> bool:
        function = self.functions.get(wanted.function, _NO_FUNCTION)
        existing = self.triggers.get(wanted.relation.oid, {})
        signatures = {name: signature for name, (_, signature) in existing.items()}
        is_ours = function.is_right and function.owner in (ROLE, wanted.relation.owner)
        return is_ours and function.body == wanted.body and signatures == wanted.signatures

    @cached_property
    def incomplete(self) -> frozenset[str]:
        """The tables that should be captured and whose triggers are not as they should be.

        A write to a partition or an heir must be recorded for the table too, so the table shares the fate of each.
        """
        broken = {name for name, group in self.expected.items() if not all(map(self._stands, group))}
        above = {table.name: table.ancestors for table in self.catalog.tables}
        return frozenset(broken | {name for child in broken for name in above[child] if name in self.expected})

    @cached_property
    def table_records(self) -> dict[str, TableRecord]:
        """The record of each table to capture, with the triggers that stand."""
        return {
            table.name: (_digest(table), sorted(table.capture.unique), self._relations(table))
            for table in self.catalog.tables
            if table.name in self.expected
        }

    def _relations(self, table: PostgreSQLTable) -> dict[str, list[str]]:
        found = {}
        for wanted in self.expected[table.name]:
            relation = wanted.relation
            function = self.functions.get(wanted.function, _NO_FUNCTION).version
            triggers = sorted(version for version, _ in self.triggers.get(relation.oid, {}).values())
            found[str(relation.oid)] = [f"{relation.version} {relation.link}", " ".join([function, *triggers])]
        return found

    @property
    def _files(self) -> str:
        """The files of our tables; not of those that may be emptied or made anew and no write was missed."""
        return json.dumps({name: file for name, file in sorted(self.ours.items()) if name not in _REPLACEABLE})

    @cached_property
    def now(self) -> Record:
        """The record to be written. It leaves out incomplete tables: each counts as new once it is complete."""
        return Record(
            epoch=self.record.epoch,
            server=[*self.server, self._files],
            tables={name: found for name, found in self.table_records.items() if name not in self.incomplete},
            types=dict(self.types),
            names=dict(self.catalog.names) | {name: f"view {of}" for name, of in self.views.versions.items()},
            redefined=sorted(self.redefined),
            policy=self.policy.to_json(),
        )

    @cached_property
    def is_elsewhere(self) -> bool:
        """Tell whether the record was made on another server or in another database, with other transactions."""
        return bool(self.record.epoch) and self.record.server[0] != self.server[0]

    @cached_property
    def invalidation_reason(self) -> str | None:
        """Why writes may have gone unseen since the record, or be read wrongly; None if neither is possible."""
        if not self.record.epoch or self.base:
            return "capture was not installed"
        if self.record.server != self.now.server:
            return (
                "the server was restarted or promoted, the database restored or copied, or the outbox truncated or made"
                " anew"
            )
        return self._reason_in_tables or self._reason_in_meanings

    @property
    def _reason_in_tables(self) -> str | None:
        for name, (digest, unique, relations) in self.record.tables.items():
            if name not in self.table_records:
                return f"table {name!r} was dropped, or cannot be captured any more"
            now_digest, now_unique, now_relations = self.table_records[name]
            if digest != now_digest or not set(unique) <= set(now_unique):
                return f"table {name!r} was altered"
            if any(now_relations.get(oid, found)[1] != found[1] for oid, found in relations.items()):
                return f"the triggers of table {name!r} were dropped or altered"
        return None

    @property
    def _reason_in_meanings(self) -> str | None:
        for name, meaning in self.record.types.items():
            if self.types.get(name, meaning) != meaning:
                return f"a type was altered: {meaning!r} is now {self.types[name]!r}"
        if not self.redefined <= set(self.record.redefined):
            return "a function or operator that is built in was defined once more"
        for name, meaning in self.record.names.items():
            now = self.now.names.get(name, name if name in self.table_records else None)
            if now != meaning and not (now is None and not meaning.startswith("view ")):
                return f"{name!r} was altered or means something else"
        return None

    @property
    def suspects(self) -> list[str]:
        """The tables that may have been written unseen although the record holds for all others."""
        now, then = self.now.tables, self.record.tables
        return sorted(name for name, (_, _, found) in now.items() if name not in then or found != then[name][2])

    @cached_property
    def is_recorded(self) -> bool:
        """Tell whether nothing is left to write, DDL or record."""
        return self.invalidation_reason is None and not self.statements and self.record == self.now

    def state(self) -> CaptureState:
        """Return the state as it stands, tables with missing triggers marked as not captured."""
        return CaptureState(
            epoch=self.record.epoch,
            schema_fingerprint=self.schema_fingerprint,
            tables={table.name: self._capture(table) for table in self.catalog.tables},
            names=self.catalog.names,
            views=self.views.found,
            redefined=self.redefined,
        )

    def _capture(self, table: PostgreSQLTable) -> TableCapture:
        if table.name not in self.incomplete:
            return table.capture
        return replace(table.capture, captured=False, reason="its triggers are missing")


def inspect(
    connection: psycopg.Connection[Any],
    policy: ImagePolicy | None = None,
    *,
    fallback: ImagePolicy = READ_TABLES,
    may_read: bool = True,
) -> Findings:
    """Compare the database with what should stand, at one moment of the catalogs.

    Args:
        policy: to be imposed; None is the recorded one.
        fallback: takes its place if none is recorded.
        may_read: whether our tables may be read.
    """
    while True:
        # INVARIANT (the fingerprint is read before and after, and is the same): nothing that matters was committed in
        # between, so all that several statements read belongs to one moment.
        before = _fingerprint(connection)
        found = _inspect_once(connection, before, policy, fallback=fallback, may_read=may_read)
        if _fingerprint(connection) == before:
            return found


def _fingerprint(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(f"SELECT {FINGERPRINT}").fetchone()
    return "" if row is None else str(row[0])


def _inspect_once(
    connection: psycopg.Connection[Any],
    fingerprint: str,
    policy: ImagePolicy | None,
    *,
    fallback: ImagePolicy,
    may_read: bool,
) -> Findings:
    if may_read:
        refuse_strangers(connection)
    visible = read_visible(connection)
    ours = {name: oid for name, oid in connection.execute(_OURS) if name in BASE}
    record = read_record(connection) if may_read and "meta" in ours else EMPTY
    policy = policy or (ImagePolicy.from_json(record.policy) if record.policy else fallback)
    insecure, strangers = read_insecure(connection, _PURE), read_strangers(connection)
    catalog = read_catalog(connection, insecure, visible, policy, strangers=strangers)
    captured = {table.name: table for table in catalog.tables if table.capture.captured}
    triggers, relations = _read_triggers(connection)
    server = connection.execute(_SERVER).fetchone()
    expected = {name: triggers_of(table, captured, only_read=policy.only_read) for name, table in captured.items()}
    owners = {triggers.relation.owner for group in expected.values() for triggers in group}
    return Findings(
        record=record,
        schema_fingerprint=fingerprint,
        catalog=catalog,
        views=read_views(connection, catalog, _PURE, visible),
        expected=expected,
        policy=policy,
        owner=read_owner(connection, owners, has_outbox="outbox" in ours),
        functions={name: _Function(*found) for name, *found in connection.execute(_FUNCTIONS)},
        triggers=triggers,
        relations=relations,
        ours=ours,
        server=("", "") if server is None else (server[0], server[1]),
        types=dict(connection.execute(_TYPES).fetchall()),
        redefined=read_redefined(connection),
    )


def _read_triggers(connection: psycopg.Connection[Any]) -> tuple[dict[int, dict[str, _Trigger]], dict[int, str]]:
    """Return the triggers of ours by relation and name, and the quoted name of each such relation."""
    triggers: dict[int, dict[str, _Trigger]] = {}
    relations = {}
    for oid, name, version, function, kind, enabled, old, new, is_plain, schema, relation in connection.execute(
        _TRIGGERS
    ):
        signature = (function, kind, enabled, old, new) if is_plain else ()
        triggers.setdefault(oid, {})[name] = (version, signature)
        relations[oid] = quoted(schema, relation)
    return triggers, relations


def _digest(table: PostgreSQLTable) -> str:
    """Return a digest of all properties of a table that must stay the same within an epoch.

    It leaves out the foreign keys, which the children's triggers concern; the unique columns, since more of them do no
    harm; the indexed ones, which only decide what a look-up costs; and the stranger who owns the table, which only
    decides whether the log looks into it.
    """
    free = replace(table.capture, unique=frozenset(), indexed=frozenset(), foreign_keys=(), key_columns=())
    return digest_of(replace(free, stranger=None), table.columns, table.ancestors, table.descendants, table.facts)
