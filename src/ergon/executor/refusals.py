"""Say once, and not for each flow and try, that the log takes no commits for now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("ergon.executor")

REMIND_SECONDS: Final = 60.0
"""A log that goes on refusing, or does so now and then, is told no more often than this."""


class Refusals:
    """One per host: all of its flows commit to one log, and a full disk or a busy log refuses them alike."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.any = False
        """True from a commit that was refused to the next one that landed."""
        self._clock = clock
        self._told_at: float | None = None
        self._told = False
        """True while the last word about this log was that it refuses."""

    def met(self, error: Exception, seconds: float) -> None:
        """A commit was refused, and is tried again in so many seconds."""
        self.any = True
        now = self._clock()
        if self._told_at is not None and now - self._told_at < REMIND_SECONDS:
            return
        self._told_at, self._told = now, True
        logger.warning(
            "%s; flows keep what they did and try again every %g s, which is said once a minute",
            error,
            seconds,
        )

    def over(self) -> None:
        """A commit landed after one was refused."""
        self.any = False
        if self._told:
            self._told = False
            logger.warning("the log takes commits again; flows go on")
