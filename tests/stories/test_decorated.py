"""What `@step` and `@flow` make of what they are put on: its name, its attributes, its place in a class."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from ergon import DagBuilder, ExecutionLog, FlowType, UsageError, flow, flow_type, invoke, run_step, step
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


@flow_type
@dataclass
class Basket(FlowType):
    owner: str

    @step
    async def fetch(self) -> int:
        return 1

    @step
    async def fill(self) -> int:
        return 2

    @staticmethod
    @step
    async def weigh(grams: int) -> int:
        return grams

    @flow
    async def run(self) -> list[Any]:
        build = DagBuilder()
        build.add(self.fetch)
        build.add(self.fill)
        build.add(self.fill)
        untyped: Any = self  # type checkers take a staticmethod that is no function for one with an object
        return [await build.run(), await untyped.weigh(3)]


async def test_steps_and_flows_of_an_object_go_by_their_names(log: ExecutionLog) -> None:
    """In the graph of a `DagBuilder`, and wherever one is printed."""
    basket = Basket("Ann")
    async with worker(log, Basket):
        result = await (await start(log, basket.run.bind())).result(10)

    assert result == [{"Basket.fetch": 1, "Basket.fill": 2, "Basket.fill-2": 2}, 3]
    assert (basket.fetch.name, repr(basket.fetch)) == ("Basket.fetch", "<step Basket.fetch of an object>")
    assert (basket.run.name, repr(basket.run)) == ("Basket.run", "<flow Basket.run of an object>")


def test_a_decorator_above_staticmethod_or_classmethod_is_refused_with_the_right_order() -> None:
    """Else each call by way of an object is given one argument too many."""

    async def plain(number: int) -> int:
        return number

    mistakes: list[Any] = [staticmethod(plain), classmethod(plain)]  # type: ignore[arg-type]
    decorators: list[Any] = [step, flow]
    for made in mistakes:
        for decorator in decorators:
            told = f"`plain`: write `@{type(made).__name__}` above `@{decorator.__name__}`"
            with pytest.raises(UsageError, match=told):
                decorator(made)


def test_invoke_takes_only_what_it_tells_of() -> None:
    for function in (invoke, FlowType.invoke):
        taken = [name for name in inspect.signature(function).parameters if name != "self"]
        assert taken == ["child", "id", "queue", "tags", "detached"]
