"""Say early, and once, that a log's server is away, and once that it is back: calls wait longer than people like to."""

from __future__ import annotations

import logging
import time
from typing import Final

logger: Final = logging.getLogger("ergon.storage")

SAY_AFTER_SECONDS: Final = 3.0
"""A restart of a server takes less; a program that stands still for longer should say why."""


class Outage:
    """One for each server of a log: all connections find the same one away."""

    def __init__(self, *, says: bool = True) -> None:
        self._says = says
        self._since: float | None = None
        self._is_said = False

    @property
    def is_on(self) -> bool:
        """True from a lost connection to the next answer."""
        return self._since is not None

    def met(self, why: BaseException, *, since: float | None = None) -> None:
        """A connection was lost, or not made, and is tried again.

        `why` is shown: it names the log, and no password. `since`: when, by the monotonic clock, what failed had begun.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now if since is None else since
        if self._says and not self._is_said and now - self._since >= SAY_AFTER_SECONDS:
            self._is_said = True
            logger.warning("%s; for %.0f s now, and Ergon goes on trying", why, now - self._since)

    def over(self, where: str) -> None:
        """The server answers."""
        since, is_said = self._since, self._is_said
        self._since, self._is_said = None, False
        if since is not None and is_said:
            logger.warning("log %s: the server answers again, after %.0f s", where, time.monotonic() - since)
