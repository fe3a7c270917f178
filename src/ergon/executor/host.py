"""What a flow in memory needs from whoever runs it: a log, a loop, threads, and leave to start work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from ergon.executor import watchdog
from ergon.executor.runner import BodyRunner
from ergon.flows.context import step_context
from ergon.storage.log import ExecutionLog

if TYPE_CHECKING:
    from ergon.executor.body import StepBody

logger = logging.getLogger("ergon.executor")


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
        self.loop = asyncio.get_running_loop()
        self.may_start = may_start
        """False while the right to run steps is in doubt: the lease may have expired."""
        self.draining = False
        """True once the worker is shutting down: no new step starts, flows are let go where they stand."""
        self.rng = rng if rng is not None else random.Random()  # jitter only
        self.runner = BodyRunner(self.loop)
        self._threads_max = threads_max
        self._threads: ThreadPoolExecutor | None = None
        self._processes: Pool | None = None
        self._unwatch = watchdog.watch()

    def threads(self) -> Pool:
        """The pool that plain `def` steps run on."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._threads_max, thread_name_prefix="ergon-step")
        return self._threads

    def processes(self) -> Pool:
        """The pool that `process=True` steps run on."""
        if self._processes is None:
            from ergon.executor.processes import ProcessSteps  # few programs need it

            self._processes = ProcessSteps(may_start=self.wait_may_start, at_most_once=_in_at_most_once_step)
        return self._processes

    async def sleep_until(self, at: float, hurry: asyncio.Event | None = None) -> None:
        """Wait until the log's clock shows `at`, or `hurry` is set."""
        hurry = hurry if hurry is not None else asyncio.Event()
        while (left := at - self.log.now()) > 0 and not hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 3_600.0)):
                    await hurry.wait()

    async def wait_may_start(self) -> None:
        """Hold work back while the lease is in doubt."""
        while not self.may_start():  # noqa: ASYNC110 - the lease gives no event
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Let the pools go; a thread that still runs a step is not waited for."""
        self._unwatch()
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def on_flow_error(self, flow_id: str, context: dict[str, Any]) -> None:
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
