"""Run step bodies on as few tasks as possible.

A task costs more than a short step. Bodies that are ready stand in one queue; one task runs them one after the
other, each in a context of its own, and stays with the first one that waits for something. Before it waits, it
makes a new task for the rest of the queue. So bodies that never wait share a task, and a body that waits has one to
itself from then on: `asyncio.timeout`, task groups and cancellation inside a body work as in any task.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Protocol

logger = logging.getLogger("ergon.executor")


class Body(Protocol):
    """Something to run in the background that can be cancelled."""

    task: asyncio.Task[None] | None
    """The task that runs it, once it waits for something."""

    dropped: bool
    """Nobody wants its outcome any more."""

    def work(self) -> Coroutine[Any, Any, None]:
        """What to run."""


class BodyRunner:
    """The bodies of one host that are ready to run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[Body] = deque()
        self._scheduled = False

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
        self._loop.create_task(self._run(), name="ergon-steps")

    async def _run(self) -> None:
        ready = self._ready
        while ready:
            body = ready.popleft()
            context = copy_context()
            try:
                waited = await _drive(body.work(), context, self._leave_queue, body)
            except Exception:  # a body handles its own errors, so this is a defect of ours: the others go on
                logger.exception("a step body ended by an error that it should have recorded")
                waited = body.task is not None
            if waited:
                return  # this task has been the body's own; the queue has another by now
        self._scheduled = False

    def _leave_queue(self, body: Body) -> None:
        """`body` waits for something: the task is its own from now on."""
        body.task = task = asyncio.current_task()
        assert task is not None
        if body.dropped:
            task.cancel()
        if self._ready:
            self._schedule()
        else:
            self._scheduled = False


@types.coroutine
def _drive(
    coroutine: Coroutine[Any, Any, None], context: Context, on_wait: Callable[[Any], None], body: Body
) -> Generator[Any, Any, bool]:
    """Run a coroutine to its end in `context`; returns whether it ever waited."""
    try:
        awaited = context.run(coroutine.send, None)
    except StopIteration:
        return False
    on_wait(body)
    while True:
        try:
            try:
                answer = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on to the body, cancellation included
                awaited = context.run(coroutine.throw, error)
            else:
                awaited = context.run(coroutine.send, answer)
        except StopIteration:
            return True
