"""One write transaction as the facets see it: the connection, the time, and what others should hear about."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from ergon.core.commit import Hint, Settled


class Transaction:
    """Handed to everything that writes. Made anew for each attempt, so that a rolled back one leaves no trace."""

    __slots__ = ("boot", "connection", "damaged", "ended", "inbox", "now", "ready", "settled", "wake_at")

    def __init__(
        self, connection: sqlite3.Connection, now: float, boot: float, damaged: dict[int, float]
    ) -> None:
        self.connection = connection
        self.damaged = damaged
        """Rows of `flows` that cannot be written, and until when (by `boot`) claims pass them over: see `damage.py`.
        It outlives the transaction."""
        self.now = now
        """The log's time, the same for the whole transaction."""
        self.boot = boot
        """The same moment by the clock that leases are compared with."""
        self.ended: list[str] = []
        """Flows that ended and whose relatives do not know yet; `ended.py` empties it."""
        self.ready = False
        self.wake_at: float | None = None
        self.inbox: set[str] = set()
        self.settled: dict[str, Settled | None] = {}

    def run(self, sql: str, **values: Any) -> int:
        """Run a statement; return how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def one(self, sql: str, **values: Any) -> Any:
        """Return the first row, or None. Statements return one row: see `rows.sql`."""
        return self.connection.execute(sql, values).fetchone()

    def wakes(self, at: float) -> None:
        """Note that a flow becomes ready at this time."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def hint(self) -> Hint | None:
        """Return what listeners should hear, or None."""
        if not (self.ready or self.inbox or self.settled) and self.wake_at is None:
            return None
        return Hint(
            ready=self.ready,
            wake_at=self.wake_at,
            inbox=frozenset(self.inbox),
            settled=self.settled,
        )


def as_json(values: Iterable[Any]) -> str:
    """Write values as the JSON array that statements read with `json_each`."""
    return json.dumps(list(values), ensure_ascii=False)
