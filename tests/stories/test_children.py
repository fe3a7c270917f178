"""Flows start flows: awaited or detached, under their own id, cancelled with their parent."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    FlowCancelled,
    FlowFilter,
    FlowHandle,
    FlowIdConflict,
    FlowRecord,
    FlowType,
    NotInFlow,
    RetryableError,
    Scheduler,
    flow,
    flow_id,
    flow_type,
    invoke,
    step,
    wait_signal,
)
from tests.stories.helpers import kinds, start, until, until_status, worker


class OutOfStock(RetryableError):
    def __init__(self, item: str) -> None:
        super().__init__(item)
        self.item = item

    def is_retryable(self) -> bool:
        return False


async def flows_named(log: ExecutionLog, name: str) -> list[FlowRecord]:
    found, _ = await log.list(FlowFilter(names=(name,)))
    return found


async def until_event(log: ExecutionLog, flow_id: str, kind: str) -> None:
    async def happened() -> bool:
        return kind in await kinds(log, flow_id)

    await until(happened)


def handle_of(log: ExecutionLog, id: str) -> FlowHandle[Any]:
    return Scheduler(log).handle(id)


@flow
async def waits() -> str:
    return await wait_signal("go", str)


@pytest.mark.every_log
async def test_a_child_is_called_like_a_function_and_its_result_comes_back_typed(
    either_log: ExecutionLog,
) -> None:
    @flow
    async def double(number: int) -> tuple[int, str]:
        return number * 2, flow_id()

    @flow
    async def parent() -> list[tuple[int, str]]:
        one = await double(1)
        others = await asyncio.gather(double(2), double(3), invoke(double.bind(4)).result())
        await wait_signal("go")
        assert isinstance(one, tuple)
        return [one, *others]

    async with worker(either_log, parent, double):
        handle = await start(either_log, parent.bind())
        await until_status(handle, "suspended")
        await until(lambda: four_ended(either_log))
    await handle.signal("go")
    async with worker(either_log, parent, double):
        found = await handle.result(10)

    assert [number for number, _ in found] == [2, 4, 6, 8]
    assert len({id for _, id in found}) == 4
    assert all(id.startswith("f/") for _, id in found)


async def four_ended(log: ExecutionLog) -> bool:
    records = await flows_named(log, "double")
    return len(records) == 4 and all(record.status == "completed" for record in records)


@flow_type
@dataclass
class Shipping:
    order: str

    @flow
    async def ship(self) -> str:
        return f"shipped {self.order}"


@flow_type
@dataclass
class Checkout(FlowType):
    order: str

    @flow
    async def run(self) -> str:
        one = await self.invoke(Shipping(self.order)).result()
        two = await Shipping(one).ship()
        return f"{two}"


async def test_an_object_starts_another_object_as_its_child(log: ExecutionLog) -> None:
    async with worker(log, Checkout, Shipping):
        handle = await Scheduler(log).schedule(Checkout("o"), id="f")

        assert await handle.result(10) == "shipped shipped o"


@flow_type
@dataclass
class Bare:
    order: str

    @flow
    async def run(self) -> str:
        found: str = await getattr(self, "invoke")(Shipping(self.order)).result()  # noqa: B009  # no type declares it
        return found


async def test_a_class_without_the_base_class_can_start_children_too(log: ExecutionLog) -> None:
    async with worker(log, Bare, Shipping):
        assert await (await Scheduler(log).schedule(Bare("o"), id="f")).result(10) == "shipped o"


async def test_a_child_with_its_own_id_on_another_queue_is_run_by_that_queues_worker(
    log: ExecutionLog,
) -> None:
    @flow
    async def parent() -> str:
        child = invoke(waits.bind(), id="the-child", queue="slow")
        assert child.flow_id == "the-child"
        return await child.result()

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        child = handle_of(log, "the-child")
        await until(lambda: log.find("the-child"))
        assert "queue `slow`" in await child.why()
        async with worker(log, waits, queues=["slow"], name="slow"):
            await child.signal("go", "went")

            assert await handle.result(10) == "went"


@pytest.mark.every_log
async def test_a_taken_id_is_an_error_in_the_parent_and_harms_nobody(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        try:
            return await invoke(waits.bind(), id="taken").result()
        except FlowIdConflict:
            return "taken"

    await start(log, waits.bind(), "taken")
    async with worker(log, parent, waits):
        assert await (await start(log, parent.bind())).result(10) == "taken"
        await handle_of(log, "taken").signal("go", "fine")
        assert await handle_of(log, "taken").result(10) == "fine"


@pytest.mark.every_log
async def test_the_error_of_a_child_keeps_its_class_its_data_and_its_retryability(log: ExecutionLog) -> None:
    @flow
    async def child() -> None:
        raise OutOfStock("chair")

    @flow
    async def parent() -> list[object]:
        try:
            await child()
        except OutOfStock as error:
            return [error.item, error.is_retryable()]
        return []

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == ["chair", False]


@pytest.mark.every_log
async def test_cancelling_a_parent_cancels_its_children_and_theirs(log: ExecutionLog) -> None:
    @flow
    async def child() -> str:
        return await invoke(waits.bind(), id="grandchild").result()

    @flow
    async def parent() -> str:
        return await invoke(child.bind(), id="child").result()

    async with worker(log, parent, child, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("grandchild"))
        await handle.cancel("enough")

        with pytest.raises(FlowCancelled, match="enough"):
            await handle.result(10)
        for id in ("child", "grandchild"):
            await until_status(handle_of(log, id), "cancelled")


@pytest.mark.every_log
async def test_a_parent_that_stops_waiting_cancels_the_child(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.1):
                return await invoke(waits.bind(), id="child").result()
        except TimeoutError:
            return await wait_signal("go", str)

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("child"))
        await until_status(handle_of(log, "child"), "cancelled")
        await handle.signal("go", "on")

        assert await handle.result(10) == "on"


async def test_a_child_nobody_awaits_ends_with_its_parent_unless_it_is_detached(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        invoke(waits.bind(), id="attached")
        invoke(waits.bind(), id="detached", detached=True)
        await wait_signal("go")
        return "done"

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("attached"))
        await until(lambda: log.find("detached"))
        await handle.signal("go")
        await handle.result(10)

        await until_status(handle_of(log, "attached"), "cancelled")
        detached = handle_of(log, "detached")
        await detached.signal("go", "lives on")
        assert await detached.result(10) == "lives on"


async def test_nobody_complains_when_a_detached_child_fails_that_nobody_asks_about(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """It was left to itself; what it came to is in the log."""

    @flow
    async def parent() -> str:
        invoke(waits.bind(), id="detached", detached=True)
        await wait_signal("go", str)
        await wait_signal("end", str)
        return "left it alone"

    async with worker(log, parent, waits, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("detached"))
        await handle_of(log, "detached").cancel()
        await until_event(log, "f", "child_failed")
        await handle.signal("go", "on")
        await until_event(log, "f", "signal_received")
        gc.collect()
        await handle.signal("end", "now")

        assert await handle.result(10) == "left it alone"
    assert [record.message for record in caplog.records if "never retrieved" in record.message] == []


@pytest.mark.every_log
async def test_a_detached_child_survives_the_cancellation_of_its_parent(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="detached", detached=True).result()

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("detached"))
        await handle.cancel()
        with pytest.raises(FlowCancelled):
            await handle.result(10)
        detached = handle_of(log, "detached")
        await detached.signal("go", "lives on")

        assert await detached.result(10) == "lives on"


async def test_killing_a_parent_cancels_its_children(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="child").result()

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until_status(handle_of(log, "child"), "suspended") if await log.find("child") else None
        await until(lambda: log.find("child"))
        await handle.kill()

        await until_status(handle_of(log, "child"), "cancelled")


async def test_a_killed_child_raises_flow_cancelled_in_its_parent(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        try:
            return await invoke(waits.bind(), id="child").result()
        except FlowCancelled as error:
            return str(error)

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("child"))
        await handle_of(log, "child").kill("operator")

        assert "child" in await handle.result(10)


async def test_a_child_runs_the_version_of_its_parent(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="child").result()

    async with worker(log, parent, waits, versions=["2"]):
        await Scheduler(log).with_version("2").schedule(parent.bind(), id="f")
        await until(lambda: log.find("child"))

    record = await log.find("child")
    assert record is not None
    assert (record.version, record.parent_id) == ("2", "f")


@pytest.mark.every_log
async def test_a_hundred_children_at_once(log: ExecutionLog) -> None:
    @step
    async def work(number: int) -> int:
        return number

    @flow
    async def child(number: int) -> int:
        return await work(number)

    @flow
    async def parent() -> int:
        return sum(await asyncio.gather(*(child(number) for number in range(100))))

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(20) == sum(range(100))

    assert len(await flows_named(log, "child")) == 100


async def test_a_child_is_started_only_from_a_flow_or_a_step() -> None:
    with pytest.raises(NotInFlow, match="Scheduler"):
        invoke(waits.bind())
    with pytest.raises(NotInFlow, match="Scheduler"):
        await waits()
