"""One transaction as the facets see it: the connection, the time, what is locked, and what others should hear about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ergon.core.commit import Hint, Settled
from ergon.storage.postgres.driver import Connection, Row, changed


class Transaction:
    """Handed to everything that writes. Made anew for each attempt, so that a rolled back one leaves no trace."""

    __slots__ = ("connection", "ended", "inbox", "lease_now", "now", "ready", "settled", "wake_at", "wrote")

    def __init__(self, connection: Connection, now: float, lease_now: float) -> None:
        self.connection = connection
        self.now = now
        """The log's time, the same for the whole transaction."""
        self.lease_now = lease_now
        """The same moment by the clock that leases are compared with."""
        self.wrote = False
        """Whether there is something to commit."""
        self.ended: list[str] = []
        """Flows that ended and whose relatives do not know yet; `ended.py` empties it."""
        self.ready = False
        self.wake_at: float | None = None
        self.inbox: set[str] = set()
        self.settled: dict[str, Settled | None] = {}

    async def write(self, sql: str, *values: Any) -> int:
        """Run a statement; return how many rows it changed."""
        self.wrote = True
        return changed(await self.connection.execute(sql, *values))

    async def write_rows(self, sql: str, *values: Any) -> list[Row]:
        """Run a statement that changes rows and returns them."""
        self.wrote = True
        return await self.connection.fetch(sql, *values)

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        """Return the rows that a statement finds."""
        return await self.connection.fetch(sql, *values)

    async def one(self, sql: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        return await self.connection.fetchrow(sql, *values)

    def wakes(self, at: float) -> None:
        """Note that a flow becomes ready at this time."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def heard(self) -> tuple[bool, float | None, set[str], dict[str, Settled | None]]:
        """What others would hear now, to return to it when a part is rolled back."""
        return self.ready, self.wake_at, set(self.inbox), dict(self.settled)

    def return_to(self, heard: tuple[bool, float | None, set[str], dict[str, Settled | None]]) -> None:
        """Forget what a part did that was rolled back."""
        self.ready, self.wake_at, self.inbox, self.settled = heard
        self.ended.clear()

    def hint(self) -> Hint | None:
        """Return what listeners should hear, or None."""
        if not (self.ready or self.inbox or self.settled) and self.wake_at is None:
            return None
        return Hint(ready=self.ready, wake_at=self.wake_at, inbox=frozenset(self.inbox), settled=self.settled)


def distinct(values: Iterable[str]) -> list[str]:
    """Each once, sorted: the order in which rows are locked."""
    return sorted(set(values))
