"""Watching the `-wal` file of a SQLite database: Linux's inotify says when somebody writes it.

By ctypes, as three calls of libc are all that is needed: `watchfiles` gathers events for 50 ms and watches folders,
and other packages wrap these very calls. Where there is no inotify, or no watch is left, nothing is watched.

Source: https://man7.org/linux/man-pages/man7/inotify.7.html
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import Any, Final

__all__ = ["WALWatch"]

_MODIFIED, _ATTRIBUTES, _MOVED, _DELETED = 0x2, 0x4, 0x800, 0x400
# While a file is open, deleting it only changes its attributes: how many names it has.
_EVENTS: Final = _MODIFIED | _ATTRIBUTES | _MOVED | _DELETED
_EVENT_BYTES: Final = 64 * 1024


class WALWatch:
    """Watches one file. Used on one event loop."""

    def __init__(self) -> None:
        self._libc: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
        self._descriptor: int | None = None
        self._watched = -1
        self._written = asyncio.Event()

    def begin(self, path: str) -> bool:
        """Watch the file that is at `path` now, and no other; tell whether that can be done. Cheap if it is watched."""
        if self._descriptor is None:
            self._open()
        if self._descriptor is None:
            return False
        # INVARIANT (asked anew each time): it tells the same number of the file that is watched already, and so
        # finds out that another is there now.
        watched = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _EVENTS)
        if watched != self._watched:
            if self._watched >= 0:
                self._libc.inotify_rm_watch(self._descriptor, self._watched)
            self._watched = watched
            # INVARIANT (a file that is watched from now on counts as written): what was written to it just before
            # may be a commit that shows only after the log is read.
            self._written.set()
        return bool(watched >= 0)

    async def written(self, seconds: float) -> bool:
        """Tell whether the file was written since `clear` was called, or is within so long, or is not watched."""
        if self._descriptor is None:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._written.wait()
        return False

    def clear(self) -> bool:
        """Forget what was written so far, and tell whether there was anything."""
        if self._descriptor is None:
            return False
        forgotten = 0
        with suppress(BlockingIOError):
            while found := os.read(self._descriptor, _EVENT_BYTES):
                forgotten += len(found)
        self._written.clear()
        asyncio.get_running_loop().add_reader(self._descriptor, self._note, self._descriptor)
        return forgotten > 0

    def close(self) -> None:
        """Watch nothing; idempotent."""
        descriptor, self._descriptor, self._watched = self._descriptor, None, -1
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _open(self) -> None:
        begin = getattr(self._libc, "inotify_init1", None)
        descriptor = -1 if begin is None else begin(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor >= 0:
            self._descriptor = descriptor
            self.clear()

    def _note(self, descriptor: int) -> None:
        # Further events are left in the kernel until `clear`: a writer without a pause costs nothing here.
        asyncio.get_running_loop().remove_reader(descriptor)
        self._written.set()
