"""Golden files: what is written, as somebody has read it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reactive_rpc import DefinitionError

__all__ = ["check_against", "check_messages", "message_of"]


def check_against(golden: Path, written: str) -> None:
    """Hold a text against a file; with `REACTIVE_WRITE_GOLDEN=1` the file is written."""
    if "REACTIVE_WRITE_GOLDEN" in os.environ:
        golden.write_text(written, encoding="utf-8")
    assert written == golden.read_text(encoding="utf-8")


def check_messages(golden: Path, messages: Mapping[str, str]) -> None:
    """Hold the messages of refused shapes, by the names of these, against a file."""
    check_against(
        golden,
        "".join(
            f"{name}\n    {message.replace(chr(10), chr(10) + '    ').rstrip()}\n\n"
            for name, message in messages.items()
        ),
    )


def message_of(make: Callable[[], object], module: str) -> str:
    """Return what a shape is refused with; lines of `module` without their numbers, and objects without addresses."""
    with pytest.raises(DefinitionError) as raised:
        make()
    said = str(raised.value).replace(module, "app")
    return re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"(\.py:)\d+", r"\1..", said))
