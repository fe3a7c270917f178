"""Leave the unfinished async generators of flows alone.

The host loop closes an async generator that nobody finished when the garbage collector finds it. For one that flow
code began, that would run flow code at a random moment, on the host loop. The interpreter asks one pair of hooks per
thread; these stand in front of the host loop's own and pass on what is not a flow's.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncGenerator
from typing import Any, Final

from ergon.replay.loop import FlowLoop

_REMEMBERED_MAX: Final = 1_000
"""Finished generators are forgotten when more than this are remembered."""


class _Hooks:
    """The hooks of one thread while one host loop runs."""

    def __init__(self, first: Any, last: Any) -> None:
        self._first, self._last = first, last
        self._of_flows: dict[int, weakref.ref[Any]] = {}

    def first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        """A generator begins: note whose it is."""
        if type(asyncio._get_running_loop()) is FlowLoop:  # noqa: SLF001
            if len(self._of_flows) > _REMEMBERED_MAX:
                self._of_flows = {key: ref for key, ref in self._of_flows.items() if ref() is not None}
            self._of_flows[id(generator)] = weakref.ref(generator)
            return
        self._of_flows.pop(id(generator), None)
        if self._first is not None:
            self._first(generator)

    def finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The collector found a generator that is not finished."""
        if self._of_flows.pop(id(generator), None) is None and self._last is not None:
            self._last(generator)


def stand_in_front() -> None:
    """Put the hooks in place for the running host loop; once is enough, and again does nothing."""
    first, last = sys.get_asyncgen_hooks()
    if isinstance(getattr(first, "__self__", None), _Hooks):
        return
    hooks = _Hooks(first, last)
    sys.set_asyncgen_hooks(firstiter=hooks.first_iteration, finalizer=hooks.finalize)
