"""The log's clock is the server's, and this process knows it by samples.

Transactions read the server's clock and use that reading; group commits and claims, where nothing hangs on a
millisecond, use what `now` says. Between readings `now` adds what has passed by this process's monotonic clock. A
reading counts from the moment it came here, so the estimate is late by the way of an answer and never early: what falls
due by it is due on the server.
"""

from __future__ import annotations

import time
from typing import Final

from ergon.storage.clock import Clock

_TRUSTED_SECONDS: Final = 10.0
"""How long a better reading stands against later ones: two clocks drift apart."""


class ServerClock:
    """Estimates the server's clock; `own` replaces it altogether, for tests."""

    def __init__(self, own: Clock | None) -> None:
        self._own = own
        self._steady = own.wall() - own.boot() if own is not None else 0.0
        self._ahead: float | None = None
        """The server's time less our monotonic time."""
        self._read_at = 0.0
        self._seen_at = -_TRUSTED_SECONDS

    @property
    def is_own(self) -> bool:
        """Tell whether somebody's own clock is used instead of the server's."""
        return self._own is not None

    def now(self) -> float:
        """The log's time."""
        if self._own is not None:
            return self._own.wall()
        if self._ahead is None:
            return time.time()  # nothing was read yet
        return self._ahead + time.monotonic()

    def read(self, server: float) -> tuple[float, float]:
        """Take a reading in; return the time to use for a transaction, and the time that leases are compared by."""
        if self._own is not None:
            return self._own.wall(), self._own.boot() + self._steady
        self._seen_at = here = time.monotonic()
        ahead = server - here
        if self._ahead is None or ahead > self._ahead or here - self._read_at > _TRUSTED_SECONDS:
            self._ahead, self._read_at = ahead, here
        return server, server

    def estimate(self) -> tuple[float, float] | None:
        """The same two without asking the server; None when the last reading is too old for that."""
        if self._own is not None:
            return self.read(0.0)
        if self._ahead is None or time.monotonic() - self._seen_at > _TRUSTED_SECONDS:
            return None
        now = self.now()
        return now, now

    def forget(self) -> None:
        """Another server may answer from now on."""
        self._read_at = self._seen_at = -_TRUSTED_SECONDS
