"""Tasks and futures whose order and names are the same on every replay.

asyncio keeps tasks in sets, hashed by address; `wait`, `as_completed` and a `TaskGroup` that aborts walk those
sets. Hashing by creation number makes the walk repeatable. A task's path (`0/2/1`: first child of the second
child of the root) is given when it is created, so the ids of its operations do not depend on other branches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ergon.replay.loop import FlowLoop

T = TypeVar("T")


class Scope:
    """Where the operations of one task get their ids: a path and three counters."""

    __slots__ = ("children", "operations", "path", "timers")

    def __init__(self, path: str) -> None:
        self.path = path
        self.children = 0
        self.operations = 0
        self.timers = 0

    def next_child(self) -> Scope:
        """The scope of a task created in this one."""
        self.children += 1
        return Scope(f"{self.path}/{self.children}")

    def next_operation(self) -> str:
        """The id of the next step, child flow or wait."""
        self.operations += 1
        return f"{self.path}:{self.operations}"

    def next_lone_operation(self) -> str:
        """The id of the first operation in the scope of a new task, where no such task is needed."""
        self.children += 1
        return f"{self.path}/{self.children}:1"

    def next_timer(self) -> str:
        """The id of the next timer; apart from operations, so that a timeout added around a step moves no id."""
        self.timers += 1
        return f"{self.path}:t{self.timers}"


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


class FlowTask(asyncio.Task[T]):
    """A task hashed by its creation number, with the scope its operations are named in."""

    __slots__ = (
        "number",
        "scope",
    )

    def __init__(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: FlowLoop,
        scope: Scope,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> None:
        # Before the base class, which schedules the first step through the loop, or even takes it.
        self.number = loop.next_task_number()
        self.scope = scope
        super().__init__(coro, loop=loop, name=name or f"flow-task-{scope.path}", context=context, **options)

    def __hash__(self) -> int:
        return self.number
