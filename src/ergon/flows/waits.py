"""Durable waits: signals from outside and named timers. `asyncio.sleep` and `asyncio.timeout` are timers too."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, overload

from ergon.core.codec import MISSING, decoder_for
from ergon.core.names import check_name
from ergon.errors import DecodingError, NotInFlow, UsageError
from ergon.flows.context import awaiting_place, current_machine, step_context
from ergon.replay.loop import FlowLoop, FlowTimer

T = TypeVar("T")


@overload
async def wait_signal(name: str, type: type[T], /) -> T: ...
@overload
async def wait_signal(name: str, /) -> Any: ...
async def wait_signal(name: str, type: Any = MISSING, /) -> Any:
    """Wait for the next signal called `name` and return its value, decoded as `type` (default: plain JSON).

    Signals of one name come in the order they were sent; one that was sent before the flow waits is kept. For a
    time limit put `async with asyncio.timeout(seconds):` around it. Works in steps too, where the wait is recorded
    under the step. Raises `NotInFlow` outside a flow or a step, and `DecodingError` when the value does not fit. It is
    taken then: catch the error and wait again for the next; a retry of the flow takes the same value again.
    """
    check_name("signal name", name)
    machine = current_machine()
    if machine is not None:
        text = await machine.wait_signal(name, awaiting_place())
    else:
        context = step_context.get()
        if context is None:
            raise NotInFlow("wait_signal works only inside a flow or a step.")
        text = await context.wait_signal(name)
    try:
        return decoder_for(type).decode(text)
    except DecodingError as error:
        fault = str(error).replace("the stored value does not fit the declared type: ", "")
        raise DecodingError(
            f"the value of signal `{name}` does not fit what the flow waits for: {fault}. Catch DecodingError and wait "
            "again: a retry takes the same value again",
            path=error.path,
        ) from None


await_external_signal = wait_signal
"""The same under the name the Rust library uses."""


async def schedule_timer(seconds: float) -> None:
    """Wait for `seconds`, across restarts. The same as `asyncio.sleep` in a flow; works in steps too.

    Raises `NotInFlow` elsewhere, and `UsageError` for less than 0 seconds.
    """
    await schedule_timer_named(seconds, "")


async def schedule_timer_named(seconds: float, name: str) -> None:
    """Wait for `seconds`, across restarts, under a name that `ergon why` and `ergon show` tell.

    Raises `NotInFlow` outside a flow or a step, and `UsageError` for less than 0 seconds.
    """
    if not seconds >= 0:
        raise UsageError(f"a timer of {seconds!r} seconds: give 0 or more")
    if name:
        check_name("timer name", name)
    loop = asyncio.get_running_loop()
    if type(loop) is FlowLoop:
        await _sleep(loop, seconds, name)
        return
    context = step_context.get()
    if context is None:
        raise NotInFlow("schedule_timer works only inside a flow or a step; elsewhere use asyncio.sleep.")
    await context.wait_timer(seconds, name)


async def _sleep(loop: FlowLoop, seconds: float, name: str) -> None:
    future = loop.create_future()
    timer: FlowTimer = loop.call_later(seconds, _wake, future)
    timer.name = name
    timer.sleeps = True
    try:
        await future
    finally:
        timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
