"""The group commit: what is ready at one moment goes out as one pipeline; meanwhile the next one collects.

What a broken connection leaves behind: each call of the pipeline was done or not, in order. All are sent again on the
next connection, and each finds out by itself whether it was done: a commit by its events, any other call by its number.
The server may have lost what it had not yet written to disk; then they are done now. Nobody hears before that.

A process that dies leaves calls done or not done, whole each; nobody was told of those.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final
from uuid import uuid4

from redis.exceptions import NoScriptError

from ergon.core.commit import Commit, Hint, Settled
from ergon.errors import EncodingError, ErgonError, LogBusy, LogClosed, LogDamaged, StoreError
from ergon.storage import failpoints
from ergon.storage.redis import journal
from ergon.storage.redis.appends import Appends, fits, not_appended
from ergon.storage.redis.connection import Command, leave_if_cancelled, pause
from ergon.storage.redis.errors import is_lost, is_not_done, translate
from ergon.storage.redis.outbox import Courier
from ergon.storage.redis.partitions import Caller, Partitions
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings
from ergon.storage.redis.writes import Done, What, Write

BATCH_MAX: Final = 1_000
_log: Final = logging.getLogger("ergon.storage")
Outcome = tuple[Done, "BaseException | None"]
Places = tuple[int, ...]
"""Of what one call writes, in its batch."""


class News:
    """What the answers of one pipeline tell listeners."""

    def __init__(self) -> None:
        self.ready = False
        self.wake_at: float | None = None
        self.inbox: set[str] = set()
        self.settled: dict[str, Settled | None] = {}

        self.ways: list[tuple[int, int]] = []
        """From which parts of the log words are to be carried to which."""

    def add(self, answer: list[Any], partition: int | None = None) -> None:
        """Read the head of an answer, which came from this part."""
        _, ready, wake, inbox, settled, out = answer[:6]
        if partition is not None:
            self.ways += [(partition, int(there)) for there in out]
        self.ready = self.ready or bool(ready)
        if wake:
            at = float(wake)
            self.wake_at = at if self.wake_at is None else min(at, self.wake_at)
        self.inbox.update(name.decode() for name in inbox)
        for name in settled:
            self.settled.setdefault(name.decode(), None)

    def hint(self) -> Hint | None:
        """What listeners should hear, or None."""
        if not (self.ready or self.inbox or self.settled) and self.wake_at is None:
            return None
        return Hint(ready=self.ready, wake_at=self.wake_at, inbox=frozenset(self.inbox), settled=self.settled)


class Heard:
    """What the server has said about a batch so far."""

    def __init__(self, size: int) -> None:
        self.errors: list[BaseException | None] = [None] * size
        self.news = News()
        self.perhaps_done: set[int] = set()
        """Places whose answer was lost once: what is said of them later does not tell whether they were done."""

    def tell(self, place: int, what: What, error: BaseException | None, *, is_refused: bool) -> None:
        """Note how it ended. `is_refused`: the last call was not done, which says nothing of those before."""
        if (
            is_refused
            and place in self.perhaps_done
            and isinstance(what, Write)
            and isinstance(error, StoreError)
        ):
            error = what.unknown(error)
        self.errors[place] = error

    def lost(self, places: Places, error: BaseException) -> None:
        """No answer came for these, or the server did nothing."""
        if is_lost(error):
            self.perhaps_done.update(places)


class GroupCommit:
    """One for each opening of a log; lives on its event loop."""

    def __init__(
        self,
        server: Server,
        partitions: Partitions,
        settings: Settings,
        on_hint: Callable[[Hint], None],
    ) -> None:
        self.writer = uuid4().hex
        self._server, self._partitions, self._settings, self._on_hint = server, partitions, settings, on_hint
        self.loop = asyncio.get_running_loop()
        self._waiting: list[tuple[What, Done]] = []
        self._wake = asyncio.Event()
        self._number = 0
        self._closing = False
        self._failpoint = failpoints.current()
        self._courier, self._carrying = (
            Courier(server, partitions, settings.busy_timeout_seconds),
            asyncio.Lock(),
        )
        self._beside: set[asyncio.Task[None]] = set()
        self._task = self.loop.create_task(self._work(), name="ergon-commits")

    def submit(self, what: What, done: Done) -> None:
        """Put a write into the next pipeline."""
        if self._closing:
            raise LogClosed(f"log {self._settings.where} is closed")
        self._waiting.append((what, done))
        self._wake.set()

    async def close(self) -> None:
        """Finish what was submitted."""
        self._closing = True
        self._wake.set()
        await asyncio.wait({self._task})
        if self._beside:
            await asyncio.wait(self._beside)

    async def _work(self) -> None:
        while True:
            leave_if_cancelled()
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                outcomes, news = await self._write(batch)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave anybody waiting
                _log.exception("a group commit failed")
                failure: BaseException = StoreError(f"log {self._settings.where}: {error!r}")
                outcomes, news = list[Outcome]((done, failure) for _, done in batch), News()
            if news.ways:
                self._aside(self._carry(outcomes, news))
            else:
                self.loop.call_soon(self._answer, outcomes, news)

    async def carry_left(self) -> None:
        """Carry words that a process left which died."""
        news = News()
        for answer in await self._courier.carry_left():
            news.add(answer)
        self.loop.call_soon(self._answer, [], news)

    async def _carry(self, outcomes: list[Outcome], news: News) -> None:
        """Carry words to other parts, then answer.

        What was written is durable, and the words with it: when they cannot be carried now, a reaper will do it.
        """
        try:
            async with self._carrying:
                for answer in await self._courier.carry(news.ways):
                    news.add(answer)
        except Exception as error:  # noqa: BLE001 - whatever keeps it, the words are kept
            _log.warning("log %s: words to other parts are left for later: %r", self._settings.where, error)
        self.loop.call_soon(self._answer, outcomes, news)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work, name="ergon-carry")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _answer(self, outcomes: list[Outcome], news: News) -> None:
        for done, error in outcomes:
            try:
                done(error)
            except Exception as raised:  # noqa: BLE001 - whoever waits may raise anything; the others wait too
                self.loop.call_exception_handler(
                    {"message": "a callback of the execution log raised", "exception": raised}
                )
        hint = news.hint()
        if hint is not None:
            self._on_hint(hint)
            self._partitions.tell_others(self._server, hint)

    async def _write(self, batch: Sequence[tuple[What, Done]]) -> tuple[list[Outcome], News]:
        """Send a batch until each part has an answer, or nobody can be expected to wait any longer."""
        heard = Heard(len(batch))
        oldest = b"%d" % (self._number + 1)
        commands = self._commands(batch, oldest, heard.errors)
        if self._failpoint is not None:
            self._failpoint.before([_name(what) for what, _ in batch])
        give_up_at = time.monotonic() + self._settings.busy_timeout_seconds
        attempt = 0
        while commands:
            waiting = await self._round(batch, commands, oldest, heard)
            if waiting is None:
                continue  # all have their answer, or some are asked for by themselves
            if time.monotonic() > give_up_at or isinstance(waiting, ErgonError):
                self._give_up(batch, commands, heard, waiting)
                break
            await pause(attempt)
            attempt += 1
        if self._failpoint is not None:
            self._failpoint.after()
        return [(done, error) for (_, done), error in zip(batch, heard.errors, strict=True)], heard.news

    async def _round(
        self,
        batch: Sequence[tuple[What, Done]],
        commands: dict[Places, Command],
        oldest: bytes,
        heard: Heard,
    ) -> BaseException | None:
        """Send what has no answer yet; leave in `commands` what must be sent again, and return why.

        None also when that is only what `append.lua` did not write: `commit.lua` says why, or writes it.
        """
        try:
            answers = await self._partitions.run(self._server, list(commands.values()))
        except Exception as error:  # noqa: BLE001 - judged here
            if not is_lost(error) and not is_not_done(error):
                return translate(error, self._settings.where)
            heard.lost(tuple(chain.from_iterable(commands)), error)
            return error
        again: BaseException | None = None
        alone: dict[Places, Command] = {}
        for places, answer in zip(list(commands), answers, strict=True):
            if isinstance(answer, Exception) and (is_lost(answer) or is_not_done(answer)):
                again = answer
                heard.lost(places, answer)
            elif (again is not None or alone) and _says_gap(answer):
                pass  # what comes before it is sent again: so is this
            else:
                del commands[places]
                left = not_appended(places, answer)
                if left is None:
                    for place in places:
                        what = batch[place][0]
                        outcome = self._settle(what, answer, heard.news)
                        heard.tell(place, what, outcome, is_refused=isinstance(answer, Exception))
                else:
                    alone.update({(place,): self._command(batch[place][0], oldest) for place in left})
        if alone:
            left_over = sorted({**commands, **alone}.items())  # in the order in which they were submitted
            commands.clear()
            commands.update(left_over)
        if isinstance(again, NoScriptError):
            with suppress(Exception):
                await self._server.load_scripts()
        return again

    def _settle(self, what: What, answer: Any, news: News) -> BaseException | None:
        if isinstance(answer, Exception):
            return translate(answer, self._settings.where)
        if answer[0] == b"generation":
            return self._partitions.replaced(answer[1])
        try:
            if isinstance(what, Commit):
                refusal = journal.refusal(what, answer)
                if refusal is not None:
                    return refusal
            else:
                what.settle(answer)
        except ErgonError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an answer that is none: a damaged key
            return LogDamaged(f"log {self._settings.where}: an answer cannot be read: {error!r}")
        if len(answer) >= 6:
            if isinstance(what, Commit) and what.settled is not None:
                news.settled[what.flow_id] = what.settled
            news.add(answer, self._partitions.of(what.flow_id))
        return None

    def _commands(
        self, batch: Sequence[tuple[What, Done]], oldest: bytes, errors: list[BaseException | None]
    ) -> dict[Places, Command]:
        """The calls for a batch. Those of `append.lua` go first: only a flow's first commit is among them."""
        appends = Appends(self._partitions)
        others: dict[Places, Command] = {}
        seen: set[str] = set()
        for place, (what, _) in enumerate(batch):
            try:
                if type(what) is Commit:
                    if what.flow_id not in seen and fits(what):
                        appends.add(place, what)
                    else:
                        others[place,] = self._command(what, oldest)
                    seen.add(what.flow_id)
                else:
                    others[place,] = self._command(what, oldest)
            except (ValueError, TypeError, OverflowError) as error:  # UnicodeError among them
                errors[place] = error if isinstance(error, ErgonError) else _unwritable(error)
        return {**dict(appends.commands()), **others}

    def _command(self, what: What, oldest: bytes) -> Command:
        self._number += 1
        writer, number = self.writer.encode(), b"%d" % self._number
        if isinstance(what, Commit):
            by = Caller(writer, b"" if what.events else number, oldest)
            return self._partitions.call("commit", what.flow_id, journal.values(what), by)
        return self._partitions.call(what.script, what.flow_id, what.values, Caller(writer, number, oldest))

    def _give_up(
        self,
        batch: Sequence[tuple[What, Done]],
        commands: dict[Places, Command],
        heard: Heard,
        why: BaseException,
    ) -> None:
        said = translate(why, self._settings.where)
        for place in chain.from_iterable(commands):
            error = said if isinstance(said, ErgonError) else LogBusy(repr(said))
            heard.tell(place, batch[place][0], error, is_refused=True)


def _says_gap(answer: Any) -> bool:
    return isinstance(answer, list) and answer[0] == b"gap"


def _name(what: What) -> str:
    return what.name if isinstance(what, Write) else "commit"


def _unwritable(error: Exception) -> EncodingError:
    return EncodingError(
        f"a value cannot be written to the log: {type(error).__name__}: it holds what is no text"
    )
