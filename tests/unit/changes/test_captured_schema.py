"""What an epoch rests on is spelled alike in every process: or each restart, and each worker, would begin another."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from dataclasses import fields
from reactive_rpc.changes.captured_schema import TableCapture, digest_of
names = frozenset("abcdefgh")
sets = {field.name: names for field in fields(TableCapture) if isinstance(field.default, frozenset)}
table = TableCapture(name="t", columns=("a",), image=(), kinds={"a": None}, key_columns=(), foreign_keys=(),
                     captured=True, **sets)
print(digest_of(table, {"trigger": "sql"}, [names], (names,)), len(sets))
"""


def digest(hash_seed: int) -> str:
    """Return the digest of a table whose every set has several members."""
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": str(hash_seed)}, check=True, capture_output=True
    ).stdout.decode()


def test_a_digest_is_the_same_in_every_process() -> None:
    """Whatever order sets have there."""
    (found,) = {digest(seed) for seed in range(1, 5)}
    assert int(found.split()[1]) >= 3


@pytest.mark.parametrize(("one", "other"), [((1,), ("1",)), (("a,b",), ("a", "b")), (({"a"},), (["a"],))])
def test_different_parts_have_different_digests(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    """Types and bounds of parts show."""
    from reactive_rpc.changes.captured_schema import digest_of

    assert digest_of(*one) != digest_of(*other)
