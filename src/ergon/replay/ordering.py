"""Keep the order in which asyncio walks its own sets repeatable.

Two places in asyncio hash objects that are not ours. `as_completed` puts bare coroutines into a set before it
makes tasks of them, and `gather` returns a future of a private class, which `wait` may put into a set. The second
gets a hash by first use on a flow loop; the first is handled here by creating the tasks in the caller's order.
Outside flows nothing changes.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Coroutine, Generator, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ergon.errors import NotAllowedInFlow

if TYPE_CHECKING:
    from ergon.replay.loop import FlowLoop
    from ergon.replay.tasks import FlowTask

_original_as_completed: Final = asyncio.as_completed
_iterator_class: Any = getattr(asyncio.tasks, "_AsCompletedIterator", None)
_SETS_OF_COROUTINES: Final = frozenset(
    code
    for code in (
        getattr(_original_as_completed, "__code__", None),
        getattr(getattr(_iterator_class, "__init__", None), "__code__", None),
    )
    if code is not None
)


def install() -> None:
    """Wrap `asyncio.as_completed` and number the futures that `gather` returns, for flow loops only."""
    if asyncio.as_completed is not _original_as_completed:
        return

    @functools.wraps(_original_as_completed)
    def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
        loop = _flow_loop()
        if loop is not None and not asyncio.isfuture(fs) and not asyncio.iscoroutine(fs):
            fs = [asyncio.ensure_future(awaitable, loop=loop) for awaitable in fs]
        return _original_as_completed(fs, timeout=timeout)

    asyncio.as_completed = as_completed  # type: ignore[assignment]
    asyncio.tasks.as_completed = as_completed  # type: ignore[assignment]
    gathering = getattr(asyncio.tasks, "_GatheringFuture", None)
    if gathering is not None:
        gathering.__hash__ = _number_of


def _flow_loop() -> FlowLoop | None:
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return loop if hasattr(loop, "next_number") else None  # type: ignore[return-value]


def _number_of(future: Any) -> int:
    """Hash of a gathering future: its number of first use on a flow loop, its address elsewhere."""
    number: int | None = future.__dict__.get("_ergon_number")
    if number is None:
        loop = future.get_loop()
        number = loop.next_number() if hasattr(loop, "next_number") else object.__hash__(future)
        future.__dict__["_ergon_number"] = number
    return number


def created_ahead(loop: FlowLoop, coro: Generator[Any, None, Any] | Coroutine[Any, Any, Any]) -> FlowTask[Any] | None:
    """The task for `coro` when the original `as_completed` (imported before Ergon) asks for it from a set.

    On its first question all tasks of that call are made in the order of the caller's sequence.
    """
    frame = _set_builder()
    if frame is None:
        return None
    made: dict[int, FlowTask[Any]] | None = loop.__dict__.get("_made_ahead")
    if made is None or id(coro) not in made:
        awaitables = frame.f_locals.get("fs", frame.f_locals.get("aws"))
        if not isinstance(awaitables, list | tuple):
            raise NotAllowedInFlow(
                "`as_completed` was given bare coroutines by an iterator, and puts them into a set whose order differs "
                "on replay. Give it a list, or call it as `asyncio.as_completed(...)`."
            )
        made = loop.__dict__["_made_ahead"] = {
            id(item): loop.spawn(item) for item in awaitables if asyncio.iscoroutine(item)
        }
    return made.pop(id(coro), None)


def _set_builder() -> FrameType | None:
    frame: FrameType | None = sys._getframe(2)  # created_ahead < create_task  # noqa: SLF001
    for _ in range(4):
        frame = frame.f_back if frame is not None else None
        if frame is None or frame.f_globals.get("__name__") != "asyncio.tasks":
            return None
        if frame.f_code in _SETS_OF_COROUTINES:
            return frame
    return None
