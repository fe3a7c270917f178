"""The one thread of a log that writes.

Submissions collect. The thread takes all there is, applies it as one transaction, and hands the results to the event
loop; what was submitted meanwhile is the next batch. So a lone commit waits for nothing, and under load batches grow
by themselves, up to `BATCH_MAX`.

A large batch is answered a slice at a time, and each part is forgotten as it is answered. So what an answer sets off
(a flow's next step, say) runs before the next slice, new objects come as old ones go, and Python's garbage collector,
which counts only the difference, seldom has cause to run: it took a tenth of all time before.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ergon.core.commit import Hint
from ergon.errors import LogClosed
from ergon.storage.sqlite.errors import FAILURES
from ergon.storage.sqlite.group import Errors, GroupCommit
from ergon.storage.sqlite.lookout import Lookout
from ergon.storage.sqlite.priming import claim_statements, first_statements, prepare
from ergon.storage.sqlite.upkeep import Upkeep
from ergon.storage.sqlite.writes import Done, Unasked, What

BATCH_MAX: Final = 4096
SLICE: Final = 256
"""How many are answered at once; larger ones let more objects pile up than the garbage collector waits for."""
_STOP_WAIT_SECONDS: Final = 0.1
Call = Callable[[], None]


class Writer:
    """Owns the writing connection through `GroupCommit`; everything else only submits."""

    def __init__(
        self,
        open_group: Callable[[], tuple[GroupCommit, Upkeep]],
        *,
        loop: asyncio.AbstractEventLoop,
        on_hint: Callable[[Hint], None],
        lookout: Lookout,
        name: str,
    ) -> None:
        self._open_group, self._loop, self._on_hint = open_group, loop, on_hint
        self.when_left: Callable[[], None] = _nothing
        """Called on the thread when it ends because the event loop was closed and the log was not."""
        self._pending: list[What] = []
        self._listeners: list[Done] = []
        """Whom to tell of each of `_pending`. Appended to last, so its length says how many are whole."""
        self._unasked: list[Unasked] = []
        self._unanswered: deque[tuple[list[Done], Errors | None, Hint | None]] = deque()
        """Batches that are written, the oldest first, and who of them has not heard."""
        self._calls: list[Call] = []
        self._lookout = lookout
        self._idle = False
        self._stopping = False
        self._ended = False
        self._name = name
        self._unprepared, self._prepare_later = first_statements(), claim_statements()
        self._opened: asyncio.Future[GroupCommit] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self.thread = threading.Thread(target=self._run, name=f"ergon-writer-{name}", daemon=True)

    async def start(self) -> GroupCommit:
        """Start the thread and open the log on it; raises what keeps it from opening."""
        self.thread.start()
        return await self._opened

    def submit(self, what: What, done: Done) -> None:
        """Put something into the next batch. `done` is called on the event loop."""
        if self._ended:
            if self._loop.is_closed():
                raise self._refusal()
            self._loop.call_soon(done, self._refusal())
            return
        self._pending.append(what)
        self._listeners.append(done)
        if self._idle:
            self._idle = False
            self._lookout.ring()

    def call(self, function: Call) -> None:
        """Run a function on the thread between two batches."""
        if self._ended:
            function()  # finds the connection closed, and says so to whoever waits
            return
        self._calls.append(function)
        self._lookout.ring()

    def submit_from_thread(self, what: Unasked) -> None:
        """Put something that nobody waits for into the next batch, from any thread; nothing once the log closes.

        Only the event loop may add to what is pending, so the writer's thread keeps these in a list of its own.
        """
        if not self._stopping and not self._ended:
            self._calls.append(lambda: self._unasked.append(what))
            self._lookout.ring()

    async def stop(self) -> None:
        """Write what was submitted, then close the connection and end the thread."""
        self._stopping = True
        self._lookout.ring()
        await asyncio.shield(self._closed)  # a second one may wait too

    def abandon(self) -> None:
        """Let the thread write what was submitted and end; its event loop is gone."""
        self._stopping = True
        self._lookout.ring()

    # -- on the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            group, upkeep = self._open_group()
            self._lookout.attend(group.connection)
        except BaseException as error:  # noqa: BLE001 - whoever awaits `start` gets it
            self._tell(set_exception, self._opened, error)
            return
        self._tell(set_result, self._opened, group)
        try:
            while self._wait(group, upkeep):
                self._write(group, upkeep)
        except BaseException as error:  # noqa: BLE001 - a defect of ours must not leave callers waiting
            self._tell(self._loop.call_exception_handler, {"message": self._died(), "exception": error})
        finally:
            self._lookout.close()
            if self._loop.is_closed():
                self.when_left()
            with contextlib.suppress(*FAILURES):
                upkeep.truncate(_STOP_WAIT_SECONDS)
            with contextlib.suppress(*FAILURES):
                group.close()
            self._ended = True
            self._tell(self._refuse_rest)
            self._tell(self._answer, [lambda _: set_result(self._closed, None)], None, None)

    def _wait(self, group: GroupCommit, upkeep: Upkeep) -> bool:
        """Wait for something to write; False when the log closes and all is written."""
        while not self._listeners:
            self._idle = True
            while self._calls:
                self._calls.pop(0)()
            if self._listeners or self._unasked:
                break
            if self._stopping or self._loop.is_closed():
                return False
            if self._unprepared:
                prepare(group.connection, self._unprepared.pop())
                continue
            try:
                upkeep.when_idle()
            except FAILURES:
                group.roll_back()  # or the connection waits to be reopened by the next write
            if self._lookout.rest():
                self._tell(self._on_hint, Hint(elsewhere=True))
            elif not self._listeners:  # it has rested, and there is nothing to write yet
                self._unprepared, self._prepare_later = self._prepare_later, []
        self._idle = False
        return True

    def _write(self, group: GroupCommit, upkeep: Upkeep) -> None:
        listeners = self._listeners[:BATCH_MAX]
        size = len(listeners)
        batch = self._pending[:size]
        del self._listeners[:size], self._pending[:size]
        if self._unasked:
            batch += self._unasked
            listeners += [what.done for what in self._unasked]
            self._unasked.clear()
        try:
            errors, hint = group.apply(batch)
        except BaseException as error:  # noqa: BLE001 - a defect of ours must answer to those who wait
            errors, hint = [error] * len(batch), None
        del batch
        self._tell(self._answer, listeners, errors, hint)
        del listeners, errors  # they go as they are answered
        try:
            upkeep.use(group.connection)
            self._lookout.attend(group.connection)
            upkeep.after_batch()
            changed = self._lookout.after_batch(wrote=group.wrote)
        except FAILURES:
            group.roll_back()
            changed = False  # whatever it is, the next write will meet it and answer to somebody
        if changed:
            self._tell(self._on_hint, Hint(elsewhere=True))
        while self._calls:
            self._calls.pop(0)()

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed under us: nobody is left to hear it
            self._loop.call_soon_threadsafe(function, *arguments)

    def _died(self) -> str:
        return f"the thread that writes to log {self._name} ended; connect to the log anew"

    # -- on the event loop -----------------------------------------------------------------------------------

    def _refusal(self) -> LogClosed:
        return LogClosed(self._died())

    def _refuse_rest(self) -> None:
        """Answer what nobody will write any more. Runs after `_ended` is set, so nothing is added behind it."""
        rest, self._listeners, self._pending = self._listeners, [], []
        if rest:
            self._answer(rest, [self._refusal() for _ in rest], None)
        while self._calls:
            self._calls.pop(0)()

    def _answer(self, listeners: list[Done], errors: Errors | None, hint: Hint | None) -> None:
        """Answer a batch after those before it."""
        listeners.reverse()
        if errors is not None:
            errors.reverse()
        self._unanswered.append((listeners, errors, hint))
        if len(self._unanswered) == 1:
            self._answer_slice()

    def _answer_slice(self) -> None:
        """Answer some of the oldest batch, last first, and more when the loop comes round again."""
        listeners, errors, hint = self._unanswered[0]
        least = max(len(listeners) - SLICE, 0)
        while len(listeners) > least:
            try:
                if errors is None:
                    while len(listeners) > least:
                        listeners.pop()(None)
                else:
                    while len(listeners) > least:
                        listeners.pop()(errors.pop())
            except Exception as error:  # noqa: BLE001 - one listener's defect must not keep the others waiting
                self._loop.call_exception_handler(
                    {"message": "a callback of the execution log raised", "exception": error}
                )
            except BaseException:  # Ctrl-C: the others hear of it if the loop goes on, such as to clean up
                self._loop.call_soon(self._answer_slice)
                raise
        if not listeners:
            self._unanswered.popleft()
        if self._unanswered:
            self._loop.call_soon(self._answer_slice)
        if not listeners and hint is not None:
            self._on_hint(hint)


def _nothing() -> None:
    """There is nobody else to tell."""


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Answer whoever still waits."""
    if not future.done():  # whoever waited may have been cancelled meanwhile
        future.set_result(result)


def set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    """Fail whoever still waits."""
    if not future.done():
        future.set_exception(error)
