"""Take a flow's tasks out of memory without leaving any to the garbage collector.

The collector would close their coroutines at a random moment, on a random thread, running `finally` blocks in no
loop at all. So they are cancelled here, in rounds: a task that awaits something while it cleans up will wait for ever
(nothing is durable any more) and is cancelled again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from ergon.errors import NotAllowedInFlow
from ergon.replay.loop import FlowLoop

ROUNDS_MAX: Final = 100
"""How often a task that resists cancellation is cancelled again before its coroutine is closed."""

ROUND_CALLBACKS_MIN: Final = 1_000
"""A round runs this many callbacks at most, and 20 for each task: a task may spin when it is cancelled."""

_immortal: Final[list[Coroutine[Any, Any, Any]]] = []
"""Coroutines that refuse even to be closed. Kept, so that the garbage collector does not try."""


def evict(loop: FlowLoop) -> None:
    """End every task of a loop that has been entered and whose machine is muted."""
    for _ in range(ROUNDS_MAX):
        _run(loop)
        if not loop.tasks:
            return
        for task in list(loop.tasks.values()):
            task.cancel()
    _run(loop)
    for task in list(loop.tasks.values()):
        _close(task)
    loop.tasks.clear()
    loop.clear_ready()


def _run(loop: FlowLoop) -> None:
    # It may spin, or want the process to end: either way it is being stopped.
    with suppress(NotAllowedInFlow, SystemExit):
        loop.run_until_quiet(ROUND_CALLBACKS_MIN + 20 * len(loop.tasks))


def _close(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  # it is accounted for
    coroutine = task.get_coro()
    assert isinstance(coroutine, Coroutine)
    for _ in range(ROUNDS_MAX):
        try:
            coroutine.close()
        except RuntimeError:
            continue  # it awaited something on its way out
        except BaseException:  # noqa: BLE001  # whatever its cleanup raises, nobody is there to see it
            return
        else:
            return
    _immortal.append(coroutine)
