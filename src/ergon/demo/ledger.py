"""The ledger: an append-only file beside the log, to which each step body writes when it begins and when it ends.

It is how the demo counts from outside: the log says what is committed, the ledger says what really ran. A line is one
`write` to a file opened for appending, so lines of several processes never mix; it starts with a line feed, so a
line that a SIGKILL cut in two spoils no other.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from ergon import flow_id, idempotency_key

NAME: Final = "ledger.jsonl"
PAUSE: Final = "ERGON_DEMO_PAUSE"
"""How many seconds each body takes longer, so that a small tree is not done before anything can be killed."""
PROCESS: Final = f"{os.getpid()}-{secrets.token_hex(4)}"
"""This process; a pid alone may come again."""


class Line(NamedTuple):
    """One line: a body began or ended."""

    event: str
    """begin or end."""
    at: float
    process: str
    flow: str
    key: str
    """The step's idempotency key: flow id and operation."""
    name: str
    about: str

    @property
    def pid(self) -> int:
        """The process that wrote it."""
        return int(self.process.partition("-")[0])


@contextmanager
def body(home: str, name: str, about: str = "") -> Iterator[None]:
    """Note that the step body which calls this begins and ends."""
    file, flow, key = _open(home), flow_id(), idempotency_key()
    _write(file, Line("begin", time.time(), PROCESS, flow, key, name, about))
    if pause := float(os.environ.get(PAUSE, "0")):
        time.sleep(pause)
    yield
    _write(file, Line("end", time.time(), PROCESS, flow, key, name, about))


@cache
def _open(home: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    return os.open(os.path.join(home, NAME), flags, 0o644)


def _write(file: int, line: Line) -> None:
    os.write(file, b"\n" + json.dumps(line).encode())


class Reader:
    """Follows a ledger as it grows."""

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        self._offset = 0
        self._rest = b""

    def new_lines(self) -> list[Line]:
        """Lines written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        # The last line may be under way: it counts as soon as it reads as one.
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [line for text in whole if (line := _parse(text)) is not None]
        last = _parse(self._rest)
        if last is not None:
            lines.append(last)
            self._rest = b""
        return lines


def _parse(text: bytes) -> Line | None:
    try:
        return Line(*json.loads(text))
    except (ValueError, TypeError):
        return None  # empty, or cut in two by a kill
