"""Prove many programs, on several cores, and say what was covered."""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.replay_proof.check import check
from tests.replay_proof.exchange import record_to, replay_from
from tests.replay_proof.host import record
from tests.replay_proof.kept import faults
from tests.replay_proof.programs import make_program

CHUNK = 50


class Failure(NamedTuple):
    """A program whose replay differs."""

    seed: str
    why: str


class Result(NamedTuple):
    """What became of some programs."""

    programs: int
    rows: int
    counts: Counter[str]
    failures: list[Failure]

    def plus(self, other: Result) -> Result:
        return Result(
            self.programs + other.programs,
            self.rows + other.rows,
            self.counts + other.counts,
            self.failures + other.failures,
        )


def prove_one(seed: str) -> tuple[int, Counter[str]]:
    """Record the program of a seed and check all its replays. Raises `Difference`."""
    recording, counts, complaints = record(make_program(seed), seed)
    check(recording, seed)
    complaints += faults(recording)
    if complaints:
        raise AssertionError(f"live: {complaints}")
    return len(recording.rows), counts


def prove(seed: int, first: int, last: int) -> Result:
    """Prove the programs numbered from `first` up to `last`."""
    rows, counts, failures = 0, Counter[str](), []
    for number in range(first, last):
        name = f"{seed}.{number}"
        try:
            some, seen = prove_one(name)
        except Exception as error:
            failures.append(Failure(name, f"{type(error).__name__}: {error}"))
            continue
        rows += some
        counts += seen
    return Result(last - first, rows, counts, failures)


def prove_chunk(chunk: tuple[int, int, int]) -> Result:
    return prove(*chunk)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.replay_proof", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, help="how many programs (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other programs (default 1)")
    parser.add_argument(
        "--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (default: cores)"
    )
    parser.add_argument("--only", metavar="SEED.NUMBER", help="prove this one program, and show it")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="record the programs instead, for --replay"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="replay what another Python has recorded")
    options = parser.parse_args(arguments)
    if options.record is not None:
        seeds = [f"{options.seed}.{number}" for number in range(options.programs)]
        recorded, left_out = record_to(options.record, seeds)
        print(f"{recorded} programs recorded on Python {platform.python_version()}, {left_out} left out")
        return 0
    if options.replay is not None:
        return replay_aloud(options.replay)
    if options.only is not None:
        return prove_aloud(options.only)
    chunks = [
        (options.seed, start, min(start + CHUNK, options.programs))
        for start in range(0, options.programs, CHUNK)
    ]
    started = time.perf_counter()
    total = Result(0, 0, Counter(), [])
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for result in pool.imap_unordered(prove_chunk, chunks):
            total = total.plus(result)
            if total.programs % 1000 == 0:
                print(f"  {total.programs} programs, {len(total.failures)} differences", flush=True)
    seconds = time.perf_counter() - started
    print(
        f"replay proof on Python {platform.python_version()}: {total.programs} programs, {total.rows} events, "
        f"every prefix replayed, {len(total.failures)} differences, {seconds:.1f} s"
    )
    for failure in total.failures[:5]:
        print(f"\nDIFFERENCE in program {failure.seed}: {failure.why}")
        print(f"  repeat: python -m tests.replay_proof --only {failure.seed}")
    return 1 if total.failures else 0


def replay_aloud(path: Path) -> int:
    """Replay a file of recordings and say what differs."""
    different = replay_from(path)
    print(f"{path.name} on Python {platform.python_version()}: {len(different)} differences")
    for seed, why in different[:50]:
        print(f"\nDIFFERENCE in program {seed}: {why}")
    return 1 if different else 0


def prove_aloud(seed: str) -> int:
    """Show a program and its history, then prove it."""
    program = make_program(seed)
    show(program, 0)
    recording, _, complaints = record(program, seed)
    for event in recording.rows:
        print(event.seq, event.kind, event.op, event.name, event.payload, event.at - 1_700_000_000)
    print("batches", recording.batches)
    check(recording, seed)
    complaints += faults(recording)
    for complaint in complaints or ["no differences"]:
        print(complaint)
    return 1 if complaints else 0


def show(node: object, depth: int) -> None:
    assert isinstance(node, dict)
    inner = [*node.get("body", ()), *(node[key] for key in ("cleanup", "instead") if key in node)]
    rest = {
        key: value for key, value in node.items() if key not in ("body", "cleanup", "instead", "kind", "id")
    }
    print("  " * depth + f"{node['id']} {node['kind']} {rest or ''}")
    for child in inner:
        show(child, depth + 1)
