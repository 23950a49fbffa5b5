"""Files that a mutation takes: `file: UploadFile`, `file: UploadFile | None = None`, `files: list[UploadFile]`.

They come beside the input, never in it: steps, wrappers and predicates see the input alone, and no key holds a file.
`web/routing/uploads.py` receives them; `docs/how-to/files.md` says it for authors.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from os import SEEK_CUR
from types import UnionType
from typing import Any, BinaryIO, Final, Union, cast, get_args, get_origin

from reactive_rpc.compat.fastapi import UploadFile, file_mark_in
from reactive_rpc.errors import BadRequestError
from reactive_rpc.procedures.annotations import plain

__all__ = ["CallFiles", "FileParameter", "GivenFiles", "UploadFile", "holds_file", "read_file_parameter"]

GivenFiles = Mapping[str, UploadFile | list[UploadFile]]
"""`{parameter: its file or files}`; one that was not given is not in it."""


@dataclass(frozen=True, slots=True)
class FileParameter:
    """A parameter of a handler that files are given to.

    Attributes:
        part: its name on the wire.
        is_list: whether it takes several.
        is_required: whether one, of a list one at least, must be given.
        mark: what `File(...)` in its annotation says for the OpenAPI document; None if there is none.
    """

    name: str
    part: str
    is_list: bool
    is_required: bool
    mark: Any


MAX_DEPTH: Final = 5
"""How far inside an annotation files are looked for: one may hold itself."""


def holds_file(annotation: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether an annotation is `UploadFile`, or has it somewhere inside.

    >>> holds_file(dict[str, UploadFile]), holds_file(bytes)
    (True, False)
    """
    kind = plain(annotation)
    return _is_file(kind) or (depth > 0 and any(holds_file(part, depth - 1) for part in get_args(kind)))


def read_file_parameter(name: str, annotation: Any, default: Any) -> FileParameter | str:
    """Return the parameter, or why files cannot be taken so.

    >>> read_file_parameter("file", UploadFile | None, None).is_required
    False
    """
    mark = file_mark_in(annotation, default)
    has_default = default is not inspect.Parameter.empty and (mark is None or default is not mark)
    kind = plain(annotation)
    if mark is not None and mark.alias not in (None, name):
        return f"{name!r} has an alias in File(...), and files are sent by the names of their parameters: leave it out"
    kind, may_be_none = _without_none(kind)
    if may_be_none and not has_default:
        return f"{name!r} may be None, and has no default: write {name}: ... | None = None"
    is_list = get_origin(kind) is list and _is_file(plain(get_args(kind)[0]))
    if not is_list and not _is_file(kind):
        return f"{name!r} takes files in another shape than UploadFile, UploadFile | None or list[UploadFile]: take one"
    return FileParameter(name, name, is_list, not has_default, mark)


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Return the other part of a union with None, and whether it was one."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
    others = [part for part in parts if part is not type(None)]
    return (plain(others[0]) if len(others) == 1 else kind), len(others) < len(parts)


def _is_file(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, UploadFile)


class CallFiles:
    """The files of one call, which each attempt at it is given from where they began.

    Args:
        path: of the procedure.
        parameters: that its handler has for files.
        given: by whoever calls.

    Raises:
        BadRequestError: one is missing, is no file, or nobody asks for it; `details` lists each fault.
    """

    def __init__(self, path: str, parameters: tuple[FileParameter, ...], given: Mapping[str, object]) -> None:
        faults = list(_faults(parameters, given))
        if faults:
            places = ", ".join(fault["loc"][0] for fault in faults)
            raise BadRequestError(
                f"the files do not fit {path}: {places}: {faults[0]['message']}", details=faults, path=path
            )
        self._given = cast(GivenFiles, {name: value for name, value in given.items() if value is not None})
        self._starts = [(file, file.file.seek(0, SEEK_CUR)) for file in self._all()]

    def arguments(self) -> dict[str, Any]:
        """Return the files, rewound, for the next attempt."""
        for file, start in self._starts:
            file.file.seek(start)
        return {
            name: list(map(_kept_open, value)) if isinstance(value, list) else _kept_open(value)
            for name, value in self._given.items()
        }

    def _all(self) -> Iterator[UploadFile]:
        for value in self._given.values():
            yield from value if isinstance(value, list) else [value]


def _faults(parameters: tuple[FileParameter, ...], given: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    by_name = {each.name: each for each in parameters}
    for name in given.keys() - by_name.keys():
        yield _fault(name, "nobody takes a file of this name", "extra_forbidden")
    for each in parameters:
        value = given.get(each.name)
        if value is None or value == []:
            if each.is_required:
                yield _fault(each.part, "a file is required", "missing")
        elif isinstance(value, list) is not each.is_list:
            yield _fault(each.part, "a list of files is taken" if each.is_list else "one file is taken", "file_type")
        else:
            for file in value if isinstance(value, list) else [value]:
                if not isinstance(file, UploadFile):
                    yield _fault(each.part, f"no UploadFile, but of {type(file).__name__}", "file_type")
                elif not file.file.seekable():
                    yield _fault(each.part, "cannot be rewound, for another attempt: give a seekable file", "file_type")


def _fault(name: str, message: str, kind: str) -> dict[str, Any]:
    return {"loc": [name], "message": message, "type": kind}


def _kept_open(file: UploadFile) -> UploadFile:
    kept = copy(file)
    kept.file = cast(BinaryIO, _KeptOpen(file.file))
    return kept


class _KeptOpen:
    """A file that its reader cannot close: another attempt reads it again, and whoever opened it closes it.

    An `io.TextIOWrapper` around it would, when it is collected.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def __enter__(self) -> _KeptOpen:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing."""
