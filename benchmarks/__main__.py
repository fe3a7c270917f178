"""`python -m benchmarks [names] [--rounds N] [--quick] [--json FILE]`: measure, side by side, in one run."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    w1_sequential,
    w2_concurrent,
    w3_fan_out,
    w4_replay,
    w5_queue,
    w6_waiting,
    w7_start,
    w8_crash,
    w9_processes,
)
from benchmarks.machine import facts
from benchmarks.measure import ROOT, Means, Measured, freeze, measure
from benchmarks.model import POSTGRES, REDIS, RIVALS, SQLITE, Workload
from benchmarks.on_servers import WORKLOADS as ON_SERVERS
from benchmarks.report import MET, MISSED, as_json, show
from benchmarks.servers import serving
from benchmarks.venvs import prepare

MODULES = (
    w1_sequential,
    w2_concurrent,
    w3_fan_out,
    w4_replay,
    w5_queue,
    w6_waiting,
    w7_start,
    w8_crash,
    w9_processes,
)
WORKLOADS = {one.name: one for one in (*(module.WORKLOAD for module in MODULES), *ON_SERVERS)}
STORES = (SQLITE, POSTGRES, REDIS)
HOME = ROOT / ".bench"
ROUNDS_QUICK = 2


def main() -> int:
    """Measure what was asked for and print the tables."""
    arguments = parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 160)
    workloads = [one for one in WORKLOADS.values() if chosen(one, arguments.names, arguments.stores)]
    HOME.mkdir(exist_ok=True)
    disk = Path(tempfile.mkdtemp(prefix="run-", dir=HOME))
    started = time.monotonic()
    try:
        freeze(disk)
        known = facts(disk)
        for name, fact in known.items():
            console.print(f"{name:<12} {fact}", highlight=False)
        pythons = rivals(console, workloads, wanted=arguments.rivals, quick=arguments.quick)
        results: list[Measured] = []
        with serving() as servers:
            for workload in workloads:
                measured = run(console, workload, arguments, Means(disk, servers, pythons))
                show(console, measured)
                results.append(measured)
                if arguments.json is not None:
                    parts = [as_json(one) for one in results]
                    document = {"machine": known, "quick": arguments.quick, "workloads": parts}
                    arguments.json.write_text(json.dumps(document, indent=2))
    finally:
        shutil.rmtree(disk, ignore_errors=True)
    summary(console, results, time.monotonic() - started)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Ergon, floors and rivals."
    )
    parser.add_argument("names", nargs="*", type=str.upper, metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument(
        "--stores",
        type=lambda text: tuple(text.lower().split(",")),
        default=STORES,
        metavar="STORES",
        help=f"only workloads on these, such as `postgres` or `sqlite,redis` (default: {','.join(STORES)})",
    )
    parser.add_argument("--rounds", type=int, help="rounds of each side (default: each workload's own)")
    parser.add_argument("--quick", action="store_true", help="small sizes, two rounds: about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to a file")
    parser.add_argument("--no-rivals", dest="rivals", action="store_false", help="leave the rivals out")
    parsed = parser.parse_args(arguments)
    if unknown := [name for name in parsed.names if name not in WORKLOADS]:
        parser.error(f"there is no workload {unknown[0]}; there are {', '.join(WORKLOADS)}")
    if unknown := [store for store in parsed.stores if store not in STORES]:
        parser.error(f"there is no store {unknown[0]}; there are {', '.join(STORES)}")
    return parsed


def chosen(workload: Workload, names: list[str], stores: tuple[str, ...]) -> bool:
    """Whether it was asked for: `W2` means W2 on every store."""
    return workload.store in stores and (
        not names or workload.name in names or workload.name.partition("-")[0] in names
    )


def rivals(console: Console, workloads: list[Workload], *, wanted: bool, quick: bool) -> dict[str, Path]:
    """Make the environments of the rivals that take part; say which version each is, or why it is missing."""
    pythons = {}
    for rival in RIVALS:
        if not wanted or not any(rival in w.rivals and (w.rivals_quick or not quick) for w in workloads):
            continue
        with console.status(f"{rival}: making its environment"):
            python, told = prepare(rival, HOME)
        console.print(f"{rival:<12} {told}", highlight=False)
        if python is not None:
            pythons[rival] = python
    return pythons


def run(
    console: Console,
    workload: Workload,
    arguments: argparse.Namespace,
    means: Means,
) -> Measured:
    """Measure one workload, with progress."""
    quick: bool = arguments.quick
    rounds = max(arguments.rounds or (ROUNDS_QUICK if quick else workload.rounds), 1)
    taking_part = means.pythons if workload.rivals_quick or not quick else {}
    sides = len(workload.sides) + len(taking_part.keys() & workload.rivals.keys())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(workload.name, total=rounds * sides)

        def tell(side: str) -> None:
            progress.update(task, description=f"{workload.name} {side:<8}", advance=1)

        with_these = replace(means, pythons=taking_part)
        return measure(workload, rounds=rounds, quick=quick, means=with_these, progress=tell)


def summary(console: Console, results: list[Measured], seconds: float) -> None:
    """Count the bars, and name those that are missed."""
    bars = [(one.workload.name, bar) for one in results for bar in as_json(one)["bars"]]
    met = sum(bar["met"] == MET for _, bar in bars)
    console.print(f"\n{met} of {len(bars)} bars met, in {seconds:.0f} s", style="bold", highlight=False)
    for name, bar in bars:
        if bar["met"] == MISSED:
            console.print(f"  missed: {name} {bar['row']}: {bar['bar']}", style="red", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
