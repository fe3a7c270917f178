"""Report a flow or step that computes or blocks without awaiting: nothing else on its event loop runs meanwhile.

One thread for the process looks a few times a second at the stack of each thread that runs flows. It finds there
which turn of which flow is under way, or the body of which step, and when that is the same for too long, it says so
with the stack. Turns and bodies do nothing for it. It runs while a `Host` is open, and a little longer.

A flow counts its turns. The body of a step has many stretches between its awaits, and nothing counts them: so while
one is seen, the thread asks the event loop for a sign of life, and until that comes it is the same stretch.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ergon.executor import keeper
from ergon.executor.idleness import body_of

if TYPE_CHECKING:
    from ergon.executor.body import StepBody
    from ergon.executor.run import FlowRun

logger: Final = logging.getLogger("ergon.executor")

SLOW_TURN_SECONDS: Final = 0.5
"""A turn that takes longer is reported, and again each time it has taken four times as long; the body of a step
again when it has taken as long as the worker's lease lasts."""

LOOK_SECONDS: Final = 0.1
LINGER_SECONDS: Final = 5.0

_RUN: Final = str(Path(__file__).with_name("run.py"))
_TURNS: Final = frozenset({"_revive", "answered", "landed"})
"""The methods of `FlowRun` inside which flow code runs."""
_RUNNER: Final = str(Path(__file__).with_name("runner.py"))
_BODIES: Final = frozenset({"_run", "_stay_with"})
"""The methods of `BodyRunner` inside which step bodies run, up to their first await and after it."""
_EVENTS: Final = str(Path(asyncio.events.__file__))
_ERGON: Final = str(Path(__file__).parents[1]) + os.sep


class Turn(NamedTuple):
    """One turn of one flow in memory, or one stretch of a step's body without an await."""

    flow_id: str
    run: int
    """Tells it from a run of the same id before, or in another log; likewise a body."""
    number: int
    step: str = ""
    """The name of the step; empty for a turn of the flow itself."""


class TurnClock:
    """How long the turn that is under way on one thread has taken, as far as looking now and then can tell."""

    def __init__(self) -> None:
        self._turn: Turn | None = None
        self._looked_at = 0.0
        self._seconds = 0.0
        self._report_at = 0.0

    def see(self, turn: Turn | None, now: float, lease: float | None = None) -> float | None:
        """Note what is under way now; returns how many seconds it has taken when that is to be reported.

        lease: how long the lease lasts that the event loop should renew; only for the body of a step.
        """
        passed, self._looked_at = now - self._looked_at, now
        if turn is None or turn != self._turn:
            self._turn, self._seconds, self._report_at = turn, 0.0, SLOW_TURN_SECONDS
            return None
        # No more than that: the whole process may have been frozen.
        self._seconds += min(passed, 2 * LOOK_SECONDS)
        if self._seconds < self._report_at:
            return None
        self._report_at = lease if lease is not None and self._seconds < lease else 4 * self._seconds
        return self._seconds


class SignOfLife:
    """Whether the event loop of one thread has gone round since somebody last looked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.count = 0
        """How many signs it has given."""
        self._asked = False

    def ask(self) -> None:
        """Ask for the next sign, unless one is still due."""
        if not self._asked:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self.loop.call_soon_threadsafe(self._give)

    def _give(self) -> None:
        self.count += 1
        self._asked = False


class Watchdog:
    """The thread that looks, and which threads it looks at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: Counter[int] = Counter()
        self._signs: dict[int, SignOfLife] = {}
        self._thread: threading.Thread | None = None

    def watch(self) -> Callable[[], None]:
        """Look at the calling thread and its event loop from now on; returns how to stop."""
        ident, loop = threading.get_ident(), asyncio.get_running_loop()
        with self._lock:
            self._watched[ident] += 1
            sign = self._signs.get(ident)
            if sign is None or sign.loop is not loop:
                self._signs[ident] = SignOfLife(loop)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="ergon-watchdog", daemon=True)
            if self._thread.ident is None:
                # When the loop comes round: before any flow runs, while whoever begins waits for the log anyway.
                loop.call_soon(self._start)
        stopped = False

        def stop() -> None:
            nonlocal stopped
            with self._lock:
                if not stopped:
                    stopped = True
                    self._watched[ident] -= 1
                    self._watched += Counter()  # drops what has come to nothing
                    if ident not in self._watched:
                        self._signs.pop(ident, None)

        return stop

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or self._thread.ident is not None:
                return  # another loop has come round first
            try:
                self._thread.start()
            except RuntimeError as error:  # too many threads; the next one that begins tries again
                self._thread = None
                logger.warning("what blocks an event loop is not reported: %s", error)

    def _look_on(self) -> None:
        clocks: dict[int, TurnClock] = {}
        needed_at = time.monotonic()
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                watched = {ident: self._signs[ident] for ident in self._watched}
                if watched:
                    needed_at = now
                elif now - needed_at > LINGER_SECONDS:
                    self._thread = None
                    return
            clocks = {ident: clocks.get(ident) or TurnClock() for ident in watched}
            try:
                self._look(clocks, watched, now)
            except Exception:
                logger.exception("the watchdog could not look at the event loops")

    def _look(self, clocks: dict[int, TurnClock], signs: dict[int, SignOfLife], now: float) -> None:
        frames = _current_frames()
        # Our own frame holds this dict: with it there, what the others' frames hold would wait for the collector.
        frames.pop(threading.get_ident(), None)
        for ident, clock in clocks.items():
            frame = frames.get(ident)
            found = (_turn_in(frame) or _body_in(frame, signs[ident])) if frame is not None else None
            lease = None
            if found is not None and found[0].step:
                signs[ident].ask()
                lease = keeper.shortest(ident)
            seconds = clock.see(found[0] if found is not None else None, now, lease)
            if seconds is not None and frame is not None and found is not None:
                turn, outermost = found
                _report(turn, seconds, lease, _stack(frame, outermost))


def _current_frames() -> dict[int, FrameType]:
    """`sys._current_frames`, without the collector.

    It holds a lock of the interpreter that starting a thread takes too. Before Python 3.12 the collector may run while
    it makes frames, and run Python code, which gives way to another thread: to one that holds the interpreter and waits
    for that lock, for ever.
    """
    if not _COLLECTS_ANYWHERE or not gc.isenabled():
        return sys._current_frames()  # noqa: SLF001 - documented, and the only way
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001
    finally:
        gc.enable()


_COLLECTS_ANYWHERE: Final = sys.version_info < (3, 12)


def _report(turn: Turn, seconds: float, lease: float | None, stack: str) -> None:
    if not turn.step:
        logger.warning(
            "flow %s has kept its event loop for %.1f s without awaiting, and nothing else runs there meanwhile: no "
            "other flow, no step, no timer. Move what takes long into a step; a plain `def` step runs on a thread. It "
            "is at:\n%s",
            turn.flow_id,
            seconds,
            stack,
        )
        return
    logger.warning(
        "step `%s` of flow %s has kept its event loop for %.1f s without awaiting, and nothing else runs there "
        "meanwhile: no flow, no other step, no timer%s. Make it a plain `def` step, which runs on a thread, or on a "
        "core of its own with process=True; or await what blocks through `asyncio.to_thread`. It is at:\n%s",
        turn.step,
        turn.flow_id,
        seconds,
        f". That is longer than its worker's lease of {lease:g} s, which only a thread renews now"
        if lease is not None and seconds >= lease
        else "",
        stack,
    )


def _turn_in(frame: FrameType) -> tuple[Turn, FrameType | None] | None:
    """The flow's turn that a stack is in, and the frame where it begins."""
    place: FrameType | None = frame
    while place is not None:
        code = place.f_code
        if code.co_name in _TURNS and code.co_filename == _RUN:
            run: FlowRun = place.f_locals["self"]
            return Turn(run.flow_id, id(run), run.work.turns), place
        place = place.f_back
    return None


def _body_in(frame: FrameType, sign: SignOfLife) -> tuple[Turn, FrameType | None] | None:
    """The stretch of a step's body that a stack is in, and the frame where it begins."""
    place: FrameType | None = frame
    while place is not None:
        code = place.f_code
        if code.co_filename == _RUNNER and code.co_name in _BODIES:
            return _stretch(place.f_locals.get("body"), sign, place)
        if code.co_filename == _EVENTS:
            break  # one turn of the event loop: a task that the body has made, or none of ours
        place = place.f_back
    task = asyncio.current_task(sign.loop)
    return _stretch(body_of(task), sign, place) if task is not None else None


def _stretch(
    found: Any, sign: SignOfLife, outermost: FrameType | None
) -> tuple[Turn, FrameType | None] | None:
    if found is None:
        return None
    body = cast("StepBody", found)
    return Turn(body.flow_id, id(body), sign.count, body.op.name), outermost


def _stack(frame: FrameType, outermost: FrameType | None) -> str:
    """The stack as a traceback shows it, from the flow's or step's own code on."""
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
    """Report what blocks the event loop of the calling thread from now on; returns how to stop."""
    return _watchdog.watch()


def _in_child() -> None:
    """After a fork there is no such thread, and its lock may be held for ever."""
    global _watchdog  # noqa: PLW0603 - one for the process
    _watchdog = Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
