"""A message is taken once, with the event that accounts for it; a signal that nobody received may be given back."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit
from ergon.errors import IllegalMove
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    cancel,
    claimed_flow,
    commit,
    event,
    register,
    signal,
)


async def test_consuming_a_message_and_its_event_is_one_act(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", payload='"a"'))
    await log.send(signal("f1", payload='"b"'))
    first, second = await log.inbox("f1")

    await commit(log, Commit("f1", lease, (event(1),), consumed=((first.id, 1),)))

    assert await log.inbox("f1") == [second]
    assert await log.history("f1") == [event(1)]


async def test_a_message_is_consumed_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((message.id, 1),)))

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(2),), consumed=((message.id, 2),)))

    assert await log.history("f1") == [event(1)]


async def test_a_signal_that_nobody_received_is_unread_again_in_its_old_place(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    for payload in ("1", "2", "3"):
        await log.send(signal("f1", payload=payload))
    first, second, third = await log.inbox("f1")
    consumed = ((first.id, 1), (second.id, 2))
    await commit(log, Commit("f1", lease, (event(1), event(2)), consumed=consumed))

    await commit(log, Commit("f1", lease, (event(3),), returned=(1,)))

    assert await log.inbox("f1") == [first, third]


async def test_a_returned_signal_can_be_consumed_once_more(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((message.id, 1),)))
    await commit(log, Commit("f1", lease, (event(2),), returned=(1,)))

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(3),), returned=(1,)))
    await commit(log, Commit("f1", lease, (event(3),), consumed=((message.id, 3),)))

    assert await log.inbox("f1") == []


async def test_only_signals_are_returned(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(cancel("f1"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((message.id, 1),)))

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(2),), returned=(1,)))

    assert await log.inbox("f1") == []
