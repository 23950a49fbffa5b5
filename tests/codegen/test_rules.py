"""The source of rules compiles under the strictest options, in Python and TypeScript, and says when it cannot know."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reactive_rpc.codegen.rules import PythonRules
from reactive_rpc.codegen.typescript.rules import TypeScriptRules
from reactive_rpc.records.rules import Policy, anyone, bind, nobody, private, record, some, user
from tests.integration.records.rule_drawing import USER_ATTRIBUTES, draw_rule
from tests.integration.records.rule_models import Item
from tests.integration.records.rule_readers import RUNTIME
from tests.support.node import run_node
from tests.support.typescript import COMPILERS, faults_of

ASKED = (record.int1 == user.int) & (private(record.text1 == "a") | some("parts", lambda part: part.int1 == user.int))


def drawn() -> list[Policy]:
    """Return some rules of everything that rules may be made of."""
    rules = [draw_rule(random.Random(seed)).rule for seed in range(60)]
    rules += [
        anyone,
        nobody,
        ASKED,
        private(anyone),
        some("parts", lambda _: anyone),
        some("tags", lambda _: user.bool),
    ]
    return [bind(rule, Item, USER_ATTRIBUTES) for rule in rules]


def typescript(policies: list[Policy]) -> str:
    """Return a module of rules."""
    rules = TypeScriptRules()
    functions = [rules.function(f"rule{at}", policy.shipped()) for at, policy in enumerate(policies)]
    return rules.head(str(RUNTIME)) + "".join(functions)


def python(policies: list[Policy]) -> str:
    """Return a module of rules."""
    rules = PythonRules()
    functions = [rules.function(f"rule{at}", policy.shipped()) for at, policy in enumerate(policies)]
    return "\n".join((rules.head(), *functions))


@pytest.mark.parametrize("version", COMPILERS)
def test_the_source_compiles(version: str, tmp_path: Path) -> None:
    """By both compilers, with the options of the project."""
    assert faults_of(tmp_path, {"rules.ts": typescript(drawn())}, version=version) == []


def test_the_source_in_python_passes_mypy(tmp_path: Path) -> None:
    """As strictly as this project itself."""
    module = tmp_path / "rules.py"
    module.write_text(python(drawn()), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", str(module)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


SITUATIONS: dict[str, tuple[dict[str, Any], tuple[bool, bool]]] = {
    # the record of a user whose int is 1; the answers with False and with True for what is unknown
    "what is known decides against it": ({"int1": 2}, (False, False)),
    "the association decides for it": ({"int1": 1, "parts": [{"int1": 1}]}, (True, True)),
    "the private part may": ({"int1": 1, "parts": []}, (False, True)),
    "nothing is loaded": ({"int1": 1}, (False, True)),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_client_knows_when_to_ask(situation: str) -> None:
    """It is true if it holds without what is unknown, false if it fails even with it, and else the server's to say."""
    row, expected = SITUATIONS[situation]
    policy = bind(ASKED, Item, USER_ATTRIBUTES)
    module: dict[str, Any] = {}
    exec(python([policy]), module)
    parts = [SimpleNamespace(**part) for part in row["parts"]] if "parts" in row else ...
    item, who = SimpleNamespace(**{**row, "parts": parts}), SimpleNamespace(int=1)
    assert tuple(module["rule0"](item, who, unknown) for unknown in (False, True)) == expected
    asking = f"console.log(JSON.stringify([false, true].map((one) => rule0({json.dumps(row)}, {{ int: 1 }}, one))));"
    assert tuple(json.loads(run_node(typescript([policy]) + asking))) == expected


NAMES: dict[str, Any] = {
    "an attribute that calls": ["null", ["user", "x is None or evil()"]],
    "an attribute with a dash": ["eq", "text", ["user", "tenant-id"], ["value", "a"]],
    "a keyword": ["eq", "int", ["field", 0, "class"], ["value", 1]],
    "a number": ["in", "int", ["field", 0, 1], ["value", [1]]],
    "an association that calls": ["some", 0, "x or evil()", True, True],
}


@pytest.mark.parametrize("rule", NAMES)
def test_a_name_that_is_none_is_no_source_in_python(rule: str) -> None:
    """It is refused: names of models and contexts are identifiers."""
    with pytest.raises(ValueError, match="cannot be a name in Python"):
        PythonRules().function("rule", NAMES[rule])


def test_a_name_is_quoted_in_typescript() -> None:
    """Whatever is in it."""
    tree = ["null", ["user", 'x"] || evil() || ["']]
    assert r'isNull(user["x\"] || evil() || [\""])' in TypeScriptRules().function("rule", tree)


@pytest.mark.parametrize("level", ["0.a or evil() or r0", True, -1, 1.0, None])
@pytest.mark.parametrize("rules", [PythonRules, TypeScriptRules])
def test_a_level_is_a_number(level: Any, rules: type[PythonRules | TypeScriptRules]) -> None:
    """A whole one."""
    for tree in (["null", ["field", level, "x"]], ["some", level, "x", True, True]):
        with pytest.raises(ValueError, match="is no level of a rule"):
            rules().function("rule", tree)


@pytest.mark.parametrize("name", ["a b", "a(): evil()", "1a", ""])
def test_a_function_has_a_name(name: str) -> None:
    """In both languages."""
    for rules in (PythonRules(), TypeScriptRules()):
        with pytest.raises(ValueError, match="cannot be a name in"):
            rules.function(name, True)


def test_names_of_the_wire_are_spelled_as_there() -> None:
    """TypeScript reads JSON as it comes."""
    rules = TypeScriptRules(spell=str.upper)
    function = rules.function("rule", bind(record.int1 == user.int, Item, USER_ATTRIBUTES).shipped())
    assert function == 'export const rule: Decide = (r0, user) => eq(integer, r0["INT1"], user["INT"]);\n'


def test_a_value_of_the_wrong_type_is_an_error_in_typescript() -> None:
    """And no answer: the client was made for another server."""
    program = f"""
import {{ decimal, eq, integer, moment, text }} from '{RUNTIME}/records/rules.ts';
const wrong = [[integer, 2 ** 53], [integer, 1.5], [integer, 'a'], [text, 1], [moment, '2026-01-01'], [decimal, 'a']];
const isRefused = ([order, value]) => {{ try {{ eq(order, value, value); return false; }} catch {{ return true; }} }};
console.log(wrong.every(isRefused));
"""
    assert run_node(program).strip() == "true"
