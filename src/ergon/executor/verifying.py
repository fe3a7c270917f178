"""Ask a step's `verify` whether an interrupted attempt happened, and again when it fails.

What the bank cannot say now it may say in a second, and an error of `verify` says nothing about the step: a flow that
took it for the step's own would charge again. Nothing is recorded before there is an answer, so after a crash `verify`
is asked anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from ergon.core.failure import describe
from ergon.core.retry import RetryPolicy, next_delay
from ergon.errors import StepCancelled, StepInterrupted, UsageError
from ergon.executor.calls import call_verify
from ergon.executor.failure_lines import failure_line
from ergon.executor.plainly import step_exited
from ergon.flows.step_calls import StepCall
from ergon.flows.steps import DID_NOT_HAPPEN, Happened
from ergon.replay.exits import ends_process

if TYPE_CHECKING:
    from ergon.executor.host import Host

ASK_AGAIN: Final = RetryPolicy(attempts_max=5, first_delay_seconds=0.2, factor=3.0, jitter=0.1)
"""After 0.2, 0.6, 1.8 and 5.4 s. The step's own policy is none: at_most_once excludes it."""


async def verdict(
    request: StepCall, host: Host, pause: Callable[[str, float], Coroutine[Any, Any, None]]
) -> object:
    """`DID_NOT_HAPPEN` or a `Happened`. Raises `StepInterrupted` when `verify` cannot tell.

    `pause` is awaited before it is asked again, with its failure and the seconds to wait.
    """
    asked = 0
    while True:
        asked += 1
        try:
            return _checked(request, await call_verify(request, host))
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
            failure = _own(error, request.step.name)
            if failure is None:
                raise
        delay = next_delay(ASK_AGAIN, asked, failure, host.rng)
        text = describe(failure)
        if delay is None:
            raise StepInterrupted(
                f"step `{request.step.name}` was interrupted after it started, and its verify could not tell whether "
                f"its effect happened ({'asked once' if asked == 1 else f'asked {asked} times'}): "
                f"{failure_line(text)}. at_most_once forbids a second try"
            ) from failure
        await pause(text, delay)


def _checked(request: StepCall, answer: object) -> object:
    if answer is DID_NOT_HAPPEN or isinstance(answer, Happened):
        return answer
    raise UsageError(
        f"verify of step `{request.step.name}` returned {type(answer).__name__}; return Happened(result=...) or "
        "DID_NOT_HAPPEN"
    )


def _own(error: BaseException, name: str) -> Exception | None:
    """The failure of `verify`; None when somebody else ended it."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return None
        return StepCancelled(f"verify of step `{name}` raised CancelledError, though nobody cancelled it")
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return None if ends_process(error) else step_exited(error)
    assert isinstance(error, Exception)
    return error
