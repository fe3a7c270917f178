"""What comes for the flows that a worker runs."""

from __future__ import annotations

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    cancel,
    child,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    new_flow,
    parent_of,
    register,
    settle,
    signal,
)


async def test_arrivals_bring_each_message_for_the_workers_flows_past_the_cursor(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log, "mine")
    await claimed_flow(log, "theirs", "w2")
    await log.send(signal("mine", payload="1"))
    await log.send(signal("theirs", payload="2"))

    cursor, messages = await log.arrivals("w1", 0)
    assert [message.payload for message in messages] == ["1"]
    assert await log.arrivals("w1", cursor) == (cursor, [])
    await log.send(signal("theirs", payload="3"))
    await log.send(signal("mine", payload="4"))
    later, messages = await log.arrivals("w1", cursor)

    assert later > cursor
    assert [message.payload for message in messages] == ["4"]


async def test_arrivals_from_the_start_bring_what_is_unread(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    for payload in ("1", "2"):
        await log.send(signal("f1", payload=payload))
    first, second = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((first.id, 1),)))

    _, messages = await log.arrivals("w1", 0)

    assert messages == [second]


async def test_arrivals_bring_the_messages_of_a_flow_in_order(log: ExecutionLog) -> None:
    await register(log)
    for id in ("f1", "f2"):
        await claimed_flow(log, id)
    for n in range(10):
        await log.send(signal(f"f{n % 2 + 1}", payload=str(n)))

    _, messages = await log.arrivals("w1", 0)

    for id, parity in (("f1", 0), ("f2", 1)):
        assert [m.payload for m in messages if m.flow_id == id] == [str(n) for n in range(parity, 10, 2)]


async def test_arrivals_bring_nothing_for_flows_that_nobody_runs(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.create(new_flow("pending"))
    await settle(log, "f1", lease, TaskStatus.SUSPENDED)
    for id in ("f1", "pending"):
        await log.send(signal(id))

    assert (await log.arrivals("w1", 0))[1] == []


async def test_arrivals_bring_what_a_childs_end_and_a_cancel_put_into_the_inbox(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    await finish(log, "c", output="1")
    await log.send(cancel("p"))

    _, messages = await log.arrivals("w1", 0)

    assert [message.kind for message in messages] == ["child", "cancel"]


async def test_a_message_for_a_flow_is_lost_by_no_takeover(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log)
    await log.send(signal("f1", payload='"before"'))
    await log.retire("w1")
    await log.send(signal("f1", payload='"between"'))
    claimed = await claim_one(log, "f1", "w2")
    await log.send(signal("f1", payload='"after"'))

    _, arrived = await log.arrivals("w2", 0)

    assert (claimed.lease.worker, claimed.lease.claims) == ("w2", 2)
    assert [message.payload for message in claimed.inbox] == ['"before"', '"between"']
    assert [message.payload for message in arrived] == ['"before"', '"between"', '"after"']
