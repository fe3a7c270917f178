"""One opening of a log: its connections and tasks, from `connect` to `close`, bound to one event loop and one process.

Four lanes at most beside the listener: one for the group commit, one for leases, so that nothing keeps a renewal
waiting, and two for everything else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar
from uuid import uuid4

from ergon.core.commit import Hint
from ergon.errors import ErgonError, ForkedConnection, LogClosed, StoreError
from ergon.storage import failpoints
from ergon.storage.postgres import durability, migrations
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import Settings
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.errors import not_opened, translate
from ergon.storage.postgres.group import GroupCommit
from ergon.storage.postgres.keeper import Keeper
from ergon.storage.postgres.lane import Lane
from ergon.storage.postgres.lanes import Lanes
from ergon.storage.postgres.listener import Listener
from ergon.storage.postgres.lookout import Lookout
from ergon.storage.postgres.transaction import Transaction
from ergon.storage.postgres.writer import Writer
from ergon.storage.postgres.writes import Done, What

T = TypeVar("T")
_SIDE_LANES_MAX: Final = 2


class Session:
    """Opened and closed by the log, perhaps several times."""

    def __init__(
        self, settings: Settings, clock: ServerClock, on_hint: Callable[[Hint], None], *, migrate: bool
    ) -> None:
        self._settings, self._clock, self._on_hint, self._migrate = settings, clock, on_hint, migrate
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._state: Literal["closed", "open"] = "closed"
        self._pid = 0
        self._group_lane = self._lane()
        self._lease_lane, self._side = Lanes(self._lane, 1), Lanes(self._lane, _SIDE_LANES_MAX)
        self._writer: Writer | None = None
        self._listener: Listener | Lookout | None = None
        self._keeper: Keeper | None = None
        self._failpoint = failpoints.current()
        self._doing: set[asyncio.Task[Any]] = set()
        self.generation = ""
        self.cuts = 0
        """How often a connection was lost."""

    # -- life ------------------------------------------------------------------------------------------------

    async def open(self, require: str | None) -> None:
        """Connect, bring the tables up to date, and begin to write and to listen, unless that is done."""
        if self._is_left_behind():
            self._abandon()
        async with self._opening:
            if self._state == "open":
                self._check()
                return
            self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
            self._group_lane = lane = self._lane()
            self._lease_lane, self._side = Lanes(self._lane, 1), Lanes(self._lane, _SIDE_LANES_MAX)
            try:
                await lane.open()
                await self._prepare(lane, require)
            except BaseException as error:
                await lane.close()
                if isinstance(error, Exception):
                    raise not_opened(error, self._settings.where) from error
                raise
            self._begin(lane)

    async def close(self) -> None:
        """Finish what was submitted, then close the connections. From any loop once the log's own is gone."""
        if self._is_left_behind():
            self._abandon()
            return
        async with self._opening:
            if self._state != "open" or os.getpid() != self._pid:
                return
            self._state = "closed"
            ending = asyncio.get_running_loop().create_task(self._end(), name="ergon-close")
            await asyncio.shield(ending)

    async def _prepare(self, lane: Lane, require: str | None) -> None:
        settings = self._settings
        version = await lane.run(lambda connection: migrations.inspect(connection, settings))
        if version < migrations.migrations()[-1][0]:
            if not self._migrate:
                migrations.check_current(version, settings)
            await lane.transact(lambda tx: migrations.migrate(tx, settings))
        graded = await lane.run(durability.measure)
        durability.check(graded, require, settings.where)
        self.generation = await lane.run(lambda one: migrations.generation(one, settings.where))

    def _begin(self, lane: Lane) -> None:
        settings, clock = self._settings, self._clock
        self._failpoint = failpoints.current()
        group = GroupCommit(lane, where=settings.where, failpoint=self._failpoint)
        self._writer = Writer(group, on_hint=self._heard, refusal=self._refusal)
        self._keeper = Keeper(settings, clock, self._failpoint)
        self._state = "open"
        self._listener = (
            Lookout(self.read, self._on_hint)
            if settings.address.pgbouncer
            else Listener(
                settings, clock, channel=f"ergon_{self.generation}", me=uuid4().hex, on_hint=self._on_hint
            )
        )

    async def _end(self) -> None:
        lanes = (self._group_lane, self._lease_lane, self._side)
        for lane in lanes:
            lane.hurry()
        if self._keeper is not None:
            self._keeper.close()
        if self._writer is not None:
            await self._writer.stop()
        if self._listener is not None:
            await self._listener.close()
        while self._doing:
            await asyncio.wait(self._doing)
        for lane in lanes:
            await lane.close()
        self._writer = self._listener = self._keeper = None

    # -- use -------------------------------------------------------------------------------------------------

    def submit(self, what: What, done: Done) -> None:
        """Put something into the next group commit."""
        if self._state != "open" or self._writer is None or os.getpid() != self._pid:
            error = self._refusal()
            if self._loop is None or self._loop.is_closed() or self._state == "open":
                raise error
            self._loop.call_soon(done, error)
            return
        self._writer.submit(what, done)

    def keep(self, worker_id: str, lease_seconds: float) -> None:
        """Ask for a renewal from any thread; nothing when the log is not open."""
        keeper = self._keeper
        if self._state == "open" and keeper is not None and os.getpid() == self._pid:
            keeper.ask(worker_id, lease_seconds)

    def future(self) -> asyncio.Future[Any]:
        """Make a future for a write. Raises when the log is not open."""
        self._check()
        assert self._loop is not None, "an open log has a loop"
        return self._loop.create_future()

    def warm_up(self) -> None:
        """A worker registers: open what its first claim and its first look for dead workers will need meanwhile."""
        self._do(self._side.open_all())

    async def read(self, function: Callable[[Connection], Awaitable[T]]) -> T:
        """Run a read, which may be repeated."""
        self._check()
        return await asyncio.shield(self._do(self._side.use(lambda lane: lane.run(function))))

    def write(
        self,
        name: str,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        lease: bool = False,
        exact: bool = True,
    ) -> asyncio.Task[T]:
        """Run a transaction of its own. Whoever waits for it and is cancelled does not stop it."""
        self._check()
        return self._do(self._write(name, work, self._lease_lane if lease else self._side, exact=exact))

    async def _write(
        self, name: str, work: Callable[[Transaction], Awaitable[T]], lanes: Lanes, *, exact: bool
    ) -> T:
        if self._failpoint is not None:
            self._failpoint.before([name])
        value, hint = await lanes.use(lambda lane: lane.transact(work, exact=exact))
        if self._failpoint is not None:
            self._failpoint.after()
        if hint is not None:
            self._heard(hint)
        return value

    def _do(self, work: Awaitable[T]) -> asyncio.Task[T]:
        assert self._loop is not None, "an open log has a loop"
        task = self._loop.create_task(self._translated(work), name="ergon-log")
        self._doing.add(task)
        task.add_done_callback(self._done)
        return task

    async def _translated(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except ErgonError:
            raise
        except Exception as error:
            raise translate(error, self._settings.where) from error

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._doing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited may have been cancelled: nobody else asks

    # -- inside ----------------------------------------------------------------------------------------------

    def _heard(self, hint: Hint) -> None:
        self._on_hint(hint)
        if self._listener is not None:
            self._listener.tell()

    def _lane(self) -> Lane:
        return Lane(self._settings, self._clock, on_cut=self._cut)

    def _cut(self) -> None:
        self.cuts += 1

    def _check(self) -> None:
        if self._state != "open" or os.getpid() != self._pid:
            raise self._refusal()
        if self._is_left_behind():
            raise LogClosed(
                f"log {self._settings.where} was connected in an event loop that has ended, such as that of an earlier "
                "asyncio.run(); connect it again in this one, with connect() or `async with`"
            )

    def _is_left_behind(self) -> bool:
        """Tell whether its event loop is gone. Raises `StoreError` when it is open on another that is not."""
        if self._state != "open" or self._loop is None or self._loop is asyncio.get_running_loop():
            return False
        if self._loop.is_closed():
            return True
        if os.getpid() != self._pid:
            return False
        raise StoreError(
            f"log {self._settings.where} is open on another event loop; use it there, or open a second log on the same "
            "URL here"
        )

    def _refusal(self) -> ErgonError:
        where = self._settings.where
        if self._state == "open" and os.getpid() != self._pid:
            return ForkedConnection(
                f"log {where} was opened before fork(); open it in the child process instead"
            )
        return LogClosed(f"log {where} is not open; call connect() or use `async with`")

    def _abandon(self) -> None:
        """Forget the connections of a loop that is gone; they went with it."""
        for lane in (self._group_lane, self._lease_lane, self._side):
            lane.terminate()
        if self._keeper is not None:
            self._keeper.close()
        self._writer = self._listener = self._keeper = None
        self._doing.clear()
        self._state = "closed"
        self._opening = asyncio.Lock()
