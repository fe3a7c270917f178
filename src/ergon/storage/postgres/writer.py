"""The one task of a log that commits.

Submissions collect. The task takes all there is, applies it as one transaction, and has the answers given by
callbacks of the event loop; what was submitted meanwhile is the next batch. So a lone commit waits for nothing, and
under load batches grow by themselves, up to `BATCH_MAX` and `BATCH_LENGTH_MAX`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from ergon.core.commit import Hint
from ergon.storage.postgres.group import Errors, GroupCommit
from ergon.storage.postgres.writes import Done, What, length_of

BATCH_MAX: Final = 2048
BATCH_LENGTH_MAX: Final = 16_000_000
"""How many characters of values share a batch. A transaction that took longer than a server may be silent would be cut
off, sent again whole, and never land."""
_SLICE: Final = 256
"""How many are answered at once; what an answer sets off runs before the next."""


class Writer:
    """Owns the group commit; everything else only submits."""

    def __init__(
        self, group: GroupCommit, *, on_hint: Callable[[Hint], None], refusal: Callable[[], Exception]
    ) -> None:
        self._group, self._on_hint = group, on_hint
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[What, Done]] = []
        self._something = asyncio.Event()
        self._stopping = self._ended = False
        self._refusal = refusal
        self._task = self._loop.create_task(self._run(), name="ergon-writer")

    def submit(self, what: What, done: Done) -> None:
        """Put something into the next batch. `done` is called on the event loop, from a plain callback."""
        if self._ended:
            self._loop.call_soon(done, self._refusal())
            return
        self._pending.append((what, done))
        self._something.set()

    async def stop(self) -> None:
        """Write what waits, answer it, and end."""
        self._stopping = True
        self._something.set()
        await asyncio.wait({self._task})
        await asyncio.sleep(0)  # the last answers are callbacks of the loop

    async def _run(self) -> None:
        try:
            await self._write_all()
        finally:  # also when the loop ends and cancels its tasks
            self._ended = True
            for _, done in self._pending:
                self._loop.call_soon(done, self._refusal())
            self._pending.clear()

    async def _write_all(self) -> None:
        while self._pending or not self._stopping:
            if not self._pending:
                self._something.clear()
                await self._something.wait()
                continue
            number = _how_many(self._pending)
            batch, self._pending = self._pending[:number], self._pending[number:]
            try:
                errors, hint = await self._group.apply([what for what, _ in batch])
            except BaseException:
                self._pending = batch + self._pending
                raise
            dones = [done for _, done in batch]
            for start in range(0, len(dones), _SLICE):
                some = None if errors is None else errors[start : start + _SLICE]
                self._loop.call_soon(self._answer, dones[start : start + _SLICE], some)
            if hint is not None:
                self._loop.call_soon(self._on_hint, hint)

    def _answer(self, dones: list[Done], errors: Errors | None) -> None:
        for place, done in enumerate(dones):
            try:
                done(None if errors is None else errors[place])
            except Exception as error:  # noqa: BLE001 - one listener's defect must not keep the others waiting
                self._loop.call_exception_handler(
                    {"message": "a callback of the execution log raised", "exception": error}
                )
            except BaseException:  # Ctrl-C: the others hear of it if the loop goes on, such as to clean up
                rest = None if errors is None else errors[place + 1 :]
                self._loop.call_soon(self._answer, dones[place + 1 :], rest)
                raise


def _how_many(pending: Sequence[tuple[What, Done]]) -> int:
    """How many of those that wait make the next batch: one at least."""
    if len(pending) == 1:
        return 1
    length = 0
    for place, (what, _) in enumerate(islice(pending, BATCH_MAX)):
        length += length_of(what)
        if length > BATCH_LENGTH_MAX:
            return max(place, 1)
    return BATCH_MAX
