"""Every example runs as it is, in a process of its own, and prints what it says it does."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PRINTED = {
    "quick_start.py": [
        "[ORD-001] Validating...",
        "[ORD-001] Processing $100.0...",
        "Result: payment-ORD-001",
    ],
    "distributed_timers.py": ["[ORD-000] Waiting for fraud check...", "[ORD-002] Fraud check complete"],
    "order.py": ["charging 99.50 with the key order-1/", "decision=<Decision.REJECT: 'reject'>"],
    "order.py approve": ["payment-order-2", "decision=<Decision.ACCEPT: 'accept'>"],
    "human_approval.py": [
        "to Bob: a reminder: the expense still waits for you",
        "expense-1: approved by Ann",
        "expense-2: nobody answered",
    ],
    "child_flows.py": ["{'Oslo': 5.0, 'Quito': 6.0, 'Lisbon': 7.0}", "forecast-Oslo forecast completed"],
    "dag.py": [
        "5 steps in 3 levels; starts with load_orders, load_discount; ends with mark_read, invoice; ",
        "2  invoice <- total, load_discount",
        "('load_orders', 'load_discount') can start at once",
        'digraph "report" {',
        "orders of Ada are read",
        "Completed(result='Ada pays 38.25')",
    ],
    "retries.py": ["attempt 3 with key buy-1/", "['paid 12.5 at attempt 2', 'gave up on stolen']"],
    "kinds_of_steps.py": ["2 words, on the main thread: False; 4999 in another process: True"],
    "stable_values.py": ["drew a ticket", "drawn 2 times, different tickets: 1"],
    "verified_payment.py": [
        "the bank knows of settle-ann/0:1: True",
        "paid 40.0 to Ann",
        "the bank booked 1 payment",
    ],
    "detached_children.py": [
        "['page 1', 'page 2']",
        "the sale has ended, the audit is under way",
        "o1: all is well",
    ],
    "dag_builder.py": ["both cities were asked", "the mean is 7.5"],
    "signal_source.py": ["visa-1.verdict.json: kept", "Ann: granted"],
    "operating.py": [
        "flow 'import-1' is scheduled to start at",
        "flow 'import-1' was paused: the books are being closed",
        "rows of crm, approved",
        "flow 'import-2' was cancelled: its deadline passed",
        "flow 'import-3' was cancelled: started by mistake",
    ],
    "changing_code.py": [
        "['shelf A3', 'old shipped']",
        "['in stock', 'shelf A3', 'new shipped']",
        "no live worker runs version '1.0'",
    ],
    "at_most_once.py": ["the first process ended with -9", "unknown whether the letter to Ann left"],
}


def test_every_example_is_run_by_a_test_and_named_in_the_list() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}

    assert {name.split()[0] for name in PRINTED} == files
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in listed for name in files)


def test_no_two_programs_share_a_log() -> None:
    """Else the second one in a folder meets the flows of the first, with its own ids and other inputs."""
    programs = [*EXAMPLES.glob("*.py"), EXAMPLES.parent / "README.md"]
    logs = [
        log
        for path in programs
        for log in set(re.findall(r'"([\w.]+\.db)"', path.read_text(encoding="utf-8")))
    ]

    assert sorted(logs) == sorted(set(logs))


DIES = {"verified_payment.py", "at_most_once.py"}
"""Whose first process dies in the middle; the worker of the second says so."""
LOST = r"worker worker \(pid \d+ on \S+\) is lost: it died, was frozen or cut off\. Its flows go on with [^\n]*\n"


def test_every_example_can_be_imported_without_running() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_shows(name: str, tmp_path: Path) -> None:
    began = time.monotonic()

    done = run(name, tmp_path)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(LOST if name in DIES else "", done.stderr), done.stderr
    for text in PRINTED[name]:
        assert text in done.stdout
    if name != "distributed_timers.py":  # it sleeps for five seconds itself
        assert time.monotonic() - began < 20  # far less on an idle machine


def test_an_example_started_twice_does_its_work_once(tmp_path: Path) -> None:
    first, second = run("order.py", tmp_path), run("order.py", tmp_path)

    assert first.stdout.count("charging") == 1
    assert "charging" not in second.stdout
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["changing_code.py", "operating.py"])
def test_an_example_that_plays_with_time_can_be_started_again(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = run(name, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def run(name: str, place: Path) -> subprocess.CompletedProcess[str]:
    file, *arguments = name.split()
    return subprocess.run(
        [sys.executable, str(EXAMPLES / file), *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
