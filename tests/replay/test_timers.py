"""Timers: armed by plain asyncio, fired by events, cancelled without a trace."""

from __future__ import annotations

import asyncio

import ergon
from tests.replay.rig import STARTED_AT, Rig, charge, replay


def test_a_timer_cancelled_between_commit_and_delivery_is_left_behind() -> None:
    async def flow() -> str:
        async with asyncio.timeout(60):
            paid = await charge(1)
        await asyncio.sleep(5)
        return paid

    rig = Rig(flow).completes("charge", "paid").rings().land()
    assert rig.machine.stopped is None
    rig.rings().land()

    assert rig.result == "paid"
    assert [event.op for event in rig.rows] == ["0:1", "0:t1", "0:t2"]
    assert replay(flow, rig).result == "paid"


def test_a_step_whose_result_comes_after_its_timeout_in_one_commit_is_left_behind() -> None:
    async def flow() -> str:
        try:
            async with asyncio.timeout(60):
                return await charge(1)
        except TimeoutError:
            return "too late"

    rig = Rig(flow).rings().completes("charge", "paid").land()

    assert rig.result == "too late"
    assert replay(flow, rig).result == "too late"


def test_rescheduling_a_timeout_abandons_the_old_timer_for_one_with_the_next_id() -> None:
    async def flow() -> str:
        async with asyncio.timeout(10) as limit:
            await charge(1)
            limit.reschedule(asyncio.get_running_loop().time() + 100)
            await charge(2)
        return "in time"

    rig = Rig(flow)
    assert [timer.op for timer in rig.machine.loop.armed()] == ["0:t1"]
    rig.completes("charge").land()
    assert [(timer.op, timer.when()) for timer in rig.machine.loop.armed()] == [("0:t2", STARTED_AT + 101)]
    rig.completes("charge").land()

    assert rig.result == "in time"
    assert rig.machine.loop.armed() == []


def test_due_timers_that_are_cancelled_by_an_earlier_one_do_not_fire() -> None:
    async def flow() -> str:
        later = asyncio.ensure_future(asyncio.sleep(2))
        await asyncio.sleep(1)
        later.cancel()
        await asyncio.wait([later])
        return "cancelled" if later.cancelled() else "fired"

    rig = Rig(flow)
    due = rig.machine.loop.take_due(STARTED_AT + 10)
    assert [timer.op for timer in due] == ["0:t1", "0/1:t1"]
    for timer in due:
        rig._announce("timer_fired", op=timer.op, at=STARTED_AT + 10)
    rig.land()

    assert rig.result == "cancelled"
    assert rig.machine.loop.take_due(STARTED_AT + 10) == []
    assert replay(flow, rig).result == "cancelled"


def test_timers_due_together_fire_in_the_order_they_were_armed() -> None:
    async def flow() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_later(5, order.append, number)
        await asyncio.sleep(6)
        return order

    rig = Rig(flow)
    for timer in rig.machine.loop.take_due(STARTED_AT + 9):
        rig._announce("timer_fired", op=timer.op, at=STARTED_AT + 9)
    rig.land()

    assert rig.result == list(range(20))


def test_wait_for_and_timeout_give_the_same_ids_on_every_version() -> None:
    async def flow() -> None:
        await asyncio.wait_for(charge(1), 5)
        await asyncio.gather(asyncio.wait_for(charge(2), 5), asyncio.wait_for(asyncio.sleep(1), 5))
        async with asyncio.timeout(5):
            await charge(3)

    rig = Rig(flow)
    assert (rig.ids(), [timer.op for timer in rig.machine.loop.armed()]) == (["0:1"], ["0:t1"])
    rig.completes("charge").land()
    assert rig.ids() == ["0/1:1"]
    assert [timer.op for timer in rig.machine.loop.armed()] == ["0/2:t2", "0/1:t1", "0/2:t1"]


def test_wait_for_nothing_at_all_starts_the_awaitable_as_a_task_and_cancels_it() -> None:
    async def flow() -> None:
        await asyncio.wait_for(charge(1), 0)

    rig = Rig(flow)

    assert isinstance(rig.machine.root.exception(), TimeoutError)  # type: ignore[union-attr]
    assert rig.asked() == []


def test_flow_time_is_that_of_the_last_event_and_never_goes_back() -> None:
    async def flow() -> list[float]:
        times = [ergon.now().timestamp()]
        for _ in range(2):
            await charge(1)
            times.append(ergon.now().timestamp())
        return times

    rig = Rig(flow).completes("charge").land()
    rig._announce(
        "step_completed",
        op="0:2",
        name="charge",
        digest=rig.machine.pending["0:2"].digest,
        payload='""',
        at=1.0,
    )
    rig.land()

    assert rig.result == [STARTED_AT, STARTED_AT + 1, STARTED_AT + 1]


def test_sleep_of_zero_or_less_takes_no_timer() -> None:
    async def flow() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(-1)
        asyncio.get_running_loop().call_later(0, lambda: None)
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        return "woken"

    rig = Rig(flow)

    assert [timer.op for timer in rig.machine.loop.armed()] == ["0:t1"]


def test_a_named_timer_says_its_name_and_where_it_waits() -> None:
    async def flow() -> None:
        await ergon.schedule_timer_named(5, "cooling")

    (timer,) = Rig(flow).machine.loop.armed()

    line = flow.__code__.co_firstlineno + 1
    assert str(timer) == f"timer `cooling` as operation 0:t1 (test_timers.py:{line})"
