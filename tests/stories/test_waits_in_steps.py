"""A step may wait durably: its body runs again after a restart, and what was answered answers at once."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    FlowCancelled,
    FlowFilter,
    FlowHandle,
    RetryPolicy,
    Scheduler,
    Suspended,
    attempt,
    flow,
    invoke,
    schedule_timer_named,
    step,
    wait_signal,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker


@dataclass
class Decision:
    approved: bool
    by: str


async def test_a_timer_in_a_step_is_not_begun_again_by_a_restart(
    log: ExecutionLog, clock: SettableClock
) -> None:
    runs: list[str] = []

    @step
    async def cool_down() -> str:
        runs.append("began")
        await schedule_timer_named(3_600, "cooling")
        runs.append("ended")
        return "cool"

    @flow
    async def process() -> str:
        return await cool_down()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: waits(log, 1))
    clock.pass_time(3_500)
    async with worker(log, process):
        assert await handle.status() == "suspended", "nobody has to hold it while it waits"
    clock.pass_time(101)
    async with worker(log, process):
        assert await handle.result(10) == "cool"

    assert runs == ["began", "began", "ended"]
    assert await waits(log, 1), "the due time is recorded once"


async def waits(log: ExecutionLog, count: int) -> bool:
    return (await kinds(log)).count("step_waited") == count


@pytest.mark.every_log
async def test_signals_in_a_step_are_recorded_one_by_one(log: ExecutionLog) -> None:
    """After a restart the first two answer at once, from the history, and only the third is waited for."""
    runs: list[list[str]] = []

    @step
    async def collect() -> list[str]:
        found: list[str] = []
        runs.append(found)
        while len(found) < 3:
            found.append(await wait_signal("vote", str))
        return found

    @flow
    async def election() -> list[str]:
        return await collect()

    async with worker(log, election):
        handle = await start(log, election.bind())
        await handle.signal("vote", "ann")
        await handle.signal("vote", "bob")
        await until(lambda: runs and len(runs[0]) == 2)
    await handle.signal("vote", "eve")
    async with worker(log, election):
        assert await handle.result(10) == ["ann", "bob", "eve"]

    assert len(runs) == 2
    assert await log.inbox("f") == []


async def test_a_typed_signal_is_decoded_in_a_step_too(log: ExecutionLog) -> None:
    @step
    async def ask() -> Decision:
        return await wait_signal("approval", Decision)

    @flow
    async def process() -> Decision:
        return await ask()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("approval", Decision(True, "ann"))

        assert await handle.result(10) == Decision(True, "ann")


@pytest.mark.every_log
async def test_a_child_started_by_a_step_is_started_once(log: ExecutionLog) -> None:
    effects: list[str] = []

    @flow
    async def child(name: str) -> str:
        effects.append(f"child {name}")
        return f"hello {await wait_signal('reply', str)}"

    @step
    async def call_child() -> str:
        effects.append("body")
        handle = invoke(child.bind("c"))
        effects.append(handle.flow_id)
        return await handle.result()

    @flow
    async def parent() -> str:
        return await call_child()

    async with worker(log, parent, child, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        await until(lambda: "child c" in effects)
    child_id = effects[1]
    await handle_of(log, child_id).signal("reply", "you")
    async with worker(log, parent, child):
        assert await handle.result(10) == "hello you"

    assert effects.count("body") == 2
    assert effects.count(child_id) == 2
    found, _ = await log.list(FlowFilter(names=("child",)))
    assert len(found) == 1


def handle_of(log: ExecutionLog, flow_id: str) -> FlowHandle[Any]:
    return Scheduler(log).handle(flow_id)


async def test_a_failed_child_raises_its_own_error_in_the_step(log: ExecutionLog) -> None:
    @flow
    async def child() -> None:
        raise KeyError("lost")

    @step
    async def call_child() -> str:
        try:
            await invoke(child.bind()).result()
        except KeyError as error:
            return repr(error)
        return "fine"

    @flow
    async def parent() -> str:
        return await call_child()

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "KeyError('lost')"


async def test_a_killed_child_raises_flow_cancelled_in_the_step(log: ExecutionLog) -> None:
    ids: list[str] = []

    @flow
    async def child() -> None:
        await wait_signal("never")

    @step
    async def call_child() -> str:
        handle = invoke(child.bind())
        ids.append(handle.flow_id)
        try:
            await handle.result()
        except FlowCancelled:
            return "killed"
        return "fine"

    @flow
    async def parent() -> str:
        return await call_child()

    async with worker(log, parent, child):
        handle = await start(log, parent.bind())
        await until(lambda: log.find(ids[0]) if ids else None)
        await handle_of(log, ids[0]).kill()

        assert await handle.result(10) == "killed"


async def test_a_step_whose_child_has_a_taken_id_fails_and_its_flow_goes_on(log: ExecutionLog) -> None:
    @flow
    async def other() -> None: ...

    @flow
    async def child() -> None: ...

    @step
    async def call_child() -> str:
        try:
            await invoke(child.bind(), id="taken").result()
        except ValueError as error:
            return type(error).__name__
        return "fine"

    @flow
    async def parent() -> str:
        return await call_child()

    await start(log, other.bind(), "taken")
    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "FlowIdConflict"


async def test_a_cancelled_step_takes_its_child_with_it(log: ExecutionLog) -> None:
    ids: list[str] = []

    @flow
    async def child() -> None:
        await wait_signal("never")

    @step
    async def call_child() -> None:
        handle = invoke(child.bind())
        ids.append(handle.flow_id)
        await handle.result()

    @flow
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.1):
                await call_child()
        except TimeoutError:
            await wait_signal("go")
        return "went on"

    async with worker(log, parent, child):
        handle = await start(log, parent.bind())
        await until(lambda: log.find(ids[0]) if ids else None)
        await until_status(handle_of(log, ids[0]), "cancelled")
        await handle.signal("go")

        assert await handle.result(10) == "went on"


async def test_a_second_attempt_keeps_the_signals_of_the_first_and_begins_its_timers_anew(
    log: ExecutionLog,
) -> None:
    """A person is not asked twice; a step that looks every so often does not look at once for all of its attempts."""
    began: list[float] = []

    @step(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def careful() -> str:
        began.append(log.now())
        await schedule_timer_named(0.05, "pause")
        began.append(log.now())
        answer = await wait_signal("approval", str)
        if attempt() == 1:
            raise ConnectionError("down")
        return answer

    @flow
    async def process() -> str:
        return await careful()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("approval", "yes")

        assert await handle.result(10) == "yes"

    assert (await kinds(log)).count("step_waited") == 3
    assert began[3] - began[2] >= 0.05


async def test_a_flow_that_waits_in_a_step_is_suspended_by_the_executor(log: ExecutionLog) -> None:
    @step
    async def ask() -> str:
        return await wait_signal("approval", str)

    @flow
    async def process() -> str:
        return await ask()

    outcome = await Executor(process.bind(), log, "f").run()

    assert isinstance(outcome, Suspended)
    assert 'signal "approval" inside step "ask"' in outcome.reason


async def test_two_waits_at_once_in_a_body_both_count(log: ExecutionLog) -> None:
    """While either is open the body only waits, so the flow may leave memory; answered, it goes on with both."""

    @step
    async def both() -> list[str]:
        return list(await asyncio.gather(wait_signal("a", str), wait_signal("b", str)))

    @flow
    async def process() -> list[str]:
        return await both()

    executor = Executor(process.bind(), log, "f")
    assert isinstance(await executor.run(), Suspended)
    handle = handle_of(log, "f")
    await handle.signal("b", "B")
    assert isinstance(await executor.run(), Suspended)
    await handle.signal("a", "A")

    assert await executor.run() == Completed(["A", "B"])


async def test_a_cancelled_wait_in_a_step_loses_no_signal(log: ExecutionLog) -> None:
    @step
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.05):
                return await wait_signal("approval", str)
        except TimeoutError:
            return "too late"

    @flow
    async def process() -> list[str]:
        first = await impatient()
        return [first, await wait_signal("approval", str)]

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: step_done(log))
        await handle.signal("approval", "yes")

        assert await handle.result(10) == ["too late", "yes"]


async def step_done(log: ExecutionLog) -> bool:
    return "step_completed" in await kinds(log)


async def test_a_timer_beside_a_signal_still_ends_the_wait(log: ExecutionLog) -> None:
    """The flow is due when the first of its body's waits is over, whichever was begun last."""

    @step
    async def ask() -> str:
        approval = asyncio.ensure_future(wait_signal("approval", str))
        limit = asyncio.ensure_future(schedule_timer_named(0.3, "limit"))
        await asyncio.sleep(0)
        done, pending = await asyncio.wait([limit, approval], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return "too late" if limit in done else await approval

    @flow
    async def process() -> str:
        return await ask()

    outcome = await Executor(process.bind(), log, "f").run()

    assert isinstance(outcome, Suspended)
    assert len(outcome.waits) == 2
    async with worker(log, process):
        assert await handle_of(log, "f").result(10) == "too late"


@pytest.mark.parametrize("capacity", [1, 2])
async def test_flows_that_wait_in_a_step_make_room_for_others(log: ExecutionLog, capacity: int) -> None:
    @step
    async def ask() -> str:
        return await wait_signal("approval", str)

    @flow
    async def process() -> str:
        return await ask()

    async with worker(log, process, capacity=capacity):
        handles = [await start(log, process.bind(), f"f-{number}") for number in range(4)]
        await until(lambda: all_started(log))
        for handle in handles:
            await handle.signal("approval", handle.id)

        assert [await handle.result(10) for handle in handles] == [handle.id for handle in handles]


async def all_started(log: ExecutionLog) -> bool:
    found, _ = await log.list(FlowFilter())
    return all(record.started_at is not None for record in found)


@step
async def waits_in_vain() -> int:
    await wait_signal("never", int)
    return 1


@flow
async def loses_patience() -> str:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await waits_in_vain()
    return await wait_signal("go", str)


async def test_a_flow_that_abandoned_a_waiting_step_and_only_waits_leaves_memory(log: ExecutionLog) -> None:
    async with worker(log, loses_patience):
        handle = await start(log, loses_patience.bind())

        await until_status(handle, "suspended")

        await handle.signal("go", "on")
        assert await handle.result(10) == "on"
