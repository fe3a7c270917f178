"""An operator does not want to wait for the next attempt."""

from __future__ import annotations

import asyncio

import pytest

from ergon import ExecutionLog, FlowNotFound, IllegalMove, RetryPolicy, Scheduler, flow, now, step
from tests.stories.helpers import kinds, start, until, until_status, worker

ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@pytest.fixture
def soon_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow with a step that backs off leaves memory after a moment, not after a minute."""
    monkeypatch.setattr("ergon.worker.residents.STEP_WAIT_EVICT_SECONDS", 0.05)


HOURLY = RetryPolicy(attempts_max=3, first_delay_seconds=3_600, delay_max_seconds=3_600)


@pytest.mark.every_log
async def test_a_flow_that_backs_off_is_tried_again_at_once_when_an_operator_asks(
    either_log: ExecutionLog,
) -> None:
    """Its time goes on from that moment, not from the time that had been set."""

    @flow(retry=HOURLY)
    async def job() -> float:
        ran.append("job")
        if len(ran) == 1:
            raise ConnectionError
        async with asyncio.timeout(60):
            await asyncio.sleep(0.05)
        return now().timestamp()

    async with worker(either_log, job):
        handle = await start(either_log, job.bind())
        await until_status(handle, "suspended")
        await handle.retry_now()

        assert await handle.result(10) == pytest.approx(either_log.now(), abs=10)
    assert await kinds(either_log) == ["flow_retried", "retry_now", "timer_fired"]
    with pytest.raises(IllegalMove, match="nothing of it waits"):
        await handle.retry_now()


async def test_asking_for_the_next_attempt_uses_up_one_attempt_like_any_other(log: ExecutionLog) -> None:
    @flow(retry=HOURLY)
    async def fails() -> None:
        ran.append("fails")
        raise ConnectionError

    async with worker(log, fails):
        handle = await start(log, fails.bind())
        for number in (1, 2):
            await until(lambda: len(ran) == number)  # noqa: B023 - awaited in this very round
            await until_status(handle, "suspended")
            await handle.retry_now()
        with pytest.raises(ConnectionError):
            await handle.result(10)
    assert len(ran) == 3


@pytest.mark.usefixtures("soon_evicted")
@pytest.mark.parametrize("stays", [True, False], ids=["in memory", "suspended"])
async def test_a_step_that_backs_off_is_tried_again_at_once_when_an_operator_asks(
    either_log: ExecutionLog, stays: bool
) -> None:
    """In memory beside a step that runs, and when the flow has left memory."""
    gate = asyncio.Event()

    @step(retry=HOURLY)
    async def charge() -> str:
        ran.append("charge")
        if len(ran) == 1:
            raise ConnectionError
        return "paid"

    @step
    async def busy() -> None:
        await gate.wait()

    @flow
    async def job() -> str:
        async def rest() -> None:
            if stays:
                await busy()

        paid, _ = await asyncio.gather(charge(), rest())
        return paid

    async with worker(either_log, job):
        handle = await start(either_log, job.bind())

        async def backs_off() -> bool:
            return "step_retried" in await kinds(either_log)

        await until(backs_off)
        if not stays:
            await until_status(handle, "suspended")
        await handle.retry_now()
        await until(lambda: len(ran) == 2)
        gate.set()
        assert await handle.result(10) == "paid"
    assert "retry_now" in await kinds(either_log)


@pytest.mark.usefixtures("soon_evicted")
async def test_an_attempt_asked_for_is_not_put_off_again_by_a_crash(log: ExecutionLog) -> None:
    """The event tells the next worker, though it finds the time that had been set."""

    @step(retry=HOURLY)
    async def charge() -> str:
        ran.append("charge")
        if len(ran) == 1:
            raise ConnectionError
        if len(ran) == 2:
            await asyncio.Event().wait()
        return "paid"

    @flow
    async def job() -> str:
        return await charge()

    first = worker(log, job)
    await first.start()
    handle = await start(log, job.bind())
    await until_status(handle, "suspended")
    await handle.retry_now()
    await until(lambda: len(ran) == 2)
    await first.shutdown(0.0)
    async with worker(log, job):
        assert await handle.result(10) == "paid"


async def test_a_flow_that_nothing_of_waits_to_be_tried_again_says_so(log: ExecutionLog) -> None:
    @flow
    async def job() -> None: ...

    handle = await start(log, job.bind(), delay=60.0)
    with pytest.raises(IllegalMove, match="is pending; nothing of it waits to be tried again"):
        await handle.retry_now()
    await handle.pause()
    with pytest.raises(IllegalMove, match="is paused"):
        await handle.retry_now()
    with pytest.raises(FlowNotFound):
        await Scheduler(log).handle("nobody").retry_now()
