"""Make asyncio's own functions walk their sets in a repeatable order.

asyncio keeps tasks in sets. Tasks are hashed by number (`tasks.py`), which settles most walks; what is left is
here, for code that runs on a flow loop. Elsewhere these functions do what they always did.

- `as_completed` puts bare coroutines, hashed by address, into a set before it makes tasks of them. In flows it is
  given tasks, made in the caller's order, when it is called.
- `all_tasks` fills its set from one that is shared by all loops, and a set's order depends on that too.
- the future that `gather` returns has a private class; it is hashed by its first child.
- a future made by calling `asyncio.Future` has no number: `wait`, `as_completed` and sets of gathered ones refuse it.

What is replaced is the functions' code, not their names, so that `from asyncio import as_completed` made before
Ergon was imported works the same. `backports.py` does likewise for what differs between versions of Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from ergon.errors import NotAllowedInFlow

if TYPE_CHECKING:
    from ergon.replay.loop import FlowLoop


def install() -> None:
    """Replace the code of the functions above, once per process."""
    replace(asyncio.tasks.as_completed, _as_completed)
    replace(asyncio.tasks.wait, _wait)
    if isinstance(
        asyncio.tasks.all_tasks, FunctionType
    ):  # from 3.14 on it is written in C, and walks in order
        replace(asyncio.tasks.all_tasks, _all_tasks)
    _gathering.__hash__ = _hash_of_gathering


# The new code runs in asyncio's namespace, so it names nothing but what it imports.


def _as_completed(fs, *, timeout=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    from ergon.replay import ordering  # noqa: PLW0406

    return ordering.as_completed(fs, timeout)


async def _wait(fs, *, timeout=None, return_when="ALL_COMPLETED"):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ASYNC109
    from ergon.replay import ordering  # noqa: PLW0406

    return await ordering.wait(fs, timeout, return_when)


def _all_tasks(loop=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    from ergon.replay import ordering  # noqa: PLW0406

    return ordering.all_tasks(loop)


def replace(function: Any, replacement: Callable[..., Any]) -> None:
    """Give a function other code, for all who hold it; what it was is kept as its attribute `_ergon_original`."""
    if hasattr(function, _ORIGINAL):
        return
    original = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    original.__kwdefaults__ = function.__kwdefaults__
    setattr(function, _ORIGINAL, original)
    function.__code__ = replacement.__code__


_ORIGINAL: Final = "_ergon_original"
_gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # noqa: SLF001


# -- what they do in flows ---------------------------------------------------------------------------------


def as_completed(fs: Any, timeout: float | None) -> Any:
    """Make the tasks in the caller's order before the original sees them."""
    loop = _flow_loop()
    if loop is not None and not asyncio.isfuture(fs) and not isinstance(fs, Coroutine):
        fs = _tasks_of(loop, fs)
    return asyncio.tasks.as_completed._ergon_original(fs, timeout=timeout)  # type: ignore[attr-defined]  # noqa: SLF001


def wait(fs: Any, timeout: float | None, return_when: str) -> Any:
    """Refuse futures that have no number before the original sees them."""
    if _flow_loop() is not None and not asyncio.isfuture(fs) and not isinstance(fs, Coroutine):
        fs = list(fs)
        for future in fs:
            _check_numbered(future, "asyncio.wait")
    return asyncio.tasks.wait._ergon_original(fs, timeout=timeout, return_when=return_when)  # type: ignore[attr-defined]  # noqa: SLF001


def _check_numbered(future: Any, what: str) -> None:
    kind: Any = type(future)
    if kind.__hash__ is object.__hash__ and asyncio.isfuture(future):
        made, instead = (
            ("Task", "create_task(...)")
            if isinstance(future, asyncio.Task)
            else ("Future", "create_future()")
        )
        raise NotAllowedInFlow(
            f"`{what}` was given what `asyncio.{made}(...)` made. Sets keep it by its address and would be walked "
            f"in another order on each replay. Make it with `asyncio.get_running_loop().{instead}`"
        )


def _tasks_of(loop: FlowLoop, awaitables: Iterable[Any]) -> list[asyncio.Future[Any]]:
    in_no_order = isinstance(awaitables, set | frozenset)
    tasks: dict[int, asyncio.Future[Any]] = {}
    given = list(awaitables)  # keeps each alive, so that ids stay distinct
    for awaitable in given:
        if in_no_order and not asyncio.isfuture(awaitable):
            raise NotAllowedInFlow(
                "`as_completed` was given a set of coroutines, whose order differs on replay. Give it a list."
            )
        _check_numbered(awaitable, "asyncio.as_completed")
        if id(awaitable) not in tasks:
            tasks[id(awaitable)] = asyncio.ensure_future(awaitable, loop=loop)
    return list(tasks.values())


def all_tasks(loop: asyncio.AbstractEventLoop | None) -> set[asyncio.Task[Any]]:
    """The tasks of a flow loop, put into the set in the order they were made."""
    found = loop if loop is not None else asyncio.get_running_loop()
    if is_flow_loop(found):
        return {task for task in list(found.tasks.values()) if not task.done()}  # type: ignore[attr-defined]
    return asyncio.tasks.all_tasks._ergon_original(found)  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def _hash_of_gathering(future: Any) -> int:
    children = future._children  # noqa: SLF001
    if not children or not is_flow_loop(future.get_loop()):
        return object.__hash__(future)
    _check_numbered(children[0], "asyncio.gather")
    return hash(children[0]) ^ (1 << 31)


def _flow_loop() -> FlowLoop | None:
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return loop if is_flow_loop(loop) else None  # type: ignore[return-value]


def is_flow_loop(loop: object) -> bool:
    """True for the loop of a flow."""
    return hasattr(loop, "next_future_number")
