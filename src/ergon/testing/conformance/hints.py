"""Whoever listens hears that something changed, and may look sooner."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ergon.core.commit import Commit, Hint
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    child,
    claim,
    claimed_flow,
    commit,
    event,
    finish,
    kill_worker,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    until,
)


def listen(log: ExecutionLog) -> list[Hint]:
    """What is heard from now on."""
    heard: list[Hint] = []
    log.subscribe(heard.append)
    return heard


async def hear(heard: list[Hint], what: Callable[[Hint], object]) -> None:
    """Wait for a hint of this. One that anything may have changed tells it too."""
    await until(lambda: any(hint.elsewhere or what(hint) for hint in heard))


async def test_a_listener_hears_of_a_new_flow(log: ExecutionLog) -> None:
    heard = listen(log)

    await log.create(new_flow())

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_when_a_new_flow_becomes_ready_by_time(log: ExecutionLog) -> None:
    heard = listen(log)

    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))

    wake_at = (await record(log, "f1")).wake_at or 0.0
    await hear(heard, lambda hint: hint.wake_at is not None and abs(hint.wake_at - wake_at) < 0.01)


async def test_a_listener_hears_of_a_message(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    heard = listen(log)

    await log.send(signal("f1"))

    await hear(heard, lambda hint: "f1" in hint.inbox)


async def test_a_listener_hears_of_a_flow_that_a_message_woke(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED)
    heard = listen(log)

    await log.send(signal("f1"))

    await hear(heard, lambda hint: hint.ready)


@pytest.mark.parametrize(
    "status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.PARKED]
)
async def test_a_listener_hears_of_a_flow_that_ended_or_was_parked(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    heard = listen(log)

    await settle(log, "f1", lease, status)

    await hear(heard, lambda hint: "f1" in hint.settled)


async def test_a_listener_hears_of_a_flow_that_was_killed(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    heard = listen(log)

    await log.move("f1", TaskStatus.CANCELLED)

    await hear(heard, lambda hint: "f1" in hint.settled)


async def test_a_listener_hears_of_a_running_flow_that_was_paused(log: ExecutionLog) -> None:
    """Its owner may stop its steps at once instead of at its next look."""
    await register(log)
    await claimed_flow(log)
    heard = listen(log)

    await log.move("f1", TaskStatus.PAUSED)

    await hear(heard, lambda hint: "f1" in hint.settled)


async def test_a_listener_hears_of_a_resumed_flow(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.PAUSED)
    heard = listen(log)

    await log.move("f1", TaskStatus.PENDING)

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_of_a_flow_that_was_given_back(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    heard = listen(log)

    await settle(log, "f1", lease, TaskStatus.PENDING)

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_until_when_a_flow_sleeps(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    heard = listen(log)
    wake_at = log.now() + LONG_SECONDS

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=wake_at)

    await hear(heard, lambda hint: hint.wake_at is not None and abs(hint.wake_at - wake_at) < 0.01)


async def test_a_listener_hears_of_the_flows_of_a_dead_worker(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)
    heard = listen(log)

    await kill_worker(log, "w1")

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_of_the_flows_of_a_worker_that_retired(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)
    heard = listen(log)

    await log.retire("w1")

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_of_a_child(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    heard = listen(log)

    await commit(log, Commit("p", lease, (event(1),), children=(child(),)))

    await hear(heard, lambda hint: hint.ready)


async def test_a_listener_hears_that_a_parent_was_told(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    heard = listen(log)

    await finish(log, "c", output="1")

    await hear(heard, lambda hint: "p" in hint.inbox)


async def test_a_listener_hears_of_another_start_time(log: ExecutionLog) -> None:
    await log.create(new_flow("f1", delay_seconds=2 * LONG_SECONDS))
    heard = listen(log)

    at = (await log.reschedule("f1", delay_seconds=LONG_SECONDS)).wake_at or 0.0
    await hear(heard, lambda hint: hint.wake_at is not None and abs(hint.wake_at - at) < 0.01)
    heard.clear()
    await log.reschedule("f1")

    await hear(heard, lambda hint: hint.ready)


async def test_whoever_stopped_listening_hears_no_more(log: ExecutionLog) -> None:
    heard, others = list[Hint](), listen(log)
    stop = log.subscribe(heard.append)
    await log.create(new_flow())
    await until(lambda: heard and others)

    stop()
    stop()
    heard.clear()
    others.clear()
    await log.create(new_flow())
    await until(lambda: others)

    assert heard == []


async def test_one_function_may_listen_twice_and_stop_once(log: ExecutionLog) -> None:
    heard: list[Hint] = []
    stop = log.subscribe(heard.append)
    log.subscribe(heard.append)

    stop()
    await log.create(new_flow())

    await until(lambda: heard)


async def test_a_listener_is_called_on_the_event_loop(log: ExecutionLog) -> None:
    threads: set[int] = set()
    log.subscribe(lambda _: threads.add(threading.get_ident()))

    await log.create(new_flow())
    await until(lambda: threads)

    assert threads == {threading.get_ident()}


async def test_a_listener_that_raises_does_not_disturb_the_others(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Hint] = []

    def fail(_: Hint) -> None:
        raise ZeroDivisionError

    log.subscribe(fail)
    log.subscribe(heard.append)

    await log.create(new_flow())
    await until(lambda: heard)

    assert any(record.name == "ergon.storage" and record.exc_info for record in caplog.records)
    await log.create(new_flow())


async def test_a_listener_may_stop_itself_and_start_another(log: ExecutionLog) -> None:
    heard: list[str] = []

    def first(_: Hint) -> None:
        heard.append("first")
        stop()
        log.subscribe(lambda _: heard.append("second"))

    stop = log.subscribe(first)
    await log.create(new_flow())
    await until(lambda: heard)
    await log.create(new_flow())
    await until(lambda: "second" in heard)

    assert heard.count("first") == 1


async def test_work_is_found_without_any_hint(log: ExecutionLog) -> None:
    """They shorten the wait, and nothing rests on them."""
    await register(log)
    log.subscribe(lambda _: None)()
    await log.create(new_flow("f1"))

    assert [one.flow.id for one in await claim(log)] == ["f1"]
