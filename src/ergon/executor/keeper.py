"""Keep the leases of a process that lives while an event loop of it is blocked.

Each incarnation renews its own lease on its event loop. When a renewal is late, because a step body computes or
blocks there without awaiting, one thread for the process asks the log for it instead. Threads stop with their
process: one that is stopped, killed or cut off from its log loses its leases as if there were no such thread. So
does one that holds the interpreter's lock all the time, as a faulty extension module may.

The thread only lengthens a lease that is in the log. It never says that work may start: that is for the event loop
to find out by a renewal of its own (`Incarnation.may_start`). It writes no log message, since whatever blocks the
loop may hold a lock of the logging module.

What a crash leaves behind: before the renewal landed, the lease as it was; after it, a longer one. Nobody was told
of either, and nothing depends on which: the dead process is noticed as any other is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

LATE_PART: Final = 0.5
"""A renewal is late when so much of the lease has passed since the last one. The event loop's come twice as often."""
REPEAT_PART: Final = 0.25
"""How much of the lease lies between two renewals by the thread."""
LINGER_SECONDS: Final = 5.0


class KeptLease:
    """One lease, as the thread sees it. Made on the event loop that renews it, with when it was last renewed."""

    def __init__(self, renew: Callable[[], None], seconds: float, renewed_at: float) -> None:
        self.seconds = seconds
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self._renew = renew
        self._renewed_at = renewed_at
        self._asked_at = float("-inf")

    def renewed(self, at: float) -> None:
        """The event loop has renewed it; `at` is from before it asked."""
        self._renewed_at = at

    @property
    def due_at(self) -> float:
        """When the thread is to act, unless the event loop does before."""
        return max(
            self._renewed_at + self.seconds * LATE_PART,
            self._asked_at + self.seconds * REPEAT_PART,
        )

    def renew(self) -> None:
        """Ask for a renewal from the thread; not when the loop does not run any more, since nobody works there."""
        self._asked_at = time.monotonic()
        if self.loop.is_running():
            with contextlib.suppress(Exception):  # the loop's own renewal tells what is wrong
                self._renew()


class LeaseKeeper:
    """The thread, and the leases it looks after."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._leases: list[KeptLease] = []
        self._thread: threading.Thread | None = None

    def keep(self, lease: KeptLease) -> None:
        """Look after `lease` from now on."""
        with self._changed:
            self._leases.append(lease)
            self._begin()
            self._changed.notify()

    def expect(self) -> None:
        """Be ready: a lease is being asked for."""
        # Where there are too many threads, `keep` tries again and says so.
        with self._changed, contextlib.suppress(RuntimeError):
            self._begin()

    def forget(self, lease: KeptLease) -> None:
        """Ask for no renewal of it any more. One that was asked for before may still reach the log."""
        with self._changed:
            if lease in self._leases:
                self._leases.remove(lease)

    def shortest(self, thread: int) -> float | None:
        """How long the shortest lease lasts that is renewed by the event loop of a thread; None when there is none."""
        with self._changed:
            return min((lease.seconds for lease in self._leases if lease.thread == thread), default=None)

    def _begin(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._look_on, name="ergon-leases", daemon=True)
            thread.start()
            self._thread = thread

    def _look_on(self) -> None:
        needed_at = time.monotonic()
        while True:
            with self._changed:
                now = time.monotonic()
                self._leases = [lease for lease in self._leases if not lease.loop.is_closed()]
                if self._leases:
                    needed_at = now
                elif now - needed_at >= LINGER_SECONDS:
                    self._thread = None
                    return
                late = [lease for lease in self._leases if lease.due_at <= now]
                if not late:
                    next_at = min(
                        (lease.due_at for lease in self._leases), default=needed_at + LINGER_SECONDS
                    )
                    self._changed.wait(max(next_at - now, 0.001))
                    continue
            for lease in late:
                lease.renew()


_keeper = LeaseKeeper()


def keep(lease: KeptLease) -> None:
    """Look after `lease` from now on."""
    _keeper.keep(lease)


def expect() -> None:
    """Be ready to look after a lease that is being asked for: starting the thread takes a moment."""
    _keeper.expect()


def forget(lease: KeptLease) -> None:
    """Ask for no renewal of it any more."""
    _keeper.forget(lease)


def shortest(thread: int) -> float | None:
    """How long the shortest lease lasts that is renewed by the event loop of a thread; None when there is none."""
    return _keeper.shortest(thread)


def _in_child() -> None:
    """After a fork there is no such thread, its lock may be held for ever, and the leases are the parent's."""
    global _keeper  # noqa: PLW0603 - one for the process
    _keeper = LeaseKeeper()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
