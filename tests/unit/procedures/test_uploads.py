"""Files of a call: what each attempt is given."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from reactive_rpc.compat.fastapi import UploadFile
from reactive_rpc.errors import BadRequestError
from reactive_rpc.procedures.uploads import CallFiles, FileParameter

TAKEN = (FileParameter("file", "file", is_list=False, is_required=True, mark=None),)


class Named(UploadFile):
    """A class of an application's own."""


def test_a_file_is_given_anew_from_where_it_began() -> None:
    """As what it was, to be closed by whoever opened it."""
    opened = io.BytesIO(b"--abc")
    opened.seek(2)
    files = CallFiles("plans.add", TAKEN, {"file": Named(opened, filename="a")})
    for _ in range(2):
        file = files.arguments()["file"]
        assert isinstance(file, Named)
        with io.TextIOWrapper(file.file, encoding="utf-8") as text:
            assert text.read() == "abc"
    assert not opened.closed


def test_other_readers_take_it(tmp_path: Path) -> None:
    """Those that want to seek in it, and to go through its lines."""
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w") as archive:
        archive.writestr("a.txt", "one\ntwo\n")
    opened.seek(0)
    file = CallFiles("plans.add", TAKEN, {"file": UploadFile(opened)}).arguments()["file"]
    with zipfile.ZipFile(file.file) as archive:
        assert archive.read("a.txt") == b"one\ntwo\n"
    lines = CallFiles("plans.add", TAKEN, {"file": UploadFile(io.BytesIO(b"one\ntwo\n"))}).arguments()["file"]
    with lines.file as inside:
        assert list(inside) == [b"one\n", b"two\n"]
    assert lines.file.read() == b""


def test_a_file_that_cannot_be_rewound_is_refused() -> None:
    """No second attempt could read it."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(BadRequestError, match="give a seekable file"):
        CallFiles("plans.add", TAKEN, {"file": UploadFile(Pipe())})
