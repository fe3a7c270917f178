"""The conformance suite on a SQLite file, in memory where there is room: what a disk does to it is tested elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ergon import SqliteExecutionLog
from ergon.testing.conformance import *  # noqa: F403 - the line that brings the behaviours in
from tests.memory import memory


@dataclass
class SqliteStore:
    """One file. It has no connections that a server could break."""

    path: Path

    def open(self, namespace: str = "") -> SqliteExecutionLog:
        return SqliteExecutionLog(self.path, namespace=namespace)

    async def interrupt(self) -> None:
        """Nothing can."""


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    with TemporaryDirectory(prefix="ergon-log-", dir=memory()) as folder:
        yield SqliteStore(Path(folder) / "log.db")
