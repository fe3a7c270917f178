"""Call a step's function or `verify` once: on the event loop, on a thread or in another process, within its time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from ergon.errors import StepTimeout
from ergon.executor.distant import DistantStep
from ergon.executor.plainly import call_plainly
from ergon.executor.threads import NoThread, StepThreads
from ergon.flows.callables import is_async
from ergon.flows.context import step_context
from ergon.flows.step_calls import StepCall
from ergon.flows.steps import Step

if TYPE_CHECKING:
    from ergon.executor.host import Host


logger = logging.getLogger("ergon.executor")

Begins = Callable[[], None]
"""Told when a plain function begins, on any thread."""


async def call(request: StepCall, host: Host, limit: asyncio.Timeout | None = None) -> Any:
    """What the function returns. Raises what it raises, and `StepTimeout` when `limit` is over.

    `limit`: of a step that has one; it runs already for an `async def`.
    """
    step, args, kwargs = request.step, request.args, request.kwargs

    def ask(begins: Begins | None) -> Awaitable[Any]:
        if step.is_async:
            return step.function(*args, **kwargs)  # type: ignore[no-any-return]
        return call_elsewhere(step, args, kwargs, host, begins)

    return await _in_time(ask, request, host, f"step `{step.name}`: one attempt", limit)


async def call_verify(request: StepCall, host: Host) -> Any:
    """What the step's `verify` returns. Raises what it raises, and `StepTimeout`: it has the time of an attempt."""
    options, args, kwargs = request.step.options, request.args, request.kwargs
    verify = options.verify
    assert verify is not None

    async def ask(begins: Begins | None) -> Any:
        if is_async(verify):
            return await verify(*args, **kwargs)
        answer = await _call_on_thread(verify, args, kwargs, host, begins)
        return await answer if inspect.isawaitable(answer) else answer

    limit = None
    if options.timeout is not None:
        limit = asyncio.timeout(options.timeout if is_async(verify) else None)
    return await _in_time(ask, request, host, f"verify of step `{request.step.name}`", limit)


async def _in_time(
    ask: Callable[[Begins | None], Awaitable[Any]],
    request: StepCall,
    host: Host,
    what: str,
    limit: asyncio.Timeout | None,
) -> Any:
    """A plain function may have to wait for a free thread or process: its time begins when it has one."""
    seconds = request.step.options.timeout
    if seconds is None or limit is None:
        return await ask(None)
    clock = _Clock(limit, seconds, host.loop)
    try:
        async with limit, clock:
            return await ask(clock.start)
    except TimeoutError as error:
        if limit.expired():
            raise StepTimeout(f"{what} took longer than {seconds:g} s") from error
        raise


async def call_elsewhere(
    step: Step[Any, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    host: Host,
    on_begin: Begins | None = None,
) -> Any:
    """A plain function: on a thread, or in another process. `on_begin` is called when it begins, on any thread."""
    if step.options.process:
        here = step_context.get()
        assert here is not None, "only the body of a step calls its function"
        function = step.function
        by_name = (function.__module__, function.__qualname__, DistantStep.of(here), args, kwargs)
        return await asyncio.wrap_future(
            host.processes().run(call_by_name, by_name, on_begin), loop=host.loop
        )
    return await _call_on_thread(step.function, args, kwargs, host, on_begin)


async def _call_on_thread(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    host: Host,
    on_begin: Begins | None,
) -> Any:
    context = copy_context()

    def begin() -> Any:
        if not host.may_start():  # it waited for a thread, and the worker was frozen meanwhile
            return _NOT_BEGUN
        if on_begin is not None:
            on_begin()
        return context.run(call_plainly, function, args, kwargs)

    threads = host.threads()
    while True:
        future = await _handed_over(threads, begin)
        try:
            answer = await asyncio.wrap_future(future, loop=host.loop)
        except asyncio.CancelledError:
            threads.abandon(future)
            raise
        if answer is not _NOT_BEGUN:
            return answer
        await host.wait_may_start()


async def _handed_over(threads: StepThreads, begin: Callable[[], Any]) -> Future[Any]:
    """The call, taken by a thread or waiting for one. A machine that gives none now is no failure of the step."""
    told = False
    while True:
        try:
            return threads.submit(begin)
        except NoThread as error:
            if not told:
                told = True
                logger.warning("a plain function waits until this machine gives it a thread: %s", error)
            await asyncio.sleep(NO_THREAD_SECONDS)


async def call_inside_step(
    step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], host: Host
) -> Any:
    """A plain step that the body of another calls: as part of that one, and where it would run by itself.

    A body that runs a loop of its own on its thread keeps that thread. It must not wait for another of the pool, where
    all may be kept so.
    """
    if asyncio.get_running_loop() is host.loop:
        return await call_elsewhere(step, args, kwargs, host)
    if step.options.process:
        there = asyncio.run_coroutine_threadsafe(call_elsewhere(step, args, kwargs, host), host.loop)
        return await asyncio.wrap_future(there)
    return await asyncio.to_thread(call_plainly, step.function, args, kwargs)


NO_THREAD_SECONDS: Final = 1.0
"""Before a thread is asked for again."""

_NOT_BEGUN: Final = object()
"""In place of what the function returns: the lease was in doubt when its turn came."""


class _Clock:
    """Starts a time limit from another thread, while it lasts."""

    def __init__(self, limit: asyncio.Timeout, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._limit, self._seconds, self._loop = limit, seconds, loop
        self._lasts = False

    async def __aenter__(self) -> None:
        self._lasts = True

    async def __aexit__(self, *_: object) -> None:
        self._lasts = False

    def start(self) -> None:
        """Count from now on. Called once more, as when the call is run again, it counts anew."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._start, self._loop.time() + self._seconds)

    def _start(self, ends_at: float) -> None:
        if self._lasts and not self._limit.expired():
            self._limit.reschedule(ends_at)


def call_by_name(
    module: str, qualname: str, here: DistantStep, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """In a pool process: find the step's own function and call it. The name comes from this program, not from data."""
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    function = found.function if isinstance(found, Step) else found
    outside = step_context.set(here)
    try:
        return call_plainly(function, args, kwargs)
    finally:
        step_context.reset(outside)
