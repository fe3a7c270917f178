"""Tell whether a step body that waits durably does anything else meanwhile, or has set itself a time limit.

A body may wait for a signal in one task and compute in another. If its flow left memory then, the work would be cut
off and begun again. So before that, every task of the body is looked at: it must stand in a durable wait itself, or
wait for nothing but other tasks of the body. What cannot be understood counts as work: the flow stays in memory,
which costs only that. Work that no task does or awaits (a thread that nobody waits for) cannot be seen.

A limit is a timer of the event loop that was set in the context of the body and leads to one of its tasks, or to what
one waits for: `asyncio.timeout`, `wait_for`, `wait(timeout=)`, `call_later(60, task.cancel)`, and what libraries make
of these. It ends with its task and nobody would set it again, so its flow stays as well (decision 0032). Other timers,
such as one by which an HTTP client will close its connections, are no reason to stay. Timers are looked for only when
a flow might leave, as is what its tasks do, and once for all flows that might: see `Look`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

from ergon.executor.runner import rest
from ergon.flows.context import StepContext, step_context

Task = asyncio.Task[Any]


_REACH: Final = 5
"""How far a timer may stand from the task that it interrupts: method, object, its dict, a set in it, the task."""
_REACHED_MAX: Final = 1_000
"""A timer that leads to more than this is not understood."""
_NOT_ENTERED: Final = (type, ModuleType, CodeType, Context, asyncio.AbstractEventLoop, asyncio.Future)
"""What leads everywhere, or is no part of what sets a timer."""


class Look:
    """What the present event loop runs and is to run, by step body. It holds until any of that has had a turn.

    Going through all tasks takes milliseconds where there are thousands, so flows that may leave together share one.
    """

    def __init__(self) -> None:
        self._tasks: dict[object, set[Task]] | None = None
        self._timers: dict[object, list[asyncio.TimerHandle]] | None = None

    def tasks(self, body: object) -> set[Task]:
        """Those that were made in the context of `body` and are not done."""
        if self._tasks is None:
            self._tasks = {}
            for task in asyncio.all_tasks():
                self._tasks.setdefault(body_of(task), set()).add(task)
        return self._tasks.get(body, set())

    def timers(self, body: object) -> Sequence[asyncio.TimerHandle]:
        """Those that were set in the context of `body`, other than by Ergon. None on a loop that does not tell them."""
        if self._timers is None:
            self._timers = {}
            for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()):
                if not timer.cancelled() and not _is_ours(timer):
                    self._timers.setdefault(timer._context.get(step_context), []).append(timer)  # noqa: SLF001
        return self._timers.get(body, ())


def works_beside(body: object, main: Task | None, waiting: Collection[Task | None], look: Look) -> bool:
    """True when a task of `body` does more than wait. `main` runs it; those in `waiting` stand in a durable wait."""
    own = _own_tasks(body, main, look)
    return not all(_only_waits(task, own, waiting) for task in own)


def has_limits(body: object, main: Task | None, look: Look, *, but: object) -> bool:
    """True when a timer will interrupt a task of `body`, other than that of the limit `but`."""
    timers = [timer for timer in look.timers(body) if getattr(_callback(timer), "__self__", timer) is not but]
    if not timers:
        return False
    own = _own_tasks(body, main, look)
    ends = {*map(id, own), *(id(getattr(task, "_fut_waiter", None)) for task in own)} - {id(None)}
    return any(_leads_to(timer, ends) for timer in timers)


def _own_tasks(body: object, main: Task | None, look: Look) -> set[Task]:
    own = look.tasks(body)
    return own | {main} if main is not None and not main.done() else own


def _leads_to(timer: asyncio.TimerHandle, ends: Collection[int]) -> bool:
    """True when what the timer calls, or hands on, leads to an object whose id is among `ends`; or far and wide."""
    layer: list[Any] = [_callback(timer), *(timer._args or ())]  # noqa: SLF001
    for _ in range(_REACH):
        if any(id(each) in ends for each in layer):
            return True
        entered = [each for each in layer if not issubclass(type(each), _NOT_ENTERED)]
        layer = gc.get_referents(*(_reaches(each) for each in entered))
        if len(layer) > _REACHED_MAX:
            return True
    return False


def _reaches(each: Any) -> Any:
    # All of a function but its module.
    return (each.__closure__, each.__defaults__, each.__kwdefaults__) if type(each) is FunctionType else each


def _is_ours(timer: asyncio.TimerHandle) -> bool:
    """True for those of a flow, such as its alarm, which it may set when its body asks for something."""
    return str(getattr(_callback(timer), "__module__", "")).startswith("ergon.")


def _callback(timer: asyncio.TimerHandle) -> Any:
    return timer._callback  # type: ignore[attr-defined]  # noqa: SLF001


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
