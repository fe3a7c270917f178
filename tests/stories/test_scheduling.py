"""Starting flows: once per id, in time, by priority, and only where the code for them runs."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    Executor,
    FlowCancelled,
    FlowFilter,
    FlowIdConflict,
    FlowNotFound,
    FlowRecord,
    IllegalMove,
    InvalidName,
    NotInFlow,
    RetryPolicy,
    ScheduleOptions,
    Scheduler,
    Suspended,
    TaskStatus,
    UsageError,
    flow,
    step,
    wait_signal,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker

ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@step
async def note(name: str) -> str:
    ran.append(name)
    return name


@flow
async def job(name: str = "job") -> str:
    return await note(name)


@flow
async def other_job(name: str = "job") -> str:
    return await note(name)


@flow
async def waits() -> str:
    return await wait_signal("go", str)


# -- once per id ---------------------------------------------------------------------------------------------


async def test_the_same_id_and_input_is_the_same_flow(either_log: ExecutionLog) -> None:
    async with worker(either_log, job):
        handles = await asyncio.gather(*(start(either_log, job.bind("a")) for _ in range(20)))

        assert {await handle.result(10) for handle in handles} == {"a"}
        assert await (await start(either_log, job.bind("a"))).result(10) == "a", "long after it ended, too"

    assert ran == ["a"]


@pytest.mark.every_log
async def test_an_id_with_another_input_or_name_is_a_conflict(log: ExecutionLog) -> None:
    await start(log, job.bind("a"))

    with pytest.raises(FlowIdConflict, match=r"another input \(in `name`\)"):
        await start(log, job.bind("b"))
    with pytest.raises(FlowIdConflict, match="other_job"):
        await start(log, other_job.bind("a"))


async def test_without_an_id_every_call_is_a_new_flow(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)

    one, other = await scheduler.schedule(job.bind("a")), await scheduler.schedule(job.bind("a"))

    assert one.id != other.id


async def test_a_bad_id_is_refused(log: ExecutionLog) -> None:
    for bad in ("", "a" * 2_000, "line\nbreak"):
        with pytest.raises(InvalidName):
            await start(log, job.bind(), bad)


# -- in time -------------------------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_a_delayed_flow_starts_when_its_time_has_come_and_not_before(
    log: ExecutionLog, clock: SettableClock
) -> None:
    delayed = await start(log, job.bind("delayed"), "a", delay=3_600)
    dated = await start(log, job.bind("dated"), "b", at=datetime.now(UTC) + timedelta(hours=2))
    past = await start(log, job.bind("past"), "c", at=datetime.now(UTC) - timedelta(hours=2))
    async with worker(log, job):
        assert await past.result(10) == "past"
        assert "is scheduled to start at" in await delayed.why()
    assert ran == ["past"]

    clock.pass_time(3_600)
    async with worker(log, job):
        assert await delayed.result(10) == "delayed"
        assert await dated.status() == "pending"

    clock.pass_time(3_600)
    async with worker(log, job):
        assert await dated.result(10) == "dated"


@pytest.mark.every_log
async def test_a_worker_that_runs_wakes_for_a_flow_that_falls_due(log: ExecutionLog) -> None:
    async with worker(log, job, poll_seconds=60):
        handle = await start(log, job.bind(), delay=0.15)
        await handle.result(5)

    record = await handle.record()
    assert record.started_at is not None
    assert 0.15 <= record.started_at - record.created_at < 1


async def test_a_start_time_that_means_nothing_is_refused(log: ExecutionLog) -> None:
    with pytest.raises(UsageError, match="time zone"):
        await start(log, job.bind(), at=datetime(2030, 1, 1))  # noqa: DTZ001 - the point of this test
    with pytest.raises(UsageError, match="not both"):
        await start(log, job.bind(), at=datetime.now(UTC), delay=1)
    with pytest.raises(UsageError, match="delay"):
        await start(log, job.bind(), delay=-1)


# -- by priority, in queues ----------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_a_higher_priority_is_claimed_first_and_the_oldest_first_among_equals(
    log: ExecutionLog,
) -> None:
    for name, priority in (("a", 0), ("b", 0), ("urgent", 10), ("c", 0), ("low", -5), ("urgent too", 10)):
        await start(log, job.bind(name), name, options=ScheduleOptions(priority=priority))
    async with worker(log, job, capacity=1):
        await until(lambda: len(ran) == 6)

    assert ran == ["urgent", "urgent too", "a", "b", "c", "low"]


@pytest.mark.every_log
async def test_a_worker_takes_only_from_its_queues(log: ExecutionLog) -> None:
    @flow(queue="mail")
    async def send_mail() -> str:
        return await note("mail")

    mail = await start(log, send_mail.bind(), "mail")
    slow = await start(log, job.bind("slow"), "slow", options=ScheduleOptions(queue="slow"))
    usual = await start(log, job.bind("usual"), "usual")
    async with worker(log, job, send_mail):
        await usual.result(10)
    assert ran == ["usual"]

    async with worker(log, job, send_mail, queues=["mail", "slow"]):
        assert [await mail.result(10), await slow.result(10)] == ["mail", "slow"]


# -- only where the code is ------------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_flows_whose_code_is_nowhere_hold_nobody_up(log: ExecutionLog) -> None:
    for number in range(300):
        await Scheduler(log).schedule_named("nobody_knows_me", {}, id=f"unknown-{number}")
    handle = await start(log, job.bind("known"))

    async with worker(log, job, capacity=2):
        assert await handle.result(10) == "known"
        why = await Scheduler(log).handle("unknown-7").why()

    assert "no live worker has code for flow `nobody_knows_me`" in why
    assert await Scheduler(log).count() == {"pending": 300, "completed": 1}


async def test_a_worker_claims_only_the_versions_it_runs(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    one = await scheduler.with_version("1").schedule(job.bind("one"), id="one")
    two = await scheduler.with_version("2").schedule(job.bind("two"), id="two")
    free = await scheduler.schedule(job.bind("free"), id="free")

    async with worker(log, job, versions="2"):
        assert [await two.result(10), await free.result(10)] == ["two", "free"]
        assert "no live worker runs version '1' (they run: 2)" in await one.why()
    assert sorted(ran) == ["free", "two"]

    async with worker(log, job, versions=["1", "2"]):
        assert await one.result(10) == "one"


@pytest.mark.every_log
async def test_a_worker_runs_a_range_of_versions(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    handles = {
        version: await scheduler.with_version(version).schedule(job.bind(version), id=version)
        for version in ("1.1", "1.2", "1.10", "2.0")
    }

    async with worker(log, job, versions=">=1.2,<2"):
        assert await handles["1.2"].result(10) == "1.2"
        assert await handles["1.10"].result(10) == "1.10"
        assert await handles["2.0"].status() == "pending"
        assert "no live worker runs version '1.1' (they run: >=1.2,<2)" in await handles["1.1"].why()
    async with worker(log, job, versions=["1.1", ">=2"]):
        assert await handles["1.1"].result(10) == "1.1"
        assert await handles["2.0"].result(10) == "2.0"
    with pytest.raises(UsageError, match="one of >= <="):
        worker(log, job, versions=">=blue")


async def test_a_worker_without_versions_runs_them_all(log: ExecutionLog) -> None:
    one = await Scheduler(log).with_version("1").schedule(job.bind("one"), id="one")

    async with worker(log, job):
        assert await one.result(10) == "one"


async def test_a_scheduler_has_one_of_three_version_states(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(log)
    monkeypatch.delenv("DEPLOY_VERSION", raising=False)
    with pytest.raises(UsageError, match="DEPLOY_VERSION"):
        scheduler.from_env()
    monkeypatch.setenv("DEPLOY_VERSION", "2026-05-01")

    assert scheduler.version is None
    assert scheduler.with_version("1.4").version == "1.4"
    assert scheduler.from_env().version == "2026-05-01"
    assert scheduler.with_version("1.4").unversioned().version is None
    handle = await scheduler.from_env().schedule(job.bind(), id="f")
    assert (await handle.record()).version == "2026-05-01"


@pytest.mark.every_log
async def test_a_flow_is_started_by_name_from_a_program_without_its_code(log: ExecutionLog) -> None:
    handle = await Scheduler(log).schedule_named("job", {"name": "remote"}, id="f")

    async with worker(log, job):
        assert await handle.result(10) == "remote"


async def test_a_start_by_name_is_repeated_however_its_arguments_are_written(log: ExecutionLog) -> None:
    """JSON knows no order of keys and one kind of number; but true is no number."""
    scheduler = Scheduler(log)
    await scheduler.schedule_named("job", {"name": "x", "n": [1, {"a": 1, "b": None}]}, id="f")

    await scheduler.schedule_named("job", {"n": [1.0, {"b": None, "a": 1}], "name": "x"}, id="f")
    for other in ({"name": "x", "n": [True, {"a": 1, "b": None}]}, {"name": "y"}, {"nobody": 1}):
        with pytest.raises(FlowIdConflict):
            await scheduler.schedule_named("job", other, id="f")


async def test_a_scheduler_is_refused_inside_a_flow(log: ExecutionLog) -> None:
    @flow
    async def wrong() -> None:
        await Scheduler(log).schedule(job.bind())

    async with worker(log, wrong):
        with pytest.raises(NotInFlow, match="invoke"):
            await (await start(log, wrong.bind())).result(10)


# -- an operator's acts ------------------------------------------------------------------------------------------


@pytest.mark.every_log
async def test_a_paused_flow_stands_still_until_it_is_resumed(log: ExecutionLog) -> None:
    async with worker(log, waits):
        handle = await start(log, waits.bind())
        await until_status(handle, "running", "suspended")
        await handle.pause("holiday")
        await handle.signal("go", "went")

        assert "was paused: holiday" in await handle.why()
        await asyncio.sleep(0.1)  # any number of claims
        assert await handle.status() == "paused"
        await handle.resume()

        assert await handle.result(10) == "went"


async def test_pausing_and_resuming_a_flow_in_memory_is_no_reason_for_a_warning(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker may hear of both at once, when it claims the flow that it still has in memory."""
    async with worker(log, waits, poll_seconds=60, evict_after_seconds=60):
        handle = await start(log, waits.bind())
        await until_status(handle, "running")
        await handle.pause()
        await handle.resume()

        async def is_claimed_again() -> bool:
            record = await log.find("f")
            return record is not None and record.claims == 2

        await until(is_claimed_again)
        await handle.signal("go", "on")
        assert await handle.result(10) == "on"

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_flow_paused_before_it_started_does_not_start(log: ExecutionLog) -> None:
    handle = await start(log, job.bind())
    await handle.pause()
    async with worker(log, job):
        usual = await start(log, job.bind("usual"), "usual")
        await usual.result(10)
        assert ran == ["usual"]
        await handle.resume()

        assert await handle.result(10) == "job"


async def test_pausing_while_a_step_runs_lets_the_resumed_flow_run_it_again(log: ExecutionLog) -> None:
    release = asyncio.Event()

    @step
    async def slow() -> str:
        ran.append("slow")
        await release.wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    async with worker(log, slow_job):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
        await handle.pause()
        release.set()
        await until_status(handle, "paused")
        await handle.resume()

        assert await handle.result(10) == "done"


@pytest.mark.every_log
async def test_cancelling_raises_where_the_flow_waits_and_its_clean_up_runs_durably(
    log: ExecutionLog,
) -> None:
    @flow
    async def careful() -> str:
        try:
            return await wait_signal("go", str)
        finally:
            await note("cleaned up")

    async with worker(log, careful):
        handle = await start(log, careful.bind())
        await until_status(handle, "suspended")
        await handle.cancel("customer left")
        with pytest.raises(FlowCancelled, match="customer left"):
            await handle.result(10)

    assert ran == ["cleaned up"]
    assert (await kinds(log)) == ["cancel_requested", "step_completed"]


@pytest.mark.every_log
async def test_cancelling_reaches_into_a_running_step(log: ExecutionLog) -> None:
    @step
    async def slow() -> None:
        ran.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("cancelled")

    @flow
    async def slow_job() -> None:
        await slow()

    async with worker(log, slow_job):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
        await handle.cancel()
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert ran == ["began", "cancelled"]


async def test_a_flow_that_catches_its_cancellation_goes_on(log: ExecutionLog) -> None:
    @flow
    async def stubborn() -> str:
        try:
            await wait_signal("go")
        except asyncio.CancelledError:
            return await note("made good")
        return "went"

    async with worker(log, stubborn):
        handle = await start(log, stubborn.bind())
        await until_status(handle, "suspended")
        await handle.cancel()

        assert await handle.result(10) == "made good"


@pytest.mark.every_log
async def test_a_flow_cancelled_before_it_started_never_runs(log: ExecutionLog) -> None:
    handle = await start(log, job.bind())
    await handle.cancel()

    with pytest.raises(FlowCancelled):
        await handle.result(1)
    async with worker(log, job):
        await (await start(log, job.bind("usual"), "usual")).result(10)
    assert ran == ["usual"]


async def test_a_flow_cancelled_while_no_worker_lives_starts_no_step(log: ExecutionLog) -> None:
    """Its open step has to be tried again, unless the flow is to be cancelled: then nothing new may start."""
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        ran.append("slow")
        await gate.wait()

    @flow
    async def slow_job() -> None:
        await slow()

    async with worker(log, slow_job, drain_seconds=0.05):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
    await handle.cancel()
    async with worker(log, slow_job):
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert ran == ["slow"]


@pytest.mark.every_log
async def test_a_killed_flow_runs_no_more_of_its_code(log: ExecutionLog) -> None:
    @flow
    async def careful() -> str:
        try:
            return await wait_signal("go", str)
        finally:
            await note("cleaned up")

    async with worker(log, careful):
        handle = await start(log, careful.bind())
        await until_status(handle, "suspended")
        await handle.kill("operator")
        with pytest.raises(FlowCancelled, match="operator"):
            await handle.result(10)
        with pytest.raises(IllegalMove):
            await handle.cancel()

    assert ran == []


async def test_killing_a_flow_stops_its_running_step(log: ExecutionLog) -> None:
    @step
    async def slow() -> None:
        ran.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("stopped")

    @flow
    async def slow_job() -> None:
        await slow()

    async with worker(log, slow_job):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
        await handle.kill()

        await until(lambda: "stopped" in ran, within=3)


@pytest.mark.every_log
async def test_a_deadline_cancels_the_flow_and_survives_restarts(log: ExecutionLog) -> None:
    @flow(timeout=0.4)
    async def limited() -> None:
        await wait_signal("go")

    handle = await start(log, limited.bind())
    for _ in range(2):
        async with worker(log, limited):
            await until_status(handle, "suspended")
    async with worker(log, limited):
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)

    record = await handle.record()
    assert record.started_at is not None
    assert record.ended_at is not None
    assert 0.4 <= record.ended_at - record.started_at < 2


async def test_a_flow_revived_past_its_deadline_starts_nothing_but_its_cleanup(
    log: ExecutionLog, clock: SettableClock
) -> None:
    """The open step would run again after a restart; the deadline, which passed meanwhile, comes first."""
    ran: list[str] = []

    @step
    async def work(name: str) -> None:
        ran.append(name)
        await asyncio.sleep(3_600)

    @step
    async def tidy() -> None:
        ran.append("tidy")

    @flow(timeout=60)
    async def limited() -> None:
        try:
            await work("first")
            await work("second")
        finally:
            await tidy()

    first = worker(log, limited)
    await first.start()
    handle = await start(log, limited.bind())
    await until(lambda: ran)
    await first.shutdown(0)
    clock.pass_time(61)
    async with worker(log, limited):
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)

    assert ran == ["first", "tidy"]


async def test_a_flow_whose_deadline_passed_between_two_attempts_is_not_tried_again(
    log: ExecutionLog, clock: SettableClock
) -> None:
    ran: list[str] = []

    @step
    async def work() -> None:
        ran.append("work")
        raise ConnectionError

    @flow(timeout=60, retry=RetryPolicy(attempts_max=3, first_delay_seconds=30, backoff="fixed"))
    async def limited() -> None:
        await work()

    async with worker(log, limited):
        handle = await start(log, limited.bind())
        await until_status(handle, "suspended")
    clock.pass_time(61)
    async with worker(log, limited):
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)

    assert ran == ["work"]


async def test_a_deadline_given_with_the_start_wins(log: ExecutionLog) -> None:
    async with worker(log, waits):
        handle = await start(log, waits.bind(), options=ScheduleOptions(timeout=0.1))
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)


async def test_the_declared_timeout_counts_for_a_flow_started_by_name(
    log: ExecutionLog, clock: SettableClock
) -> None:
    """The client that starts it does not have the code."""

    @flow(timeout=60)
    async def limited() -> None:
        await wait_signal("go")

    handle = await Scheduler(log).schedule_named("limited", {}, id="f")
    clock.pass_time(3_600)
    async with worker(log, limited):
        await until_status(handle, "suspended")
        record = await handle.record()
        assert record.started_at is not None
        assert record.deadline_at == pytest.approx(record.started_at + 60)
        clock.pass_time(61)
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)


async def test_a_timeout_given_with_a_start_by_name_wins(log: ExecutionLog) -> None:
    @flow(timeout=3_600)
    async def limited() -> None:
        await wait_signal("go")

    async with worker(log, limited):
        options = ScheduleOptions(timeout=0.1)
        handle = await Scheduler(log).schedule_named("limited", {}, id="f", options=options)
        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)


async def test_a_timeout_that_is_added_to_the_code_leaves_flows_alone_that_have_started(
    log: ExecutionLog,
) -> None:
    """Otherwise a deploy would cancel what has run for long."""

    @flow(timeout=0.001, name="waits")
    async def limited() -> str:
        return await wait_signal("go", str)

    async with worker(log, waits):
        handle = await start(log, waits.bind())
        await until_status(handle, "suspended")
    async with worker(log, limited):
        await handle.signal("go", "on")
        assert await handle.result(10) == "on"


async def test_the_declared_timeout_counts_for_a_flow_that_an_executor_takes_up(log: ExecutionLog) -> None:
    @flow(timeout=0.05)
    async def limited() -> None:
        await note("ran")
        await asyncio.Event().wait()

    await Scheduler(log).schedule_named("limited", {}, id="f")
    with pytest.raises(FlowCancelled, match="deadline"):
        async with asyncio.timeout(10):
            while isinstance(await Executor(limited.bind(), log, "f").run(), Suspended):
                await asyncio.sleep(0.01)


async def test_acts_that_make_no_sense_are_refused_with_the_status(log: ExecutionLog) -> None:
    async with worker(log, job):
        handle = await start(log, job.bind())
        await handle.result(10)

    for act in (handle.pause, handle.resume, handle.cancel, handle.kill, handle.retry):
        with pytest.raises(IllegalMove, match="completed"):
            await act()


@pytest.mark.every_log
async def test_flows_are_listed_newest_first_by_page_and_counted(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    for number in range(5):
        await start(log, job.bind(str(number)), f"f-{number}")

    first, key = await scheduler.list(limit=3)
    rest, end = await scheduler.list(limit=3, after=key)

    assert [record.id for record in (*first, *rest)] == ["f-4", "f-3", "f-2", "f-1", "f-0"]
    assert end is None
    assert await scheduler.count(FlowFilter(names=("job",))) == {"pending": 5}


async def test_a_flow_that_waits_for_its_start_can_be_given_another(
    log: ExecutionLog, clock: SettableClock
) -> None:
    async with worker(log, job):
        sooner = await start(log, job.bind("sooner"), "sooner", delay=3_600)
        later = await start(log, job.bind("later"), "later", delay=60)

        await sooner.reschedule()
        await later.reschedule(at=datetime.fromtimestamp(log.now(), UTC) + timedelta(hours=2))

        assert await sooner.result(10) == "sooner"
        clock.pass_time(3_600)
        with pytest.raises(TimeoutError):
            await later.result(0.3)
        await later.reschedule(delay=7_200)
        clock.pass_time(7_100)
        with pytest.raises(TimeoutError):
            await later.result(0.3)
        clock.pass_time(200)
        assert await later.result(10) == "later"


async def test_a_paused_flow_given_another_start_waits_for_both(
    log: ExecutionLog, clock: SettableClock
) -> None:
    async with worker(log, job):
        handle = await start(log, job.bind(), delay=60)
        await handle.pause()
        await handle.reschedule(delay=600)
        clock.pass_time(300)

        await handle.resume()

        assert await handle.status() is TaskStatus.PENDING
        clock.pass_time(400)
        assert await handle.result(10) == "job"


async def test_a_flow_that_has_started_cannot_be_given_another_start(log: ExecutionLog) -> None:
    async with worker(log, waits):
        handle = await start(log, waits.bind())
        await until_status(handle, "suspended")

        with pytest.raises(IllegalMove, match="has started"):
            await handle.reschedule(delay=5)
    with pytest.raises(FlowNotFound):
        await Scheduler(log).handle("nobody").reschedule()
    with pytest.raises(UsageError, match="not both"):
        await handle.reschedule(delay=5, at=datetime.now(UTC))


@pytest.mark.every_log
async def test_an_ended_flow_can_be_deleted_and_a_running_one_not(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    handle = await start(log, job.bind())
    with pytest.raises(IllegalMove):
        await scheduler.delete("f")
    async with worker(log, job):
        await handle.result(10)

    assert await scheduler.delete("f")
    assert not await scheduler.delete("f")
    assert not await handle.delete()


async def test_a_handle_deletes_its_flow_once_it_has_ended(log: ExecutionLog) -> None:
    handle = await start(log, job.bind())
    with pytest.raises(IllegalMove):
        await handle.delete()
    async with worker(log, job):
        await handle.result(10)

    assert await handle.delete()
    assert await log.find("f") is None


async def test_whoever_waits_for_a_flow_that_another_deletes_hears_that_it_is_gone(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    handle = await scheduler.schedule(job.bind(), id="f")
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)

    await handle.kill()
    assert await scheduler.delete("f")

    with pytest.raises((FlowNotFound, FlowCancelled)):  # whichever was seen first, never waiting in vain
        await asyncio.wait_for(waiting, 30)
    with pytest.raises(FlowNotFound):
        await handle.result()
    assert await log.find("f") is None


async def test_resuming_a_flow_that_failed_at_that_moment_does_not_retry_it(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator was quicker, and the flow failed: whether to try it again is a question of its own."""

    @flow
    async def fails() -> None:
        raise ValueError("no")

    handle = await start(log, fails.bind())
    await handle.pause()
    move = log.move

    async def too_late(flow_id: str, target: TaskStatus, **how: Any) -> FlowRecord:
        await move(flow_id, TaskStatus.PENDING)
        async with worker(log, fails):
            await until_status(handle, "failed")
        return await move(flow_id, target, **how)

    monkeypatch.setattr(log, "move", too_late)
    with pytest.raises(IllegalMove, match=r"is failed; only a paused or parked flow.*`retry`"):
        await handle.resume()

    assert await handle.status() == "failed"
