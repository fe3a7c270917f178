"""Text that some stores cannot keep, such as U+0000, half a surrogate pair or a very long name: whole or not at all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ergon.core.commit import Commit, FlowFilter, Message, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claimed_flow,
    commit_all,
    event,
    new_flow,
    record,
    register,
    settle,
    signal,
)

UNKEEPABLE = ["\x00", "a\x00b", "\ud800", "x\udfff", "n" * 10_000, "😀" * 10_000]
each_odd = pytest.mark.parametrize(
    "text", UNKEEPABLE, ids=["nul", "nul-inside", "surrogate", "surrogate-end", "10-kB", "40-kB"]
)


@each_odd
@pytest.mark.parametrize("field", ["id", "name", "queue", "version", "input", "parent_op", "tags"])
async def test_a_flow_with_odd_text_is_kept_whole_or_not_at_all(
    log: ExecutionLog, text: str, field: str
) -> None:
    value: Any = (text,) if field == "tags" else text
    flow = new_flow("f1")._replace(**{field: value})

    try:
        await log.create(flow)
    except Exception:  # noqa: BLE001 - which error it is, is the store's
        assert await log.count(FlowFilter()) == {}
    else:
        assert getattr(await record(log, flow.id), field) == value

    await log.create(new_flow("next"))
    assert (await record(log, "next")).id == "next"


@each_odd
@pytest.mark.parametrize("field", ["name", "payload", "key"])
async def test_a_message_with_odd_text_is_kept_whole_or_not_at_all(
    log: ExecutionLog, text: str, field: str
) -> None:
    await log.create(new_flow("f1"))
    message = Message("f1", "signal", "go", "1", None)._replace(**{field: text})

    try:
        await log.send(message)
    except Exception:  # noqa: BLE001 - which error it is, is the store's
        assert await log.inbox("f1") == []
    else:
        (kept,) = await log.inbox("f1")
        assert (kept.name, kept.payload) == (message.name, message.payload)
        assert message.key is None or await log.has_key(message)

    await log.send(signal("f1", "next"))
    assert (await log.inbox("f1"))[-1].name == "next"


@each_odd
@pytest.mark.parametrize("field", ["kind", "op", "name", "digest", "payload", "source"])
async def test_an_event_with_odd_text_is_kept_whole_or_not_at_all(
    log: ExecutionLog, text: str, field: str
) -> None:
    await register(log)
    lease, other = await claimed_flow(log), await claimed_flow(log, "f2")
    odd: dict[str, Any] = {field: text}
    written = event(1)._replace(**odd)

    refused, beside = await commit_all(
        log,
        Commit("f1", lease, (written,), children=(new_flow("c1"),)),
        Commit("f2", other, (event(1),)),
    )

    assert beside is None
    assert await log.history("f2") == [event(1)]
    if refused is None:
        assert await log.history("f1") == [written]
    else:
        assert await log.history("f1") == []
        assert await log.find("c1") is None


@each_odd
async def test_an_outcome_with_odd_text_is_kept_whole_or_not_at_all(log: ExecutionLog, text: str) -> None:
    await register(log)
    lease = await claimed_flow(log)

    (refused,) = await commit_all(
        log, Commit("f1", lease, settled=Settled(TaskStatus.FAILED, json.dumps("x"), reason=text))
    )

    flow = await record(log, "f1")
    if refused is None:
        assert (flow.status, flow.reason) == (TaskStatus.FAILED, text)
    else:
        assert (flow.status, flow.reason) == (TaskStatus.RUNNING, "")
        await settle(log, "f1", lease)


@each_odd
async def test_asking_for_odd_text_finds_nothing_or_is_refused(log: ExecutionLog, text: str) -> None:
    await register(log)
    await log.create(new_flow("f1"))

    for ask in (
        log.find(text),
        log.history(text),
        log.inbox(text),
        log.list(FlowFilter(id_prefix=text)),
        log.list(FlowFilter(names=(text,), queue=text)),
        claim(log, names=(text,)),
        log.next_wake([text]),
        log.arrivals(text, 0),
    ):
        (found,) = await asyncio.gather(ask, return_exceptions=True)
        assert isinstance(found, Exception) or found in (None, [], ([], None), (0, []))

    assert (await record(log, "f1")).status is TaskStatus.PENDING
