"""Recordings as files, for another process, another hash seed or another version of Python to replay.

Left out are the programs that meet the one difference between versions that stays (`ergon.replay.backports`):
`Task.uncancel` taking back a cancellation that has not reached its task.
"""

from __future__ import annotations

import asyncio
import json
import lzma
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ergon.core.history import Event
from ergon.replay.tasks import FlowTask
from tests.replay_proof.check import check
from tests.replay_proof.host import Recording, State, record
from tests.replay_proof.programs import make_program


def record_to(path: Path, seeds: Iterable[str]) -> tuple[int, int]:
    """Record the programs of some seeds; says how many, and how many were left out."""
    recorded = left_out = 0
    with lzma.open(path, "wb", preset=9 | lzma.PRESET_EXTREME) as file:
        for seed in seeds:
            with watch_uncancel() as taken_back:
                recording, _, complaints = record(make_program(seed), seed)
            assert not complaints, f"{seed}: {complaints}"
            if taken_back:
                left_out += 1
                continue
            file.write(json.dumps([seed, to_json(recording)], separators=(",", ":")).encode() + b"\n")
            recorded += 1
    return recorded, left_out


@contextmanager
def watch_uncancel() -> Iterator[list[str]]:
    """Collect the tasks that took back a cancellation they had not seen."""
    taken_back: list[str] = []

    def uncancel(task: FlowTask[Any]) -> int:
        unseen = task._must_cancel  # type: ignore[attr-defined]
        left = asyncio.Task.uncancel(task)
        if unseen and not left:
            taken_back.append(task.get_name())
        return left

    FlowTask.uncancel = uncancel  # type: ignore[method-assign, assignment]
    try:
        yield taken_back
    finally:
        del FlowTask.uncancel


def replay_from(path: Path) -> list[tuple[str, str]]:
    """Check the recordings in a file; returns (seed, difference) for each that differs."""
    different = []
    for seed, recording in read(path):
        try:
            check(recording, seed)
        except Exception as error:
            different.append((seed, f"{type(error).__name__}: {error}"))
    return different


def read(path: Path) -> Iterator[tuple[str, Recording]]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            seed, data = json.loads(line)
            yield seed, from_json(data)


def to_json(recording: Recording) -> dict[str, Any]:
    return {
        "program": recording.program,
        "flow_id": recording.flow_id,
        "rows": recording.rows,
        "batches": recording.batches,
        "states": {number: astuple(state) for number, state in recording.states.items()},
        "traces": recording.traces,
    }


def from_json(data: dict[str, Any]) -> Recording:
    return Recording(
        program=data["program"],
        flow_id=data["flow_id"],
        rows=[Event(*row) for row in data["rows"]],
        batches=data["batches"],
        states={int(number): _state(state) for number, state in data["states"].items()},
        traces={int(start): [_entry(*entry) for entry in trace] for start, trace in data["traces"].items()},
    )


def _state(data: list[Any]) -> State:
    pending, timers, wanted, kept, seen, outcome = data
    return State(_tuples(pending), _tuples(timers), _tuples(wanted), _tuples(kept), seen, outcome)


def _tuples(items: list[list[Any]]) -> tuple[Any, ...]:
    return tuple(tuple(item) for item in items)


def _entry(node: int, mark: str, value: str) -> tuple[int, str, str]:
    return node, mark, value
