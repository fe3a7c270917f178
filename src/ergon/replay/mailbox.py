"""Signals a flow can wait for: values that have arrived, and who waits.

A signal enters the flow as an event of its own, not as the answer to one wait: a wait that is cancelled at the
very moment its signal arrives leaves the value here for the next one, live and on replay alike.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple


class Waiter(NamedTuple):
    """One wait for a signal."""

    op: str
    future: asyncio.Future[None]
    since: float
    source: str


class Mailbox:
    """The arrived values and the waits for one signal name, both first in, first out."""

    __slots__ = ("name", "values", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: deque[str] = deque()
        self.waiters: deque[Waiter] = deque()

    def arrive(self, payload: str) -> None:
        """Keep a value and wake the longest-waiting wait."""
        self.values.append(payload)
        self._wake_one()

    def _wake_one(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_result(None)
                return

    async def take(self, loop: asyncio.AbstractEventLoop, *, op: str, source: str) -> str:
        """The next value; waits for one."""
        while not self.values:
            waiter = Waiter(op, asyncio.Future(loop=loop), loop.time(), source)
            self.waiters.append(waiter)
            try:
                await waiter.future
            except asyncio.CancelledError:
                if waiter in self.waiters:
                    self.waiters.remove(waiter)
                elif self.values:
                    self._wake_one()  # we were woken and leave: pass the wake-up on
                raise
        return self.values.popleft()

    def wanted(self) -> int:
        """How many more values somebody waits for."""
        live = sum(1 for waiter in self.waiters if not waiter.future.done())
        return live
