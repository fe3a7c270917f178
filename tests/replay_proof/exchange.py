"""Recordings as files, for another process, another hash seed or another version of Python to replay."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ergon.core.history import Event
from tests.replay_proof.check import check
from tests.replay_proof.host import Recording, State, record
from tests.replay_proof.programs import make_program


def record_to(path: Path, seeds: Iterable[str]) -> int:
    """Record the programs of some seeds; says how many."""
    count = 0
    # No name and no time in the header: the same recordings give the same file.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for seed in seeds:
            recording, _, complaints = record(make_program(seed), seed)
            assert not complaints, f"{seed}: {complaints}"
            file.write(json.dumps([seed, to_json(recording)], separators=(",", ":")).encode() + b"\n")
            count += 1
    return count


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
    with gzip.open(path, "rt", encoding="utf-8") as file:
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
