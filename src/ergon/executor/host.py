"""What a flow in memory needs from whoever runs it: a log, a loop, threads, and leave to start work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, cast

from ergon.executor import watchdog
from ergon.executor.refusals import Refusals
from ergon.executor.runner import BodyRunner
from ergon.executor.threads import StepThreads
from ergon.flows.context import step_context
from ergon.storage.log import ExecutionLog

if TYPE_CHECKING:
    from ergon.executor.body import StepBody
    from ergon.executor.processes import ProcessSteps

logger = logging.getLogger("ergon.executor")

NAMED_MAX: Final = 10
"""More steps than this that are left behind are counted, not named."""


class Host:
    """One per worker or executor, shared by its flows."""

    def __init__(
        self,
        log: ExecutionLog,
        *,
        may_start: Callable[[], bool] = lambda: True,
        threads_max: int | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.log = log
        # Bound once for all flows, which ask for both all the time.
        self.now = log.now
        self.submit = log.submit
        self.loop = asyncio.get_running_loop()
        self.may_start = may_start
        """False while the right to run steps is in doubt: the lease may have expired."""
        self.draining = False
        """True once the worker is shutting down: no new step starts, flows are let go where they stand."""
        self.program_ends = False
        """True once somebody has cancelled the worker's own tasks: then steps were cancelled with them."""
        self.rng = rng if rng is not None else random.Random()  # jitter only
        self.refusals = Refusals()
        self.runner = BodyRunner(self.loop)
        self._threads_max = threads_max
        self._threads: StepThreads | None = None
        self._processes: ProcessSteps | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._unwatch = watchdog.watch()

    def threads(self) -> StepThreads:
        """The pool that plain `def` steps run on."""
        if self._threads is None:
            self._threads = StepThreads(self._threads_max, describe=_step_here)
        return self._threads

    def processes(self) -> ProcessSteps:
        """The pool that `process=True` steps run on."""
        if self._processes is None:
            from ergon.executor.processes import ProcessSteps  # few programs need it

            self._processes = ProcessSteps(
                may_start=self.wait_may_start, at_most_once=_in_at_most_once_step, describe=_step_here
            )
        return self._processes

    async def sleep_until(self, at: float, hurry: asyncio.Event | None = None) -> None:
        """Wait until the log's clock shows `at`, or `hurry` is set."""
        hurry = hurry if hurry is not None else asyncio.Event()
        while (left := at - self.now()) > 0 and not hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    # In no step's context: what a body sets itself is told from this, see `idleness.py`.
                    Context().run(limit.reschedule, self.loop.time() + min(left, 3_600.0))
                    await hurry.wait()

    async def wait_may_start(self) -> None:
        """Hold work back while the lease is in doubt."""
        while not self.may_start():  # noqa: ASYNC110 - the lease gives no event
            await asyncio.sleep(0.05)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no flow waits for."""
        task = self.loop.create_task(work, name="ergon-background")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def finish_background(self) -> None:
        """Wait until what was begun in the background is done."""
        while self._background:
            await asyncio.wait(self._background)

    async def wait_elsewhere(self, until: float) -> None:
        """Wait for plain functions that still run though nobody wants their result, until a time of the host loop."""
        while self._elsewhere() and self.loop.time() < until:  # noqa: ASYNC110 - threads give no event
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Let the pools go and say what they leave behind: threads run on, processes are ended."""
        self._unwatch()
        left = self._elsewhere()
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        if left:
            more = f", and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
            logger.warning(
                "%d plain functions still run and are abandoned, the program need not wait for them: %s%s. What they "
                "return is not recorded; a step that is still open runs again",
                len(left),
                ", ".join(left[:NAMED_MAX]),
                more,
            )

    def _elsewhere(self) -> list[str]:
        """The plain functions that run on threads and in processes."""
        return [
            what for pool in (self._threads, self._processes) if pool is not None for what in pool.running()
        ]


def tell_flow_error(flow_id: str, context: dict[str, Any]) -> None:
    """A callback or a forgotten task of a flow raised: nobody else will say so."""
    logger.error(
        "flow %s: %s",
        flow_id,
        context.get("message", "error in a callback"),
        exc_info=context.get("exception"),
    )


def _in_at_most_once_step() -> bool:
    body = cast("StepBody | None", step_context.get())
    return body is not None and body.op.request.step.options.at_most_once


def _step_here() -> str:
    """The step whose body is running, for people."""
    body = cast("StepBody | None", step_context.get())
    return f"step `{body.op.name}` of flow {body.flow_id}" if body is not None else "a call of no step"
