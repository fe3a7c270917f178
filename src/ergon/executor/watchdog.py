"""Report a flow that computes or blocks without awaiting: nothing else on its event loop runs meanwhile.

One thread for the process looks a few times a second at the stack of each thread that runs flows. It finds there
which turn of which flow is under way, and when that is the same for too long, it says so with the flow's stack. The
turns themselves do nothing for it. It runs while a `Host` is open, and a little longer.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ergon.executor.run import FlowRun

logger: Final = logging.getLogger("ergon.executor")

SLOW_TURN_SECONDS: Final = 0.5
"""A turn that takes longer is reported, and again each time it has taken four times as long."""

LOOK_SECONDS: Final = 0.1
LINGER_SECONDS: Final = 5.0

_RUN: Final = str(Path(__file__).with_name("run.py"))
_TURNS: Final = frozenset({"_revive", "_landed"})
"""The methods of `FlowRun` inside which flow code runs."""
_ERGON: Final = str(Path(__file__).parents[1]) + os.sep


class Turn(NamedTuple):
    """One turn of one flow in memory."""

    flow_id: str
    run: int
    """Tells it from a run of the same id before, or in another log."""
    number: int


class TurnClock:
    """How long the turn that is under way on one thread has taken, as far as looking now and then can tell."""

    def __init__(self) -> None:
        self._turn: Turn | None = None
        self._looked_at = 0.0
        self._seconds = 0.0
        self._report_at = 0.0

    def see(self, turn: Turn | None, now: float) -> float | None:
        """Note what is under way now; returns how many seconds it has taken when that is to be reported."""
        passed, self._looked_at = now - self._looked_at, now
        if turn is None or turn != self._turn:
            self._turn, self._seconds, self._report_at = turn, 0.0, SLOW_TURN_SECONDS
            return None
        # No more than that: the whole process may have been frozen.
        self._seconds += min(passed, 2 * LOOK_SECONDS)
        if self._seconds < self._report_at:
            return None
        self._report_at = 4 * self._seconds
        return self._seconds


class Watchdog:
    """The thread that looks, and which threads it looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: Counter[int] = Counter()
        self._thread: threading.Thread | None = None

    def watch(self) -> Callable[[], None]:
        """Look at the calling thread from now on; returns how to stop."""
        ident = threading.get_ident()
        with self._lock:
            self._watched[ident] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="ergon-watchdog", daemon=True)
                self._thread.start()
        stopped = False

        def stop() -> None:
            nonlocal stopped
            with self._lock:
                if not stopped:
                    stopped = True
                    self._watched[ident] -= 1
                    self._watched += Counter()  # drops what has come to nothing

        return stop

    def _look_on(self) -> None:
        clocks: dict[int, TurnClock] = {}
        needed_at = time.monotonic()
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                watched = list(self._watched)
                if watched:
                    needed_at = now
                elif now - needed_at > LINGER_SECONDS:
                    self._thread = None
                    return
            clocks = {ident: clocks.get(ident) or TurnClock() for ident in watched}
            try:
                self._look(clocks, now)
            except Exception:
                logger.exception("the watchdog could not look at the flows' turns")

    def _look(self, clocks: dict[int, TurnClock], now: float) -> None:
        frames = sys._current_frames()  # noqa: SLF001 - documented, and the only way
        for ident, clock in clocks.items():
            frame = frames.get(ident)
            found = _turn_in(frame) if frame is not None else None
            seconds = clock.see(found[0] if found is not None else None, now)
            if seconds is not None and frame is not None and found is not None:
                turn, outermost = found
                logger.warning(
                    "flow %s has kept its event loop for %.1f s without awaiting, and nothing else runs there "
                    "meanwhile: no other flow, no renewal of the worker's lease. Move what takes long into a step; a "
                    "plain `def` step runs on a thread. It is at:\n%s",
                    turn.flow_id,
                    seconds,
                    _stack(frame, outermost),
                )


def _turn_in(frame: FrameType) -> tuple[Turn, FrameType] | None:
    """The flow's turn that a stack is in, and the frame where it begins."""
    place: FrameType | None = frame
    while place is not None:
        code = place.f_code
        if code.co_name in _TURNS and code.co_filename == _RUN:
            run: FlowRun = place.f_locals["self"]
            return Turn(run.flow_id, id(run), run.work.turns), place
        place = place.f_back
    return None


def _stack(frame: FrameType, outermost: FrameType) -> str:
    """The stack as a traceback shows it, from the flow's own code on."""
    frames: list[FrameType] = []
    place: FrameType | None = frame
    while place is not None and place is not outermost:
        frames.append(place)
        place = place.f_back
    frames.reverse()
    first = next((index for index, each in enumerate(frames) if not _is_inside(each.f_code.co_filename)), 0)
    lines = traceback.StackSummary.extract((each, each.f_lineno) for each in frames[first:])
    return "".join(lines.format()).rstrip("\n")


def _is_inside(file: str) -> bool:
    return file.startswith((_ERGON, "<")) or f"{os.sep}asyncio{os.sep}" in file


_watchdog = Watchdog()


def watch() -> Callable[[], None]:
    """Report slow turns of flows on the calling thread from now on; returns how to stop."""
    return _watchdog.watch()


def _in_child() -> None:
    """After a fork there is no such thread, and its lock may be held for ever."""
    global _watchdog  # noqa: PLW0603 - one for the process
    _watchdog = Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
