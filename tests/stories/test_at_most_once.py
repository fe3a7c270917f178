"""An at-most-once step is never started twice, and says so instead of guessing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ergon import (
    DID_NOT_HAPPEN,
    ExecutionLog,
    Happened,
    RetryPolicy,
    StepInterrupted,
    UsageError,
    flow,
    step,
    wait_signal,
)
from ergon.core.history import EventKind
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


async def test_a_verify_callback_that_answers_something_else_fails_the_step(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    handle = await start(log, verified_payment.bind(str(marks)))
    await killed_during("transfer", marks, path)  # and there is no file with the bank's answer

    async with worker(log, *FLOWS):
        with pytest.raises(FileNotFoundError):
            await handle.result(10)

    assert lines(marks).count("transfer") == 1


async def test_a_verify_callback_that_raises_stop_iteration_fails_the_step(log: ExecutionLog) -> None:
    """It was recorded as it is, which no `await` can raise: the flow was parked at each resume."""

    def find(order: str) -> object:
        return next(found for found in [""] if found == order)

    @step(at_most_once=True, verify=find)
    async def charge(order: str) -> None:
        raise ConnectionError("no reply")

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def pay() -> None:
        await charge("o-1")

    async with worker(log, pay):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await (await start(log, pay.bind())).result(10)

    failures = [
        event.payload or "" for event in await log.history("f") if event.kind == EventKind.STEP_FAILED
    ]
    assert '"type":"StopIteration"' not in failures[-1].partition('"cause"')[0]


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
