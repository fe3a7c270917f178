"""Where `process=True` steps run: one pool for all of them, and a process of its own for a call whose process died.

No more calls are handed to the pool than it has processes: one that was handed over has begun, and so has its time
limit; the others wait here.

A process that dies (out of memory, a crash in C code) takes every call of its pool with it, and nobody can say whose
fault it was. The pool is replaced, and each of these calls is run again by itself: the one that kills its process
again and again fails then, the others do not.

A terminal's Ctrl-C, and a service manager's SIGTERM, go to these processes as to the worker's. They take no notice:
the worker drains, and they run their steps to the end. They end with the worker's process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from concurrent.futures import Executor as Pool
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from typing import Any, Final

from ergon.core.file_modules import find_in, imported_files
from ergon.errors import StepInterrupted

PROCESSES_MAX: Final = min(os.cpu_count() or 1, 61)
"""As many as there are cores; Windows cannot wait for more than 61."""
RUN_AGAIN_MAX: Final = 3
"""How often a call is run again because its process died."""
_TOLD_TO_STOP: Final = (signal.SIGINT, signal.SIGTERM)


class ProcessSteps(Pool):
    """A pool of processes that outlives the death of its processes."""

    def __init__(
        self,
        *,
        may_start: Callable[[], Any],
        at_most_once: Callable[[], bool] = lambda: False,
        describe: Callable[[], str] = lambda: "",
    ) -> None:
        """`may_start` is awaited before a call is run; `at_most_once` says whether the caller forbids that.

        `describe` says what a call is, for `running`.
        """
        self._loop = asyncio.get_running_loop()
        self._may_start = may_start
        self._at_most_once = at_most_once
        self._describe = describe
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[Any], tuple[Mapping[Any, BaseProcess], str]] = {}
        self._free = asyncio.Semaphore(PROCESSES_MAX)
        self._lanes = asyncio.Semaphore(os.cpu_count() or 1)
        self._calls: set[asyncio.Task[None]] = set()
        _left_open.add(self)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the processes. Called on the event loop."""
        if kwargs:
            raise TypeError("pass positional arguments only")
        return self.run(function, args)

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        on_begin: Callable[[], None] | None = None,
    ) -> Future[Any]:
        """Run a function in one of the processes, and call `on_begin` when it has one. Called on the event loop."""
        answer: Future[Any] = Future()
        call = self._loop.create_task(
            self._answer(answer, function, args, on_begin or _nothing), name="ergon-process-step"
        )
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        answer.add_done_callback(lambda _: call.cancel() if answer.cancelled() else None)
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Let the processes go. One that still runs something is ended, as Python would wait for it at its own end."""
        for call in self._calls:
            call.cancel()
        self.kill()
        self._drop(self._pool)

    def kill(self) -> None:
        """End the processes that run something."""
        for processes, _ in list(self._running.values()):
            for process in list(processes.values()):
                process.kill()

    def running(self) -> list[str]:
        """What the processes are doing now, as `describe` named it."""
        return [what for _, what in self._running.values()]

    async def _answer(
        self,
        answer: Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        on_begin: Callable[[], None],
    ) -> None:
        try:
            result = await self._call(function, args, on_begin)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - passed on to whoever waits
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
        else:
            if answer.set_running_or_notify_cancel():
                answer.set_result(result)

    async def _call(
        self, function: Callable[..., Any], args: tuple[Any, ...], on_begin: Callable[[], None]
    ) -> Any:
        await self._free.acquire()
        try:
            await self._may_start()  # it waited for a process, and the worker may have been frozen meanwhile
        except BaseException:
            self._free.release()
            raise
        if self._pool is None:
            self._pool = _new_pool(PROCESSES_MAX)
        pool = self._pool
        try:
            future = self._hand_over(pool, function, args)
        except BrokenExecutor as error:
            self._free.release()
            self._drop(pool)
            died = error
        else:
            # Not before it is done, also when the caller has gone: until then its process is busy.
            future.add_done_callback(self._free_one)
            on_begin()
            try:
                return await asyncio.wrap_future(future)
            except BrokenExecutor as error:
                self._drop(pool)
                died = error
        if self._at_most_once():
            raise StepInterrupted(
                "the process of the step, or another of its pool, died after it started; whether its effect happened "
                "is unknown, and at_most_once forbids a second try"
            ) from died
        for _ in range(RUN_AGAIN_MAX):
            async with self._lanes:
                await self._may_start()
                alone = _new_pool(1)
                try:
                    future = self._hand_over(alone, function, args)
                    on_begin()
                    return await asyncio.wrap_future(future)
                except BrokenExecutor as error:
                    died = error
                finally:
                    alone.shutdown(wait=False, cancel_futures=True)
        raise type(died)(
            f"the process of the step died {RUN_AGAIN_MAX + 1} times, the last {RUN_AGAIN_MAX} alone in it: "
            "it ran out of memory, called os._exit, or crashed in C code"
        ) from died

    def _hand_over(
        self, pool: ProcessPoolExecutor, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> Future[Any]:
        with _put_off(_TOLD_TO_STOP):
            future = pool.submit(function, *args)
        _watch_all(pool)
        # Its processes are taken now: a pool that was shut down forgets them. (`kill_workers` came with Python 3.14.)
        self._running[future] = pool._processes or {}, self._describe()  # noqa: SLF001
        # Also when the caller has gone: until then its process is busy.
        future.add_done_callback(lambda done: self._running.pop(done, None))
        return future

    def _free_one(self, _: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._free.release)

    def _drop(self, pool: ProcessPoolExecutor | None) -> None:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            if self._pool is pool:
                self._pool = None


def _nothing() -> None:
    """Nobody wants to know that a call has begun."""


def _watch_all(pool: ProcessPoolExecutor) -> None:
    """Let the pool's thread look which processes it is to watch.

    `submit` wakes it before it starts a process. When the thread was quicker, the death of that process goes unnoticed,
    and its call never ends.
    """
    with pool._shutdown_lock:  # noqa: SLF001
        wakeup = pool._executor_manager_thread_wakeup  # noqa: SLF001
        if wakeup is not None:
            wakeup.wakeup()


class _Process(SpawnProcess):
    """A process of a pool. The pool ends the others by SIGTERM when one has died, of which they take no notice."""

    def terminate(self) -> None:
        self.kill()


class _Processes(SpawnContext):
    """Makes processes that are spawned, not forked: an open log must not cross a fork."""

    Process = _Process


def _new_pool(processes: int) -> ProcessPoolExecutor:
    ensure_running()  # here: as it starts, it lets signals through that are put off
    _kill_at_exit()
    return ProcessPoolExecutor(
        processes, mp_context=_Processes(), initializer=_begin, initargs=(imported_files(),)
    )


@contextlib.contextmanager
def _put_off(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Let signals wait. A process that is started meanwhile lets them wait as well, until it has its own handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # on Windows
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_left_open: Final[weakref.WeakSet[ProcessSteps]] = weakref.WeakSet()


@functools.cache
def _kill_at_exit() -> None:
    """Let a program end that has not shut its worker down: Python waits for what its pools run, be it for hours.

    Their steps are open in the log, and run again with whoever takes their flows. The hook is the one that pools use
    themselves, as `atexit` comes after they have waited; the latest registered is called first.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_kill_what_is_left)


def _kill_what_is_left() -> None:
    for steps in list(_left_open):
        steps.kill()


def _begin(files: dict[str, str]) -> None:
    """In a pool process, before it is handed any call."""
    find_in(files)  # first: arguments are made of classes in them
    _belong_to_the_worker()


def _belong_to_the_worker() -> None:
    """In a pool process: leave it to the worker when to stop, and end as soon as its process has.

    Killed, it cannot say so, and nobody else would.
    """
    for number in _TOLD_TO_STOP:
        signal.signal(number, _take_no_notice)  # not SIG_IGN, which programs started from here would inherit
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD_TO_STOP)
    worker = parent_process()
    assert worker is not None, "a pool process is somebody's child"

    def watch() -> None:
        worker.join()
        os._exit(1)

    threading.Thread(target=watch, name="ergon-worker-watch", daemon=True).start()


def _take_no_notice(number: int, frame: object) -> None:
    """The worker was told as well."""
