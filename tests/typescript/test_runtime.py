"""The runtime of TypeScript clients: in Node, against a TeamHub that another process serves; and how large it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.seed import seed
from app.server_process import serving
from tests.support.node import TYPESCRIPT, package_script, run_node

SECRET = "a secret of the tests, long enough for HS256"

ENDS = """
import { Caller, Pages } from './server/teamhub.ts';
const ada = await Caller.logIn('ada@org-01.example');
const page = new Pages().open(ada);
const query = page.query('agents.get_all');
await query.load();
const live = Promise.withResolvers();
const stop = query.subscribe(({ isStale }) => isStale || live.resolve());
await live.promise;
stop();
console.log(query.state.data.length);
"""

BUNDLE = """
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
const [entry, ...external] = process.argv.slice(1).filter((argument) => argument !== '--');
const stdin = { contents: entry, resolveDir: process.cwd(), loader: 'ts' };
const options = { bundle: true, minify: true, write: false, format: 'esm', target: 'es2022', external };
const { outputFiles } = await build({ stdin, ...options, nodePaths: ['node_modules'] });
console.log(JSON.stringify({ gzip: gzipSync(outputFiles[0].contents).length, text: outputFiles[0].text }));
"""
RUNTIME = "../../reactive_rpc/typescript/runtime"
OF_OTHERS = ["@tanstack/query-core", "@trpc/client", "@trpc/server/observable"]
KILOBYTE = 1000

PATIENCE_SECONDS = 600.0
"""More than `vitest.config.ts` gives one test, so that Vitest names the one that hangs."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of TeamHub, of this module's own."""
    path = tmp_path_factory.mktemp("teamhub") / "teamhub.db"
    seed(path)
    return path


@pytest.fixture(scope="module")
def url(database: Path) -> Iterator[str]:
    """A TeamHub of it."""
    with serving(database, environment={"TEAMHUB_SECRET": SECRET}) as served:
        yield served


def test_pages_of_the_runtime_show_the_truth_of_a_server(url: str, database: Path) -> None:
    """The suites of `server/`, by Vitest."""
    options = ["--config", str(TYPESCRIPT / "server/vitest.config.ts"), "--root", str(TYPESCRIPT), "--no-color"]
    program = Path(package_script("vitest/vitest.mjs"))
    environment = {"TEAMHUB_URL": url, "TEAMHUB_DATABASE": str(database)}
    printed = run_node(program, "run", *options, environment=environment, within_seconds=PATIENCE_SECONDS)
    assert " passed" in printed


def test_a_program_ends_once_it_watches_nothing(url: str) -> None:
    """Without a word to the runtime: no timer, no stream and no channel is left."""
    assert int(run_node(ENDS, environment={"TEAMHUB_URL": url})) > 0


@pytest.mark.parametrize(
    ("entry", "external", "most_kilobytes"),
    [
        (f"export {{ createReactive }} from '{RUNTIME}/index.ts'", OF_OTHERS, 21.1),
        (f"export {{ createReactive }} from '{RUNTIME}/index.ts'", [], 38.1),
        (f"export {{ createReactive, infinite }} from '{RUNTIME}/index.ts'", OF_OTHERS, 24.5),
        (f"export {{ date, list, obj }} from '{RUNTIME}/codec.ts'", [], 1.0),
        (f"export * from '{RUNTIME}/react/index.ts'", ["react"], 1.5),
        (f"export * from '{RUNTIME}/react/pages.ts'", ["react", "../pages.ts", "./index.ts"], 0.4),
        (f"export * from '{RUNTIME}/svelte/index.ts'", ["svelte/reactivity"], 0.8),
        (f"export * from '{RUNTIME}/svelte/pages.ts'", ["svelte/reactivity", "../pages.ts"], 0.6),
        (f"export * from '{RUNTIME}/records/rules.ts'", [], 1.3),
    ],
    ids=[
        "the runtime itself",
        "with query-core and the client of tRPC",
        "with lists in pages",
        "three codecs",
        "hooks of React",
        "the hook of lists",
        "queries of Svelte",
        "lists of Svelte",
        "all that rules are made of",
    ],
)
def test_what_a_page_downloads_is_small(entry: str, external: list[str], most_kilobytes: float) -> None:
    """In one file, minified and compressed by gzip; who makes it larger says so here. Nothing of it needs `eval`."""
    bundle = json.loads(run_node(BUNDLE, entry, *external))
    assert bundle["gzip"] / KILOBYTE < most_kilobytes
    assert "eval(" not in bundle["text"]
    assert "new Function" not in bundle["text"]
