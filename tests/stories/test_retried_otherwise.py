"""A flow that is tried again may take another way, or have other code: nothing of before passes for what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    FlowParked,
    RetryPolicy,
    flow,
    idempotency_key,
    invoke,
    schedule_timer,
    step,
    wait_signal,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker

ONCE_MORE = RetryPolicy(attempts_max=2, first_delay_seconds=0.01)


def fails_once(error: type[Exception] = ConnectionError) -> Callable[[], None]:
    """A call that raises the first time."""
    calls: list[None] = []

    def call() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise error("down")

    return call


async def has(log: ExecutionLog, kind: str, count: int = 1) -> bool:
    return (await kinds(log)).count(kind) >= count


# -- timers ----------------------------------------------------------------------------------------------


async def test_a_sleep_of_the_new_attempt_is_not_over_because_another_was(
    log: ExecutionLog, clock: SettableClock
) -> None:
    """Both are the first timer of the flow; a timer is never early."""
    down = fails_once()

    @step
    async def flaky() -> None:
        down()

    @flow(retry=ONCE_MORE)
    async def process() -> str:
        try:
            await flaky()
        except ConnectionError:
            await asyncio.sleep(0.05)
            raise
        await asyncio.sleep(3_600)
        return "slept"

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: has(log, "step_completed"))
        await until_status(handle, "suspended")
        assert (await handle.record()).wake_at is not None
        clock.pass_time(3_600)

        assert await handle.result(10) == "slept"


async def test_a_flow_that_ran_out_of_time_has_its_whole_time_when_it_is_tried_again(
    log: ExecutionLog,
) -> None:
    slow = True

    @step
    async def call() -> str:
        if slow:
            await asyncio.sleep(60)
        return "answer"

    @flow
    async def process() -> str:
        async with asyncio.timeout(0.2):
            return await call()

    async with worker(log, process):
        handle = await start(log, process.bind())
        with pytest.raises(TimeoutError):
            await handle.result(10)
        slow = False
        await handle.retry()

        assert await handle.result(10) == "answer"


@pytest.mark.parametrize("beside", ["step", "signal"])
async def test_a_sleep_that_limits_something_begins_anew_with_it(log: ExecutionLog, beside: str) -> None:
    """A time limit made by hand, of a sleep and a race, is one too."""
    answers = False

    @step
    async def call() -> str:
        if not answers:
            await asyncio.sleep(60)
        return "answer"

    async def ask() -> str:
        return await call() if beside == "step" else await wait_signal("answer", str)

    @flow
    async def process() -> str:
        asked = asyncio.create_task(ask())
        await asyncio.wait([asked, asyncio.create_task(asyncio.sleep(0.3))], return_when="FIRST_COMPLETED")
        if not asked.done():
            raise ValueError("no answer in time")
        return await asked

    async with worker(log, process):
        handle = await start(log, process.bind())
        with pytest.raises(ValueError, match="no answer in time"):
            await handle.result(10)
        answers = True
        await handle.retry()
        if beside == "signal":
            await until(lambda: has(log, "flow_retried"))
            await handle.signal("answer", "answer")

        assert await handle.result(10) == "answer"


async def test_a_sleep_is_slept_again_once_the_new_attempt_has_done_anything_else(
    log: ExecutionLog, clock: SettableClock
) -> None:
    down = fails_once()

    @step
    async def flaky() -> None:
        down()

    @flow(retry=ONCE_MORE)
    async def process() -> None:
        error = None
        try:
            await flaky()
        except ConnectionError as caught:
            error = caught
        await asyncio.sleep(3_600)
        if error is not None:
            raise error

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        clock.pass_time(3_600)
        await until(lambda: has(log, "step_completed"))
        await until_status(handle, "suspended")
        clock.pass_time(3_600)
        await handle.result(10)


# -- steps that are open ---------------------------------------------------------------------------------


async def test_a_step_does_not_get_the_signal_that_another_step_waited_for_in_its_place(
    log: ExecutionLog,
) -> None:
    down = fails_once()

    @step
    async def flaky() -> None:
        down()

    @step
    async def ask_to_retry() -> str:
        return await wait_signal("decision", str)

    @step
    async def ask_to_pay() -> str:
        return await wait_signal("decision", str)

    @flow(retry=ONCE_MORE)
    async def process() -> str:
        try:
            await flaky()
        except ConnectionError:
            await ask_to_retry()
            raise
        return await ask_to_pay()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("decision", "try it again")
        await until(lambda: has(log, "step_completed", 2))
        await handle.signal("decision", "pay")

        assert await handle.result(10) == "pay"


async def test_a_signal_that_the_new_attempt_has_received_again_is_not_received_twice(
    log: ExecutionLog,
) -> None:
    """Also when the flow has left memory since: what it has received again is in the history."""

    @flow(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=0.001))
    async def two_of_them() -> list[str]:
        first = await wait_signal("decision", str)
        await once_only()
        await wait_signal("go on", str)
        return [first, await wait_signal("decision", str)]

    @step
    async def once_only() -> None:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise ConnectionError("down")

    attempts: list[int] = []
    async with worker(log, two_of_them, evict_after_seconds=0.01):
        handle = await start(log, two_of_them.bind())
        await handle.signal("decision", "yes")
        await until(lambda: len(attempts) == 2)
        await until_status(handle, "suspended")
        await handle.signal("go on", "now")
        await handle.signal("decision", "no")

        assert await handle.result(10) == ["yes", "no"]


async def test_a_step_does_not_fail_because_another_did_in_its_place(log: ExecutionLog) -> None:
    down = fails_once()

    @step
    async def flaky() -> None:
        down()

    @step(at_most_once=True)
    async def refund() -> None:
        raise ValueError("refused")

    @step
    async def ship() -> str:
        return f"shipped under {idempotency_key()}"

    @flow(retry=ONCE_MORE)
    async def process() -> str:
        try:
            await flaky()
        except ConnectionError:
            await refund()
        return await ship()

    @flow(retry=ONCE_MORE, name="process")
    async def again() -> str:
        answer: str = await process.function()
        return answer

    async with worker(log, again):
        handle = await start(log, again.bind())
        answer = await handle.result(10)

    assert answer.startswith("shipped under f/0:2")
    assert answer != "shipped under f/0:2", (
        "that is the key of the refund, which another system may know by it"
    )


@pytest.mark.parametrize("recorded", ["step_waited", "step_started", "step_retried"])
async def test_code_that_has_another_step_where_one_is_open_is_parked_with_both(
    log: ExecutionLog, recorded: str
) -> None:
    """It would be handed what the other waited for, or be told that it was interrupted."""

    @step
    async def ask(amount: int) -> str:
        await wait_signal("decision")
        return await wait_signal("another", str)

    @step(at_most_once=True)
    async def charge(amount: int) -> None:
        await asyncio.sleep(60)

    @step(retry=RetryPolicy(attempts_max=2, first_delay_seconds=600, delay_max_seconds=600))
    async def fetch(amount: int) -> None:
        raise ConnectionError("down")

    @step
    async def other(amount: int) -> str:
        return await wait_signal("decision", str)

    def version(which: Any) -> Any:
        @flow(name="process")
        async def process() -> str | None:
            answer: str | None = await which(10)
            return answer

        return process

    old: Any = {"step_waited": ask, "step_started": charge, "step_retried": fetch}[recorded]
    async with worker(log, version(old), drain_seconds=0.01):
        handle = await start(log, version(old).bind())
        await handle.signal("decision", "ok for 10")
        await until(lambda: has(log, recorded))
    await handle.signal("another", "go")  # wakes it
    async with worker(log, version(other)):
        with pytest.raises(FlowParked, match=rf"step `{old.name}` as operation 0:1(.|\n)*step `other`"):
            await handle.result(10)
    async with worker(log, version(ask)):
        if recorded == "step_waited":
            await handle.resume()
            assert await handle.result(10) == "go"


# -- steps that are completed ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["adds", "removes"])
async def test_a_fix_that_moves_completed_steps_runs_none_of_them_again(
    log: ExecutionLog, change: str
) -> None:
    effects: list[str] = []
    fixed = False

    @step
    async def check() -> None:
        effects.append(f"check {idempotency_key()}")

    @step(at_most_once=True)
    async def charge(amount: int) -> None:
        effects.append(f"charge {amount} {idempotency_key()}")

    @step
    async def ship() -> str:
        effects.append(f"ship {idempotency_key()}")
        if not fixed:
            raise ValueError("defect")
        return "shipped"

    def version(*, checks: bool) -> Any:
        @flow
        async def order() -> str:
            if checks:
                await check()
            await charge(5)
            await charge(5)
            await charge(7)
            return await ship()

        return order

    async with worker(log, old := version(checks=change == "removes")):
        handle = await start(log, old.bind())
        with pytest.raises(ValueError, match="defect"):
            await handle.result(10)
    before = list(effects)
    fixed = True
    async with worker(log, version(checks=change == "adds")):
        await handle.retry()
        assert await handle.result(10) == "shipped"

    anew = effects[len(before) :]
    assert [effect.split()[0] for effect in anew] == (["check", "ship"] if change == "adds" else ["ship"])
    assert anew[-1] == before[-1], "the step that failed is the same call, with the key it had"
    keys = {effect.rpartition(" ")[0]: effect.rpartition(" ")[2] for effect in effects}
    assert len(set(keys.values())) == len(keys), "no two calls have one key"


async def test_a_fix_that_adds_a_branch_runs_the_completed_ones_beside_it_not_again(
    log: ExecutionLog,
) -> None:
    effects: list[str] = []
    fixed = False

    @step
    async def fetch(name: str) -> str:
        effects.append(name)
        return name

    @step
    async def ship() -> None:
        if not fixed:
            raise ValueError("defect")

    def version(*names: str) -> Any:
        @flow
        async def order() -> list[str]:
            found = await asyncio.gather(*(fetch(name) for name in names))
            await ship()
            return list(found)

        return order

    async with worker(log, old := version("a", "b")):
        handle = await start(log, old.bind())
        with pytest.raises(ValueError, match="defect"):
            await handle.result(10)
    fixed = True
    async with worker(log, version("new", "a", "b")):
        await handle.retry()
        assert await handle.result(10) == ["new", "a", "b"]

    assert effects == ["a", "b", "new"]


async def test_what_several_attempts_completed_in_other_places_is_kept_by_the_next(log: ExecutionLog) -> None:
    """A call keeps its key from the attempt that made it first, wherever the code of later ones has it."""
    effects: list[str] = []
    failing = "first"

    @step
    async def work(name: str) -> None:
        effects.append(f"{name} {idempotency_key()}")
        if name == failing:
            raise ValueError(name)

    def version(*names: str) -> Any:
        @flow
        async def order() -> None:
            for name in names:
                await work(name)

        return order

    handle = None
    for names, failing in (
        (("a", "b", "first"), "first"),
        (("new", "a", "b", "second"), "second"),
        (("b", "a", "newer", "new", "second", "first"), ""),
    ):
        async with worker(log, code := version(*names)):
            if handle is None:
                handle = await start(log, code.bind())
            else:
                await handle.retry()
            if failing:
                with pytest.raises(ValueError, match=failing):
                    await handle.result(10)
            else:
                await handle.result(10)

    ran = [effect.split()[0] for effect in effects]
    assert ran == ["a", "b", "first", "new", "second", "newer", "second", "first"]
    keys = dict(effect.split() for effect in effects)
    assert len(set(effects)) == len(set(keys.values())) == len(keys) == 6, "each call has one key, for itself"


async def test_a_call_that_the_new_attempt_makes_once_more_is_a_new_call(log: ExecutionLog) -> None:
    keys: list[str] = []
    count = 1

    @step(at_most_once=True)
    async def charge() -> None:
        keys.append(idempotency_key())

    @flow
    async def order() -> None:
        for _ in range(count):
            await charge()
        if count == 1:
            raise ValueError("too little")

    async with worker(log, order):
        handle = await start(log, order.bind())
        with pytest.raises(ValueError, match="too little"):
            await handle.result(10)
        count = 2
        await handle.retry()
        await handle.result(10)

    assert len(keys) == len(set(keys)) == 2


async def test_a_worker_that_dies_in_a_later_attempt_finds_the_same_calls(log: ExecutionLog) -> None:
    """The replay of an attempt matches its calls with those of earlier ones as the first run did."""
    effects: list[str] = []
    fixed = False

    @step
    async def work(name: str) -> None:
        effects.append(f"{name} {idempotency_key()}")

    @step
    async def approve() -> str:
        if not fixed:
            raise ValueError("defect")
        return await wait_signal("approval", str)

    def version(*names: str) -> Any:
        @flow
        async def order() -> str:
            for name in names:
                await work(name)
            return await approve()

        return order

    async with worker(log, old := version("a", "b")):
        handle = await start(log, old.bind())
        with pytest.raises(ValueError, match="defect"):
            await handle.result(10)
    fixed = True
    await handle.retry()
    async with worker(log, version("new", "a", "b")):
        await until(lambda: has(log, "step_completed", 5))
    async with worker(log, version("new", "a", "b")):
        await handle.signal("approval", "yes")
        assert await handle.result(10) == "yes"

    assert [effect.split()[0] for effect in effects] == ["a", "b", "new"]


# -- a step that is tried again --------------------------------------------------------------------------


async def test_a_step_that_is_tried_again_starts_the_child_that_failed_again(log: ExecutionLog) -> None:
    down = fails_once()

    @flow
    async def child() -> str:
        down()
        return "up"

    @step(retry=ONCE_MORE)
    async def via() -> str:
        return await invoke(child.bind()).result()

    @flow
    async def parent() -> str:
        return await via()

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "up"


async def test_a_step_that_is_tried_again_keeps_the_child_that_completed(log: ExecutionLog) -> None:
    ran: list[str] = []
    down = fails_once()

    @flow
    async def child() -> str:
        ran.append("child")
        return "up"

    @step(retry=ONCE_MORE)
    async def via() -> str:
        answer = await invoke(child.bind()).result()
        down()
        return answer

    @flow
    async def parent() -> str:
        return await via()

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "up"

    assert ran == ["child"]


async def test_a_child_with_an_id_of_its_own_fails_for_every_attempt_of_its_step(log: ExecutionLog) -> None:
    """There is one flow of that id, and it has ended."""
    ran: list[str] = []

    @flow
    async def child() -> None:
        ran.append("child")
        raise ConnectionError("down")

    @step(retry=ONCE_MORE)
    async def via() -> None:
        await invoke(child.bind(), id="chosen").result()

    @flow
    async def parent() -> None:
        await via()

    async with worker(log, parent, child):
        with pytest.raises(ConnectionError, match="down"):
            await (await start(log, parent.bind())).result(10)

    assert ran == ["child"]


async def test_a_flow_that_is_tried_again_starts_the_failed_child_of_its_step_again(
    log: ExecutionLog,
) -> None:
    down = fails_once()

    @flow
    async def child() -> str:
        down()
        return "up"

    @step
    async def via() -> str:
        return await invoke(child.bind()).result()

    @flow(retry=ONCE_MORE)
    async def parent() -> str:
        return await via()

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "up"


async def test_a_restart_does_not_begin_the_timer_of_a_later_attempt_of_a_step_again(
    log: ExecutionLog, clock: SettableClock
) -> None:
    down = fails_once()

    @step(retry=ONCE_MORE)
    async def look() -> str:
        await schedule_timer(3_600)
        down()
        return "seen"

    @flow
    async def process() -> str:
        return await look()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: has(log, "step_waited"))
    clock.pass_time(3_600)
    async with worker(log, process):
        await until(lambda: has(log, "step_waited", 2))
    clock.pass_time(3_600)
    async with worker(log, process):
        assert await handle.result(10) == "seen"

    assert (await kinds(log)).count("step_waited") == 2
