"""Run step bodies on as few tasks as possible.

A task costs more than a short step. Bodies that are ready stand in one queue; one task runs them one after the
other, each in a context of its own, and stays with the first one that waits for something. Before it waits, it
makes a new task for the rest of the queue. So bodies that never wait share a task, and a body that waits has one to
itself from then on: `asyncio.timeout`, task groups and cancellation inside a body work as in any task.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final, Protocol

LOOP_ENDS_SECONDS: Final = 1.0
"""A loop that still runs this long after a body was cancelled was not ending."""


class Body(Protocol):
    """Something to run in the background that can be cancelled."""

    task: asyncio.Task[Any] | None
    """The task that runs it, once it waits for something."""
    dropped: bool
    """Nobody wants its outcome any more."""

    def begin(self) -> Coroutine[Any, Any, Any]:
        """What to run."""
        ...

    def returned(self, result: Any) -> None:
        """It returned."""
        ...

    def given_up(self) -> None:
        """It will not begin: the loop is ending."""
        ...

    def cancelled(self, error: asyncio.CancelledError) -> None:
        """Somebody else cancelled its task a while ago, and the loop is there still."""
        ...

    def raised(self, error: BaseException) -> None:
        """It raised; what this raises goes on to the host's loop."""
        ...


class BodyRunner:
    """The bodies of one host that are ready to run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = copy_context()
        """What bodies see of context variables: what was set where the worker was started, whoever asks for a step."""
        self._ready: deque[Body] = deque()
        self._scheduled = False
        self._coming: asyncio.Task[None] | None = None
        """The task that is to run the queue, until it begins."""
        self._running = False
        self._afterwards: list[Callable[[], None]] = []

    @property
    def goes_on(self) -> bool:
        """True while a body runs, or tells what it came to, and others are run before the event loop goes on."""
        return self._running and bool(self._ready)

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call it before the event loop goes on, when no more bodies run. It must not raise."""
        self._afterwards.append(call)

    def start(self, body: Body) -> None:
        """Run `body` soon, after those that were started before."""
        self._ready.append(body)
        if not self._scheduled:
            self._schedule()

    def cancel(self, body: Body) -> None:
        """Cancel `body` where it waits; take it out of the queue when it has not begun."""
        if body.task is not None:
            body.task.cancel()
        elif body in self._ready:
            self._ready.remove(body)

    def _schedule(self) -> None:
        self._scheduled = True
        task = self._loop.create_task(self._run(), name="ergon-steps", context=self._context.copy())
        self._coming = task
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._coming is task:  # cancelled before it began: the loop is ending, and the queue with it
            self._scheduled, self._coming = False, None
            left = list(self._ready)
            self._ready.clear()
            for body in left:
                body.given_up()
        error = None if task.cancelled() else task.exception()
        # An exit has reached whoever runs the loop: nobody need be told that no task awaited it. Defects are told.
        if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt):
            self._loop.call_exception_handler({"message": "a step's task failed", "exception": error})

    async def _run(self) -> None:
        ready = self._ready
        task = asyncio.current_task()
        assert task is not None
        self._coming, self._running = None, True
        try:
            while ready:
                body = ready.popleft()
                context = copy_context()
                try:
                    coroutine = context.run(body.begin)
                    awaited = context.run(coroutine.send, None)
                except StopIteration as stop:
                    body.returned(stop.value)
                except BaseException as error:  # noqa: BLE001 - step boundary: user code may raise anything
                    body.raised(error)
                else:
                    rest_of_it = rest(coroutine, awaited, context)
                    break
                if task.cancelling():  # the body cancelled its own task: that must not reach the next one
                    return
            else:
                return
        finally:
            # Whatever ended this task, the rest of the queue gets another.
            self._scheduled = self._running = False
            if self._afterwards:
                calls, self._afterwards = self._afterwards, []
                for call in calls:
                    call()
            if ready and not self._scheduled:
                self._schedule()
        await self._stay_with(task, body, rest_of_it)

    async def _stay_with(self, task: asyncio.Task[Any], body: Body, rest_of_it: Awaitable[Any]) -> None:
        """`body` waits for something: this task is its own from now on."""
        body.task = task
        if body.dropped:
            task.cancel()
        try:
            result = await rest_of_it
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and task.cancelling() and not body.dropped:
                # Somebody else cancelled the task: the whole loop is ending, and the step stays open; or it is not.
                self._loop.call_later(LOOP_ENDS_SECONDS, body.cancelled, error)
                raise
            body.raised(error)
        else:
            body.returned(result)


@types.coroutine
def rest(coroutine: Coroutine[Any, Any, Any], awaited: Any, context: Context) -> Generator[Any, Any, Any]:
    """The rest of a coroutine that waits for `awaited`, run in `context`."""
    try:
        while True:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on to the body, cancellation included
                awaited = context.run(coroutine.throw, error)
            else:
                awaited = context.run(coroutine.send, answer)
    except StopIteration as stop:
        return stop.value
