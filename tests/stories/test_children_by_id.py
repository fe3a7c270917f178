"""Children that get an id from their parent's code: created with its commits, and never a stranger in their place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    FlowCancelled,
    FlowHandle,
    FlowIdConflict,
    FlowParked,
    RetryPolicy,
    Scheduler,
    TaskStatus,
    flow,
    invoke,
    now,
    step,
    wait_signal,
)
from ergon.core.commit import Commit, Received
from tests.stories.helpers import kinds, start, until, until_status, worker

FAST = RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=0.001)


class Gate:
    """Between the flows and the log: holds back commits that create a child, and messages, until they are let go."""

    def __init__(self, log: ExecutionLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[Callable[[], None]] = []
        self.cancelled: list[str | None] = []
        """Children that commits asked to cancel, once those are durable."""
        self.holds_births = self.holds_messages = False
        self._submit, self._arrivals = log.submit, log.arrivals
        monkeypatch.setattr(log, "submit", self._on_submit)
        monkeypatch.setattr(log, "arrivals", self._on_arrivals)

    def open(self) -> None:
        self.holds_births = self.holds_messages = False
        while self.held:
            self.held.pop(0)()

    def _on_submit(self, commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        def noted(error: BaseException | None) -> None:
            self.cancelled += [cancel.flow_id for cancel in commit.cancels]
            done(error)

        if self.holds_births and commit.children:
            self.held.append(partial(self._submit, commit, noted))
        else:
            self._submit(commit, noted)

    async def _on_arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        if self.holds_messages:
            return after, []
        return await self._arrivals(worker_id, after)


@pytest.fixture
def gate(log: ExecutionLog, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(log, monkeypatch)


@flow
async def waits() -> str:
    return await wait_signal("go", str)


@flow
async def waits_for(values: set[str]) -> str:
    return await wait_signal("go", str) + str(len(values))


def handle_of(log: ExecutionLog, id: str) -> FlowHandle[Any]:
    return Scheduler(log).handle(id)


async def is_unharmed(log: ExecutionLog, id: str) -> None:
    """The flow was asked nothing, and goes on to its end."""
    assert await log.inbox(id) == []
    assert "cancel_requested" not in await kinds(log, id)
    await handle_of(log, id).signal("go", "fine")
    assert await handle_of(log, id).result(10) == "fine"


# -- with its parent, or not at all ---------------------------------------------------------------------


async def test_a_parent_killed_while_its_child_is_being_created_leaves_no_child(
    log: ExecutionLog, gate: Gate
) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="child").result()

    gate.holds_births = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.held)
        await handle.kill()
        gate.open()
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert await log.find("child") is None


async def test_a_parent_that_ends_while_its_child_is_being_created_takes_it_along(
    log: ExecutionLog, gate: Gate
) -> None:
    ran: list[str] = []

    @step
    async def work() -> None:
        ran.append("work")

    @flow
    async def child() -> None:
        ran.append("child")

    @flow
    async def parent() -> str:
        invoke(child.bind(), id="child", queue="nobody's")
        invoke(waits.bind(), id="detached", detached=True)
        await work()
        return "done"

    gate.holds_births = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.held and ran == ["work"])
        gate.open()

        assert await handle.result(10) == "done"
        assert await handle_of(log, "child").status() == TaskStatus.CANCELLED
        await is_unharmed(log, "detached")

    assert ran == ["work"]


async def test_a_parent_that_lost_its_lease_creates_no_child_and_its_next_owner_creates_it_once(
    log: ExecutionLog, gate: Gate
) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="child").result()

    gate.holds_births = True
    async with worker(log, parent, waits) as late:
        handle = await start(log, parent.bind())
        await until(lambda: gate.held)
        record = await log.find("f")
        assert record is not None
        assert record.owner is not None
        gate.holds_births = False
        await log.retire(record.owner)
        async with worker(log, parent, waits, name="next"):
            await until(lambda: log.find("child"))
            created = await log.find("child")
            gate.open()
            await handle_of(log, "child").signal("go", "went")
            assert await handle.result(10) == "went"
    del late

    ended = await log.find("child")
    assert created is not None
    assert ended is not None
    assert (ended.created_at, ended.parent_id) == (created.created_at, "f")


async def test_a_flow_that_stops_waiting_for_a_child_at_once_creates_none(log: ExecutionLog) -> None:
    @flow
    async def parent() -> str:
        waiting = asyncio.ensure_future(invoke(waits.bind(), id="child").result())
        await asyncio.sleep(0)
        waiting.cancel()
        return await wait_signal("end", str)

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until_status(handle, "suspended")
        await handle.signal("end", "ended")
        assert await handle.result(10) == "ended"

    assert await log.find("child") is None


# -- a stranger has the id --------------------------------------------------------------------------------


async def test_that_an_id_is_taken_is_recorded_and_a_replay_says_so_though_it_is_free_by_then(
    log: ExecutionLog,
) -> None:
    @flow
    async def parent() -> str:
        try:
            await invoke(waits.bind(), id="taken").result()
        except FlowIdConflict as error:
            return str(error) + await wait_signal("end", str)
        return "the stranger answered"

    stranger = await start(log, waits.bind(), "taken")
    handle = await start(log, parent.bind())
    async with worker(log, parent, waits):
        await until_status(handle, "suspended")
        assert await kinds(log) == ["child_failed"]
        await is_unharmed(log, "taken")
        await log.delete(stranger.id)
        await handle.signal("end", "!")
        assert "'taken' is taken by another flow, `waits`" in await handle.result(10)

    assert await log.find("taken") is None


async def test_what_else_landed_with_a_child_whose_id_is_taken_stays(log: ExecutionLog, gate: Gate) -> None:
    ran: list[str] = []

    @step
    async def work() -> str:
        ran.append("work")
        return "worked"

    @flow
    async def parent() -> list[Any]:
        invoke(waits.bind(), id="other")
        one, other = await asyncio.gather(
            invoke(waits.bind(), id="taken").result(), work(), return_exceptions=True
        )
        return [type(one).__name__, other]

    await start(log, waits.bind(), "taken")
    gate.holds_births = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.held and ran)
        gate.open()

        assert await handle.result(10) == ["FlowIdConflict", "worked"]
        other = await log.find("other")

    assert other is not None
    assert other.parent_id == "f"
    assert ran == ["work"]


async def test_two_operations_of_one_flow_with_one_id_are_two_flows_and_the_second_is_refused(
    log: ExecutionLog,
) -> None:
    @flow
    async def parent() -> list[str]:
        first = invoke(waits.bind(), id="one")
        try:
            await invoke(waits.bind(), id="one").result()
        except FlowIdConflict:
            return [await first.result(), "refused"]
        return []

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: log.find("one"))
        await handle_of(log, "one").signal("go", "went")

        assert await handle.result(10) == ["went", "refused"]


async def test_a_parent_that_stops_waiting_before_it_knows_cancels_no_stranger(
    log: ExecutionLog, gate: Gate
) -> None:
    @flow
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.01):
                await invoke(waits.bind(), id="taken").result()
        except TimeoutError:
            pass
        return await wait_signal("end", str)

    await start(log, waits.bind(), "taken")
    gate.holds_messages = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.cancelled == ["taken"])
        gate.open()
        await is_unharmed(log, "taken")
        await handle.signal("end", "ended")
        assert await handle.result(10) == "ended"


async def test_a_parent_that_stops_waiting_at_once_cancels_no_stranger(log: ExecutionLog, gate: Gate) -> None:
    @flow
    async def parent() -> str:
        waiting = asyncio.ensure_future(invoke(waits.bind(), id="taken").result())
        await asyncio.sleep(0)
        waiting.cancel()
        return await wait_signal("end", str)

    await start(log, waits.bind(), "taken")
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.cancelled == ["taken"])
        await is_unharmed(log, "taken")
        await handle.signal("end", "ended")
        assert await handle.result(10) == "ended"


async def test_a_parent_cancelled_before_it_knows_cancels_no_stranger(log: ExecutionLog, gate: Gate) -> None:
    @flow
    async def parent() -> str:
        return await invoke(waits.bind(), id="taken").result()

    await start(log, waits.bind(), "taken")
    gate.holds_births = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.held)
        await handle.cancel("enough")
        gate.open()
        with pytest.raises((FlowCancelled, FlowIdConflict)):
            await handle.result(10)
        await is_unharmed(log, "taken")


async def test_a_dropped_step_cancels_no_stranger(log: ExecutionLog, gate: Gate) -> None:
    @step
    async def call_child() -> str:
        return await invoke(waits.bind(), id="taken").result()

    @flow
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.01):
                await call_child()
        except TimeoutError:
            pass
        return await wait_signal("end", str)

    await start(log, waits.bind(), "taken")
    gate.holds_messages = True
    async with worker(log, parent, waits, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        await until(lambda: gate.cancelled == [None])  # whatever the step has started
        gate.open()
        await is_unharmed(log, "taken")
        await handle.signal("end", "ended")
        assert await handle.result(10) == "ended"


async def test_the_first_of_two_children_with_one_id_outlives_the_refused_second(
    log: ExecutionLog, gate: Gate
) -> None:
    """The flow is this parent's child, but not the one that it stopped waiting for."""

    @flow
    async def parent() -> str:
        first = invoke(waits.bind(), id="one")
        try:
            async with asyncio.timeout(0.01):
                await invoke(waits.bind(), id="one").result()
        except TimeoutError:
            pass
        return await first.result()

    gate.holds_messages = True
    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        await until(lambda: gate.cancelled == ["one"])
        gate.open()
        await is_unharmed(log, "one")
        assert await handle.result(10) == "fine"


# -- the same child again -----------------------------------------------------------------------------------


async def test_a_parent_that_starts_again_finds_its_child_whatever_order_a_set_was_written_in(
    log: ExecutionLog,
) -> None:
    """Another process writes the same set in another order: it is the same input, and the same child."""
    order = ["a", "b", "c", "d"]

    class Ordered(set[str]):
        def __iter__(self) -> Any:
            return iter(list(order))

    @flow
    async def parent() -> str:
        return await invoke(waits_for.bind(Ordered(order)), id="child").result()

    handle = await start(log, parent.bind())
    async with worker(log, parent, waits_for):
        await until_status(handle, "suspended")
    order.reverse()
    async with worker(log, parent):
        await Scheduler(log).handle("f").signal("wake", "up")
        await until_status(handle, "suspended")
    async with worker(log, parent, waits_for):
        await handle_of(log, "child").signal("go", "went")
        assert await handle.result(10) == "went4"


async def test_code_that_asks_for_a_child_with_another_input_parks_until_it_is_mended(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The flow is the same, and so far its code always asked for the other: a failure could not be taken back."""
    deployed = {"old"}

    @flow
    async def parent() -> str:
        return await invoke(waits_for.bind(set(deployed)), id="child").result()

    handle = await start(log, parent.bind())
    async with worker(log, parent, waits_for):
        await until_status(handle, "suspended")
    deployed |= {"new"}
    await handle.signal("wake", "up")
    async with worker(log, parent, waits_for):
        with pytest.raises(FlowParked, match=r"history has: child `waits_for`(.|\n)*code asks"):
            await handle.result(10)
    deployed -= {"new"}
    await handle.resume()
    async with worker(log, parent, waits_for):
        await handle_of(log, "child").signal("go", "went")
        assert await handle.result(10) == "went1"

    assert "is parked" in caplog.text


async def test_a_later_attempt_that_wants_the_same_id_for_another_input_is_refused(log: ExecutionLog) -> None:
    attempts: list[float] = []

    @step
    async def fail_once() -> None:
        await until(lambda: log.find("child"))
        if len(attempts) == 1:
            raise ConnectionError("down")

    @flow(retry=FAST)
    async def parent() -> str:
        attempts.append(now().timestamp())
        handle = invoke(waits_for.bind({str(attempts[-1])}), id="child")
        await fail_once()
        return await handle.result()

    async with worker(log, parent, waits_for):
        with pytest.raises(FlowIdConflict, match="earlier attempt"):
            await (await start(log, parent.bind())).result(10)
        await until_status(handle_of(log, "child"), "cancelled")

    assert (await kinds(log)).count("child_failed") == 1


async def test_a_step_that_runs_again_with_another_input_keeps_the_child_it_started_first(
    log: ExecutionLog,
) -> None:
    """A body may compute what it likes each time it runs; its child is known by its place."""
    runs: list[int] = []

    @step
    async def call_child() -> str:
        runs.append(len(runs))
        return await invoke(waits_for.bind({str(each) for each in runs}), id="child").result()

    @flow
    async def parent() -> str:
        return await call_child()

    handle = await start(log, parent.bind())
    async with worker(log, parent, waits_for, evict_after_seconds=60):
        await until(lambda: log.find("child"))
    await handle.signal("wake", "up")
    async with worker(log, parent, waits_for, evict_after_seconds=60):
        await until(lambda: len(runs) == 2)
        await handle_of(log, "child").signal("go", "went")
        assert await handle.result(10) == "went1"


async def test_a_flow_retried_by_hand_hears_of_the_child_that_ended_after_it_failed(
    log: ExecutionLog,
) -> None:
    """It had ended when the child told how it went: without a second message it would wait for ever."""
    broken = True

    @step
    async def work() -> None:
        if broken:
            raise ConnectionError("down")

    @flow
    async def parent() -> str:
        handle = invoke(waits.bind(), id="child", detached=True)
        await work()
        return await handle.result()

    async with worker(log, parent, waits):
        handle = await start(log, parent.bind())
        with pytest.raises(ConnectionError):
            await handle.result(10)
        await handle_of(log, "child").signal("go", "went")
        assert await handle_of(log, "child").result(10) == "went"
        broken = False
        await handle.retry()

        assert await handle.result(10) == "went"
    assert await log.inbox("f") == []


@pytest.mark.parametrize("repair", ["retry", "delete"])
async def test_a_parent_retried_by_hand_hears_of_its_child_that_ends_a_second_time(
    log: ExecutionLog, repair: str
) -> None:
    """It has heard of the first end, and stays in memory while the child ends again."""
    broken = True
    asked: list[str] = []

    @step
    async def mark() -> None: ...

    @flow
    async def child() -> str:
        if broken:
            raise ConnectionError("down")
        return await wait_signal("go", str)

    @flow
    async def parent() -> str:
        handle = invoke(child.bind(), id="child")
        await mark()
        asked.append(handle.flow_id)  # by now the log knows of it
        return await handle.result()

    async with worker(log, parent, child, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        with pytest.raises(ConnectionError):
            await handle.result(10)
        broken = False
        if repair == "retry":
            await handle_of(log, "child").retry()
        else:
            await log.delete("child")
        await handle.retry()
        await until(lambda: len(asked) == 2)
        await handle_of(log, "child").signal("go", "went")

        assert await handle.result(10) == "went"


@pytest.mark.parametrize("asker", ["flow", "step"])
async def test_a_parent_that_comes_back_to_a_child_that_has_ended_hears_of_it_once(
    log: ExecutionLog, asker: str
) -> None:
    @step
    async def call_child() -> str:
        return await invoke(waits.bind(), id="child").result()

    @flow
    async def parent() -> str:
        return await call_child() if asker == "step" else await invoke(waits.bind(), id="child").result()

    handle = await start(log, parent.bind())
    async with worker(log, parent):
        await until(lambda: log.find("child"))
    async with worker(log, waits):
        await handle_of(log, "child").signal("go", "went")
        await handle_of(log, "child").result(10)
    async with worker(log, parent):
        assert await handle.result(10) == "went"

    assert await log.inbox("f") == []


@pytest.mark.parametrize("turn", ["last", "earlier"])
@pytest.mark.parametrize("how", ["worker", "executor"])
async def test_a_detached_child_whose_id_is_taken_leaves_a_warning_when_its_parent_has_ended(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture, turn: str, how: str
) -> None:
    """Nobody is left to get the error."""

    @step
    async def more() -> None: ...

    @flow
    async def stranger() -> None: ...

    @flow
    async def courier(turn: str) -> str:
        invoke(stranger.bind(), id="taken", detached=True)
        invoke(stranger.bind(), id="free", detached=True)
        if turn == "earlier":
            await more()
        return "sent"

    await start(log, waits.bind(), "taken")
    if how == "worker":
        async with worker(log, courier):
            assert await (await start(log, courier.bind(turn), "courier-1")).result(10) == "sent"
    else:
        assert await Executor(courier.bind(turn), log, "courier-1").run() == Completed("sent")

    assert "courier-1" in caplog.text
    assert "'taken'" in caplog.text
    assert "'free'" not in caplog.text
    if turn == "last":
        assert "not started: its id 'taken' is taken by another flow, `waits`" in caplog.text
    found = await log.find("free")
    assert found is not None
    assert found.parent_id == "courier-1"
