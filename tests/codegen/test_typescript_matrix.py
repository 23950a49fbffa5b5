"""Each type of the matrix has a TypeScript type, which takes every value that the server really sends and takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from fastapi import FastAPI

from reactive_rpc import ReactiveRPC
from reactive_rpc.codegen.typescript import generate_typescript
from tests.support.node import TYPESCRIPT, run_node
from tests.support.typescript import COMPILERS, faults_of

from .test_wire_matrix import RECEIVED, RETURNED, application, giving, taking
from .wire_matrix import Cell, cells

VALUES = """
import type { Routes } from './api.ts';
type Cells = Routes['cell'];
type Output<Name extends keyof Cells> = Cells[Name]['_def']['$types']['output'];
type Input<Name extends keyof Cells> = Cells[Name]['_def']['$types']['input'];
"""


ANYTHING = ("any_", "json_value_")
"""How the cells begin whose type is `unknown`."""


class Sent(NamedTuple):
    """A value as the server has sent it: `name` is its procedure, `text` the JSON."""

    cell: str
    name: str
    text: str
    value: Any


class Sample(NamedTuple):
    """An application and its document, and what its procedures answered."""

    app: FastAPI
    rpc: ReactiveRPC
    document: dict[str, Any]
    sent: list[Sent]


def sample(folder: Path, types: list[Cell]) -> Sample:
    """Define a procedure that returns each type, and one that takes it, and have every value returned."""
    rpc, app, refused = application(folder, ((cell, make) for cell in types for make in (giving, taking)))
    sent: list[Sent] = []

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with rpc.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://matrix") as http:
            for cell in types:
                if f"giv_{cell.name}" not in refused:
                    for value in cell.values:
                        RETURNED[:] = [value]
                        answer = await http.post(f"/rpc/cell.giv_{cell.name}", json={})
                        if answer.is_success:  # what would arrive as another value is refused
                            sent.append(Sent(cell.name, f"giv_{cell.name}", answer.text, value))

    anyio.run(ask)
    taken = [one for one in sent if f"tak_{one.cell}" not in refused]
    inputs = [Sent(one.cell, f"tak_{one.cell}", f'{{"value": {one.text}}}', one.value) for one in taken]
    return Sample(app, rpc, app.openapi(), sent + inputs)


def values_of(sent: list[Sent]) -> str:
    """Return a program that holds each value to the type of its procedure, to which nothing else fits."""
    lines = [f"({one.text}) satisfies {_type_of(one)};" for one in sent]
    for one in {one.name: one for one in sent}.values():
        if not one.cell.startswith(ANYTHING):
            lines += ["// @ts-expect-error no function is carried", f"(() => 0) satisfies {_type_of(one)};"]
    return VALUES + "\n".join(lines) + "\n"


def _type_of(one: Sent) -> str:
    return f"{'Output' if one.name.startswith('giv_') else 'Input'}<{json.dumps(one.name)}>"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The whole matrix."""
    return sample(tmp_path_factory.mktemp("matrix"), list(cells()))


@pytest.mark.parametrize("version", COMPILERS)
def test_every_value_is_of_the_type_that_is_generated(matrix: Sample, version: str, tmp_path: Path) -> None:
    """Alone, optional, in list, dict (as key and value), tuple, set, union; as it is returned and as it is taken."""
    assert len(matrix.sent) > 1500
    generate_typescript(matrix.document, tmp_path)
    files: dict[str, str | Path] = {"api.ts": tmp_path / "api.ts", "values.ts": values_of(matrix.sent)}
    assert faults_of(tmp_path, files, version=version) == []


OTHERS = """
import type { Routes } from './api.ts';
import type { paths } from './openapi.ts';
type Loose<T> = T extends `${number}`
  ? string
  : T extends string | number | boolean | null
    ? T
    : T extends readonly unknown[]
      ? { [K in keyof T]: Loose<T[K]> }
      : T extends object
        ? { [K in keyof T]?: Loose<T[K]> }
        : T;
declare function fits<A extends B, B>(): [A, B];
"""
"""Ours are looser here in the two ways in which they mean to be exact: a Decimal is text that spells a number, and a
result has all of its fields, those too that have a default."""

WIDER = ("giv_empty_tuple_", "giv_tree_", "tak_decimal_or_str", "tak_empty_tuple_", "tak_fraction_")
"""How those begin for which theirs is a wider type: any array for `[]`, a number for a fraction or a Decimal.

`Loose` of lists of lists has no end.
"""

ENDLESS = "tak_tree_"
"""How inputs begin whose types have no end as `Taken`."""


OTHERS_INPUTS = """
type Given<P extends keyof paths> = paths[P] extends {
  post: { requestBody: { content: { 'application/json': infer Body } } };
}
  ? Body
  : never;
type Taken<T, AlsoDecimal = never> = T extends `${number}`
  ? string | AlsoDecimal
  : T extends string | number | boolean | null
    ? T
    : T extends readonly unknown[]
      ? { [K in keyof T]: Taken<T[K], AlsoDecimal> }
      : T extends object
        ? { [K in keyof T]?: Taken<Exclude<T[K], undefined>, AlsoDecimal> }
        : T;
"""
"""Inputs of ours may say `undefined` for a field that has a default, and take no number in the place of a Decimal."""


def test_types_are_those_that_openapi_typescript_writes(matrix: Sample, tmp_path: Path) -> None:
    """Both generators read one document: each type fits the other's, in both directions, but for what is meant."""
    generate_typescript(matrix.document, tmp_path)
    (tmp_path / "openapi.json").write_text(json.dumps(matrix.document), encoding="utf-8")
    other = TYPESCRIPT / "openapi_typescript/node_modules/openapi-typescript/bin/cli.js"
    run_node(other, str(tmp_path / "openapi.json"), "-o", str(tmp_path / "openapi.ts"), folder=other.parents[3])
    lines = []
    for name in sorted({one.name for one in matrix.sent}):
        if name.startswith(ENDLESS):
            continue
        side = "output" if name.startswith("giv_") else "input"
        ours = f"Routes['cell']['{name}']['_def']['$types']['{side}']"
        if side == "output":
            theirs = f"paths['/rpc/cell.{name}']['post']['responses'][200]['content']['application/json']"
            forth, back = f"fits<{ours}, {theirs}>();", f"fits<{theirs}, Loose<{ours}>>();"
        else:
            theirs = f"Given<'/rpc/cell.{name}'>"
            forth, back = f"fits<Taken<{ours}>, Taken<{theirs}>>();", f"fits<{theirs}, Taken<{ours}, number>>();"
        lines += [forth] if name.startswith(WIDER) else [forth, back]
    assert sum("Given<" in line for line in lines) > 200
    program = OTHERS + OTHERS_INPUTS + "\n".join(lines) + "\n"
    files: dict[str, str | Path] = {"api.ts": tmp_path / "api.ts", "both.ts": program}
    faults = faults_of(tmp_path, files, version="7.0")
    # What it writes of a list of lists of lists is refused by the compiler itself (TS2502).
    assert [fault for fault in faults if "openapi.ts(" not in fault] == []


def read_by_codecs(sent: list[Sent], folder: Path) -> list[dict[str, Any]]:
    """Return each value as the generated codecs read it, as an expression, and as they send it back."""
    samples = folder / "samples.json"
    samples.write_text(json.dumps([{"cell": one.cell, "text": one.text} for one in sent]), encoding="utf-8")
    printed = run_node(Path(__file__).with_name("decode_values.ts"), str(folder), str(samples))
    return [json.loads(line) for line in printed.splitlines()]


def misread(sample: Sample, folder: Path, version: str) -> list[str]:
    """Return the values that codecs read as others than the types promise."""
    sent = [one for one in sample.sent if one.name.startswith("giv_")]
    lines = [
        f"({value['expression']}) satisfies Procedures['cell.{one.name}']['output'];"
        for one, value in zip(sent, read_by_codecs(sent, folder), strict=True)
    ]
    program = "import type { Procedures } from './api.ts';\n" + "\n".join(lines) + "\n"
    files: dict[str, str | Path] = {"index.ts": folder / "index.ts", "codecs.ts": folder / "codecs.ts"}
    return faults_of(folder, {**files, "read.ts": program}, version=version)


def miswritten(sample: Sample, folder: Path) -> list[str]:
    """Return the values that arrive as others if they are read and sent back."""
    taken = {one.cell for one in sample.sent if one.name.startswith("tak_")}
    sent = [one for one in sample.sent if one.name.startswith("giv_") and one.cell in taken]
    return anyio.run(_changed, sample, sent, read_by_codecs(sent, folder))


@pytest.mark.parametrize("version", COMPILERS)
def test_what_codecs_read_is_of_the_type_that_is_promised(matrix: Sample, version: str, tmp_path: Path) -> None:
    """A Date, a bigint, a Set, a Map, bytes, wherever the types say so, and in unions the right one."""
    generate_typescript(matrix.document, tmp_path)
    assert misread(matrix, tmp_path, version) == []


def test_what_codecs_write_is_the_value_that_they_read(matrix: Sample, tmp_path: Path) -> None:
    """Sent back, each value arrives as the one that was returned, as far as JavaScript has it."""
    generate_typescript(matrix.document, tmp_path)
    assert "\n".join(miswritten(matrix, tmp_path)) == ""


async def _changed(matrix: Sample, sent: list[Sent], read: list[dict[str, Any]]) -> list[str]:
    """Send each value back, and return those that arrived as others."""
    found = []
    transport = httpx.ASGITransport(matrix.app)
    async with matrix.rpc.lifespan(matrix.app), httpx.AsyncClient(transport=transport, base_url="http://m") as http:
        for one, value in zip(sent, read, strict=True):
            is_refused = one.cell == "bigint_or_str" and one.value == 2**62  # it would arrive as text
            if is_refused != (value["back"] is None):
                found.append(f"{one.cell}: {one.text} is {'sent' if is_refused else 'refused'}")
            if is_refused or any(part in repr(one.value) for part in TOO_LARGE):
                continue
            RECEIVED.clear()
            answer = await http.post(f"/rpc/cell.tak_{one.cell}", json=value["back"])
            if not answer.is_success:
                found.append(f"{one.cell}: {one.text} is refused as {value['back']}: {answer.text}")
            elif "datetime.datetime(" not in repr(one.value) and RECEIVED[0] != one.value:
                found.append(f"{one.cell}: {one.value!r} arrived as {RECEIVED[0]!r}")
    return found


TOO_LARGE = (str(2**53 + 1), str(2**70))
"""Integers that JavaScript rounds: only those with a bound beyond 2^53 are `bigint`."""

BUGS: dict[str, tuple[str, Any]] = {
    "none_or_int": ("TypeSpeller._union", lambda speller, schema: [*speller._members(schema)][:1]),
    "str_tuple": ("TypeSpeller._tuple", lambda speller, first, items, most: "[string]"),
    "names_alone": ("key", lambda name: name.strip("_")),
    "mixed_literal_alone": ("literal", str),
    "str_alone": ("_VALUES", {"string": "number"}),
    "any_alone": ("TypeSpeller._typed", lambda speller, schema: "string"),
}
"""By a cell that finds it: what is broken in the speller, and how."""


@pytest.mark.seeded_bug
@pytest.mark.parametrize("cell", BUGS)
def test_a_generator_that_spells_wrongly_is_found(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that is broken makes a type of which a value is not."""
    found = sample(tmp_path, [one for one in cells() if one.name == cell])
    monkeypatch.setattr(f"reactive_rpc.codegen.typescript.type_speller.{BUGS[cell][0]}", BUGS[cell][1])
    generate_typescript(found.document, tmp_path)
    files: dict[str, str | Path] = {"api.ts": tmp_path / "api.ts", "values.ts": values_of(found.sent)}
    assert faults_of(tmp_path, files, version="7.0") != []


CODEC_BUGS: dict[str, tuple[str, Any]] = {
    "datetime_list": ("_Codecs._array", lambda codecs, schema, mark, side: "list(bytes)"),
    "datetime_set": ("_Codecs._array", lambda codecs, schema, mark, side: "list(date)"),
    "datetime_tuple": ("_Codecs._array", lambda codecs, schema, mark, side: "tuple([])"),
    "int_keys": ("_Codecs._key_codec", lambda codecs, schema: "null"),
    "bytes_or_list": ("_Codecs._choice", lambda codecs, branch, target, side: (1, "binary")),
}
"""By a cell that finds it: what is broken in the codecs' generator, and how."""


@pytest.mark.seeded_bug
@pytest.mark.parametrize("cell", CODEC_BUGS)
def test_a_codec_that_reads_wrongly_is_found(cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that is broken fails to read a value, reads one of another type, or sends back another one."""
    found = sample(tmp_path, [one for one in cells() if one.name == cell])
    monkeypatch.setattr(f"reactive_rpc.codegen.typescript.codecs.{CODEC_BUGS[cell][0]}", CODEC_BUGS[cell][1])
    generate_typescript(found.document, tmp_path)
    assert is_misused(found, tmp_path)


def is_misused(found: Sample, folder: Path) -> bool:
    """Tell whether a codec fails, reads a value of another type than is promised, or sends back another one."""
    try:
        return bool(misread(found, folder, "7.0") or miswritten(found, folder))
    except AssertionError:  # the program has failed, as a codec has refused a value
        return True
