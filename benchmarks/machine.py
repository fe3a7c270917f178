"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from pathlib import Path

from benchmarks.figures import percentile


def facts(disk: Path) -> dict[str, str]:
    """Describe this machine and the disk that `disk` is on."""
    appended, overwritten = fdatasync_ms(disk, overwrite=False), fdatasync_ms(disk, overwrite=True)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "load before": load,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "filesystem": filesystem(disk),
        "fdatasync": f"append {_spread(appended)}, overwrite {_spread(overwritten)}",
    }


def filesystem(path: Path) -> str:
    """The type of the filesystem that holds `path`, where the system tells."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    holding = [(mount, kind) for mount, kind in mounts if path.resolve().is_relative_to(mount)]
    return max(holding, key=lambda pair: len(pair[0]), default=("", "unknown"))[1]


def fdatasync_ms(disk: Path, *, overwrite: bool, times: int = 200) -> list[float]:
    """How long 4 KiB take to reach the disk."""
    sync = getattr(os, "fdatasync", os.fsync)
    path = disk / "fdatasync.probe"
    page, taken = b"x" * 4096, []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            if overwrite:
                file.seek(0)
            start = time.perf_counter()
            file.write(page)
            sync(file.fileno())
            taken.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return taken


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ms (p99 {percentile(values, 99):.2f})"
