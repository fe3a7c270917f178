"""Logs on real files."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ergon.storage.sqlite import SqliteExecutionLog


@pytest.fixture
def file(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
async def log(file) -> AsyncIterator[SqliteExecutionLog]:
    async with SqliteExecutionLog(file) as opened:
        yield opened
