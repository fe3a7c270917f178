"""Values of any size and shape come back as they went in."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
)

LARGE_CHARS = 8 * 1024 * 1024 - 2


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000, 2_000_000])
async def test_payloads_of_any_size_come_back_whole(log: ExecutionLog, size: int) -> None:
    await register(log)
    payload = json.dumps("é" * (size // 2), ensure_ascii=False)
    await log.create(new_flow("f1", input=payload))
    claimed = await claim_one(log, "f1")
    await commit(log, Commit("f1", claimed.lease, (event(1, payload),), settled=Settled(TaskStatus.PENDING)))

    again = await claim_one(log, "f1")

    assert again.flow.input == payload
    assert again.events[0].payload == payload


async def test_an_input_of_8_mb_comes_back_whole(log: ExecutionLog) -> None:
    await register(log)
    large = json.dumps("i" * LARGE_CHARS)

    await log.create(new_flow("f1", input=large))

    assert (await record(log, "f1")).input == large
    assert (await claim_one(log, "f1")).flow.input == large


async def test_a_result_of_8_mb_comes_back_whole(log: ExecutionLog) -> None:
    await register(log)
    large = json.dumps("r" * LARGE_CHARS)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, (event(1, large),)))
    await settle(log, "f1", lease, output=large)

    assert (await log.history("f1"))[0].payload == large
    assert (await record(log, "f1")).output == large


async def test_a_signal_of_8_mb_comes_back_whole(log: ExecutionLog) -> None:
    await register(log)
    large = json.dumps("s" * LARGE_CHARS)
    await claimed_flow(log)

    await log.send(signal("f1", payload=large))

    assert (await log.inbox("f1"))[0].payload == large
    assert (await log.arrivals("w1", 0))[1][0].payload == large


async def test_a_childs_large_result_reaches_its_parent_whole(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    large = json.dumps("c" * (1024 * 1024))

    await finish(log, "c", output=large)

    (told,) = await log.inbox("p")
    assert json.loads(told.payload or "")["output"] == json.loads(large)


JSON = [
    "null",
    "0",
    "-0.0",
    "9007199254740993",
    "123456789012345678901234567890",
    "1e400",
    '"\\u0000"',
    '"\\ud800"',
    '{"a":1,"a":2}',
    '{ "spaced" : [ 1 , 2 ] }',
    '{"z":1,"a":2}',
    "[]",
    "{}",
    '""',
    '"\\/"',
    "[1.0,1.10,100000000000000000000.0]",
]


@pytest.mark.parametrize("text", JSON, ids=[str(n) for n in range(len(JSON))])
async def test_json_is_kept_as_the_text_it_is(log: ExecutionLog, text: str) -> None:
    """Digests are made of it, and a replay must see the very same."""
    await register(log)
    await log.create(new_flow("f1", input=text))
    claimed = await claim_one(log, "f1")
    await log.send(signal("f1", payload=text))
    await commit(log, Commit("f1", claimed.lease, (event(1, text),)))
    await settle(log, "f1", claimed.lease, output=text)

    flow = await record(log, "f1")
    assert (claimed.flow.input, flow.input, flow.output) == (text, text, text)
    assert (await log.history("f1"))[0].payload == text
    assert (await log.inbox("f1"))[0].payload == text


async def test_a_child_that_repeats_what_it_was_given_is_told_without_loss(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child(input='{"n":9007199254740993}', name='a "quoted" näme'))

    claimed = await claim_one(log, "c", names=())
    await settle(log, "c", claimed.lease, output="[1.5,9007199254740993]")

    said = json.loads((await log.inbox("p"))[0].payload or "")
    assert (said["input"], said["name"]) == ({"n": 9007199254740993}, 'a "quoted" näme')
    assert said["output"] == [1.5, 9007199254740993]


async def test_a_history_of_many_large_events_comes_back_in_order(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    for first in range(1, 21, 5):
        events = tuple(event(n, json.dumps(f"{n}" * 100_000)) for n in range(first, first + 5))
        await commit(log, Commit("f1", lease, events))

    found = await log.history("f1")

    assert [(e.seq, e.payload) for e in found] == [(n, json.dumps(f"{n}" * 100_000)) for n in range(1, 21)]


async def test_a_large_history_is_claimed_whole(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    for first in range(1, 5_001, 1_000):
        await commit(log, Commit("f1", lease, tuple(event(n) for n in range(first, first + 1_000))))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    claimed = await claim_one(log, "f1")

    assert [e.seq for e in claimed.events] == list(range(1, 5_001))
