"""`Executor` runs one flow here and now, and can be run again wherever it stopped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    FlowCancelled,
    FlowIdConflict,
    FlowParked,
    IllegalMove,
    LeaseLost,
    NotInFlow,
    Outcome,
    Scheduler,
    SqliteExecutionLog,
    Suspended,
    UsageError,
    Worker,
    flow,
    flow_type,
    step,
    wait_signal,
)
from tests.stories.helpers import kinds, soon, start, until, until_status, worker

ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@flow_type
@dataclass
class Order:
    id: str

    @step
    async def charge(self) -> str:
        ran.append("charge")
        return f"paid {self.id}"

    @step
    async def ship(self) -> str:
        ran.append("ship")
        return f"shipped {self.id}"

    @flow
    async def process(self) -> list[str]:
        paid = await self.charge()
        answer = await wait_signal("approval", str)
        return [paid, answer, await self.ship()]

    @flow
    async def fails(self) -> None:
        await self.charge()
        raise KeyError(self.id)


async def test_a_flow_is_run_suspended_and_run_again(either_log: ExecutionLog) -> None:
    executor = Executor(Order("o"), either_log, "f")

    suspended = await executor.run(lambda order: order.process())
    await Scheduler(either_log).handle("f").signal("approval", "yes")
    completed = await executor.run(lambda order: order.process())
    again = await Executor(Order("o"), either_log, "f").run(lambda order: order.process())

    assert isinstance(suspended, Suspended)
    assert not hasattr(suspended, "result"), "nor may asking for it break off with something else"
    assert 'waiting for signal "approval"' in suspended.reason
    assert suspended.waits[0]["name"] == "approval"
    with pytest.raises(UsageError, match='waiting for signal "approval"'):
        _ = suspended.result
    assert completed == again == Completed(["paid o", "yes", "shipped o"])
    assert ran == ["charge", "ship"]


@pytest.mark.every_log
async def test_a_worker_may_go_on_with_what_an_executor_began_and_the_other_way_round(
    log: ExecutionLog,
) -> None:
    executor = Executor(Order("o"), log, "f")
    await executor.run(lambda order: order.process())
    handle = Scheduler(log).handle("f")
    async with worker(log, Order):
        await handle.signal("approval", "yes")
        assert await handle.result(10) == ["paid o", "yes", "shipped o"]

    assert await executor.run(lambda order: order.process()) == Completed(["paid o", "yes", "shipped o"])


async def test_the_error_of_the_flow_is_raised_each_time(log: ExecutionLog) -> None:
    executor = Executor(Order("o"), log, "f")
    for _ in range(2):
        with pytest.raises(KeyError, match="o"):
            await executor.run(lambda order: order.fails())

    assert ran == ["charge"]


async def test_a_function_is_run_bound_to_its_arguments(log: ExecutionLog) -> None:
    @flow
    async def add(one: int, other: int) -> int:
        await asyncio.sleep(0)
        return one + other

    outcome: Outcome[int] = await Executor(add.bind(1, other=2), log, "f").run()

    assert outcome == Completed(3)
    with pytest.raises(FlowIdConflict, match="another input"):
        await Executor(add.bind(1, other=3), log, "f").run()
    with pytest.raises(FlowIdConflict, match="add"):
        await Executor(Order("o"), log, "f").run(lambda order: order.process())


async def test_a_flow_that_a_worker_owns_cannot_be_run_here_too(log: ExecutionLog) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> str:
        ran.append("slow")
        await gate.wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    async with worker(log, slow_job):
        handle = await start(log, slow_job.bind())
        await until(lambda: ran)
        with pytest.raises(IllegalMove, match="owned by worker"):
            await Executor(slow_job.bind(), log, "f").run()
        gate.set()

        assert await handle.result(10) == "done"
        assert await Executor(slow_job.bind(), log, "f").run() == Completed("done")
    assert ran == ["slow"]


async def test_a_cancelled_or_parked_flow_says_so(log: ExecutionLog) -> None:
    @flow(name="f")
    async def waits() -> None:
        await wait_signal("go")

    @flow(name="f")
    async def sleeps() -> None:
        await asyncio.sleep(1)

    await Executor(waits.bind(), log, "a").run()
    await Scheduler(log).handle("a").cancel("enough")
    with pytest.raises(FlowCancelled, match="enough"):
        await Executor(waits.bind(), log, "a").run()
    await Executor(waits.bind(), log, "b").run()
    await Scheduler(log).handle("b").signal("go")
    await Scheduler(log).handle("b").pause()
    with pytest.raises(
        IllegalMove, match=r"'b' is paused; resume it .*`await Scheduler\(log\)\.handle\('b'\)\.resume\(\)`"
    ):
        await Executor(waits.bind(), log, "b").run()


async def test_code_that_no_longer_matches_parks_the_flow(log: ExecutionLog) -> None:
    @step
    async def one() -> None: ...

    @step
    async def two() -> None: ...

    @flow(name="f")
    async def before() -> None:
        await one()
        await wait_signal("go")

    @flow(name="f")
    async def after() -> None:
        await two()

    await Executor(before.bind(), log, "f").run()
    await Scheduler(log).handle("f").signal("go")
    for _ in range(2):
        with pytest.raises(FlowParked, match="two"):
            await Executor(after.bind(), log, "f").run()
    await Scheduler(log).handle("f").resume()

    assert await Executor(before.bind(), log, "f").run() == Completed(None)


@pytest.mark.every_log
async def test_cancelling_whoever_awaits_the_executor_gives_the_flow_back(log: ExecutionLog) -> None:
    @step
    async def slow() -> str:
        ran.append("slow")
        if len(ran) == 1:
            await asyncio.Event().wait()
        return "done"

    @flow
    async def slow_job() -> str:
        return await slow()

    running = asyncio.create_task(Executor(slow_job.bind(), log, "f").run())
    await until(lambda: ran)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    record = await log.find("f")
    assert record is not None
    assert (record.status, record.owner) == ("pending", None)
    assert await Executor(slow_job.bind(), log, "f").run() == Completed("done")


async def test_a_time_limit_around_the_executor_gives_the_flow_back_too(log: ExecutionLog) -> None:
    @step
    async def slow() -> None:
        limit.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()

    @flow
    async def slow_job() -> None:
        await slow()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            await Executor(slow_job.bind(), log, "f").run()

    assert await Scheduler(log).handle("f").status() == "pending"


@pytest.mark.every_log
async def test_a_flow_taken_over_while_it_ran_here_raises_lease_lost(log: ExecutionLog) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        ran.append("slow")
        await gate.wait()

    @flow
    async def slow_job() -> None:
        await slow()

    running = asyncio.create_task(Executor(slow_job.bind(), log, "f").run())
    await until(lambda: ran)
    await Scheduler(log).handle("f").pause()
    gate.set()

    with pytest.raises(LeaseLost, match="taken over"):
        await running


@pytest.mark.every_log
async def test_children_are_left_to_workers(log: ExecutionLog) -> None:
    @flow
    async def child() -> str:
        return "from the child"

    @flow
    async def parent() -> str:
        return await child()

    executor = Executor(parent.bind(), log, "f")
    suspended = await executor.run()
    async with worker(log, child):
        await until_status(Scheduler(log).handle("f/0:1"), "completed")

    assert isinstance(suspended, Suspended)
    assert await executor.run() == Completed("from the child")


async def test_a_wrong_entry_is_refused_with_the_names_to_choose_from(log: ExecutionLog) -> None:
    @flow
    async def plain() -> None: ...

    cases: list[tuple[Any, Any, str]] = [
        (Order("o"), None, "Order.process"),
        (Order("o"), lambda order: order.id, "Order.process"),
        (plain, None, "bind"),
        (plain.bind(), lambda _: None, "without an entry"),
        ("text", None, "str"),
        ("text", lambda text: text, "@flow_type"),
    ]
    for target, entry, told in cases:
        with pytest.raises(UsageError, match=told):
            await Executor(target, log, "f").run(entry)


async def test_an_executor_inside_a_flow_is_refused(log: ExecutionLog) -> None:
    @flow
    async def wrong() -> None:
        await Executor(Order("o"), log, "g").run()

    with pytest.raises(NotInFlow, match="invoke"):
        await Executor(wrong.bind(), log, "f").run()


def test_two_programs_one_after_the_other_share_a_file(path: Path) -> None:
    async def first() -> Outcome[Any]:
        async with SqliteExecutionLog(path) as log:
            return await Executor(Order("o"), log, "f").run(lambda order: order.process())

    async def second() -> Outcome[Any]:
        async with SqliteExecutionLog(path) as log:
            await Scheduler(log).handle("f").signal("approval", "yes")
            return await Executor(Order("o"), log, "f").run(lambda order: order.process())

    assert isinstance(asyncio.run(first()), Suspended)
    assert asyncio.run(second()) == Completed(["paid o", "yes", "shipped o"])


def test_one_log_object_serves_two_runs_of_asyncio(path: Path) -> None:
    """Closed or not: the second event loop finds the log as if it were new."""
    log = SqliteExecutionLog(path)

    async def begin(id: str) -> Any:
        async with worker(await log.connect(), Order):
            handle = await start(log, Order("o").process.bind(), id)
            await handle.signal("approval", "yes")
            return await handle.result(10)

    assert asyncio.run(begin("a")) == ["paid o", "yes", "shipped o"]
    assert asyncio.run(begin("b")) == ["paid o", "yes", "shipped o"]
    asyncio.run(close(log))


async def close(log: SqliteExecutionLog) -> None:
    await log.connect()
    await log.close()


async def test_a_flow_that_runs_here_can_be_cancelled(either_log: ExecutionLog) -> None:
    began = asyncio.Event()

    @step
    async def endless() -> None:
        began.set()
        await asyncio.Event().wait()

    @flow
    async def job() -> None:
        await endless()

    running = asyncio.create_task(Executor(job.bind(), either_log, "f").run())
    await began.wait()
    await Scheduler(either_log).handle("f").cancel("enough")

    with pytest.raises(FlowCancelled, match="enough"):
        await soon(running)


async def test_a_signal_reaches_a_flow_while_it_runs_here(path: Path) -> None:
    """From another log on the file, as from another process."""
    began, seen = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        began.set()
        await soon(seen.wait())

    async def listen() -> str:
        answer = await wait_signal("answer", str)
        seen.set()
        return answer

    @flow
    async def job() -> str:
        answer, _ = await asyncio.gather(listen(), slow())
        return answer

    async with SqliteExecutionLog(path) as log, SqliteExecutionLog(path) as elsewhere:
        running = asyncio.create_task(Executor(job.bind(), log, "f").run())
        await began.wait()
        await Scheduler(elsewhere).handle("f").signal("answer", "yes")

        assert await soon(running) == Completed("yes")


async def test_a_flow_that_runs_here_hears_of_messages_after_a_defect_of_the_log(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    arrivals, met = log.arrivals, list[str]()

    async def broken_once(worker_id: str, after: int) -> Any:
        met.append(worker_id)
        if len(met) == 1:
            raise RuntimeError("a defect of the driver")
        return await arrivals(worker_id, after)

    @step
    async def slow() -> None:
        began.set()
        await gate.wait()

    @flow
    async def both() -> str:
        answer, _ = await asyncio.gather(wait_signal("go", str), slow())
        return answer

    async def received() -> bool:
        return "signal_received" in await kinds(log)

    monkeypatch.setattr(log, "arrivals", broken_once)
    running = asyncio.create_task(Executor(both.bind(), log, "f").run())
    await soon(began.wait())
    await until(lambda: met)
    await Scheduler(log).handle("f").signal("go", "went")
    await until(received)
    gate.set()

    assert await soon(running) == Completed("went")


@pytest.mark.parametrize("act", ["pause", "kill"])
@pytest.mark.parametrize("runs_on", ["worker", "executor"])
async def test_a_flow_paused_or_killed_from_elsewhere_stops_its_work_soon(
    path: Path, act: str, runs_on: str
) -> None:
    """Its step would never end, so no commit would tell its owner."""
    stopped = asyncio.Event()

    @step
    async def endless() -> None:
        ran.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @flow
    async def job() -> None:
        await endless()

    async with SqliteExecutionLog(path) as log, SqliteExecutionLog(path) as elsewhere:
        if runs_on == "worker":
            working = Worker(log, flows=[job])
            await working.start()
            await start(log, job.bind())
        else:
            running = asyncio.create_task(Executor(job.bind(), log, "f").run())
        await until(lambda: ran)
        handle = Scheduler(elsewhere).handle("f")
        await (handle.pause("wait") if act == "pause" else handle.kill("enough"))

        await soon(stopped.wait())
        if runs_on == "worker":
            await working.shutdown()
        else:
            expected = LeaseLost if act == "pause" else FlowCancelled
            with pytest.raises(expected, match="paused now" if act == "pause" else "enough"):
                await soon(running)
        assert await handle.status() == ("paused" if act == "pause" else "cancelled")


async def test_a_flow_that_was_killed_says_so_each_time_it_is_run(log: ExecutionLog) -> None:
    await Executor(Order("o"), log, "f").run(lambda order: order.process())
    await Scheduler(log).handle("f").kill("enough")

    with pytest.raises(FlowCancelled, match="enough"):
        await Executor(Order("o"), log, "f").run(lambda order: order.process())
