"""Tasks and futures whose order and names are the same on every replay.

asyncio keeps tasks in sets, hashed by address; `wait`, `as_completed` and a `TaskGroup` that aborts walk those
sets. Hashing by creation number makes the walk repeatable. A task's path (`0/2/1`: first child of the second
child of the root) is given when it is created, so the ids of its operations do not depend on other branches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from ergon.replay.loop import FlowLoop

T = TypeVar("T")


class _Counters(Protocol):
    """A path, and how many of each kind it has given out.

    Programs set attributes of their own on tasks, so these have names that nobody else would choose.
    """

    ergon_path: str
    ergon_children: int
    ergon_operations: int
    ergon_timers: int


class _Numbering:
    """Where operations get their ids. Each task is such a place, as an object beside it would be one more to make."""

    __slots__ = ()

    def next_child(self: _Counters) -> str:
        """The path of a task created in this scope."""
        self.ergon_children += 1
        return f"{self.ergon_path}/{self.ergon_children}"

    def next_operation(self: _Counters) -> str:
        """The id of the next step, child flow or wait."""
        self.ergon_operations += 1
        return f"{self.ergon_path}:{self.ergon_operations}"

    def next_lone_operation(self: _Counters) -> str:
        """The id of the first operation in the scope of a new task, where no such task is needed."""
        self.ergon_children += 1
        return f"{self.ergon_path}/{self.ergon_children}:1"

    def next_timer(self: _Counters) -> str:
        """The id of the next timer; apart from operations, so that a timeout added around a step moves no id."""
        self.ergon_timers += 1
        return f"{self.ergon_path}:t{self.ergon_timers}"


class CallbackScope(_Numbering):
    """The scope of what callbacks ask for, outside of any task."""

    __slots__ = ("ergon_children", "ergon_operations", "ergon_path", "ergon_timers")

    def __init__(self) -> None:
        self.ergon_path = "cb"
        self.ergon_children = self.ergon_operations = self.ergon_timers = 0


class FlowFuture(asyncio.Future[T]):
    """A future hashed by number, which it gets when it is first put into a set.

    Only few ever are, and how many futures asyncio makes for itself differs between versions of Python.
    """

    _loop: FlowLoop  # pyright: ignore[reportIncompatibleMethodOverride]
    _number = 0

    def __hash__(self) -> int:
        if not self._number:
            self._number = self._loop.next_future_number()
        return self._number


class FlowTask(_Numbering, asyncio.Task[T]):
    """A task hashed by its creation number, and the scope its operations are named in."""

    __slots__ = (
        "ergon_children",
        "ergon_number",
        "ergon_operations",
        "ergon_path",
        "ergon_timers",
    )

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: FlowLoop,
        path: str,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> None:
        # Before the base class, which schedules the first step through the loop, or even takes it.
        self.ergon_number = loop.next_task_number()
        self.ergon_path = path
        self.ergon_children = self.ergon_operations = self.ergon_timers = 0
        super().__init__(coro, loop=loop, name=name or f"flow-task-{path}", context=context, **options)

    def __hash__(self) -> int:
        return self.ergon_number


Scope = FlowTask[Any] | CallbackScope
"""Where an operation gets its id."""
