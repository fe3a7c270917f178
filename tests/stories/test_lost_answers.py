"""The disk fails just when a claim has been written, so that nobody knows whether it was: no flow is stranded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from ergon import ExecutionLog, Scheduler, SqliteExecutionLog, flow, step, wait_signal
from ergon.core.commit import Commit, Received
from ergon.errors import LogBusy, LogClosed
from ergon.executor.inbox import Inbox
from ergon.storage.sqlite.group import GroupCommit
from tests.stories.helpers import start, until, worker


@step
async def one() -> int:
    return 1


@flow
async def process() -> int:
    return await one()


def brings_flows(what: Any) -> bool:
    return getattr(what, "name", "") == "claim" and bool(what.result.nums)


def consumes(what: Any) -> bool:
    return isinstance(what, Commit) and bool(what.consumed)


class FailingDisk:
    """Loses the answer of one write, by default a claim: its COMMIT and the next opening of the file fail."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, strikes: Callable[[Any], bool] = brings_flows
    ) -> None:
        self.armed = self.struck = False
        attempt = GroupCommit._attempt

        def attempt_and_fail(group: GroupCommit, batch: Any) -> Any:
            answer = attempt(group, batch)
            if self.armed and any(map(strikes, batch)):
                self.armed, self.struck = False, True
                self.fail_next_opening(group)
                raise io_error()
            return answer

        monkeypatch.setattr(GroupCommit, "_attempt", attempt_and_fail)

    def fail_next_opening(self, group: GroupCommit) -> None:
        connect = group._connect

        def fail_once() -> sqlite3.Connection:
            group._connect = connect
            raise io_error()

        group._connect = fail_once


def io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


async def test_a_flow_whose_claim_landed_though_it_reported_an_error_runs_soon(
    log: SqliteExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingDisk(monkeypatch)

    async with worker(log, process):
        assert await (await start(log, process.bind(), id="before")).result(10) == 1
        disk.armed = True
        try:
            handle = await start(log, process.bind(), delay=0.01)  # else it needs no claim
        except LogBusy:  # the claim was in its batch, so that nobody knows of the flow's creation either
            handle = await start(log, process.bind(), delay=0.01)

        assert await handle.result(10) == 1

    assert disk.struck


@flow
async def waits_for_word() -> str:
    return await wait_signal("word", str)


@flow
async def stops_waiting() -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await waits_for_word()
    return await wait_signal("go", str)


async def test_a_commit_that_also_drops_a_message_is_repeated_when_its_answer_was_lost(
    log: SqliteExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word of the end of a child that nobody waits for any more: it was taken to have been dropped by somebody else."""
    disk = FailingDisk(monkeypatch, consumes)
    dropped: list[Received] = []
    take_child = Inbox._take_child

    def take_and_note(inbox: Inbox, message: Received) -> bool:
        dropped.append(message)
        return take_child(inbox, message)

    monkeypatch.setattr(Inbox, "_take_child", take_and_note)

    async with worker(log, stops_waiting, waits_for_word, evict_after_seconds=60.0):
        handle = await start(log, stops_waiting.bind())
        child = Scheduler(log).handle("f/0:1")
        await until(lambda: log.find(child.id))
        await child.wait_settled(10)
        disk.armed = True
        await until(lambda: dropped)
        await handle.signal("go", "went")

        assert await handle.result(10) == "went"

    assert disk.struck


async def test_a_flow_that_its_worker_could_not_let_go_is_given_back(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its run ends here by a defect, and it is still this worker's in the log."""
    failed: list[Commit] = []
    submit = log.submit

    def fail_once(commit: Commit, done: Any) -> None:
        if commit.settled is not None and not failed:
            failed.append(commit)
            done(LogClosed("as if"))
        else:
            submit(commit, done)

    monkeypatch.setattr(log, "submit", fail_once)
    caplog.set_level(logging.WARNING, "ergon.worker")

    async with worker(log, process, lease_seconds=2.0):
        assert await (await start(log, process.bind())).result(10) == 1

    assert failed
    assert "is given back" in caplog.text
