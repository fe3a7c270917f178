"""Wake the flow when its next timer or its deadline is due, by the log's clock and never before."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from ergon.core.history import EventKind
from ergon.executor.host import Host
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Outbox
from ergon.executor.work import Work
from ergon.replay.loop import FlowTimer
from ergon.replay.machine import FlowMachine

SLEEP_SECONDS_MAX: Final = 3_600.0
"""The host loop's clock may drift from the log's (a sleeping laptop): look again at least this often."""


class Alarm:
    """One host timer for all timers of a flow."""

    __slots__ = (
        "_deadline_at",
        "_fired",
        "_handle",
        "_host",
        "_inbox",
        "_machine",
        "_outbox",
        "_set_for",
        "_work",
    )

    def __init__(
        self,
        host: Host,
        machine: FlowMachine,
        outbox: Outbox,
        inbox: Inbox,
        work: Work,
        *,
        deadline_at: float | None,
    ) -> None:
        self._host = host
        self._machine = machine
        self._outbox = outbox
        self._inbox = inbox
        self._work = work
        self._deadline_at = deadline_at
        self._handle: asyncio.TimerHandle | None = None
        self._set_for: float | None = None
        self._fired: dict[str, None] = {}

    @property
    def due(self) -> float | None:
        """When the flow goes on by itself, or None."""
        timer = self._machine.loop.next_timer()
        due = timer.when() if timer is not None and timer.when() < math.inf else None
        deadline = self._deadline_at
        if (
            deadline is None
            or (due is not None and due <= deadline)
            or not self._inbox.hears_deadline(deadline)
        ):
            return due
        return deadline

    def pass_deadline(self) -> None:
        """Ask the flow to stop if its deadline is over: it may have passed while the flow was not in memory."""
        if self._deadline_at is not None and self._deadline_at <= self._host.now():
            self._inbox.pass_deadline(self._deadline_at)

    def set(self) -> None:
        """Match the host timer to what is due next."""
        if self._set_for is None and self._deadline_at is None and not self._machine.loop.has_timers:
            return
        if self._machine.earlier.retraces:
            self._fire_slept()
        due = self.due
        if due == self._set_for:
            return
        self.cancel()
        if due is not None:
            self._set_for = due
            delay = min(max(due - self._host.now(), 0.0), SLEEP_SECONDS_MAX)
            self._handle = self._host.loop.call_later(delay, self._ring)

    def cancel(self) -> None:
        """Ring no more."""
        self._set_for = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self.cancel()
        if self._outbox.closed or self._outbox.settled is not None:
            return
        now = self._host.now()
        self._machine.earlier.retraces = False
        for timer in self._machine.loop.take_due(now):
            if timer.op not in self._fired:
                self._record(timer, now)
        self.pass_deadline()
        self.set()
        self._work.flush()

    def _fire_slept(self) -> None:
        """Let sleeps be over that an earlier attempt slept, while this one does and awaits nothing new beside them."""
        earlier = self._machine.earlier
        if self._inbox.wants_signals():
            earlier.retraces = False
            return
        now = self._host.now()
        for timer in self._machine.loop.armed():
            if timer.op not in self._fired and earlier.slept(timer):
                self._fired[timer.op] = None
                self._record(timer, now)

    def _record(self, timer: FlowTimer, now: float) -> None:
        self._outbox.record(
            EventKind.TIMER_FIRED,
            op=timer.op,
            name=timer.name,
            digest=timer.digest,
            source=timer.source,
            at=now,
        )
