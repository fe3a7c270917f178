"""Plain asyncio is replayed exactly, wherever the flow was interrupted.

Each of these flows is taken out of memory at every wait and replayed from its history; what it saw must be the same
each time, and so must be its result.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ergon import ExecutionLog, Flow, NotAllowedInFlow, flow, step, wait_signal
from tests.stories.helpers import kinds, start, until, until_status, worker


async def through_restarts(log: ExecutionLog, body: Flow[[], Any], signals: int = 0) -> Any:
    """Run a flow, with another worker after each signal it waits for."""
    handle = await start(log, body.bind())
    for number in range(signals):
        async with worker(log, body):
            await until_status(handle, "suspended")
        await handle.signal("go", number)
    async with worker(log, body):
        return await handle.result(10)


async def test_gather_keeps_order_and_errors(log: ExecutionLog) -> None:
    @step
    async def work(number: int) -> int:
        if number == 2:
            raise ValueError(number)
        return number

    @flow
    async def body() -> list[str]:
        found = await asyncio.gather(*(work(number) for number in range(4)), return_exceptions=True)
        await wait_signal("go")
        return [repr(each) for each in found]

    assert await through_restarts(log, body, 1) == ["0", "1", "ValueError(2)", "3"]


async def test_a_task_group_cancels_its_other_tasks_when_one_fails(log: ExecutionLog) -> None:
    cancelled: list[str] = []

    @step
    async def fails() -> None:
        raise ValueError("no")

    @step
    async def hangs(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    @flow
    async def body() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(hangs("a"))
                group.create_task(hangs("b"))
                group.create_task(fails())
        except* ValueError as errors:
            told = repr(errors.exceptions)
        await wait_signal("go")
        return told

    assert await through_restarts(log, body, 1) == "(ValueError('no'),)"
    assert sorted(cancelled) == ["a", "b"]


async def test_wait_for_the_first_gives_the_same_winner_on_every_replay(log: ExecutionLog) -> None:
    fast_may_end = asyncio.Event()

    @step
    async def slow() -> str:
        await asyncio.Event().wait()
        return "slow"

    @step
    async def fast() -> str:
        await fast_may_end.wait()
        return "fast"

    seen: list[str] = []

    @flow
    async def body() -> str:
        tasks = [asyncio.create_task(slow()), asyncio.create_task(fast())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        (winner,) = [task.result() for task in done]
        seen.append(winner)
        await wait_signal("go")
        await wait_signal("go")
        return winner

    fast_may_end.set()

    assert await through_restarts(log, body, 2) == "fast"
    assert set(seen) == {"fast"}
    assert len(seen) == 3


async def test_attributes_that_a_flow_sets_on_its_tasks_are_its_own(log: ExecutionLog) -> None:
    names = ("path", "children", "operations", "timers", "number", "scope", "name")

    @step
    async def work(number: int) -> int:
        return number

    @flow
    async def body() -> list[int]:
        tasks = [asyncio.create_task(twice(number)) for number in range(3)]
        for task in tasks:
            for name in names:
                setattr(task, name, "mine")
        done, _ = await asyncio.wait(tasks)
        assert all(getattr(task, name) == "mine" for task in done for name in names)
        return [task.result() for task in tasks]

    async def twice(number: int) -> int:
        return await work(number) + await work(number)

    async with worker(log, body):
        assert await (await start(log, body.bind())).result(10) == [0, 2, 4]

    ids = {event.op for event in await log.history("f") if event.kind == "step_completed"}
    assert ids == {f"0/{task}:{number}" for task in (1, 2, 3) for number in (1, 2)}


async def test_the_losers_of_a_race_over_several_steps_are_cancelled_in_their_bodies(
    log: ExecutionLog,
) -> None:
    """A loser's running body is cancelled, its later steps never start, and nothing of it is recorded."""
    effects: list[str] = []
    running = asyncio.Event()

    @step
    async def first(name: str) -> str:
        effects.append(f"{name} first")
        return name

    @step
    async def second(name: str) -> str:
        if name == "loser":
            running.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                effects.append("loser cancelled")
                raise
        await running.wait()
        return name

    @step
    async def third(name: str) -> str:
        effects.append(f"{name} third")
        return name

    @flow
    async def body() -> str:
        async def branch(name: str) -> str:
            return await third(await second(await first(name)))

        branches = [asyncio.create_task(branch(name)) for name in ("loser", "winner")]
        done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await wait_signal("go")
        return done.pop().result()

    assert await through_restarts(log, body, 1) == "winner"
    assert sorted(effects) == ["loser cancelled", "loser first", "winner first", "winner third"]
    assert [event.name for event in await log.history("f") if event.kind == "step_completed"].count(
        "second"
    ) == 1


async def test_as_completed_gives_results_in_the_order_they_came(log: ExecutionLog) -> None:
    gates = [asyncio.Event() for _ in range(4)]

    @step
    async def work(number: int) -> int:
        await gates[number].wait()
        following = {2: 0, 0: 3, 3: 1}.get(number)
        if following is not None:
            asyncio.get_running_loop().call_later(0.02, gates[following].set)
        return number

    @flow
    async def body() -> list[int]:
        found = [await each for each in asyncio.as_completed([work(number) for number in range(4)])]
        await wait_signal("go")
        return found

    gates[2].set()

    assert await through_restarts(log, body, 1) == [2, 0, 3, 1]


async def test_a_timeout_wins_or_loses_once_and_for_all(log: ExecutionLog) -> None:
    @step
    async def hangs() -> str:
        await asyncio.Event().wait()
        return "never"

    @step
    async def quick() -> str:
        return "quick"

    @flow
    async def body() -> list[str]:
        seen = []
        try:
            async with asyncio.timeout(0.05):
                await hangs()
        except TimeoutError:
            seen.append("timeout")
        await wait_signal("go")
        seen.append(await asyncio.wait_for(quick(), 3_600))
        try:
            await asyncio.wait_for(wait_signal("never"), 0.05)
        except TimeoutError:
            seen.append("wait_for")
        await wait_signal("go")
        return seen

    assert await through_restarts(log, body, 2) == ["timeout", "quick", "wait_for"]


async def test_a_shielded_step_outlives_the_cancellation_of_its_waiter(log: ExecutionLog) -> None:
    may_end = asyncio.Event()

    @step
    async def save() -> str:
        await may_end.wait()
        return "saved"

    @flow
    async def body() -> str:
        saving = asyncio.ensure_future(save())
        try:
            async with asyncio.timeout(0.05):
                await asyncio.shield(saving)
        except TimeoutError:
            await wait_signal("go")
        return await saving

    async with worker(log, body):
        handle = await start(log, body.bind())
        await until(lambda: timer_fired(log))
        await handle.signal("go")
        may_end.set()

        assert await handle.result(10) == "saved"


async def timer_fired(log: ExecutionLog) -> bool:
    return "timer_fired" in await kinds(log)


async def test_a_queue_between_branches_delivers_the_same_items_to_the_same_workers(
    log: ExecutionLog,
) -> None:
    @step
    async def work(name: str, item: int) -> str:
        await asyncio.sleep(0.001 * ((item * 7) % 5))
        return f"{name}{item}"

    @flow
    async def body() -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        done: list[str] = []

        async def consume(name: str) -> None:
            while True:
                item = await queue.get()
                done.append(await work(name, item))
                queue.task_done()

        consumers = [asyncio.create_task(consume(name)) for name in "abc"]
        for item in range(12):
            await queue.put(item)
            if item == 6:
                await wait_signal("go")
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
        await wait_signal("go")
        return done

    found = await through_restarts(log, body, 2)

    live = [
        event.payload.strip('"') for event in await log.history("f") if event.name == "work" and event.payload
    ]
    assert found == live
    assert len(found) == 12


async def test_a_lock_a_semaphore_an_event_and_a_condition_order_branches_as_they_do_in_asyncio(
    log: ExecutionLog,
) -> None:
    running = 0
    most = 0

    @step
    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return number

    @flow
    async def body() -> list[int]:
        lock, semaphore, event = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event()
        condition = asyncio.Condition()
        order: list[int] = []

        async def limited(number: int) -> None:
            await event.wait()
            async with semaphore:
                result = await work(number)
            async with lock:
                order.append(result)
            async with condition:
                condition.notify_all()

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(limited(number))
            await wait_signal("go")
            event.set()
            async with condition:
                await condition.wait_for(lambda: len(order) == 6)
        await wait_signal("go")
        return order

    found = await through_restarts(log, body, 2)

    assert sorted(found) == list(range(6))
    assert most == 2


async def test_an_async_generator_and_a_barrier_work_too(log: ExecutionLog) -> None:
    @step
    async def page(number: int) -> list[int]:
        return [number * 2, number * 2 + 1]

    @flow
    async def body() -> list[int]:
        async def pages() -> Any:
            for number in range(3):
                for item in await page(number):
                    yield item

        barrier = asyncio.Barrier(2)

        async def collect() -> list[int]:
            found = [item async for item in pages()]
            await barrier.wait()
            return found

        one, two = await asyncio.gather(collect(), collect())
        await wait_signal("go")
        return [*one, *two]

    assert await through_restarts(log, body, 1) == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize("times", range(5))
async def test_results_of_concurrent_branches_are_never_swapped(log: ExecutionLog, times: int) -> None:
    """Branches ask for the same step at the same time and end in another order than they began."""

    @step
    async def echo(branch: int, number: int) -> list[int]:
        await asyncio.sleep(0.001 * ((branch * 3 + number * 5 + times) % 7))
        return [branch, number]

    @flow
    async def body() -> list[list[list[int]]]:
        async def branch(number: int) -> list[list[int]]:
            return [await echo(number, turn) for turn in range(4)]

        found = await asyncio.gather(*(branch(number) for number in range(5)))
        await wait_signal("go")
        return list(found)

    found = await through_restarts(log, body, 1)

    assert found == [[[branch, turn] for turn in range(4)] for branch in range(5)]


@pytest.mark.parametrize("what", ["thread", "socket", "subprocess", "executor"])
async def test_what_reaches_outside_is_refused_with_the_way_out(log: ExecutionLog, what: str) -> None:
    @flow
    async def body() -> None:
        if what == "thread":
            await asyncio.to_thread(print)
        elif what == "socket":
            await asyncio.open_connection("127.0.0.1", 9)
        elif what == "subprocess":
            await asyncio.create_subprocess_exec("true")
        else:
            await asyncio.get_running_loop().run_in_executor(None, print)

    async with worker(log, body):
        with pytest.raises(NotAllowedInFlow, match="@step"):
            await (await start(log, body.bind())).result(10)


async def test_yielding_to_other_tasks_is_no_durable_wait(log: ExecutionLog) -> None:
    @step
    async def quick() -> str:
        return "quick"

    @flow
    async def other() -> str:
        return await quick()

    @flow
    async def forgets_to_wait() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        raise ValueError("asyncio.sleep(0) is no wait, but a few are fine")

    async with worker(log, forgets_to_wait, other):
        with pytest.raises(ValueError, match="a few are fine"):
            await (await start(log, forgets_to_wait.bind())).result(10)
        assert await (await start(log, other.bind(), "g")).result(10) == "quick"


async def test_a_generator_left_by_break_is_closed_as_asyncio_closes_it(log: ExecutionLog) -> None:
    """What it held, such as a lock, is free again; and what it does at its end may wait durably."""

    @step
    async def say(word: str) -> str:
        return word.upper()

    @flow
    async def body() -> list[str]:
        lock = asyncio.Lock()
        seen: list[str] = []

        async def pages() -> Any:
            async with lock:
                try:
                    yield "first"
                    yield "second"
                finally:
                    seen.append(await say("closed"))

        async for page in pages():
            seen.append(page)
            break
        async with lock:
            await wait_signal("go")
            return seen

    assert await through_restarts(log, body, 1) == ["first", "CLOSED"]


async def test_a_generator_that_the_garbage_collector_finds_is_left_as_it_is_and_told(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes at a random moment, on any thread: no code of a flow may run there."""
    closed: list[bool] = []

    class Holder:
        itself: Any
        pages: Any

    @flow
    async def body() -> None:
        async def pages() -> Any:
            try:
                yield "first"
            finally:
                closed.append(True)

        holder = Holder()
        holder.itself, holder.pages = holder, pages()
        async for _ in holder.pages:
            break
        del holder
        gc.collect()  # as it may come at any time
        await wait_signal("go")

    await through_restarts(log, body, 1)

    assert closed == []
    assert "left the async generator `pages` (test_asyncio.py:" in caplog.text
    assert "contextlib.aclosing" in caplog.text


async def test_a_future_without_a_number_is_refused_where_a_set_of_futures_is_walked(
    log: ExecutionLog,
) -> None:
    """Its hash is its address, so the order would differ on each replay, without a word."""

    @flow
    async def body() -> list[str]:
        refused = []
        bare: asyncio.Future[int] = asyncio.Future()
        bare.set_result(1)

        async def wait_for_all() -> None:
            await asyncio.wait([bare])

        async def take_one_by_one() -> None:
            for each in asyncio.as_completed([bare]):
                await each

        async def wait_for_gathered() -> None:
            await asyncio.wait([asyncio.gather(bare)])

        for use in (wait_for_all, take_one_by_one, wait_for_gathered):
            try:
                await use()
            except NotAllowedInFlow as error:
                refused.append(str(error))
        numbered = asyncio.get_running_loop().create_future()
        numbered.set_result(2)
        done, _ = await asyncio.wait({numbered})
        return [*refused, str(next(iter(done)).result()), str(await bare)]

    *refused, waited, awaited = await through_restarts(log, body)

    assert len(refused) == 3
    assert all("create_future()" in each for each in refused)
    assert (waited, awaited) == ("2", "1")
