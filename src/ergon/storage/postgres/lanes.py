"""A few connections for whoever comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ergon.errors import LogClosed
from ergon.storage.postgres.lane import Lane

T = TypeVar("T")


class Lanes:
    """A few lanes for whoever comes, opened as they are needed, or all at once."""

    def __init__(self, make: Callable[[], Lane], lanes_max: int) -> None:
        self._make, self._max = make, lanes_max
        self._all: list[Lane] = []
        self._free: list[Lane] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._closed = False

    async def use(self, function: Callable[[Lane], Awaitable[T]]) -> T:
        """Run something on a lane that nobody else uses meanwhile."""
        while not self._free and len(self._all) >= self._max:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_one()
                raise
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        if self._closed:
            raise LogClosed("the log was closed meanwhile")
        if not self._free:
            self._free.append(self._make())
            self._all.append(self._free[-1])
        # Always the first that is free: what was asked there before is prepared.
        lane = next(one for one in self._all if one in self._free)
        self._free.remove(lane)
        try:
            return await function(lane)
        finally:
            self._free.append(lane)
            self._wake_one()

    async def open_all(self) -> None:
        """Open every lane there may be, but those in use. One that cannot be opened says so to whoever uses it next."""
        while len(self._all) < self._max and not self._closed:
            self._free.append(self._make())
            self._all.append(self._free[-1])
        opening, self._free = self._free, []
        try:
            await asyncio.gather(*(lane.open() for lane in opening), return_exceptions=True)
        finally:
            self._free += opening
            for _ in opening:
                self._wake_one()

    def hurry(self) -> None:
        """See `Lane.hurry`."""
        for lane in self._all:
            lane.hurry()

    async def close(self) -> None:
        """Close every lane; those that are in use are cut."""
        self._closed = True
        for lane in self._all:
            if lane in self._free:
                await lane.close()
            else:
                lane.terminate()
        while self._waiting:
            self._wake_one()

    def terminate(self) -> None:
        """Close without a word."""
        self._closed = True
        for lane in self._all:
            lane.terminate()

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
