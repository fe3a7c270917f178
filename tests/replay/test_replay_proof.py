"""Random programs: whatever is recorded replays the same from every prefix, here, elsewhere and on other Pythons.

`make replay-proof` runs ten thousand; these are a thousand.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ergon.core.history import Event, EventKind
from ergon.replay import ordering
from ergon.replay.attempts import EarlierAttempts, EarlierCall
from ergon.replay.loop import FlowLoop, FlowTimer
from tests.replay_proof import check
from tests.replay_proof.exchange import read, record_to, replay_from
from tests.replay_proof.host import Driver, Recording, record
from tests.replay_proof.kept import faults
from tests.replay_proof.programs import KINDS, make_program
from tests.replay_proof.proof import prove

RECORDED = Path(__file__).parent / "recorded.jsonl.xz"
"""Made by `python -m tests.replay_proof --record tests/replay/recorded.jsonl.xz --programs 220 --seed 3`."""

PROGRAMS = 1000
CHUNKS = 4
WAITS = (  # noqa: SIM905  # reads better as words
    "step sleep named_timer signal child started_child get put wait_event wait_condition join lock semaphore gather "
    "group wait as_completed wait_for timeout shield race generator dag"
).split()
EVENTS = [
    value
    for name, value in vars(EventKind).items()
    if name.isupper()
    and value not in (EventKind.FLOW_RETRIED, EventKind.RETRY_NOW, EventKind.SIGNAL_RETURNED)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_programs_replay_the_same_from_every_prefix_of_their_history(chunk: int) -> None:
    size = PROGRAMS // CHUNKS
    result = prove(1, chunk * size, (chunk + 1) * size)

    repeat = "repeat: python -m tests.replay_proof --only"
    assert not result.failures, "\n".join(
        f"{failure.why}\n  {repeat} {failure.seed}" for failure in result.failures
    )
    check_that_much_was_covered(result.counts)


def check_that_much_was_covered(counts: Counter[str]) -> None:
    """A proof over programs that do nothing would pass as well."""
    rare = {kind: counts[f"ran {kind}"] for kind in KINDS if counts[f"ran {kind}"] < 20}
    assert not rare, f"kinds that hardly ran: {rare}"
    assert not [event for event in EVENTS if not counts[f"event {event}"]]
    assert not [wait for wait in WAITS if not counts[f"cancelled {wait}"]]
    assert counts["left behind operation"] >= 20
    assert counts["left behind timer"] >= 20
    assert counts["left behind signal"] >= 5
    assert counts["reused"] >= 5, "no flow was tried again after its first steps"
    assert counts["reused elsewhere"] >= 1, "no later attempt had other code"
    assert counts["interrupted"] >= 1
    assert counts["slept before"] >= 1
    assert counts["patched inside a batch"] >= 1


def test_the_proof_finds_sets_walked_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    for number in ("next_task_number", "next_future_number"):
        monkeypatch.setattr(FlowLoop, number, lambda _loop: chance.getrandbits(40))

    assert prove(1, 0, 60).failures


def test_the_proof_finds_coroutines_taken_from_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, original = random.Random(7), ordering._tasks_of

    def shuffled(loop, awaitables):
        given = list(awaitables)
        return original(loop, chance.sample(given, len(given)))

    monkeypatch.setattr(ordering, "_tasks_of", shuffled)

    assert prove(1, 0, 60).failures


def test_the_proof_finds_events_that_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    class Swapped(Driver):
        def __init__(self, recording: Recording, rows: Sequence[Event]) -> None:
            first, second, third, *rest = [*rows, None, None, None]
            super().__init__(recording, [row for row in (first, third, second, *rest) if row is not None])

    monkeypatch.setattr(check, "Driver", Swapped)

    assert prove(1, 0, 60).failures


def planted_in_attempts(rule: str) -> Callable[..., Any]:
    """A wrong rule for what a later attempt takes from those before it."""

    def slept_by_place(earlier: EarlierAttempts, timer: FlowTimer) -> bool:
        return timer.op in earlier._sleeps

    def slept_at_any_time(earlier: EarlierAttempts, timer: FlowTimer) -> bool:
        event = earlier._sleeps.get(timer.op)
        return event is not None and event.digest == timer.digest

    rules: dict[str, Callable[..., Any]] = {
        "is_call_of": lambda call, op: call.kind == op.kind,
        "_moved": lambda earlier, op, displaced: None,
        "_new_id": lambda earlier, op: op.id,
        "slept by place": slept_by_place,
        "slept at any time": slept_at_any_time,
    }
    return rules[rule]


@pytest.mark.parametrize("rule", ["is_call_of", "_moved", "_new_id", "slept by place", "slept at any time"])
def test_the_proof_finds_a_later_attempt_that_takes_what_is_not_its_own(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = EarlierCall if rule == "is_call_of" else EarlierAttempts
    monkeypatch.setattr(where, rule.split(maxsplit=1)[0], planted_in_attempts(rule))

    assert any(is_wrong(f"1.{number}") for number in range(1000))


def is_wrong(seed: str) -> bool:
    """Whether the first run of a program shows that something is, without its replays."""
    recording, _, complaints = record(make_program(seed), seed)
    return bool(complaints) or any(True for _ in faults(recording))


@pytest.mark.timeout(300)
def test_histories_recorded_on_any_python_replay_on_this_one() -> None:
    """The file is the same whichever version writes it: see the next test."""
    different = replay_from(RECORDED)

    assert different == []
    assert sum(1 for _ in read(RECORDED)) >= 200


def test_this_python_records_the_very_histories_that_others_do(tmp_path: Path) -> None:
    recordings = dict(read(RECORDED))
    mine = tmp_path / "mine.xz"

    recorded, left_out = record_to(mine, list(recordings)[:100])

    assert (recorded, left_out) == (100, 0)
    for seed, recording in read(mine):
        assert recording.traces == recordings[seed].traces, (
            f"program {seed} sees something else on this Python"
        )
        assert without_lines(recording.rows) == without_lines(recordings[seed].rows), (
            f"program {seed} has another history on this Python"
        )


def without_lines(rows: list[Event]) -> list[Event]:
    """The rows with the file that asked, but not the line: code that moves within its file changes no history."""
    return [row._replace(source=row.source.partition(":")[0]) for row in rows]


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_histories_replay_in_another_process_with_another_hash_seed(hash_seed: str, tmp_path: Path) -> None:
    path = tmp_path / "recorded.xz"
    record_to(path, [f"8.{number}" for number in range(60)])

    run = subprocess.run(
        [sys.executable, "-m", "tests.replay_proof", "--replay", str(path)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 differences" in run.stdout
