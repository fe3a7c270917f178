"""Threads for plain `def` steps, which no program has to wait for.

A thread cannot be cancelled. The standard library's pool joins its threads when the program ends, so one step that
hangs would keep the program for ever, long after its worker's drain deadline. The threads here are daemons: the
program ends, and the step, of which nothing is recorded, runs again.

A call whose result nobody wants any more, as its time is over or it was cancelled, gives up its place in the pool:
another thread may be started. As many again as the pool has may do so. Past that, calls wait, and a warning says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, NamedTuple

logger = logging.getLogger("ergon.executor")

NAMED_MAX: Final = 5
"""Of more abandoned calls than this, the rest is counted."""


class _Call(NamedTuple):
    future: Future[Any]
    what: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class NoThread(RuntimeError):
    """The machine gives no thread now, for want of memory or of processes; the call was not taken."""


class StepThreads(Pool):
    """A pool of daemon threads, started as they are needed."""

    def __init__(self, threads_max: int | None, *, describe: Callable[[], str]) -> None:
        """`threads_max`: None for the standard library's default, cores + 4 and at most 32.

        `describe` is asked in `submit` what the call is, for `running`.
        """
        self._threads_max = threads_max if threads_max is not None else min(32, (os.cpu_count() or 1) + 4)
        self._describe = describe
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = Lock()
        self._threads = 0
        self._started = 0
        self._open = 0
        """Calls that wait for a thread or run on one."""
        self._closed = False
        self._running: dict[Future[Any], str] = {}
        self._abandoned: set[Future[Any]] = set()
        """Those that run though nobody wants their result."""
        self._has_warned = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on one of the threads. Raises `RuntimeError` after `shutdown`, and `NoThread`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads for steps are closed")
            future: Future[Any] = Future()
            self._open += 1
            try:
                self._start_thread()
            except NoThread:
                self._open -= 1
                raise
            self._calls.put(_Call(future, self._describe(), function, args, kwargs))
            warning = self._warning()
        if warning:
            logger.warning("%s", warning)
        return future

    def abandon(self, future: Future[Any]) -> None:
        """Nobody wants the result of a call any more: when it runs, it gives up its place to another."""
        with self._lock:
            if future not in self._running or self._closed:
                return
            self._abandoned.add(future)
            with suppress(NoThread):
                self._start_thread()
            warning = self._warning()
        if warning:
            logger.warning("%s", warning)

    def _start_thread(self) -> None:
        """Start another thread if a call waits for one and there may be more."""
        if self._threads < min(self._open, self._most()):
            try:
                Thread(target=self._work, name=f"ergon-step_{self._started + 1}", daemon=True).start()
            except RuntimeError as error:
                if self._threads <= len(self._abandoned):
                    raise NoThread(str(error)) from error
                return  # those that there are have to do
            self._threads += 1
            self._started += 1

    def _most(self) -> int:
        """How many threads there may be now."""
        return self._threads_max + min(len(self._abandoned), self._threads_max)

    def _warning(self) -> str:
        """What to tell people when calls wait behind abandoned ones: once, until the last of these has ended."""
        waiting = self._open - self._threads
        if self._has_warned or waiting <= 0 or len(self._abandoned) <= self._threads_max:
            return ""
        self._has_warned = True
        left = [self._running[future] for future in self._abandoned]
        named = ", ".join(sorted(left)[:NAMED_MAX])
        more = f", and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
        return (
            f"plain functions wait for a thread ({waiting} now), as {len(left)} still run whose result nobody wants: "
            f"they timed out or were cancelled. {named}{more}. A thread cannot be stopped: give what they wait for a "
            "time limit of its own, such as that of a socket"
        )

    def running(self) -> list[str]:
        """What the threads are doing now, as `describe` named it."""
        return list(self._running.values())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more calls, drop those that have not begun, and let the threads end when they can. Never waits."""
        with self._lock:
            self._closed = True
            while True:
                try:
                    call = self._calls.get_nowait()
                except Empty:
                    break
                if call is not None:
                    call.future.cancel()
            for _ in range(self._threads):
                self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future = call.future
            self._running[future] = call.what  # before it counts as begun: it may be abandoned from then on
            goes_on = self._run(call) if future.set_running_or_notify_cancel() else self._ended(future)
            del call, future  # not kept until the next one comes
            if not goes_on:
                return

    def _run(self, call: _Call) -> bool:
        future = call.future
        try:
            result = call.function(*call.args, **call.kwargs)
        except BaseException as error:  # noqa: BLE001 - passed on to whoever waits
            goes_on = self._ended(future)
            future.set_exception(error)
        else:
            goes_on = self._ended(future)
            future.set_result(result)
        return goes_on

    def _ended(self, future: Future[Any]) -> bool:
        """A call is over. False: its thread is one more than there may be now."""
        with self._lock:
            self._open -= 1
            del self._running[future]
            self._abandoned.discard(future)
            self._has_warned = self._has_warned and bool(self._abandoned)
            goes_on = self._threads <= self._most()
            self._threads -= not goes_on
        return goes_on
