"""Whoever submitted something hears of it: in the order of submission, before the log is closed, whatever fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ergon import SqliteExecutionLog
from ergon.core.commit import Commit, Lease
from ergon.storage.sqlite.writer import SLICE

MANY = 3 * SLICE + 1
STRANGER = Lease("nobody", 1)


def submit(log: SqliteExecutionLog, numbers: range, hear: Callable[[int], None]) -> None:
    """Commits of flows that do not exist: each is refused, and told so."""

    def done(number: int) -> Callable[[BaseException | None], None]:
        return lambda _: hear(number)

    for number in numbers:
        log.submit(Commit(f"f{number}", STRANGER), done(number))


async def test_a_later_batch_is_answered_after_the_whole_of_an_earlier_one(tmp_path: Path) -> None:
    heard: list[int] = []

    def hear(number: int) -> None:
        heard.append(number)
        if number == 0:  # the first slice of the first batch is being answered
            submit(log, range(MANY, MANY + 5), hear)

    async with SqliteExecutionLog(tmp_path / "log.db") as log:
        submit(log, range(MANY), hear)
        while len(heard) < MANY + 5:
            await asyncio.sleep(0)

    assert heard == list(range(MANY + 5))


async def test_closing_waits_until_everybody_has_heard(tmp_path: Path) -> None:
    heard: list[int] = []

    async with SqliteExecutionLog(tmp_path / "log.db") as log:
        submit(log, range(MANY), heard.append)

    assert heard == list(range(MANY))


async def test_a_listener_that_raises_keeps_nobody_from_hearing(tmp_path: Path) -> None:
    heard: list[int] = []
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def hear(number: int) -> None:
        heard.append(number)
        if number % SLICE in {0, SLICE - 1}:
            raise ValueError(number)

    async with SqliteExecutionLog(tmp_path / "log.db") as log:
        submit(log, range(MANY), hear)

    assert heard == list(range(MANY))
    assert len(errors) == sum(number % SLICE in {0, SLICE - 1} for number in range(MANY))


async def test_what_an_answer_sets_off_runs_before_all_others_are_answered(tmp_path: Path) -> None:
    heard: list[int] = []
    when_it_ran: list[int] = []
    loop = asyncio.get_running_loop()

    def hear(number: int) -> None:
        heard.append(number)
        if number == 0:
            loop.call_soon(lambda: when_it_ran.append(len(heard)))

    async with SqliteExecutionLog(tmp_path / "log.db") as log:
        submit(log, range(MANY), hear)

    assert len(when_it_ran) == 1
    assert when_it_ran[0] < MANY


async def test_a_thread_that_cannot_start_fails_one_read_and_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with SqliteExecutionLog(tmp_path / "log.db") as log:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await log.find("f")

        assert await log.find("f") is None
