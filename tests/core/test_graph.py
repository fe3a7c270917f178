"""A DAG of steps is checked before anything runs, and shown so that people can follow it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.graph import Dag, find_cycle, topological_order
from ergon.errors import DagError

DIAMOND = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}


def test_a_diamond_is_read_as_people_draw_it() -> None:
    dag = Dag.of(DIAMOND)

    assert dag.levels() == (("load",), ("left", "right"), ("join",))
    assert dag.starts() == ("load",)
    assert dag.ends() == ("join",)
    assert dag.longest_path() == ("load", "left", "join")
    assert dag.summary() == (
        "4 steps in 3 levels; starts with load; ends with join; longest path load -> left -> join"
    )
    assert dag.to_ascii() == "0  load\n1  left <- load\n   right <- load\n2  join <- left, right"
    assert '"left" -> "join";' in dag.to_dot()


def test_a_step_is_ready_as_soon_as_what_it_waits_for_is_done() -> None:
    """No step waits for the rest of a level."""
    dag = Dag.of({"a": [], "b": [], "after_a": ["a"], "last": ["after_a", "b"]})

    assert dag.ready(done=()) == ("a", "b")
    assert dag.ready(done={"a"}, started={"b"}) == ("after_a",)
    assert dag.ready(done={"a", "after_a"}, started={"b"}) == ()
    assert dag.ready(done={"a", "b", "after_a"}) == ("last",)


@pytest.mark.parametrize(
    "graph, path",
    [
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"s": [], "a": ["s", "c"], "b": ["a"], "c": ["b"], "t": ["c"]}, "a -> c -> b -> a"),
        ({"t": ["a"], "a": ["b"], "b": ["a"]}, "a -> b -> a"),
    ],
)
def test_a_cycle_is_named_step_by_step(graph: dict[str, list[str]], path: str) -> None:
    with pytest.raises(DagError, match=f": {path}\\."):
        Dag.of(graph)


def test_a_missing_dependency_is_named_with_a_guess() -> None:
    with pytest.raises(DagError, match=r"'join' waits for 'lefft'.*Did you mean 'left'\?"):
        Dag.of({"left": [], "join": ["lefft"]})
    with pytest.raises(DagError, match=r"'a' waits for 'zzz'.*Add the step"):
        Dag.of({"a": ["zzz"]})


def test_an_empty_graph_is_a_graph() -> None:
    dag = Dag.of({})

    assert (dag.levels(), dag.ready(()), dag.longest_path(), dag.summary(), dag.to_ascii()) == (
        (),
        (),
        (),
        "no steps",
        "",
    )


def test_a_chain_of_ten_thousand_steps_is_no_problem() -> None:
    chain = {str(n): [str(n - 1)] if n else [] for n in range(10_000)}

    assert len(Dag.of(chain).levels()) == 10_000
    with pytest.raises(DagError):
        Dag.of({**chain, "0": ["9999"]})


def test_names_cannot_break_out_of_the_drawing() -> None:
    dot = Dag.of({'a"]; evil [label="x': [], "b\n}": ['a"]; evil [label="x']}).to_dot()

    assert '"a\\"]; evil [label=\\"x"' in dot
    assert "b\n" not in dot


names = st.sampled_from("abcdefgh")
graphs = st.dictionaries(names, st.lists(names, max_size=4)).map(
    lambda graph: {name: [each for each in wanted if each in graph] for name, wanted in graph.items()}
)


@settings(max_examples=80)
@given(graphs)
def test_a_graph_is_ordered_or_has_a_real_cycle(graph: dict[str, list[str]]) -> None:
    unique = {name: tuple(dict.fromkeys(wanted)) for name, wanted in graph.items()}
    cycle = find_cycle(unique)

    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(after in graph[before] for before, after in itertools.pairwise(cycle))
    else:
        order = topological_order(unique)
        assert sorted(order) == sorted(graph)
        assert all(order.index(each) < order.index(name) for name in graph for each in graph[name])
        dag = Dag.of(graph)
        assert sorted(name for level in dag.levels() for name in level) == sorted(graph)
