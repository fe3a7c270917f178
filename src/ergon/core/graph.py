"""The rules of a DAG of steps: what may follow what. Pure; running it lives in `flow/`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from ergon.errors import DagError


class Dag(Struct, frozen=True):
    """A graph of steps: every dependency exists and nothing waits for itself.

    Made by `graph_of(cls)` and `DagBuilder.graph()`. `to_dot()`, `to_ascii()` and `summary()` show it to people,
    `levels()`, `starts()`, `ends()` and `longest_path()` tell tests and tools what follows what.
    """

    dependencies: Mapping[str, tuple[str, ...]]
    """For each step, in declaration order, the steps it waits for."""

    @classmethod
    def of(cls, dependencies: Mapping[str, Iterable[str]]) -> Dag:
        """Check a graph. Raises `DagError` that names the missing dependencies, or the cycle as a path."""
        graph = {name: tuple(dict.fromkeys(wanted)) for name, wanted in dependencies.items()}
        _refuse_missing(graph)
        if cycle := find_cycle(graph):
            raise DagError(
                f"these steps wait for each other: {' -> '.join(cycle)}. Remove one of the dependencies"
            )
        return cls(graph)

    def ready(self, done: Collection[str], started: Collection[str] = ()) -> tuple[str, ...]:
        """The steps that can start now: all they wait for is in `done`, and they are in neither collection."""
        finished, busy = set(done), {*done, *started}
        return tuple(
            name
            for name, wanted in self.dependencies.items()
            if name not in busy and all(each in finished for each in wanted)
        )

    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The steps by length of their longest way from a start. For people: running does not wait for a level."""
        depth = self._depths()
        found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for name in self.dependencies:
            found[depth[name]].append(name)
        return tuple(map(tuple, found))

    def starts(self) -> tuple[str, ...]:
        """The steps that wait for nothing."""
        return tuple(name for name, wanted in self.dependencies.items() if not wanted)

    def ends(self) -> tuple[str, ...]:
        """The steps that nothing waits for."""
        awaited = {each for wanted in self.dependencies.values() for each in wanted}
        return tuple(name for name in self.dependencies if name not in awaited)

    def longest_path(self) -> tuple[str, ...]:
        """One longest chain of steps that wait for each other, from its start."""
        depth = self._depths()
        if not depth:
            return ()
        path = [max(depth, key=lambda name: depth[name])]
        while wanted := self.dependencies[path[-1]]:
            path.append(max(wanted, key=lambda name: depth[name]))
        return tuple(reversed(path))

    def to_dot(self, title: str = "dag") -> str:
        """The graph in Graphviz's language: `dot -Tsvg` draws it."""
        lines = [f"digraph {_quoted(title)} {{", "  rankdir=LR;"]
        lines += [f"  {_quoted(name)};" for name in self.dependencies]
        lines += [
            f"  {_quoted(each)} -> {_quoted(name)};"
            for name, wanted in self.dependencies.items()
            for each in wanted
        ]
        return "\n".join([*lines, "}"])

    def to_ascii(self) -> str:
        """The graph as plain lines: level, step, and what it waits for."""
        width = len(str(len(self.levels())))
        lines = []
        for level, names in enumerate(self.levels()):
            for place, name in enumerate(names):
                number = str(level) if place == 0 else ""
                wanted = self.dependencies[name]
                after = f" <- {', '.join(map(_printable, wanted))}" if wanted else ""
                lines.append(f"{number:>{width}}  {_printable(name)}{after}")
        return "\n".join(lines)

    def summary(self) -> str:
        """The graph in one sentence."""
        if not self.dependencies:
            return "no steps"
        levels = self.levels()
        return (
            f"{_count(len(self.dependencies), 'step')} in {_count(len(levels), 'level')}; "
            f"starts with {', '.join(map(_printable, self.starts()))}; "
            f"ends with {', '.join(map(_printable, self.ends()))}; "
            f"longest path {' -> '.join(map(_printable, self.longest_path()))}"
        )

    def _depths(self) -> dict[str, int]:
        depth: dict[str, int] = {}
        for name in topological_order(self.dependencies):
            depth[name] = max((depth[each] + 1 for each in self.dependencies[name]), default=0)
        return depth


def topological_order(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Every step after all it waits for; otherwise in declaration order. Steps in or behind a cycle are left out."""
    waiting = {name: len(wanted) for name, wanted in graph.items()}
    followers: dict[str, list[str]] = {name: [] for name in graph}
    for name, wanted in graph.items():
        for each in wanted:
            followers[each].append(name)
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:  # grows while it is walked
        for follower in followers[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                order.append(follower)
    return order


def find_cycle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """One cycle as a path that ends where it began, each step waiting for the next; empty when there is none."""
    free = set(topological_order(graph))
    name = next((each for each in graph if each not in free), None)
    if name is None:
        return []
    path: dict[str, None] = {}
    while name not in path:  # whatever cannot be ordered waits for something else that cannot, so this closes
        path[name] = None
        name = next(each for each in graph[name] if each not in free)
    steps = list(path)
    return [*steps[steps.index(name) :], name]


def _refuse_missing(graph: Mapping[str, tuple[str, ...]]) -> None:
    missing = [(name, each) for name, wanted in graph.items() for each in wanted if each not in graph]
    if not missing:
        return
    facts = "; ".join(f"{name!r} waits for {each!r}" for name, each in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    from difflib import get_close_matches  # for messages only

    close = get_close_matches(missing[0][1], graph, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ". Add the step, or correct the name"
    raise DagError(f"no such step in this DAG: {facts}{more}{hint}")


def _quoted(name: str) -> str:
    return '"' + _printable(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
