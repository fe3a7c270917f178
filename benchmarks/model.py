"""The words of a benchmark: a workload has sides, which give figures, which fill rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Params = dict[str, Any]
"""Sizes, and where to work: `folder` is an empty folder on the disk that is measured; `url` an empty store on a
server."""
Figures = dict[str, float]
"""What one side of a workload gives, by name. Times are in milliseconds, memory in KiB, rates per second."""
Medians = Mapping[str, Figures]
"""The medians over the rounds, by side."""

ERGON, FLOOR, SAME_ROWS = "ergon", "floor", "same rows"
DBOS, PYERGON, RESTATE = "dbos", "pyergon", "restate"
RIVALS = (DBOS, PYERGON, RESTATE)
SQLITE, POSTGRES, REDIS = "sqlite", "postgres", "redis"


@dataclass(frozen=True, slots=True)
class Bar:
    """What the design demands of a row."""

    text: str
    met: Callable[[Medians], bool]
    """May raise KeyError when a side it compares with is missing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: the same figure of every side that gives it."""

    label: str
    figure: str
    unit: str
    bar: Bar | None = None
    more_is_better: bool = False
    others: Mapping[str, str] = field(default_factory=dict)
    """Sides that call the figure otherwise; empty text: not comparable."""

    def of(self, side: str, medians: Medians) -> float | None:
        """This row's figure of one side, or None."""
        return medians.get(side, {}).get(self.others.get(side, self.figure))


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload, in all its sides."""

    name: str
    title: str
    sides: Mapping[str, Callable[[Params], Figures]]
    """Those that run on this Python; each is called in a process of its own, by module and name."""
    rows: tuple[Row, ...]
    full: Params
    quick: Params
    rivals: Mapping[str, Params] = field(default_factory=dict)
    """Rivals that take part, with the sizes that differ for them."""
    rivals_quick: bool = False
    """Whether rivals take part in the quick mode too; they are slow."""
    rounds: int = 5
    rounds_of_rivals: int = 3
    notes: tuple[str, ...] = ()
    store: str = SQLITE
    """What all sides keep their rows in. For a server, each run of a side gets an empty one, as `url`."""


def at_most(figure: str, limit: float, text: str) -> Bar:
    """Ergon's own figure has an upper limit."""
    return Bar(text, lambda medians: medians[ERGON][figure] <= limit)


def at_least(figure: str, limit: float, text: str) -> Bar:
    """Ergon's own figure has a lower limit."""
    return Bar(text, lambda medians: medians[ERGON][figure] >= limit)
