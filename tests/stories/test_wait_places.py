"""Each wait of a flow names the line that waits, and who awaits whom."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ergon import ExecutionLog, FlowHandle, flow, schedule_timer_named, step, wait_signal
from ergon.executor.sentences import read_waits
from tests.stories.helpers import start, until, until_status, worker

LINES = Path(__file__).read_text().splitlines()


def line(mark: str) -> str:
    """The place of the line that ends with this comment."""
    (number,) = [number for number, text in enumerate(LINES, 1) if text.endswith(f"# {mark}")]
    return f"{Path(__file__).name}:{number}"


@step
async def asks() -> None:
    await wait_signal("in a step")  # in a step


@flow
async def child() -> None:
    await wait_signal("go")  # child


@flow
async def bare() -> None:
    await asyncio.gather(wait_signal("bare"), asyncio.sleep(3_600), child())  # bare


async def inner() -> None:
    await wait_signal("deep")  # inner


async def middle() -> None:
    async with asyncio.timeout(3_600):
        await inner()  # middle


@flow
async def outer() -> None:
    await asyncio.gather(middle(), schedule_timer_named(60, "remind"))  # outer


@flow
async def own_code() -> None:
    event = asyncio.Event()

    async def wait() -> None:
        await event.wait()  # event

    await wait()  # own code


@flow
async def through_a_step() -> None:
    await asks()


async def waits_of(handle: FlowHandle[Any]) -> list[dict[str, Any]]:
    """What the flow waits for, once that is told."""

    async def told() -> bool:
        return bool(read_waits((await handle.record()).reason))

    await until(told)
    return list(read_waits((await handle.record()).reason))


async def test_a_wait_that_gather_makes_a_task_of_has_the_line_of_gather(log: ExecutionLog) -> None:
    async with worker(log, bare, child):
        handle = await start(log, bare.bind())
        await until_status(handle, "suspended")
        waits = await waits_of(handle)
        sentence = await handle.why()

    assert {wait["kind"]: wait["source"] for wait in waits} == dict.fromkeys(
        ("signal", "timer", "child"), line("bare")
    )
    assert sentence.count(f"(at {line('bare')})") == 3


async def test_a_wait_tells_who_awaits_whom(log: ExecutionLog) -> None:
    async with worker(log, outer):
        handle = await start(log, outer.bind())
        await until_status(handle, "suspended")
        waits = {wait["name"]: wait for wait in await waits_of(handle)}

    stack = [f"middle ({line('middle')})", f"inner ({line('inner')})"]
    assert (waits["deep"]["source"], waits["deep"]["stack"]) == (line("inner"), stack)
    assert (waits[""]["source"], waits[""]["stack"]) == (line("inner"), stack), "the timeout around it"
    assert waits["remind"]["source"] == line("outer")


async def test_a_wait_for_the_flows_own_code_has_a_line_and_a_stack(log: ExecutionLog) -> None:
    async with worker(log, own_code):
        handle = await start(log, own_code.bind())
        await until_status(handle, "suspended")
        (wait,) = await waits_of(handle)

    assert wait["source"] == line("event")
    assert wait["stack"] == [
        f"own_code ({line('own code')})",
        f"own_code.<locals>.wait ({line('event')})",
    ]


async def test_a_wait_inside_a_step_has_the_line_of_the_step(log: ExecutionLog) -> None:
    async with worker(log, through_a_step):
        handle = await start(log, through_a_step.bind())
        (wait,) = await waits_of(handle)

    assert (wait["kind"], wait["step"], wait["source"]) == ("signal", "asks", line("in a step"))


async def test_a_signal_that_came_is_recorded_with_the_line_that_waited(log: ExecutionLog) -> None:
    async with worker(log, outer):
        handle = await start(log, outer.bind())
        await handle.signal("deep")
        await until(lambda: log.history("f"))
        (event,) = await log.history("f")

    assert (event.kind, event.source) == ("signal_received", line("inner"))
