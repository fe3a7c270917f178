"""The fixture that behaviours with one handle ask for, made of the author's fixture `store`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.store import Store


@pytest_asyncio.fixture
async def log(store: Store) -> AsyncIterator[ExecutionLog]:
    """A connected handle on a fresh log."""
    async with store.open() as opened:
        yield opened
