"""The TypeScript generator: stable, the same as somebody has read, and nothing in a document breaks out of it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from reactive_rpc.codegen import ForeignFileError, generate
from reactive_rpc.codegen.typescript import HEADER, generate_typescript
from reactive_rpc.codegen.typescript.text import comment, key, literal
from tests.support.golden import check_against
from tests.support.typescript import COMPILERS, faults_of

from .document_app import build_document
from .typescript_app import theatre

ROOT = Path(__file__).parents[2]
EQUALITY = ROOT / "tests/typescript/types/equality.ts"
GOLDEN = Path(__file__).with_name("theatre.ts")
HOSTILE = (
    "*/ export const broken = 1; /*", "'; export const broken = 1; '", "__proto__", "constructor", 'a"b', "a\\", "a\\'",
    "a\nb", "a\u2028b", "a\u202eb", "\ud800", "", "1a", "-", "${broken}", "`", "//", "é", "@deprecated", "\x00",
)  # fmt: skip
"""Names and texts of somebody who wants more than to be read."""

MUTATIONS = [
    ("export type Rank = 'stalls' | 'circle';", "export type Rank = string;"),
    ("  serial: bigint;", "  serial: number;"),
    ("  tags: Set<string>;", "  tags: string[];"),
    ("  beside: Seat[];", "  beside?: Seat[];"),
    ("  at?: Date;", "  at: Date;"),
    ("  limit?: number | undefined;", "  limit?: number;"),
    ("  seat_id: string;", "  seat_id?: string;"),
    ("  kind: 'card';", "  kind: string;"),
    ("  type: 'SeatTaken';", "  type: string;"),
    ("book_Error = NoSuchSeat | SeatTaken | OtherError", "book_Error = NoSuchSeat | OtherError"),
    ("get_one_Output = Seat | null", "get_one_Output = Seat"),
    ("'seats.ticks': Subscription<", "'seats.ticks': Query<"),
    ("export type Decimal = `${number}`", "export type Decimal = string"),
    ("plan: Blob;", "plan: Blob | string;"),
]
"""What the generator could get wrong: a text of the golden file, and what stands in its place then."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return theatre(tmp_path_factory.mktemp("theatre") / "x.db").openapi()


def api_of(document: dict[str, Any], folder: Path) -> str:
    """Return the `api.ts` of a document."""
    generate_typescript(document, folder)
    return (folder / "api.ts").read_text(encoding="utf-8")


def test_one_of_everything_reads_as_somebody_has_read_it(document: dict[str, Any], tmp_path: Path) -> None:
    """Unions, tags, enums, defaults, maps, tuples, files, bytes, streams, errors: as they stand in the golden file."""
    check_against(GOLDEN, api_of(document, tmp_path))


def test_output_depends_on_the_document_alone(document: dict[str, Any], tmp_path: Path) -> None:
    """A document whose keys stand in another order, as JSON has no order, gives the same types, byte for byte."""
    turned = dict(reversed(document.items()))
    turned["paths"] = dict(reversed(document["paths"].items()))
    schemas = document["components"]["schemas"]
    turned["components"] = {**document["components"], "schemas": dict(reversed(schemas.items()))}
    assert api_of(turned, tmp_path / "a") == api_of(document, tmp_path / "b")


def test_each_client_leaves_the_other_alone(document: dict[str, Any], tmp_path: Path) -> None:
    """The Python client and the TypeScript one stand in one another's folders, and are both whole."""
    generate(document, tmp_path)
    generate_typescript(document, tmp_path / "typescript")
    generate(document, tmp_path)
    assert (tmp_path / "typescript/api.ts").read_text().startswith(HEADER)
    assert (tmp_path / "client.py").is_file()


def test_a_file_that_nobody_generated_is_left(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "api.ts").write_text("export const mine = 1;\n")
    with pytest.raises(ForeignFileError, match=r"api\.ts was not generated"):
        generate_typescript(document, tmp_path)
    assert (tmp_path / "api.ts").read_text() == "export const mine = 1;\n"


def test_what_a_result_may_lack_is_marked(document: dict[str, Any]) -> None:
    """A TypedDict's field that is not required; a model's field with a default is in every result."""
    schemas = document["components"]["schemas"]
    note = next(schema for name, schema in schemas.items() if name.startswith("Note"))
    assert note["properties"]["at"]["x-reactive-may-lack"] is True
    assert "x-reactive-may-lack" not in json.dumps({name: one for name, one in schemas.items() if name[:4] != "Note"})


def hostile_document() -> dict[str, Any]:
    """Return a document in which every name and text that its author may choose is hostile."""
    document = copy.deepcopy(build_document())
    schemas = document["components"]["schemas"]
    fields = {text: {"type": "string", "description": text, "default": text} for text in HOSTILE}
    schemas["Hostile"] = {"type": "object", "properties": fields, "description": " ".join(HOSTILE)}
    schemas["Worse"] = {"enum": [*HOSTILE], "description": HOSTILE[0]}
    for number, text in enumerate(HOSTILE):
        schemas[f"{text} {number}"] = {"type": "object", "properties": {text: {"const": text}}, "description": text}
    references = [{"$ref": f"#/components/schemas/{name}"} for name in schemas]
    operation = document["paths"]["/api/rpc/ping"]["get"]
    operation["responses"]["200"]["content"]["application/json"]["schema"] = {"anyOf": references}
    operation.update(description=" ".join(HOSTILE), summary="", tags=[HOSTILE[0]], operationId=HOSTILE[0])
    document["info"]["title"] = HOSTILE[0]
    return document


def test_nothing_hostile_breaks_out(tmp_path: Path) -> None:
    """Without its comments and its texts, the module has no word of what was to break out, and nothing invisible."""
    source = api_of(hostile_document(), tmp_path)
    bare = re.sub(r"/\*.*?\*/|'(?:[^'\\\n]|\\.)*'", "", source, flags=re.DOTALL)
    assert "const broken" not in bare
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028-\u202e\ud800-\udfff]", source)
    assert " @deprecated" not in source


@pytest.mark.parametrize("version", COMPILERS)
def test_what_is_hostile_compiles(version: str, tmp_path: Path) -> None:
    """Both compilers read it as the types that it is."""
    assert faults_of(tmp_path, {"api.ts": api_of(hostile_document(), tmp_path)}, version=version) == []


@pytest.mark.parametrize("version", COMPILERS)
def test_each_wrong_call_is_an_error_and_each_right_one_is_none(version: str, tmp_path: Path) -> None:
    """Of the types, under their own names and under tRPC's client; and of the example application's."""
    program = {path.name: path for path in (ROOT / "tests/typescript/types").glob("*.ts")}
    assert (
        faults_of(tmp_path, {**program, "api.ts": ROOT / "generated_client/typescript/api.ts"}, version=version) == []
    )


@pytest.mark.seeded_bug
def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    """If any of the generated types is turned into another one, a line of the program is wrong, or no longer wrong."""
    golden = GOLDEN.read_text(encoding="utf-8")
    program = (ROOT / "tests/typescript/types/procedures.ts").read_text()
    program = program.replace("../../codegen/", "./").replace("./equality.ts", str(EQUALITY))
    files: dict[str, str | Path] = {}
    for number, (right, wrong) in enumerate(MUTATIONS):
        assert right in golden
        (tmp_path / f"m{number}").mkdir()
        files |= {f"m{number}/theatre.ts": golden.replace(right, wrong), f"m{number}/procedures.ts": program}
    faults = faults_of(tmp_path, files, version="7.0")
    found = {int(match.group(1)) for match in (re.search(r"\bm(\d+)/procedures", fault) for fault in faults) if match}
    assert [pair for number, pair in enumerate(MUTATIONS) if number not in found] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_stay_texts(text: str) -> None:
    """A literal is one token on one line, a name is plain or a literal, and a comment ends where it should."""
    assert re.fullmatch(r"'(?:[^'\\\n]|\\.)*'", literal(text))
    assert re.fullmatch(r"[A-Za-z_$][\w$]*|'(?:[^'\\\n]|\\.)*'", key(text))
    assert "\n".join(comment(text, {"default": text})).count("*/") == 1
