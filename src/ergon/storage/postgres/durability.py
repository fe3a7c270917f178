"""What the live settings survive, read back from the server, never from what was asked for."""

from __future__ import annotations

from typing import Final

from ergon.core.commit import Durability
from ergon.errors import LogRefused
from ergon.storage.postgres.driver import Connection

_READ: Final = """
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication)
"""
_WAITS: Final = frozenset({"on", "remote_apply", "remote_write"})
_NO_STANDBY: Final = "no synchronous standby: what the server's disk holds is lost with its machine"


async def measure(connection: Connection) -> Durability:
    """Read the settings of a session and grade them."""
    row = await connection.fetchrow(_READ)
    assert row is not None, "the statement returns one row"
    names = ("server_version", "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")
    return grade({**dict(zip(names, row[:-1], strict=True)), "standbys_connected": str(row[-1])})


def grade(settings: dict[str, str]) -> Durability:
    """Say what these settings survive."""
    fsync, pages = settings["fsync"], settings["full_page_writes"]
    commit, names = settings["synchronous_commit"], settings["synchronous_standby_names"]
    standbys = int(settings["standbys_connected"])
    level, limits = "D3", list[str]()
    if fsync != "on":
        level = "D2"
        limits.append(
            "fsync=off: a power loss or a crash of the system can undo commits or damage the whole database"
        )
    if pages != "on":
        level = "D2"
        limits.append("full_page_writes=off: a power loss can damage pages that were being written")
    if commit == "off":
        level = "D1"
        limits.append("synchronous_commit=off: a crash of the server undoes the commits of the last moments")
    if level == "D3" and names and commit in ("on", "remote_apply"):
        return Durability(level="D4", settings=settings, notes=_standby_notes(standbys))
    notes = list(limits)
    if names and commit in ("on", "remote_apply"):
        limits.append("standbys confirm commits, but the server itself may lose them")
    elif names and commit in _WAITS:
        limits.append("synchronous_commit=remote_write: a standby has commits in memory, not on its disk")
    elif standbys:
        limits.append(
            f"synchronous_standby_names is empty: {standbys} standbys replicate behind time, and a failover to one can "
            "undo the last commits"
        )
        notes.append(limits[-1])
    else:
        limits.append(_NO_STANDBY)
    return Durability(level=level, settings=settings, limits=tuple(limits), notes=tuple(notes))


def check(durability: Durability, require: str | None, where: str) -> None:
    """Raise `LogRefused` when the level is below the one required, or when nobody has agreed to `fsync=off`."""
    if require is None and durability.settings["fsync"] != "on":
        raise LogRefused(
            f"log {where}: the server runs with fsync=off, so a power loss can destroy all of it; set fsync=on, or say "
            "that this is meant with require='D1'"
        )
    if require is not None and durability.level < require:
        raise LogRefused(
            f"log {where} has durability {durability.level}, {require} is required: {'; '.join(durability.limits)}. "
            f"Lift that, or require {durability.level} at most"
        )


def _standby_notes(standbys: int) -> tuple[str, ...]:
    if standbys:
        return ()
    return ("synchronous_standby_names is set and no standby is connected: commits wait until one is",)
