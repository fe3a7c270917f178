"""One connection that mends itself, and transactions whose outcome is never guessed.

What a cut connection, or a crash of the server, leaves behind after each await of `transact`:

- before COMMIT is sent: nothing. The server rolls back what it has; the transaction is begun anew on another
  connection.
- after COMMIT is sent, before its answer: the transaction has landed, or not, or the server is still busy with it, or
  has yet to hear of it. With COMMIT goes its number, into this lane's row of table `landed`, and who asks for that
  number hears what stays true: see `landed.py`.
- while nobody can be asked: the outcome stays unknown, and the answer says so.
- while a synchronous standby is waited for: what an operator cancels then is the wait, not the commit, and the server
  says COMMIT with a warning. Whoever asks writes, so waits for the standby too; only then is it acknowledged.

A process that dies asks nobody: its lanes' rows stay for a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from ergon.core.commit import Hint
from ergon.errors import LogBusy, StoreError
from ergon.storage.postgres import landed
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import (
    BEGIN,
    Settings,
    Standby,
    begin,
    is_away,
    open_session,
    server_time,
)
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.errors import code_of, is_again, translate
from ergon.storage.postgres.migrations import new_writer
from ergon.storage.postgres.patience import Patience
from ergon.storage.postgres.transaction import Transaction
from ergon.storage.postgres.watch import Watch

T = TypeVar("T")
logger: Final = logging.getLogger("ergon.storage")

_AGAIN_MAX: Final = 10
"""How often a transaction is repeated that met another one."""
_CLOSING_SECONDS: Final = 2.0
"""How long a log that is being closed goes on trying to reach its server."""
_WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"
"""Where in the server its warnings about a wait that was cut short come from; their words are translated."""
_NO_TABLE: Final = frozenset({"42P01", "3F000"})


class Unconfirmed(ConnectionError):
    """The server has committed, and does not know whether its synchronous standby has: as if the answer were lost."""


class Lane:
    """A connection for one thing at a time."""

    def __init__(self, settings: Settings, clock: ServerClock, *, on_cut: Callable[[], None]) -> None:
        self._settings, self._clock, self._on_cut = settings, clock, on_cut
        self._connection: Connection | None = None
        self._writer_id = new_writer()
        self._batch = 0
        self._marked = False
        self._is_unconfirmed = False
        self._place = 0
        self._closed = False
        self._patience, self._met = Patience(settings.patience_seconds), 0
        self._watch = Watch(settings.patience_seconds)

    @property
    def is_pooled(self) -> bool:
        """Each of its transactions may run on another session, with settings of its own."""
        return self._settings.address.pgbouncer

    async def open(self) -> None:
        """Connect now, without patience. Raises what keeps it from connecting."""
        if self._connection is None or self._connection.is_closed():
            await self._dial()

    async def transact(
        self, work: Callable[[Transaction], Awaitable[T]], *, repeatable: bool = False, exact: bool = True
    ) -> tuple[T, Hint | None]:
        """Run a transaction; return what `work` returned, and what listeners should hear.

        `work` may be called several times, each time in a new transaction. It raises what it likes, and nothing of it
        is written then; errors of the driver come as they are. Raises `LogBusy` when the server stays away, and
        `StoreError` when nobody knows whether it was written; with `repeatable`, that is `LogBusy` too. `exact`:
        the transaction's time is read from the server, not estimated.
        """
        self._begin_anew()
        while True:
            self._batch += 1
            answer: tuple[T, Hint | None] | None = None
            connection = None
            try:
                connection = await self._session()
                with self._watch.over(connection):
                    tx = await self._begin(connection, exact=exact)
                    value = await work(tx)
                    hint, ending = tx.hint(), "COMMIT"
                    if tx.wrote:
                        ending = landed.mark_and_commit(self._writer_id, self._batch, tx.now)
                        self._marked = True
                        answer = value, hint
                    if (said := await connection.execute(ending)) != "COMMIT":
                        answer = None
                        raise StoreError(f"log {self._settings.where}: the server said {said} to COMMIT")
                    self._check_confirmed()
                return value, hint
            except asyncio.CancelledError:
                self._drop()
                raise
            except Exception as error:
                if answer is not None and await self._has_landed_unheard(error, repeatable=repeatable):
                    return answer
                if not await self._is_to_repeat(error, connection):
                    raise

    async def write_at_once(self, write: Callable[[Transaction, str, int], Awaitable[None]]) -> Hint | None:
        """Run one statement that is a transaction by itself; return what listeners should hear.

        `write` gets this lane's name and the transaction's number, and its statement writes both into `landed` with
        all else, or fails and writes nothing. Raises the driver's errors when nothing was written, and `LogBusy`.
        """
        self._begin_anew()
        while True:
            self._batch += 1
            connection = tx = None
            try:
                connection = await self._session()
                with self._watch.over(connection):
                    tx = Transaction(connection, *await self._times(connection))
                    self._marked = True
                    await write(tx, self._writer_id, self._batch)
                    self._check_confirmed()
                return tx.hint()
            except asyncio.CancelledError:
                self._drop()
                raise
            except Exception as error:
                if tx is not None and await self._has_landed_unheard(error, repeatable=True):
                    return tx.hint()
                if not await self._is_to_repeat(error, connection, in_transaction=False):
                    raise

    async def run(self, function: Callable[[Connection], Awaitable[T]]) -> T:
        """Run statements that may be repeated: one that reads, or one that writes and can tell that it has been there.

        They share a snapshot only where they are one statement.
        """
        self._begin_anew()
        while True:
            connection = None
            try:
                connection = await self._session()
                with self._watch.over(connection):
                    if not self._settings.address.pgbouncer:
                        value = await function(connection)
                    else:
                        await self._begin(connection)
                        value = await function(connection)
                        await connection.execute("COMMIT")
                    self._check_confirmed()
                    return value
            except asyncio.CancelledError:
                self._drop()
                raise
            except Exception as error:
                if not await self._is_to_repeat(error, connection):
                    raise

    def hurry(self) -> None:
        """The log is being closed: give a server that is away little time."""
        self._closed = True
        self._patience.hurry(_CLOSING_SECONDS)

    async def close(self) -> None:
        """Say goodbye."""
        self._closed = True
        self._watch.end()
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed():
            return
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                if self._marked and not self._settings.address.pgbouncer:
                    await connection.execute("DELETE FROM landed WHERE writer = $1", self._writer_id)
                await connection.close()
        except Exception:  # noqa: BLE001 - it is of no use any more, however it ended
            connection.terminate()

    def terminate(self) -> None:
        """Close without a word: the event loop is going."""
        self._closed = True
        self._watch.end()
        self._drop(tell=False)

    async def _begin(self, connection: Connection, *, exact: bool = True) -> Transaction:
        address, times = self._settings.address, None if exact else self._clock.estimate()
        if times is None or address.pgbouncer:
            times = self._clock.read(await begin(connection, address))
        else:
            await connection.execute(BEGIN)
        return Transaction(connection, *times)

    async def _times(self, connection: Connection) -> tuple[float, float]:
        return self._clock.estimate() or self._clock.read(await server_time(connection))

    async def _session(self) -> Connection:
        if self._connection is not None and self._place != self._settings.turn.place:
            self._drop()  # another server became the primary, as some other session found
        if self._connection is None or self._connection.is_closed():
            await self._dial()
        assert self._connection is not None, "it was just opened"
        return self._connection

    async def _dial(self) -> None:
        self._connection, self._is_unconfirmed = None, False
        self._connection = await open_session(self._settings, self._clock)
        self._settings.outage.over(self._settings.where)
        self._place = self._settings.turn.place
        self._connection.add_log_listener(self._on_words)

    def _on_words(self, _connection: Any, words: Any) -> None:
        """Called before whoever waits for the statement's answer goes on."""
        if getattr(words, "server_source_function", None) == _WAIT_FOR_STANDBY:
            self._is_unconfirmed = True

    def _check_confirmed(self) -> None:
        if self._is_unconfirmed:
            raise Unconfirmed("a commit's wait for the standby was cancelled")

    def _begin_anew(self) -> None:
        self._patience, self._met = Patience(self._settings.patience_seconds), 0

    async def _is_to_repeat(
        self, error: Exception, connection: Connection | None, *, in_transaction: bool = True
    ) -> bool:
        """Clean up after a failed attempt, and wait until it is time for the next one. False: there is to be none."""
        if is_away(error):
            self._drop(connection)
        else:
            if in_transaction:
                await self._roll_back(connection)
            if not is_again(error) or self._met >= _AGAIN_MAX:
                return False
            self._met += 1
        await self._wait(error)
        return True

    async def _has_landed_unheard(self, cause: Exception, *, repeatable: bool) -> bool:
        """Tell whether the last transaction has landed although its answer is lost, if that is what happened."""
        if not is_away(cause):
            return False
        self._drop()
        return await self._has_landed(self._batch, cause, repeatable=repeatable)

    async def _has_landed(self, number: int, cause: BaseException, *, repeatable: bool) -> bool:
        while True:
            try:
                connection = await self._session()
                with self._watch.over(connection):
                    tx = await self._begin(connection)
                    answer = await landed.ask(tx, self._writer_id, number)
                    await connection.execute("COMMIT")
                    self._check_confirmed()
                return answer
            except Exception as error:
                if code_of(error) in _NO_TABLE:  # the transaction was to make it
                    await self._roll_back(self._connection)
                    return False
                if not is_away(error) and not is_again(error):
                    raise
                self._drop()
                try:
                    await self._wait(cause)
                except StoreError as busy:
                    raise busy if repeatable else self._unknown(cause) from error

    def _unknown(self, cause: BaseException) -> StoreError:
        return StoreError(f"{translate(cause, self._settings.where)}; whether this was written is unknown")

    async def _wait(self, error: BaseException) -> None:
        """Wait before dialling again. Raises `LogBusy` once patience is over."""
        if self._closed:
            self._patience.hurry(_CLOSING_SECONDS)
        elif is_away(error):
            self._settings.outage.met(translate(error, self._settings.where))
        try:
            await self._patience.wait(error)
        except Standby as last:  # as it had a primary before, there will be one again
            raise LogBusy(str(last)) from last
        except Exception as last:
            raise translate(last, self._settings.where) from last

    async def _roll_back(self, connection: Connection | None) -> None:
        if connection is None or connection is not self._connection or connection.is_closed():
            return
        try:
            async with asyncio.timeout(self._settings.patience_seconds):
                await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - then the server rolls back by itself
            self._drop()

    def _drop(self, only: Connection | None = None, *, tell: bool = True) -> None:
        if only is not None and only is not self._connection:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is of no use any more, in whatever state
                connection.terminate()
            if tell:
                self._on_cut()
