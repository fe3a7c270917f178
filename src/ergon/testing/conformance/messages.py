"""Messages: kept in order, once for each key, consumed exactly once, and each wakes the flow it is for."""

from __future__ import annotations

import asyncio

import pytest

from ergon.core.commit import Commit, Message
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    cancel,
    claimed_flow,
    commit,
    event,
    is_near,
    new_flow,
    register,
    settle,
    signal,
)


async def test_a_message_is_kept_as_it_was_sent(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    await log.send(Message("f1", "signal", "approval", '{"by":"ann"}', "k"))

    (message,) = await log.inbox("f1")
    assert message[1:5] == ("f1", "signal", "approval", '{"by":"ann"}')
    assert is_near(message.at, log.now())


async def test_a_message_without_a_payload_differs_from_null(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    for payload in (None, "null", '""'):
        await log.send(signal("f1", payload=payload))

    assert [message.payload for message in await log.inbox("f1")] == [None, "null", '""']


async def test_messages_without_a_key_are_all_kept_in_order(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    for n in range(12):
        await log.send(signal("f1", payload=str(n % 3)))

    received = await log.inbox("f1")
    assert [message.payload for message in received] == [str(n % 3) for n in range(12)]
    assert [message.id for message in received] == sorted({message.id for message in received})


async def test_messages_sent_at_once_keep_the_order_of_sending(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    await asyncio.gather(*(log.send(signal("f1", payload=str(n))) for n in range(100)))

    assert [message.payload for message in await log.inbox("f1")] == [str(n) for n in range(100)]


async def test_a_message_that_is_there_comes_before_one_that_is_sent_later_whatever_their_names(
    log: ExecutionLog,
) -> None:
    await log.create(new_flow("f1"))

    for name in ("b", "a", "c", "a"):
        await log.send(signal("f1", name))

    assert [message.name for message in await log.inbox("f1")] == ["b", "a", "c", "a"]


async def test_a_message_with_a_key_is_kept_once_however_often_it_is_sent(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    for n in range(3):
        await log.send(signal("f1", payload=str(n), key="k"))
    await asyncio.gather(*(log.send(signal("f1", payload=str(n), key="k")) for n in range(20)))

    assert [message.payload for message in await log.inbox("f1")] == ["0"]


async def test_of_many_who_send_one_key_at_once_exactly_one_is_heard(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    await asyncio.gather(*(log.send(signal("f1", payload=str(n), key="k")) for n in range(20)))

    assert len(await log.inbox("f1")) == 1


async def test_a_key_counts_for_its_flow_kind_and_name_only(log: ExecutionLog) -> None:
    for id in ("f1", "f2"):
        await log.create(new_flow(id))

    for message in (
        signal("f1", "go", key="k"),
        signal("f1", "go", key="other"),
        signal("f1", "else", key="k"),
        signal("f2", "go", key="k"),
        Message("f1", "made_up", "go", "1", "k"),
    ):
        await log.send(message)

    assert len(await log.inbox("f1")) == 4
    assert len(await log.inbox("f2")) == 1


async def test_keys_and_names_with_separators_are_not_mistaken_for_one_another(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    pairs = [
        ("a:b", "c"),
        ("a", "b:c"),
        ("a b", "c"),
        ("a", "b c"),
        ("a|b", "c"),
        ("a", "b|c"),
        ("a/b", "c"),
        ("a", "b/c"),
    ]
    for name, key in pairs:
        await log.send(signal("f1", name, key=key))

    assert len(await log.inbox("f1")) == len(pairs)


async def test_a_repeated_key_stays_consumed(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="k"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((message.id, 1),)))

    await log.send(signal("f1", key="k"))

    assert await log.inbox("f1") == []


async def test_the_log_tells_whether_a_key_was_ever_sent(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="unread"))
    await log.send(signal("f1", key="read"))
    (_, read) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((read.id, 1),)))
    await settle(log, "f1", lease)

    assert await log.has_key(signal("f1", key="unread"))
    assert await log.has_key(signal("f1", key="read"))
    for message in (
        signal("f1", key="never"),
        signal("f1", "else", key="read"),
        signal("f1"),
        signal("f2", key="read"),
        Message("f1", "made_up", "go", "1", "read"),
    ):
        assert not await log.has_key(message)


async def test_sending_to_no_flow_is_refused(log: ExecutionLog) -> None:
    for message in (signal("nobody"), signal("nobody", key="k"), cancel("nobody")):
        with pytest.raises(FlowNotFound):
            await log.send(message)

    assert await log.inbox("nobody") == []
    assert not await log.has_key(signal("nobody", key="k"))


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_sending_to_a_flow_that_has_ended_is_refused(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), status)

    for message in (signal("f1"), signal("f1", key="k"), cancel("f1")):
        with pytest.raises(IllegalMove):
            await log.send(message)

    assert await log.inbox("f1") == []


async def test_repeating_a_key_to_a_flow_that_has_ended_changes_nothing(log: ExecutionLog) -> None:
    """Whoever did not hear the answer to the first sending repeats it, and was heard."""
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="early"))
    await settle(log, "f1", lease)
    before = await log.inbox("f1")

    await log.send(signal("f1", key="early"))

    assert await log.inbox("f1") == before


async def test_one_refused_message_does_not_keep_the_others_of_its_batch(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    answers = await asyncio.gather(
        log.send(signal("f1")), log.send(signal("nobody")), log.send(signal("f1")), return_exceptions=True
    )

    assert [type(one) for one in answers] == [type(None), FlowNotFound, type(None)]
    assert len(await log.inbox("f1")) == 2
