"""How a parent hears that its child has ended: once for each end, and again when it asks again."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    cancel,
    child,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    finish,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    status_of,
)


async def test_a_parent_hears_once_how_its_child_ended(log: ExecutionLog) -> None:
    await register(log)
    parent = await claimed_flow(log, "p")
    child = new_flow("c", parent_id="p", parent_op="0:3")
    await commit(log, Commit("p", parent, children=(child,), settled=Settled(TaskStatus.SUSPENDED)))
    claimed = await claim_one(log, "c")

    await settle(log, "c", claimed.lease, TaskStatus.FAILED, output='{"type":"Boom"}')

    assert await status_of(log, "p") is TaskStatus.PENDING
    (told,) = await log.inbox("p")
    assert (told.kind, told.name) == ("child", "0:3")
    which = {"flow_id": "c", "name": "order", "input": {}}
    assert json.loads(told.payload or "") == {**which, "status": "failed", "output": {"type": "Boom"}}


async def test_a_child_that_ended_is_told_again_to_a_parent_that_asks_again(log: ExecutionLog) -> None:
    """A later attempt of the parent asks for the same child, which has said all it had to say."""
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, TaskStatus.FAILED, output='{"type":"Boom"}')
    (first,) = await log.inbox("p")
    ask = Commit("p", lease, children=(child(),))

    await commit(log, ask)
    assert await log.inbox("p") == [first]
    await commit(log, Commit("p", lease, (event(1),), ((first.id, 1),)))
    await commit(log, ask)
    await commit(log, ask)

    (again,) = await log.inbox("p")
    assert (again.kind, again.name, again.payload) == (first.kind, first.name, first.payload)
    which = {"flow_id": "c", "name": "order", "input": {}}
    assert json.loads(again.payload or "") == {**which, "status": "failed", "output": {"type": "Boom"}}


async def test_a_parent_hears_of_each_end_of_a_child_that_is_tried_again(log: ExecutionLog) -> None:
    """It was told that the child failed, and may wait for it once more by now."""
    await register(log)
    await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, TaskStatus.FAILED, output='{"type":"Boom"}')
    await log.move("c", TaskStatus.PENDING)

    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")

    told = [json.loads(message.payload or "")["status"] for message in await log.inbox("p")]
    assert told == ["failed", "completed"]


async def test_a_parent_hears_of_a_child_that_was_deleted_and_started_again(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")
    await log.delete("c")
    await commit(log, Commit("p", lease, children=(child(),)))

    await settle(log, "c", (await claim_one(log, "c")).lease, output="2")

    assert [json.loads(message.payload or "")["output"] for message in await log.inbox("p")] == [1, 2]


async def test_a_child_that_ended_wakes_the_parent_that_asks_again_and_sleeps(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")
    (first,) = await log.inbox("p")
    await commit(log, Commit("p", lease, (event(1),), ((first.id, 1),)))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.SUSPENDED)))

    assert await status_of(log, "p") is TaskStatus.PENDING
    assert len(await log.inbox("p")) == 1


@pytest.mark.parametrize(
    "status, reason, output",
    [
        (TaskStatus.COMPLETED, "", '{"x":[1,2]}'),
        (TaskStatus.FAILED, "", '{"type":"Boom"}'),
        (TaskStatus.CANCELLED, "enough", None),
    ],
)
async def test_a_parent_hears_which_child_ended_and_how(
    log: ExecutionLog, status: TaskStatus, reason: str, output: str | None
) -> None:
    await register(log)
    await parent_of(log, child(name="order", input='{"n":1}'))

    await finish(log, "c", status, output=output, reason=reason)

    (told,) = await log.inbox("p")
    said = json.loads(told.payload or "")
    assert (said["flow_id"], said["name"], said["input"]) == ("c", "order", {"n": 1})
    assert (said["status"], said["output"]) == (status.value, json.loads(output) if output else None)
    assert said.get("reason", "") == reason


async def test_the_end_of_a_child_wakes_its_sleeping_parent(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "p", lease, TaskStatus.SUSPENDED, wake_at=log.now() + 3600)

    await finish(log, "c", output="1")

    flow = await record(log, "p")
    assert (flow.status, flow.wake_at) == (TaskStatus.PENDING, None)
    assert [message.name for message in (await claim_one(log, "p")).inbox] == ["0:3"]


async def test_the_end_of_a_child_does_not_wake_a_parent_that_is_held_back(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    await log.move("p", TaskStatus.PAUSED)

    await finish(log, "c", output="1")

    assert await status_of(log, "p") is TaskStatus.PAUSED
    assert len(await log.inbox("p")) == 1


async def test_a_parent_that_has_ended_hears_nothing(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child(close_with_parent=False))
    await settle(log, "p", lease)

    await finish(log, "c", output="1")

    assert await log.inbox("p") == []
    assert await status_of(log, "p") is TaskStatus.COMPLETED


async def test_a_child_that_sleeps_or_is_parked_has_not_ended(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child("asleep", "0:1"), child("parked", "0:2"), child("back", "0:3"))

    await finish(log, "asleep", TaskStatus.SUSPENDED)
    await finish(log, "parked", TaskStatus.PARKED)
    await finish(log, "back", TaskStatus.PENDING)

    assert await log.inbox("p") == []


async def test_a_child_that_is_killed_tells_its_parent(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    await claim_one(log, "c")

    await log.move("c", TaskStatus.CANCELLED, reason="operator")

    (told,) = await log.inbox("p")
    said = json.loads(told.payload or "")
    assert (said["status"], said["reason"]) == ("cancelled", "operator")


async def test_a_cancelled_child_that_never_started_tells_its_parent(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())

    await log.send(cancel("c"))

    (told,) = await log.inbox("p")
    which = {"flow_id": "c", "name": "order", "input": {}}
    why = "cancelled before it started"
    assert json.loads(told.payload or "") == {**which, "status": "cancelled", "output": None, "reason": why}


async def test_many_children_that_end_at_once_are_all_told(log: ExecutionLog) -> None:
    await register(log)
    count = 60
    lease = await parent_of(log, *(child(f"c{n}", f"0:{n}") for n in range(count)))
    await settle(log, "p", lease, TaskStatus.SUSPENDED)
    leases = [(await claim_one(log, f"c{n}")).lease for n in range(count)]

    errors = await commit_all(
        log,
        *(
            Commit(f"c{n}", lease, settled=Settled(TaskStatus.COMPLETED, str(n)))
            for n, lease in enumerate(leases)
        ),
    )

    assert errors == [None] * count
    told = [json.loads(message.payload or "")["output"] for message in (await claim_one(log, "p")).inbox]
    assert sorted(told) == list(range(count))
