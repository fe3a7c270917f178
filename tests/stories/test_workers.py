"""Workers drain, die, freeze and crowd each other; no flow is lost and none is run twice at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    FlowFilter,
    FlowParked,
    LeaseLost,
    LogBusy,
    RetryPolicy,
    ScheduleOptions,
    Scheduler,
    SqliteExecutionLog,
    TaskStatus,
    UsageError,
    Worker,
    WorkerOptions,
    flow,
    step,
    wait_signal,
)
from ergon.core.commit import ClaimedFlow, ClaimRequest, Hint, Received
from tests.stories.conftest import SettableClock
from tests.stories.helpers import (
    QUICK,
    freeze,
    kinds,
    lines,
    process_with_worker,
    start,
    until,
    until_status,
    worker,
)
from tests.stories.programs import FLOWS, deadly, delivery

ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@step
async def note(name: str) -> str:
    ran.append(name)
    return name


@flow
async def job(name: str) -> str:
    return await note(name)


@flow
async def two_steps(name: str) -> str:
    await note(f"{name} first")
    await wait_signal("go")
    return await note(f"{name} second")


@flow
async def waits_for_go() -> str:
    return await wait_signal("go", str)


# -- drain ---------------------------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_a_drained_worker_lets_running_steps_end_and_leaves_nothing_leased(log: ExecutionLog) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        began.set()
        await release.wait()
        return "done"

    @flow
    async def slow_job() -> str:
        await slow()
        return await note("after")

    working = worker(log, slow_job, two_steps)
    started = await working.start()
    slow_handle = await start(log, slow_job.bind(), "slow")
    await start(log, two_steps.bind("w"), "waiting")
    await began.wait()
    stopping = asyncio.create_task(started.shutdown())
    release.set()
    await stopping

    found, _ = await log.list(FlowFilter())
    assert {record.owner for record in found} == {None}
    assert [worker.state for worker in await log.workers()] == ["stopped"]
    assert [event.name for event in await log.history("slow")] == ["slow"], "its end was recorded"
    assert "after" not in ran, "no new step began"
    async with worker(log, slow_job):
        assert await slow_handle.result(10) == "after"


@pytest.mark.every_log
async def test_a_step_that_outlasts_the_drain_is_interrupted_and_runs_again_elsewhere(
    log: ExecutionLog,
) -> None:
    @step
    async def slow() -> str:
        ran.append("slow")
        if len(ran) == 1:
            await asyncio.Event().wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    working = worker(log, slow_job)
    started = await working.start()
    handle = await start(log, slow_job.bind())
    await until(lambda: ran)
    await started.shutdown(0.05)

    assert (await handle.record()).owner is None
    async with worker(log, slow_job):
        assert await handle.result(10) == "done"


async def test_draining_twice_or_before_the_start_is_fine(log: ExecutionLog) -> None:
    idle = worker(log, job)
    await idle.shutdown()
    started = await worker(log, job).start()
    await started.shutdown()
    await started.shutdown()


async def test_a_worker_refuses_to_start_without_flows_or_twice(log: ExecutionLog) -> None:
    with pytest.raises(UsageError, match="no flows"):
        await worker(log).start()
    working = worker(log, job)
    async with working:
        with pytest.raises(UsageError, match="started already"):
            await working.start()
        with pytest.raises(UsageError, match="before"):
            await working.register(two_steps)
    with pytest.raises(UsageError, match="capacity"):
        WorkerOptions(capacity=0)


async def test_a_start_that_failed_can_be_repeated(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = 0
    subscribe = log.subscribe

    def counted(listener: Callable[[Hint], None]) -> Callable[[], None]:
        nonlocal listeners
        listeners += 1
        unsubscribe = subscribe(listener)

        def stop() -> None:
            nonlocal listeners
            listeners -= 1
            unsubscribe()

        return stop

    async def refuse(*_args: object, **_options: object) -> None:
        raise LogBusy("somebody else writes")

    monkeypatch.setattr(log, "subscribe", counted)
    working = worker(log, job)
    with monkeypatch.context() as while_busy:
        while_busy.setattr(log, "register", refuse)
        with pytest.raises(LogBusy):
            await working.start()
    assert listeners == 0
    async with working:
        assert await (await start(log, job.bind("a"))).result(10) == "a"
    # Also whoever waited for the result, who may be reading at this moment.
    await until(lambda: listeners == 0)


async def test_a_lease_lost_again_while_the_worker_starts_again_leaves_one_incarnation(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two restarts at once would claim twice."""
    working = worker(log, job, lease_seconds=0.2)
    async with working:
        renew, reap, lost = log.renew, log.reap, set[str]()
        first = working._incarnation
        assert first is not None

        async def refused_twice(worker_id: str, **options: Any) -> None:
            if len(lost) < 2:
                lost.add(worker_id)
                raise LeaseLost("declared dead")
            await renew(worker_id, **options)

        async def slow_reap() -> Any:
            if lost:
                await asyncio.sleep(0.1 if len(lost) > 1 else 0.3)
            return await reap()

        monkeypatch.setattr(log, "renew", refused_twice)
        monkeypatch.setattr(log, "reap", slow_reap)
        await until(lambda: len(lost) == 2)
        await until(lambda: working._incarnation is not None and working._incarnation.id not in lost)
        assert await (await start(log, job.bind("a"))).result(10) == "a"
        claimers = [
            task
            for task in asyncio.all_tasks()
            if "every" in repr(task.get_coro()) and task.get_coro().cr_frame.f_locals["name"] == "claimer"  # type: ignore[union-attr]
        ]
        assert len(claimers) == 1


async def test_a_renewal_that_meets_a_defect_of_the_log_does_not_end_the_renewing(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that renews no more and does not know it would sit there for ever and run nothing."""
    renew, met = log.renew, list[str]()

    async def broken_once(worker_id: str, **options: Any) -> float:
        met.append(worker_id)
        if len(met) == 1:
            raise RuntimeError("a defect of the driver")
        return await renew(worker_id, **options)

    monkeypatch.setattr(log, "renew", broken_once)
    async with worker(log, job, lease_seconds=0.5):
        await until(lambda: len(met) > 1)
        assert await (await start(log, job.bind("a"))).result(10) == "a"

    assert "a defect of the driver" in caplog.text


# -- capacity ------------------------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_five_flows_in_memory_for_two_all_complete(log: ExecutionLog) -> None:
    """Flows that only wait make room: capacity bounds memory, not how many flows are under way."""
    async with worker(log, two_steps, capacity=2):
        handles = [await start(log, two_steps.bind(str(number)), f"f-{number}") for number in range(5)]
        await until(lambda: len(ran) == 5)
        for handle in handles:
            await handle.signal("go")

        assert [await handle.result(10) for handle in handles] == [f"{number} second" for number in range(5)]

    assert len(ran) == 10


@pytest.mark.every_log
async def test_flows_that_wait_leave_memory_and_come_back(log: ExecutionLog) -> None:
    async with worker(log, two_steps) as working:
        handles = [await start(log, two_steps.bind(str(number)), f"f-{number}") for number in range(50)]
        await until(lambda: suspended(log, 50))
        residents = working._residents
        assert residents is not None
        await until(
            lambda: residents.runs == {}
        )  # the log may show it before the worker hears that it was written
        await asyncio.gather(*(handle.signal("go") for handle in handles))
        for handle in handles:
            await handle.result(10)

    assert len(ran) == 100


async def suspended(log: ExecutionLog, count: int) -> bool:
    return (await Scheduler(log).count()).get(TaskStatus.SUSPENDED) == count


@pytest.mark.every_log
async def test_two_workers_share_flows_and_run_each_once(log: ExecutionLog) -> None:
    async with worker(log, job, name="one", capacity=5), worker(log, job, name="other", capacity=5):
        handles = [await start(log, job.bind(str(number)), f"f-{number}") for number in range(100)]
        for handle in handles:
            await handle.result(20)

    assert sorted(ran) == sorted(str(number) for number in range(100))


async def looks_made(log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, seconds: float) -> int:
    """How often workers ask the log for flows in this time."""
    looks = 0
    claim = log.claim

    async def counted(request: ClaimRequest) -> list[ClaimedFlow]:
        nonlocal looks
        looks += 1
        return await claim(request)

    next_wake = log.next_wake

    async def counted_wake(names: Sequence[str]) -> float | None:
        nonlocal looks
        looks += 1
        return await next_wake(names)

    monkeypatch.setattr(log, "claim", counted)
    monkeypatch.setattr(log, "next_wake", counted_wake)
    await asyncio.sleep(seconds)
    return looks


async def test_a_full_worker_rests_although_a_flow_is_due(
    log: ExecutionLog, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    @step
    async def slow() -> None:
        ran.append("slow")
        await release.wait()

    @flow
    async def slow_job() -> None:
        await slow()

    async with worker(log, slow_job, capacity=1):
        handles = [await start(log, slow_job.bind(), "running")]
        await until(lambda: ran)
        handles.append(await start(log, slow_job.bind(), "due", delay=60.0))
        clock.pass_time(120)
        looks = await looks_made(log, monkeypatch, 0.5)
        release.set()
        for handle in handles:
            await handle.result(10)

    assert looks < 30


async def test_a_worker_rests_although_a_flow_on_another_queue_is_due(
    log: ExecutionLog, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(log, job):
        await start(log, job.bind("a"), delay=60.0, options=ScheduleOptions(queue="elsewhere"))
        clock.pass_time(120)
        looks = await looks_made(log, monkeypatch, 0.5)

    assert looks < 60


async def test_a_worker_fetches_messages_one_fetch_at_a_time(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll and a hint may want them at the same moment; two with one cursor would hand all out twice."""
    under_way = most = 0
    arrivals = log.arrivals

    async def slow_arrivals(worker_id: str, after: int) -> tuple[int, list[Received]]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        try:
            return await arrivals(worker_id, after)
        finally:
            under_way -= 1

    monkeypatch.setattr(log, "arrivals", slow_arrivals)
    async with worker(log, two_steps, poll_seconds=0.01):
        handles = [await start(log, two_steps.bind(str(number)), f"f-{number}") for number in range(10)]
        for handle in handles:
            await handle.signal("go")
            await asyncio.sleep(0.005)
        for handle in handles:
            await handle.result(10)

    assert most == 1


async def test_messages_that_came_before_their_flow_are_kept_once_and_until_the_claim_is_over(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def the_same_again(_worker_id: str, _after: int) -> tuple[int, list[Received]]:
        return 1, [Received(1, "elsewhere", "signal", "go", "null", 0.0)]

    monkeypatch.setattr(log, "arrivals", the_same_again)
    async with worker(log, job, poll_seconds=60.0) as working:
        residents = working._residents
        assert residents is not None
        with residents.expecting():
            await residents.fetch()
            await residents.fetch()
            assert [len(messages) for messages in residents._early.values()] == [1]

        await until(lambda: not residents._early)  # the worker's own first claim may be under way as well


async def test_a_message_that_came_before_its_flow_is_kept_however_many_others_came(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would fetch it again: a flow that computes, or that is not to leave memory, would never hear of it."""
    claim, arrivals = log.claim, log.arrivals
    others = [Received(number, f"other-{number}", "signal", "go", "null", 0.0) for number in range(10_000)]

    async def arrivals_after_others(worker_id: str, after: int) -> tuple[int, list[Received]]:
        cursor, messages = await arrivals(worker_id, after)
        return cursor, [*others, *messages]

    async with worker(log, waits_for_go, poll_seconds=60.0, evict_after_seconds=60.0) as working:
        residents = working._residents
        assert residents is not None

        async def claim_slowly(request: ClaimRequest) -> list[ClaimedFlow]:
            claimed = await claim(request)
            if claimed:
                await handle.signal("go", "yes")
                await residents.fetch()
            return claimed

        monkeypatch.setattr(log, "arrivals", arrivals_after_others)
        monkeypatch.setattr(log, "claim", claim_slowly)
        handle = Scheduler(log).handle("f")
        await start(log, waits_for_go.bind(), delay=0.01)  # else it needs no claim

        assert await handle.result(5) == "yes"


async def test_a_message_that_came_while_its_flow_was_claimed_anew_is_not_left_with_the_void_run(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim had read the inbox; the void run, still in memory, got the message; nobody would fetch it again."""
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        ran.append("slow")
        await gate.wait()

    @flow
    async def both() -> str:
        answer, _ = await asyncio.gather(wait_signal("go", str), slow())
        return answer

    async with worker(log, both, poll_seconds=60.0) as working:
        handle = await start(log, both.bind())
        await until(lambda: ran)
        claim, residents = log.claim, working._residents
        assert residents is not None

        async def claim_slowly(request: ClaimRequest) -> list[ClaimedFlow]:
            claimed = await claim(request)
            if claimed:
                assert residents.runs["f"].record.claims == 1
                await handle.signal("go", "yes")
                await residents.fetch()
            return claimed

        monkeypatch.setattr(log, "claim", claim_slowly)
        await handle.pause()
        await handle.resume()

        async def received() -> bool:
            return "signal_received" in await kinds(log)

        await until(received)
        gate.set()
        assert await handle.result(10) == "yes"


async def test_a_run_that_hears_of_its_workers_next_claim_before_the_worker_does_warns_of_nothing(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Paused and resumed: the claim is in the log, and its answer on the way when the void run records a result."""
    caplog.set_level(logging.INFO, "ergon.executor")
    began, gate = asyncio.Event(), asyncio.Event()

    @step
    async def long() -> None:
        began.set()
        await gate.wait()

    @flow
    async def resumed() -> str:
        await long()
        return "went"

    async with worker(log, resumed, poll_seconds=60.0) as working:
        handle = await start(log, resumed.bind())
        await began.wait()
        claim, residents = log.claim, working._residents
        assert residents is not None

        async def claim_slowly(request: ClaimRequest) -> list[ClaimedFlow]:
            claimed = await claim(request)
            if claimed:
                await residents.drop_lost()
                assert "void" not in caplog.text
                gate.set()
                await until(lambda: "void" in caplog.text)
            return claimed

        monkeypatch.setattr(log, "claim", claim_slowly)
        await handle.pause()
        await handle.resume()
        assert await handle.result(10) == "went"

    assert [(record.levelno, record.getMessage()) for record in caplog.records if "void" in record.msg] == [
        (logging.INFO, "flow f: the flow is claimed again; this run is void and writes nothing more")
    ]


async def test_a_message_handed_out_late_is_not_taken_twice(log: ExecutionLog, clock: SettableClock) -> None:
    """The flow had left memory, and its history accounts for the message."""

    @flow
    async def twice() -> list[str]:
        first = await wait_signal("go", str)
        await asyncio.sleep(60)
        return [first, await wait_signal("go", str)]

    handle = await start(log, twice.bind())
    await handle.signal("go", "one")
    (message,) = await log.inbox("f")
    async with worker(log, twice) as working:
        assert working._residents is not None
        await until_status(handle, "suspended")

        async def fired() -> bool:
            return "timer_fired" in await kinds(log)

        with working._residents.expecting():
            working._residents._keep_early("f", [message])
            clock.pass_time(120)
            await until(fired)
        await until_status(handle, "suspended")
        await handle.signal("go", "two")
        assert await handle.result(10) == ["one", "two"]


# -- crashes -------------------------------------------------------------------------------------------------


async def test_another_worker_goes_on_where_a_killed_process_was(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    """Completed steps stay, the open one runs again with the same key, long before the lease would have run out."""
    marks = tmp_path / "marks"
    handle = await start(log, delivery.bind(str(marks)))
    async with process_with_worker(path, "600") as process:
        await until(lambda: len(lines(marks)) == 2)
        process.kill()
        await process.wait()

    async with worker(log, *FLOWS):
        assert await handle.result(5) == "delivered"

    assert lines(marks) == ["prepare", "deliver f/0:2", "deliver f/0:2"]


async def test_a_worker_that_runs_takes_over_from_one_that_is_killed_and_says_so(
    log: ExecutionLog, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks = tmp_path / "marks"
    handle = await start(log, delivery.bind(str(marks)))
    async with process_with_worker(path, "600") as process:
        await until(lambda: len(lines(marks)) == 2)
        async with worker(log, *FLOWS):
            process.kill()

            assert await handle.result(5) == "delivered"

    host = socket.gethostname()
    told = (
        f"worker elsewhere (pid {process.pid} on {host}) is lost: it died, was frozen or cut off. Its flows"
    )
    assert [told in record.getMessage() for record in caplog.records] == [True]


async def test_a_flow_that_fails_says_so_once_with_the_line(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def breaks() -> None:
        raise ValueError("no stock")

    async with worker(log, breaks):
        handle = await start(log, breaks.bind())
        with pytest.raises(ValueError, match="no stock"):
            await handle.result(10)

    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("flow f failed: ValueError: no stock, at test_workers.py:")
    assert (record.levelname, record.flow_id) == ("WARNING", "f")  # type: ignore[attr-defined]


async def test_a_flow_that_kills_its_workers_is_parked(log: ExecutionLog, path: Path, tmp_path: Path) -> None:
    """A poisonous flow must not take worker after worker down with it for ever."""
    marks = tmp_path / "marks"
    handle = await start(log, deadly.bind(str(marks)))
    for number in range(1, 3):
        async with process_with_worker(path) as process:
            await process.wait()
            assert lines(marks) == ["kill"] * number
    async with process_with_worker(path) as process:
        await process.wait()
    assert "its worker died 2 times in a row while running it" in await handle.why()

    async with worker(log, *FLOWS, claims_stalled_max=2):
        with pytest.raises(FlowParked, match="died 3 times in a row"):
            await handle.result(10)

    assert "is parked: its worker died" in await handle.why()


async def test_a_frozen_worker_writes_nothing_when_it_wakes_and_carries_on_as_a_new_one(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    async with process_with_worker(path, "0.8") as process:
        handle = await start(log, delivery.bind(str(marks)))
        await until(lambda: len(lines(marks)) == 2)
        await freeze(process.pid, path)
        async with worker(log, *FLOWS):
            assert await handle.result(10) == "delivered"
        history = await log.history("f")
        os.kill(process.pid, signal.SIGCONT)

        await until(lambda: alive(log))
        again = await start(log, delivery.bind(str(tmp_path / "again")), "g")
        await until(lambda: len(lines(tmp_path / "again")) == 2)
        assert await log.history("f") == history
        assert (await again.record()).status == "running"


async def alive(log: ExecutionLog) -> bool:
    return any(worker.state == "alive" and worker.name == "elsewhere" for worker in await log.workers())


async def test_a_live_worker_declared_dead_says_so_and_carries_on(
    path: Path, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> str:
        ran.append("slow")
        await gate.wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    async with (
        SqliteExecutionLog(path) as log,
        SqliteExecutionLog(path, clock=clock) as elsewhere,
        worker(log, slow_job, lease_seconds=0.5),
    ):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
        clock.outlive_leases()
        (dead,) = await elsewhere.reap()
        gate.set()

        assert await handle.result(10) == "done"
        states = {worker.id: worker.state for worker in await log.workers()}

    assert states.pop(dead.id) == "dead"
    assert list(states.values()) == ["alive"]
    assert len(ran) == 2, "what the dead incarnation had finished was refused, so the step ran again"
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("lost its lease" in record.getMessage() for record in told)


async def test_a_worker_loses_nothing_when_its_log_is_closed_under_it(path: Path) -> None:
    log = SqliteExecutionLog(path)
    await log.connect()
    working = worker(log, two_steps)
    await working.start()
    await until_status(await start(log, two_steps.bind("a")), "suspended")
    await log.close()
    await working.shutdown()

    async with SqliteExecutionLog(path) as again, worker(again, two_steps):
        handle = Scheduler(again).handle("f")
        await handle.signal("go")
        assert await handle.result(10) == "a second"


async def test_a_worker_whose_log_was_closed_under_it_says_so_and_keeps_no_flow_from_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = SqliteExecutionLog(path)
    await log.connect()
    working = worker(log, two_steps)
    await working.start()
    handle = await start(log, two_steps.bind("a"))
    await until(lambda: ran)

    await log.close()
    await until(lambda: "its log was closed while it ran" in caplog.text)
    await log.connect()

    async with worker(log, two_steps):
        await handle.signal("go")
        assert await handle.result(20) == "a second"
    await working.shutdown()
    await log.close()
    assert caplog.text.count("its log was closed while it ran") == 1


async def test_whoever_shuts_a_worker_down_once_more_waits_until_it_is_over(path: Path) -> None:
    """Such as a handler of SIGTERM, and the end of the block: the second closes the log."""
    began, release = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        began.set()
        await release.wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    async with SqliteExecutionLog(path) as log:
        async with worker(log, slow_job) as working:
            await start(log, slow_job.bind())
            await began.wait()
            first = asyncio.create_task(working.shutdown())
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.1, release.set)
        assert first.done()
        assert await kinds(log) == ["step_completed"]


async def test_a_shutdown_that_is_broken_off_as_it_begins_gives_everything_back(log: ExecutionLog) -> None:
    working = worker(log, two_steps)
    await working.start()
    handle = await start(log, two_steps.bind("a"))
    await until(lambda: ran)

    stopping = asyncio.create_task(working.shutdown())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])

    assert stopping.cancelled()
    assert [each.state for each in await log.workers()] == ["stopped"]
    assert (await handle.record()).owner is None


async def test_hundreds_of_flows_need_a_few_transactions(path: Path) -> None:
    """One group commit serves all flows that are ready."""
    async with SqliteExecutionLog(path) as log, Worker(log, flows=[job], options=QUICK):
        handles = await asyncio.gather(*(start(log, job.bind(str(n)), f"f-{n}") for n in range(300)))
        await asyncio.gather(*(handle.result(20) for handle in handles))

    assert len(ran) == 300


async def test_a_worker_says_at_its_start_what_its_log_survives_and_by_which_settings(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ergon.worker"):
        async with worker(log, job, name="w-1"):
            pass

    (told,) = [line for line in caplog.messages if "durability" in line]
    assert told.startswith(
        f"worker w-1 (pid {os.getpid()}) on {log.url}, durability D3: survives worker crashes, "
    )
    assert "power loss (" in told
    assert "journal_mode=wal, synchronous=FULL" in told


async def test_a_worker_that_cannot_renew_says_what_that_means_and_when_it_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ergon")
    async with SqliteExecutionLog(path, busy_timeout_seconds=0.1) as log, worker(log, job, lease_seconds=2):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await until(lambda: "it starts nothing new until it can" in caplog.text)
        assert "goes on" not in caplog.text
        other.execute("ROLLBACK")
        other.close()

        await until(lambda: "renewed its lease again and goes on" in caplog.text)
        handle = await start(log, job.bind("a"))
        await handle.result(10)

    assert caplog.text.count("renewed its lease again") == 1


@pytest.mark.every_log
@pytest.mark.parametrize("act", ["pause", "kill"])
async def test_what_becomes_of_a_step_of_a_flow_that_somebody_stopped_is_no_warning(
    log: ExecutionLog, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def long() -> None:
        began.set()
        await may_end.wait()

    @flow
    async def stopped() -> None:
        await long()

    caplog.set_level(logging.INFO, "ergon.executor")
    async with worker(log, stopped, poll_seconds=60.0):
        handle = await start(log, stopped.bind())
        await began.wait()  # a flow is "running" a little before its run is here
        await getattr(handle, act)()
        may_end.set()
        await until(lambda: "this run is void" in caplog.text)

    status = "paused" if act == "pause" else "cancelled"
    assert [(record.levelno, record.getMessage()) for record in caplog.records if "void" in record.msg] == [
        (logging.INFO, f"flow f: the flow is {status}; this run is void and writes nothing more")
    ]
