"""Bring flows in: as soon as there is one and room for it, never more than fit.

A claim, or an eager start, whose answer is lost (the log cannot say whether it landed) leaves flows with an owner that
does not run them. So after one that failed, and now and then besides, the claimer gives back what it owns and does not
know of. It claims nothing meanwhile, flows that are being created keep it from looking, and none is created as its own
while it looks: so nothing is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final

from ergon.core.commit import ClaimRequest, Hint
from ergon.storage.log import ExecutionLog
from ergon.worker.residents import Residents

CLAIM_BATCH_MAX: Final = 256
"""Flows taken by one claim: enough to fill a group commit, few enough that other workers get their share."""

NEW_LOG_SECONDS: Final = 0.02
"""How long a worker lets be whatever others may have put into a log that was just made here: its first flow has the
time."""

_AT_ONCE: Final = -math.inf

OVERDUE_SECONDS: Final = 0.05
"""How often to look while a flow is due that this worker may not take; one that it may take can stand behind it."""


class Claimer:
    """Claims for one incarnation."""

    def __init__(
        self,
        log: ExecutionLog,
        residents: Residents,
        request: ClaimRequest,
        *,
        poll_seconds: float,
        disown_seconds: float,
        enable_timers: bool,
    ) -> None:
        """`disown_seconds`: how often to look for flows that this worker owns and does not know of."""
        self._log = log
        self._residents = residents
        self._request = request
        self._poll_seconds = poll_seconds
        self._disown_seconds = disown_seconds
        self._disown_at = asyncio.get_running_loop().time() + disown_seconds
        self._disowns = False
        self._enable_timers = enable_timers
        self._something = asyncio.Event()
        self._wake_at: float | None = None
        self._is_full = False
        """True while something may be ready that there was no room for."""
        self._is_new = log.is_new
        self._left_nothing = self._is_new
        self.looked = asyncio.Event()
        """Set when the first look has brought its first flows, or is over, or need not be waited for."""
        if self._is_new:
            self.looked.set()

    def on_hint(self, hint: Hint) -> None:
        """Look sooner."""
        earlier = (
            not self._is_full
            and hint.wake_at is not None
            and (self._wake_at is None or hint.wake_at < self._wake_at)
        )
        if hint.ready or hint.elsewhere or earlier:
            self._something.set()

    def look(self) -> None:
        """A flow left. If there was no room, there may be more to claim than was taken."""
        if self._is_full:
            self._something.set()

    def stop(self) -> None:
        """It looks no more: whoever waits for its first look is to go on."""
        self.looked.set()

    @property
    def has_nothing_to_claim(self) -> bool:
        """True while the last look that is over left nothing in the log, and no flow is given back, or about to be.

        One that is created meanwhile as this worker's own would be one that it does not know of.
        """
        return self._left_nothing and not self._disowns and self._disown_at > _AT_ONCE

    def disown_soon(self) -> None:
        """A write that gives this worker flows has failed, and may have landed."""
        self._disown_at = _AT_ONCE
        self._something.set()

    async def tick(self) -> None:
        """Claim until nothing is ready or no room is left; then wait for a hint, a wake time, or the poll."""
        if self._is_new:
            self._is_new = False
            await self._hear(NEW_LOG_SECONDS)
        self._something.clear()
        self._is_full = False
        now = asyncio.get_running_loop().time()
        if now >= self._disown_at and not self._residents.expects_new:
            await self._disown()
            self._disown_at = now + self._disown_seconds
        try:
            await self._claim()
            self._left_nothing = not self._is_full
        except Exception:
            self._disown_at, self._left_nothing = _AT_ONCE, False  # it may have landed
            raise
        finally:
            self.looked.set()
        await self._wait()

    async def _disown(self) -> None:
        self._disowns = True
        try:
            await self._residents.disown_unknown()
        finally:
            self._disowns = False

    async def _claim(self) -> None:
        while (room := self._room()) > 0:
            request = ClaimRequest(
                worker=self._request.worker,
                names=self._request.names,
                queues=self._request.queues,
                versions=self._request.versions,
                tags=self._request.tags,
                timeouts=self._request.timeouts,
                limit=min(room, CLAIM_BATCH_MAX),
                claims_stalled_max=self._request.claims_stalled_max,
                due=self._enable_timers,
            )
            with self._residents.reserving(request.limit):
                claimed = await self._log.claim(request)
                self.looked.set()
                for flow in claimed:
                    self._residents.adopt(flow)
            if len(claimed) < request.limit:
                break
            self._left_nothing = False
        else:
            self._is_full = True

    def _room(self) -> int:
        room = self._residents.room
        if room <= 0:
            self._residents.make_room(CLAIM_BATCH_MAX)
            room = self._residents.room
        return room

    async def _wait(self) -> None:
        # A full worker has no use for a flow that is due: it looks again when one leaves.
        looks = self._enable_timers and not self._is_full
        wake_before = self._wake_at
        self._wake_at = await self._log.next_wake(self._request.names) if looks else None
        timeout = self._poll_seconds
        if self._wake_at is not None:
            left = self._wake_at - self._log.now()
            # Due at the last look already, and still there: it is for another queue or version, or has other tags.
            least = OVERDUE_SECONDS if self._wake_at == wake_before else 0.0
            timeout = min(timeout, max(left, least))
        await self._hear(timeout)

    async def _hear(self, seconds: float) -> None:
        """Wait for a hint, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._something.wait()
