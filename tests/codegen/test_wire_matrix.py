"""Value in is value out, of an equal type, through the generated client; or the definition is refused. No third way."""

from __future__ import annotations

import importlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from uuid import uuid4

import anyio
import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import VERSION

from reactive_rpc import DefinitionError, ReactiveRPC, define_reactive_function
from reactive_rpc.codegen import generate
from reactive_rpc.errors import BadRequestError
from reactive_rpc.procedures import wire_types
from reactive_rpc.protocol.fidelity import is_same

from .generated import TypeCheckers, importable
from .wire_matrix import LEAVES, WRAPPERS, Cell, as_client, cells, input_of

ROOT = Path(__file__).parents[2]
SINCE_2_14 = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
RECEIVED: list[Any] = []
RETURNED: list[Any] = []


def taking(name: str, annotation: Any) -> Any:
    """Return a mutation that takes a type and returns nothing."""

    async def take(input: Any) -> None:
        RECEIVED.append(input.value)

    take.__annotations__ = {"input": input_of(name, annotation), "return": None}
    return _defined(take, f"take_{name}", "mutation")


def giving(name: str, annotation: Any) -> Any:
    """Return a query that returns a type, bare."""

    async def give() -> Any:
        return RETURNED[-1]

    give.__annotations__ = {"return": annotation}
    return _defined(give, f"give_{name}", "mutation")


def echoing(name: str, annotation: Any) -> Any:
    """Return a query that takes a type and returns it: GET where it fits into a URL."""

    async def echo(input: Any) -> Any:
        RECEIVED.append(input.value)
        return input.value

    echo.__annotations__ = {"input": input_of(name, annotation), "return": annotation}
    return _defined(echo, f"echo_{name}", "query")


def _defined(function: Any, name: str, kind: Any) -> Any:
    function.__name__ = name
    define: Any = define_reactive_function(cache=False) if kind == "query" else define_reactive_function.mutation
    return define(function)


MAKERS = (taking, giving, echoing)
SEPARATELY = ("_alone", "_optional", "_or_str")
"""Cells that are also only taken, and only returned: the document then has one schema for both, or another for each."""


class WireMatrix(NamedTuple):
    """One application with a procedure for every cell, its generated client, and what was refused."""

    app: FastAPI
    rpc: ReactiveRPC
    client: ModuleType
    accepted: dict[str, Cell]
    refused: dict[str, str]


def build(folder: Path, types: list[Cell], package: str) -> WireMatrix:
    """Define what can be defined, and generate the client."""
    pairs = ((cell, make) for cell in types for make in (MAKERS if cell.name.endswith(SEPARATELY) else (echoing,)))
    rpc, app, refused = application(folder, pairs)
    generate(app.openapi(), folder / package)
    importlib.invalidate_caches()
    return WireMatrix(app, rpc, importlib.import_module(package), {cell.name: cell for cell in types}, refused)


def application(folder: Path, pairs: Iterable[tuple[Cell, Any]]) -> tuple[ReactiveRPC, FastAPI, dict[str, str]]:
    """Return an application with a procedure for each cell and maker that is not refused, and what those are told."""
    functions: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for cell, make in pairs:
        name = f"{make.__name__.replace('ing', '')}_{cell.name}"
        try:
            functions[name] = make(cell.name, cell.annotation)
        except DefinitionError as exc:
            refused[name] = str(exc)
    rpc = ReactiveRPC(f"sqlite+aiosqlite:///{folder}/x.db", functions={"cell": functions})
    app = FastAPI(title="Matrix", lifespan=rpc.lifespan)
    app.include_router(rpc.router)
    return rpc, app, refused


@asynccontextmanager
async def connected(world: WireMatrix) -> AsyncIterator[Any]:
    """Give the generated client, connected to the application."""
    async with (
        world.rpc.lifespan(world.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(world.app), timeout=60) as http,
        world.client.Matrix("http://matrix", http=http) as hub,
    ):
        yield hub


def test_the_generated_code_is_strictly_typed(tmp_path: Path, type_checkers: TypeCheckers) -> None:
    """mypy --strict and pyright accept what is generated for every type alone, optional and beside text."""
    chosen = [cell for cell in cells() if cell.name.endswith(("_alone", "_optional", "_or_str"))]
    with importable(tmp_path):
        assert type_checkers.faults_of(build(tmp_path, chosen, "alone_client").client) == ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireMatrix]:
    """The application of the whole matrix."""
    folder = tmp_path_factory.mktemp("matrix")
    with importable(folder):
        yield build(folder, list(cells()), "matrix_client")


async def differences(world: WireMatrix) -> list[str]:
    """Call every procedure with every value and return what came otherwise than it went."""
    found: list[str] = []
    async with connected(world) as hub:
        for cell in world.accepted.values():
            for value in cell.values:
                found += await _difference(world, hub, cell, value)
    return found


async def _difference(world: WireMatrix, hub: Any, cell: Cell, value: Any) -> list[str]:
    found = []
    for kind in ("tak", "giv", "echo"):
        procedure = getattr(hub.cell, f"{kind}_{cell.name}", None) if hasattr(hub, "cell") else None
        if procedure is None:
            continue
        sent = as_client(value, world.client.models)
        RECEIVED.clear()
        RETURNED[:] = [value]
        try:
            result = await (procedure() if kind == "giv" else procedure(value=sent))
        except BadRequestError as exc:
            if "would arrive as another value" not in str(exc):
                found.append(f"{kind} {cell.name} {value!r}: {exc}")
            continue
        except Exception as exc:
            found.append(f"{kind} {cell.name} {value!r}: {type(exc).__name__} {exc}")
            continue
        if kind != "giv" and not is_same(RECEIVED[0], value):
            found.append(f"{kind} {cell.name}: the handler got {RECEIVED[0]!r} for {value!r}")
        if kind != "tak" and not is_same(result, sent):
            found.append(f"{kind} {cell.name}: the client got {result!r} for {sent!r}")
    return found


def test_what_is_refused_says_where_and_what_to_do(world: WireMatrix) -> None:
    """Each type that cannot be carried is refused alone, each other is not; the message names function and place."""
    alone = {name.split("_", 1)[1].removesuffix("_alone") for name in world.refused if name.endswith("_alone")}
    too_new = set() if SINCE_2_14 else {"counter", "deque", "fraction", "named_tuple", "ordered"}
    assert alone == {leaf.name for leaf in LEAVES if leaf.name.startswith("refused_")} | {"secret"} | too_new
    assert {name for name in world.refused if name.endswith("secret_alone")} == {
        "giv_secret_alone",
        "echo_secret_alone",
    }
    for name, message in world.refused.items():
        assert re.match(rf"{name.replace('tak_', 'take_').replace('giv_', 'give_')} \(\S+:\d+\): ", message)
        assert re.search(r": (input\.value|the result)\S*: .+", message), message


def test_every_type_arrives_or_is_refused(world: WireMatrix) -> None:
    """Alone, optional, in list, dict (as key and value), tuple, set, union; taken, returned and both; GET and POST."""
    found = anyio.run(differences, world)
    assert not found, "\n".join(found)


@pytest.mark.seeded_bug
@pytest.mark.parametrize(
    ("kind", "cell"),
    [("decimal", "decimal_alone"), ("uuid", "uuid4_alone"), ("set", "int_set"), ("bytes", "bytes_alone")],
)
def test_the_matrix_can_fail(kind: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that forgets one mark is found out by the cells that need it."""
    monkeypatch.delitem(wire_types.FORMATS if kind in wire_types.FORMATS else wire_types._MARKS, kind)
    monkeypatch.syspath_prepend(tmp_path)
    seeded = build(tmp_path, [one for one in cells() if one.name == cell], f"without_{kind}")
    assert anyio.run(differences, seeded) != []


SCALARS = st.sampled_from([leaf for leaf in LEAVES if leaf.values])
TREES = st.recursive(
    SCALARS.map(lambda leaf: (leaf.annotation, leaf.values)),
    lambda inner: st.tuples(st.sampled_from(sorted(WRAPPERS)), inner).map(lambda drawn: wrapped(*drawn)),
    max_leaves=3,
)


def wrapped(wrapper: str, tree: tuple[Any, tuple[Any, ...]]) -> tuple[Any, tuple[Any, ...]]:
    """Return a type and its values in a wrapper; as they are where a value cannot be put there."""
    annotate, wrap = WRAPPERS[wrapper]
    try:
        return annotate(tree[0]), tuple(wrap(value) for value in tree[1])
    except TypeError:
        return tree


@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(TREES, min_size=30, max_size=30))
def test_every_tree_of_types_arrives_or_is_refused(trees: list[tuple[Any, tuple[Any, ...]]]) -> None:
    """The same of types within types within types, as hypothesis draws them."""
    with TemporaryDirectory() as folder:
        package = f"trees_{uuid4().hex}"
        types = [Cell(f"t{number}", *tree) for number, tree in enumerate(trees)]
        with importable(Path(folder)):
            found = anyio.run(differences, build(Path(folder), types, package))
    assert not found, "\n".join(found)
