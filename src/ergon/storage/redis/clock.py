"""The log's clock is the server's: read inside each script, and estimated between two of its answers.

`now()` may be behind the server's clock by what a round trip takes, never ahead: a timer must not be early.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from ergon.storage.redis.server import Server

REFRESH_SECONDS: Final = 30.0
"""How long a best sample counts: clocks drift apart by some microseconds a second, and people set them."""


class ServerClock:
    """Estimates the server's time."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._sampled_at = 0.0

    def sample(self, server_time: float) -> None:
        """Note a time that the server told in an answer which has arrived just now."""
        here = time.monotonic()
        offset = server_time - here
        if self._offset is None or offset > self._offset or here - self._sampled_at > REFRESH_SECONDS:
            self._offset, self._sampled_at = offset, here

    def forget(self) -> None:
        """The next sample counts alone: it may be of another server."""
        self._offset = None

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time() if self._offset is None else time.monotonic() + self._offset


class KeptTime:
    """Looks at the server's clock now and then, until it is stopped."""

    def __init__(self, server: Server, clock: ServerClock) -> None:
        self._server, self._clock = server, clock
        self._over = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work(), name="ergon-time")

    def stop(self) -> None:
        """Look no more. Not by cancelling: redis-py might be connecting."""
        self._over.set()

    async def stopped(self) -> None:
        """Wait for the last look."""
        await asyncio.wait({self._task})

    async def _work(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS / 3):
                    await self._over.wait()
                    return
            with suppress(Exception):  # the next look may succeed; until then the clocks just go on
                self._clock.sample(await self._server.time())
