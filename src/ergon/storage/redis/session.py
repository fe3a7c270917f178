"""One opening of a log: its connections and its group commit, from `connect` to `close`, bound to one event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from ergon.core.commit import Durability, Hint
from ergon.errors import ErgonError, ForkedConnection, LogClosed, UsageError
from ergon.storage.redis import durability
from ergon.storage.redis.clock import ServerClock
from ergon.storage.redis.connection import Command, pause
from ergon.storage.redis.errors import is_lost, is_not_done, translate
from ergon.storage.redis.opened import Opened
from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.settings import Settings
from ergon.storage.redis.writes import Done, What, Write

T = TypeVar("T")


class Session:
    """Opened and closed by the log, perhaps several times."""

    def __init__(self, settings: Settings, on_hint: Callable[[Hint], None]) -> None:
        self._settings, self._on_hint = settings, on_hint
        self._opening = asyncio.Lock()
        self._open: Opened | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beside: set[asyncio.Task[Any]] = set()
        self.time = ServerClock()

    # -- life ------------------------------------------------------------------------------------------------

    async def open(self, require: str | None) -> None:
        """Connect, unless that is done. What was opened before an error is closed again."""
        self._leave_what_is_gone()
        async with self._opening:
            await self._left()
            if self._open is not None:
                self.check()
                return
            self._loop = asyncio.get_running_loop()
            starting = self._loop.create_task(
                Opened.start(self._settings, self._on_hint, require, self.time), name="ergon-open"
            )
            try:
                self._open = await asyncio.shield(starting)
            except asyncio.CancelledError:
                self._aside(_undo(starting))
                raise

    async def close(self) -> None:
        """Finish what was submitted, then close the connections."""
        opened = self._open
        if opened is not None and opened.pid != os.getpid():
            return
        self._leave_what_is_gone()
        async with self._opening:
            opened, self._open = self._open, None
            if opened is not None:
                self._aside(opened.stop(list(self._beside)))
            await self._left()

    def _aside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start what goes on when whoever waits for it is cancelled.

        Cancelled while it connects, redis-py would leave a connection behind.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def _left(self) -> None:
        """Wait until what goes on beside has ended."""
        left = [task for task in self._beside if task.get_loop() is asyncio.get_running_loop()]
        if left:
            await asyncio.wait(left)

    def check(self) -> Opened:
        """What is open; raises when nothing is, or not here."""
        opened = self._open
        if opened is None:
            raise LogClosed(f"log {self._settings.where} is closed; open it with `async with` or `connect()`")
        if opened.pid != os.getpid():
            raise ForkedConnection(
                f"log {self._settings.where} was opened before fork(); open it in the child process instead"
            )
        return opened

    def _leave_what_is_gone(self) -> None:
        opened = self._open
        if opened is None:
            return
        if opened.pid != os.getpid() or opened.loop.is_closed():
            opened.abandon()
            self._open = None
            self._opening = asyncio.Lock()

    # -- use -------------------------------------------------------------------------------------------------

    @property
    def partitions(self) -> Partitions:
        """The parts of the open log."""
        return self.check().partitions

    def future(self) -> asyncio.Future[Any]:
        """A future of the log's loop."""
        return self._here().loop.create_future()

    def submit(self, what: What, done: Done) -> None:
        """Put a write into the group commit."""
        try:
            self._here().group.submit(what, done)
        except LogClosed as error:
            if self._loop is None or self._loop.is_closed():
                raise
            self._loop.call_soon(done, error)

    async def write(self, write: Write[T]) -> T:
        """Put a write into the group commit and wait for it."""
        assert write.future is not None
        self.submit(write, write.done)
        return await write.future

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """Ask, again after a broken connection; raises the first error."""
        return await asyncio.shield(self._aside(self._read(self._here(), commands)))

    async def _read(self, opened: Opened, commands: Sequence[Command]) -> list[Any]:
        give_up_at = time.monotonic() + self._settings.busy_timeout_seconds
        attempt = 0
        while True:
            try:
                async with opened.reading:
                    answers = await opened.server.run(commands, strict=True)
                for answer in answers:
                    if isinstance(answer, list) and answer and answer[0] == b"generation":
                        raise opened.partitions.replaced(answer[1])
                return answers
            except ErgonError:
                raise
            except Exception as error:
                if not (is_lost(error) or is_not_done(error)) or time.monotonic() > give_up_at:
                    raise translate(error, self._settings.where) from error
                if isinstance(error, NoScriptError):
                    with suppress(Exception):
                        await opened.server.load_scripts()
                if self._open is not opened:
                    raise LogClosed(f"log {self._settings.where} is closed") from error
            await pause(attempt)
            attempt += 1

    async def ask(self, what: str, partition: int, *values: bytes) -> Any:
        """One question of `read.lua`, answered of one moment."""
        call = self.partitions.call_on(partition, "read", (what.encode(), *values))
        return (await self.read([call]))[0]

    async def ask_all(self, what: str, *values: bytes) -> list[Any]:
        """The same question, asked of each part."""
        partitions = self.partitions
        return await self.read(
            [partitions.call_on(part, "read", (what.encode(), *values)) for part in range(partitions.count)]
        )

    async def carry_left(self) -> None:
        """Carry words between parts that a process left which died."""
        opened = self._here()
        if opened.partitions.count > 1:
            try:
                await asyncio.shield(self._aside(opened.group.carry_left()))
            except Exception as error:
                raise translate(error, self._settings.where) from error

    def keep_alive(self, worker_id: str, lease_seconds: float) -> None:
        """Ask for a renewal, from any thread."""
        opened = self._open
        if opened is not None and opened.pid == os.getpid():
            opened.keeper.renew(worker_id, lease_seconds)

    async def measure(self) -> Durability:
        """The live settings of the server, graded."""
        return await asyncio.shield(self._aside(self._measure(self._here())))

    async def _measure(self, opened: Opened) -> Durability:
        try:
            return await durability.measure(opened.server, self._settings)
        except Exception as error:
            raise translate(error, self._settings.where) from error

    def _here(self) -> Opened:
        opened = self.check()
        if opened.loop is not asyncio.get_running_loop():
            raise UsageError(
                f"log {self._settings.where} belongs to the event loop that connected it; open another one here"
            )
        return opened


async def _undo(starting: asyncio.Task[Opened]) -> None:
    """Close what nobody waits for any more."""
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().stop()
