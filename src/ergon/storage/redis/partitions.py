"""The parts of a log, each in one slot of a cluster, and how their keys and scripts are called.

A part is a whole small log: the flows whose ids fall to it, their histories and inboxes, and every index over them. So
each script is one transaction over all it touches. A log on one server has one part; one on a cluster has as many as it
was made with, spread over the masters, and `outbox.py` carries words between them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from ergon.core.commit import Hint
from ergon.errors import LogDamaged, LogTooNew
from ergon.storage.redis.connection import Command
from ergon.storage.redis.errors import is_not_done
from ergon.storage.redis.scripts import scripts
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings

T = TypeVar("T")
PARTITIONS_OF_A_CLUSTER: Final = 16
_CONFIRM_SECONDS_MAX: Final = 5.0


class Caller(NamedTuple):
    """Who makes a call, so that it is done once: see `prelude.lua`."""

    writer: bytes
    number: bytes
    """Empty when repeating the call does no harm."""
    oldest: bytes
    """The first of the writer's calls that has no answer yet."""


NOBODY: Final = Caller(b"", b"", b"")


class Partitions:
    """Made when the log is opened, from what is written in it."""

    def __init__(self, settings: Settings, count: int, generation: str) -> None:
        self._settings, self.count, self.generation = settings, count, generation
        self._shas = {name: script.sha for name, script in scripts().items()}
        self._head = (generation.encode(), b"%d" % count)
        self._bases = [base_of(settings.root, number) for number in range(count)]
        self.channel = channel_of(settings.root)
        self.writer = ""
        self._telling: set[asyncio.Task[None]] = set()

    def of(self, flow_id: str | int) -> int:
        """Which part a flow is in; a number is a part itself. `partition_of` in Lua is the same."""
        if isinstance(flow_id, int):
            return flow_id
        if self.count == 1:
            return 0
        return int(hashlib.sha1(flow_id.encode(), usedforsecurity=False).hexdigest()[:7], 16) % self.count

    def base(self, flow_id: str) -> str:
        """How the keys of a flow's part begin."""
        return self._bases[self.of(flow_id)]

    def spread(self, flow_ids: Sequence[T], of: Callable[[T], str]) -> dict[int, list[T]]:
        """Sort things by the part that the flow is in which `of` names."""
        found: dict[int, list[T]] = {}
        for one in flow_ids:
            found.setdefault(self.of(of(one)), []).append(one)
        return found

    @property
    def bases(self) -> Sequence[str]:
        """How the keys of each part begin."""
        return self._bases

    def call(self, script: str, flow_id: str | int, values: Sequence[bytes], by: Caller) -> Command:
        """A script call on a flow's part that writes."""
        return self.call_on(self.of(flow_id), script, values, by)

    def call_on(self, partition: int, script: str, values: Sequence[bytes], by: Caller = NOBODY) -> Command:
        """A script call on one part."""
        meta = self._bases[partition] + "meta"
        return ("EVALSHA", self._shas[script], 1, meta, *self._head, *by, *values)

    def append(self, partition: int, values: Sequence[bytes]) -> Command:
        """A call of the script that only adds events."""
        meta = self._bases[partition] + "meta"
        return ("EVALSHA", self._shas["append"], 1, meta, *self._head, *values)

    async def run(self, server: Server, commands: Sequence[Command]) -> list[Any]:
        """Send writes, and wait for the disk, or replicas, of each master that got some, where that was asked for."""
        confirm = _confirmation(self._settings)
        if confirm is None:
            return await server.run(commands)
        answers, confirmations = await server.run_confirmed(commands, confirm)
        for confirmed in confirmations:
            _check_confirmed(confirmed, self._settings)
        return answers

    def replaced(self, found: bytes) -> LogDamaged | LogTooNew:
        """Say that this is not the log that was opened."""
        if found.decode("utf-8", "replace").startswith(f"{self.generation}+"):
            return LogTooNew(
                f"log {self._settings.where} was given a newer schema while it was open, which this Ergon cannot use; "
                "upgrade this process"
            )
        what = "it is empty now (FLUSHALL, FLUSHDB, or a restart that lost its data)"
        if found:
            what = "another log is in its place, such as a restored copy"
        return LogDamaged(
            f"log {self._settings.where} is not the one that was opened: {what}; restart this process once that is "
            "as it should be"
        )

    def tell_others(self, server: Server, hint: Hint) -> None:
        """Publish that something changed. A word that gets lost costs others a poll, so nobody waits for it."""
        told = msgspec.json.encode(
            (self.writer, hint.ready or hint.wake_at is not None, sorted(hint.inbox)[:100])
        )

        async def publish() -> None:
            with suppress(Exception):
                await server.publish(self.channel, told)

        task = asyncio.get_running_loop().create_task(publish(), name="ergon-tell")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _confirmation(settings: Settings) -> Command | None:
    """What to ask after a write, so that it answers once the write is where it should be; None: nothing."""
    wait_ms = max(int(_confirm_seconds(settings) * 1000), 1)  # 0 would be for ever
    if settings.flushed:
        return ("WAITAOF", 1, settings.replicas, wait_ms)
    return ("WAIT", settings.replicas, wait_ms) if settings.replicas else None


def _confirm_seconds(settings: Settings) -> float:
    return min(_CONFIRM_SECONDS_MAX, settings.busy_timeout_seconds)


def _check_confirmed(confirmed: Any, settings: Settings) -> None:
    if isinstance(confirmed, Exception):
        # What was not done is the confirmation: the write before it may have been.
        if is_not_done(confirmed):
            raise TimeoutError(f"the server did not confirm the write: {confirmed}") from confirmed
        raise confirmed
    flushed, replicas = confirmed if isinstance(confirmed, list) else (1, confirmed)
    within = f"in {_confirm_seconds(settings):g} s"
    if not flushed:
        raise TimeoutError(f"the server did not flush the write {within}")
    if replicas < settings.replicas:
        raise TimeoutError(f"only {replicas} of {settings.replicas} replicas confirmed the write {within}")


def base_of(prefix: str, partition: int) -> str:
    """How the keys of a part begin: the hash tag keeps all of them in one slot."""
    return f"{{{prefix}:{partition}}}:"


def channel_of(prefix: str) -> str:
    """Where changes are told."""
    return f"{prefix}:changes"
