"""Files that flows are imported from, whatever their names: errors and steps are found again in every process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SELLS = """
from ergon import flow, step, wait_signal
class NoMoney(Exception): pass
@step
async def charge() -> int:
    raise NoMoney("none")
@flow(name="{name}")
async def order() -> str:
    try:
        await charge()
    except NoMoney:
        await wait_signal("go", int)
        return "refunded"
    return "sold"
"""
SQUARES = """
from dataclasses import dataclass
from ergon import flow, step
@dataclass
class Number:
    n: int
@step(process=True)
def square(number: Number) -> Number:
    return Number(number.n * {factor})
@flow(name="{name}")
async def squares(n: int) -> int:
    return (await square(Number(n))).n
"""


def type_in(*arguments: str, seed: str = "1") -> subprocess.CompletedProcess[str]:
    """The real command, in a process that hashes texts in its own way."""
    return subprocess.run(
        [sys.executable, "-m", "ergon", *arguments],
        env={**os.environ, "PYTHONHASHSEED": seed},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture
def interrupted(command: Callable[..., Any], ergon: Callable[..., Any]) -> Callable[..., None]:
    """Run a worker until a flow of its own waits for its signal; then kill it and send the signal."""

    def run(flow: str, *targets: str) -> None:
        worker = command("worker", *targets, env={"PYTHONHASHSEED": "2"})
        subprocess.run([sys.executable, "-c", SCHEDULE, flow], check=True)
        wait_until(lambda: "waiting for signal" in ergon("why", flow).out)
        worker.kill()
        worker.wait()
        ergon("signal", flow, "go", "--value", "1")

    return run


SCHEDULE = """
import asyncio, sys
from ergon import Scheduler, SqliteExecutionLog
async def main():
    async with SqliteExecutionLog("ergon.db") as log:
        await Scheduler(log).schedule_named(sys.argv[1], {}, id=sys.argv[1])
asyncio.run(main())
"""


@pytest.mark.parametrize("file", ["my-flows.py", "v2.1.py", "queue.py"])
def test_a_recorded_error_is_of_its_class_again_after_a_restart_whatever_the_files_name(
    interrupted, here: Path, file: str
) -> None:
    (here / "code").mkdir()
    (here / "code" / file).write_text(SELLS.format(name="order"))
    interrupted("order", f"code/{file}")

    answer = type_in("run", f"code/{file}:order", "--id", "order", seed="3")

    assert (answer.returncode, answer.stdout) == (0, '"refunded"\n'), answer.stderr


def test_a_recorded_error_is_of_its_class_again_though_files_of_one_name_come_in_another_order(
    interrupted, ergon, command, here: Path
) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "flows.py").write_text(SELLS.format(name=name))
    interrupted("a", "a/flows.py", "b/flows.py")

    command("worker", "b/flows.py", "a/flows.py", env={"PYTHONHASHSEED": "3"})
    wait_until(lambda: "has ended" in ergon("why", "a").out)

    assert json.loads(ergon("show", "a", "--json").out)["output"] == "refunded"


@pytest.mark.parametrize(
    "before, after",
    [(["b/flows.py", "a/flows.py"], ["a/flows.py"]), (["a/flows.py"], ["b/flows.py", "a/flows.py"])],
)
def test_a_file_finds_the_errors_that_it_recorded_beside_another_of_its_name_or_alone(
    interrupted, ergon, command, *, here: Path, before: list[str], after: list[str]
) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
        (here / name / "flows.py").write_text(SELLS.format(name=name).replace("NoMoney", f"NoMoney_{name}"))
    interrupted("a", *before)

    command("worker", *after)
    wait_until(lambda: "has ended" in ergon("why", "a").out)

    assert json.loads(ergon("show", "a", "--json").out)["output"] == "refunded"


@pytest.mark.parametrize("file", ["p-steps.py", "v2.1.py"])
def test_a_step_in_another_process_is_found_whatever_its_files_name(here: Path, file: str) -> None:
    (here / file).write_text(SQUARES.format(name="squares", factor="number.n"))

    answer = type_in("run", f"{file}:squares", "--input", '{"n": 7}')

    assert (answer.returncode, answer.stdout) == (0, "49\n"), answer.stderr


def test_a_step_in_another_process_is_that_of_its_own_file_among_files_of_one_name(
    command, ergon, here: Path
) -> None:
    for name, factor in (("a", 2), ("b", 3)):
        (here / name).mkdir()
        (here / name / "flows.py").write_text(SQUARES.format(name=name, factor=factor))
    command("worker", "a/flows.py", "b/flows.py")
    for name in ("a", "b"):
        script = SCHEDULE.replace("{}", '{"n": 7}')
        subprocess.run([sys.executable, "-c", script, name], check=True)

    wait_until(lambda: all("has ended" in ergon("why", name).out for name in ("a", "b")))

    outputs = [json.loads(ergon("show", name, "--json").out)["output"] for name in ("a", "b")]
    assert outputs == [14, 21]
