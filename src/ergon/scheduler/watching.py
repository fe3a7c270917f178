"""Wait until flows have ended: one watcher per log, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Final
from weakref import WeakKeyDictionary

from ergon.core.commit import Hint, Settled
from ergon.core.status import TERMINAL, TaskStatus
from ergon.errors import FlowNotFound, LogDamaged, StoreError
from ergon.storage.log import ExecutionLog

POLL_SECONDS: Final = 1.0
"""How often to look when no hint comes."""

_CHUNK: Final = 500
_SETTLED: Final = TERMINAL | {TaskStatus.PARKED}


class Watcher:
    """Tells those who wait when their flow has ended or is parked."""

    def __init__(self, log: ExecutionLog) -> None:
        self.loop = asyncio.get_running_loop()
        self._log = weakref.ref(log)  # a watcher must not keep the log it is looked up by
        self._waiting: dict[str, list[asyncio.Future[Settled]]] = {}
        self._due: set[str] = set()
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, flow_id: str) -> asyncio.Future[Settled]:
        """The future of how the flow ends or why it is parked. Give it to `leave` when nobody waits for it any more.

        It fails with `FlowNotFound`, also when the flow is deleted.
        """
        future: asyncio.Future[Settled] = self.loop.create_future()
        waiting = self._waiting.get(flow_id)
        if waiting is None:
            self._waiting[flow_id] = [future]
        else:
            waiting.append(future)
        self._due.add(flow_id)
        self._look.set()
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._watch(), name="ergon-results")
        return future

    def leave(self, flow_id: str, future: asyncio.Future[Settled]) -> None:
        """Stop watching for this future, if it was not answered."""
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
                self._tell(flow_id, settled)
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
                due, self._due = sorted(self._due & self._waiting.keys()), set()
                for start in range(0, len(due), _CHUNK):
                    await self._look_at(log, due[start : start + _CHUNK])
        except Exception as error:  # noqa: BLE001 - also a defect of the log's: whoever waits must hear of it
            for future in (future for futures in self._waiting.values() for future in futures):
                if not future.done():
                    future.set_exception(error)
        finally:
            unsubscribe()

    async def _look_at(self, log: ExecutionLog, flow_ids: list[str]) -> None:
        while True:
            try:
                records, absent = await log.ended_or_parked(flow_ids)
                break
            except LogDamaged as error:
                if error.flow_id not in flow_ids:
                    raise
                self._fail(error.flow_id, error)
                flow_ids = [flow_id for flow_id in flow_ids if flow_id != error.flow_id]
        for record in records:
            self._tell(record.id, Settled(record.status, record.output, reason=record.reason))
        for flow_id in absent:
            self._fail(flow_id, FlowNotFound(flow_id))

    def _tell(self, flow_id: str, settled: Settled) -> None:
        for future in self._waiting.pop(flow_id, ()):
            if not future.done():
                future.set_result(settled)

    def _fail(self, flow_id: str, error: StoreError) -> None:
        for future in self._waiting.pop(flow_id, ()):
            if not future.done():
                future.set_exception(error)


_watchers: WeakKeyDictionary[ExecutionLog, Watcher] = WeakKeyDictionary()


def watcher_of(log: ExecutionLog) -> Watcher:
    """The log's watcher on the running event loop."""
    watcher = _watchers.get(log)
    if watcher is None or watcher.loop is not asyncio.get_running_loop():
        watcher = _watchers[log] = Watcher(log)
    return watcher
