"""One opening of a log: its two threads, from `connect` to `close`, bound to one event loop and one process.

Whoever waits for the threads to start or to end may be cancelled, by Ctrl-C or a time limit. Ending is a task of its
own that goes on then, and that the next `open` or `close` waits for; a thread that was to start is told to end.
Where the event loop is closed and the log is not, nobody can tell the threads: the writer's looks, now and then while
it rests, and sends the reader's home.
"""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from ergon.core.commit import Hint
from ergon.errors import ErgonError, ForkedConnection, LogClosed, StoreError
from ergon.storage import failpoints
from ergon.storage.clock import Clock
from ergon.storage.process import this_process
from ergon.storage.sqlite import blank, durability, forks, migrations, place
from ergon.storage.sqlite.connection import (
    Settings,
    leave_waiting_to_turnstile,
    open_reader,
    open_writer,
    reopen_writer,
)
from ergon.storage.sqlite.errors import FAILURES, translate
from ergon.storage.sqlite.group import GroupCommit
from ergon.storage.sqlite.lookout import Lookout
from ergon.storage.sqlite.reader import Reader
from ergon.storage.sqlite.turnstile import Turnstile
from ergon.storage.sqlite.upkeep import Upkeep
from ergon.storage.sqlite.writer import Writer, set_exception, set_result
from ergon.storage.sqlite.writes import Done, Unasked, What

T = TypeVar("T")


class Session:
    """Opened and closed by the log, perhaps several times."""

    def __init__(self, settings: Settings, clock: Clock, on_hint: Callable[[Hint], None]) -> None:
        self._settings, self._clock, self._tell = settings, clock, on_hint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._group: GroupCommit | None = None
        self._opening = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._state: Literal["closed", "open", "forked"] = "closed"
        self.generation = ""
        self.is_new = False
        """The file was made when it was opened; since then this log created and claimed nothing, and nobody wrote."""

    # -- life ------------------------------------------------------------------------------------------------

    async def open(self, require: str | None) -> None:
        """Open the file and start the threads, unless that is done."""
        loop = asyncio.get_running_loop()
        if self._is_left_behind():
            self._abandon()  # that loop is gone, and everything that could await us with it
        async with self._opening:
            await self._ended()
            if self._state != "closed":
                self._check()
                return
            path, here = self._settings.path, None
            if path is not None:
                if not (self._settings.create or path.exists()):
                    raise place.missing(path)
                here = place.check(path, allow_network_filesystem=self._settings.allow_network_filesystem)
            self._loop = loop
            await self._start(loop, here, require)

    async def close(self) -> None:
        """Finish what was submitted, then stop the threads. From any loop once the log's own is gone."""
        if self._state == "forked":
            return
        if self._is_left_behind():
            threads = [used.thread for used in (self._reader, self._writer) if used is not None]
            self._abandon()
            for thread in threads:
                if thread is not None:
                    await asyncio.to_thread(thread.join)
            return
        async with self._opening:
            if self._writer is not None and self._reader is not None:
                self._end(self._reader, self._writer)
            await self._ended()

    def _end(self, reader: Reader, writer: Writer) -> None:
        """Let the threads finish what was submitted, and end."""
        self._state = "closed"
        forks.unwatch(self)
        self._writer = self._reader = self._group = None
        self._ending = asyncio.get_running_loop().create_task(_stop(reader, writer), name="ergon-close")
        self._tell(Hint(elsewhere=True))  # whoever waits looks, and hears that the log is closed

    async def _ended(self) -> None:
        """Wait until threads that are told to end have ended. Those of a loop that is gone end without it."""
        ending = self._ending
        if ending is not None and ending.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(ending)
        self._ending = None

    async def _start(
        self, loop: asyncio.AbstractEventLoop, here: place.Place | None, require: str | None
    ) -> None:
        writer = Writer(
            lambda: self._open_group(here, require),
            loop=loop,
            on_hint=self._on_hint,
            lookout=Lookout(here.wal if here is not None else None),
            name=self._settings.where,
        )
        # While the thread waits for the disk: a worker that registers asks for it.
        loop.call_soon(this_process)
        try:
            self._group = group = await writer.start()
        except FAILURES as error:
            raise translate(error, self._settings.where) from error
        except BaseException:  # cancelled, or the file is refused
            writer.abandon()
            raise
        self._writer = writer
        if here is None:
            self._reader = Reader(
                lambda: group.connection, loop=loop, where=self._settings.where, call=writer.call
            )
        else:
            path = here.path
            self._reader = Reader(
                lambda: open_reader(path, self._settings), loop=loop, where=self._settings.where
            )
        writer.when_left = self._reader.abandon
        self._state = "open"
        self._watch_forks()

    # -- use -------------------------------------------------------------------------------------------------

    def submit(self, what: What, done: Done) -> None:
        """Put something into the next group commit."""
        if self._state != "open" or self._writer is None:
            error = self._refusal()
            if self._loop is None or self._loop.is_closed() or self._state == "forked":
                raise error
            self._loop.call_soon(done, error)
            return
        self._writer.submit(what, done)

    def submit_from_thread(self, what: Unasked) -> None:
        """Put something that nobody waits for into the next group commit, from any thread; nothing when not open."""
        writer = self._writer
        if self._state == "open" and writer is not None:
            writer.submit_from_thread(what)

    def future(self) -> asyncio.Future[Any]:
        """Make a future for a write. Raises when the log is not open."""
        self._check()
        assert self._loop is not None
        return self._loop.create_future()

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read on the reading connection."""
        self._check()
        assert self._reader is not None
        return await self._reader.read(function)

    async def on_writer(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read on the writing connection, between two batches."""
        self._check()
        assert self._loop is not None
        assert self._writer is not None
        assert self._group is not None
        loop, group = self._loop, self._group
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                value = function(group.connection)
            except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
                failure = translate(error, self._settings.where) if isinstance(error, FAILURES) else error
                loop.call_soon_threadsafe(set_exception, future, failure)
            else:
                loop.call_soon_threadsafe(set_result, future, value)

        self._writer.call(run)
        return await future

    # -- inside ----------------------------------------------------------------------------------------------

    def _on_hint(self, hint: Hint) -> None:
        if hint.elsewhere:
            self.is_new = False
        self._tell(hint)

    def _open_group(self, here: place.Place | None, require: str | None) -> tuple[GroupCommit, Upkeep]:
        """On the writer's thread: open the file, make it a log, and read back what it survives."""
        where = self._settings.where
        turnstile = Turnstile(patience_seconds=self._settings.busy_timeout_seconds)

        made_as, made = "", False

        def connect() -> sqlite3.Connection:
            nonlocal made_as, made
            if made_as:
                connection = reopen_writer(self._settings, made_as)
            else:
                made = here is not None and self._settings.create and blank.make(here, self._clock.wall())
                connection = open_writer(self._settings)
            try:
                if here is not None:
                    turnstile.open(here.turn)  # not before: it would stand beside another program's file
                made |= migrations.migrate(connection, turnstile, where, self._clock.wall())
                made_as = migrations.generation(connection, where)
                leave_waiting_to_turnstile(connection)
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            group = GroupCommit(
                connect,
                turnstile=turnstile,
                clock=self._clock,
                where=where,
                failpoint=failpoints.current(),
                path=self._settings.path,
            )
        except BaseException:
            turnstile.close()
            raise
        try:
            graded = durability.measure(
                group.connection, self._settings, here.filesystem if here is not None else ""
            )
            durability.check_required(graded, require, where)
        except BaseException:
            group.close()
            raise
        self.generation, self.is_new = made_as, made
        return group, Upkeep(group.connection, here.wal if here is not None else None, turnstile)

    def _check(self) -> None:
        if self._state != "open":
            raise self._refusal()
        if self._is_left_behind():
            raise LogClosed(
                f"log {self._settings.where} was connected in an event loop that has ended, such as that of an earlier "
                "asyncio.run(); connect it again in this one, with connect() or `async with`"
            )

    def _is_left_behind(self) -> bool:
        """Tell whether the log is open on an event loop that is gone. Raises `StoreError` when on another that is not.

        Answers would go to that loop, where nobody waits for them.
        """
        if self._state != "open" or self._loop is None or self._loop is asyncio.get_running_loop():
            return False
        if self._loop.is_closed():
            return True
        raise StoreError(
            f"log {self._settings.where} is open on another event loop; use it there, or open a second log on the same "
            "path here"
        )

    def _refusal(self) -> ErgonError:
        where = self._settings.where
        if self._state == "forked":
            return ForkedConnection(
                f"log {where} was opened before fork(); open it in the child process instead"
            )
        return LogClosed(f"log {where} is not open; call connect() or use `async with`")

    def _abandon(self) -> None:
        """Leave the threads to end by themselves and forget them."""
        forks.unwatch(self)
        if self._reader is not None:
            self._reader.abandon()
        if self._writer is not None:
            self._writer.abandon()
        self._writer = self._reader = self._group = None
        self._state = "closed"
        self._opening = asyncio.Lock()

    def _watch_forks(self) -> None:
        group, reader, session = self._group, self._reader, weakref.ref(self)

        def in_child() -> None:
            forks.abandon(group)
            forks.abandon(reader)
            this = session()
            if this is not None:
                this._state = "forked"  # noqa: SLF001 - our own

        forks.watch(self, in_child)


async def _stop(reader: Reader, writer: Writer) -> None:
    try:
        await reader.stop()
    finally:  # also when the loop is ending: the writer is told in any case
        await writer.stop()
