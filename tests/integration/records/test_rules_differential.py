"""Databases, Python and TypeScript decide every rule as plain SQL text does, and each bug put into a reader is found.

`REACTIVE_RULES_ROUNDS` sets how many tables are drawn, each with rules and users of its own; `REACTIVE_RULES_SEED` the
first of their seeds.
"""

from __future__ import annotations

import inspect
import os
import random
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.codegen.rules import PythonRules
from reactive_rpc.records.rules import RuleError, canonical_text, kinds, normal_form, python, residual, sql
from reactive_rpc.testing.postgresql import PostgreSQL

from . import rule_readers
from .rule_readers import Databases, Differences, all_readers, differences, draw_cases, draw_world

ROUNDS = int(os.environ.get("REACTIVE_RULES_ROUNDS", "1"))
SEED = int(os.environ.get("REACTIVE_RULES_SEED", "1"))
RULES, USERS = 90, 6


@pytest.fixture(scope="module")
def databases(postgresql: PostgreSQL) -> Iterator[Databases]:
    """SQLite and PostgreSQL."""
    found = Databases.on(postgresql.new_database(driver="postgresql+psycopg"))
    yield found
    found.dispose()


def run(seed: int, databases: Databases, folder: Path, *, reader: str | None = None) -> Differences:
    """Draw rows, rules and users, and hold every reader against the reference, or one."""
    rng = random.Random(seed)
    world = draw_world(rng)
    databases.fill(world)
    cases = draw_cases(rng, rules=RULES, users=USERS)
    readers = all_readers(databases, folder)
    return differences(world, cases, readers if reader is None else {reader: readers[reader]})


def differs(databases: Databases, folder: Path, reader: str) -> bool:
    """Tell whether a reader decides otherwise than the reference in one of a few rounds, or refuses a text."""
    try:
        return any(run(seed, databases, folder, reader=reader).found for seed in range(SEED, SEED + 5))
    except RuleError:  # a text that was spelled is refused as it is read
        return True


def test_all_readers_decide_as_plain_sql(
    databases: Databases, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """SQLAlchemy on both databases, Python, and the source for clients in Python and TypeScript, of every kind."""
    decisions = true = 0
    for seed in range(SEED, SEED + ROUNDS):
        result = run(seed, databases, tmp_path)
        assert not result.found, f"seed {seed}: {result}"
        decisions += result.decisions
        true += result.true
    record_property("decisions of rules", f"{decisions} from seed {SEED}, {true} of them true")
    assert 0.2 < true / decisions < 0.8


def broken(function: Any, old: str, new: str) -> Any:
    """Return the code of a function with a part of its text replaced: whoever has imported it runs the new one."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {function.__qualname__}"
    module: dict[str, Any] = {}
    exec(compile(source.replace(old, new), "<broken>", "exec", dont_inherit=False), {**function.__globals__}, module)
    return inspect.unwrap(module[function.__name__]).__code__


SEEDED: dict[str, tuple[str, Any, str, str]] = {
    # bug: the reader that shows it, the function, a part of its text, and the bug in its place
    "NOT forgets de Morgan": (
        "Python", normal_form.normal_form, "isinstance(rule, AllOf) != negated", "isinstance(rule, AllOf)",
    ),
    "NOT goes into EXISTS": (
        "Python", normal_form.normal_form, "part=normal_form(part)", "part=normal_form(part, negated=negated)",
    ),
    "NOT EXISTS is EXISTS": (
        "Python", normal_form.normal_form,
        "part=normal_form(part), negated=rule.negated != negated", "part=normal_form(part)",
    ),
    "NOT is true of null": (
        "Python", normal_form.normal_form,
        "return replace(rule, operator=_OPPOSITE[operator] if negated else operator)",
        "return AnyOf((replace(rule, operator=_OPPOSITE[operator]), NullTest(rule.left))) if negated else rule",
    ),
    "NOT of IS NULL is forgotten": (
        "Python", normal_form.normal_form, "        case NullTest() | Custom():\n",
        "        case NullTest():\n            return rule\n        case Custom():\n",
    ),
    "a user without a value is unequal": (
        "Python", residual._compared, "    if value is None:\n        return nobody\n",
        '    if value is None:\n        return Truth(operator == "ne")\n',
    ),
    "a user without a value is IS NULL": (
        "SQLite", residual._compared, "    if value is None:\n        return nobody\n",
        "    if value is None:\n"
        '        return NullTest(left) if operator == "eq" and isinstance(left, RecordField) else nobody\n',
    ),
    "comparisons are not mirrored": (
        "Python", residual._compared, "right, left, MIRRORED[operator]", "right, left, operator",
    ),
    "two fields are not mirrored": ("Python", residual._between_fields, "MIRRORED[rule.operator]", "rule.operator"),
    "NOT IN forgets the null in a list": ("Python", residual._membership, "None in items and not is_in", "False"),
    "NOT IN an empty list is false": ("Python", residual._membership, "return Truth(not is_in)", "return nobody"),
    "a list that is null is empty": (
        "Python", residual._membership, "    if found is None:\n        return nobody\n", "    found = found or ()\n",
    ),
    "one part decides for all": ("Python", residual._joined, "decisive = join is AnyOf", "decisive = True"),
    "parts that look alike are one": ("Python", residual._joined, "found[spell(each)]", "found[spell(each)[:9]]"),
    "canonical text drops microseconds": (
        "SQLite", kinds.Kind.spell, "str(value.isoformat())",
        "str((value.replace(microsecond=0) if hasattr(value, 'hour') else value).isoformat())",
    ),
    "canonical text forgets whose field it is": (
        "SQLite", canonical_text._field_tree, "str(level_of(field.row))", '"0"',
    ),
    "SQL forgets NOT EXISTS": ("SQLite", sql._condition, "not_(found) if negated else found", "found"),
    "SQL binds as a column is declared": (
        "PostgreSQL by asyncpg", sql._bound_as.__wrapped__, "    if bound is None:\n",
        '    if bound is None or kind.name == "decimal":\n',
    ),
    "SQL takes the innermost row": ("SQLite", sql._column, "level_of(field.row)", "-1"),
    "Python calls null unequal": (
        "Python", python._compared, "other is not None and", "(other is not None or rule.operator == 'ne') and",
    ),
    "Python forgets the sign of EXISTS": (
        "Python", python._holds, "for other in others) != negated", "for other in others)",
    ),
    "source in Python calls null unequal": (
        "source in Python", PythonRules._rule,
        "for side in (left, right) if side[0]",
        'for side in (left, right) if (name, kind) != ("ne", "text") and side[0]',
    ),
    "source in Python forgets the null in a list": (
        "source in Python", PythonRules._membership, "None not in {rows} and ", "",
    ),
    "source in Python forgets the sign of EXISTS": ("source in Python", PythonRules._some, "f'not {found}'", "found"),
}  # fmt: skip

SEEDED_IN_TYPESCRIPT = {
    "null is equal to null": ("known(a, b) && order(a, b) === 0", "a === b || (known(a, b) && order(a, b) === 0)"),
    "null is unequal to a value": ("known(a, b) && order(a, b) !== 0", "!known(a, b) || order(a, b) !== 0"),
    "texts are ordered by UTF-16": ("if (x !== y) return shifted(x) - shifted(y);", "if (x !== y) return x - y;"),
    "fractions are not padded": ("fraction.padEnd(6, '0')", "fraction"),
    "moments have milliseconds": ("fraction.padEnd(6, '0')", "fraction.slice(0, 3)"),
    "offsets are forgotten": ("`${whole}${offset}`", "`${whole}Z${offset === '' ? 0 : ''}`"),
    "integers are numbers": ("? BigInt(value)\n", "? Number(value)\n"),
    "decimals are not scaled": ("value.digits * 10n ** BigInt(Math.max(0, value.exponent - other))", "value.digits"),
    "NOT IN forgets the null in a list": (
        "every((value) => ne(order, a, value))",
        "every((value) => isNull(value) || ne(order, a, value))",
    ),
    "NOT IN of a list that is null": ("return notNull(values) && list(values)", "return list(values ?? [])"),
    "the sign of EXISTS is forgotten": (": !rowsOf(rows).some(rule)", ": rowsOf(rows).some(rule)"),
    "1 is equal to its text": ("compare(scalar(a), scalar(b)) || 1", "compare(scalar(a), scalar(b))"),
}  # fmt: skip


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", SEEDED)
def test_a_bug_in_a_reader_is_found(
    bug: str, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader decides otherwise than plain SQL."""
    reader, function, old, new = SEEDED[bug]
    monkeypatch.setattr(function, "__code__", broken(function, old, new))
    sql._bound_as.cache_clear()
    found = differs(databases, tmp_path, reader)
    sql._bound_as.cache_clear()
    assert found


@pytest.mark.seeded_bug
@pytest.mark.parametrize("bug", SEEDED_IN_TYPESCRIPT)
def test_a_bug_in_typescript_is_found(
    bug: str, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides otherwise than plain SQL."""
    old, new = SEEDED_IN_TYPESCRIPT[bug]
    runtime = tmp_path / "runtime"
    shutil.copytree(rule_readers.RUNTIME / "records", runtime / "records")
    module = runtime / "records/rules.ts"
    text = module.read_text(encoding="utf-8")
    assert text.count(old) == 1
    module.write_text(text.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(rule_readers, "RUNTIME", runtime)
    assert differs(databases, tmp_path, "source in TypeScript")
