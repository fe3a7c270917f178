"""The thread that reads, beside the writer: short transactions on a connection that cannot write.

All reads that wait are done in one go and answered in one call to the event loop. A log in memory has one connection
only; there the writer's thread reads, between two batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ergon.errors import ErgonError
from ergon.storage.sqlite.errors import FAILURES, translate

T = TypeVar("T")
Read = Callable[[sqlite3.Connection], Any]
_Job = tuple[Read, "asyncio.Future[Any]"]
_Answer = tuple["asyncio.Future[Any]", Any, "BaseException | None"]


class Reader:
    """Runs reads. With `call` they run where that function puts them, else on a thread that the first one starts."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        loop: asyncio.AbstractEventLoop,
        where: str,
        call: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._connect, self._loop, self._where, self._call = connect, loop, where, call
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.connection: sqlite3.Connection | None = None
        self.thread: threading.Thread | None = None

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` on the reading connection and return what it returns."""
        if self._call is None and self.thread is None:
            thread = threading.Thread(target=self._run, name="ergon-reader", daemon=True)
            thread.start()  # may raise when there are too many; then the next read tries again
            self.thread = thread
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))
        if self._call is not None:
            self._call(self._read_all)
        return await future

    async def stop(self) -> None:
        """Finish the reads that wait, then close."""
        if self._call is None and self.thread is None:
            return  # nobody has read
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((_nothing, future))
        if self._call is not None:
            self._call(self._read_all)
        else:
            self._jobs.put(None)
        await future

    def abandon(self) -> None:
        """Let the thread end; its event loop is gone."""
        self._jobs.put(None)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                break
            if not self._answer_all(job):
                break
        if self.connection is not None:
            self.connection.close()

    def _read_all(self) -> None:
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return  # an earlier call took it along
        if job is not None:
            self._answer_all(job)

    def _answer_all(self, job: _Job | None) -> bool:
        answers: list[_Answer] = []
        while job is not None:
            answers.append(self._answer(job))
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(_deliver, answers)
        return job is not None

    def _answer(self, job: _Job) -> _Answer:
        function, future = job
        try:
            if function is _nothing:
                return future, None, None
            if self.connection is None:
                self.connection = self._connect()
            return future, function(self.connection), None
        except FAILURES as error:
            self._roll_back()
            return future, None, translate(error, self._where)
        except ErgonError as error:
            return future, None, error
        except Exception as error:  # noqa: BLE001 - a defect of ours must answer to whoever waits
            return future, None, error

    def _roll_back(self) -> None:
        if self._call is None and self.connection is not None and self.connection.in_transaction:
            self.connection.rollback()


def _nothing(_: sqlite3.Connection) -> None:
    """Read nothing: a place in the queue to wait for."""


def _deliver(answers: list[_Answer]) -> None:
    for future, value, error in answers:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
