"""How many commits a flow takes: each costs a share of a transaction, and they decide how fast a log is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ergon import ExecutionLog, flow, invoke, step, wait_signal
from ergon.core.commit import Commit
from ergon.executor import outbox
from tests.stories.helpers import start, until, until_status, worker


@pytest.fixture
def commits(log: ExecutionLog, monkeypatch: pytest.MonkeyPatch) -> list[Commit]:
    """What flows have submitted, oldest first."""
    seen: list[Commit] = []
    submit = log.submit

    def noted(commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        seen.append(commit)
        submit(commit, done)

    monkeypatch.setattr(log, "submit", noted)
    return seen


def events(commits: list[Commit], flow_id: str = "f") -> list[list[str]]:
    """The kinds of events in each commit of a flow; the one that settles it ends with its status."""
    return [
        [event.kind for event in commit.events] + ([str(commit.settled.status)] if commit.settled else [])
        for commit in commits
        if commit.flow_id == flow_id
    ]


@step
async def work(number: int) -> int:
    return number


@step
def work_on_a_thread(number: int) -> int:
    return number


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_each_sequential_step_takes_one_commit_and_the_end_one(
    log: ExecutionLog, commits: list[Commit], count: int
) -> None:
    @flow
    async def sequence() -> int:
        return sum([await work(number) for number in range(count)])

    async with worker(log, sequence):
        await (await start(log, sequence.bind())).result(10)

    assert events(commits) == [["step_completed"]] * count + [["completed"]]


async def test_a_plain_function_takes_no_more(log: ExecutionLog, commits: list[Commit]) -> None:
    @flow
    async def sequence() -> int:
        return await work_on_a_thread(1) + await work_on_a_thread(2)

    async with worker(log, sequence):
        await (await start(log, sequence.bind())).result(10)

    assert events(commits) == [["step_completed"], ["step_completed"], ["completed"]]


@pytest.mark.parametrize("count", [2, 10, 500])
async def test_parallel_steps_take_one_commit_however_many_they_are(
    log: ExecutionLog, commits: list[Commit], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that run in one go, while that takes no longer than a result may wait."""
    monkeypatch.setattr(outbox, "HOLD_SECONDS", 60.0)

    @flow
    async def fan_out() -> int:
        return sum(await asyncio.gather(*[work(number) for number in range(count)]))

    async with worker(log, fan_out):
        assert await (await start(log, fan_out.bind())).result(10) == sum(range(count))

    assert events(commits) == [["step_completed"] * count, ["completed"]]


async def test_steps_that_end_by_themselves_take_two_commits_however_many_they_are(
    log: ExecutionLog, commits: list[Commit]
) -> None:
    """The first to end does not wait for others; while its commit is in flight the others gather for the next."""
    waiting: list[int] = []
    go_on = asyncio.Event()

    @step
    async def work_on(number: int) -> int:
        waiting.append(number)
        await go_on.wait()
        return number

    @flow
    async def fan_out() -> int:
        return sum(await asyncio.gather(*[work_on(number) for number in range(10)]))

    async with worker(log, fan_out):
        handle = await start(log, fan_out.bind())
        await until(lambda: len(waiting) == 10)
        go_on.set()  # they go on in one round of the event loop, in which no commit can be answered
        assert await handle.result(10) == sum(range(10))

    assert events(commits) == [["step_completed"], ["step_completed"] * 9, ["completed"]]


async def test_a_timer_takes_one_commit_when_it_fires_and_none_when_it_is_cancelled(
    log: ExecutionLog, commits: list[Commit]
) -> None:
    @flow
    async def nap() -> None:
        async with asyncio.timeout(3_600):
            await asyncio.sleep(0.02)

    async with worker(log, nap, evict_after_seconds=60):
        await (await start(log, nap.bind())).result(10)

    assert events(commits) == [["timer_fired"], ["completed"]]


async def test_a_signal_takes_one_commit_which_also_consumes_it(
    log: ExecutionLog, commits: list[Commit]
) -> None:
    @flow
    async def ask() -> str:
        return await wait_signal("approval", str)

    async with worker(log, ask, evict_after_seconds=60):
        handle = await start(log, ask.bind())
        await handle.signal("approval", "yes")
        await handle.result(10)

    assert events(commits) == [["signal_received"], ["completed"]]
    assert [len(commit.consumed) for commit in commits] == [1, 0]


async def test_signals_that_wait_together_share_a_commit(log: ExecutionLog, commits: list[Commit]) -> None:
    @flow
    async def ask() -> list[str]:
        return list(await asyncio.gather(*[wait_signal("vote", str) for _ in range(5)]))

    handle = await start(log, ask.bind())
    for number in range(5):
        await handle.signal("vote", str(number))
    async with worker(log, ask, evict_after_seconds=60):
        await handle.result(10)

    assert events(commits) == [["signal_received"] * 5, ["completed"]]


async def test_leaving_memory_takes_one_commit_and_coming_back_none(
    log: ExecutionLog, commits: list[Commit]
) -> None:
    @flow
    async def ask() -> str:
        return await wait_signal("approval", str)

    handle = await start(log, ask.bind())
    async with worker(log, ask):
        await until_status(handle, "suspended")
        assert events(commits) == [["suspended"]]
        commits.clear()
        await handle.signal("approval", "yes")
        await handle.result(10)

    assert events(commits) == [["signal_received"], ["completed"]]


async def test_a_child_takes_one_commit_to_start_and_one_for_its_outcome(
    log: ExecutionLog, commits: list[Commit]
) -> None:
    @flow
    async def child() -> int:
        return 1

    @flow
    async def parent() -> int:
        return await invoke(child.bind(), id="child").result()

    async with worker(log, parent, child, evict_after_seconds=60):
        await (await start(log, parent.bind())).result(10)

    assert events(commits) == [[], ["child_completed"], ["completed"]]
    assert events(commits, "child") == [["completed"]]
    assert [len(commit.children) for commit in commits if commit.flow_id == "f"] == [1, 0, 0]
