"""Signals a flow can wait for: values that have arrived, and who waits.

A signal enters the flow as an event of its own, not as the answer to one wait: a wait that is cancelled at the
very moment its signal arrives leaves the value here for the next one, live and on replay alike.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from typing import NamedTuple


class Value(NamedTuple):
    """A value that has arrived; numbered, so that one put back finds its old place."""

    number: int
    payload: str


class Waiter(NamedTuple):
    """One wait for a signal. A value is handed to it directly: nobody who comes later can take it first."""

    op: str
    future: asyncio.Future[Value]
    since: float
    source: str


class Mailbox:
    """The arrived values and the waits for one signal name, both first in, first out."""

    __slots__ = ("_arrived", "name", "values", "waiters", "withdrawn")

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[Value] = []
        """Kept for the next wait. Empty while anybody waits."""
        self.waiters: deque[Waiter] = deque()
        self.withdrawn = 0
        """How many waits were cancelled: as many signals may arrive that nobody waits for."""
        self._arrived = 0

    def arrive(self, payload: str) -> bool:
        """Hand a value to the longest-waiting wait, or keep it. False when no wait was ever there to ask for it."""
        self._arrived += 1
        return self._place(Value(self._arrived, payload)) or self.withdrawn > 0

    def _place(self, value: Value) -> bool:
        while self.waiters:
            future = self.waiters.popleft().future
            if not future.done():
                future.set_result(value)
                return True
        insort(self.values, value)
        return False

    async def take(self, loop: asyncio.AbstractEventLoop, *, op: str, source: str) -> str:
        """The next value; waits for one."""
        if self.values:
            return self.values.pop(0).payload
        waiter = Waiter(op, asyncio.Future(loop=loop), loop.time(), source)
        self.waiters.append(waiter)
        try:
            value = await waiter.future
        except asyncio.CancelledError:
            self.withdrawn += 1
            if waiter in self.waiters:
                self.waiters.remove(waiter)
            elif not waiter.future.cancelled():
                self._place(waiter.future.result())  # handed to us as we left: the next one gets it
            raise
        return value.payload

    def wanted(self) -> int:
        """How many more values somebody waits for."""
        return sum(1 for waiter in self.waiters if not waiter.future.done())
