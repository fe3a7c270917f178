"""Signals come in order, wait for their flow, and are consumed once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest

from ergon import (
    DecodingError,
    EncodingError,
    ExecutionLog,
    Flow,
    FlowHandle,
    FlowNotFound,
    IllegalMove,
    InvalidName,
    NotInFlow,
    RetryPolicy,
    Scheduler,
    await_external_signal,
    flow,
    step,
    wait_signal,
)
from ergon.core.commit import Received
from tests.stories.helpers import start, until, until_status, worker


@dataclass
class Decision:
    approved: bool
    by: str = "nobody"


@flow
async def three() -> list[str]:
    return [await wait_signal("vote", str) for _ in range(3)]


async def test_signals_of_one_name_come_in_the_order_they_were_sent(either_log: ExecutionLog) -> None:
    async with worker(either_log, three):
        handle = await start(either_log, three.bind())
        for name in ("ann", "bob", "eve"):
            await handle.signal("vote", name)

        assert await handle.result(10) == ["ann", "bob", "eve"]


@pytest.mark.every_log
async def test_signals_sent_before_the_flow_runs_or_waits_are_kept(log: ExecutionLog) -> None:
    handle = await start(log, three.bind())
    await handle.signal("vote", "early")
    async with worker(log, three):
        await until_status(handle, "suspended")
    await handle.signal("vote", "between")
    await handle.signal("vote", "workers")
    async with worker(log, three):
        assert await handle.result(10) == ["early", "between", "workers"]


@pytest.mark.every_log
async def test_a_signal_with_the_same_key_counts_once(log: ExecutionLog) -> None:
    """A call that timed out can be repeated, even after the flow has ended."""
    handle = await start(log, three.bind())
    for name, key in (("ann", "1"), ("ann again", "1"), ("bob", "2"), ("eve", "3")):
        await handle.signal("vote", name, key=key)
    async with worker(log, three):
        assert await handle.result(10) == ["ann", "bob", "eve"]

    await handle.signal("vote", "eve", key="3")
    with pytest.raises(IllegalMove, match="completed"):
        await handle.signal("vote", "late", key="4")


async def test_a_signal_is_decoded_by_the_type_asked_for(log: ExecutionLog) -> None:
    @flow
    async def ask() -> list[object]:
        typed = await wait_signal("approval", Decision)
        plain = await await_external_signal("approval")
        assert isinstance(typed, Decision)
        return [typed.by, typed.approved, plain]

    async with worker(log, ask):
        handle = await start(log, ask.bind())
        await handle.signal("approval", {"approved": True, "by": "ann"})
        await handle.signal("approval", Decision(False))

        assert await handle.result(10) == ["ann", True, {"approved": False, "by": "nobody"}]


async def test_a_value_of_the_wrong_type_raises_where_it_is_waited_for_and_the_flow_can_ask_again(
    log: ExecutionLog,
) -> None:
    refused: list[str] = []

    @flow
    async def ask() -> bool:
        while True:
            try:
                return (await wait_signal("approval", Decision)).approved
            except DecodingError as error:
                refused.append(error.path)

    async with worker(log, ask):
        handle = await start(log, ask.bind())
        await handle.signal("approval", {"approved": "perhaps"})
        await handle.signal("approval", {"approved": True})

        assert await handle.result(10) is True

    assert set(refused) == {"$.approved"}


async def test_a_flow_that_failed_with_a_value_of_the_wrong_type_takes_it_again_and_says_what_to_do(
    log: ExecutionLog,
) -> None:
    mended = False

    @flow
    async def ask() -> bool:
        while True:
            try:
                return (await wait_signal("approval", Decision)).approved
            except DecodingError:
                if not mended:
                    raise

    async with worker(log, ask):
        handle = await start(log, ask.bind())
        await handle.signal("approval", {"approved": "perhaps"})
        await fails_and_says_what_to_do(handle)
        await handle.retry()
        await fails_and_says_what_to_do(handle)
        mended = True
        await handle.retry()
        await handle.signal("approval", {"approved": True})

        assert await handle.result(10) is True


async def fails_and_says_what_to_do(handle: FlowHandle[bool]) -> None:
    with pytest.raises(DecodingError, match=r"Catch DecodingError and wait again: a retry takes the same"):
        await handle.result(10)
    assert "wait again: a retry takes the same value again, at test_signals.py:" in await handle.why()


@pytest.mark.every_log
async def test_a_wait_that_times_out_loses_no_signal(log: ExecutionLog) -> None:
    @flow
    async def patient() -> list[str]:
        found = []
        for _ in range(2):
            try:
                async with asyncio.timeout(0.05):
                    found.append(await wait_signal("vote", str))
            except TimeoutError:
                found.append("timeout")
        found.append(await wait_signal("go", str))
        found.append(await wait_signal("vote", str))
        return found

    async with worker(log, patient):
        handle = await start(log, patient.bind())
        await until_status(handle, "suspended")
        for _ in range(500):
            if [event.kind for event in await log.history("f")].count("timer_fired") == 2:
                break
            await asyncio.sleep(0.01)
        await handle.signal("vote", "kept")
        await handle.signal("go", "go")

        assert await handle.result(10) == ["timeout", "timeout", "go", "kept"]


async def test_names_do_not_stand_in_each_others_way(log: ExecutionLog) -> None:
    @flow
    async def two() -> list[str]:
        second, first = await asyncio.gather(wait_signal("b", str), wait_signal("a", str))
        return [first, second]

    async with worker(log, two):
        handle = await start(log, two.bind())
        await handle.signal("a", "A")
        await handle.signal("b", "B")

        assert await handle.result(10) == ["A", "B"]


@pytest.mark.every_log
async def test_branches_that_wait_for_one_name_are_served_in_turn(log: ExecutionLog) -> None:
    @flow
    async def branches() -> list[str]:
        return list(await asyncio.gather(*(wait_signal("vote", str) for _ in range(3))))

    async with worker(log, branches):
        handle = await start(log, branches.bind())
        for name in "abc":
            await handle.signal("vote", name)

        assert await handle.result(10) == ["a", "b", "c"]


@pytest.mark.every_log
async def test_many_signals_from_many_senders_arrive_once_each(log: ExecutionLog) -> None:
    @step
    async def note(vote: int) -> int:
        return vote

    @flow
    async def count() -> list[int]:
        return [await note(await wait_signal("vote", int)) for _ in range(100)]

    async with worker(log, count):
        handle = await start(log, count.bind())
        await asyncio.gather(*(handle.signal("vote", number) for number in range(100)))

        assert sorted(await handle.result(20)) == list(range(100))

    assert await log.inbox("f") == []


@step
async def votes_in_step(number: int) -> list[int]:
    return [await wait_signal("vote", int) for _ in range(number)]


@flow(name="reader")
async def votes_in_flow(number: int) -> list[int]:
    return [await wait_signal("vote", int) for _ in range(number)]


@flow(name="reader")
async def votes_in_body(number: int) -> list[int]:
    return await votes_in_step(number)


@flow(name="reader")
async def steps_beside(number: int) -> list[int]:
    """Leaves them unread."""
    return [len(await votes_in_step(0)) + turn for turn in range(number)]


@pytest.mark.parametrize(
    "reader", [votes_in_flow, votes_in_body, steps_beside], ids=lambda each: each.function.__name__
)
async def test_signals_that_wait_are_not_looked_at_anew_each_time_one_is_read(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, reader: Flow[[int], list[int]]
) -> None:
    """Else a thousand that wait cost as much as a million that come one by one."""
    number, looks = 300, 0

    def kind(message: Received) -> str:
        nonlocal looks
        looks += 1
        return message[2]

    assert Received._fields[2] == "kind"
    monkeypatch.setattr(Received, "kind", property(kind))
    handle = await start(log, reader.bind(number))
    await asyncio.gather(*(handle.signal("vote", each) for each in range(number)))
    async with worker(log, reader):
        assert sorted(await handle.result(20)) == list(range(number))

    assert looks < 10 * number


async def test_what_arrives_together_is_recorded_in_the_order_it_was_sent_whatever_its_name(
    log: ExecutionLog,
) -> None:
    @step
    async def body() -> list[str]:
        return list(await asyncio.gather(*(wait_signal(name, str) for name in "yyz")))

    @flow
    async def several() -> list[list[str]]:
        names = ("a", "b", "c", "a", "c")
        return [await asyncio.gather(*(wait_signal(name, str) for name in names)), await body()]

    handle = await start(log, several.bind())
    sent = ["c", "x", "a", "z", "y", "b", "a", "x", "y", "c"]
    for number, name in enumerate(sent):
        await handle.signal(name, str(number))
    async with worker(log, several):
        assert await handle.result(10) == [["2", "5", "0", "6", "9"], ["4", "8", "3"]]

    events = [event for event in await log.history("f") if event.kind in ("signal_received", "step_waited")]
    assert [json.loads(event.payload or "") for event in events] == [
        *("0", "2", "5", "6", "9"),
        *("4", "3", "8"),  # the first is taken as soon as the body waits for one
    ]
    assert [message.payload for message in await log.inbox("f")] == ['"1"', '"7"']


async def test_a_signal_to_nobody_says_so(log: ExecutionLog) -> None:
    handle = Scheduler(log).handle("nobody")

    with pytest.raises(FlowNotFound, match="nobody"):
        await handle.signal("vote", 1)
    with pytest.raises(InvalidName):
        await handle.signal("", 1)


async def test_a_value_that_cannot_be_written_is_refused_at_the_sender(log: ExecutionLog) -> None:
    handle = await start(log, three.bind())

    with pytest.raises(EncodingError, match=r"\$\[key 0\]"):
        await handle.signal("vote", {"vote": object()})


async def test_waiting_for_a_signal_outside_a_flow_is_refused() -> None:
    with pytest.raises(NotInFlow):
        await wait_signal("vote")


async def test_a_step_of_a_retried_flow_gets_a_signal_of_a_name_that_an_earlier_attempt_received(
    log: ExecutionLog,
) -> None:
    """What the flow itself received is repeated to the flow itself; it keeps nothing from its steps."""
    tries: list[int] = []

    @step
    async def flaky() -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise ConnectionError("down")

    @step
    async def approve() -> str:
        return await wait_signal("go", str)

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def process() -> str:
        try:
            await flaky()
        except ConnectionError:
            await wait_signal("go", str)
            raise
        return await approve()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("go", "try it again")
        await until(lambda: len(tries) == 2)
        await handle.signal("go", "approved")

        assert await handle.result(10) == "approved"

    assert await log.inbox("f") == []
