"""What `@step` and `@flow` make of what they are put on: its name, its attributes, its place in a class."""

from __future__ import annotations

from dataclasses import dataclass

from ergon import ExecutionLog, flow, run_step, step
from tests.stories.helpers import start, worker


async def test_attributes_of_a_function_do_not_get_in_the_way_of_its_step_or_flow(log: ExecutionLog) -> None:
    """Other libraries mark functions with attributes, and a class that is called as a step has those it likes."""

    async def double(number: int) -> int:
        return 2 * number

    async def doubled(number: int) -> int:
        return await double_step(number)

    names = ("name", "options", "function", "is_async", "owners", "decoder", "call", "signature", "_name")
    for function in (double, doubled):
        vars(function).update(dict.fromkeys(names, "not ours"), cost=3)
    double_step, doubled_flow = step(double), flow(doubled)

    async with worker(log, doubled_flow):
        assert await (await start(log, doubled_flow.bind(2))).result(10) == 4

    assert (double_step.name, doubled_flow.name) == ("double", "doubled")
    assert (vars(double_step)["cost"], vars(doubled_flow)["cost"]) == (3, 3)


async def test_a_class_whose_fields_are_named_like_parts_of_a_step_is_run_as_one(log: ExecutionLog) -> None:
    @flow
    async def buy() -> str:
        return (await run_step(Purchase, "book")).name

    async with worker(log, buy):
        assert await (await start(log, buy.bind())).result(10) == "book"

    assert [event.name for event in await log.history("f")] == ["Purchase"]


@dataclass
class Purchase:
    name: str = "nothing"
    options: int = 0
