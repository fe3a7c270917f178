"""A step that changes its flow's objects is refused: live they would be changed, on replay not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from ergon import ExecutionLog, RetryPolicy, StepMutatedArguments, flow, flow_type, step
from tests.stories.helpers import start, worker


@dataclass
class Line:
    price: int


@flow_type
@dataclass
class Cart:
    owner: str
    total: int = 0
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = object()  # no field: no part of the flow's data

    @step
    async def add_up(self) -> None:
        self.total += 1

    @step(retry=RetryPolicy.STANDARD)
    def append(self) -> None:
        self.lines.append(Line(1))

    @step(timeout=5)
    async def change_a_line(self) -> None:
        self.lines[0].price = 2

    @step
    async def connect(self) -> int:
        self.client = object()
        return len(self.lines)

    @flow
    async def adds_up(self) -> int:
        await self.add_up()
        return self.total

    @flow
    async def appends(self) -> None:
        await self.append()

    @flow
    async def changes_a_line(self) -> None:
        await self.change_a_line()

    @flow
    async def connects(self) -> int:
        return await self.connect()

    @flow
    async def keeps_its_own_books(self) -> int:
        async def count() -> None:
            self.lines.append(Line(await self.connect()))
            self.total += 1

        await asyncio.gather(*(count() for _ in range(5)))
        return self.total


@pytest.mark.parametrize("name", ["adds_up", "appends", "changes_a_line"])
async def test_a_step_that_changes_self_is_refused_at_its_first_run(log: ExecutionLog, name: str) -> None:
    cart = Cart("ann", lines=[Line(1)])

    async with worker(log, Cart):
        with pytest.raises(StepMutatedArguments, match="changed the Cart"):
            await (await start(log, getattr(cart, name).bind())).result(10)

    assert [event.kind for event in await log.history("f")] == ["step_failed"], "and not tried again"


@pytest.mark.parametrize("where", ["positional", "keyword", "nested"])
async def test_a_step_that_changes_an_argument_is_refused(log: ExecutionLog, where: str) -> None:
    @step
    async def collect(found: Any = None, **more: Any) -> None:
        (found or more["found"])["items"].append(1)

    @flow
    async def gather_all() -> None:
        found = {"items": [0]}
        if where == "positional":
            await collect(found)
        elif where == "keyword":
            await collect(found=found)
        else:
            await collect({"items": found["items"]})

    async with worker(log, gather_all):
        with pytest.raises(StepMutatedArguments, match="dict"):
            await (await start(log, gather_all.bind())).result(10)


async def test_a_flow_may_change_its_own_objects_while_steps_run(log: ExecutionLog) -> None:
    async with worker(log, Cart):
        assert await (await start(log, Cart("ann").keeps_its_own_books.bind())).result(10) == 5


async def test_what_is_no_field_is_the_steps_own_business(log: ExecutionLog) -> None:
    async with worker(log, Cart):
        assert await (await start(log, Cart("ann").connects.bind())).result(10) == 0


async def test_a_step_may_change_what_it_made_itself(log: ExecutionLog) -> None:
    @step
    async def sort(numbers: list[int]) -> list[int]:
        copied = list(numbers)
        copied.sort()
        return copied

    @flow
    async def sorted_numbers() -> list[int]:
        numbers = [3, 1, 2]
        numbers = await sort(numbers)
        numbers.append(4)
        return numbers

    async with worker(log, sorted_numbers):
        assert await (await start(log, sorted_numbers.bind())).result(10) == [1, 2, 3, 4]
