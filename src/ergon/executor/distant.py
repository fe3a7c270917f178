"""What a `process=True` step may ask for where it runs: who it is. The log and its flow are in the worker's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from ergon.errors import UsageError
from ergon.executor.plainly import call_plainly
from ergon.flows.context import StepContext
from ergon.flows.steps import Step


@dataclass(frozen=True, slots=True)
class DistantStep:
    """A `StepContext` that goes to another process of this machine as it is."""

    flow_id: str
    idempotency_key: str
    attempt: int
    ahead: float
    """Seconds by which the log's clock is ahead of this machine's."""

    @classmethod
    def of(cls, step: StepContext) -> Self:
        """The step that runs here, to be told there."""
        return cls(step.flow_id, step.idempotency_key, step.attempt, step.now() - time.time())

    def now(self) -> float:
        """The log's clock, as far as it was known when the step was handed over."""
        return time.time() + self.ahead

    def wait_timer(self, seconds: float, name: str) -> Coroutine[Any, Any, None]:
        """Refused."""
        _refuse("wait for a timer")

    def wait_signal(self, name: str) -> Coroutine[Any, Any, str]:
        """Refused."""
        _refuse("wait for a signal")

    def start_child(self, request: Any) -> tuple[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """Refused."""
        _refuse("start a child flow")

    def call_plain(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """On a thread of this process: the worker's threads and its other processes are not to be had from here."""
        return asyncio.to_thread(call_plainly, step.function, args, kwargs)


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"a step with process=True runs in another process than its flow and cannot {what}: do that in the flow, or in "
        "an `async def` step"
    )
