"""What the server's live settings survive, read back from it, never from what was asked for.

Everything but one setting is in `INFO`, which every server allows. How often the append-only file is flushed is told by
`CONFIG GET` alone; where that is forbidden, the worst is assumed.
"""

from __future__ import annotations

from typing import Any, Final

from ergon.core.commit import Durability
from ergon.errors import LogRefused
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings

_VERSION_MIN: Final = 6
_FLUSHED_VERSION_MIN: Final = (7, 2)
"""The first with WAITAOF. Valkey calls itself 7.2 or later to whoever asks for the version of Redis."""


def check_server(server: Server, settings: Settings) -> None:
    """Raise `LogRefused` for a server that cannot hold a log at all."""
    info = server.info
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    if int(version.partition(".")[0] or 0) < _VERSION_MIN:
        raise LogRefused(
            f"log {settings.where}: the server is version {version}; Ergon needs Redis 6 or any Valkey"
        )
    if info.get("role") not in (None, "master") and not server.is_cluster:
        raise LogRefused(
            f"log {settings.where}: this server is a replica and takes no writes; name the master"
        )
    if settings.flushed and settings.ephemeral:
        raise LogRefused(
            f"log {settings.where}: ephemeral and flushed exclude each other; leave one of them out"
        )
    if settings.flushed and _version_of(info) < _FLUSHED_VERSION_MIN:
        raise LogRefused(
            f"log {settings.where}: the server is version {version}, which cannot wait for its disk; flushed needs "
            "Redis 7.2 or any Valkey. Set appendfsync always instead"
        )
    if settings.ephemeral:
        return
    loses = _loses(info)
    if loses:
        raise LogRefused(
            f"log {settings.where}: the server would lose flows: {'; '.join(loses)}. Change that on the server, or say "
            "ephemeral=True (in a URL: ?ephemeral=true) where they may get lost"
        )


async def measure(server: Server, settings: Settings) -> Durability:
    """Read the settings and grade them."""
    info = await _info(server)
    fsync = await _fsync(server)
    found = {
        "server": f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version')}",
        "mode": "cluster" if server.is_cluster else "one server",
        "appendonly": "yes" if info.get("aof_enabled") else "no",
        "appendfsync": fsync,
        "maxmemory": str(info.get("maxmemory", "unknown")),
        "maxmemory-policy": str(info.get("maxmemory_policy", "unknown")),
        "replicas": str(info.get("connected_slaves", 0)),
        "waits for replicas": str(settings.replicas),
        "waits for the disk": "yes" if settings.flushed else "no",
    }
    limits = _loses(info)
    level = "D1"
    if not limits:
        if fsync != "always" and not settings.flushed:
            told = (
                f"appendfsync is {fsync}"
                if fsync != "unknown"
                else "appendfsync cannot be read (CONFIG is forbidden)"
            )
            limits.append(
                f"{told}: a crash of the server, or a power loss, can undo what was acknowledged in the last two "
                "seconds; set appendfsync always, or flushed=True to wait for the disk (in a URL: ?flushed=true)"
            )
        elif settings.replicas:
            level = "D4"
        else:
            level = "D3"
            limits.append(
                "one machine has the data: set replicas=1 to wait until a replica has each write too (in a URL: "
                "?replicas=1)"
            )
    if level == "D4":
        limits.append("a failover to a replica that lags can undo what was acknowledged")
    return Durability(level=level, settings=found, limits=tuple(limits), notes=tuple(limits))


def check_required(durability: Durability, require: str | None, settings: Settings) -> None:
    """Raise `LogRefused` when the level is below the one required."""
    if require is not None and durability.level < require:
        raise LogRefused(
            f"log {settings.where} has durability {durability.level}, {require} is required: "
            f"{'; '.join(durability.limits)}. Lift that, or require {durability.level} at most"
        )


def _loses(info: dict[str, Any]) -> list[str]:
    loses = []
    if not info.get("aof_enabled"):
        loses.append(
            "it writes no append-only file, so a restart undoes what was acknowledged; set appendonly yes"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        loses.append(
            f"when memory is short it throws keys away; set maxmemory-policy noeviction (it is {policy})"
        )
    return loses


def _version_of(info: dict[str, Any]) -> tuple[int, ...]:
    parts = str(info.get("redis_version", "0")).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


async def _info(server: Server) -> dict[str, Any]:
    """`INFO`, of the weakest master of a cluster."""
    found: dict[str, Any] = {}
    for master in server.masters:
        info: dict[str, Any] = await master.info()
        if not found or len(_loses(info)) > len(_loses(found)):
            found = info
    return found


async def _fsync(server: Server) -> str:
    said: set[str] = set()
    for master in server.masters:
        answer = (await master.run([("CONFIG", "GET", "appendfsync")]))[0]
        if isinstance(answer, Exception) or not answer:  # forbidden, or renamed
            return "unknown"
        value = next(iter(dict(answer).values()))
        said.add(value.decode() if isinstance(value, bytes) else str(value))
    return said.pop() if len(said) == 1 else "not the same on all masters"
