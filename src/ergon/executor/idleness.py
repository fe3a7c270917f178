"""Tell whether a step body that waits durably does anything else meanwhile.

A body may wait for a signal in one task and compute in another. If its flow left memory then, the work would be cut
off and begun again. So before that, every task of the body is looked at: it must stand in a durable wait itself, or
wait for nothing but other tasks of the body. What cannot be understood counts as work: the flow stays in memory,
which costs only that. Work that no task does or awaits (a thread that nobody waits for) cannot be seen.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import Context
from types import FrameType
from typing import Any, Final

from ergon.executor.runner import rest
from ergon.flows.context import StepContext, step_context

Task = asyncio.Task[Any]


def works_beside(body: object, main: Task | None, waiting: Collection[Task | None]) -> bool:
    """True when a task of `body` does more than wait. `main` runs it; those in `waiting` stand in a durable wait."""
    own = {task for task in asyncio.all_tasks() if body_of(task) is body}
    if main is not None:
        own.add(main)
    return not all(task.done() or _only_waits(task, own, waiting) for task in own)


def _only_waits(task: Task, own: set[Task], waiting: Collection[Task | None]) -> bool:
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None or waiter.done():
        return False  # about to run
    if task in waiting:
        return True
    left = {each for each in _awaited(task, waiter) if not each.done()}
    return bool(left) and left <= own


def _awaited(task: Task, waiter: Any) -> Iterable[Any]:
    """What must be done before a task goes on; `waiter` itself when that cannot be told."""
    if isinstance(waiter, asyncio.Task):
        return [waiter]
    children = getattr(waiter, "_children", None)
    if children is not None:  # of gather
        return list(children)
    frame = _innermost(task)
    if frame is None or not frame.f_globals.get("__name__", "").startswith("asyncio."):
        return [waiter]
    ask = _WAITING_FUNCTIONS.get(frame.f_code.co_qualname)
    return ask(frame.f_locals) if ask is not None else [waiter]


_WAITING_FUNCTIONS: Final[dict[str, Callable[[Mapping[str, Any]], Iterable[Any]]]] = {
    "TaskGroup.__aexit__": lambda names: list(names["self"]._tasks),  # noqa: SLF001
    "TaskGroup._aexit": lambda names: list(names["self"]._tasks),  # noqa: SLF001  # from Python 3.13 on
    "_wait": lambda names: list(names["fs"]),
    "wait_for": lambda names: [names["fut"]],  # in Python 3.11; later it makes no task
}
"""asyncio's functions that wait for tasks through a bare future: what their variables say they wait for."""


def _innermost(task: Task) -> FrameType | None:
    frame = None
    for frame in _frames(task.get_coro()):  # noqa: B007
        pass
    return frame


def _frames(awaiting: Any) -> Iterator[FrameType]:
    while awaiting is not None:
        frame = getattr(awaiting, "cr_frame", None) or getattr(awaiting, "gi_frame", None)
        if frame is None:
            return
        yield frame
        if frame.f_code is rest.__code__:  # it sends to the body by hand
            awaiting = frame.f_locals["coroutine"]
        else:
            awaiting = getattr(awaiting, "cr_await", None) or getattr(awaiting, "gi_yieldfrom", None)


def body_of(task: Task) -> StepContext | None:
    """The step body that a task was made in, or None."""
    get_context = getattr(task, "get_context", None)
    context = get_context() if get_context is not None else _context_by_force(task)
    return context.get(step_context) if context is not None else None


def _context_by_force(task: Task) -> Context | None:
    """Before Python 3.12 a task does not give its context away; the first it refers to is its own."""
    return next((each for each in gc.get_referents(task) if type(each) is Context), None)
