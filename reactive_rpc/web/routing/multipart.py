"""Reading `multipart/form-data` as it arrives: files into spooled files, one JSON part `input` into memory.

Every bound holds while the body is read: of the whole, of the part `input`, of the number of files. A part that nobody
asked for ends the reading at once, so that nothing of it is kept.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import Any, Final, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from reactive_rpc.compat.fastapi import FastAPIUploadFile, UploadFile
from reactive_rpc.errors import BadRequestError, ParseError, PayloadTooLargeError, RPCError
from reactive_rpc.procedures.uploads import FileParameter
from reactive_rpc.web.routing.body import BodyLimits

__all__ = ["MultipartBody", "file_name", "too_large"]

INPUT: Final = "input"
"""The name of the JSON part."""

SPOOL_BYTES: Final = 1024 * 1024
"""A larger file is written to disk."""


class _SpooledFile(SpooledTemporaryFile[bytes]):
    """A spooled file that a thread may still write to when it is closed: the request was cancelled meanwhile."""

    _is_closed = False

    def close(self) -> None:
        self._is_closed = True
        super().close()

    def rollover(self) -> None:
        # INVARIANT (closed for good): either `close` finds the file that this opens, or this finds that it was closed.
        try:
            super().rollover()
        finally:
            if self._is_closed:
                super().close()


@dataclass(slots=True)
class _Part:
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    header: tuple[bytes, bytes] = (b"", b"")
    name: str = ""
    data: bytearray = field(default_factory=bytearray)
    file: UploadFile | None = None
    digest: Any = None


class MultipartBody:
    """Takes a body in chunks.

    Args:
        content_type: the header of the request, which names the boundary.
        parameters: those of the handler that files are given to.
        is_digested: whether somebody will ask for the digest of the files.

    Attributes:
        input: the JSON part; empty if there is none.
        files: `{parameter: file, or files}` of those that were sent.

    Raises:
        ParseError: it names no boundary.
    """

    def __init__(
        self,
        content_type: bytes,
        parameters: Sequence[FileParameter],
        limits: BodyLimits,
        *,
        is_digested: bool,
    ) -> None:
        self.input = b""
        self.files: dict[str, UploadFile | list[UploadFile]] = {}
        self._parameters = {each.part: each for each in parameters}
        self._limits = limits
        self._is_digested = is_digested
        self._digest = sha256()
        self._opened: list[_SpooledFile] = []
        self._writes: list[tuple[_Part, bytes]] = []
        self._seen: set[str] = set()
        self._bytes = 0
        self._part = _Part()
        self._is_whole = False
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._whole,
        }
        try:
            if not boundary:
                raise FormParserError("the content type names no boundary")
            self._parser = MultipartParser(boundary, cast(Any, callbacks))
        except FormParserError as exc:
            raise _broken(exc) from exc

    @property
    def digest(self) -> bytes:
        """Of the files, with their names and types; the same for the same files in the same order."""
        return self._digest.digest()

    async def take(self, chunk: bytes) -> None:
        """Take the next part of the body.

        Raises:
            PayloadTooLargeError: there is more than the limits allow.
            ParseError: it is no multipart.
            BadRequestError: a part has a name that nobody asked for, or comes twice.
        """
        self._bytes += len(chunk)
        if self._bytes > self._limits.uploads.max_bytes:
            raise too_large(self._limits.uploads.max_bytes)
        try:
            self._parser.write(chunk)
        except FormParserError as exc:
            raise _broken(exc) from exc
        for part, data in self._writes:
            if part.file is not None:
                await part.file.write(data)
        self._writes.clear()

    def finish(self) -> None:
        """Hold that the body has ended.

        Raises:
            ParseError: it has not: its last boundary is missing.
        """
        if not self._is_whole:
            raise ParseError("the body ends before its last boundary: it was cut off, or is no multipart/form-data")
        for each in self._opened:
            each.seek(0)

    def close(self) -> None:
        """Close the files; idempotent."""
        for each in self._opened:
            with suppress(OSError):
                each.close()

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        name, value = self._part.header
        self._part.header = (name + data[start:end], value)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        name, value = self._part.header
        self._part.header = (name, value + data[start:end])

    def _header_end(self) -> None:
        name, value = self._part.header
        self._part.headers.append((name.lower(), value))
        self._part.header = (b"", b"")

    def _headers_finished(self) -> None:
        part = self._part
        options = parse_options_header(dict(part.headers).get(b"content-disposition", b""))[1]
        if b"name" not in options:
            raise ParseError("a part has no name in its Content-Disposition")
        part.name = options[b"name"].decode("utf-8", "replace")
        if part.name in self._seen and (part.name == INPUT or not self._parameters[part.name].is_list):
            raise _refused(part.name, "comes twice", "too_many")
        if part.name == INPUT:
            self._seen.add(INPUT)
            return
        if part.name not in self._parameters:
            names = ", ".join((INPUT, *self._parameters))
            raise _refused(part.name, f"nobody takes a part of this name (there are {names})", "extra_forbidden")
        self._seen.add(part.name)
        self._open(part, options.get(b"filename"))

    def _open(self, part: _Part, filename: bytes | None) -> None:
        if len(self._opened) >= self._limits.uploads.max_files:
            raise PayloadTooLargeError(
                f"there are more than {self._limits.uploads.max_files} files (max_upload_files)", headers=_CLOSE
            )
        spooled = _SpooledFile(max_size=SPOOL_BYTES)
        self._opened.append(spooled)
        name = None if filename is None else file_name(part.name, filename.decode("utf-8", "replace"))
        part.file = FastAPIUploadFile(file=cast(Any, spooled), size=0, filename=name, headers=Headers(raw=part.headers))
        if self._is_digested:
            part.digest = sha256()

    def _data(self, data: bytes, start: int, end: int) -> None:
        part, piece = self._part, data[start:end]
        if part.file is not None:
            self._writes.append((part, piece))
            if part.digest is not None:
                part.digest.update(piece)
            return
        part.data += piece
        if len(part.data) > self._limits.max_bytes:
            raise PayloadTooLargeError(
                f"the part {INPUT!r} is over the limit of {self._limits.max_bytes} bytes (max_body_bytes)",
                headers=_CLOSE,
            )

    def _end(self) -> None:
        part = self._part
        if part.name == INPUT:
            self.input = bytes(part.data)
        elif part.file is not None:
            pending = any(one is part for one, _ in self._writes)
            if not part.file.filename and not part.file.size and not pending:
                return  # so says a form in which nobody has chosen a file
            self._add(part, part.file)

    def _add(self, part: _Part, file: UploadFile) -> None:
        parameter = self._parameters[part.name]
        if parameter.is_list:
            cast(list[UploadFile], self.files.setdefault(parameter.name, [])).append(file)
        else:
            self.files[parameter.name] = file
        if part.digest is not None:
            for one in (part.name, file.filename or "", file.content_type or ""):
                encoded = one.encode()
                self._digest.update(b"%d:%b" % (len(encoded), encoded))
            self._digest.update(part.digest.digest())

    def _whole(self) -> None:
        self._is_whole = True


_CLOSE: Final = {"connection": "close"}


def file_name(part: str, sent: str) -> str:
    r"""Return the name of a file without the folders before it, which say nothing here, and could lead anywhere.

    Raises:
        BadRequestError: it has characters that no name has, or is a folder's.

    >>> file_name("plan", "../../etc/passwd"), file_name("plan", r"C:\plans\attic.pdf"), file_name("plan", "")
    ('passwd', 'attic.pdf', '')
    """
    name = sent.replace("\\", "/").rpartition("/")[2]
    if any(unicodedata.category(character) == "Cc" for character in name) or (sent and name in ("", ".", "..")):
        raise _refused(part, f"its file has a name that no file can have: {sent[:100]!r}", "file_name")
    return name


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """Return the error of a body that is larger than that."""
    return PayloadTooLargeError(f"the body is over the limit of {max_bytes} bytes (max_upload_bytes)", headers=_CLOSE)


def _refused(name: str, message: str, kind: str) -> RPCError:
    shown = name[:100]
    return BadRequestError(
        f"the part {shown!r}: {message}",
        details=[{"loc": [shown], "message": message, "type": kind}],
        headers=_CLOSE,
    )


def _broken(exc: Exception) -> ParseError:
    return ParseError(f"the body is no multipart/form-data: {str(exc)[:200]}", headers=_CLOSE)
