"""Workers bring signals from other systems, each once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ergon import ErgonError, ExecutionLog, FlowNotFound, IncomingSignal, LogBusy, flow, wait_signal
from tests.stories.helpers import start, until, worker


@flow
async def collects(count: int) -> list[str]:
    return [await wait_signal("post", str) for _ in range(count)]


class PostOffice:
    """Another system: keeps what it has until it is done, and hands it out again and again."""

    def __init__(self, *signals: IncomingSignal) -> None:
        self.waiting = list(signals)
        self.gone: list[tuple[str, ErgonError | None]] = []
        self.polls = 0
        self.refusals = 0
        """So many times it does not take note."""

    async def poll(self) -> Sequence[IncomingSignal]:
        self.polls += 1
        return list(self.waiting)

    async def done(self, signal: IncomingSignal, error: ErgonError | None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("the post office is closed")
        if signal in self.waiting:
            self.waiting.remove(signal)
            self.gone.append((signal.key, error))


def letter(key: str, flow_id: str = "f") -> IncomingSignal:
    return IncomingSignal(flow_id=flow_id, name="post", value=f"letter {key}", key=key)


async def test_a_flow_gets_what_its_workers_source_has(log: ExecutionLog) -> None:
    office = PostOffice(letter("a"), letter("b"))
    handle = await start(log, collects.bind(2))

    async with worker(log, collects, signal_sources=[office]):
        assert await handle.result(10) == ["letter a", "letter b"]
        await until(lambda: not office.waiting)

    assert office.gone == [("a", None), ("b", None)]


async def test_what_a_source_brings_again_arrives_once(log: ExecutionLog) -> None:
    """It could not take note that the signal is kept; two workers bring it besides."""
    office = PostOffice(letter("a"))
    office.refusals = 3
    handle = await start(log, collects.bind(2))

    async with (
        worker(log, collects, signal_sources=[office]),
        worker(log, collects, signal_sources=[office], name="other"),
    ):
        await until(lambda: not office.waiting)
        office.waiting.append(letter("b"))

        assert await handle.result(10) == ["letter a", "letter b"]


async def test_a_signal_that_nobody_can_take_is_given_back_with_the_reason(log: ExecutionLog) -> None:
    office = PostOffice(letter("a", "nobody"), letter("b"))
    handle = await start(log, collects.bind(1))

    async with worker(log, collects, signal_sources=[office]):
        assert await handle.result(10) == ["letter b"]
        await until(lambda: not office.waiting)

    errors = dict(office.gone)
    assert errors["b"] is None
    assert isinstance(errors["a"], FlowNotFound)


async def test_a_signal_that_the_log_cannot_take_now_is_brought_again(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = PostOffice(letter("a"))
    handle = await start(log, collects.bind(1))

    async def refuse(_message: object) -> None:
        raise LogBusy("somebody else writes")

    async with worker(log, collects, signal_sources=[office]):
        with monkeypatch.context() as while_busy:
            while_busy.setattr(log, "send", refuse)
            polls = office.polls
            await until(lambda: office.polls > polls + 1)
            assert office.waiting

        assert await handle.result(10) == ["letter a"]
