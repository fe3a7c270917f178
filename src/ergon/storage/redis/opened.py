"""What belongs to one opening of a log, from the first connection to the last."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ergon.core.commit import Hint
from ergon.errors import ErgonError
from ergon.storage.redis import durability, migrations
from ergon.storage.redis.clock import KeptTime, ServerClock
from ergon.storage.redis.connection import CONNECTIONS_MAX
from ergon.storage.redis.errors import translate
from ergon.storage.redis.group import GroupCommit
from ergon.storage.redis.keeper import Keeper
from ergon.storage.redis.listener import Listener
from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings

_READS_AT_ONCE: Final = CONNECTIONS_MAX // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Made by `start`, ended by `stop`."""

    server: Server
    partitions: Partitions
    group: GroupCommit
    listener: Listener
    keeper: Keeper
    time: KeptTime
    reading: asyncio.Semaphore
    """Held by each read: however many there are, they leave connections to those who write."""
    loop: asyncio.AbstractEventLoop
    pid: int

    @classmethod
    async def start(
        cls, settings: Settings, on_hint: Callable[[Hint], None], require: str | None, clock: ServerClock
    ) -> Opened:
        """Connect and look whether this is a place for a log. After an error nothing is left open."""
        server = Server(settings)
        try:
            await server.open()
            durability.check_server(server, settings)
            graded = await durability.measure(server, settings)
            durability.check_required(graded, require, settings)
            found = await migrations.open_log(server, settings)
        except ErgonError:
            await server.close()
            raise
        except Exception as error:
            await server.close()
            raise translate(error, settings.where) from error
        except BaseException:
            await server.close()
            raise
        # From here on nothing can fail: what is made below has tasks of its own.
        clock.forget()
        clock.sample(found.server_time)
        partitions = Partitions(settings, found.partitions, found.generation)
        group = GroupCommit(server, partitions, settings, on_hint)
        partitions.writer = group.writer
        return cls(
            server=server,
            partitions=partitions,
            group=group,
            listener=Listener(server, partitions, on_hint),
            keeper=Keeper(settings, partitions, server),
            time=KeptTime(server, clock),
            reading=asyncio.Semaphore(_READS_AT_ONCE),
            loop=group.loop,
            pid=os.getpid(),
        )

    async def stop(self, beside: Sequence[asyncio.Task[Any]] = ()) -> None:
        """Finish what was submitted, wait for what was asked `beside`, then close."""
        self.time.stop()
        await self.group.close()
        if beside:
            await asyncio.wait(beside)
        await self.listener.stop()
        await self.time.stopped()
        self.keeper.stop()
        await self.server.close()

    def abandon(self) -> None:
        """Forget connections that belong to another process, or to an event loop that is gone."""
        self.server.abandon()
        self.keeper.stop()
