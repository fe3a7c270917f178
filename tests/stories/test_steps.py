"""A step's result is recorded once, however often and wherever the flow runs."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ergon import (
    ArgumentsMismatch,
    ExecutionLog,
    NotInFlow,
    RetryPolicy,
    StepInterrupted,
    StepTimeout,
    UsageError,
    attempt,
    flow,
    flow_id,
    flow_type,
    idempotency_key,
    invoke,
    now,
    run_step,
    step,
    wait_signal,
)
from ergon.executor import processes
from tests.stories.helpers import start, until, until_status, worker

SPAWN_SECONDS = 120
"""A process imports all of this file before its first step: seconds, on a busy machine tens of them."""


async def test_a_step_runs_once_although_its_flow_is_replayed(either_log: ExecutionLog) -> None:
    effects: list[str] = []

    @step
    async def charge(order: str) -> str:
        effects.append(order)
        return f"paid {order}"

    @flow
    async def process(order: str) -> str:
        paid = await charge(order)
        await wait_signal("go")
        return paid

    async with worker(either_log, process):
        handle = await start(either_log, process.bind("o-1"))
        await until_status(handle, "suspended")
    async with worker(either_log, process):
        await handle.signal("go")

        assert await handle.result(10) == "paid o-1"

    assert effects == ["o-1"]


async def test_one_step_may_be_called_any_number_of_times_in_a_loop(log: ExecutionLog) -> None:
    """Each call is an operation of its own: no name has to be made up for the second."""
    effects: list[int] = []

    @step
    async def square(number: int) -> int:
        effects.append(number)
        return number * number

    @flow
    async def sum_up() -> int:
        total = 0
        for number in range(5):
            total += await square(number)
            if number == 2:
                await wait_signal("go")
        return total

    async with worker(log, sum_up):
        handle = await start(log, sum_up.bind())
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(log, sum_up):
        assert await handle.result(10) == 30

    assert effects == [0, 1, 2, 3, 4]


async def test_parallel_calls_of_one_step_keep_their_results_apart(either_log: ExecutionLog) -> None:
    """The first call ends last: results belong to calls, not to the order of completion."""
    gates = [asyncio.Event() for _ in range(4)]
    effects: list[int] = []

    @step
    async def fetch(number: int) -> int:
        effects.append(number)
        await gates[number].wait()
        if number:
            gates[number - 1].set()
        return number * 10

    @flow
    async def fan_out() -> list[int]:
        found = await asyncio.gather(*(fetch(number) for number in range(4)))
        await wait_signal("go")
        return list(found)

    async with worker(either_log, fan_out):
        handle = await start(either_log, fan_out.bind())
        gates[3].set()
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(either_log, fan_out):
        assert await handle.result(10) == [0, 10, 20, 30]

    assert sorted(effects) == [0, 1, 2, 3]


async def test_a_plain_function_runs_on_a_thread_and_does_not_hold_the_others_up(log: ExecutionLog) -> None:
    together = threading.Barrier(3, timeout=10)
    threads: set[str] = set()

    @step
    def blocking(number: int) -> str:
        threads.add(threading.current_thread().name)
        together.wait()
        return idempotency_key()

    @flow
    async def three_at_once() -> list[str]:
        return list(await asyncio.gather(blocking(1), blocking(2), blocking(3)))

    async with worker(log, three_at_once):
        keys = await (await start(log, three_at_once.bind())).result(10)

    assert len(set(keys)) == 3
    assert threading.main_thread().name not in threads


@step
def occupy(seconds: float) -> None:
    time.sleep(seconds)


@step(timeout=0.3)
def quick() -> str:
    return "done"


@step(timeout=0.3)
def endless(waits: float) -> None:
    time.sleep(waits)


@flow
async def queue_for_a_thread() -> list[str]:
    _, *found = await asyncio.gather(occupy(0.7), quick(), quick())
    return found


@flow
async def take_too_long() -> None:
    await asyncio.gather(occupy(0.5), endless(1.0))


async def test_a_plain_function_may_wait_for_a_thread_for_longer_than_its_timeout(log: ExecutionLog) -> None:
    async with worker(log, queue_for_a_thread, step_threads=1):
        assert await (await start(log, queue_for_a_thread.bind())).result(10) == ["done", "done"]


async def test_a_plain_function_that_waited_for_a_thread_has_its_timeout_from_then_on(
    log: ExecutionLog,
) -> None:
    async with worker(log, take_too_long, step_threads=1):
        with pytest.raises(StepTimeout, match=r"`endless`: one attempt took longer than 0\.3 s"):
            await (await start(log, take_too_long.bind())).result(10)


@step(process=True)
def occupy_process(seconds: float) -> None:
    time.sleep(seconds)


@step(process=True, timeout=1)
def quick_elsewhere() -> str:
    return "done"


@flow
async def queue_for_a_process() -> list[str]:
    _, *found = await asyncio.gather(occupy_process(1.5), quick_elsewhere(), quick_elsewhere())
    return found


async def test_a_process_step_may_wait_for_a_process_for_longer_than_its_timeout(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PROCESSES_MAX", 1)
    async with worker(log, queue_for_a_process):
        assert await (await start(log, queue_for_a_process.bind())).result(SPAWN_SECONDS) == ["done", "done"]


@step(process=True)
def heavy(number: int) -> tuple[int, int]:
    return os.getpid(), number * 2


@flow
async def compute(number: int) -> tuple[int, int]:
    return await heavy(number)


async def test_a_process_step_runs_in_another_process(log: ExecutionLog) -> None:
    async with worker(log, compute):
        pid, doubled = await (await start(log, compute.bind(21))).result(SPAWN_SECONDS)

    assert doubled == 42
    assert pid != os.getpid()


SOON = RetryPolicy(attempts_max=2, first_delay_seconds=0.01)


@step(process=True, retry=SOON)
def who_elsewhere() -> list[str]:
    if attempt() == 1:
        raise ValueError("once more")
    assert abs(time.time() - now().timestamp()) < 60
    with pytest.raises(UsageError, match="cannot start a child flow: do that in the flow"):
        invoke(compute.bind(1))
    return [flow_id(), idempotency_key(), str(attempt())]


@step(retry=SOON)
def who_on_a_thread() -> list[str]:
    if attempt() == 1:
        raise ValueError("once more")
    return [flow_id(), idempotency_key(), str(attempt())]


@flow
async def who() -> list[list[str]]:
    return [await who_elsewhere(), await who_on_a_thread()]


async def test_a_process_step_knows_its_flow_its_key_and_its_attempt(log: ExecutionLog) -> None:
    async with worker(log, who):
        elsewhere, here = await (await start(log, who.bind(), id="f")).result(SPAWN_SECONDS)

    assert elsewhere == ["f", "f/0:1", "2"]
    assert here == ["f", "f/0:2", "2"]


@step(process=True)
def divide(number: int) -> float:
    return 1 / number


@flow
async def divide_elsewhere(number: int) -> float:
    return await divide(number)


async def test_an_error_in_a_process_step_keeps_its_class(log: ExecutionLog) -> None:
    async with worker(log, divide_elsewhere):
        with pytest.raises(ZeroDivisionError):
            await (await start(log, divide_elsewhere.bind(0))).result(SPAWN_SECONDS)


def note(marks: str) -> int:
    """Leave a mark; how many there are now."""
    with Path(marks).open("a") as file:
        file.write("x")
    return Path(marks).stat().st_size


@step(process=True)
def dies(marks: str, times: int) -> str:
    if note(marks) <= times:
        os._exit(1)
    return "alive"


@step(process=True)
def hangs_once(mark: str) -> int:
    if not Path(mark).exists():
        Path(f"{mark}.new").write_text(str(os.getpid()))
        Path(f"{mark}.new").rename(mark)
        time.sleep(3_600)
    return int(Path(mark).read_text())


@step(process=True)
def dies_beside(mark: str) -> None:
    while not Path(mark).exists():
        time.sleep(0.01)
    if note(f"{mark}.dies") == 1:
        os._exit(1)


@flow
async def hangs_beside_one_that_dies(mark: str) -> int:
    pid, _ = await asyncio.gather(hangs_once(mark), dies_beside(mark))
    return pid


async def test_the_process_beside_one_that_died_ends_and_its_step_runs_again(
    log: ExecutionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool ends it by a signal of which it takes no notice when that comes from others."""
    monkeypatch.setattr(processes, "PROCESSES_MAX", 2)
    async with worker(log, hangs_beside_one_that_dies):
        call = hangs_beside_one_that_dies.bind(str(tmp_path / "mark"))
        pid = await (await start(log, call)).result(SPAWN_SECONDS)

        await until(lambda: not Path(f"/proc/{pid}").exists())


@step(process=True, at_most_once=True)
def dies_at_most_once(marks: str) -> None:
    note(marks)
    os._exit(1)


@flow
async def dying(marks: str, times: int) -> str:
    return await dies(marks, times)


@flow
async def dying_at_most_once(marks: str) -> None:
    await dies_at_most_once(marks)


@pytest.mark.timeout(600)
async def test_a_process_step_whose_process_dies_is_run_again(log: ExecutionLog, tmp_path: Path) -> None:
    async with worker(log, dying):
        assert (
            await (await start(log, dying.bind(str(tmp_path / "marks"), 2))).result(SPAWN_SECONDS) == "alive"
        )

    assert (tmp_path / "marks").read_text() == "xxx"


@pytest.mark.timeout(600)
async def test_a_process_step_that_always_dies_fails_and_harms_no_other(
    log: ExecutionLog, tmp_path: Path
) -> None:
    async with worker(log, dying, dying_at_most_once, compute):
        poison = await start(log, dying.bind(str(tmp_path / "marks"), 1_000), "poison")
        beside = await start(log, compute.bind(1), "beside")
        with pytest.raises(BrokenExecutor, match="died 4 times"):
            await poison.result(SPAWN_SECONDS)
        assert (await beside.result(SPAWN_SECONDS))[1] == 2
        once = await start(log, dying_at_most_once.bind(str(tmp_path / "once")), "once")
        with pytest.raises(StepInterrupted, match="died"):
            await once.result(SPAWN_SECONDS)
        assert (await (await start(log, compute.bind(2), "after")).result(SPAWN_SECONDS))[1] == 4

    assert (tmp_path / "once").read_text() == "x"


def test_an_async_function_cannot_be_a_process_step() -> None:
    with pytest.raises(UsageError, match="process=True"):

        @step(process=True)
        async def heavy() -> None: ...


async def test_a_process_step_that_cannot_be_found_by_name_is_refused_where_it_is_defined() -> None:
    """Another process can only import it: a function inside a function would fail at its first run."""
    with pytest.raises(UsageError, match="module-level"):

        @step(process=True)
        def inner() -> None: ...


async def test_any_callable_can_be_run_as_a_step_without_decoration(log: ExecutionLog) -> None:
    effects: list[str] = []

    def shout(text: str) -> str:
        effects.append(text)
        return text.upper()

    async def whisper(text: str) -> str:
        effects.append(text)
        return text.lower()

    @flow
    async def both() -> list[str]:
        one = await run_step(shout, "Hello")
        two = await run_step(whisper, text="World")
        three = await run_step(lambda: len(effects), name="lambda")
        four = await run_step(json.loads, '{"a": 1}')
        await wait_signal("go")
        return [one, two, str(three), str(four)]

    async with worker(log, both):
        handle = await start(log, both.bind())
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(log, both):
        assert await handle.result(10) == ["HELLO", "world", "2", "{'a': 1}"]

    assert effects == ["Hello", "World"]
    assert [event.name for event in await log.history("f")][:4] == ["shout", "whisper", "lambda", "loads"]


class Adder:
    """Something to call that is no function."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, to: int) -> Decimal:
        return Decimal(to + self.amount)


class AwaitedAdder(Adder):
    """Its calls are awaited."""

    async def __call__(self, to: int) -> Decimal:  # type: ignore[override]
        return super().__call__(to)


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    "function, args, result",
    [
        pytest.param(len, ("abc",), 3, id="a function written in C"),
        pytest.param(max, (1, 2), 2, id="one that tells no signature"),
        pytest.param("a".upper, (), "A", id="a bound method written in C"),
        pytest.param(str.upper, ("a",), "A", id="a method written in C"),
        pytest.param(operator.itemgetter(0), ([5],), 5, id="a callable object written in C"),
        pytest.param(partial(pow, 2), (3,), 8, id="a partial of a function written in C"),
        pytest.param(int, ("3",), 3, id="a type"),
        pytest.param(Decimal, ("0.10",), Decimal("0.10"), id="a type that JSON does not have"),
        pytest.param(Point, (1, 2), Point(1, 2), id="a dataclass"),
        pytest.param(Adder(2), (1,), Decimal(3), id="a callable object"),
        pytest.param(AwaitedAdder(2), (1,), Decimal(3), id="a callable object that is awaited"),
    ],
)
async def test_a_callable_that_is_no_python_function_can_be_a_step(
    log: ExecutionLog, function: Callable[..., Any], args: tuple[Any, ...], result: Any
) -> None:
    """What it returns comes back as the type it was, live and on replay."""

    @flow
    async def calls() -> str:
        got = await run_step(function, *args, name="call")
        live = (type(got) is type(result), got == result)
        await wait_signal("go")
        return str(live)

    async with worker(log, calls):
        handle = await start(log, calls.bind())
        await until_status(handle, "suspended")
    await handle.signal("go")
    async with worker(log, calls):
        assert await handle.result(10) == "(True, True)"


async def test_a_step_whose_annotation_cannot_be_read_fails_before_it_has_an_effect(
    log: ExecutionLog, path: Path
) -> None:
    """Failing afterwards would record that nothing happened, though something did."""

    def make(folder: str) -> None:
        Path(folder).mkdir()

    make.__annotations__["return"] = "Nowhere"

    @flow
    async def makes(folder: str) -> None:
        await run_step(make, folder)

    folder = path.parent / "made"
    async with worker(log, makes):
        with pytest.raises(UsageError, match="Nowhere"):
            await (await start(log, makes.bind(str(folder)))).result(10)

    assert not folder.exists()


async def test_a_lambda_needs_a_name(log: ExecutionLog) -> None:
    @flow
    async def nameless() -> None:
        await run_step(lambda: None)

    async with worker(log, nameless):
        with pytest.raises(UsageError, match="name="):
            await (await start(log, nameless.bind())).result(10)


@dataclass
class Address:
    street: str
    number: int


@flow_type
@dataclass
class Order:
    id: str
    address: Address
    tags: frozenset[str] = frozenset()

    @step
    async def label(self, copies: int = 1) -> list[Address]:
        return [self.address] * copies

    @flow
    async def ship(self, copies: int) -> list[Address]:
        assert isinstance(self.address, Address), "the stored object is read back by its annotations"
        return await self.label(copies=copies)


async def test_an_object_with_its_methods_is_a_flow_with_typed_data(log: ExecutionLog) -> None:
    async with worker(log, Order):
        handle = await start(log, Order("o", Address("High St", 4), frozenset({"a"})).ship.bind(2))

        assert await handle.result(10) == [Address("High St", 4), Address("High St", 4)]
        assert (await handle.record()).name == "Order.ship"


async def test_what_a_step_returns_live_is_what_it_returns_on_replay(log: ExecutionLog) -> None:
    """The flow gets the decoded copy, live too: sharing an object with the step would differ after a restart."""
    shared = Address("High St", 4)
    seen: list[bool] = []

    @step
    async def find() -> Address:
        return shared

    @flow
    async def look() -> None:
        found = await find()
        seen.append(found is shared)
        assert found == shared

    async with worker(log, look):
        await (await start(log, look.bind())).result(10)

    assert seen == [False]


async def test_a_step_called_inside_a_step_is_part_of_it(log: ExecutionLog) -> None:
    @step
    async def inner(number: int) -> int:
        return number + 1

    @step
    def inner_sync(number: int) -> int:
        return number + 1

    @step
    async def outer() -> int:
        return await inner(1) + await inner_sync(1)

    @flow
    async def nested() -> int:
        return await outer()

    async with worker(log, nested):
        assert await (await start(log, nested.bind())).result(10) == 4

    assert [event.name for event in await log.history("f")] == ["outer"]


async def test_a_step_outside_a_flow_says_what_to_do() -> None:
    @step
    async def charge() -> None: ...

    with pytest.raises(NotInFlow, match=r"charge\.function"):
        await charge()

    assert await charge.function() is None


def test_whoever_binds_a_step_hears_that_flows_are_bound() -> None:
    @step
    async def charge(amount: int) -> None: ...

    with pytest.raises(AttributeError, match=r"step `charge` cannot be bound.*schedule\(my_flow\.bind"):
        charge.bind(3)  # type: ignore[attr-defined]


async def test_wrong_arguments_of_a_step_are_found_before_anything_runs(log: ExecutionLog) -> None:
    @step
    async def charge(amount: int, *, currency: str) -> None: ...

    @flow
    async def wrong() -> None:
        await charge(1, currncy="EUR")  # type: ignore[call-arg]

    async with worker(log, wrong):
        with pytest.raises(ArgumentsMismatch, match="charge"):
            await (await start(log, wrong.bind())).result(10)

    assert await log.history("f") == []


async def test_five_hundred_parallel_steps_take_a_few_commits(log: ExecutionLog) -> None:
    """One group commit serves whatever is ready, so a wide fan-out costs no round trip per step."""

    @step
    async def noop(number: int) -> int:
        return number

    @flow
    async def wide() -> int:
        return sum(await asyncio.gather(*(noop(number) for number in range(500))))

    async with worker(log, wide):
        started = time.perf_counter()

        assert await (await start(log, wide.bind())).result(20) == sum(range(500))

        assert time.perf_counter() - started < 5
