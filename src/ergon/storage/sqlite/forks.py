"""Keep an open log safe from `fork()`.

The child inherits the parent's connections but neither its threads nor its locks. Using, or even closing, such a
connection can corrupt the file. So in the child every open log refuses each use, and its connections are kept from
being closed when the interpreter ends: one reference too many, on purpose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_watched: WeakKeyDictionary[Any, Callable[[], None]] = WeakKeyDictionary()


def watch(owner: Any, in_child: Callable[[], None]) -> None:
    """Call `in_child` in a forked child for as long as `owner` lives. It must not refer to `owner` strongly."""
    _watched[owner] = in_child


def unwatch(owner: Any) -> None:
    """Forget about it."""
    _watched.pop(owner, None)


def abandon(thing: Any) -> None:
    """Keep `thing` from ever being closed in this process."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _in_child() -> None:
    for in_child in list(_watched.values()):
        in_child()
    _watched.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
