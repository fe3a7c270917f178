"""Turn medians into tables: one a workload, with the bar and whether it is met."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measured
from benchmarks.model import ERGON, FLOOR, RIVALS, SAME_ROWS, Bar, Row

MET, MISSED, UNKNOWN = "yes", "NO", "not measured"
SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


def verdict(bar: Bar, medians: dict[str, dict[str, float]]) -> str:
    """Say whether the bar is met; unknown when a side is missing."""
    try:
        return MET if bar.met(medians) else MISSED
    except KeyError:
        return UNKNOWN


def table(measured: Measured) -> Table:
    """The table of one workload."""
    workload, medians = measured.workload, measured.medians
    sides = [side for side in (ERGON, FLOOR, SAME_ROWS, *RIVALS) if side in measured.params]
    shown = Table(
        title=f"{workload.name}  {workload.title}",
        title_justify="left",
        title_style="bold",
        expand=False,
        caption=f"under a figure: how much better {ERGON}'s is",
        caption_justify="left",
    )
    shown.add_column("what")
    for side in sides:
        shown.add_column(side + _weaker(medians.get(side, {})), justify="right")
    shown.add_column("bar")
    shown.add_column("met")
    for row in workload.rows:
        cells = [cell(row, side, medians) for side in sides]
        met = verdict(row.bar, medians) if row.bar else ""
        style = {MET: "green", MISSED: "bold red"}.get(met, "")
        shown.add_row(
            row.label, *cells, row.bar.text if row.bar else "", f"[{style}]{met}[/]" if style else met
        )
    return shown


def cell(row: Row, side: str, medians: dict[str, dict[str, float]]) -> str:
    """A side's figure; beside another's, how much better Ergon's is."""
    value = row.of(side, medians)
    better = ratio(row.of(ERGON, medians), value, row) if side != ERGON else ""
    return figure(value, row.unit) + (f"\n[dim]{better}[/]" if better else "")


def figure(value: float | None, unit: str) -> str:
    """Three significant digits and the unit."""
    if value is None:
        return "-"
    digits = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def ratio(own: float | None, other: float | None, row: Row) -> str:
    """How much better Ergon is (over 1), or worse."""
    if own is None or other is None or own <= 0 or other <= 0 or not row.unit:
        return ""
    better = own / other if row.more_is_better else other / own
    return f"{better:,.0f} x" if better >= 100 else f"{better:.2g} x"


def settings(figures: dict[str, float]) -> str:
    """The durability that a rival really ran with."""
    if "pragma_synchronous" not in figures:
        return ""
    journal = "WAL" if figures.get("pragma_wal") else "rollback journal"
    return f"synchronous={SYNCHRONOUS.get(int(figures['pragma_synchronous']), '?')}, {journal}"


def _weaker(figures: dict[str, float]) -> str:
    return " (WEAKER: NORMAL)" if figures.get("pragma_synchronous", 2) < 2 else ""


def show(console: Console, measured: Measured) -> None:
    """Print a workload's table and what there is to know about it."""
    console.print()
    console.print(table(measured))
    for note in measured.workload.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    for side, figures in measured.medians.items():
        used = settings(figures)
        sizes = {name: value for name, value in measured.params[side].items() if side in RIVALS}
        if used:
            console.print(f"  {side}: {used}; sizes {sizes}", style="dim", highlight=False)
    for side, failure in measured.failures.items():
        console.print(f"  {side} failed: {failure}", style="bold red", highlight=False, markup=False)


def as_json(measured: Measured) -> dict[str, Any]:
    """Everything measured about one workload."""
    medians = measured.medians
    return {
        "workload": measured.workload.name,
        "title": measured.workload.title,
        "sizes": measured.params,
        "medians": medians,
        "rounds": measured.rounds,
        "failures": measured.failures,
        "bars": [
            {"row": row.label, "bar": row.bar.text, "met": verdict(row.bar, medians)}
            for row in measured.workload.rows
            if row.bar is not None
        ],
    }
