"""Steps as a graph: each starts as soon as what it depends on has ended, with no barrier between levels.

`dag(self)` runs the steps of a `@flow_type` object by their `depends_on` and `inputs`; a `DagBuilder` does the same
for functions. Both run inside a flow, and every step is recorded as usual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ergon.core.graph import Dag
from ergon.errors import DagError
from ergon.flows.context import need_machine
from ergon.flows.steps import Step


async def dag(target: object, final_step: str | None = None) -> Any:
    """Run all steps of a `@flow_type` object as a graph.

    A step waits for the steps in its `depends_on` and for those its `inputs` name, whose results become its
    arguments. The first step that fails cancels the others and its error is raised.

    final_step: whose result to return. Default: the last step's when there is just one that nothing waits for,
    else a dict of the results of all such steps by name. Raises `DagError` for a cycle or a name that is no step.
    """
    need_machine("dag()")
    steps = steps_of(type(target))
    graph = graph_of(type(target))
    if final_step is not None and final_step not in steps:
        raise DagError(f"final_step={final_step!r} is no step of {type(target).__name__}: {', '.join(steps)}")

    def call(name: str, results: Mapping[str, Any]) -> Awaitable[Any]:
        kwargs = {parameter: results[source] for parameter, source in steps[name].options.inputs.items()}
        return getattr(target, name)(**kwargs)  # type: ignore[no-any-return]

    results = await _run(graph, call)
    return _answer(graph, results, final_step)


def steps_of(cls: type) -> dict[str, Step[..., Any]]:
    """The steps among a class's methods, inherited ones included, in the order they are declared."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return {name: found for name in names if isinstance(found := getattr(cls, name, None), Step)}


def graph_of(target: object) -> Dag:
    """The graph that `dag(self)` runs, for a look at it or a test: nothing is run, and no log is needed.

        print(graph_of(Report).to_ascii())

    target: a `@flow_type` class, or an object of one.
    Raises `DagError` for a cycle, a dependency that is no step, and a class without steps.
    """
    cls = target if isinstance(target, type) else type(target)
    steps = steps_of(cls)
    if not steps:
        raise DagError(f"{cls.__name__} has no method decorated with @step")
    return Dag.of(
        {
            name: (*(step.options.depends_on or ()), *step.options.inputs.values())
            for name, step in steps.items()
        }
    )


class Node:
    """A call in a `DagBuilder`; given to another call as an argument, it stands for its result."""

    __slots__ = ("builder", "name")

    def __init__(self, name: str, builder: DagBuilder) -> None:
        self.name = name
        self.builder = builder

    def __repr__(self) -> str:
        return f"<node {self.name}>"


class DagBuilder:
    """A graph of step calls.

    build = DagBuilder()
    user = build.add(fetch_user, user_id)
    cart = build.add(fetch_cart, user_id)
    build.add(checkout, user, cart)
    receipt = await build.run()
    """

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Callable[..., Awaitable[Any]], tuple[Any, ...], dict[str, Any]]] = {}
        self._after: dict[str, tuple[str, ...]] = {}

    def add(
        self,
        step: Callable[..., Awaitable[Any]],
        /,
        *args: Any,
        node_name: str | None = None,
        after: Node | Sequence[Node] = (),
        **kwargs: Any,
    ) -> Node:
        """Add a call. It waits for every node among its arguments, and for `after`, a node or several.

        node_name: its name in `graph()`; default: the step's, numbered when it is used more than once.
        """
        base = node_name or str(getattr(step, "name", None) or getattr(step, "__name__", "step"))
        name, number = base, 1
        while name in self._calls:
            if node_name is not None:
                raise DagError(f"two calls are named {node_name!r}; give each a name of its own")
            number += 1
            name = f"{base}-{number}"
        nodes = [value for value in (*args, *kwargs.values()) if isinstance(value, Node)]
        nodes += (after,) if isinstance(after, Node) else after
        for node in nodes:
            self._check_own(node, f"{name!r} waits for")
        self._calls[name] = (step, args, kwargs)
        self._after[name] = tuple(node.name for node in nodes)
        return Node(name, self)

    def _check_own(self, node: Node, told: str) -> None:
        if not isinstance(node, Node):
            raise DagError(f"{told} {node!r}, which is no node: give what `add` returned")
        if node.builder is not self:
            raise DagError(f"{told} {node.name!r}, which belongs to another DagBuilder")

    def graph(self) -> Dag:
        """The checked graph: `.to_dot()`, `.to_ascii()`, `.levels()`, `.summary()`."""
        return Dag.of(self._after)

    async def run(self, final: Node | None = None) -> Any:
        """Run every call as early as its arguments allow, and return the result of `final`.

        Default: of the only call that nothing waits for, or a dict by name when there are several.
        Raises `DagError` for a node of another builder.
        """
        need_machine("DagBuilder.run()")
        if final is not None:
            self._check_own(final, "run(final=...) asks for")
        graph = self.graph()

        def call(name: str, results: Mapping[str, Any]) -> Awaitable[Any]:
            step, args, kwargs = self._calls[name]
            return step(
                *(results[value.name] if isinstance(value, Node) else value for value in args),
                **{
                    key: results[value.name] if isinstance(value, Node) else value
                    for key, value in kwargs.items()
                },
            )

        results = await _run(graph, call)
        return _answer(graph, results, final.name if final is not None else None)


async def _run(graph: Dag, call: Callable[[str, Mapping[str, Any]], Awaitable[Any]]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    tasks: dict[asyncio.Future[Any], str] = {}
    try:
        while True:
            for name in graph.ready(results, tasks.values()):
                tasks[asyncio.ensure_future(call(name, results))] = name
            if not tasks:
                return results
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in tasks if task in done]:
                name = tasks.pop(task)
                results[name] = task.result()
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)


def _answer(graph: Dag, results: Mapping[str, Any], final: str | None) -> Any:
    if final is not None:
        return results[final]
    ends = graph.ends()
    return results[ends[0]] if len(ends) == 1 else {name: results[name] for name in ends}
