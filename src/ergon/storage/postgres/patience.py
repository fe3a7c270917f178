"""How long to go on trying while the server is away, and how long to wait in between."""

from __future__ import annotations

import asyncio
import random
from typing import Final

_FIRST_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 1.0


class Patience:
    """Counts from the first failure, not from the start: what takes long is no failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at: float | None = None
        self._pause = _FIRST_SECONDS

    async def wait(self, error: BaseException) -> None:
        """Wait before the next try; raise `error` when there is to be none."""
        now = asyncio.get_running_loop().time()
        if self._ends_at is None:
            self._ends_at = now + self._seconds
        if now >= self._ends_at:
            raise error
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, _LONGEST_SECONDS)

    def hurry(self, seconds: float) -> None:
        """Try no longer than so many seconds more."""
        self._seconds = min(self._seconds, seconds)
        if self._ends_at is not None:
            self._ends_at = min(self._ends_at, asyncio.get_running_loop().time() + seconds)
