"""Files: how a caller may give them, how they go out, and those that come back.

A call may be sent more often than once. So a path is opened for each time, and an open file rewound.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from reactive_rpc.errors import BadRequestError

__all__ = ["FileContent", "FileInput", "ReceivedFile", "SentFile", "files_of", "opened"]

FileContent: TypeAlias = bytes | IO[bytes] | os.PathLike[str]
"""The bytes themselves, the path of a file, or a file that is open for reading bytes, which is sent from its start."""

FileInput: TypeAlias = FileContent | tuple[str, FileContent] | tuple[str, FileContent, str]
"""A file, or `(name, file)`, or `(name, file, media type)`. Left out, the name is that of the file, if it has one."""

FilePart: TypeAlias = tuple[str, tuple[str, bytes | IO[bytes], str | None]]


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file to be sent.

    Attributes:
        part: the name of the part.
        name: of the file.
    """

    part: str
    name: str
    content: FileContent
    media_type: str | None


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """What a procedure answers that returns a response of its own: bytes.

    Attributes:
        content: all of it.
        media_type: of the content, with its parameters; empty if the server does not say it.
        name: under which the server would have it saved, without folders; None if it does not say it.

    >>> ReceivedFile.of(b"%PDF", {"content-disposition": "attachment; filename*=utf-8''d%C3%A9j%C3%A0.pdf"}).name
    'déjà.pdf'
    """

    content: bytes
    media_type: str
    name: str | None

    @classmethod
    def of(cls, content: bytes, headers: Mapping[str, str]) -> ReceivedFile:
        """Return the file that an answer is.

        Args:
            content: all of it.
            headers: of the answer, by their names in lower case.
        """
        said = Message()
        said["content-disposition"] = headers.get("content-disposition", "")
        name = Path((said.get_filename() or "").replace("\\", "/")).name or None
        return cls(content, headers.get("content-type", ""), name)


def files_of(path: str, taken: Mapping[str, Literal["one", "many"]], given: Mapping[str, Any]) -> list[SentFile]:
    """Return the files of a call.

    Args:
        path: of the procedure.
        taken: `{part: how many files}`.
        given: `{part: a file, or several}`; None is none.

    Raises:
        BadRequestError: one is no file, or cannot be rewound.
    """
    found = []
    for part, value in given.items():
        several = [value] if taken[part] == "one" else value or ()
        found += [_sent(path, part, each) for each in several if each is not None]
    return found


def _sent(path: str, part: str, given: Any) -> SentFile:
    spelled: list[Any] = [*given, None, None, None] if isinstance(given, tuple) else ["", given, None]
    name, content, media_type = spelled[:3]
    if isinstance(content, bytes):
        return SentFile(part, name or part, content, media_type)
    if isinstance(content, os.PathLike):
        return SentFile(part, name or Path(content).name, content, media_type)
    if not hasattr(content, "read") or not content.seekable():
        what = "a file that cannot be rewound" if hasattr(content, "read") else f"of {type(content).__name__}"
        raise BadRequestError(f"{part} is {what}: give bytes, a Path, or a file opened by open(..., 'rb')", path=path)
    own = getattr(content, "name", None)
    found = name or (Path(own).name if isinstance(own, str) else part)
    return SentFile(part, found, content, media_type)


@contextmanager
def opened(files: Sequence[SentFile]) -> Iterator[list[FilePart]]:
    """Give the parts as httpx takes them; close the files that were opened here.

    Raises:
        OSError: a file cannot be opened.
    """
    with ExitStack() as stack:
        yield [(each.part, (each.name, _content(each, stack), each.media_type)) for each in files]


def _content(file: SentFile, stack: ExitStack) -> bytes | IO[bytes]:
    if isinstance(file.content, os.PathLike):
        return stack.enter_context(open(file.content, "rb"))
    return file.content  # an open one is rewound by httpx
