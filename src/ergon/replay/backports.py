"""asyncio as of Python 3.13, for flows that run on 3.11 and 3.12.

Three things behave differently there, so that a history written on one version would not replay on another:

- `wait_for` runs its awaitable in a task of its own on 3.11, and awaits it directly from 3.12 on;
- a `TaskGroup` whose child fails while the group is being left forgets, before 3.13, to take back its request to
  cancel the parent task, after which a `timeout` around it raises CancelledError instead of TimeoutError; and a
  cancellation from outside that meets an error inside was lost;
- `Condition.wait` loses, before 3.13, a notification that arrives together with a cancellation.

In flows all versions do what 3.13 does. Elsewhere they do what they always did.

One difference stays, because a task written in C offers no way to mend it: from 3.13 on `Task.uncancel()` also takes
back a cancellation that has not reached the task yet. It shows when a task is cancelled twice within one turn, by a
failing TaskGroup and by a `timeout` or `wait_for` around it that expires: before 3.13 the next await after these
raises CancelledError. And `as_completed(..., timeout=...)` arms its timer when it is called from 3.13 on, before that
when it is first iterated; a `for` over the call itself does both at once.
"""

# ruff: noqa: SLF001  # asyncio keeps what it knows in private attributes, and these versions of it do not change

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

from ergon.replay.ordering import is_flow_loop, replace


def install() -> None:
    """Replace the code of the functions above, once per process."""
    if sys.version_info < (3, 12):
        replace(asyncio.tasks.wait_for, _wait_for)
    if sys.version_info < (3, 13):
        replace(asyncio.TaskGroup.__aexit__, _leave_group)
        replace(asyncio.Condition.wait, _wait_condition)


# The new code runs in asyncio's namespace, so it names nothing but what it imports.


async def _wait_for(fut, timeout):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ASYNC109
    from ergon.replay import backports  # noqa: PLW0406

    return await backports.wait_for(fut, timeout)


async def _leave_group(self, et, exc, tb):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    from ergon.replay import backports  # noqa: PLW0406

    return await backports.leave_group(self, et, exc, tb)


async def _wait_condition(self):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    from ergon.replay import backports  # noqa: PLW0406

    return await backports.wait_condition(self)


async def wait_for(awaitable: Awaitable[Any], timeout: float | None) -> Any:  # noqa: ASYNC109
    """Await directly, under a timeout."""
    if not is_flow_loop(asyncio.get_running_loop()) or (timeout is not None and timeout <= 0):
        return await asyncio.tasks.wait_for._ergon_original(awaitable, timeout)  # type: ignore[attr-defined]
    async with asyncio.timeout(timeout):
        return await awaitable


async def leave_group(group: Any, kind: Any, error: BaseException | None, traceback: Any) -> Any:
    """`TaskGroup.__aexit__`: wait for the children, then take back the request to cancel the parent."""
    if not is_flow_loop(group._loop):
        return await asyncio.TaskGroup.__aexit__._ergon_original(group, kind, error, traceback)  # type: ignore[attr-defined]
    group._exiting = True
    if error is not None and group._is_base_error(error) and group._base_error is None:
        group._base_error = error
    was_cancelled = isinstance(error, asyncio.CancelledError)
    cancellation = error if was_cancelled else None
    if error is not None and not group._aborting:
        group._abort()
    cancellation = await _wait_for_children(group) or cancellation
    if group._base_error is not None:
        raise group._base_error
    parent = group._parent_task
    if group._parent_cancel_requested and parent.uncancel() == 0:
        cancellation = None  # it was the group's own
    if cancellation is not None and not group._errors:
        raise cancellation
    if error is not None and not was_cancelled:
        group._errors.append(error)
    if group._errors:
        if parent.cancelling():  # from outside as well: let the next await of the parent say so
            parent.uncancel()
            parent.cancel()
        errors, group._errors = group._errors, None
        raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors) from None
    return None


async def _wait_for_children(group: Any) -> asyncio.CancelledError | None:
    cancellation = None
    while group._tasks:
        if group._on_completed_fut is None:
            group._on_completed_fut = group._loop.create_future()
        try:
            await group._on_completed_fut
        except asyncio.CancelledError as error:
            if not group._aborting:
                cancellation = error
                group._abort()
        group._on_completed_fut = None
    return cancellation


async def wait_condition(condition: Any) -> bool:
    """`Condition.wait`: a waiter that was notified but leaves with an error wakes another."""
    if not is_flow_loop(asyncio.get_running_loop()) or not condition.locked():
        return await asyncio.Condition.wait._ergon_original(condition)  # type: ignore[attr-defined, no-any-return]
    notified = condition._get_loop().create_future()
    condition.release()
    try:
        try:
            condition._waiters.append(notified)
            try:
                await notified
            finally:
                condition._waiters.remove(notified)
        finally:
            await _acquire_again(condition)
    except BaseException:
        condition.notify(1)
        raise
    return True


async def _acquire_again(condition: Any) -> None:
    """Take the lock back, however often the wait for it is cancelled."""
    cancellation = None
    while True:
        try:
            await condition.acquire()
            break
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
