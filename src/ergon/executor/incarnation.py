"""One incarnation of a worker: registered, renewed while it lives, retired at the end.

The lease is a row in the log with a time on the log's clock. Beside it stands a deadline on this process's own
clock that passes earlier: when renewing fails or the process was frozen, no new step starts after it.

While the event loop is blocked a thread renews the row (`keeper.py`). It does not move the deadline, so nothing starts
when the loop goes on until a renewal of the loop's own has shown that the lease is still there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Protocol, Self

from ergon.core.commit import WorkerRecord
from ergon.errors import LeaseLost, LogClosed, LogTooNew, StoreError
from ergon.executor import keeper
from ergon.storage.log import ExecutionLog
from ergon.storage.process import this_process

logger = logging.getLogger("ergon.worker")

RENEWALS_PER_LEASE: Final = 4
LOOK_SECONDS: Final = 0.3
"""How often to look whether a flow stands still, so that the log can say what it does; the lease is renewed with it."""
LOOK_PART: Final = 100.0
"""Looking takes at most one part in so many of the time, however many flows there are."""
SAFE_PART: Final = 0.8
"""Steps start only in this part of the lease, counted from before it was asked for."""


class Renewable(Protocol):
    """A flow in memory, as far as its lease is concerned."""

    flow_id: str

    def abort(self, why: str) -> None:
        """Forget the flow; write nothing."""


class Doing(Protocol):
    """What the flows do that stand still, so that the log can say it."""

    def look(self) -> dict[str, str]:
        """What to write down now, by flow id."""
        ...

    def landed(self, told: Iterable[str]) -> None:
        """What the last look gave for these flows is written down."""


class Incarnation:
    """The right to own flows. Use as `async with`."""

    def __init__(
        self,
        log: ExecutionLog,
        name: str,
        flows: tuple[str, ...],
        lease_seconds: float,
        *,
        queues: tuple[str, ...] = ("default",),
        versions: tuple[str, ...] | None = None,
        tags: tuple[str, ...] = (),
        on_lost: Callable[[], None] | None = None,
        doing: Doing | None = None,
    ) -> None:
        self.id = f"{name}#{os.urandom(6).hex()}"
        self.lost = False
        self._log = log
        self._name, self._flows, self._queues, self._versions = name, flows, queues, versions
        self._tags = tags
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._doing = doing
        self._look_seconds = LOOK_SECONDS
        self._runs: list[Renewable] = []
        self._safe_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._kept: keeper.KeptLease | None = None

    async def __aenter__(self) -> Self:
        await self.register()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.retire()

    def attach(self, run: Renewable) -> None:
        """Abort `run` when the lease is lost."""
        self._runs.append(run)

    def may_start(self) -> bool:
        """True while the lease surely holds."""
        return not self.lost and time.monotonic() < self._safe_until

    async def register(self) -> None:
        """Become alive."""
        process = this_process()
        asked_at = time.monotonic()
        record = WorkerRecord(
            id=self.id,
            name=self._name,
            host=process.host,
            pid=process.pid,
            process_start=process.process_start,
            boot_id=process.boot_id,
            flows=self._flows,
            queues=self._queues,
            versions=self._versions,
            tags=self._tags,
        )
        asyncio.get_running_loop().call_soon(keeper.expect)  # while the log writes
        await self._log.register(record, lease_seconds=self._lease_seconds)
        self._safe_until = asked_at + self._lease_seconds * SAFE_PART
        self._kept = keeper.KeptLease(
            functools.partial(self._log.keep_alive, self.id, lease_seconds=self._lease_seconds),
            self._lease_seconds,
            asked_at,
        )
        keeper.keep(self._kept)
        self._task = asyncio.create_task(self._keep(), name=f"ergon-lease-{self._name}")

    async def retire(self) -> None:
        """Stop renewing and give everything back."""
        self._unkeep()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if not self.lost:
            try:
                await self._log.retire(self.id)
            except LogClosed:
                pass
            except StoreError as error:
                logger.warning(
                    "worker %s could not retire (%s); its lease will expire by itself", self._name, error
                )

    def abandon(self) -> None:
        """Stop renewing at once: the lease runs out by itself, unless `retire` gives it back before."""
        self._unkeep()
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        """Renew until cancelled, or until the log says that this incarnation is dead."""
        try:
            await self._renew_again_and_again()
        finally:
            self._unkeep()  # whatever ended it: from now on the lease runs out unless it is given back

    def _unkeep(self) -> None:
        if self._kept is not None:
            keeper.forget(self._kept)
            self._kept = None

    async def _renew_again_and_again(self) -> None:
        every = self._lease_seconds / RENEWALS_PER_LEASE
        due = time.monotonic() + every
        looks = self._doing is not None
        failing = False
        while True:
            left = max(due - time.monotonic(), 0.0)
            await asyncio.sleep(min(left, self._look_seconds) if looks else left)
            asked_at = time.monotonic()
            told = self._told()
            if not told and asked_at < due:
                continue
            due = asked_at + every
            try:
                await self._log.renew(self.id, lease_seconds=self._lease_seconds, doing=told)
            except (LeaseLost, LogTooNew) as error:  # neither will be otherwise later
                self._lose(str(error))
                return
            except StoreError as error:
                looks = False  # no oftener than the lease needs it, until the log takes something again
                left = self._safe_until - time.monotonic()
                failing = True
                logger.warning(
                    "worker %s could not renew its lease (%s); %s", self._name, error, _how_long(left)
                )
            except Exception:  # a defect of the log's: nobody else would renew, nor notice that nobody does
                looks, failing = False, True
                logger.exception("worker %s could not renew its lease", self._name)
            else:
                self._safe_until = asked_at + self._lease_seconds * SAFE_PART
                if failing:
                    failing = False
                    logger.info("worker %s renewed its lease again and goes on", self._name)
                if self._kept is not None:
                    self._kept.renewed(asked_at)
                if self._doing is not None:
                    looks = True
                    self._doing.landed(told or ())

    def _told(self) -> dict[str, str] | None:
        """What the flows do, for whoever asks. Renewing must not depend on it."""
        if self._doing is None:
            return None
        began = time.perf_counter()
        try:
            return self._doing.look()
        except Exception:
            logger.exception("worker %s could not say what its flows do", self._name)
            return None
        finally:
            self._look_seconds = max(LOOK_SECONDS, (time.perf_counter() - began) * LOOK_PART)

    def _lose(self, why: str) -> None:
        self.lost = True
        logger.error(
            "worker %s lost its lease (%s): it was frozen or cut off for longer than %g s, or the log is not for its "
            "version any more. Its flows go on elsewhere",
            self._name,
            why,
            self._lease_seconds,
        )
        for run in self._runs:
            run.abort("its worker's lease was lost")
        if self._on_lost is not None:
            self._on_lost()


def _how_long(left: float) -> str:
    if left > 0:
        return f"it starts nothing new unless it can within {left:.1f} s"
    return "it starts nothing new until it can"
