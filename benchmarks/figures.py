"""Many figures made one: over rounds, and over samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from benchmarks.model import Figures


def medians_of(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure over the rounds."""
    names = {name: None for figures in rounds for name in figures}
    return {name: statistics.median(figures[name] for figures in rounds if name in figures) for name in names}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
