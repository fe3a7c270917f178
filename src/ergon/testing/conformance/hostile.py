"""Text is only text, whatever it looks like."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import ChildCancel, Commit, FlowFilter, IdTaken, Message
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    new_flow,
    record,
    register,
    settle,
    taken,
    worker_record,
)

HOSTILE = [
    "'; DROP TABLE flows; --",
    '" OR 1=1 --',
    'a"b\\c',
    "\\",
    "%_[]{}$1:name?",
    "%s %d %(id)s {0} {id}",
    "Ἔργον 工作 🚀👩‍👩‍👧",
    "a\u202eb\u200b\ufeff",
    "{flow}",
    "{}{}}{",
    "*",
    "h?llo[a-z]*",
    "redis.call('FLUSHALL')]] return 1 --[[",
    "\r\nFLUSHALL\r\n",
    "$1; SELECT pg_sleep(10)",
    "../../etc/passwd",
    "a:b:c",
    "a/b#1",
    "null",
    "true",
    "0",
    "-1",
    "1e5",
    "NaN",
    "__proto__",
    " leading and trailing ",
    "tab\tand\nnewline",
    "x" * 512,
    "é" * 512,
]
each_text = pytest.mark.parametrize("text", HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])


@each_text
async def test_an_id_and_a_name_of_hostile_text_are_only_text(log: ExecutionLog, text: str) -> None:
    await register(log)
    await log.create(
        new_flow(text, name=text, queue=text, version=text, input=json.dumps(text), tags=(text,))
    )
    await log.create(new_flow("other"))

    (claimed,) = await claim(log, names=(text,), queues=(text,), tags=(text,))

    assert claimed.flow == await record(log, text)
    assert (claimed.flow.id, claimed.flow.name, claimed.flow.queue) == (text, text, text)
    assert (claimed.flow.version, claimed.flow.tags) == (text, (text,))
    where = FlowFilter(id_prefix=text, names=(text,), queue=text, version=text, tags=(text,))
    assert ids((await log.list(where))[0]) == [text]
    assert await log.count(where) == {TaskStatus.RUNNING: 1}
    assert ids(await claim(log)) == ["other"]


@each_text
async def test_an_event_of_hostile_text_is_only_text(log: ExecutionLog, text: str) -> None:
    await register(log)
    lease = await claimed_flow(log, text)
    written = Event(1, text, text, text, text, json.dumps(text), 1.5, text, 1)

    await commit(log, Commit(text, lease, (written,)))
    await settle(log, text, lease, TaskStatus.PENDING, reason=text)

    assert await log.history(text) == [written]
    assert (await claim_one(log, text)).events == [written]


@each_text
async def test_a_message_of_hostile_text_is_only_text(log: ExecutionLog, text: str) -> None:
    await register(log)
    await claimed_flow(log, text)
    message = Message(text, "signal", text, json.dumps(text), text)

    for _ in range(2):
        await log.send(message)
    await log.send(message._replace(key=text + "x"))

    assert [one[1:5] for one in await log.inbox(text)] == [(text, "signal", text, json.dumps(text))] * 2
    assert await log.has_key(message)
    assert len((await log.arrivals("w1", 0))[1]) == 2


@each_text
async def test_a_child_of_hostile_text_is_told_and_found(log: ExecutionLog, text: str) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    started = new_flow(text, parent_id="p", parent_op=text, name=text, input=json.dumps(text))
    await commit(log, Commit("p", lease, children=(started,)))
    await commit(log, Commit("p", lease, children=(started._replace(parent_op="other"),)))
    (claimed,) = await claim(log, flow_id=text, names=(text,))
    await commit(log, Commit("p", lease, cancels=(ChildCancel(text, text, json.dumps(text)),)))
    assert [message.payload for message in await log.inbox(text)] == [json.dumps(text)]

    await settle(log, text, claimed.lease, TaskStatus.CANCELLED, reason=text)

    first, ended = await log.inbox("p")
    assert taken(first) == IdTaken(text, text, None)
    said = json.loads(ended.payload or "")
    assert (ended.name, said["flow_id"], said["name"], said["input"]) == (text, text, text, text)
    assert (said["status"], said["reason"]) == ("cancelled", text)


@each_text
async def test_a_worker_of_hostile_text_is_only_text(log: ExecutionLog, text: str) -> None:
    declared = worker_record(text, name=text, flows=(text,), queues=(text,), versions=(text,), tags=(text,))
    kept = await log.register(declared, lease_seconds=30)
    assert await log.workers() == [kept]
    assert (kept.id, kept.name, kept.flows, kept.versions, kept.tags) == (
        text,
        text,
        (text,),
        (text,),
        (text,),
    )

    lease = await claimed_flow(log, "f1", text)
    await log.renew(text, lease_seconds=30, doing={"f1": text})
    assert ((await record(log, "f1")).owner, (await record(log, "f1")).reason) == (text, text)
    assert list(await log.lost(text, [("f1", lease.epoch)])) == []
    assert await log.retire(text) == 1


@each_text
async def test_what_a_person_says_is_only_text(log: ExecutionLog, text: str) -> None:
    await register(log)
    await log.create(new_flow("paused"))
    assert (await log.move("paused", TaskStatus.PAUSED, reason=text)).reason == text
    await log.create(new_flow("killed"))
    moved = await log.move("killed", TaskStatus.CANCELLED, reason=text, output=json.dumps(text))
    assert (moved.reason, moved.output) == (text, json.dumps(text))
    await log.create(new_flow("cancelled"))
    await log.send(Message("cancelled", "cancel", "", json.dumps(text), "cancel"))

    assert (await record(log, "cancelled")).reason == text


@each_text
async def test_an_id_of_hostile_text_is_acted_upon_alone(log: ExecutionLog, text: str) -> None:
    await register(log)
    for id in (text, "bystander", text + "2"):
        lease = await claimed_flow(log, id)
        await commit(log, Commit(id, lease, (event(1),)))
        await settle(log, id, lease, TaskStatus.FAILED, output='"boom"')

    await log.move(text, TaskStatus.PENDING)
    await log.move(text, TaskStatus.CANCELLED)
    assert await log.delete(text)

    assert await log.find(text) is None
    for id in ("bystander", text + "2"):
        assert (await record(log, id)).status is TaskStatus.FAILED
        assert await log.history(id) == [event(1)]
    assert (await log.ended_or_parked([text, "bystander"]))[1] == [text]
