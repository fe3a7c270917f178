"""`why` says in one sentence, for every state, what a flow waits for."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    FlowNotFound,
    RetryPolicy,
    Scheduler,
    SqliteExecutionLog,
    flow,
    step,
    wait_signal,
)
from ergon.core.commit import ClaimRequest
from ergon.scheduler.waits import up_to_date
from ergon.storage.process import this_process
from tests.storage import kit
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker


@step(retry=RetryPolicy(attempts_max=2, first_delay_seconds=3_600, delay_max_seconds=3_600))
async def unsteady() -> None:
    raise ConnectionError("down")


@flow
async def retries() -> None:
    await unsteady()


@flow
async def waits() -> None:
    await wait_signal("approval")


@flow
async def has_a_child() -> None:
    await waits()


@flow
async def many() -> None:
    await asyncio.gather(*(wait_signal(f"signal-{number}") for number in range(5)))


@flow
async def ends() -> str:
    return "done"


@flow
async def fails() -> None:
    raise ValueError("no")


@pytest.mark.every_log
async def test_a_flow_that_is_asked_to_cancel_and_cannot_hear_it_says_so(log: ExecutionLog) -> None:
    async with worker(log, waits):
        handle = await start(log, waits.bind())
        await until_status(handle, "suspended")
    assert "cancel" not in await handle.why()

    await handle.cancel()

    assert "; it is asked to cancel, which it will hear when it runs" in await handle.why()
    async with worker(log, waits):
        await until_status(handle, "cancelled")
    assert "asked to" not in await handle.why()


@pytest.mark.every_log
async def test_a_ready_flow_names_what_is_missing(log: ExecutionLog) -> None:
    handle = await start(log, waits.bind())

    assert "no worker is alive" in await handle.why()
    async with worker(log, ends, name="the-other"):
        assert "no live worker has code for flow `waits` (alive: the-other)" in await handle.why()
    async with worker(log, waits, queues=["mail"]):
        told = await handle.why()
    assert "no live worker with its code takes from queue `default` (they take from `mail`)" in told


async def test_a_name_that_no_live_worker_knows_is_answered_with_the_nearest_that_one_does(
    log: ExecutionLog,
) -> None:
    """Whoever starts a flow by its name may misspell it, and nothing refuses that: its worker may come later."""
    scheduler = Scheduler(log)
    misspelt = await scheduler.schedule_named("wiats", {}, id="now")
    later = await scheduler.schedule_named("wiats", {}, id="later", delay=3_600)
    other = await scheduler.schedule_named("zzz", {}, id="other")

    async with worker(log, waits, ends, name="the-one"):
        told = "no live worker has code for flow `wiats`; did you mean `waits`? (alive: the-one)"
        assert await misspelt.why() == f"flow 'now' is ready, but {told}"
        assert (await later.why()).endswith(f"; as of now {told}")
        assert "did you mean" not in await other.why()


@pytest.mark.every_log
async def test_a_running_flow_names_its_step_its_worker_and_the_line_of_code(log: ExecutionLog) -> None:
    """Long before its lease is renewed: whoever asks does so because nothing seems to move."""
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        await gate.wait()

    @flow
    async def busy() -> None:
        await slow()

    async with worker(log, busy, lease_seconds=60, name="w-1"):
        handle = await start(log, busy.bind())

        async def named() -> bool:
            return 'step "slow"' in await handle.why()

        await until(named, within=5)
        sentence = await handle.why()
        gate.set()

    assert sentence.startswith("flow 'f' is running step \"slow\" (asked for at ")
    assert " UTC in test_why.py:" in sentence
    assert "on worker 'w-1' (pid " in sentence


async def test_a_step_that_is_over_is_not_said_to_run(log: ExecutionLog) -> None:
    """What a flow does is written down when it stands still; then it moves, and the next thing is not written yet."""
    gates = [asyncio.Event(), asyncio.Event()]
    begun: list[int] = []

    @step
    async def slow(number: int) -> None:
        begun.append(number)
        await gates[number].wait()

    @flow
    async def busy() -> None:
        await slow(0)
        await slow(1)

    async with worker(log, busy, lease_seconds=60):
        handle = await start(log, busy.bind())

        async def named() -> bool:
            return 'step "slow"' in await handle.why()

        await until(named)
        first = (await handle.record()).reason
        gates[0].set()
        await until(lambda: begun == [0, 1])
        record = await handle.record()
        said = up_to_date(record._replace(reason=first), await log.history("f"), log.now())
        gates[1].set()
        await handle.result(10)

    assert said == ""


async def test_what_a_flow_does_is_told_though_the_log_was_busy_at_first(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    other = sqlite3.connect(path, isolation_level=None)

    @step
    async def slow() -> None:
        other.execute("BEGIN IMMEDIATE")
        await gate.wait()

    @flow
    async def busy() -> None:
        await slow()

    async with (
        SqliteExecutionLog(path, busy_timeout_seconds=0.1) as log,
        worker(log, busy, lease_seconds=4),
    ):
        handle = await start(log, busy.bind())
        await until(lambda: "could not renew its lease" in caplog.text)
        other.execute("ROLLBACK")
        other.close()

        async def named() -> bool:
            return 'step "slow"' in await handle.why()

        await until(named)
        gate.set()
        await handle.result(10)


async def test_an_executor_tells_what_its_flow_does(log: ExecutionLog) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        await gate.wait()

    @flow
    async def busy() -> None:
        await slow()

    running = asyncio.create_task(Executor(busy.bind(), log, "f").run())

    async def named() -> bool:
        return await log.find("f") is not None and 'step "slow"' in await Scheduler(log).handle("f").why()

    await until(named, within=5)
    gate.set()
    assert isinstance(await running, Completed)


@pytest.mark.every_log
@pytest.mark.parametrize(
    "body, sentence",
    [
        (waits, 'is waiting for signal "approval" since '),
        (has_a_child, 'is waiting for child "waits" (f/0:1) since '),
        (many, '"signal-2" since'),
        (retries, 'is waiting for the next attempt of "unsteady", due at '),
    ],
    ids=["signal", "child", "many", "retry"],
)
async def test_a_suspended_flow_names_what_it_waits_for(
    log: ExecutionLog, body: object, sentence: str
) -> None:
    handle = await start(log, body.bind())  # type: ignore[attr-defined]
    async with worker(log, waits, has_a_child, many, retries):
        if body is retries:
            await until(lambda: retried(log))
        else:
            await until_status(handle, "suspended")

    why = await handle.why()
    assert sentence in why
    assert ("and 2 more" in why) == (body is many)


@pytest.mark.every_log
async def test_a_flow_that_waits_for_a_child_says_why_the_child_does_not_move(log: ExecutionLog) -> None:
    handle = await start(log, has_a_child.bind())
    async with worker(log, has_a_child):  # it has no code for the child
        await until_status(handle, "suspended")
        why = await handle.why()

    assert why.startswith("flow 'f' is waiting for child \"waits\" (f/0:1) since ")
    assert "; flow 'f/0:1' is ready, but no live worker has code for flow `waits`" in why


async def test_a_step_that_backs_off_in_memory_says_when_it_is_tried_again(log: ExecutionLog) -> None:
    """What a flow in memory does is told when it has stood still for a while; the history knows at once."""
    async with worker(log, retries, lease_seconds=60, evict_after_seconds=60):
        handle = await start(log, retries.bind())
        await until(lambda: retried(log))
        sentence = await handle.why()
        await handle.cancel()

    assert "is in memory on worker 'worker' (pid " in sentence
    assert ', waiting for the next attempt of "unsteady", due at 20' in sentence
    assert re.search(r"\(attempt 1 failed: ConnectionError: down, at test_why.py:\d+\)$", sentence)


async def test_a_flow_that_is_tried_again_as_a_whole_says_what_went_wrong(log: ExecutionLog) -> None:
    @flow(retry=RetryPolicy(attempts_max=3, first_delay_seconds=3_600, delay_max_seconds=3_600))
    async def shaky() -> None:
        raise ConnectionError("down")

    async with worker(log, shaky):
        handle = await start(log, shaky.bind())
        await until_status(handle, "suspended")
        sentence = await handle.why()

    assert re.search(
        r'waiting for the next attempt of "shaky", due at .* \(attempt 1 failed: ConnectionError: down, at test_why',
        sentence,
    )


async def test_a_flow_that_waits_inside_its_own_code_says_so(log: ExecutionLog) -> None:
    @flow
    async def stuck() -> None:
        await asyncio.Event().wait()

    async with worker(log, stuck):
        handle = await start(log, stuck.bind())
        await until_status(handle, "suspended")
        sentence = await handle.why()

    assert re.fullmatch(
        r"flow 'f' is waiting for something that only its own code can give, such as an asyncio.Event, at "
        r"test_why.py:\d+: it has asked for no step, timer, signal or child",
        sentence,
    )


async def test_a_reason_of_several_lines_is_told_in_one(log: ExecutionLog) -> None:
    @flow(name="changes")
    async def before() -> None:
        await wait_signal("one")
        await wait_signal("two")

    @flow(name="changes")
    async def after() -> None:
        await waits()

    handle = await start(log, before.bind())
    await handle.signal("one", None)
    async with worker(log, before):
        await until(lambda: received(log))
        await until_status(handle, "suspended")
    await handle.signal("two", None)
    async with worker(log, after):
        await until_status(handle, "parked")

    sentence = await handle.why()
    assert "\n" not in sentence
    assert "no longer matches its history at history event 1; history has: signal `one`" in sentence


async def received(log: ExecutionLog) -> bool:
    return "signal_received" in await kinds(log)


async def retried(log: ExecutionLog) -> bool:
    return "step_retried" in await kinds(log)


@pytest.mark.parametrize(
    "lease_seconds, mark", [(-1.0, ""), (100.0, "0")], ids=["its lease ran out", "its process ended"]
)
async def test_a_flow_of_a_worker_that_is_gone_says_so_and_who_goes_on(
    log: ExecutionLog, lease_seconds: float, mark: str
) -> None:
    """The log calls a dead worker alive until somebody reaps it; after the only one died, nobody does."""
    handle = await start(log, waits.bind())
    start_mark = this_process().process_start + mark
    await kit.register(
        log, "w#1", lease_seconds, name="w-1", process_start=start_mark, flows=("waits",), queues=("default",)
    )
    await log.claim(ClaimRequest(worker="w#1", names=("waits",), flow_id=handle.id))

    alone = await handle.why()
    await kit.register(log, "w#2", 100, name="w-2", flows=("waits",), queues=("default",))
    with_an_heir = await handle.why()

    assert alone.startswith("flow 'f' was running on worker 'w-1' (pid ")
    assert alone.endswith(", which is gone; it goes on as soon as a worker runs that has code for `waits`")
    assert with_an_heir.endswith(", which is gone; 'w-2' takes it over within seconds")


async def test_a_due_flow_without_a_worker_says_that_nobody_runs_it(
    log: ExecutionLog, clock: SettableClock
) -> None:
    @flow
    async def naps() -> None:
        await asyncio.sleep(3_600)

    async with worker(log, naps, evict_after_seconds=0.01):
        handle = await start(log, naps.bind())
        await until_status(handle, "suspended")
    clock.pass_time(3_601)

    assert "no worker is alive" in await handle.why()


@pytest.mark.every_log
async def test_an_ended_flow_says_how_and_when(log: ExecutionLog) -> None:
    async with worker(log, ends, fails, waits):
        one = await start(log, ends.bind(), "a")
        other = await start(log, fails.bind(), "b")
        third = await start(log, waits.bind(), "c")
        await third.cancel()
        for handle in (one, other, third):
            await handle.wait_settled(10)

        assert "has ended: completed at 20" in await one.why()
        assert re.search(
            r"has ended: failed at 20.* with ValueError: no, at test_why.py:\d+$", await other.why()
        )
        assert "has ended: cancelled" in await third.why()


async def test_a_flow_that_nobody_started_is_not_found(log: ExecutionLog) -> None:
    with pytest.raises(FlowNotFound, match="nobody"):
        await Scheduler(log).handle("nobody").why()
