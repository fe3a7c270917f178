"""What the author of an execution log gives to the suite: a place for one log, fresh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from ergon.storage.log import ExecutionLog


class Store(Protocol):
    """A fresh and empty place where one log is kept, such as a file, a database or a prefix of keys.

    The fixture that makes it also clears it away, after the test. Handles are closed by the tests that open them.
    """

    def open(self, namespace: str = "") -> ExecutionLog:
        """Return a new handle on the log at this place, not connected: what another process would open.

        `namespace`: another log at the same place; its handle raises `InvalidName` for one that cannot be.

        A log that lives and ends with its handle has no second one; it takes the behaviours of
        `ergon.testing.conformance.alone`, which open one.
        """
        ...

    async def interrupt(self) -> None:
        """Break every connection that is open to this place, as its server would. Without connections: nothing."""
        ...


@asynccontextmanager
async def two(store: Store) -> AsyncIterator[tuple[ExecutionLog, ExecutionLog]]:
    """Two connected handles."""
    async with store.open() as one, store.open() as other:
        yield one, other
