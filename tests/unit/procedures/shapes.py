"""Shapes that are refused, and the files that hold their messages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reactive_rpc import DefinitionError


def message_of(make: Callable[[], object], module: str) -> str:
    """Return what a shape is refused with; lines of `module` without their numbers."""
    with pytest.raises(DefinitionError) as raised:
        make()
    said = str(raised.value).replace(module, "app")
    return re.sub(r"(\.py:)\d+", r"\1..", said)


def check_against(golden: Path, messages: Mapping[str, str]) -> None:
    """Hold messages against a file of them; `REACTIVE_WRITE_GOLDEN` writes it."""
    written = "".join(
        f"{name}\n    {message.replace(chr(10), chr(10) + '    ').rstrip()}\n\n" for name, message in messages.items()
    )
    if "REACTIVE_WRITE_GOLDEN" in os.environ:
        golden.write_text(written, encoding="utf-8")
    assert written == golden.read_text(encoding="utf-8")
