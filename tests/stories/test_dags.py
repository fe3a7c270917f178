"""Steps as a graph: each as early as what it waits for allows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from ergon import Dag, DagBuilder, DagError, ExecutionLog, dag, flow, flow_type, graph_of, step, wait_signal
from tests.stories.helpers import start, until, until_status, worker

effects: list[str] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    effects.clear()
    gates.clear()


async def passes(name: str) -> None:
    if name in gates:
        await gates[name].wait()
    effects.append(name)


@flow_type
@dataclass
class Report:
    user: str

    @step
    async def load_user(self) -> dict[str, str]:
        await passes("load_user")
        return {"name": self.user}

    @step
    async def load_orders(self) -> list[int]:
        await passes("load_orders")
        return [1, 2, 3]

    @step(inputs={"user": "load_user"})
    async def greet(self, user: dict[str, str]) -> str:
        await passes("greet")
        return f"Hello {user['name']}"

    @step(depends_on="load_user", inputs={"orders": "load_orders"})
    async def total(self, orders: list[int]) -> int:
        await passes("total")
        return sum(orders)

    @step(inputs={"greeting": "greet", "total": "total"})
    async def write(self, greeting: str, total: int) -> str:
        await passes("write")
        return f"{greeting}: {total}"

    @flow
    async def run(self) -> str:
        return await dag(self)  # type: ignore[no-any-return]

    @flow
    async def greeting(self) -> str:
        return await dag(self, final_step="greet")  # type: ignore[no-any-return]


async def test_results_flow_along_the_graph(log: ExecutionLog) -> None:
    async with worker(log, Report):
        assert await (await start(log, Report("Ann").run.bind())).result(10) == "Hello Ann: 6"
        assert await (await start(log, Report("Bob").greeting.bind(), "g")).result(10) == "Hello Bob"


async def test_no_level_holds_a_step_back(log: ExecutionLog) -> None:
    """`greet` needs only the user, so it runs though the orders of the same level are not there yet."""
    gates["load_orders"] = asyncio.Event()

    async with worker(log, Report):
        handle = await start(log, Report("Ann").run.bind())
        await until(lambda: effects == ["load_user", "greet"])
        gates["load_orders"].set()
        await handle.result(10)

    assert effects == ["load_user", "greet", "load_orders", "total", "write"]


async def test_a_graph_goes_on_after_a_restart_where_it_was(log: ExecutionLog) -> None:
    gates["total"] = asyncio.Event()
    handle = await start(log, Report("Ann").run.bind())
    async with worker(log, Report, drain_seconds=0.05):
        await until(lambda: sorted(effects) == ["greet", "load_orders", "load_user"])
    gates["total"].set()
    async with worker(log, Report):
        assert await handle.result(10) == "Hello Ann: 6"

    assert sorted(effects) == ["greet", "load_orders", "load_user", "total", "write"]


@flow_type
@dataclass
class Failing:
    @step
    async def fails(self) -> None:
        await passes("fails")
        raise KeyError("gone")

    @step
    async def slow(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            effects.append("slow cancelled")

    @step(depends_on=["fails"])
    async def after(self) -> None:
        effects.append("after")

    @flow
    async def run(self) -> None:
        await dag(self)


async def test_the_first_failure_cancels_the_rest(log: ExecutionLog) -> None:
    async with worker(log, Failing):
        with pytest.raises(KeyError):
            await (await start(log, Failing().run.bind())).result(10)
        await until(lambda: "slow cancelled" in effects)

    assert "after" not in effects


def test_a_cycle_and_a_missing_dependency_are_told_by_name() -> None:
    @flow_type
    class Cycle:
        @step(depends_on=["second"])
        async def first(self) -> None: ...

        @step(depends_on=["first"])
        async def second(self) -> None: ...

        @flow
        async def run(self) -> None: ...

    @flow_type
    class Missing:
        @step(depends_on=["frist"])
        async def second(self) -> None: ...

        @step
        async def first(self) -> None: ...

        @flow
        async def run(self) -> None: ...

    with pytest.raises(DagError, match="first -> second"):
        graph_of(Cycle)
    with pytest.raises(DagError, match="Did you mean 'first'"):
        graph_of(Missing)


async def test_a_wrong_graph_fails_its_flow(log: ExecutionLog) -> None:
    @flow
    async def wrong() -> None:
        await dag(Report("Ann"), final_step="no_such_step")

    async with worker(log, wrong):
        with pytest.raises(DagError, match="no_such_step"):
            await (await start(log, wrong.bind())).result(10)


def test_a_graph_can_be_drawn() -> None:
    graph = graph_of(Report)

    assert '"greet" -> "write"' in graph.to_dot()
    assert graph.levels() == (("load_user", "load_orders"), ("greet", "total"), ("write",))
    assert "write <- greet, total" in graph.to_ascii()
    assert graph.summary().startswith("5 steps in 3 levels")


async def test_a_builder_does_the_same_for_functions(log: ExecutionLog) -> None:
    @step
    async def fetch(what: str) -> int:
        effects.append(what)
        return len(what)

    @step
    async def add(one: int, other: int) -> int:
        return one + other

    @flow
    async def build_and_run() -> dict[str, Any]:
        build = DagBuilder()
        user = build.add(fetch, "user")
        cart = build.add(fetch, "cart!")
        both = build.add(add, user, other=cart, node_name="both")
        late = build.add(fetch, "late", after=(both,), node_name="late")
        await wait_signal("go")
        first = await build.run()
        assert build.graph().dependencies["late"] == ("both",)
        return {"first": first, "both": await build.run(both), "late": late.name}

    async with worker(log, build_and_run):
        handle = await start(log, build_and_run.bind())
        await until_status(handle, "suspended")
        await handle.signal("go")

        assert await handle.result(10) == {"first": 4, "both": 9, "late": "late"}


def test_a_builder_refuses_what_is_not_its_own() -> None:
    build, other = DagBuilder(), DagBuilder()

    @step
    async def fetch(what: str) -> int:
        return len(what)

    node = other.add(fetch, "a")

    with pytest.raises(DagError, match="another DagBuilder"):
        build.add(fetch, node)
    build.add(fetch, "a", node_name="x")
    with pytest.raises(DagError, match="'x'"):
        build.add(fetch, "b", node_name="x")


async def test_a_builder_refuses_a_node_of_another_though_it_has_one_of_that_name(log: ExecutionLog) -> None:
    """By name alone the call would get the result of another one than was meant."""

    @step
    async def fetch(what: str) -> int:
        return len(what)

    @flow
    async def build_and_run() -> list[str]:
        build, other = DagBuilder(), DagBuilder()
        foreign, _ = other.add(fetch, "other's"), build.add(fetch, "own")
        unknown = other.add(fetch, "other's", node_name="unknown")
        told = []
        for final in (foreign, unknown):
            try:
                await build.run(final)
            except DagError as error:
                told.append(str(error))
        for wait in (lambda: build.add(fetch, foreign), lambda: build.add(fetch, "x", after=[foreign])):
            try:
                wait()
            except DagError as error:
                told.append(str(error))
        return told

    async with worker(log, build_and_run):
        told = await (await start(log, build_and_run.bind())).result(10)

    assert len(told) == 4
    assert all("another DagBuilder" in each for each in told)


def test_a_call_is_added_after_one_node_or_several() -> None:
    @step
    async def fetch(what: str) -> int:
        return len(what)

    build = DagBuilder()
    node = build.add(fetch, "a", node_name="a")
    build.add(fetch, "b", node_name="b", after=node)
    build.add(fetch, "c", node_name="c", after=[node])

    assert build.graph().dependencies == {"a": (), "b": ("a",), "c": ("a",)}
    with pytest.raises(DagError, match="'a', which is no node: give what `add` returned"):
        build.add(fetch, "d", after=("a",))  # type: ignore[arg-type]  # a mistake


async def test_a_graph_runs_only_in_a_flow() -> None:
    with pytest.raises(RuntimeError, match="inside a flow"):
        await dag(Report("Ann"))


def test_the_graph_of_a_class_and_of_its_object_can_be_looked_at_without_running_it() -> None:
    graph = graph_of(Report)

    assert isinstance(graph, Dag)
    assert graph == graph_of(Report("Ada"))
    assert graph.levels() == (("load_user", "load_orders"), ("greet", "total"), ("write",))
    assert '"load_orders" -> "total";' in graph.to_dot()
    assert effects == []
