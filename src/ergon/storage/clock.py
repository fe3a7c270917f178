"""The two clocks a log reads: what people call the time, and what no person can set.

Stored times (created, due, ended) are wall times: they must mean the same after a restart of the machine. Leases
on one machine are compared by boot time: it counts suspended hours too, and setting the wall clock neither
expires a lease nor makes it immortal.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a log needs to know about time. Tests pass their own."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def boot(self) -> float:
        """Seconds since this machine started, the same in each of its processes."""
        ...


class SystemClock:
    """The machine's own clocks."""

    wall = staticmethod(time.time)

    def boot(self) -> float:
        return _boot()


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if not hasattr(time, "CLOCK_BOOTTIME"):
    # Where there is no such clock the monotonic one is the same in all processes, but may stand still in sleep:
    # a lease then lasts longer, never shorter, than it says.
    _boot = time.monotonic
