"""Threads for plain `def` steps, which no program has to wait for.

A thread cannot be cancelled. The standard library's pool joins its threads when the program ends, so one step that
hangs would keep the program for ever, long after its worker's drain deadline. The threads here are daemons: the
program ends, and the step, of which nothing is recorded, runs again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any, NamedTuple


class _Call(NamedTuple):
    future: Future[Any]
    what: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class StepThreads(Pool):
    """A pool of daemon threads, started as they are needed."""

    def __init__(self, threads_max: int | None, *, describe: Callable[[], str]) -> None:
        """`threads_max`: None for the standard library's default, cores + 4 and at most 32.

        `describe` is asked in `submit` what the call is, for `running`.
        """
        self._threads_max = threads_max if threads_max is not None else min(32, (os.cpu_count() or 1) + 4)
        self._describe = describe
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._idle = Semaphore(0)
        self._lock = Lock()
        self._threads = 0
        self._closed = False
        self._running: dict[Future[Any], str] = {}

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on one of the threads. Raises `RuntimeError` after `shutdown`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads for steps are closed")
            future: Future[Any] = Future()
            self._calls.put(_Call(future, self._describe(), function, args, kwargs))
            if not self._idle.acquire(blocking=False) and self._threads < self._threads_max:
                self._threads += 1
                Thread(target=self._work, name=f"ergon-step_{self._threads}", daemon=True).start()
            return future

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
            if call.future.set_running_or_notify_cancel():
                self._running[call.future] = call.what
                self._run(call)
            del call  # not kept until the next one comes
            self._idle.release()

    def _run(self, call: _Call) -> None:
        future = call.future
        try:
            result = call.function(*call.args, **call.kwargs)
        except BaseException as error:  # noqa: BLE001 - passed on to whoever waits
            del self._running[future]
            future.set_exception(error)
        else:
            del self._running[future]
            future.set_result(result)
