"""Sleep until another process writes to a file: what an idle log costs.

Linux tells by inotify that somebody wrote to the write-ahead log, so nobody has to look for it 66 times a second.
Elsewhere, and where a process may have no more watches (`fs.inotify.max_user_instances`), the caller goes on looking.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from pathlib import Path
from typing import Final

_IN_MODIFY: Final = 0x2
_EVENTS_BYTES: Final = 4096


class FileWatch:
    """One thread waits; any thread may wake it."""

    def __init__(self, changes: int, bell: int) -> None:
        self._changes, self._bell = changes, bell
        self._closing = threading.Lock()
        self._closed = False
        self._poll = select.poll()
        self._poll.register(changes, select.POLLIN)
        self._poll.register(bell, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Return True when the file was written to, False when woken or when the time is over."""
        ready = {fd for fd, _ in self._poll.poll(max(seconds, 0.0) * 1000)}
        if self._bell in ready:
            _empty(self._bell)
        return self._changes in ready and self.forget()

    def wake(self) -> None:
        """End a wait, or the next one."""
        with self._closing:  # a closed descriptor's number may be another file's by now
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def forget(self) -> bool:
        """Drop what was noticed up to now; tell whether there was anything."""
        return _empty(self._changes)

    def close(self) -> None:
        """Stop watching. Called by the thread that waits."""
        with self._closing:
            self._closed = True
            os.close(self._changes)
            os.close(self._bell)


def watch_file(path: Path) -> FileWatch | None:
    """Watch a file from now on; None where that is not possible."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes  # here, because it is slow to import and only a log that has been idle needs it

        libc = ctypes.CDLL(None, use_errno=True)
        changes = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (ImportError, OSError, AttributeError):
        return None
    if changes < 0:
        return None
    try:
        if libc.inotify_add_watch(changes, os.fsencode(path), _IN_MODIFY) >= 0:
            return FileWatch(changes, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    except OSError:
        pass
    os.close(changes)
    return None


def _empty(fd: int) -> bool:
    was_full = False
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, _EVENTS_BYTES):
            was_full = True
    return was_full
