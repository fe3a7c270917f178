"""The outside world: a file that steps write to, which no crash of theirs can tear or take back.

One record is one `write` of exactly 1,024 bytes on a file opened for appending. All records start at a multiple of
their size, so none crosses a page: the kernel copies each in one go, and a SIGKILL finds it whole or not there at
all. The file's order is the order of events across all processes, and a record's place in it is its number. Nothing
here cuts the power, so no record waits for a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RECORD_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the ledger."""

    number: int
    """Its place in the file, from 0."""
    kind: str
    """BEGIN, END (of a step body), VERIFY, ACK (a call of ours returned), RESULT, WAKE, NOTE, DONE."""
    pid: int
    at: float
    """Seconds by the clock since boot, which is the same in all processes."""
    facts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def get(self, name: str) -> Any:
        return self.facts.get(name)

    def __str__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self.facts.items())
        return f"#{self.number} {self.kind} pid={self.pid} {facts}"


class Ledger:
    """One process's way to write. Safe to carry through `fork`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, kind: str, /, **facts: Any) -> None:
        """Append one record."""
        line = json.dumps([kind, os.getpid(), boot_seconds(), facts], separators=(",", ":"), default=str)
        record = line.encode().ljust(RECORD_BYTES - 1) + b"\n"
        if len(record) != RECORD_BYTES:
            raise ValueError(f"a record of {len(record)} bytes does not fit: {line[:200]}")
        written = os.write(self._file, record)
        assert written == RECORD_BYTES, "the ledger's disk is full"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._file)


def read_ledger(path: str | os.PathLike[str], start: int = 0) -> list[Record]:
    """All records from number `start` on."""
    return list(_records(Path(path), start))


def _records(path: Path, start: int) -> Iterator[Record]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start * RECORD_BYTES)
        number = start
        while block := file.read(RECORD_BYTES):
            assert len(block) == RECORD_BYTES, f"record {number} is torn: {block!r}"
            assert block.endswith(b"\n"), f"record {number} is torn: {block!r}"
            kind, pid, at, facts = json.loads(block)
            yield Record(number, kind, pid, at, facts)
            number += 1


def boot_seconds() -> float:
    """The clock since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
