"""Programs in TypeScript as both compilers read them, by the project's own configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.support.node import package_script, run_node
from tests.support.processes import ROOT

__all__ = ["COMPILERS", "faults_of"]

COMPILERS = {"7.0": "typescript", "5.9": "typescript-5"}
"""The packages of the compilers, by their versions."""


def faults_of(folder: Path, files: Mapping[str, str | Path], *, version: str) -> list[str]:
    """Return what a compiler says of some modules, an error a line; nothing if they are right.

    Args:
        folder: where the configuration is written, and those modules that are given as text.
        files: `{name: text}`, or the path of one that stands elsewhere.
        version: of the compiler, a key of `COMPILERS`.
    """
    for name, text in files.items():
        if isinstance(text, str):
            (folder / name).write_text(text, encoding="utf-8")
    paths = [name if isinstance(text, str) else str(text) for name, text in files.items()]
    configuration = {"extends": f"{ROOT}/tsconfig.json", "include": paths}
    (folder / "tsconfig.json").write_text(json.dumps(configuration), encoding="utf-8")
    compiler = Path(package_script(f"{COMPILERS[version]}/bin/tsc"))
    try:
        run_node(compiler, "--project", str(folder), "--pretty", "false")
    except AssertionError as failed:
        found = [line for line in str(failed).splitlines() if ": error TS" in line or line.startswith("error TS")]
        return found or [str(failed)]
    return []
