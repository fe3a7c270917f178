"""A cancel stops the flow, also one that was asked before and went on; but no cancel breaks off its cleaning up."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ergon import ExecutionLog, FlowCancelled, RetryPolicy, Scheduler, flow, invoke, step, wait_signal
from ergon.flows.context import need_machine
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker


async def test_a_flow_that_failed_to_clean_up_and_is_tried_again_can_be_cancelled_again(
    log: ExecutionLog,
) -> None:
    steps: list[int] = []
    clean_up_fails = True

    @step
    async def work(number: int) -> None:
        steps.append(number)
        await wait_signal("next")

    @flow
    async def process() -> None:
        try:
            for number in range(8):
                await work(number)
        except asyncio.CancelledError:
            if clean_up_fails:
                raise ValueError("cleaning up failed") from None
            raise

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: steps == [0])
        await handle.cancel("first")
        with pytest.raises(ValueError, match="cleaning up failed"):
            await handle.result(10)
        clean_up_fails = False
        await handle.retry()
        await until(lambda: steps == [0, 0])
        await handle.cancel("second")

        with pytest.raises(FlowCancelled, match="second"):
            await handle.result(10)

    assert steps == [0, 0]


async def test_a_flow_that_went_on_after_a_cancel_is_interrupted_by_the_next_one(log: ExecutionLog) -> None:
    """Live, and after another worker has replayed the first."""

    @flow
    async def stubborn() -> list[str]:
        heard = []
        for name in ("first", "second"):
            try:
                await wait_signal(name)
            except asyncio.CancelledError:
                heard.append(name)
        return heard

    async with worker(log, stubborn):
        handle = await start(log, stubborn.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await until_status(handle, "suspended")
    async with worker(log, stubborn):
        await handle.cancel("two")

        assert await handle.result(10) == ["first", "second"]


async def test_cancels_that_a_flow_has_not_heard_yet_interrupt_it_once(log: ExecutionLog) -> None:
    """Somebody who asks twice does not want to break off the cleaning up."""
    cleaned: list[str] = []

    @step
    async def clean() -> None:
        cleaned.append("clean")

    @flow
    async def process() -> None:
        try:
            await wait_signal("go")
        finally:
            await clean()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
    for _ in range(3):
        await handle.cancel("enough")
    async with worker(log, process):
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert cleaned == ["clean"]
    assert (await kinds(log)).count("cancel_requested") == 1


async def tidy() -> None:
    await wait_signal("first")
    await wait_signal("second")


class Tidy:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None:
        await tidy()


async def in_with() -> None:
    async with Tidy():
        await wait_signal("never")


async def in_except() -> None:
    try:
        await wait_signal("never")
    except asyncio.CancelledError as error:
        await tidy()
        raise error from None


async def in_finally() -> None:
    try:
        await wait_signal("never")
    finally:
        await tidy()


async def in_task() -> None:
    await asyncio.create_task(in_finally())


async def in_gather() -> None:
    await asyncio.gather(in_finally(), asyncio.Event().wait(), return_exceptions=True)
    raise asyncio.CancelledError


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_finally())


WAYS = {"finally": in_finally, "except": in_except, "with": in_with}
WAYS |= {"task": in_task, "gather": in_gather, "group": in_group}


@pytest.mark.every_log
@pytest.mark.parametrize("way", WAYS)
async def test_a_cancel_that_comes_while_the_flow_cleans_up_breaks_nothing_off(
    log: ExecutionLog, way: str
) -> None:
    """A client that repeats its call after a lost answer must not undo half of the undoing."""

    @flow
    async def process() -> None:
        await WAYS[way]()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel("two")
        await handle.signal("first")
        await until(lambda: has(log, "signal_received"))
        await until_status(handle, "suspended")
    await handle.cancel("three")
    async with worker(log, process):
        await handle.signal("second")
        with pytest.raises(FlowCancelled, match="one"):
            await handle.result(10)

    assert (await kinds(log)).count("cancel_requested") == 1
    assert (await kinds(log)).count("signal_received") == 2


async def test_a_cancel_that_came_while_the_flow_cleaned_up_reaches_it_when_it_goes_on(
    log: ExecutionLog,
) -> None:
    """A cancellation that is kept under a name is over: what counts is what is being handled."""

    @flow
    async def process() -> str:
        kept = None
        try:
            await wait_signal("never")
        except asyncio.CancelledError as error:
            kept = error
            await wait_signal("cleaned")
        await wait_signal("never")
        return f"went on after {kept}"

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel("two")
        await handle.signal("cleaned")

        with pytest.raises(FlowCancelled, match="two"):
            await handle.result(10)


async def test_nothing_is_started_while_a_further_cancel_is_on_its_way_to_the_flow(log: ExecutionLog) -> None:
    started: list[str] = []

    @step
    async def work(name: str) -> None:
        started.append(name)

    @flow
    async def process() -> None:
        for name in ("a", "b"):
            try:
                await wait_signal(name)
            except asyncio.CancelledError:
                continue
            await work(name)

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel()
        await until(lambda: has(log, "cancel_requested"))
    await handle.signal("b")
    await handle.cancel()
    async with worker(log, process):
        await handle.wait_settled(10)

    assert started == [], "the signal came first, but the cancel was acknowledged before the step could start"


async def has(log: ExecutionLog, kind: str) -> bool:
    return kind in await kinds(log)


async def test_a_child_that_outlived_one_cancel_is_cancelled_by_the_next_attempt_of_its_parent(
    log: ExecutionLog,
) -> None:
    """Each attempt may wait for it, and stop waiting; a replay of one says nothing new."""

    @flow
    async def child() -> None:
        for _ in range(2):
            try:
                await wait_signal("never")
            except asyncio.CancelledError:
                continue

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.1):
                await invoke(child.bind(), id="child").result()
        finally:
            await wait_signal(f"end of attempt {need_machine('this').attempt}")

    async def heard() -> bool:
        return "cancel_requested" in await kinds(log, "child")

    async with worker(log, parent, child):
        handle = await start(log, parent.bind())
        await until(heard)
        await handle.signal("end of attempt 1")
        await Scheduler(log).handle("child").result(10)

        assert str(await handle.status()) in ("running", "suspended"), "its parent has not ended"


class CleanUp:
    """A flow whose clean-up takes two steps, the first of which waits for a signal: messages are taken in order."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @step
        async def refund() -> None:
            self.done.append("refund begins")
            await wait_signal("may end")
            self.done.append("refunded")

        @step
        async def notify() -> None:
            self.done.append("notified")

        @flow
        async def cleaning() -> None:
            try:
                await wait_signal("never")
            finally:
                await refund()
                await notify()

        self.flow = cleaning

    async def begun(self) -> None:
        """Wait until the first step runs."""
        await until(lambda: self.done)

    def assert_done(self) -> None:
        """All of it was done, once."""
        assert self.done == ["refund begins", "refunded", "notified"]


async def test_the_end_of_a_parent_does_not_break_off_the_cleaning_up_of_a_child_that_it_stopped_waiting_for(
    log: ExecutionLog,
) -> None:
    clean_up = CleanUp()

    @flow
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.1):
                await invoke(clean_up.flow.bind(), id="child").result()
        except TimeoutError:
            await wait_signal("go")
        return "gave up"

    async with worker(log, parent, clean_up.flow):
        handle = await start(log, parent.bind())
        await clean_up.begun()
        await handle.signal("go")
        assert await handle.result(10) == "gave up"
        child = await start(log, clean_up.flow.bind(), id="child")
        await child.signal("may end")
        with pytest.raises(FlowCancelled, match="stopped waiting"):
            await child.result(10)

    clean_up.assert_done()
    assert (await kinds(log, "child")).count("cancel_requested") == 1


async def test_the_end_of_a_parent_does_not_break_off_what_a_person_cancelled(log: ExecutionLog) -> None:
    clean_up = CleanUp()

    @flow
    async def parent() -> None:
        invoke(clean_up.flow.bind(), id="child")
        await wait_signal("go")

    async with worker(log, parent, clean_up.flow):
        handle = await start(log, parent.bind())
        await until(lambda: exists(log, "child"))
        child = await start(log, clean_up.flow.bind(), id="child")
        await until_status(child, "suspended")
        await child.cancel("a person's")
        await clean_up.begun()
        await handle.signal("go")
        await handle.result(10)
        await child.signal("may end")
        with pytest.raises(FlowCancelled, match="a person's"):
            await child.result(10)

    clean_up.assert_done()


@pytest.mark.every_log
async def test_a_cleaning_up_that_hangs_is_broken_off_by_who_says_so(log: ExecutionLog) -> None:
    clean_up = CleanUp()

    async with worker(log, clean_up.flow):
        handle = await start(log, clean_up.flow.bind())
        await until_status(handle, "suspended")
        await handle.cancel("first")
        await clean_up.begun()
        await handle.cancel("it hangs", again=True)
        with pytest.raises(FlowCancelled, match="it hangs"):
            await handle.result(10)

    assert clean_up.done == ["refund begins"]


async def test_a_cancel_that_came_while_a_flow_cleaned_up_interrupts_it_when_it_goes_on(
    log: ExecutionLog,
) -> None:
    """It was acknowledged; and the worker that had it in memory may be gone by then."""
    cleaned: list[str] = []

    @step
    async def clean() -> None:
        cleaned.append("clean")

    @flow
    async def stubborn() -> str:
        try:
            await wait_signal("work")
        except asyncio.CancelledError:
            await wait_signal("may clean up")
            await clean()
        try:
            await wait_signal("more work")
        except asyncio.CancelledError:
            return "interrupted twice"
        return "never"

    async with worker(log, stubborn):
        handle = await start(log, stubborn.bind())
        await until_status(handle, "suspended")
        await handle.cancel("first")
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel("second")
        await until_status(handle, "suspended")
    async with worker(log, stubborn):
        await handle.signal("may clean up")

        assert await handle.result(10) == "interrupted twice"

    assert cleaned == ["clean"]
    assert await log.inbox("f") == []


async def test_a_cancel_that_came_while_a_flow_failed_to_clean_up_does_not_stop_a_later_retry(
    log: ExecutionLog,
) -> None:
    """Whoever tries it again decides later than whoever cancelled."""
    tries: list[int] = []

    @flow
    async def process() -> str:
        tries.append(1)
        if len(tries) > 1:
            return "done"
        try:
            await wait_signal("never")
        finally:
            await wait_signal("fail")
            raise ValueError("cleaning up failed")

    async with worker(log, process, evict_after_seconds=60.0):
        handle = await start(log, process.bind())
        await until(lambda: tries)
        await handle.cancel()
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel()
        await handle.signal("fail")
        with pytest.raises(ValueError, match="cleaning up failed"):
            await handle.result(10)
        await handle.retry()

        assert await handle.result(10) == "done"


async def test_a_flow_that_outlived_a_cancel_still_ends_at_its_deadline(
    log: ExecutionLog, clock: SettableClock
) -> None:
    @flow(timeout=3_600)
    async def limited() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await wait_signal("one")
        await wait_signal("two")

    async with worker(log, limited):
        handle = await start(log, limited.bind())
        await until_status(handle, "suspended")
        await handle.cancel("a person's")
        await until(lambda: has(log, "cancel_requested"))
        await until_status(handle, "suspended")
        clock.pass_time(3_600)

        with pytest.raises(FlowCancelled, match="deadline"):
            await handle.result(10)


async def test_a_deadline_that_passes_while_a_flow_cleans_up_waits_for_the_end_of_that(
    log: ExecutionLog, clock: SettableClock
) -> None:
    @flow(timeout=3_600)
    async def limited() -> list[str]:
        heard = []
        try:
            await wait_signal("one")
        except asyncio.CancelledError:
            await asyncio.sleep(7_200)
            heard.append("cleaned up")
        for name in ("two", "three"):
            try:
                await wait_signal(name)
            except asyncio.CancelledError:
                heard.append(name)
        return heard

    async with worker(log, limited):
        handle = await start(log, limited.bind())
        await until_status(handle, "suspended")
        await handle.cancel("a person's")
        await until(lambda: has(log, "cancel_requested"))
        await until_status(handle, "suspended")
        clock.pass_time(3_600)
        wake_at = (await handle.record()).wake_at
        assert wake_at is not None
        assert wake_at > clock.wall(), "it is the sleep's end, not the deadline, that wakes the flow"
        clock.pass_time(3_600)
        await until(lambda: has_event(log, "deadline"))
        await until_status(handle, "suspended")
        await handle.signal("three")

        assert await handle.result(10) == ["cleaned up", "two"], "a deadline passes once"

    assert [event.name for event in await log.history("f") if event.kind == "cancel_requested"] == [
        "",
        "deadline",
    ]


async def has_event(log: ExecutionLog, name: str) -> bool:
    return name in [event.name for event in await log.history("f")]


async def exists(log: ExecutionLog, flow_id: str) -> bool:
    return await log.find(flow_id) is not None


async def test_a_person_who_repeats_a_cancel_wakes_a_flow_that_was_paused_while_it_cleaned_up(
    log: ExecutionLog,
) -> None:
    """The cancel before is unread still, as the flow cleans up; the new one is not needless for that."""
    clean_up = CleanUp()

    async with worker(log, clean_up.flow):
        handle = await start(log, clean_up.flow.bind())
        await until_status(handle, "suspended")
        await handle.cancel("enough")
        await clean_up.begun()
        await handle.cancel("enough")
        await handle.pause()
        await handle.signal("may end")
        await handle.cancel("enough")
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert clean_up.done[-1] == "notified"


@pytest.mark.every_log
async def test_one_act_upon_a_parent_interrupts_a_child_that_goes_on_once(log: ExecutionLog) -> None:
    """The parent that is cancelled first stops waiting for its child, and then ends."""

    @flow
    async def child() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await wait_signal("never")
        return await wait_signal("last word", str)

    @flow
    async def parent() -> None:
        await invoke(child.bind(), id="child").result()

    async with worker(log, parent, child):
        handle = await start(log, parent.bind())
        await until(lambda: exists(log, "child"))
        await until_status(await start(log, child.bind(), id="child"), "suspended")
        await handle.cancel()
        await until_status(handle, "cancelled")
        orphan = await start(log, child.bind(), id="child")
        await orphan.signal("last word", "done")

        assert await orphan.result(10) == "done"
