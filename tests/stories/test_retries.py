"""Failed steps and failed flows are tried again, and no restart forgets how often."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from ergon import (
    ExecutionLog,
    RetryableError,
    RetryPolicy,
    SqliteExecutionLog,
    StepCancelled,
    StepTimeout,
    attempt,
    flow,
    idempotency_key,
    invoke,
    now,
    step,
    wait_signal,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, lines, process_with_worker, start, until, until_status, worker
from tests.stories.programs import FLOWS, flaky_flow

FAST = RetryPolicy(attempts_max=3, first_delay_seconds=0.01, backoff="fixed")


class Overloaded(RetryableError):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"come back in {seconds} s")
        self.retry_after_seconds = seconds


class Declined(RetryableError):
    def is_retryable(self) -> bool:
        return False


class Refused(Exception):
    def __init__(self, balance: int) -> None:
        super().__init__(f"only {balance} left")
        self.balance = balance


async def test_each_attempt_that_fails_is_a_line_for_those_who_listen(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """An attempt that is followed by another is told nowhere else, but by `why`."""

    @step(retry=FAST)
    async def unsteady() -> str:
        if attempt() < 3:
            raise ConnectionError("down")
        return "up"

    @flow
    async def calls() -> str:
        return await unsteady()

    caplog.set_level(logging.INFO, "ergon.executor")
    async with worker(log, calls):
        handle = await start(log, calls.bind(), "f")
        assert await handle.result(10) == "up"

    told = [record for record in caplog.records if "attempt" in record.getMessage()]
    assert [record.getMessage().partition(", at test_retries.py:")[0] for record in told] == [
        f"flow f: attempt {number} of step {unsteady.name} failed, the next follows in 0.01 s: ConnectionError: down"
        for number in (1, 2)
    ]
    assert {vars(record)["flow_id"] for record in told} == {"f"}


@pytest.mark.every_log
async def test_a_failed_step_is_tried_again_until_it_succeeds(log: ExecutionLog) -> None:
    attempts: list[int] = []

    @step(retry=FAST)
    async def unsteady() -> str:
        attempts.append(attempt())
        if len(attempts) < 3:
            raise ConnectionError("down")
        return "up"

    @flow
    async def call() -> str:
        return await unsteady()

    async with worker(log, call):
        assert await (await start(log, call.bind())).result(10) == "up"

    assert attempts == [1, 2, 3]
    assert [(event.kind, event.attempt) for event in await log.history("f")] == [
        ("step_retried", 1),
        ("step_retried", 2),
        ("step_completed", 3),
    ]


async def test_a_plain_function_is_tried_again_too(log: ExecutionLog) -> None:
    attempts: list[int] = []

    @step(retry=FAST)
    def unsteady() -> str:
        attempts.append(attempt())
        if len(attempts) < 2:
            raise ConnectionError("down")
        return "up"

    @flow
    async def call() -> str:
        return await unsteady()

    async with worker(log, call):
        assert await (await start(log, call.bind())).result(10) == "up"

    assert attempts == [1, 2]


@pytest.mark.every_log
async def test_after_the_last_attempt_the_flow_gets_the_error_itself(log: ExecutionLog) -> None:
    count = 0

    @step(retry=FAST)
    async def hopeless() -> None:
        nonlocal count
        count += 1
        raise Refused(balance=count)

    @flow
    async def call() -> int:
        try:
            await hopeless()
        except Refused as error:
            await wait_signal("go")
            return error.balance
        return -1

    async with worker(log, call):
        handle = await start(log, call.bind())
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(log, call):
        assert await handle.result(10) == 3

    assert count == 3


async def test_without_a_policy_a_step_is_tried_once(log: ExecutionLog) -> None:
    count = 0

    @step
    async def once() -> None:
        nonlocal count
        count += 1
        raise ConnectionError("down")

    @flow
    async def call() -> None:
        await once()

    async with worker(log, call):
        with pytest.raises(ConnectionError):
            await (await start(log, call.bind())).result(10)

    assert count == 1


async def test_an_error_may_say_that_another_attempt_is_useless(log: ExecutionLog) -> None:
    count = 0

    @step(retry=FAST)
    async def pay() -> None:
        nonlocal count
        count += 1
        raise Declined("card declined")

    @flow
    async def call() -> None:
        await pay()

    async with worker(log, call):
        with pytest.raises(Declined, match="card declined"):
            await (await start(log, call.bind())).result(10)

    assert count == 1


@pytest.mark.every_log
async def test_an_error_may_say_when_to_come_back(log: ExecutionLog, clock: SettableClock) -> None:
    """Its wish is recorded as the time of the next attempt, so that it outlives the worker."""

    @step(retry=RetryPolicy(attempts_max=2, delay_max_seconds=10_000))
    async def limited() -> str:
        if attempt() == 1:
            raise Overloaded(7_200)
        return "served"

    @flow
    async def call() -> str:
        return await limited()

    async with worker(log, call):
        handle = await start(log, call.bind())
        await until(lambda: has(log, "step_retried"))
    (event,) = await log.history("f")
    assert 7_190 < event.at - clock.wall() <= 7_200

    clock.pass_time(7_200)
    async with worker(log, call):
        assert await handle.result(10) == "served"


async def has(log: ExecutionLog, kind: str) -> bool:
    return kind in await kinds(log)


async def test_a_long_back_off_survives_the_worker_and_the_log(path: Path, clock: SettableClock) -> None:
    attempts: list[int] = []

    @step(retry=RetryPolicy(attempts_max=2, first_delay_seconds=3_600, delay_max_seconds=3_600))
    async def unsteady() -> str:
        attempts.append(attempt())
        if attempt() == 1:
            raise ConnectionError("down")
        return "up"

    @flow
    async def call() -> str:
        return await unsteady()

    async with SqliteExecutionLog(path, clock=clock) as log, worker(log, call):
        await start(log, call.bind())
        await until(lambda: has(log, "step_retried"))
    async with SqliteExecutionLog(path, clock=clock) as log, worker(log, call):
        handle = await start(log, call.bind())
        assert (await handle.status()) == "suspended", "an hour has not passed: nobody has to hold it"

    clock.pass_time(3_601)
    async with SqliteExecutionLog(path, clock=clock) as log, worker(log, call):
        handle = await start(log, call.bind())
        assert await handle.result(10) == "up"

    assert attempts == [1, 2]


async def test_attempts_are_counted_across_a_crash(log: ExecutionLog, path: Path, tmp_path: Path) -> None:
    """Three attempts are three, though a worker died during the second: a crash loop must not retry for ever."""
    marks = tmp_path / "marks"
    handle = await start(log, flaky_flow.bind(str(marks)))
    async with process_with_worker(path) as process:
        await until(lambda: len(lines(marks)) == 2)
        process.kill()
        await process.wait()

    async with worker(log, *FLOWS):
        with pytest.raises(ConnectionError):
            await handle.result(10)

    assert len(lines(marks)) == 4, "the interrupted second attempt is made again, then the third"
    assert len(set(lines(marks))) == 1, "every attempt has the same idempotency key"


async def test_idempotency_keys_differ_between_calls_and_not_between_attempts(log: ExecutionLog) -> None:
    keys: list[str] = []

    @step(retry=FAST)
    async def send(number: int) -> None:
        keys.append(idempotency_key())
        if attempt() == 1:
            raise ConnectionError("down")

    @flow
    async def call() -> None:
        await send(1)
        await send(1)
        await asyncio.gather(send(2), send(2))

    async with worker(log, call):
        await (await start(log, call.bind(), "a")).result(10)
        await (await start(log, call.bind(), "b")).result(10)

    assert len(keys) == 16
    assert len(set(keys)) == 8


async def test_an_attempt_that_takes_too_long_is_cancelled_and_tried_again(log: ExecutionLog) -> None:
    cancelled: list[int] = []

    @step(timeout=0.05, retry=FAST)
    async def slow() -> str:
        if attempt() == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(attempt())
                raise
        return "done"

    @flow
    async def call() -> str:
        return await slow()

    async with worker(log, call):
        assert await (await start(log, call.bind())).result(10) == "done"

    assert cancelled == [1]


async def test_a_step_that_times_out_for_good_raises_a_timeout_error(log: ExecutionLog) -> None:
    @step(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    @step
    async def own_timeout() -> None:
        raise TimeoutError("the server said so")

    @flow
    async def call() -> list[str]:
        found = []
        for each in (slow, own_timeout):
            try:
                await each()
            except TimeoutError as error:
                found.append(type(error).__name__)
        return found

    async with worker(log, call):
        assert await (await start(log, call.bind())).result(10) == ["StepTimeout", "TimeoutError"]

    assert issubclass(StepTimeout, TimeoutError)


async def test_a_step_that_cancels_itself_fails_and_does_not_hang(log: ExecutionLog) -> None:
    @step
    async def confused() -> None:
        raise asyncio.CancelledError

    @flow
    async def call() -> None:
        await confused()

    async with worker(log, call):
        with pytest.raises(StepCancelled):
            await (await start(log, call.bind())).result(10)


async def test_a_retried_flow_keeps_what_it_completed_and_runs_what_failed_again(
    log: ExecutionLog, clock: SettableClock
) -> None:
    """Timers and signals that were over stay over: a retry does not ask a person a second time."""
    effects: list[str] = []

    @step
    async def reserve() -> str:
        effects.append("reserve")
        return "seat 4"

    @step
    async def charge() -> str:
        effects.append("charge")
        if effects.count("charge") < 3:
            raise ConnectionError("bank is down")
        return "paid"

    @flow(retry=FAST)
    async def book() -> list[str]:
        seat = await reserve()
        await asyncio.sleep(3_600)
        answer = await wait_signal("approval", str)
        return [seat, answer, await charge()]

    async with worker(log, book):
        handle = await start(log, book.bind())
        await until_status(handle, "suspended")
    clock.pass_time(3_600)
    await handle.signal("approval", "yes")
    async with worker(log, book):
        assert await handle.result(10) == ["seat 4", "yes", "paid"]

    assert effects == ["reserve", "charge", "charge", "charge"]
    assert (await kinds(log)).count("flow_retried") == 2
    assert await log.inbox("f") == []


async def test_a_flow_that_fails_for_good_tells_its_last_error(log: ExecutionLog) -> None:
    count = 0

    @flow(retry=FAST)
    async def hopeless() -> None:
        nonlocal count
        count += 1
        raise Refused(balance=count)

    async with worker(log, hopeless):
        handle = await start(log, hopeless.bind())
        with pytest.raises(Refused) as caught:
            await handle.result(10)

    assert count == 3
    assert caught.value.balance == 3


async def test_the_failure_of_a_flow_keeps_the_cause_the_author_gave_it(log: ExecutionLog) -> None:
    @flow
    async def failing() -> None:
        try:
            raise KeyError("config")
        except KeyError as error:
            raise Refused(balance=0) from error

    async with worker(log, failing):
        with pytest.raises(Refused) as caught:
            await (await start(log, failing.bind())).result(10)

    assert isinstance(caught.value.__cause__, KeyError)
    assert "'f'" in "".join(caught.value.__notes__)


async def test_a_time_limit_in_a_retried_flow_counts_from_the_new_attempt(log: ExecutionLog) -> None:
    """Flow time goes on with the retry; if it began at the first start again, every limit would be over at once."""
    count = 0

    @step
    async def work() -> str:
        await asyncio.sleep(0.05)
        return "worked"

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.3))
    async def limited() -> str:
        nonlocal count
        async with asyncio.timeout(0.25):
            count += 1
            if count == 1:
                raise ConnectionError("down")
            return await work()

    async with worker(log, limited):
        assert await (await start(log, limited.bind())).result(10) == "worked"


async def test_flow_time_in_a_retried_flow_is_the_time_of_the_new_attempt(log: ExecutionLog) -> None:
    seen = []

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.2))
    async def tell() -> None:
        seen.append(now())
        if len(seen) == 1:
            raise ConnectionError("down")

    async with worker(log, tell):
        await (await start(log, tell.bind())).result(10)

    assert (seen[1] - seen[0]).total_seconds() >= 0.2


async def test_a_step_gets_its_attempts_anew_when_its_flow_is_tried_again(log: ExecutionLog) -> None:
    attempts: list[int] = []

    @step(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def unsteady() -> str:
        attempts.append(attempt())
        if len(attempts) < 4:
            raise ConnectionError("down")
        return "up"

    @flow(retry=FAST)
    async def call() -> str:
        return await unsteady()

    async with worker(log, call):
        assert await (await start(log, call.bind())).result(10) == "up"

    assert attempts == [1, 2, 1, 2]


async def test_a_retried_flow_starts_the_child_that_failed_again(log: ExecutionLog) -> None:
    count = 0

    @flow
    async def child() -> str:
        nonlocal count
        count += 1
        if count == 1:
            raise ConnectionError("down")
        return "up"

    @flow(retry=FAST)
    async def parent() -> str:
        return await child()

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "up"

    assert count == 2


async def test_a_retried_flow_meets_the_recorded_failure_of_a_child_with_a_fixed_id(
    log: ExecutionLog,
) -> None:
    """One id is one flow: it has failed, and asking again cannot change that. It must not be waited for."""
    count = 0

    @flow
    async def child() -> str:
        nonlocal count
        count += 1
        raise Refused(balance=count)

    @flow(retry=FAST)
    async def parent() -> str:
        return await invoke(child.bind(), id="the-child").result()

    async with worker(log, parent, child):
        with pytest.raises(Refused):
            await (await start(log, parent.bind())).result(10)

    assert count == 1


@pytest.mark.every_log
async def test_a_failed_flow_can_be_retried_by_hand(log: ExecutionLog) -> None:
    effects: list[str] = []
    broken = True

    @step
    async def reserve() -> None:
        effects.append("reserve")

    @step
    async def charge() -> str:
        effects.append("charge")
        if broken:
            raise ConnectionError("bank is down")
        return "paid"

    @flow
    async def book() -> str:
        await reserve()
        return await charge()

    async with worker(log, book):
        handle = await start(log, book.bind())
        with pytest.raises(ConnectionError):
            await handle.result(10)
        broken = False
        await handle.retry()

        assert await handle.result(10) == "paid"

    assert effects == ["reserve", "charge", "charge"]
