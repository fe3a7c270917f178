"""Tags on the command line: `worker --tag`, `ls --tag`, and what shows them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ergon import Scheduler, SqliteExecutionLog

TAGGED = """
from ergon import flow

@flow(tags=("gpu", "big"))
async def render() -> str:
    return "rendered"
"""


@pytest.fixture(autouse=True)
def tagged(here: Path) -> None:
    (here / "film.py").write_text(TAGGED)


async def test_ls_and_show_tell_tags_and_ls_filters_by_them(ergon_async: Callable[..., Any]) -> None:
    async with SqliteExecutionLog("ergon.db") as log:
        for flow_id, tags in (("both", ["gpu", "big"]), ("one", ["gpu"]), ("none", [])):
            await Scheduler(log).schedule_named("render", {}, id=flow_id, tags=tags)

    one = json.loads((await ergon_async("ls", "--tag", "gpu", "--json")).out)["flows"]
    two = json.loads((await ergon_async("ls", "--tag", "gpu", "--tag", "big", "--json")).out)["flows"]
    unknown = await ergon_async("ls", "--tag", "gp")
    shown = await ergon_async("show", "both")

    assert {row["id"]: row["tags"] for row in one} == {"both": ["big", "gpu"], "one": ["gpu"]}
    assert [row["id"] for row in two] == ["both"]
    assert unknown.code == 1
    assert "big, gpu" in shown.out


def test_run_has_the_tags_of_the_flow_it_runs(ergon: Callable[..., Any]) -> None:
    answer = ergon("run", "film.py:render", "--id", "f")

    assert answer.out == '"rendered"\n'


async def test_a_worker_started_with_tags_says_so_and_takes_such_flows(
    command: Callable[..., Any], ergon_async: Callable[..., Any]
) -> None:
    async with SqliteExecutionLog("ergon.db") as log:
        handle = await Scheduler(log).schedule_named("render", {}, id="f", tags=["gpu", "big"])
        process = command("worker", "film.py", "--tag", "gpu", "--tag", "big")
        await handle.result(timeout=20)
        listed = await ergon_async("workers", "--json")
        people = await ergon_async("workers")
    process.terminate()
    _, err = process.communicate(timeout=20)

    assert [row["tags"] for row in json.loads(listed.out)] == [["big", "gpu"]]
    assert "\tbig, gpu\t" in people.out
    assert "runs render from default with tags big, gpu" in err
