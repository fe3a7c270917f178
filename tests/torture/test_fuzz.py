"""A short run of random flows; `python -m tests.torture --fuzz` is a long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.crash.processes import Zygote
from tests.torture.fuzz import MODULES, Fuzz, FuzzPlan
from tests.torture.fuzz_programs import fits, make_program, may_raise
from tests.torture.stores import SqliteStore


@pytest.mark.timeout(180)
def test_random_flows_come_to_what_their_programs_may_whatever_happens_to_their_workers(
    tmp_path: Path,
) -> None:
    plan = FuzzPlan(seed=1, rounds=1, torment_seconds=2.0)
    with Zygote(MODULES) as zygote:
        run = Fuzz(plan, tmp_path, zygote, SqliteStore(tmp_path))

        assert asyncio.run(run.run()) == []
    assert run.counts["flows"] >= 8
    assert run.counts["kills"] >= 1


def test_the_oracle_knows_which_values_a_program_cannot_come_to() -> None:
    step = {"kind": "step", "id": 7, "delay": 0.0}
    race = {"kind": "race", "id": 8, "body": [step, {"kind": "sleep", "id": 9, "delay": 0.0}]}

    assert fits(step, "7.abcd", disturbed=False)
    assert not fits(step, "8.abcd", disturbed=False)
    assert fits(race, [1, None], disturbed=False)
    assert not fits(race, [0, None], disturbed=False)
    assert not may_raise(race, disturbed=True)
    assert not fits({"kind": "catch", "id": 1, "body": [race]}, "caught", disturbed=True)


def test_a_seed_makes_the_same_program_each_time() -> None:
    assert make_program("1/2/3") == make_program("1/2/3")
    assert make_program("1/2/3") != make_program("1/2/4")
