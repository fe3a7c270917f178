"""A flow that is scheduled beside a worker with nothing else to do is that worker's from its first row on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from ergon import ScheduleOptions, Scheduler, SqliteExecutionLog, TaskStatus, flow, step, wait_signal
from ergon.core.commit import ClaimedFlow, ClaimRequest, FlowFilter, FlowRecord, NewFlow
from ergon.errors import LogBusy, LogDamaged, StoreError
from ergon.storage.sqlite.writes import Create
from ergon.worker import eager
from tests.stories.helpers import soon, start, until, until_status, worker

Answers = list[ClaimedFlow | FlowRecord | None]


class NotingLog(SqliteExecutionLog):
    """Notes which flows were claimed and which were created for their owner; lets the latter wait when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.claimed: list[str] = []
        self.eager: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.written = asyncio.Event()
        self.fails: Exception | None = None
        self.claims_max: int | None = None
        self.may_claim = asyncio.Event()
        self.looks = 0
        self.disowning = asyncio.Event()
        self.may_disown = asyncio.Event()
        self.may_disown.set()

    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        self.looks += 1
        if self.claims_max is not None:
            if not self.claims_max:
                await self.may_claim.wait()
            else:
                self.claims_max -= 1
        flows = await super().claim(request)
        self.claimed += [claimed.flow.id for claimed in flows]
        return flows

    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        self.disowning.set()
        await self.may_disown.wait()  # as when a long read goes before it
        return await super().disown(worker_id, known)

    async def create_claimed(self, flows: Sequence[NewFlow]) -> Answers:
        self.eager += [new.id for new in flows if new.owner is not None]
        answers = await super().create_claimed(flows)
        self.written.set()
        await self.may_answer.wait()
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        return answers


ran: list[str] = []


@step
async def note(label: str) -> str:
    ran.append(label)
    return label


@flow
async def job(label: str = "a") -> str:
    return await note(label)


@flow
async def waits_for_word() -> str:
    return await wait_signal("word", str)


@flow(queue="slow", tags=("gpu",))
async def other() -> int:
    return 1


@flow(priority=9)
async def urgent() -> str:
    return await note("urgent")


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@step
async def asks_whose_it_is() -> str:
    return tenant.get()


@step
def asks_on_a_thread() -> str:
    return tenant.get()


@flow
async def asks_twice() -> list[str]:
    return [await asks_whose_it_is(), await asks_on_a_thread(), await asks_whose_it_is()]


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def test_a_flow_scheduled_beside_an_idle_worker_needs_no_claim(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job) as working:
        handle = await start(log, job.bind("now"))

        assert await handle.result(10) == "now"
        assert (log.eager, log.claimed) == (["f"], [])
        assert ran == ["now"]
        record = await log.find("f")
        assert record is not None
        assert record.claims == 1
        assert record.started_at == record.created_at
        assert working._residents is not None
        assert working._residents.room == working.options.capacity


async def test_the_first_flow_after_a_worker_began_needs_no_claim_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager, "FIRST_LOOK_SECONDS", 10.0)  # however busy the machine is
    for number in range(5):
        async with NotingLog(path) as log, worker(log, job):
            assert await (await start(log, job.bind(), id=f"f{number}")).result(10) == "a"
            assert (log.eager, log.claimed) == ([f"f{number}"], [])


async def test_the_first_flow_of_a_new_log_waits_for_no_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ergon.worker.claimer.NEW_LOG_SECONDS", 60.0)
    async with NotingLog(path) as log, worker(log, job):
        assert await (await start(log, job.bind())).result(10) == "a"
        assert (log.eager, log.looks) == (["f"], 0)


async def test_a_log_with_flows_that_wait_is_looked_at_at_once_by_whoever_made_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ergon.worker.claimer.NEW_LOG_SECONDS", 60.0)
    async with NotingLog(path) as log:
        before = await start(log, job.bind("before"), id="before")
        async with worker(log, job):
            assert await before.result(10) == "before"
            assert (log.eager, log.claimed) == ([], ["before"])


async def test_a_flow_that_needs_a_claim_is_claimed_at_once_in_a_new_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ergon.worker.claimer.NEW_LOG_SECONDS", 60.0)
    async with NotingLog(path) as log, worker(log, job):
        named = await Scheduler(log).schedule_named("job", {"label": "named"}, id="named")
        assert await named.result(10) == "named"
        assert (log.eager, log.claimed) == ([], ["named"])


async def test_what_somebody_else_put_into_a_new_log_waits_for_no_poll(path: Path) -> None:
    async with NotingLog(path) as log, SqliteExecutionLog(path) as theirs:
        handle = await start(theirs, job.bind("theirs"))
        async with worker(log, job, poll_seconds=60.0):
            assert await handle.result(10) == "theirs"
            assert log.claimed == ["f"]


async def test_a_flow_that_the_worker_of_its_process_does_not_run_is_left_to_others(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, other, versions=[">=2"]) as working:
        handles = {
            "unknown": await start(log, waits_for_word.bind(), id="unknown"),
            "queue and tag": await start(log, other.bind(), id="queue and tag"),
            "tag": await start(log, job.bind(), id="tag", tags=["gpu"]),
            "queue": await start(log, job.bind(), id="queue", options=ScheduleOptions(queue="slow")),
            "later": await start(log, job.bind(), id="later", delay=3_600),
            "version": await Scheduler(log).with_version("1.9").schedule(job.bind(), id="version"),
        }

        claimer: Any = working._claimer
        await until(lambda: claimer.has_nothing_to_claim)
        fits = await Scheduler(log).with_version("2.1").schedule(job.bind(), id="fits")
        assert await fits.result(10) == "a"

        assert {name: await handle.status() for name, handle in handles.items()} == dict.fromkeys(
            handles, TaskStatus.PENDING
        )
        assert (log.eager, log.claimed) == (["fits"], [])


async def test_a_new_flow_does_not_overtake_those_that_wait_for_room(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, waits_for_word, capacity=1, evict_after_seconds=60.0):
        first = await start(log, waits_for_word.bind(), id="first")
        waiting = [await start(log, job.bind(id), id=id) for id in ("second", "third")]
        await first.signal("word", "go")
        await waiting[0].result(10)

        await (await start(log, job.bind("fourth"), id="fourth")).result(10)

    assert ran == ["second", "third", "fourth"]
    assert log.eager[:1] == ["first"]
    assert log.claimed[:2] == ["second", "third"]


async def test_of_more_flows_than_fit_the_rest_is_claimed_when_there_is_room(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, capacity=300):
        scheduler = Scheduler(log)

        handles = await scheduler.schedule_all([job.bind(str(n)) for n in range(700)])

        assert await scheduler.results(handles, 60) == [str(n) for n in range(700)]
    assert sorted(ran) == sorted(map(str, range(700)))
    assert sorted([*log.eager, *log.claimed]) == sorted(handle.id for handle in handles)


async def test_of_more_flows_than_fit_those_of_higher_priority_run_first(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, urgent, capacity=1):
        scheduler = Scheduler(log)
        await (await start(log, job.bind("before"), id="before")).result(10)
        calls = [urgent.bind() if n == 2 else job.bind(f"{n}") for n in range(4)]

        await scheduler.results(await scheduler.schedule_all(calls), 30)

    assert ran == ["before", "urgent", "0", "1", "3"]


async def test_scheduling_the_same_id_again_starts_it_once(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job):
        handles = await asyncio.gather(*(start(log, job.bind(), id="once") for _ in range(20)))

        assert {await handle.result(10) for handle in handles} == {"a"}
    assert ran == ["a"]


async def test_a_signal_that_came_before_the_worker_heard_of_its_flow_reaches_it(path: Path) -> None:
    async with (
        NotingLog(path) as log,
        worker(log, waits_for_word, poll_seconds=60.0, evict_after_seconds=60.0),
    ):
        log.may_answer.clear()
        starting = asyncio.create_task(start(log, waits_for_word.bind()))
        await log.written.wait()
        async with SqliteExecutionLog(path) as elsewhere:
            await Scheduler(elsewhere).handle("f").signal("word", "early")
        await asyncio.sleep(0.1)  # the worker has heard of the message, if it ever will
        log.may_answer.set()

        assert await (await starting).result(10) == "early"


async def test_a_flow_whose_starter_was_cancelled_runs_all_the_same(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job):
        log.may_answer.clear()
        starting = asyncio.create_task(start(log, job.bind()))
        await log.written.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        log.may_answer.set()

        assert await Scheduler(log).handle("f", str).result(10) == "a"
    assert (ran, log.claimed) == (["a"], [])


async def test_a_flow_whose_creation_was_not_answered_runs_soon_and_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody may know that it was written: the worker finds out what it owns."""
    async with NotingLog(path) as log, worker(log, job):
        log.fails = LogBusy("the answer was lost")
        with pytest.raises(LogBusy):
            await start(log, job.bind())

        assert await (await start(log, job.bind())).result(10) == "a"
    assert (ran, log.claimed) == (["a"], ["f"])
    assert "given back" in caplog.text


async def test_a_flow_that_is_being_created_is_not_given_back(path: Path) -> None:
    """The worker looks for flows that it owns and does not know of, while one such is on its way."""
    async with NotingLog(path) as log, worker(log, job) as working:
        assert await (await start(log, job.bind(), id="before")).result(10) == "a"
        log.may_answer.clear()
        log.written.clear()
        starting = asyncio.create_task(start(log, job.bind("late")))
        await log.written.wait()
        assert working._claimer is not None
        for _ in range(3):
            working._claimer.disown_soon()
            await asyncio.sleep(0.05)
        log.may_answer.set()

        assert await (await starting).result(10) == "late"
    assert (ran, log.claimed) == (["a", "late"], [])


async def test_a_flow_that_is_created_while_the_worker_gives_others_back_is_not_among_them(
    path: Path,
) -> None:
    """What the worker knows of was noted before, and is compared after: it would run twice."""
    async with NotingLog(path) as log, worker(log, job) as working:
        assert await (await start(log, job.bind(), id="before")).result(10) == "a"
        log.may_disown.clear()
        log.disowning.clear()
        assert working._claimer is not None
        working._claimer._disown_at = 0.0  # it is time to look, as it is every ten seconds
        working._claimer._something.set()
        await log.disowning.wait()
        created = await start(log, job.bind("late"), id="late")
        log.may_disown.set()

        assert await created.result(10) == "late"
    assert ran == ["a", "late"]
    assert (log.eager, log.claimed) == (["before"], ["late"])


async def test_a_worker_that_was_declared_dead_starts_nothing(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job) as working:
        assert await (await start(log, job.bind(), id="before")).result(10) == "a"
        assert working._incarnation is not None
        await log.retire(working._incarnation.id)

        assert await (await start(log, job.bind("new"))).status() is TaskStatus.PENDING


@pytest.mark.parametrize("when", ["before it is written", "before it is answered"])
async def test_a_flow_that_is_created_while_its_worker_shuts_down_is_left_to_the_next(
    path: Path, when: str
) -> None:
    async with NotingLog(path) as log:
        working = worker(log, job)
        async with working:
            assert await (await start(log, job.bind(), id="before")).result(10) == "a"
            log.may_answer.clear()
            log.written.clear()
            starting = asyncio.create_task(start(log, job.bind("left")))
            if when == "before it is answered":
                await log.written.wait()
        log.may_answer.set()
        handle = await soon(starting)
        await until_status(handle, "pending")
        assert ran == ["a"]

        async with worker(log, job):
            assert await handle.result(10) == "left"
    assert ran == ["a", "left"]


async def test_a_flow_scheduled_while_its_worker_stops_before_its_first_look_is_created(path: Path) -> None:
    async with NotingLog(path) as log:
        working = worker(log, job)
        await working.start()
        starting = asyncio.create_task(start(log, job.bind()))
        await asyncio.sleep(0)
        await working.shutdown()

        assert await (await soon(starting)).status() in (TaskStatus.PENDING, TaskStatus.COMPLETED)


async def test_what_many_callers_have_in_context_reaches_no_step(path: Path) -> None:
    """A tenant, a request's id, a session: steps would see those of whoever scheduled last."""

    async def request(name: str, log: NotingLog) -> list[str]:
        tenant.set(name)
        return list(await (await start(log, asks_twice.bind(), id=name)).result(10))

    tenant.set("whoever started the worker")
    async with NotingLog(path) as log, worker(log, asks_twice):
        tenant.set("nobody who may be seen")
        seen = await asyncio.gather(*(request(f"tenant-{n}", log) for n in range(20)))
        claimed = await start(log, asks_twice.bind(), id="claimed", delay=0.01)
        seen.append(await claimed.result(10))

    assert len(log.eager) > 1
    assert "claimed" in log.claimed
    assert {name for each in seen for name in each} == {"whoever started the worker"}


async def test_a_flow_whose_worker_began_to_drain_meanwhile_is_given_back_before_the_drain_is_over(
    path: Path,
) -> None:
    may_end = asyncio.Event()

    @step
    async def long() -> str:
        await may_end.wait()
        return "done"

    @flow
    async def slow() -> str:
        return await long()

    async with NotingLog(path) as log:
        working = worker(log, slow, job, drain_seconds=60.0)
        await working.start()
        slowly = await start(log, slow.bind(), id="slow")
        await until_status(slowly, "running")
        log.may_answer.clear()
        log.written.clear()
        starting = asyncio.create_task(start(log, job.bind()))
        await log.written.wait()
        stopping = asyncio.create_task(working.shutdown())
        residents: Any = working._residents
        await until(lambda: residents._host.draining)
        log.may_answer.set()

        handle = await soon(starting)

        await until_status(handle, "pending")
        assert not stopping.done()
        may_end.set()
        await soon(stopping)
    assert ran == []


async def test_whoever_schedules_beside_a_backlog_does_not_wait_until_it_is_claimed(path: Path) -> None:
    async with NotingLog(path) as log:
        await Scheduler(log).schedule_all([job.bind(str(n)) for n in range(600)])
        log.claims_max = 1
        async with worker(log, job):
            handle = await soon(start(log, job.bind("new")))

            assert log.eager == []
            log.may_claim.set()
            assert await handle.result(30) == "new"


async def test_room_that_was_kept_for_flows_that_exist_is_used_at_once(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, capacity=1, poll_seconds=60.0) as working:
        await (await start(log, job.bind())).result(10)
        claimer: Any = working._claimer
        await until(lambda: claimer.has_nothing_to_claim)
        log.may_answer.clear()
        log.written.clear()
        again = asyncio.create_task(start(log, job.bind()))
        await log.written.wait()
        waits = await start(log, job.bind("waits"), id="waits")
        await until(lambda: claimer._is_full)
        log.may_answer.set()
        await soon(again)

        assert await waits.result(10) == "waits"


async def test_a_program_of_another_event_loop_is_told_so_and_starts_nothing(path: Path) -> None:
    """A worker's own loop alone may run its flows."""
    async with NotingLog(path) as log, worker(log, job):
        await (await start(log, job.bind(), id="before")).result(10)

        with pytest.raises(StoreError, match="event loop"):
            await asyncio.to_thread(asyncio.run, start(log, job.bind(), id="elsewhere"))

        assert await log.find("elsewhere") is None


async def test_a_damaged_flow_among_many_keeps_no_other_from_being_created_and_run(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with NotingLog(path) as log, worker(log, job, poll_seconds=60.0):
        await (await start(log, job.bind(), id="bad")).result(10)
        with contextlib.closing(sqlite3.connect(path)) as vandal, vandal:
            vandal.execute("UPDATE flows SET input = CAST(x'ff' AS TEXT) WHERE id = 'bad'")
        ids = ["bad", *(str(number) for number in range(600))]

        with pytest.raises(LogDamaged, match="'bad'"):
            await Scheduler(log).schedule_all([job.bind(id) for id in ids], ids=ids)

        handles = [Scheduler(log).handle(id, str) for id in ids[1:]]
        assert await Scheduler(log).results(handles, 30) == ids[1:]
    assert sorted(ran) == sorted(["a", *ids[1:]])
    assert "given back" not in caplog.text


async def test_a_flow_whose_creation_was_cut_off_with_all_tasks_is_given_back_at_once(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job, poll_seconds=60.0):
        await (await start(log, job.bind(), id="before")).result(10)
        starting = asyncio.create_task(start(log, job.bind()))
        while "f" not in log.eager:
            await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if task.get_name() == "ergon-eager-start":
                task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: log.find("f"))

        assert await Scheduler(log).handle("f", str).result(5) == "a"
        assert log.claimed == ["f"]
    assert ran == ["a", "a"]


async def test_creating_flows_leaves_no_work_to_the_garbage_collector(path: Path) -> None:
    async with SqliteExecutionLog(path) as log:
        gc.collect()
        gc.disable()
        try:
            await Scheduler(log).schedule_all([job.bind(str(number)) for number in range(50)])
            left = [each for each in gc.get_objects() if type(each) is Create]
        finally:
            gc.enable()
    assert left == []


async def test_two_workers_of_one_process_start_what_each_of_them_runs(path: Path) -> None:
    @flow
    async def mine() -> str:
        return "mine"

    async with NotingLog(path) as log, worker(log, job), worker(log, mine, queues=["mine"]):
        one = await start(log, job.bind(), id="one")
        two = await start(log, mine.bind(), id="two", options=ScheduleOptions(queue="mine"))

        assert (await one.result(10), await two.result(10)) == ("a", "mine")
        assert (log.eager, log.claimed) == (["one", "two"], [])


async def test_nothing_stays_reserved_after_flows_that_exist_or_could_not_be_created(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, job) as working:
        residents: Any = working._residents
        await (await start(log, job.bind())).result(10)
        await start(log, job.bind())
        log.fails = LogBusy("no room")
        with pytest.raises(LogBusy):
            await start(log, job.bind(), id="second")

        await until(lambda: residents.room == working.options.capacity)
        assert not residents.expects_new
        await until(lambda: _all_ended(log))


async def _all_ended(log: SqliteExecutionLog) -> bool:
    counts = await log.count(FlowFilter())
    return set(counts) == {TaskStatus.COMPLETED}
