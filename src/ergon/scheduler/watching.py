"""Wait until flows have ended: one watcher per log, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Collection, Iterable, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from ergon.core.commit import FlowRecord, Hint, Settled
from ergon.core.status import TERMINAL, TaskStatus
from ergon.errors import FlowNotFound, LogDamaged
from ergon.storage import eager
from ergon.storage.log import ExecutionLog

POLL_SECONDS: Final = 1.0
"""How often to look when no hint comes."""

Wait = asyncio.Future[Settled]
"""One who waits for a flow."""

_CHUNK: Final = 500
_SETTLED: Final = TERMINAL | {TaskStatus.PARKED}


class Watcher:
    """Tells those who wait when their flow has ended or is parked."""

    def __init__(self, log: ExecutionLog) -> None:
        self.loop = asyncio.get_running_loop()
        self._log = weakref.ref(log)  # a watcher must not keep the log it is looked up by
        self._waiting: dict[str, list[Wait]] = {}
        self._new: set[str] = set()
        """Flows that somebody waits for since the last look, and that may have ended before it."""
        self._due: set[str] = set()
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, flow_id: str) -> Wait:
        """Wait for how the flow ends or why it is parked. Whoever does must `leave` in the end.

        The future fails with `FlowNotFound`, also when the flow is deleted.
        """
        future: Wait = self.loop.create_future()
        waiting = self._waiting.get(flow_id)
        if waiting is None:
            self._waiting[flow_id] = [future]
        else:
            waiting.append(future)
        self._new.add(flow_id)
        self._look.set()
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._watch(), name="ergon-results")
        return future

    def leave(self, flow_id: str, future: Wait) -> None:
        """Nobody waits for this future any more, answered or not."""
        future.cancel()  # of one that failed this says that nobody need ask why
        waiting = self._waiting.get(flow_id)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[flow_id]

    def _on_hint(self, hint: Hint) -> None:
        if hint.elsewhere:
            self._due.update(self._waiting)
            self._look.set()
            return
        for flow_id, settled in hint.settled.items():
            if flow_id not in self._waiting:
                continue
            if settled is not None and settled.status in _SETTLED:
                _tell(self._waiting.pop(flow_id), settled)
            else:
                self._due.add(flow_id)
                self._look.set()
        if not self._waiting:
            self._look.set()  # nothing is left to watch

    async def _watch(self) -> None:
        log = self._log()
        assert log is not None, "whoever waits holds the log"
        unsubscribe = log.subscribe(self._on_hint)
        poll_at = self.loop.time() + POLL_SECONDS
        try:
            while self._waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(poll_at):
                        await self._look.wait()
                if self.loop.time() >= poll_at:  # also while hints and new waits come all the time
                    self._due.update(self._waiting)
                    poll_at = self.loop.time() + POLL_SECONDS
                self._look.clear()
                # One that a worker of this process runs has not ended yet, and the log will hint when it does.
                self._due.update(flow_id for flow_id in self._new if not eager.runs(log, flow_id))
                self._new.clear()
                due, self._due = sorted(self._due & self._waiting.keys()), set()
                for start in range(0, len(due), _CHUNK):
                    await self._look_at(log, due[start : start + _CHUNK])
        except Exception as error:  # noqa: BLE001 - also a defect of the log's: whoever waits must hear of it
            waiting, self._waiting = self._waiting, {}
            for futures in waiting.values():
                _fail(futures, error)
        finally:
            unsubscribe()

    async def _look_at(self, log: ExecutionLog, flow_ids: list[str]) -> None:
        """Read how flows stand, and tell whoever waits already. What is read here may be old to one who comes later."""
        asked = {flow_id: tuple(self._waiting[flow_id]) for flow_id in flow_ids if flow_id in self._waiting}
        records, absent = await self._read(log, asked)
        for record in records:
            settled = Settled(record.status, record.output, reason=record.reason)
            _tell(self._taken(record.id, asked[record.id]), settled)
        for flow_id in absent:
            _fail(self._taken(flow_id, asked[flow_id]), FlowNotFound(flow_id))

    async def _read(
        self, log: ExecutionLog, asked: dict[str, tuple[Wait, ...]]
    ) -> tuple[Sequence[FlowRecord], Collection[str]]:
        while asked:
            try:
                return await log.ended_or_parked(list(asked))
            except LogDamaged as error:
                if error.flow_id not in asked:
                    raise
                _fail(self._taken(error.flow_id, asked.pop(error.flow_id)), error)
        return (), ()

    def _taken(self, flow_id: str, futures: tuple[Wait, ...]) -> tuple[Wait, ...]:
        """These futures, which wait no more from now on."""
        waiting = self._waiting.get(flow_id)
        if waiting is not None:
            left = [future for future in waiting if future not in futures]
            if left:
                self._waiting[flow_id] = left
            else:
                del self._waiting[flow_id]
        return futures


def _tell(futures: Iterable[Wait], settled: Settled) -> None:
    for future in futures:
        if not future.done():
            future.set_result(settled)


def _fail(futures: Iterable[Wait], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


_watchers: WeakKeyDictionary[ExecutionLog, Watcher] = WeakKeyDictionary()


def watcher_of(log: ExecutionLog) -> Watcher:
    """The log's watcher on the running event loop."""
    watcher = _watchers.get(log)
    if watcher is None or watcher.loop is not asyncio.get_running_loop():
        watcher = _watchers[log] = Watcher(log)
    return watcher
