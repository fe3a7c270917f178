"""A log that refuses commits for a while, as on a full disk, is told once for all flows, and once when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ergon import ExecutionLog, LogClosed, LogFull, flow, step
from ergon.core.commit import Commit
from ergon.executor import outbox
from ergon.executor.refusals import REMIND_SECONDS, Refusals
from ergon.worker import service
from tests.stories.helpers import start, until, worker


@step
async def work() -> int:
    return 1


@flow
async def works() -> int:
    return await work()


async def test_a_full_disk_is_told_once_for_all_flows_and_once_when_there_is_room(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[str] = []
    full = True
    submit = log.submit

    def refuse(commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        if not full:
            submit(commit, done)
            return
        refused.append(commit.flow_id)
        asyncio.get_running_loop().call_soon(done, LogFull("log x: no room to write"))

    monkeypatch.setattr(outbox, "RESUBMIT_SECONDS", 0.01)
    monkeypatch.setattr(log, "submit", refuse)
    async with worker(log, works):
        handles = [await start(log, works.bind(), f"f-{number}") for number in range(5)]
        await until(lambda: min(refused.count(handle.id) for handle in handles) >= 3)
        full = False
        assert [await handle.result(10) for handle in handles] == [1] * 5

    told = [record.getMessage() for record in caplog.records if record.name == "ergon.executor"]
    assert len(told) == 2, told
    assert told[0].startswith("log x: no room to write; flows keep what they did")
    assert told[1] == "the log takes commits again; flows go on"


def test_a_log_that_refuses_now_and_then_or_for_long_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    refusals = Refusals(clock=lambda: now)
    for _ in range(3):
        refusals.met(LogFull("full"), 0.5)
        refusals.over()
    assert len(caplog.records) == 2

    refusals.met(LogFull("full"), 0.5)
    now += REMIND_SECONDS
    refusals.met(LogFull("full"), 0.5)
    refusals.met(LogFull("full"), 0.5)
    refusals.over()

    assert [record.getMessage()[:7] for record in caplog.records] == ["full; f", "the log"] * 2


async def test_a_service_that_the_log_refuses_says_so_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "AFTER_ERROR_SECONDS", 0.0)
    answers: list[Exception] = [LogFull("full")] * 5 + [LogClosed("closed")]

    async def tick() -> None:
        raise answers.pop(0)

    await service.every(0.0, tick, name="claimer")

    assert [record.getMessage() for record in caplog.records] == ["claimer: full; trying again every 0 s"]
