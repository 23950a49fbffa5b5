"""A body that is one file and nothing beside it: `application/octet-stream`, as tRPC's clients send a Blob or bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import Any, Final, cast

from starlette.datastructures import Headers

from reactive_rpc.compat.fastapi import FastAPIUploadFile
from reactive_rpc.procedures.uploads import FileParameter, UploadFile
from reactive_rpc.web.routing.body import BodyLimits
from reactive_rpc.web.routing.multipart import SPOOL_BYTES, too_large

__all__ = ["OCTETS", "FileBody", "sole_file"]

OCTETS: Final = "application/octet-stream"


def sole_file(parameters: Sequence[FileParameter]) -> FileParameter | None:
    """Return the parameter that a body without names can only be meant for; None if there are several, or a list."""
    return parameters[0] if len(parameters) == 1 and not parameters[0].is_list else None


class FileBody:
    """Takes a body in chunks.

    Args:
        parameter: the one that the file is given to.
        is_digested: whether somebody will ask for the digest of the file.

    Attributes:
        input: nothing: the other inputs are their defaults.
        files: `{parameter: file}`.
    """

    input: Final = b""

    def __init__(self, parameter: FileParameter, limits: BodyLimits, *, is_digested: bool) -> None:
        self._spooled: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  # see close
        headers = Headers({"content-type": OCTETS})
        self._file = FastAPIUploadFile(file=cast(Any, self._spooled), size=0, filename=None, headers=headers)
        self._limits = limits
        self._bytes = 0
        self._digest = sha256() if is_digested else None
        self.files: Mapping[str, UploadFile | list[UploadFile]] = {parameter.name: self._file}

    @property
    def digest(self) -> bytes:
        """Of the file."""
        return b"" if self._digest is None else self._digest.digest()

    async def take(self, chunk: bytes) -> None:
        """Take the next part of the body.

        Raises:
            PayloadTooLargeError: there is more than the limits allow.
        """
        self._bytes += len(chunk)
        if self._bytes > self._limits.uploads.max_bytes:
            raise too_large(self._limits.uploads.max_bytes)
        if self._digest is not None:
            self._digest.update(chunk)
        await self._file.write(chunk)

    def finish(self) -> None:
        """Go back to the beginning of the file, once it is whole."""
        self._spooled.seek(0)

    def close(self) -> None:
        """Close the file; idempotent."""
        with suppress(OSError):
            self._spooled.close()
