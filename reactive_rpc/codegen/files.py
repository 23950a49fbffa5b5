"""Writing what is generated: whole files or none, and never over a file that nobody generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

from reactive_rpc.errors import DefinitionError

__all__ = ["ForeignFileError", "replace_files"]


class ForeignFileError(DefinitionError):
    """A file that would be written over was not generated; nothing has been changed."""


def replace_files(files: Mapping[str, str], folder: Path, *, is_ours: Callable[[bytes], bool], also: str) -> list[Path]:
    """Write the files of a folder, and remove what a former generation left there; return their paths, sorted.

    Args:
        files: `{name: text}`; a name may be a path within the folder.
        is_ours: tells by its content whether a file was generated.
        also: the pattern of the names of such files as may be left of a former generation, there and in the folders of
            other files.

    Raises:
        ForeignFileError: one of them is there and was not generated. Nothing has been changed.
    """
    if folder.exists() and not folder.is_dir():
        raise ForeignFileError(f"{folder} is a file, and a folder is to be written: give another --out")
    paths = {folder / name: text for name, text in sorted(files.items())}
    for path, text in paths.items():
        _require_replaceable(path, text, is_ours)
    folders = sorted({folder, *(path.parent for path in paths)})
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)
    found = [path for one in folders for path in sorted(one.glob(also))]
    former = [path for path in found if path not in paths and _is_former(path, is_ours)]
    _write(paths)
    for path in former:
        path.unlink()
    return list(paths)


def _require_replaceable(path: Path, text: str, is_ours: Callable[[bytes], bool]) -> None:
    """Let pass a path at which nothing stands, or `text` already, or a file that was generated.

    Raises:
        ForeignFileError: something else does.
    """
    if path.is_symlink():
        raise ForeignFileError(f"{path} is a symbolic link, which is not followed: remove it, or give another --out")
    if path.is_dir():
        raise ForeignFileError(f"{path} is a folder, and a file is to be written: give another --out")
    if path.exists() and (content := path.read_bytes()) != text.encode() and not is_ours(content):
        raise ForeignFileError(
            f"{path} was not generated and would be written over: move it away, or give another --out"
        )


def _is_former(path: Path, is_ours: Callable[[bytes], bool]) -> bool:
    return path.is_file() and not path.is_symlink() and is_ours(path.read_bytes())


def _write(paths: Mapping[Path, str]) -> None:
    """Write all beside their places first: what fails, for want of space for example, then leaves all as it was."""
    written: list[tuple[Path, Path]] = []
    try:
        for path, text in paths.items():
            with NamedTemporaryFile(
                "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
            ) as file:
                written.append((Path(file.name), path))
                file.write(text)
        for scratch, path in written:
            scratch.chmod(_mode_of(path))
            os.replace(scratch, path)
    finally:
        for scratch, _ in written:
            scratch.unlink(missing_ok=True)


def _mode_of(path: Path) -> int:
    """Return the mode of the file that stands there, or of a new one, which a temporary file's is not."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
