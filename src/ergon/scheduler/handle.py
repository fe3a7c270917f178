"""A flow seen from outside: wait for its result, signal it, cancel it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Generic, TypeVar

from ergon.core.codec import Decoder, encode
from ergon.core.commit import CANCEL_KEY, CancelName, FlowRecord, Message, MessageKind, Settled
from ergon.core.failure import rebuild
from ergon.core.names import check_name
from ergon.core.status import HELD, TaskStatus
from ergon.errors import FlowCancelled, FlowError, FlowNotFound, FlowParked, IllegalMove, NotInFlow
from ergon.flows.context import current_machine
from ergon.scheduler.times import start_at
from ergon.scheduler.watching import Watcher, watcher_of
from ergon.storage.log import ExecutionLog

R = TypeVar("R")


class FlowHandle(Generic[R]):
    """One flow, by id. Made by `Scheduler.schedule` and `Scheduler.handle`."""

    def __init__(self, log: ExecutionLog, flow_id: str, decoder: Decoder) -> None:
        self.id = flow_id
        self._log = log
        self._decoder = decoder

    def __repr__(self) -> str:
        return f"<flow {self.id!r}>"

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - the usual word for it
        """Wait for the flow's result, for at most `timeout` seconds (default: as long as it takes).

        Raises what the flow raised (where its class is imported here; `StepFailed` otherwise), `FlowCancelled`,
        `FlowParked`, `FlowNotFound`, and `TimeoutError`: the flow goes on, and waiting again is fine.
        """
        return self._outcome(await self._settled(timeout))

    async def wait_settled(self, timeout: float | None = None) -> FlowRecord:  # noqa: ASYNC109 - as above
        """Wait until the flow has ended or is parked, and return its record."""
        await self._settled(timeout)
        return await self.record()

    async def _settled(self, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as above
        watcher = self._watcher()
        future = watcher.watch(self.id)
        try:
            return await (future if timeout is None else self._within(timeout, future))
        finally:
            watcher.leave(self.id, future)

    async def _within(self, seconds: float, future: asyncio.Future[Settled]) -> Settled:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await future
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"flow {self.id!r} was not seen to end within {seconds:g} s. That stops nothing: wait again, or ask "
                "`await handle.why()` what it waits for"
            ) from None

    def _watcher(self) -> Watcher:
        """Who tells how the flow ends, for `_outcome`. Raises `NotInFlow`."""
        if current_machine() is not None:
            raise NotInFlow(
                "a handle cannot be awaited inside a flow, where waiting is recorded: use invoke(child)."
            )
        return watcher_of(self._log)

    def _outcome(self, settled: Settled) -> R:
        """The result of a flow that was left so, or what it raised."""
        error = self._failure(settled)
        if error is None:
            return self._decoder.decode(settled.output if settled.output is not None else "null")  # type: ignore[no-any-return]
        try:
            raise error
        finally:
            del error  # or its traceback would lead back to it

    def _failure(self, settled: Settled) -> Exception | None:
        """What a flow that was left so raised; None: it completed."""
        if settled.status is TaskStatus.COMPLETED:
            return None
        if settled.status is TaskStatus.PARKED:
            return FlowParked(self.id, settled.reason)
        error = (
            rebuild(settled.output) if settled.output is not None else FlowCancelled(self.id, settled.reason)
        )
        if not isinstance(error, FlowError):
            error.add_note(f"raised by flow {self.id!r}")  # its own cause and context stay as they were
        return error

    async def record(self) -> FlowRecord:
        """The flow as the log keeps it now. Raises `FlowNotFound`."""
        record = await self._log.find(self.id)
        if record is None:
            raise FlowNotFound(self.id)
        return record

    async def status(self) -> TaskStatus:
        """Where the flow stands. Raises `FlowNotFound`."""
        return (await self.record()).status

    async def why(self) -> str:
        """One sentence: what the flow waits for, with the evidence. Raises `FlowNotFound`."""
        from ergon.scheduler.why import why  # for people: most programs never ask

        return await why(self._log, self.id)

    async def signal(self, name: str, value: Any = None, *, key: str | None = None) -> None:
        """Send the flow a signal. When this returns, the signal is kept until a wait takes it.

        key: repeating a signal with the same key changes nothing, so a call that timed out can be repeated.
        Raises `FlowNotFound`, `IllegalMove` when the flow has ended, `EncodingError`.
        """
        check_name("signal name", name)
        if key is not None:
            check_name("signal key", key)
        await self._log.send(Message(self.id, MessageKind.SIGNAL, name, encode(value), key))

    async def cancel(self, reason: str = "", *, again: bool = False) -> None:
        """Ask the flow to stop.

        `CancelledError` is raised where it waits, running steps are cancelled, children follow. Its `except` and
        `finally` blocks run, durably. Repeating it is safe: a flow that cleans up after an earlier cancel is left to do
        so, and is interrupted once more only if it goes on instead of ending, or fails and is tried again.

        again: interrupt it now, also while it cleans up: for a clean-up that hangs.
        Raises `FlowNotFound`, and `IllegalMove` when the flow has ended.
        """
        name = CancelName.AGAIN if again else CancelName.PERSON
        await self._log.send(Message(self.id, MessageKind.CANCEL, name, encode(reason), CANCEL_KEY))

    async def kill(self, reason: str = "") -> None:
        """Stop the flow without running any more of its code. Raises `FlowNotFound`, `IllegalMove`."""
        await self._log.move(self.id, TaskStatus.CANCELLED, reason=reason or "killed")

    async def delete(self) -> bool:
        """Remove an ended flow with its history and children. False when there is none; `IllegalMove` if it runs."""
        return await self._log.delete(self.id)

    async def pause(self, reason: str = "") -> None:
        """Hold the flow back until it is resumed. Raises `FlowNotFound`, `IllegalMove`.

        A step that is running has no result then: it is cancelled (a plain function on a thread runs to its end, which
        is not recorded), and runs again after `resume`, an at-most-once step under the rules for those.
        """
        await self._log.move(self.id, TaskStatus.PAUSED, reason=reason or "paused")

    async def resume(self) -> None:
        """Let a paused or parked flow go on. Raises `FlowNotFound`, `IllegalMove`."""
        try:
            await self._log.move(self.id, TaskStatus.PENDING, only=HELD)
        except IllegalMove as error:
            advice = "; `retry` tries it again" if error.status == TaskStatus.FAILED else ""
            raise IllegalMove(
                f"flow {self.id!r} is {error.status}; only a paused or parked flow can be resumed{advice}",
                status=error.status,
            ) from None

    async def retry(self) -> None:
        """Try a failed flow again; what it completed is kept. Raises `FlowNotFound`, `IllegalMove`.

        It starts from its entry, with the code of now. A step or child that completed gives its result again where the
        flow calls it with the same arguments: at its old place, or at another when the code has changed there. A step
        with another name or other arguments is another one, and runs. An at-most-once step that was started is not
        started again. A step that failed runs again with the idempotency key it had. Signals that the flow received it
        receives again. Timers run anew; only a sleep that was slept before anything that is done anew is over at once.
        """
        try:
            await self._log.move(self.id, TaskStatus.PENDING, only={TaskStatus.FAILED})
        except IllegalMove as error:
            advice = "; `resume` lets it go on" if error.status in HELD else ""
            raise IllegalMove(
                f"flow {self.id!r} is {error.status}; only a failed flow can be tried again{advice}",
                status=error.status,
            ) from None

    async def reschedule(self, *, delay: float | None = None, at: datetime | None = None) -> None:
        """Let a flow that has not started begin at another time: in `delay` seconds, or `at`; neither: now.

        A paused flow stays paused until it is resumed. Raises `FlowNotFound`, `IllegalMove` when it has started,
        `UsageError`.
        """
        await self._log.reschedule(self.id, at=start_at(at, delay), delay_seconds=delay)

    async def retry_now(self) -> None:
        """Let a flow that backs off, or steps of it that do, be tried again at once instead of at the time set.

        The attempt counts like any other. Raises `FlowNotFound`, `IllegalMove` when nothing waits to be tried again.
        """
        await self._log.retry_now(self.id)
