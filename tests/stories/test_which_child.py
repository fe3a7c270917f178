"""An operation is answered by the child that it asked for, and by no other that happens to stand in its place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    Flow,
    FlowFilter,
    FlowHandle,
    FlowIdConflict,
    FlowParked,
    RetryPolicy,
    Scheduler,
    flow,
    invoke,
    step,
    wait_signal,
)
from tests.stories.helpers import kinds, start, until, until_status, worker

FAST = RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=0.001)


@flow
async def card(amount: int) -> str:
    return f"card {amount} {await wait_signal('go', str)}"


@flow
async def invoice(amount: int) -> str:
    return f"invoice {amount} {await wait_signal('go', str)}"


@step
async def mark() -> None: ...


def handle_of(log: ExecutionLog, id: str) -> FlowHandle[Any]:
    return Scheduler(log).handle(id)


async def let_go(log: ExecutionLog, id: str) -> None:
    """Let a child end, and wait until it has."""
    await until(lambda: log.find(id))
    await handle_of(log, id).signal("go", "paid")
    await handle_of(log, id).result(10)


async def children_of(log: ExecutionLog, id: str = "f") -> dict[str, str]:
    found, _ = await log.list(FlowFilter(parent_id=id))
    return {record.id: str(record.status) for record in found}


# -- other code ------------------------------------------------------------------------------------------


def pays_by_card() -> Flow[[], str]:
    @flow(name="pay")
    async def pay() -> str:
        return await card(1)

    return pay


def pays_by_invoice() -> Flow[[], str]:
    @flow(name="pay")
    async def pay() -> str:
        return await invoice(999)

    return pay


def pays_more() -> Flow[[], str]:
    @flow(name="pay")
    async def pay() -> str:
        return await card(2)

    return pay


def pays_under_an_id() -> Flow[[], str]:
    @flow(name="pay")
    async def pay() -> str:
        return await invoke(card.bind(1), id="the-payment").result()

    return pay


def pays_by_hand() -> Flow[[], str]:
    @step
    async def asks_somebody() -> str:
        return await wait_signal("paid by hand", str)

    @flow(name="pay")
    async def pay() -> str:
        return await asks_somebody()

    return pay


SEEN_AT_ITS_END = (pays_under_an_id, pays_by_hand)
"""Only when the first child ends, or asks, it is seen that there is something else in its place."""


@pytest.mark.parametrize("child", ["open", "ended"])
@pytest.mark.parametrize("changed", [pays_by_invoice, pays_more, pays_under_an_id, pays_by_hand])
async def test_code_that_asks_for_another_child_parks_until_it_is_mended(
    log: ExecutionLog, changed: Any, child: str
) -> None:
    """The answer of the child that was started must not pass for the other's, whether it came before or after."""
    handle = await start(log, pays_by_card().bind())
    async with worker(log, pays_by_card(), card):
        await until(lambda: log.find("f/0:1"))
        await until_status(handle, "suspended")
    async with worker(log, card):
        if child == "ended":
            await let_go(log, "f/0:1")
    await handle.signal("wake", "up")
    async with worker(log, changed(), card, invoice):
        if child == "open" and changed in SEEN_AT_ITS_END:
            await let_go(log, "f/0:1")
        with pytest.raises(FlowParked, match=r"history has: child `card`(.|\n)*'f/0:1'(.|\n)*code asks"):
            await handle.result(10)
    assert "child_completed" not in await kinds(log)

    await handle.resume()
    async with worker(log, pays_by_card(), card):
        if child == "open" and changed not in SEEN_AT_ITS_END:
            await let_go(log, "f/0:1")
        assert await handle.result(10) == "card 1 paid"


async def test_a_child_that_takes_a_set_answers_a_replay_in_which_the_set_is_written_in_another_order(
    log: ExecutionLog,
) -> None:
    """Each process has its own order of sets, and all of them are the same set."""
    order = ["a", "b", "c", "d"]

    class Ordered(set[str]):
        def __iter__(self) -> Any:
            return iter(list(order))

    @flow
    async def count(values: set[str]) -> int:
        return len(values)

    @flow
    async def parent() -> str:
        return f"{await count(Ordered(order))} {await wait_signal('go', str)}"

    handle = await start(log, parent.bind())
    async with worker(log, parent, count):
        await until(lambda: answered(log))
    order.reverse()
    await handle.signal("go", "went")
    async with worker(log, parent, count):
        assert await handle.result(10) == "4 went"


async def answered(log: ExecutionLog) -> bool:
    return "child_completed" in await kinds(log)


# -- a flow that was deleted -------------------------------------------------------------------------------


@flow
async def leaves_or_asks(turn: int) -> str:
    child = invoke(card.bind(turn), id=f"card-{turn}", detached=turn == 1)
    await mark()
    return "left" if turn == 1 else await child.result()


async def test_a_flow_with_the_id_of_a_deleted_one_does_not_hear_of_its_children(log: ExecutionLog) -> None:
    async with worker(log, leaves_or_asks, card):
        assert await (await start(log, leaves_or_asks.bind(1))).result(10) == "left"
        await log.delete("f")
        handle = await start(log, leaves_or_asks.bind(2))
        await until(lambda: log.find("card-2"))
        await let_go(log, "card-1")
        await let_go(log, "card-2")

        assert await handle.result(10) == "card 2 paid"
    assert await children_of(log) == {"card-2": "completed"}


async def test_a_flow_with_the_id_of_a_deleted_one_does_not_take_its_child_for_its_own(
    log: ExecutionLog,
) -> None:
    """Both would give it the same id."""

    @flow
    async def parent(leave: bool) -> str:
        child = invoke(card.bind(1), detached=True)
        await mark()
        return "left" if leave else await child.result()

    async with worker(log, parent, card):
        assert await (await start(log, parent.bind(True))).result(10) == "left"
        await log.delete("f")

        with pytest.raises(FlowIdConflict, match="taken by another flow"):
            await (await start(log, parent.bind(False))).result(10)
        await let_go(log, "f/0:1")


# -- another attempt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("first", ["open", "ended"])
async def test_a_later_attempt_that_asks_for_another_child_gets_that_one(
    log: ExecutionLog, by_id: bool, first: str
) -> None:
    """The child of the attempt before stands under the same operation, and may end while this one waits."""
    attempts: list[str] = []

    @flow(retry=FAST)
    async def parent() -> str:
        attempts.append("")
        number = len(attempts)
        child = invoke(card.bind(number), id=f"card-{number}" if by_id else None)
        attempts[-1] = child.flow_id
        if number == 1:
            await mark()
            if first == "ended":
                await child.result()
            raise ConnectionError("down")
        return await child.result()

    async with worker(log, parent, card, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        if first == "ended":
            await let_go(log, "card-1" if by_id else "f/0:1")
        await until(lambda: len(attempts) == 2)
        if first == "open":
            await let_go(log, attempts[0])
        await let_go(log, attempts[1])

        assert await handle.result(10) == "card 2 paid"
    assert attempts == (["card-1", "card-2"] if by_id else ["f/0:1", "f/0:1~1"])


async def test_a_later_attempt_that_calls_a_step_in_the_place_of_a_child_goes_on_when_the_child_ends(
    log: ExecutionLog,
) -> None:
    """The child answers an operation of its parent that is a step now."""
    attempts = 0

    @step
    async def by_hand() -> str:
        return await wait_signal("paid by hand", str)

    @flow(retry=FAST)
    async def parent() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            invoke(card.bind(1))
            await mark()
            raise ConnectionError("down")
        return await by_hand()

    async with worker(log, parent, card, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        await until(lambda: attempts == 2)
        await let_go(log, "f/0:1")
        await handle.signal("paid by hand", "in coins")

        assert await handle.result(10) == "in coins"


@pytest.mark.every_log
async def test_a_later_attempt_finds_the_child_that_is_still_open(log: ExecutionLog) -> None:
    attempts: list[str] = []

    @flow(retry=FAST)
    async def parent() -> str:
        child = invoke(card.bind(1))
        attempts.append(child.flow_id)
        await mark()
        if len(attempts) == 1:
            raise ConnectionError("down")
        return await child.result()

    async with worker(log, parent, card):
        handle = await start(log, parent.bind())
        await until(lambda: len(attempts) == 2)
        await let_go(log, "f/0:1")

        assert await handle.result(10) == "card 1 paid"
    assert len(await children_of(log)) == 1


@pytest.mark.parametrize("stay", [True, False])
async def test_a_later_attempt_does_not_get_the_child_that_the_one_before_cancelled(
    log: ExecutionLog, stay: bool
) -> None:
    """A task group cancels the wait for a child when its other task fails; the flow tidies up and is tried again."""
    attempts: list[int] = []

    @step
    async def other() -> str:
        attempts.append(len(attempts))
        await until(lambda: log.find("f/0:1"))
        if len(attempts) == 1:
            raise ConnectionError("down")
        return "other"

    @flow(retry=FAST)
    async def parent() -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                one = group.create_task(invoke(card.bind(1)).result())
                two = group.create_task(other())
        except* ConnectionError:
            await wait_signal("tidy", str)
            raise
        return [one.result(), two.result()]

    async with worker(log, parent, card, evict_after_seconds=60 if stay else 0.01):
        handle = await start(log, parent.bind())
        await until(lambda: len(attempts) == 1)
        if not stay:
            await until_status(handle, "suspended")
        await handle.signal("tidy", "now")
        await let_go(log, "f/0:1~1")

        assert await handle.result(10) == ["card 1 paid", "other"]
    assert await children_of(log) == {"f/0:1": "cancelled", "f/0:1~1": "completed"}
    assert (await kinds(log)).count("abandoned") == 1


@pytest.mark.parametrize("by", ["the flow", "a step"])
async def test_a_child_that_an_attempt_gives_up_as_it_fails_is_cancelled_though_the_flow_is_tried_again(
    log: ExecutionLog, by: str
) -> None:
    """The next attempt may take another way: nobody would ever ask for that child again."""
    attempts: list[int] = []

    @step
    async def fails() -> None:
        await until(lambda: children_of(log))
        raise ConnectionError("down")

    @step
    async def pays() -> str:
        return await card(1)

    @flow(retry=FAST)
    async def parent() -> str:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(invoke(card.bind(1)).result() if by == "the flow" else pays())
                group.create_task(fails())
        return await wait_signal("go", str)

    async with worker(log, parent, card):
        handle = await start(log, parent.bind())
        await until(lambda: len(attempts) == 2)
        (child,) = await children_of(log)

        await until_status(handle_of(log, child), "cancelled")
        await handle.signal("go", "on")
        assert await handle.result(10) == "on"


async def test_a_flow_retried_by_hand_does_not_get_the_child_that_ended_with_it(log: ExecutionLog) -> None:
    """Its failure took the child along, which must not fail the next attempt too."""
    broken = True

    @flow
    async def parent() -> str:
        child = invoke(card.bind(1))
        await mark()
        if broken:
            raise ConnectionError("down")
        return await child.result()

    async with worker(log, parent, card):
        handle = await start(log, parent.bind())
        with pytest.raises(ConnectionError):
            await handle.result(10)
        await until_status(handle_of(log, "f/0:1"), "cancelled")
        broken = False
        await handle.retry()
        await let_go(log, "f/0:1~1")

        assert await handle.result(10) == "card 1 paid"


# -- a step that is given up -----------------------------------------------------------------------------------


@step
async def through_children() -> str:
    await asyncio.sleep(0.01)  # such as a request: a body that runs again asks only after it
    invoke(card.bind(2), id="detached", detached=True)
    return await invoke(card.bind(1), id="child").result()


@flow
async def gives_up() -> str:
    giving_up = asyncio.ensure_future(wait_signal("give up", str))
    working = asyncio.ensure_future(through_children())
    await asyncio.wait([giving_up, working], return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    return await wait_signal("end", str)


@pytest.mark.parametrize("restarted", [True, False])
async def test_a_step_that_is_given_up_takes_its_children_along_whoever_has_started_them(
    log: ExecutionLog, restarted: bool
) -> None:
    """Here the flow gives the step up before its body, which runs again, has come to its child."""
    handle = await start(log, gives_up.bind())
    async with worker(log, gives_up, evict_after_seconds=60):
        await until(lambda: log.find("child"))
        if not restarted:
            await handle.signal("give up", "now")
            await until_status(handle_of(log, "child"), "cancelled")
    if restarted:
        await handle.signal("give up", "now")
    async with worker(log, gives_up, card):
        await until_status(handle_of(log, "child"), "cancelled")
        await let_go(log, "detached")
        await until_status(handle, "suspended")
        await handle.signal("end", "ended")

        assert await handle.result(10) == "ended"
    assert (await kinds(log)).count("abandoned") == 1


async def test_a_later_attempt_whose_step_asks_again_does_not_get_the_child_that_was_given_up(
    log: ExecutionLog,
) -> None:
    """The step was given up together with its child; the next attempt runs it anew, with another child."""
    attempts: list[int] = []

    @step
    async def through_child() -> str:
        return await invoke(card.bind(1)).result()

    @flow(retry=FAST)
    async def parent() -> str:
        attempts.append(len(attempts))
        working = asyncio.ensure_future(through_child())
        if len(attempts) == 1:
            await wait_signal("give up", str)
            working.cancel()
            await wait_signal("fail", str)
            raise ConnectionError("down")
        return await working

    async with worker(log, parent, card, evict_after_seconds=60):
        handle = await start(log, parent.bind())
        await until(lambda: children_of(log))
        (first,) = await children_of(log)
        await handle.signal("give up", "now")
        await until_status(handle_of(log, first), "cancelled")
        await handle.signal("fail", "now")
        await let_go(log, f"{first}~1")

        assert await handle.result(10) == "card 1 paid"
    assert await children_of(log) == {first: "cancelled", f"{first}~1": "completed"}
