"""An at-most-once step is never started twice, and says so instead of guessing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from ergon import (
    DID_NOT_HAPPEN,
    ExecutionLog,
    Happened,
    RetryPolicy,
    Scheduler,
    SqliteExecutionLog,
    StepInterrupted,
    UsageError,
    flow,
    idempotency_key,
    step,
    wait_signal,
)
from ergon.executor import verifying
from tests.stories.helpers import kinds, lines, process_with_worker, start, until, until_status, worker
from tests.stories.programs import FLOWS, payment, verified_payment


async def killed_during(step_name: str, marks: Path, path: Path) -> None:
    """Run the flow in another process, and kill that in the middle of the step."""
    async with process_with_worker(path) as process:
        await until(lambda: step_name in lines(marks))
        process.kill()
        await process.wait()


async def test_a_step_that_was_interrupted_raises_in_the_flow_and_never_starts_again(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    handle = await start(log, payment.bind(str(marks)))
    await killed_during("charge", marks, path)

    async with worker(log, *FLOWS):
        with pytest.raises(StepInterrupted, match="charge"):
            await handle.result(10)

    assert lines(marks) == ["charge"]


@pytest.mark.parametrize("answer", ["paid", ""], ids=["it happened", "it did not happen"])
async def test_the_bank_is_asked_whether_an_interrupted_transfer_happened(
    log: ExecutionLog, path: Path, tmp_path: Path, answer: str
) -> None:
    marks = tmp_path / "marks"
    Path(f"{marks}.bank").write_text(answer)
    handle = await start(log, verified_payment.bind(str(marks)))
    await killed_during("transfer", marks, path)

    async with worker(log, *FLOWS):
        assert await handle.result(10) == (answer or "transferred")

    assert lines(marks).count("transfer") == (1 if answer else 2)
    assert lines(marks).count("verify") == 1


async def test_an_uninterrupted_at_most_once_step_is_an_ordinary_step(log: ExecutionLog) -> None:
    effects: list[str] = []

    @step(at_most_once=True)
    async def charge() -> str:
        effects.append("charge")
        return "paid"

    @flow
    async def pay() -> str:
        paid = await charge()
        await wait_signal("go")
        return paid

    async with worker(log, pay):
        handle = await start(log, pay.bind())
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(log, pay):
        assert await handle.result(10) == "paid"

    assert effects == ["charge"]
    assert (await kinds(log))[:2] == ["step_started", "step_completed"]


async def test_its_failure_is_the_flows_to_handle(log: ExecutionLog) -> None:
    @step(at_most_once=True)
    def charge() -> None:
        raise ConnectionError("no reply")

    @flow
    async def pay() -> str:
        try:
            await charge()
        except ConnectionError as error:
            return f"asked a person: {error}"
        return "paid"

    async with worker(log, pay):
        assert await (await start(log, pay.bind())).result(10) == "asked a person: no reply"


async def test_a_retried_flow_meets_the_same_failure_and_does_not_start_it_again(log: ExecutionLog) -> None:
    """At most once holds for the flow's life, not for one attempt of it."""
    effects: list[str] = []

    @step(at_most_once=True)
    async def charge() -> None:
        effects.append("charge")
        raise ConnectionError("no reply")

    @flow(retry=RetryPolicy(attempts_max=3, first_delay_seconds=0.01))
    async def pay() -> None:
        await charge()

    async with worker(log, pay):
        with pytest.raises(ConnectionError, match="no reply"):
            await (await start(log, pay.bind())).result(10)

    assert effects == ["charge"]


async def test_a_retried_flow_asks_before_it_starts_a_failed_one_again(log: ExecutionLog) -> None:
    effects: list[str] = []

    def happened(order: str) -> object:
        effects.append(f"verify {order}")
        return DID_NOT_HAPPEN if effects.count("charge") < 2 else Happened(result="found")

    @step(at_most_once=True, verify=happened)
    async def charge(order: str) -> str:
        effects.append("charge")
        raise ConnectionError("no reply")

    @flow(retry=RetryPolicy(attempts_max=3, first_delay_seconds=0.01))
    async def pay() -> str:
        return await charge("o-1")

    async with worker(log, pay):
        assert await (await start(log, pay.bind())).result(10) == "found"

    assert effects == ["charge", "verify o-1", "charge", "verify o-1"]


@pytest.fixture
def asks_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "ASK_AGAIN", RetryPolicy(attempts_max=3, first_delay_seconds=0.01))


@pytest.mark.usefixtures("asks_again_soon")
async def test_an_interrupted_step_stays_so_when_the_bank_cannot_be_asked(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    handle = await start(log, verified_payment.bind(str(marks)))
    await killed_during("transfer", marks, path)  # and there is no file with the bank's answer

    async with worker(log, *FLOWS):
        with pytest.raises(
            StepInterrupted, match=r"could not tell .* \(asked 3 times\): FileNotFoundError"
        ) as caught:
            await handle.result(10)

    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert lines(marks).count("transfer") == 1


AGAIN = RetryPolicy(attempts_max=2, first_delay_seconds=0.01)
"""Of a flow: its second attempt asks whether the step of the first has happened."""


@pytest.mark.usefixtures("asks_again_soon")
@pytest.mark.parametrize("answers_after", [1, 100])
async def test_a_failure_of_verify_is_not_the_steps_own(log: ExecutionLog, answers_after: int) -> None:
    """A flow that handles the step's own errors, and charges again, would pay twice."""
    effects: list[str] = []

    async def find(order: str) -> object:
        effects.append("verify")
        if effects.count("verify") <= answers_after:
            raise ConnectionError("the bank does not answer")
        return Happened(result="found")

    @step(at_most_once=True, verify=find)
    async def charge(order: str) -> str:
        effects.append("charge")
        raise ValueError("no reply")

    @flow(retry=AGAIN)
    async def pay() -> str:
        try:
            return await charge("o-1")
        except ConnectionError:
            return await charge("o-1")

    async with worker(log, pay):
        handle = await start(log, pay.bind())
        if answers_after == 1:
            assert await handle.result(10) == "found"
        else:
            with pytest.raises(StepInterrupted, match="ConnectionError: the bank does not answer"):
                await handle.result(10)

    assert effects == ["charge", *["verify"] * (2 if answers_after == 1 else 3)]


async def test_a_plain_verify_does_not_hold_the_others_up(log: ExecutionLog) -> None:
    asked, others_ran = threading.Event(), threading.Event()

    def find() -> object:
        asked.set()
        return Happened(result=str(others_ran.wait(10)) + idempotency_key())

    @step(at_most_once=True, verify=find)
    async def charge() -> str:
        raise ConnectionError("no reply")

    @flow(retry=AGAIN)
    async def pay() -> str:
        return await charge()

    async with worker(log, pay):
        handle = await start(log, pay.bind(), "f")
        await until(asked.is_set)
        others_ran.set()

        assert await handle.result(10) == "Truef/0:1"


@pytest.mark.usefixtures("asks_again_soon")
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
async def test_verify_has_the_time_of_an_attempt(log: ExecutionLog, *, plain: bool) -> None:
    never = threading.Event()

    def hangs() -> object:
        return never.wait(10)

    async def waits() -> object:
        await asyncio.sleep(10)
        return DID_NOT_HAPPEN

    @step(at_most_once=True, verify=hangs if plain else waits, timeout=0.1)
    async def charge() -> None:
        raise ConnectionError("no reply")

    @flow(retry=AGAIN)
    async def pay() -> None:
        await charge()

    async with worker(log, pay):
        with pytest.raises(StepInterrupted, match=r"verify of step `.*charge` took longer than 0\.1 s"):
            await (await start(log, pay.bind())).result(8)
        never.set()


async def test_an_answer_of_verify_that_is_none_leaves_the_step_interrupted(log: ExecutionLog) -> None:
    """It says so at once: asked again it would answer the same."""

    def find() -> str:
        return "paid"

    @step(at_most_once=True, verify=find)
    async def charge() -> str:
        raise ConnectionError("no reply")

    @flow(retry=AGAIN)
    async def pay() -> str:
        return await charge()

    async with worker(log, pay):
        with pytest.raises(
            StepInterrupted, match=r"\(asked once\).* returned str; return Happened"
        ) as caught:
            await (await start(log, pay.bind())).result(10)

    assert isinstance(caught.value.__cause__, UsageError)


@pytest.mark.usefixtures("asks_again_soon")
@pytest.mark.parametrize("error", [StopIteration(), SystemExit(1), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
async def test_a_verify_that_raises_what_no_step_may_leaves_the_step_interrupted(
    log: ExecutionLog, error: BaseException, *, plain: bool
) -> None:
    """`StopIteration` was recorded as it is, which no `await` can raise: the flow was parked at each resume."""

    def find() -> object:
        raise error

    async def look() -> object:
        raise error

    @step(at_most_once=True, verify=find if plain else look)
    async def charge() -> None:
        raise ConnectionError("no reply")

    @flow(retry=AGAIN)
    async def pay() -> None:
        await charge()

    async with worker(log, pay):
        with pytest.raises(StepInterrupted, match=type(error).__name__):
            await (await start(log, pay.bind())).result(10)


async def test_a_worker_that_stops_while_verify_is_asked_leaves_it_to_the_next(log: ExecutionLog) -> None:
    """Nothing of it is recorded: the step stands where it was, and verify is asked as often as at first."""
    effects: list[str] = []

    async def find() -> object:
        effects.append("verify")
        if len(effects) < 3:
            raise ConnectionError("the bank does not answer")
        return DID_NOT_HAPPEN

    @step(at_most_once=True, verify=find)
    async def charge() -> str:
        effects.append("charge")
        if len(effects) == 1:
            raise ConnectionError("no reply")
        return "paid"

    @flow(retry=AGAIN)
    async def pay() -> str:
        return await charge()

    async with worker(log, pay, drain_seconds=0.0):
        handle = await start(log, pay.bind(), "f")
        await until(lambda: effects == ["charge", "verify"])
        before = await kinds(log)
    assert await kinds(log) == before

    async with worker(log, pay):
        assert await handle.result(10) == "paid"

    assert effects == ["charge", "verify", "verify", "charge"]


def test_an_at_most_once_step_is_never_retried_not_even_with_verify() -> None:
    """An attempt that raised may have had its effect, and nobody asks `verify` between two attempts."""
    with pytest.raises(UsageError, match="may have had its effect"):
        step(at_most_once=True, verify=lambda: DID_NOT_HAPPEN, retry=RetryPolicy.STANDARD)


def test_options_that_contradict_each_other_are_refused_where_they_are_written() -> None:
    with pytest.raises(UsageError, match="second start"):
        step(at_most_once=True, retry=RetryPolicy.STANDARD)
    with pytest.raises(UsageError, match="at_most_once"):
        step(verify=lambda: DID_NOT_HAPPEN)
    with pytest.raises(UsageError, match="timeout"):
        step(timeout=0)


async def test_a_step_whose_flow_was_taken_while_the_event_loop_stood_still_is_begun_by_its_new_owner_alone(
    path: Path,
) -> None:
    """Its start was on record, so whoever took the flow asked `verify`, which saw nothing yet."""
    begun: list[str] = []

    @step(at_most_once=True, verify=lambda: DID_NOT_HAPPEN)
    async def charge() -> str:
        begun.append(idempotency_key())
        return "paid"

    @step
    async def stand_still() -> None:
        if not begun and not taken.is_set():
            other = threading.Thread(target=asyncio.run, args=(take(),))
            other.start()
            other.join()

    @flow
    async def pay() -> str:
        paid, _ = await asyncio.gather(charge(), stand_still())
        return paid

    taken = threading.Event()

    async def take() -> None:
        async with SqliteExecutionLog(path) as log:
            handle = Scheduler(log).handle("f")
            while "step_started" not in await kinds(log):
                await asyncio.sleep(0.005)
            await handle.pause()
            await handle.resume()
            taken.set()

    async with SqliteExecutionLog(path) as log, worker(log, pay):
        assert await (await start(log, pay.bind())).result(20) == "paid"

    assert begun == ["f/0/1:1"]
