"""The conformance suite on a log in memory, which lives and ends with its handle."""

from __future__ import annotations

import pytest

from ergon import SqliteExecutionLog
from ergon.testing.conformance.alone import *  # noqa: F403 - the line that brings the behaviours in


class MemoryStore:
    def open(self, namespace: str = "") -> SqliteExecutionLog:
        return SqliteExecutionLog(":memory:", namespace=namespace)

    async def interrupt(self) -> None:
        """Nothing can."""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()
