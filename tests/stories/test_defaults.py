"""Parameters left to their defaults: a flow keeps the values it was started with, whatever later code declares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ergon import ExecutionLog, Executor, Flow, FlowIdConflict, Scheduler, Suspended, flow, wait_signal
from tests.stories.helpers import start, until_status, worker


def with_default(mode: str) -> Flow[..., str]:
    """The flow `job` as one release has it."""

    @flow(name="job")
    async def job(number: int, mode: str = mode, *, loud: bool = False) -> str:
        await wait_signal("go")
        return f"{number} {mode} {loud}"

    return job


OLD, NEW = with_default("old"), with_default("new")


async def test_a_flow_keeps_the_defaults_it_was_started_with(log: ExecutionLog) -> None:
    async with worker(log, OLD):
        handle = await start(log, OLD.bind(1))
        await until_status(handle, "suspended")

    async with worker(log, NEW):
        await handle.signal("go")
        assert await handle.result(10) == "1 old False"


async def test_defaults_are_part_of_the_input_that_one_can_see(log: ExecutionLog) -> None:
    handle = await start(log, OLD.bind(1, loud=True))

    assert json.loads((await handle.record()).input) == {"number": 1, "mode": "old", "loud": True}


async def test_an_input_stored_without_defaults_gets_those_of_the_code(log: ExecutionLog) -> None:
    """So it was before they were stored, and so it is for clients that do not have the code."""
    handle = await Scheduler(log).schedule_named("job", {"number": 1}, id="f")

    async with worker(log, NEW):
        await handle.signal("go")
        assert await handle.result(10) == "1 new False"


async def test_a_repeated_call_is_the_same_call_though_a_default_has_changed(log: ExecutionLog) -> None:
    await start(log, OLD.bind(1))

    again = await start(log, NEW.bind(1))
    assert json.loads((await again.record()).input)["mode"] == "old"
    assert isinstance(await Executor(NEW.bind(1), log, "f").run(), Suspended)
    with pytest.raises(FlowIdConflict):
        await start(log, NEW.bind(1, "new"))


async def test_a_call_that_gives_the_default_itself_is_the_same_call(log: ExecutionLog) -> None:
    await Scheduler(log).schedule_named("job", {"number": 1}, id="f")

    await start(log, OLD.bind(1, "old"))
    with pytest.raises(FlowIdConflict):
        await start(log, OLD.bind(1, "other"))


async def test_a_default_that_cannot_be_read_back_is_left_to_the_code(log: ExecutionLog) -> None:
    """`limit: int = None` and sentinels are common, and are no reason to refuse the call."""
    unset: Any = object()

    @flow
    async def lenient(limit: int = None, mark: Any = unset) -> bool:  # type: ignore[assignment]  # noqa: RUF013
        return limit is None and mark is unset

    async with worker(log, lenient):
        handle = await start(log, lenient.bind())
        assert await handle.result(10)

    assert (await handle.record()).input == "{}"


async def test_a_child_keeps_its_defaults_and_its_parent_replays_with_others(log: ExecutionLog) -> None:
    """A parent that asks for its child again, with a later release's default, means the child it has."""

    def parent_of(child: Flow[..., str]) -> Flow[..., str]:
        @flow(name="parent")
        async def parent() -> str:
            return await child(1)

        return parent

    before, after = parent_of(OLD), parent_of(NEW)
    async with worker(log, OLD, before):
        handle = await start(log, before.bind())
        child = Scheduler(log).handle("f/0:1")
        await until_status(handle, "suspended")
        await until_status(child, "suspended")

    async with worker(log, NEW, after):
        await child.signal("go")
        assert await handle.result(10) == "1 old False"
