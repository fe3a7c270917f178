"""What the live settings survive, read back from SQLite and the system, never from what was asked for."""

from __future__ import annotations

import sqlite3
import sys
from typing import Final

from ergon.core.commit import Durability
from ergon.errors import LogRefused
from ergon.storage.sqlite.connection import LEVELS, Settings
from ergon.storage.sqlite.place import filesystem_of, is_network, place_of
from ergon.storage.sqlite.upkeep import WAL_PAGES_MAX

_NAMES: Final = {number: name for name, number in LEVELS.items()}
_ONE_MACHINE: Final = "a SQLite file is on one machine and lost with it, whatever its settings"
_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))


def is_walreset_affected(version: tuple[int, int, int]) -> bool:
    """Tell whether this SQLite can lose commits when a checkpoint without the write lock meets a WAL restart."""
    if version < (3, 7, 0) or version >= (3, 51, 3):
        return version == (3, 52, 0)
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED)


def measure(connection: sqlite3.Connection, settings: Settings, filesystem: str | None = None) -> Durability:
    """Read the settings of the writing connection back and grade them. `filesystem`: where that is known already."""
    journal = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    synchronous = _NAMES.get(connection.execute("PRAGMA synchronous").fetchone()[0], "unknown")
    found = {
        "sqlite_version": sqlite3.sqlite_version,
        "journal_mode": journal,
        "synchronous": synchronous,
        "wal_autocheckpoint": str(connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]),
    }
    if settings.path is None:
        limit = "a log in memory ends with its process"
        return Durability(level="D0", settings=found, limits=(limit,), notes=(limit,))
    if filesystem is None:
        filesystem = filesystem_of(place_of(settings.path).folder)
    affected = is_walreset_affected(sqlite3.sqlite_version_info[:3])
    found["filesystem"] = filesystem or "unknown"
    found["walreset_bug"] = (
        f"{'avoided' if affected else 'absent'}; checkpoints only by the writer, only FULL (at about "
        f"{WAL_PAGES_MAX} pages) and TRUNCATE (idle, closing), never automatic"
    )
    if sys.platform == "darwin":
        found["fullfsync"] = str(connection.execute("PRAGMA fullfsync").fetchone()[0])
    limits = []
    level = "D3"
    if synchronous not in ("FULL", "EXTRA") or journal not in ("wal", "delete"):
        level = "D1"
        limits.append(
            f"synchronous={synchronous}: commits survive the death of every process, but a power loss or a crash of "
            "the system can undo the last ones" + (" or damage the file" if synchronous == "OFF" else "")
        )
    if sys.platform == "darwin" and found["fullfsync"] != "1":
        level = "D1"
        limits.append("fullfsync is off: on macOS a power loss can undo what the drive had only cached")
    if filesystem in ("tmpfs", "ramfs"):
        level = "D1"
        limits.append(f"the file is on {filesystem}: it ends with the machine's uptime")
    if is_network(filesystem):
        level = "D1"
        limits.append(
            f"the file is on a network file system ({filesystem}); only one machine may ever open it"
        )
    notes = list(limits)
    if affected:
        notes.append(
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug; Ergon's checkpoints avoid it, another program's "
            "may not: do not checkpoint this file with other tools while workers run"
        )
    return Durability(level=level, settings=found, limits=(*limits, _ONE_MACHINE), notes=tuple(notes))


def check_required(durability: Durability, require: str | None, where: str) -> None:
    """Raise `LogRefused` when the level is below the one required."""
    if require is not None and durability.level < require:
        limits = [limit for limit in durability.limits if limit != _ONE_MACHINE or require == "D4"]
        raise LogRefused(
            f"log {where} has durability {durability.level}, {require} is required: {'; '.join(limits)}. "
            f"Lift that, or require {durability.level} at most"
        )
