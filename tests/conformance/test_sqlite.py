"""The conformance suite on a SQLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ergon import SqliteExecutionLog
from ergon.testing.conformance import *  # noqa: F403 - the line that brings the behaviours in


@dataclass
class SqliteStore:
    """One file. It has no connections that a server could break."""

    path: Path

    def open(self, namespace: str = "") -> SqliteExecutionLog:
        return SqliteExecutionLog(self.path, namespace=namespace)

    async def interrupt(self) -> None:
        """Nothing can."""


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "log.db")
