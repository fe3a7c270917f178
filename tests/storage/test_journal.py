"""Conformance: what owners write."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import ChildCancel, Commit, FlowFilter, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost
from tests.storage.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    register,
    settle,
    signal,
    status_of,
)


async def test_events_come_back_as_they_were_written_in_order(log):
    await register(log)
    lease = await claimed_flow(log)
    events = [event(n, at=1_800_000_000 + n * 0.1) for n in range(1, 8)]

    await commit(log, Commit("f1", lease, tuple(events[:3])))
    await commit(log, Commit("f1", lease, tuple(events[3:])))

    assert await log.history("f1") == events
    assert await log.history("f1", after=5) == events[5:]
    assert await log.history("f1", after=1, limit=2) == events[1:3]


@pytest.mark.parametrize(
    "at", [0.1, 1.0, 1_795_227_998.7339137, 253_402_300_799.999, 4_102_444_800.0000005, 0.0]
)
async def test_the_time_of_an_event_is_kept_to_the_last_bit(log, at):
    """Flow time is the time of the last event: replay must see the very same number."""
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, (event(1, at=at),)))

    assert (await log.history("f1"))[0].at == at


@pytest.mark.parametrize("stale", [Lease("w1", 0), Lease("w1", 2), Lease("w2", 1), Lease("", 1)])
async def test_a_commit_under_a_lease_that_is_not_current_writes_nothing(log, stale):
    await register(log)
    await log.create(new_flow("child-of-nobody"))
    await claimed_flow(log)

    for extra in (
        Commit("f1", stale, (event(1),)),
        Commit("f1", stale, settled=Settled(TaskStatus.COMPLETED, "1")),
        Commit("f1", stale, cancels=(ChildCancel("child-of-nobody", "0:1", "1"),)),
        Commit("f1", stale, children=(new_flow("c1"),)),
        Commit("f1", stale, (event(1),), settled=Settled(TaskStatus.SUSPENDED)),
    ):
        with pytest.raises(LeaseLost) as lost:
            await commit(log, extra)
        assert "void" not in str(lost.value), "whoever runs the flow says so, once"

    assert await log.history("f1") == []
    assert await status_of(log, "f1") is TaskStatus.RUNNING
    assert await log.find("c1") is None
    assert await log.inbox("child-of-nobody") == []


async def test_each_commit_of_a_batch_succeeds_or_fails_on_its_own(log):
    await register(log)
    leases = {n: await claimed_flow(log, f"f{n}") for n in range(20)}
    commits = [
        Commit(f"f{n}", lease if n % 3 else Lease("w1", 99), (event(1, payload=str(n)),))
        for n, lease in leases.items()
    ]

    errors = await commit_all(log, *commits)

    for n, error in enumerate(errors):
        if n % 3:
            assert error is None
            assert [e.payload for e in await log.history(f"f{n}")] == [str(n)]
        else:
            assert isinstance(error, LeaseLost)
            assert await log.history(f"f{n}") == []


async def test_a_commit_with_one_refused_part_leaves_none_of_its_parts(log):
    await register(log)
    lease = await claimed_flow(log)
    other = await claimed_flow(log, "f2")
    await commit(log, Commit("f1", lease, (event(1),)))

    errors = await commit_all(
        log,
        Commit("f2", other, (event(1),)),
        Commit("f1", lease, (event(2), event(1, "other")), children=(new_flow("c1"),)),
    )

    assert errors[0] is None
    assert isinstance(errors[1], IllegalMove)
    assert len(await log.history("f1")) == 1
    assert await log.find("c1") is None
    assert await log.inbox("f2") == []


async def test_repeating_a_commit_that_landed_succeeds_and_changes_nothing(log):
    """A lost reply is not a failure: the same commit may be submitted again, even after the lease is gone."""
    await register(log)
    lease = await claimed_flow(log)
    step = Commit("f1", lease, (event(1),))
    last = Commit("f1", lease, (event(2),), settled=Settled(TaskStatus.COMPLETED, "1"))

    for value in (step, step, last, last, step):
        await commit(log, value)

    assert await log.history("f1") == [event(1), event(2)]


async def test_a_commit_with_the_same_numbers_but_other_events_is_refused(log):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(1, '"other"'),)))


async def test_many_events_in_one_commit_land_together(log):
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, tuple(event(n) for n in range(1, 1_301))))

    assert [e.seq for e in await log.history("f1")] == list(range(1, 1_301))


async def test_a_value_the_store_cannot_keep_fails_alone(log):
    await register(log)
    lease, other = await claimed_flow(log), await claimed_flow(log, "f2")

    errors = await commit_all(
        log, Commit("f1", lease, (event(1, "\ud800"),)), Commit("f2", other, (event(1),))
    )

    assert errors[0] is not None
    assert errors[1] is None
    assert await log.history("f1") == []


@pytest.mark.parametrize("size", [0, 1, 100_000, 2_000_000])
async def test_payloads_of_any_size_come_back_whole(log, size):
    await register(log)
    payload = json.dumps("é" * (size // 2))
    await log.create(new_flow("f1", input=payload))
    claimed = await claim_one(log, "f1")
    await commit(log, Commit("f1", claimed.lease, (event(1, payload),), settled=Settled(TaskStatus.PENDING)))

    again = await claim_one(log, "f1")

    assert again.flow.input == payload
    assert again.events[0].payload == payload


HOSTILE = [
    "'; DROP TABLE flows; --",
    'a"b\\c',
    "%_[]{}$1:name?",
    "Ἔργον 工作 🚀",
    "a\u202eb",
    "{flow}",
    "x" * 512,
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_is_only_text(log, text):
    await register(log)
    await log.create(new_flow(text, name=text, queue=text, version=text, input=json.dumps(text)))
    (claimed,) = await claim(log, names=(text,), queues=(text,), versions=(text,))
    await log.send(signal(text, text, json.dumps(text), key=text))
    await commit(log, Commit(text, claimed.lease, (event(1, json.dumps(text), op=text),)))

    flow = await log.find(text)

    assert flow is not None
    assert (flow.name, flow.queue, flow.version) == (text, text, text)
    assert (await log.history(text))[0].op == text
    assert (await log.inbox(text))[0].name == text
    listed, _ = await log.list(FlowFilter(id_prefix=text, names=(text,)))
    assert [one.id for one in listed] == [text]


async def test_consuming_a_message_and_its_event_is_one_act(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", payload='"a"'))
    await log.send(signal("f1", payload='"b"'))
    first, second = await log.inbox("f1")

    await commit(log, Commit("f1", lease, (event(1),), consumed=((first.id, 1),)))

    assert await log.inbox("f1") == [second]
    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(2),), consumed=((first.id, 2),)))
    assert len(await log.history("f1")) == 1


async def test_a_message_that_came_while_a_flow_went_to_sleep_wakes_it_at_once(log):
    """The owner had not seen it: without this the flow would sleep on its own signal."""
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, inbox_seen=0, wake_at=log.now() + 999)

    flow = await log.find("f1")
    assert flow.status is TaskStatus.PENDING
    assert flow.wake_at is None


async def test_a_message_the_owner_saw_and_left_does_not_wake_the_flow(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (seen,) = await log.inbox("f1")

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, inbox_seen=seen.id)

    assert await status_of(log, "f1") is TaskStatus.SUSPENDED


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_a_flow_that_ends_keeps_its_output_and_takes_no_more_commits(log, status):
    await register(log)
    lease = await claimed_flow(log)

    await settle(log, "f1", lease, status, output='{"x":1}')

    flow = await log.find("f1")
    assert (flow.status, flow.output, flow.owner, flow.ended_at) == (status, '{"x":1}', None, log.now())
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_parent_hears_once_how_its_child_ended(log):
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
    assert json.loads(told.payload) == {**which, "status": "failed", "output": {"type": "Boom"}}


async def test_children_that_close_with_their_parent_are_asked_to_stop_when_it_ends(log):
    await register(log)
    parent = await claimed_flow(log, "p")
    children = tuple(
        new_flow(id, parent_id="p", parent_op=op, close_with_parent=close)
        for id, op, close in [
            ("running", "0:1", True),
            ("unstarted", "0:2", True),
            ("detached", "0:3", False),
        ]
    )
    await commit(log, Commit("p", parent, children=children))
    await claim_one(log, "running")

    await settle(log, "p", parent)

    assert [m.kind for m in await log.inbox("running")] == ["cancel"]
    assert await status_of(log, "running") is TaskStatus.RUNNING
    assert await status_of(log, "unstarted") is TaskStatus.CANCELLED
    assert await status_of(log, "detached") is TaskStatus.PENDING
    assert await log.inbox("detached") == []
