"""A signal on its way to a step body that is over before it comes is kept for the next wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ergon import ExecutionLog, RetryPolicy, flow, step, wait_signal
from ergon.core.commit import Commit
from ergon.core.history import Event
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Outbox
from tests.stories.helpers import kinds, soon, start, until, until_status, worker

Done = Callable[["BaseException | None"], None]


class Gate:
    """Holds the first commit of a kind back, as a slow disk does."""

    def __init__(
        self, log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, which: Callable[[Commit], object]
    ) -> None:
        self.reached = asyncio.Event()
        """The commit is on its way."""
        self.open: Callable[[], object] = lambda: None
        """Let it land."""
        submit = log.submit

        def submit_or_hold(commit: Commit, done: Done) -> None:
            if which(commit) and not self.reached.is_set():
                self.open = lambda: submit(commit, done)
                self.reached.set()
            else:
                submit(commit, done)

        monkeypatch.setattr(log, "submit", submit_or_hold)


def has(kind: str) -> Callable[[Commit], bool]:
    return lambda commit: any(event.kind == kind for event in commit.events)


@pytest.fixture
def noticed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What flows in memory have noticed, whether it has landed or not."""
    seen: list[str] = []
    record, add = Outbox.record, Inbox.add

    def recording(self: Outbox, kind: str, **fields: Any) -> Event:
        seen.append(kind)
        return record(self, kind, **fields)

    def adding(self: Inbox, messages: list[Any]) -> bool:
        seen.extend(message.name for message in messages)
        return add(self, messages)

    monkeypatch.setattr(Outbox, "record", recording)
    monkeypatch.setattr(Inbox, "add", adding)
    return seen


@step
async def ask() -> str:
    return "in the step: " + await wait_signal("go", str)


@step
async def look() -> None:
    """Over at once."""


@flow
async def ask_in_time() -> str:
    try:
        async with asyncio.timeout(0.2):
            found = await asyncio.gather(ask(), look())
    except TimeoutError:
        return "in the flow: " + await wait_signal("go", str)
    return found[0]


async def test_a_signal_that_comes_while_its_step_is_given_up_goes_to_the_next_wait(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, noticed: list[str]
) -> None:
    giving_up = Gate(log, monkeypatch, has("timer_fired"))

    async with worker(log, ask_in_time):
        handle = await start(log, ask_in_time.bind())
        await soon(giving_up.reached.wait())
        await handle.signal("go", "1st")
        await until(lambda: "go" in noticed)
        giving_up.open()

        assert await handle.result(10) == "in the flow: 1st"

    assert await log.inbox("f") == []


async def land_signal_with_the_time_limit(gate: Gate, handle: Any, noticed: list[str]) -> None:
    """While the result of `look` is being committed, the time limit passes and the signal comes."""
    await soon(gate.reached.wait())
    await handle.signal("go", "1st")
    await until(lambda: "go" in noticed and "timer_fired" in noticed)
    gate.open()


async def test_a_signal_that_lands_together_with_the_time_limit_of_its_step_goes_to_the_next_wait(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, noticed: list[str]
) -> None:
    gate = Gate(log, monkeypatch, has("step_completed"))

    async with worker(log, ask_in_time):
        handle = await start(log, ask_in_time.bind())
        await land_signal_with_the_time_limit(gate, handle, noticed)

        assert await handle.result(10) == "in the flow: 1st"

    recorded = await kinds(log)
    assert recorded.index("timer_fired") < recorded.index("step_waited") < recorded.index("signal_returned")
    assert await log.inbox("f") == []


async def test_a_signal_that_a_dying_worker_could_not_put_back_is_put_back_by_the_next(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, noticed: list[str]
) -> None:
    """The operator's pause stands for the death: what the run still wanted to write never lands."""
    gate = Gate(log, monkeypatch, has("step_completed"))
    putting_back = Gate(log, monkeypatch, lambda commit: commit.returned)

    async with worker(log, ask_in_time):
        handle = await start(log, ask_in_time.bind())
        await land_signal_with_the_time_limit(gate, handle, noticed)
        await soon(putting_back.reached.wait())
        assert await log.inbox("f") == []
        await handle.pause()
        await until_status(handle, "paused")
        await handle.resume()

        assert await handle.result(10) == "in the flow: 1st"

    assert (await kinds(log)).count("signal_returned") == 1
    assert await log.inbox("f") == []


attempts: list[str] = []


@flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
async def ask_otherwise() -> str:
    """In its second attempt it asks by itself."""
    attempts.append("")
    if len(attempts) > runs_of_the_first_attempt:
        return "in the flow: " + await wait_signal("go", str)
    if gives_up:
        async with asyncio.timeout(0.2):
            await asyncio.gather(ask(), look())
    asking = asyncio.create_task(ask())
    await asyncio.gather(look(), asyncio.sleep(0.2))
    raise ConnectionError(f"down, with {asking.get_name()} under way")


runs_of_the_first_attempt = 1
gives_up = False


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("dies", [False, True])
async def test_a_signal_that_lands_together_with_the_failure_of_its_flow_goes_to_the_next_attempt(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, noticed: list[str], dies: bool, leaves: bool
) -> None:
    """The next attempt need not call the step again that never received it."""
    attempts.clear()
    monkeypatch.setattr(f"{__name__}.gives_up", not leaves)
    monkeypatch.setattr(f"{__name__}.runs_of_the_first_attempt", 2 if dies else 1)
    gate = Gate(log, monkeypatch, has("step_completed"))
    failing = Gate(log, monkeypatch, has("flow_retried" if dies else "none"))

    async with worker(log, ask_otherwise):
        handle = await start(log, ask_otherwise.bind())
        await land_signal_with_the_time_limit(gate, handle, noticed)
        if dies:
            await soon(failing.reached.wait())
            await handle.pause()
            await until_status(handle, "paused")
            failing.open()
            await handle.resume()

        assert await handle.result(10) == "in the flow: 1st"

    recorded = await kinds(log)
    assert recorded.index("step_waited") < recorded.index("signal_returned") < recorded.index("flow_retried")
    assert await log.inbox("f") == []


async def test_a_replay_does_not_put_a_signal_back_that_its_step_received(log: ExecutionLog) -> None:
    """The step was given up after it had read the first signal: that one is spent."""
    received = asyncio.Event()

    @step
    async def read_one() -> None:
        assert await wait_signal("go", str) == "1st"
        received.set()
        await asyncio.sleep(60)

    @flow
    async def process() -> str:
        try:
            async with asyncio.timeout(1):
                await read_one()
        except TimeoutError:
            pass
        return await wait_signal("go", str)

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("go", "1st")
        await soon(received.wait())
        await until_status(handle, "suspended")
        await handle.pause()
        await handle.resume()
        await handle.signal("go", "2nd")

        assert await handle.result(10) == "2nd"


@pytest.mark.parametrize("ending", ["returned", "raised"])
async def test_a_signal_that_comes_as_its_step_ends_without_it_goes_to_the_next_wait(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The step's own time limit strikes while the signal is being committed."""
    taking = Gate(log, monkeypatch, lambda commit: commit.consumed)
    over = asyncio.Event()

    @step
    async def ask_briefly() -> str:
        waiting = asyncio.create_task(wait_signal("go", str))
        await taking.reached.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        over.set()
        if ending == "raised":
            raise ValueError("nobody answered")
        return "nobody answered"

    @flow
    async def process() -> list[str]:
        try:
            first = await ask_briefly()
        except ValueError as error:
            first = str(error)
        return [first, await wait_signal("go", str), await wait_signal("go", str)]

    async with worker(log, process):
        handle = await start(log, process.bind())
        await handle.signal("go", "1st")
        await soon(over.wait())
        await handle.signal("go", "2nd")
        taking.open()

        assert await handle.result(10) == ["nobody answered", "1st", "2nd"]
