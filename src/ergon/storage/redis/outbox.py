"""Carry words between the parts of a log on a cluster, where one script cannot reach two of them.

What a flow has to tell another one (a new child, the end of a child, a cancel) is written in the same script as its
own change, into a list of its own part: `out:<part>`. It is carried right after that, by the process that wrote it; it
is done there once, however often it is brought, and crossed out here then.

What a crash leaves behind: before it is done there, the word, which the next reaper carries; after that, the word and
its token there, so the next reaper only crosses it out. Nothing is lost and nothing is done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.exceptions import NoScriptError

from ergon.storage.redis.connection import Command, pause
from ergon.storage.redis.errors import is_lost, is_not_done
from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.server import Server

_WORDS_MAX: Final = 100
Answer = list[Any]


class Courier:
    """Lives as long as the opening of its log."""

    def __init__(self, server: Server, partitions: Partitions, seconds: float) -> None:
        """`seconds`: how long to wait for a server that cannot be reached."""
        self._server, self._partitions, self._seconds = server, partitions, seconds

    async def carry(self, ways: Iterable[tuple[int, int]]) -> list[Answer]:
        """Carry all that is left for these ways, from one part to another, and what follows from it.

        Returns what the other parts answered. Raises what keeps it from going on.
        """
        answers: list[Answer] = []
        waiting = list(dict.fromkeys(ways))
        while waiting:
            here, there = waiting.pop(0)
            words = await self._words(here, there)
            while words:
                answer = await self._do(here, there, words)
                if answer is None:
                    return answers
                answers.append(answer)
                waiting += [(there, int(further)) for further in answer[5]]
                words = await self._words(here, there) if len(words) == _WORDS_MAX else []
        return answers

    async def carry_left(self) -> list[Answer]:
        """Carry what processes left that died before they did it."""
        bases = self._partitions.bases
        if len(bases) == 1:
            return []
        left = await asyncio.gather(*(self._ask(("SMEMBERS", base + "outs")) for base in bases))
        return await self.carry((here, int(there)) for here, some in enumerate(left) for there in some)

    async def _words(self, here: int, there: int) -> list[bytes]:
        key = f"{self._partitions.bases[here]}out:{there}"
        words: list[bytes] = await self._ask(("LRANGE", key, 0, _WORDS_MAX - 1))
        return words

    async def _do(self, here: int, there: int, words: list[bytes]) -> Answer | None:
        call = self._partitions.call_on
        receive = call(there, "receive", (b"%d" % here, *words))
        answer: Answer = await self._ask(receive, is_kept=True)
        if answer[0] != b"ok":
            return None  # another log is in its place
        cross_out = call(here, "cross_out", (b"%d" % there, *words))
        await self._ask(cross_out)
        return answer

    async def _ask(self, command: Command, *, is_kept: bool = False) -> Any:
        """Ask once more after a broken connection: each of these may be done twice.

        `is_kept`: where writes wait for replicas, this one does. The word that it took is crossed out after it.
        """
        run = partial(self._partitions.run, self._server) if is_kept else self._server.run
        give_up_at = time.monotonic() + self._seconds
        attempt = 0
        while True:
            try:
                answer = (await run([command]))[0]
                if isinstance(answer, Exception):
                    raise answer
                return answer
            except Exception as error:
                if not (is_lost(error) or is_not_done(error)) or time.monotonic() > give_up_at:
                    raise
                if isinstance(error, NoScriptError):
                    with suppress(Exception):
                        await self._server.load_scripts()
            await pause(attempt)
            attempt += 1
