"""What runs in the processes under test: a log, perhaps a worker, and a client that notes each answer it got.

The same program is started again after a kill, as a user would start it: it repeats every call of the client with
the same ids and keys. It ends by itself once the client has all results, and says so with DONE.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import resource
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ergon import (
    ExecutionLog,
    FlowCall,
    FlowError,
    FlowHandle,
    FlowNotFound,
    IllegalMove,
    Scheduler,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
)
from ergon.flows.context import step_context
from ergon.storage import failpoints
from tests.crash.ledger import Ledger, read_ledger

_OPEN: Final[list[Ledger]] = []
"""This process's ledger."""

CLAIMS_STALLED_MAX: Final = 1_000
"""The breaker for flows that kill their workers would park what we kill on purpose."""


# -- what step bodies do ---------------------------------------------------------------------------------


async def effect(label: str, *saw: str, seconds: float = 0.001, fail: str = "", amo: bool = False) -> str:
    """Leave a trace outside, and return a token that no other execution returns.

    saw: tokens that the flow gave to this step. They must be durable by now, or a crash could still change them.
    """
    with effecting(label, *saw, amo=amo) as token:
        await asyncio.sleep(seconds)
        if fail:
            raise RuntimeError(fail)
        return token


class effecting:  # noqa: N801 - reads as a word where it is used
    """`effect` around a body of the step's own."""

    def __init__(self, label: str, *saw: str, amo: bool = False) -> None:
        self._ledger = ledger_of_process()
        self._token = f"{label}.{secrets.token_hex(4)}"
        self._facts = {"label": label, "token": self._token, "saw": list(saw), "amo": amo, **where_am_i()}

    def __enter__(self) -> str:
        self._ledger.write("BEGIN", **self._facts)
        return self._token

    def __exit__(self, *_: object) -> None:
        self._ledger.write("END", **self._facts)


def where_am_i() -> dict[str, Any]:
    """Which execution of which step this is."""
    body: Any = step_context.get()
    assert body is not None, "outside a step"
    record = body.work.record
    return {
        "key": body.idempotency_key,
        "flow": body.flow_id,
        "op": body.op.id,
        "attempt": body.attempt,
        "flow_attempt": body.op.machine.attempt,
        "epoch": record.epoch,
        "owner": record.owner,
    }


def note(kind: str = "NOTE", /, **facts: Any) -> None:
    """Write something else to the ledger."""
    ledger_of_process().write(kind, **facts)


def ledger_of_process() -> Ledger:
    """The ledger this process writes to."""
    return _OPEN[0]


def use_ledger(ledger: Ledger) -> Ledger:
    """Make this the process's ledger."""
    _OPEN[:] = [ledger]
    return ledger


def happened_before(kind: str, /, **facts: Any) -> bool:
    """Whether any process wrote such a record."""
    records = read_ledger(ledger_of_process().path)
    return any(record.kind == kind and facts.items() <= record.facts.items() for record in records)


# -- the client ------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What a scenario's client works with."""

    log: ExecutionLog
    ledger: Ledger
    worker: Worker | None = None
    results: dict[str, str] = field(default_factory=dict)

    async def schedule(self, call: FlowCall[Any], id: str, **options: Any) -> FlowHandle[Any]:
        """Start a flow; acknowledged once this is in the ledger."""
        handle = await Scheduler(self.log).schedule(call, id=id, **options)
        self.ledger.write("ACK", what="schedule", flow=id)
        return handle

    async def schedule_all(self, calls: Sequence[FlowCall[Any]], ids: Sequence[str]) -> list[FlowHandle[Any]]:
        """Start many flows in one call; acknowledged once all of them are in the ledger."""
        handles: list[FlowHandle[Any]] = await Scheduler(self.log).schedule_all(calls, ids=ids)
        for id in ids:
            self.ledger.write("ACK", what="schedule", flow=id)
        return handles

    async def signal(self, handle: FlowHandle[Any], name: str, value: str, *, key: str) -> None:
        """Send a signal, once or again."""
        try:
            await handle.signal(name, value, key=key)
        except IllegalMove:
            self.ledger.write("NOTE", what="signal came too late", flow=handle.id, key=key)
        else:
            self.ledger.write("ACK", what="signal", flow=handle.id, name=name, key=key, value=value)

    async def cancel(self, handle: FlowHandle[Any], reason: str) -> None:
        """Ask a flow to stop."""
        try:
            await handle.cancel(reason)
        except IllegalMove:
            self.ledger.write("NOTE", what="cancel came too late", flow=handle.id)
        else:
            self.ledger.write("ACK", what="cancel", flow=handle.id)

    async def result(self, handle: FlowHandle[Any]) -> Any:
        """Wait for the outcome and note it: from now on it may never be another."""
        try:
            value = await handle.result()
            self.ledger.write("RESULT", flow=handle.id, value=value)
            return value
        except FlowError as error:
            self.ledger.write("RESULT", flow=handle.id, value=f"{type(error).__name__}: {error}")
            return error
        except Exception as error:
            self.ledger.write("RESULT", flow=handle.id, value=f"{type(error).__name__}: {error}")
            return error

    async def operate(self, what: str, handle: FlowHandle[Any], act: Awaitable[Any]) -> None:
        """Do what an operator does, once or again."""
        try:
            await act
        except (IllegalMove, FlowNotFound):
            self.ledger.write("NOTE", what=f"{what} came too late", flow=handle.id)
        else:
            self.ledger.write("ACK", what=what, flow=handle.id)

    async def until_event(self, handle: FlowHandle[Any], kind: str) -> None:
        """Wait until the flow's history has such an event."""
        while not any(event.kind == kind for event in await self.log.history(handle.id)):
            await asyncio.sleep(0.002)

    async def until(self, kind: str, /, **facts: Any) -> None:
        """Wait until the ledger has such a record, whoever wrote it."""
        while not happened_before(kind, **facts):
            await asyncio.sleep(0.002)


Main = Callable[[Stage], Awaitable[None]]


def run(
    *,
    scenario: str,
    folder: str,
    failpoint: str = "",
    trace: str | None = None,
    freeze: str = "",
    file_bytes_max: int = 0,
    log: str | None = None,
    bug: str = "",
    role: str = "both",
    name: str = "w",
    options: dict[str, Any] | None = None,
) -> None:
    """Entry of a process: play `scenario` in `folder`.

    failpoint: where to die. freeze: where to stop by SIGSTOP instead, until somebody sends SIGCONT.
    role: both, worker or client.
    """
    logging.basicConfig(format=f"%(relativeCreated)6d {os.getpid()} %(name)s %(levelname)s %(message)s")
    ledger = use_ledger(Ledger(Path(folder) / "ledger"))
    start = len(read_ledger(ledger.path))
    os.environ.update(CRASH_LEDGER=str(ledger.path), CRASH_POINT=failpoint, CRASH_START=str(start))
    call, _, rest = failpoint.partition(":")
    if call in ("begin", "end"):
        _arm_ledger(ledger, call.upper(), int(rest))
        failpoint = ""
    if failpoint or trace:
        failpoints.arm(failpoint, trace=trace)
    if freeze:
        _freeze_at(freeze)
    if file_bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))
    if bug:
        importlib.import_module("tests.crash.planted").plant(bug)
    path = Path(log) if log is not None else Path(folder) / "log.db"
    asyncio.run(_play(Part(scenario, path, role, name, options or {}), ledger))


def freeze_self(where: str) -> None:
    """Stop this process as a debugger, a laptop's lid or a hypervisor would, until SIGCONT."""
    note("NEM", what="stop", target=os.getpid(), where=where)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.02)  # the signal may take another thread first: do nothing until it has all of them


def _freeze_at(point: str) -> None:
    """Stop at a failpoint, once. Neither moment holds the log's write lock; `inside` is the one that does."""
    if point == "inside":
        _freeze_inside()
        return
    armed = failpoints.arm(point)

    def stop() -> None:
        armed.number, armed._due = 0, False
        freeze_self(point)

    failpoints.die = stop


def _freeze_inside() -> None:
    """Stop in the middle of the second transaction that holds a commit: the write lock is ours then.

    A lone event is one statement, whose lock no Python code ever holds, so here it takes the way of all other commits.
    """
    from ergon.core.commit import Commit
    from ergon.storage.sqlite.group import GroupCommit

    together, seen = GroupCommit._apply_together, 0

    def stop(self: GroupCommit, tx: Any, batch: Any) -> None:
        nonlocal seen
        together(self, tx, batch)
        seen += any(isinstance(what, Commit) for what in batch)
        if seen == 2:
            seen = 3
            freeze_self("inside")

    GroupCommit._is_written_lone = lambda self, what: False  # type: ignore[method-assign]
    GroupCommit._apply_together = stop  # type: ignore[method-assign]


def _arm_ledger(ledger: Ledger, kind: str, number: int) -> None:
    """Die in a step's body: right after the n-th record of this kind."""
    write, count = ledger.write, 0

    def write_and_die(what: str, /, **facts: Any) -> None:
        nonlocal count
        write(what, **facts)
        count += what == kind
        if count == number:
            failpoints.die()

    ledger.write = write_and_die  # type: ignore[method-assign]


@dataclass(frozen=True)
class Part:
    """What a process has to play."""

    scenario: str
    log: Path
    role: str
    name: str
    options: dict[str, Any]


async def _play(part: Part, ledger: Ledger) -> None:
    from tests.crash.scenarios import SCENARIOS, SHARED

    play = (SCENARIOS | SHARED)[part.scenario]
    if play.prepare is not None:
        play.prepare()
    async with SqliteExecutionLog(part.log) as log:
        stage = Stage(log, ledger)
        worker = None
        if part.role != "client" and play.flows:
            chosen = (
                {"claims_stalled_max": CLAIMS_STALLED_MAX, "lease_seconds": 30.0}
                | play.options
                | part.options
            )
            worker = Worker(
                log, part.name, flows=play.flows, queues=play.queues, options=WorkerOptions(**chosen)
            )
            await worker.start()
            stage.worker = worker
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
        try:
            if part.role == "worker":
                await terminated.wait()
            else:
                await _until_first(play.main(stage), terminated)
                if worker is not None and not terminated.is_set():
                    await log.reap()  # all may have ended before the worker's own first look was answered
        finally:
            if worker is not None:
                await worker.shutdown()
    if not terminated.is_set():
        ledger.write("DONE")


async def _until_first(main: Awaitable[None], terminated: asyncio.Event) -> None:
    """Run the client until it is through, or SIGTERM asks to drain."""
    tasks = {asyncio.ensure_future(main), asyncio.create_task(terminated.wait())}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()
