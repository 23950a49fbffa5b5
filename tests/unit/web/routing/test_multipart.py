"""Reading multipart/form-data: however a body is cut into chunks, the same files come out, or the same refusal."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Sequence
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_rpc.compat.fastapi import UploadFile
from reactive_rpc.errors import PayloadTooLargeError, RPCError
from reactive_rpc.procedures.uploads import FileParameter
from reactive_rpc.web.routing.body import BodyLimits, UploadLimits
from reactive_rpc.web.routing.multipart import SPOOL_BYTES, MultipartBody
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

TAKEN = (
    FileParameter("one", "one", is_list=False, is_required=True, mark=None),
    FileParameter("many", "many", is_list=True, is_required=False, mark=None),
)
LIMITS = BodyLimits(100, 1.0, UploadLimits(max_bytes=10_000, max_files=5, seconds=1.0))
CONTENT_TYPE = b'multipart/form-data; boundary="x-y"'


def body_of(parts: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    """Return a body of `(name, file name, content)`."""
    spelled = b""
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        spelled += f'--x-y\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return spelled + b"--x-y--\r\n"


async def read(body: bytes, sizes: list[int], limits: BodyLimits = LIMITS) -> tuple[object, ...]:
    """Return what a body holds that comes in chunks of these sizes, then whole; or the code of its refusal."""
    taken = MultipartBody(CONTENT_TYPE, TAKEN, limits, is_digested=True)
    try:
        for size in sizes:
            chunk, body = body[:size], body[size:]
            await taken.take(chunk)
        await taken.take(body)
        taken.finish()
        files = {
            name: [await content(one) for one in (file if isinstance(file, list) else [file])]
            for name, file in taken.files.items()
        }
        return taken.input, files, taken.digest
    except RPCError as error:
        return (error.code, error.details)  # the message may name an offset within a chunk
    finally:
        taken.close()


async def content(file: UploadFile) -> tuple[str | None, bytes, int | None]:
    return file.filename, await file.read(), file.size


PARTS = [
    ("input", None, b'{"a": 1}'),
    ("one", "ä.txt", b"--x-y\n\r\n--x-"),
    ("many", "1", b""),
    ("many", "2", b"\r\n" * 5),
    ("many", "", b""),
]


async def test_a_body_is_read() -> None:
    """Contents may look like boundaries, names are UTF-8, and a file that nobody has chosen is none."""
    input, files, digest = await read(body_of(PARTS), [])
    assert input == b'{"a": 1}'
    assert files == {"one": [("ä.txt", PARTS[1][2], 12)], "many": [("1", b"", 0), ("2", PARTS[3][2], 10)]}
    assert digest


@given(sizes=st.lists(st.integers(1, 30), max_size=40), cut=st.integers(0, 60), parts=st.permutations(PARTS))
async def test_chunks_say_nothing(sizes: list[int], cut: int, parts: list[tuple[str, str | None, bytes]]) -> None:
    """A whole body, one that is cut off, and one with a stray byte."""
    whole = body_of(parts)
    for body in (whole, whole[: len(whole) - cut], whole[:cut] + b"\0" + whole[cut:]):
        assert await read(body, sizes) == await read(body, [])


@given(body=st.binary(max_size=300), sizes=st.lists(st.integers(1, 30), max_size=10))
async def test_any_bytes_are_read_or_refused(body: bytes, sizes: list[int]) -> None:
    """By an error of ours, whatever they are."""
    assert isinstance(await read(body, sizes), tuple)


async def test_the_digest_is_of_all_that_a_handler_sees() -> None:
    """And of the order of the files."""
    one = ("one", "a", b"12")
    others = [
        [("one", "a", b"13")],
        [("one", "b", b"12")],
        [("many", "a", b"12")],
        [one, ("many", "a", b"")],
        [one, ("many", "a", b"1"), ("many", "a", b"2")],
        [one, ("many", "a", b"2"), ("many", "a", b"1")],
    ]
    digests = [(await read(body_of(parts), []))[-1] for parts in ([one], *others)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("parts", "limits"),
    [
        ([("one", "a", b"x" * 20_000)], LIMITS),
        ([("input", None, b" " * 101)], LIMITS),
        ([("many", "a", b"")] * 6, LIMITS),
    ],
)
async def test_each_bound_holds(parts: list[tuple[str, str | None, bytes]], limits: BodyLimits) -> None:
    """Of the whole, of the input, of the number of files."""
    code, _ = await read(body_of(parts), [], limits)
    assert code == PayloadTooLargeError("").code


async def test_a_file_on_disk_that_is_opened_after_the_close_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is cancelled leaves its write in a thread, which goes on to the disk when nobody waits for it."""
    on_disk: list[IO[bytes]] = []
    is_opening, go_on, is_written = threading.Event(), threading.Event(), threading.Event()
    opened, rollover = tempfile.TemporaryFile, tempfile.SpooledTemporaryFile.rollover

    def open_later(**options: Any) -> IO[bytes]:
        is_opening.set()
        assert go_on.wait(60)
        on_disk.append(opened(**options))
        return on_disk[0]

    def written(self: tempfile.SpooledTemporaryFile[bytes]) -> None:
        try:
            rollover(self)
        finally:
            is_written.set()

    monkeypatch.setattr(tempfile, "TemporaryFile", open_later)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", written)
    limits = BodyLimits(100, 1.0, UploadLimits(max_bytes=2 * SPOOL_BYTES, max_files=1, seconds=1.0))
    taken = MultipartBody(CONTENT_TYPE, TAKEN, limits, is_digested=False)
    taking = asyncio.create_task(taken.take(body_of([("one", "a", b"x" * (SPOOL_BYTES + 1))])))
    await until(is_opening.is_set)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    taken.close()
    go_on.set()
    await until(is_written.is_set)
    await until(lambda: on_disk[0].closed)
