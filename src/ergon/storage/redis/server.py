"""One server, or the masters of a cluster, and which of them has a key.

A cluster tells which slots each master has. That is asked again when a server says that a slot is not its own any more,
or that it is a replica, and when one cannot be reached: another master may have taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ReadOnlyError, RedisError

from ergon.storage.outage import Outage
from ergon.storage.redis.connection import Address, Command, Link
from ergon.storage.redis.errors import is_lost
from ergon.storage.redis.settings import Settings

_ELSEWHERE: Final = (AskError, ClusterDownError, ReadOnlyError)
"""What a node says that has not, or has no longer, what it is asked for."""


class Server:
    """Found out by asking it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._first: Link | None = None
        self._links: dict[Address, Link] = {}
        self._masters: list[tuple[int, int, Address]] = []
        """First and last slot of each range, and whose it is."""
        self._is_outdated = False
        self._looking = asyncio.Lock()
        self.info: dict[str, Any] = {}
        """What `INFO` said when the log was opened."""
        self.is_cluster = False

    async def open(self) -> None:
        """Connect, and find out what is there. Raises redis-py's errors."""
        self._first = Link(self._settings, outage=Outage())
        self.info = await self._first.info()
        self.is_cluster = bool(self.info.get("cluster_enabled"))
        if self.is_cluster:
            await self._look()
        await self.load_scripts()
        self._first.asks_role = not self.is_cluster

    async def close(self) -> None:
        """Close every connection."""
        links, self._links, self._first = self.links, {}, None
        await asyncio.gather(*(link.close() for link in links))

    def abandon(self) -> None:
        """Forget the connections without closing them: their event loop or their process is not this one."""
        self._links, self._first = {}, None

    @property
    def links(self) -> list[Link]:
        """To every server that has been asked."""
        return [*self._links.values(), *([self._first] if self._first is not None else ())]

    @property
    def masters(self) -> list[Link]:
        """To every server that has a part of the keys."""
        if not self.is_cluster:
            return self.links
        return [self._link(address) for address in dict.fromkeys(one for _, _, one in self._masters)]

    def address_of(self, key: str) -> Address | None:
        """Who has a key, on a cluster; None where there is but one server."""
        return self._owner(key_slot(key.encode())) if self.is_cluster else None

    async def load_scripts(self) -> None:
        """Make every script known to every master."""
        await asyncio.gather(*(link.load_scripts() for link in self.masters))

    async def run(self, commands: Sequence[Command], *, strict: bool = False) -> list[Any]:
        """Send commands at once, each to whom its key belongs; return an answer or an error for each, in order.

        `strict` raises the first error. Raises when the connection to the only server breaks.
        """
        if not commands:
            return []
        if not self.is_cluster:
            return await self._only.run(commands, strict=strict)
        answers, _ = await self._run_on_cluster(commands, ())
        if strict:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    async def run_confirmed(
        self, commands: Sequence[Command], confirm: Command
    ) -> tuple[list[Any], list[Any]]:
        """`run`, and last ask each server that got a command for `confirm`; the second list has what they say to it."""
        if not self.is_cluster:
            *answers, confirmed = await self._only.run([*commands, confirm])
            return answers, [confirmed]
        return await self._run_on_cluster(commands, (confirm,))

    async def _run_on_cluster(
        self, commands: Sequence[Command], last: Sequence[Command]
    ) -> tuple[list[Any], list[Any]]:
        if self._is_outdated:
            await self._look()
        asked: dict[Address, list[int]] = {}
        for place, command in enumerate(commands):
            asked.setdefault(self._owner(_slot(command)), []).append(place)
        answers: list[Any] = [None] * len(commands)
        said_last: list[Any] = []

        async def ask(address: Address, places: list[int]) -> None:
            try:
                some = await self._link(address).run([*(commands[place] for place in places), *last])
            except (RedisError, OSError) as error:
                some = [error] * (len(places) + len(last))
            for place, answer in zip(places, some, strict=False):
                answers[place] = answer
            said_last.extend(some[len(places) :])

        await asyncio.gather(*(ask(address, places) for address, places in asked.items()))
        if any(isinstance(answer, _ELSEWHERE) or is_lost(answer) for answer in (*answers, *said_last)):
            self._is_outdated = True
        return answers, said_last

    @property
    def left_at(self) -> float:
        """When the only server was left last because it had become a replica, by the monotonic clock."""
        return self._only.left_at

    async def time(self) -> float:
        """What the clock shows of the server, or of one of a cluster, in seconds."""
        seconds, micros = (await self._only.run([("TIME",)], strict=True))[0]
        return int(seconds) + int(micros) / 1_000_000

    async def publish(self, channel: str, message: bytes) -> None:
        """Tell whoever listens. Any node of a cluster passes it on to all others."""
        await self._only.run([("PUBLISH", channel, message)], strict=True)

    def subscriber(self, attempt: int) -> Link:
        """Connections of one's own to a server that passes on what is published; another one at each attempt."""
        addresses = [None, *self._links]
        return Link(self._settings, addresses[attempt % len(addresses)])

    @property
    def _only(self) -> Link:
        assert self._first is not None, "not open"
        return self._first

    def _link(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(self._settings, address, outage=Outage())
        return link

    def _owner(self, slot: int) -> Address:
        for first, last, address in self._masters:
            if first <= slot <= last:
                return address
        raise ClusterDownError(f"no master has slot {slot}")

    async def _look(self) -> None:
        """Ask any node who has which slots."""
        async with self._looking:
            last: Exception | None = None
            for link in reversed(self.links):
                try:
                    told = (await link.run([("CLUSTER", "SLOTS")], strict=True))[0]
                except (RedisError, OSError) as error:
                    last = error
                    continue
                self._masters = [
                    (int(first), int(end), (_host(master[0]) or self._settings.host, int(master[1])))
                    for first, end, master, *_ in told
                ]
                self._is_outdated = False
                return
            assert last is not None
            raise last


def _host(told: bytes | str | None) -> str:
    host = told.decode() if isinstance(told, bytes) else told or ""
    return "" if host == "?" else host


def _slot(command: Command) -> int:
    """The slot of a command's key: the fourth word of a script call, the second of any other."""
    key = command[3] if command[0] == "EVALSHA" else command[1]
    text = key if isinstance(key, str) else bytes(key).decode("utf-8", "surrogateescape")
    return _slot_of_tag(text[: text.index("}") + 1])


@lru_cache(maxsize=4096)
def _slot_of_tag(tag: str) -> int:
    return int(key_slot(tag.encode()))
