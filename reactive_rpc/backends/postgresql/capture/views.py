"""Views on PostgreSQL: which tables lie behind each, and whether its rows follow from theirs.

The server keeps views and row-level security policies as parsed trees, whose text names every relation, function and
operator by oid. A part of a tree that is not known to be harmless is refused.

`docs/internals/capture-postgresql.md` says how the trees are read ("Views and policies").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from reactive_rpc.backends.postgresql.capture.tables import Catalog
from reactive_rpc.dependencies.schema import View

__all__ = ["Views", "read_insecure", "read_views"]

_VIEWS: Final[LiteralString] = """
SELECT c.oid::bigint, n.nspname, c.relname,
  concat_ws('/', r.oid, r.xmin, c.relowner, c.reloptions::text), r.ev_action::text
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND r.ev_type = '1' AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'reactive_rpc')
ORDER BY n.nspname, c.relname
"""
_RESTRICTED: Final[LiteralString] = """
SELECT v.oid::bigint, array_agg(t.oid::bigint)
FROM pg_class v JOIN pg_roles o ON o.oid = v.relowner, pg_class t
WHERE v.relkind = 'v' AND t.relrowsecurity AND NOT (o.rolsuper OR o.rolbypassrls)
  AND (t.relforcerowsecurity OR NOT pg_has_role(v.relowner, t.relowner, 'USAGE'))
  AND NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions)
                  WHERE option_name = 'security_invoker' AND option_value::boolean)
GROUP BY v.oid
"""
_POLICIES: Final[LiteralString] = """
SELECT p.polrelid::bigint, p.polname, coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '')
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relrowsecurity ORDER BY p.polrelid, p.polname
"""
_FUNCTIONS: Final[LiteralString] = (
    "SELECT oid::bigint, proname, provolatile = 'i', pronamespace = 'pg_catalog'::regnamespace FROM pg_proc"
    " WHERE oid = ANY(%s::oid[])"
)
_OPERATORS: Final[LiteralString] = (
    "SELECT oid::bigint, oprname FROM pg_operator WHERE oid = ANY(%s::oid[])"
    " AND oprnamespace <> 'pg_catalog'::regnamespace"
)
_CONVERSIONS: Final[LiteralString] = (
    "SELECT t.oid::bigint, t.typname FROM pg_type t JOIN pg_proc p ON p.oid = t.typinput"
    " WHERE t.oid = ANY(%s::oid[]) AND (p.provolatile <> 'i' AND t.typtype <> 'e')"
)

_RELATION: Final = re.compile(r":relid (\d+)")
_FUNCTION: Final = re.compile(r":(?:funcid|aggfnoid|winfnoid) (\d+)")
_OPERATOR: Final = re.compile(r":opno (\d+)")
_CONVERSION: Final = re.compile(r"\{(?:COERCEVIAIO|ARRAYCOERCEEXPR)\b.*?:resulttype (\d+)", re.S)
_REFUSED_NODES: Final[Mapping[str, str]] = {
    "{SQLVALUEFUNCTION": "reads the clock or the current user",
    "{NEXTVALUEEXPR": "draws from a sequence",
    "{ROWMARKCLAUSE": "locks rows",
    "{TABLESAMPLECLAUSE": "draws a sample",
    "{XMLEXPR": "makes XML, which depends on settings",
}
_FIRST_USER_OID: Final = 16384


@dataclass(frozen=True, slots=True)
class Views:
    """The tables behind each view, and the version of its definition.

    Attributes:
        found: `{name that statements may use: the view}`.
        versions: `{name: changes whenever the definition does}`.
    """

    found: Mapping[str, View]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _CatalogView:
    """A view.

    Attributes:
        restricted: the tables whose row-level security would apply to the view's owner, in whose name it reads.
    """

    names: tuple[str, ...]
    version: str
    tree: str
    restricted: frozenset[int]

    def reads(self, own: int) -> set[int]:
        """Return the oids of the relations in its query; older servers list the view itself too."""
        return {int(oid) for oid in _RELATION.findall(self.tree)} - {0, own}


def read_views(connection: psycopg.Connection[Any], catalog: Catalog, pure: Set[str], visible: Set[int]) -> Views:
    """Return every view of the user's schemas.

    Args:
        visible: the relations that are called by their bare names.
        pure: names of functions that depend on their arguments alone.
    """
    views: dict[int, _CatalogView] = {}
    restricted = {oid: frozenset(tables) for oid, tables in connection.execute(_RESTRICTED)}
    for oid, schema, name, version, tree in connection.execute(_VIEWS):
        qualified = f"{schema}.{name}"
        names = (name, qualified) if oid in visible else (qualified,)
        views[oid] = _CatalogView(names, version, tree, restricted.get(oid, frozenset()))
    purity = _Purity(connection, [view.tree for view in views.values()], pure)
    found, versions = {}, {}
    for oid, view in views.items():
        behind = _behind(oid, views, catalog, purity)
        for name in view.names:
            found[name], versions[name] = behind, view.version
    return Views(found, versions)


def _behind(oid: int, views: Mapping[int, _CatalogView], catalog: Catalog, purity: _Purity) -> View:
    tables: set[str] = set()
    reasons: list[str] = []
    waiting, seen = [oid], {oid}
    while waiting:
        current = waiting.pop()
        view = views[current]
        reasons.extend(f"the view {view.names[0]} {reason}" for reason in purity.reasons(view.tree))
        for relation in view.reads(current) - seen:
            seen.add(relation)
            if relation in views:
                waiting.append(relation)
            elif relation in catalog.by_oid:
                tables.add(catalog.by_oid[relation])
            else:
                other = "a system catalog" if relation < _FIRST_USER_OID else "a sequence or another relation"
                reasons.append(f"the view {view.names[0]} reads {other}, whose writes are not seen")
    # Views may read through others in the name of any of their owners.
    restricted = frozenset[int]().union(*(views[each].restricted for each in seen if each in views))
    if restricted & seen:
        reasons.append(f"the view {views[oid].names[0]} is subject to its owner's row-level security")
    return View(frozenset(tables), min(reasons, default=None))


def read_insecure(connection: psycopg.Connection[Any], pure: Set[str]) -> dict[int, str]:
    """Return `{oid of a table: why its row-level security depends on more than rows}`."""
    policies = connection.execute(_POLICIES).fetchall()
    purity = _Purity(connection, [tree for _, _, tree in policies], pure)
    return {
        oid: f"its row-level security policy {name!r} {reason}: the same statement differs from session to session"
        for oid, name, tree in policies
        for reason in purity.reasons(tree)
    }


class _Purity:
    """Which functions, operators and conversions of some trees depend on more than their arguments."""

    def __init__(self, connection: psycopg.Connection[Any], trees: list[str], pure: Set[str]) -> None:
        text = "\n".join(trees)
        functions = [int(oid) for oid in set(_FUNCTION.findall(text))]
        self._functions = {oid: f"calls {oid}, which is not known" for oid in functions}
        for oid, name, is_immutable, is_built_in in connection.execute(_FUNCTIONS, [functions]):
            if is_built_in and (is_immutable or name in pure):
                del self._functions[oid]
            else:
                self._functions[oid] = f"calls {name}(), which is not known to depend on its arguments alone"
        operators = [int(oid) for oid in set(_OPERATOR.findall(text))]
        self._operators = {
            oid: f"uses the operator {name}, which is not built in"
            for oid, name in connection.execute(_OPERATORS, [operators])
        }
        types = [int(oid) for oid in set(_CONVERSION.findall(text))]
        self._conversions = {
            oid: f"converts to {name}, which may mean the current time"
            for oid, name in connection.execute(_CONVERSIONS, [types])
        }

    def reasons(self, tree: str) -> Iterator[str]:
        """Yield why a tree depends on more than the rows it reads."""
        yield from (reason for node, reason in _REFUSED_NODES.items() if node in tree)
        for pattern, refused in (
            (_FUNCTION, self._functions),
            (_OPERATOR, self._operators),
            (_CONVERSION, self._conversions),
        ):
            yield from (refused[int(oid)] for oid in pattern.findall(tree) if int(oid) in refused)
