"""Close the async generators that a flow leaves unfinished, such as by `break`, where that can be repeated.

The interpreter asks one pair of hooks per thread what to do with a generator that nobody holds any more; these stand in
front of the host loop's own and pass on what is not a flow's. One that the flow's own code lets go of, in its turn, is
closed on the flow's loop, as asyncio does: reference counts are the same on each replay. One that the garbage collector
finds, at a random moment and perhaps on another thread, is left as it is, and a warning says so: flow code must not run
there. When a flow leaves memory, its generators are let go of without a word.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from typing import Any, Final

from ergon.replay.loop import FlowLoop

logger = logging.getLogger("ergon.replay")

_REMEMBERED_MAX: Final = 1_000
"""Finished generators are forgotten when more than this are remembered."""

_collecting: set[int] = set()
"""The threads on which the garbage collector runs."""
_told: set[str] = set()


class _Hooks:
    """The hooks of one thread while one host loop runs."""

    def __init__(self, first: Any, last: Any) -> None:
        self._first, self._last = first, last
        self._of_flows: dict[int, tuple[weakref.ref[Any], weakref.ref[FlowLoop]]] = {}

    def first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        """A generator begins: note whose it is."""
        loop = asyncio._get_running_loop()  # noqa: SLF001
        if type(loop) is FlowLoop:
            if len(self._of_flows) > _REMEMBERED_MAX:
                self._of_flows = {key: refs for key, refs in self._of_flows.items() if refs[0]() is not None}
            self._of_flows[id(generator)] = weakref.ref(generator), weakref.ref(loop)
            return
        self._of_flows.pop(id(generator), None)
        if self._first is not None:
            self._first(generator)

    def finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Nobody holds a generator any more that is not finished."""
        known = self._of_flows.pop(id(generator), None)
        if known is None:
            if self._last is not None:
                self._last(generator)
            return
        loop = known[1]()
        machine = loop.machine if loop is not None else None
        if loop is None or machine is None or machine.muted:
            return  # the flow is leaving memory, or has
        if asyncio._get_running_loop() is loop and threading.get_ident() not in _collecting:  # noqa: SLF001
            loop.call_soon(loop.create_task, generator.aclose())
        else:
            _tell(generator, machine.flow_id)


def stand_in_front() -> None:
    """Put the hooks in place for the running host loop; once is enough, and again does nothing."""
    first, last = sys.get_asyncgen_hooks()
    if isinstance(getattr(first, "__self__", None), _Hooks):
        return
    hooks = _Hooks(first, last)
    sys.set_asyncgen_hooks(firstiter=hooks.first_iteration, finalizer=hooks.finalize)
    if _note_collector not in gc.callbacks:
        gc.callbacks.append(_note_collector)


def _note_collector(phase: str, _: dict[str, int]) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())
    else:
        _collecting.discard(threading.get_ident())


def _tell(generator: Any, flow_id: str) -> None:
    code = generator.ag_code
    place = f"`{generator.__name__}` ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"
    if place in _told:
        return
    if len(_told) > _REMEMBERED_MAX:
        _told.clear()
    _told.add(place)
    logger.warning(
        "flow %s left the async generator %s before its end, and something held it until the garbage collector came, "
        "where no code of a flow can run: its `finally` blocks did not. Write `async with contextlib.aclosing(...)`",
        flow_id,
        place,
    )
