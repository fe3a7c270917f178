"""Opening, closing, and whoever is interrupted while it waits for an answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ergon.core.commit import Commit, FlowFilter, Lease
from ergon.errors import LogClosed
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    record,
    register,
    signal,
    until,
    worker_record,
)
from ergon.testing.conformance.store import Store


async def cancel_after(turns: int, coroutine: Any) -> None:
    """Run it, and cancel it after so many turns of the loop."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def open_files() -> int:
    """How many files and connections this process has open; 0 where the system does not tell."""
    try:
        return len([*Path("/proc/self/fd").iterdir()])
    except OSError:
        return 0


async def test_a_log_that_is_closed_leaves_no_file_and_no_connection_open(store: Store) -> None:
    async with store.open() as log:  # what a process opens once
        await log.create(new_flow("f"))
    before = open_files()

    for number in range(5):
        async with store.open() as log:
            await register(log)
            lease = await claimed_flow(log, f"f{number}")
            await commit(log, Commit(f"f{number}", lease, (event(1),)))
            await log.history(f"f{number}")

    await until(lambda: open_files() <= before)


async def test_connecting_twice_changes_nothing(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    assert await log.connect() is log

    assert await log.find("f1") is not None


async def test_connecting_several_times_at_once_is_connecting_once(store: Store) -> None:
    log = store.open()

    await asyncio.gather(*(log.connect() for _ in range(5)))

    assert await log.create(new_flow("f1")) is None
    assert await log.find("f1") is not None
    await log.close()


async def test_a_log_that_was_never_connected_says_so(store: Store) -> None:
    log = store.open()

    with pytest.raises(LogClosed):
        await log.find("f1")
    with pytest.raises(LogClosed):
        await log.create(new_flow("f1"))
    with pytest.raises(LogClosed):
        await commit_all(log, Commit("f1", Lease("w1", 1)))
    await log.close()


async def test_a_closed_log_answers_every_question_with_log_closed(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.close()

    for ask in (
        log.find("f1"),
        log.history("f1"),
        log.inbox("f1"),
        log.list(FlowFilter()),
        log.count(FlowFilter()),
        log.workers(),
        log.next_wake(["order"]),
        log.arrivals("w1", 0),
        log.lost("w1", [("f1", 1)]),
        log.ended_or_parked(["f1"]),
        log.create(new_flow("f2")),
        log.send(signal("f1")),
        log.delete("f1"),
        log.retry_now("f1"),
        log.reschedule("f1"),
        log.register(worker_record(), lease_seconds=1),
        log.renew("w1", lease_seconds=1),
        log.note_draining("w1"),
        log.retire("w1"),
        log.reap(),
        log.disown("w1", []),
        log.durability(),
        claim(log),
        commit(log, Commit("f1", lease, (event(1),))),
    ):
        with pytest.raises(LogClosed):
            await ask


async def test_closing_twice_changes_nothing(log: ExecutionLog) -> None:
    await log.close()
    await log.close()
    await asyncio.gather(log.close(), log.close())


async def test_closing_what_was_never_connected_changes_nothing(store: Store) -> None:
    log = store.open()

    await log.close()

    async with log:
        assert await log.find("f1") is None


async def test_a_closed_log_can_be_connected_again(log: ExecutionLog) -> None:
    await log.close()

    await log.connect()

    assert await log.create(new_flow("again")) is None
    assert (await record(log, "again")).id == "again"


async def test_closing_finishes_what_was_submitted(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    answers: list[BaseException | None] = []
    for n in range(1, 101):
        log.submit(Commit("f1", lease, (event(n),)), answers.append)

    await log.close()

    assert answers == [None] * 100


async def test_a_callback_that_raises_does_not_keep_others_waiting(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(_: BaseException | None) -> None:
        raise ZeroDivisionError

    log.submit(Commit("f1", lease, (event(1),)), fail)
    await commit(log, Commit("f1", lease, (event(2),)))

    assert len(await log.history("f1")) == 2
    await until(lambda: reported)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_answers_are_given_outside_of_any_task(log: ExecutionLog) -> None:
    """A turn of a flow runs from them, and it has a task of its own."""
    await register(log)
    lease = await claimed_flow(log)
    tasks: list[object] = []

    log.submit(Commit("f1", lease, (event(1),)), lambda _: tasks.append(asyncio.current_task()))
    await until(lambda: tasks)

    assert tasks == [None]


async def test_an_answer_may_submit_the_next_commit(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    done = asyncio.get_running_loop().create_future()

    def go_on(error: BaseException | None, seq: int = 1) -> None:
        if error is not None or seq > 50:
            done.set_result(error)
        else:
            log.submit(Commit("f1", lease, (event(seq),)), lambda error: go_on(error, seq + 1))

    go_on(None)

    assert await done is None
    assert [e.seq for e in await log.history("f1")] == list(range(1, 51))


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_whoever_stops_waiting_for_a_write_disturbs_nobody(log: ExecutionLog, turns: int) -> None:
    """It may have happened or not; repeating it is safe, and the log goes on."""
    await register(log)
    await log.create(new_flow("f1"))

    await cancel_after(turns, log.create(new_flow("f2")))
    await cancel_after(turns, log.send(signal("f1", key="k")))
    await cancel_after(turns, log.renew("w1", lease_seconds=30))

    await log.create(new_flow("f2"))
    await log.send(signal("f1", key="k"))
    assert (await record(log, "f2")).id == "f2"
    assert len(await log.inbox("f1")) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_whoever_stops_waiting_for_a_read_disturbs_nobody(log: ExecutionLog, turns: int) -> None:
    await register(log)
    await log.create(new_flow("f1"))

    for ask in (log.find("f1"), log.list(FlowFilter()), log.history("f1"), log.workers(), log.reap()):
        await cancel_after(turns, ask)

    assert (await record(log, "f1")).id == "f1"
    assert len(await log.workers()) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_claim_that_is_cancelled_at_any_moment_leaves_no_flow_behind(
    log: ExecutionLog, turns: int
) -> None:
    await register(log)
    for n in range(3):
        await log.create(new_flow(f"f{n}"))

    await cancel_after(turns, claim(log))
    claimed: set[tuple[str, int]] = set()

    async def all_are_claimed() -> bool:
        # A claim that was answered at the very moment it was cancelled is one whose answer was lost.
        known = [(one.flow.id, one.lease.epoch) for one in await claim(log)]
        claimed.update(known)
        await log.disown("w1", list(claimed))
        return {flow_id for flow_id, _ in claimed} == {"f0", "f1", "f2"}

    await until(all_are_claimed)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
async def test_a_log_whose_closing_was_cancelled_can_be_closed_and_connected_again(
    store: Store, turns: int
) -> None:
    log = store.open()
    await log.connect()
    await log.create(new_flow("f1"))

    await cancel_after(turns, log.close())

    await log.close()
    async with log:
        assert await log.create(new_flow("f2")) is None


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_log_whose_connecting_was_cancelled_can_be_connected_again(store: Store, turns: int) -> None:
    log = store.open()

    await cancel_after(turns, log.connect())

    async with log:
        assert await log.create(new_flow("f1")) is None
        assert (await record(log, "f1")).id == "f1"


async def test_the_log_says_what_it_survives_and_by_which_settings(log: ExecutionLog) -> None:
    graded = await log.durability()

    assert graded.level in ("D0", "D1", "D2", "D3", "D4")
    assert graded.settings
    assert all(isinstance(value, str) for value in graded.settings.values())
    assert graded.level == "D4" or graded.limits, "below the highest it says what keeps it there"
    assert all(graded.limits)
    assert all(graded.notes)


async def test_what_the_log_survives_is_the_same_however_often_one_asks(log: ExecutionLog) -> None:
    assert (await log.durability()).level == (await log.durability()).level


async def test_the_log_has_a_name_for_other_processes(log: ExecutionLog) -> None:
    scheme, colon, _ = log.url.partition(":")

    assert scheme
    assert colon


async def test_a_log_that_is_left_by_an_error_is_closed(store: Store) -> None:
    log = store.open()

    with pytest.raises(ZeroDivisionError):
        async with log:
            raise ZeroDivisionError

    with pytest.raises(LogClosed):
        await log.find("f1")
