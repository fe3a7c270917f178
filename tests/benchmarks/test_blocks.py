import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import (
    same_rows,
    w1_sequential,
    w2_concurrent,
    w3_fan_out,
    w4_replay,
)
from benchmarks.__main__ import WORKLOADS, chosen, parse
from benchmarks.figures import medians_of, percentile
from benchmarks.machine import facts
from benchmarks.measure import Means, Measured, freeze, params_of, run_side
from benchmarks.model import ERGON, FLOOR, RIVALS, SAME_ROWS
from benchmarks.report import MET, MISSED, UNKNOWN, as_json, table, verdict
from benchmarks.servers import serving

SMALL = [
    (w1_sequential.WORKLOAD, {"steps": 5, "warm": 2}),
    (w2_concurrent.WORKLOAD, {"flows": 3, "steps": 2}),
    (w3_fan_out.WORKLOAD, {"steps": 3, "times": 1}),
    (w4_replay.WORKLOAD, {"small": 3, "large": 6}),
]


@pytest.mark.parametrize("workload,sizes", SMALL, ids=lambda part: getattr(part, "name", ""))
def test_both_sides_give_the_figures_that_the_rows_show(workload, sizes, tmp_path: Path):
    figures = {}
    for side, function in workload.sides.items():
        folder = tmp_path / side
        folder.mkdir()
        figures[side] = function({**sizes, "folder": str(folder)})

    bars = [row.bar for row in workload.rows if row.bar]
    own = [bar for bar in bars if not any(rival in bar.text.lower() for rival in RIVALS)]
    judged = [verdict(bar, figures) for bar in own]
    assert set(judged) <= {MET, MISSED}
    assert all(
        row.of(ERGON, figures) is not None or row.of(FLOOR, figures) is not None for row in workload.rows
    )


def test_a_side_runs_in_a_process_of_its_own(tmp_path: Path):
    freeze(tmp_path)
    before = set(tmp_path.iterdir())
    with serving() as servers:
        sizes = {"steps": 2, "times": 1}
        figures = run_side(w3_fan_out.WORKLOAD, FLOOR, sizes, Means(tmp_path, servers))

    assert figures["gather_ms"] > 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"bytecode"}


def test_a_table_is_made_of_medians_and_says_what_was_not_measured():
    workload = w2_concurrent.WORKLOAD
    rounds = [{"all_steps_per_s": rate} for rate in (1.0, 40_000.0, 50_000.0)]
    bare = [{"all_steps_per_s": 100_000.0}]
    measured = Measured(workload, {ERGON: {}, SAME_ROWS: {}}, {ERGON: rounds, SAME_ROWS: bare})

    assert measured.medians[ERGON] == {"all_steps_per_s": 40_000.0}
    assert [bar["met"] for bar in as_json(measured)["bars"]] == [UNKNOWN, UNKNOWN, MET]
    assert table(measured).row_count == len(workload.rows)


def test_bare_tasks_leave_the_rows_that_ergon_leaves(tmp_path: Path):
    path = tmp_path / "same.db"

    asyncio.run(same_rows.write_flows(path, count=3, steps=2))

    with closing(sqlite3.connect(path)) as reader:
        flows = [row[2:] for row in reader.execute("SELECT * FROM flows")]  # all but the number and the id
        events = reader.execute("SELECT * FROM events ORDER BY flow_num, seq").fetchall()
    assert len(flows) == 4
    assert len(set(flows)) == 1
    assert [row[1:] for row in events] == [row[1:] for row in events[:2]] * 4


def test_every_workload_has_sizes_for_all_its_sides():
    for workload in WORKLOADS.values():
        for side in [*workload.sides, *workload.rivals]:
            for quick in (False, True):
                assert params_of(workload, side, quick=quick).keys() >= workload.full.keys()
        assert set(workload.rivals) <= set(RIVALS)


def test_figures_are_reduced_over_rounds_and_samples():
    assert medians_of([{"a": 1.0}, {"a": 5.0, "b": 2.0}, {"a": 3.0}]) == {"a": 3.0, "b": 2.0}
    assert percentile([float(n) for n in range(1, 101)], 99) == 99.0
    assert percentile([7.0], 99) == 7.0


def test_the_machine_is_described(tmp_path: Path):
    assert {"machine", "python", "sqlite", "filesystem", "fdatasync"} <= facts(tmp_path).keys()


def test_workloads_are_chosen_by_name_in_any_case(capsys):
    assert parse(["w1", "W6"]).names == ["W1", "W6"]
    with pytest.raises(SystemExit):
        parse(["W99"])
    assert "there is no workload W99" in capsys.readouterr().err


def test_a_number_means_the_workload_on_every_store_that_was_asked_for():
    asked = {
        text: [one.name for one in WORKLOADS.values() if chosen(one, *parse_names(text))]
        for text in ("w2", "w2-redis", "w2 --stores sqlite,postgres", "--stores redis w1 w2")
    }

    assert asked == {
        "w2": ["W2", "W2-POSTGRES", "W2-REDIS"],
        "w2-redis": ["W2-REDIS"],
        "w2 --stores sqlite,postgres": ["W2", "W2-POSTGRES"],
        "--stores redis w1 w2": ["W1-REDIS", "W2-REDIS"],
    }


def parse_names(text: str) -> tuple[list[str], tuple[str, ...]]:
    parsed = parse(text.split())
    return parsed.names, parsed.stores
