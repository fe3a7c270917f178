"""Make a place on a server a log, or say why it is not ours to touch.

Each part of a log says in its `meta` what it is: the generation (an id made with the log: another one is another log),
how many parts there are, and the schema's version, which grows when keys change their meaning. Code of one version
works on the schema of the next (`compatible_from` says whether it may), so that workers can be replaced one by one.
A schema that older code must not live to see gives each part another generation as it is made: the old one, `+`, and
the version. Every script compares it, so code that has the log open writes nothing more from then on.

A crash between the parts of a new log leaves the later ones out: the next to open it makes them, with the generation of
the first. Once all are there the first says so (`complete`), and a part that is missing then has been lost.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import uuid4

from ergon.core.release import VERSION
from ergon.errors import LogDamaged, LogRefused, LogTooNew
from ergon.storage.redis import rows
from ergon.storage.redis.partitions import PARTITIONS_OF_A_CLUSTER, base_of
from ergon.storage.redis.scripts import scripts
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings

SCHEMA: Final = 1


class Found(NamedTuple):
    """What a log says of itself."""

    generation: str
    partitions: int
    server_time: float


async def open_log(server: Server, settings: Settings) -> Found:
    """Read what is there; make the log when nothing is. Several processes may do so at once."""
    count = PARTITIONS_OF_A_CLUSTER if server.is_cluster else 1
    creating = (uuid4().hex, count) if settings.create else None
    ((first, seconds),) = await _metas(server, settings, [0], make=creating)
    if not first.get("generation"):
        raise LogRefused(
            f"there is no log at {settings.where}: no keys of Ergon's begin with {settings.root!r} there. Name "
            "another prefix or server, or let a program that runs flows make one"
        )
    generation, count = first["generation"], int(first["partitions"])
    making = None if first.get("complete") else (generation, count)
    others = await _metas(server, settings, list(range(1, count)), make=making)
    for partition, (other, _) in enumerate(others, start=1):
        if other.get("generation") != generation:
            raise LogDamaged(
                f"log {settings.where} has lost part {partition} of {count}, or it is another log's; restore a backup"
            )
    if others and making is not None:
        await server.run([("HSET", base_of(settings.root, 0) + "meta", "complete", "1")], strict=True)
    return Found(generation, count, seconds)


async def _metas(
    server: Server, settings: Settings, partitions: list[int], make: tuple[str, int] | None
) -> list[tuple[dict[str, str], float]]:
    """What parts say of themselves, and the server's time; made if `make` says with which generation and count."""
    generation, count = make or ("", 0)
    sha, what = (
        scripts()["open"].sha,
        ("make" if make else "look", generation, count, SCHEMA, f"ergon {VERSION}"),
    )
    keys = [base_of(settings.root, partition) + "meta" for partition in partitions]
    answers = await server.run(
        [("EVALSHA", sha, 1, key, *what, number) for key, number in zip(keys, partitions, strict=True)],
        strict=True,
    )
    return [_read(settings, key, answer) for key, answer in zip(keys, answers, strict=True)]


def _read(settings: Settings, key: str, answer: list[Any]) -> tuple[dict[str, str], float]:
    kind, kept, (seconds, micros) = answer if len(answer) == 3 else (answer[0], [], (0, 0))
    if kind.decode() not in ("none", "hash"):
        raise LogRefused(
            f"log {settings.where}: the key {key} is another program's; name another prefix, such as ?prefix=orders"
        )
    meta = {name.decode(): value.decode("utf-8", "replace") for name, value in rows.pairs(kept).items()}
    if meta:
        _check(meta, settings)
    return meta, int(seconds) + int(micros) / 1_000_000


def _check(meta: dict[str, str], settings: Settings) -> None:
    if meta.get("application") != "ergon":
        raise LogRefused(
            f"log {settings.where}: the keys of this prefix are another program's; name another one, such as "
            "?prefix=orders"
        )
    try:
        version, oldest, count = (
            int(meta["schema"]), int(meta.get("compatible_from", meta["schema"])), int(meta["partitions"]),
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise LogDamaged(f"log {settings.where} does not say what it is; restore a backup") from error
    if version > SCHEMA and (version > SCHEMA + 1 or oldest > SCHEMA):
        raise LogTooNew(
            f"log {settings.where} has schema version {version}, this Ergon knows up to {SCHEMA}; upgrade this process"
        )
    if not meta.get("generation") or not 1 <= count <= 1024:
        raise LogDamaged(f"log {settings.where} has lost its generation id; restore a backup")
