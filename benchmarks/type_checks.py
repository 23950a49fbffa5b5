"""How long type checkers take over 500 procedures and 500 calls of them: CPU time, beside that of their imports alone.

mypy keeps what it knows of other packages, as in an editor or in continuous integration with a cache; pyright reads
their sources each time. So both are timed over a module with the imports, and over one with the procedures too.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["command_of", "module_of", "run"]

PROCEDURES: Final = 500
ROUNDS: Final = 3
CHECKERS: Final = ("mypy", "pyright")

_HEAD: Final = """from __future__ import annotations
from typing import assert_type
from sqlmodel.ext.asyncio.session import AsyncSession
from reactive_rpc import Caller, Login, Tenant, by_tenant, define_reactive_function
"""
_PROCEDURE: Final = """
@{definer}
async def f{n}(db: AsyncSession, ctx: {context}, a{n}: str, limit: int = 5) -> list[int]: return []
"""
_CALL: Final = "    assert_type(await call(f{n}, a{n}='x', limit={n}), list[int])\n"
_DEFINERS: Final = (
    ("define_reactive_function", "Login"),
    ("define_reactive_function.mutation(attempts=2)", "Login"),
    ("define_reactive_function.use(by_tenant)", "Tenant"),
    ("define_reactive_function.use(by_tenant).query(cache=False)", "Tenant"),
)


def module_of(procedures: int) -> str:
    """Return the source of a module with so many procedures, of four definers in turn, and a call of each."""
    return "".join(_parts(procedures))


def _parts(procedures: int) -> Iterator[str]:
    yield _HEAD
    for number in range(procedures):
        definer, context = _DEFINERS[number % len(_DEFINERS)]
        yield _PROCEDURE.format(n=number, definer=definer, context=context)
    yield "\nasync def calls(call: Caller) -> None:\n    assert_type(call, Caller)\n"
    yield from (_CALL.format(n=number) for number in range(procedures))


def command_of(checker: str, file: Path) -> list[str]:
    """Return how a checker is run over a file; it keeps what it knows beside the file."""
    if checker == "mypy":
        options = ["--strict", "--config-file=", "--no-error-summary", "--cache-dir", str(file.parent / "cache")]
    else:
        options = ["--pythonpath", sys.executable]
    return [sys.executable, "-m", checker, *options, file.name]


def run(folder: Path) -> None:
    """Print the CPU seconds of each checker, median of some rounds."""
    for checker in CHECKERS:
        _seconds(checker, folder / "cached.py", 0)  # fills the cache
        imports = statistics.median(_seconds(checker, folder / f"imports{n}.py", 0) for n in range(ROUNDS))
        whole = statistics.median(_seconds(checker, folder / f"whole{n}.py", PROCEDURES) for n in range(ROUNDS))
        print(
            f"{checker:8} {PROCEDURES} procedures and calls {whole - imports:5.2f} s of CPU, "
            f"beside {imports:5.2f} s of imports"
        )


def _seconds(checker: str, file: Path, procedures: int) -> float:
    """Return the CPU seconds that a checker takes over a new file."""
    file.write_text(module_of(procedures))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command_of(checker, file), cwd=file.parent, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
