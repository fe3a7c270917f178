"""Verbs that change a flow: their JSON, their dry runs, and what happens when they are repeated."""

import json

import pytest

from ergon import FlowFilter, Scheduler, SqliteExecutionLog
from ergon.cli.rows import ACT, WHY


@pytest.fixture
async def log(here):
    """A log with flows that stand in different places; no worker runs."""
    async with SqliteExecutionLog("ergon.db") as opened:
        for flow_id in ("ready", "paused", "cancelled"):
            await Scheduler(opened).schedule_named("asks", {"question": "?"}, id=flow_id)
        await Scheduler(opened).handle("paused").pause("lunch")
        await Scheduler(opened).handle("cancelled").cancel("enough")
        yield opened


ACTS = [
    ("signal ready approval --value 1", "would send signal 'approval' to flow 'ready' (it is pending)"),
    (
        "cancel ready",
        "would ask flow 'ready' to cancel (it is pending): its cleanup runs, its children follow",
    ),
    ("kill ready", "would kill flow 'ready' (it is pending): no more of its code runs, its children follow"),
    ("pause ready", "would pause flow 'ready' (it is pending) until `ergon resume ready`"),
    ("resume paused", "would resume flow 'paused' (it is paused)"),
    (
        "delete cancelled",
        "would delete flow 'cancelled' (cancelled) with its history, its messages and its children",
    ),
]


async def everything(log):
    flows, _ = await log.list(FlowFilter())
    return [(flow, await log.history(flow.id), await log.inbox(flow.id)) for flow in flows]


@pytest.mark.parametrize("typed, sentence", ACTS)
async def test_a_dry_run_says_what_would_change_and_changes_nothing(
    ergon_async, log, typed: str, sentence: str
) -> None:
    before = await everything(log)

    told = await ergon_async(*typed.split(), "--dry-run")
    as_json = json.loads((await ergon_async(*typed.split(), "--dry-run", "--json")).out)

    assert (told.code, told.out) == (0, sentence + "\n")
    assert (as_json["message"], as_json["changed"], as_json["dry_run"]) == (sentence, False, True)
    assert await everything(log) == before


@pytest.mark.parametrize("typed", [typed for typed, _ in ACTS])
async def test_what_was_done_is_told_as_json_with_the_documented_fields(ergon_async, log, typed: str) -> None:
    verb, flow_id, *_ = typed.split()
    before = await everything(log)

    answer = await ergon_async(*typed.split(), "--json")
    told = json.loads(answer.out)

    assert answer.code == 0
    assert list(told) == list(ACT)
    assert (told["id"], told["verb"], told["changed"], told["dry_run"]) == (flow_id, verb, True, False)
    assert told["status_before"] == {"ready": "pending"}.get(flow_id, flow_id)
    assert await everything(log) != before
    help_text = (await ergon_async(verb, "--help")).out
    assert all(name in help_text for name in ACT)


@pytest.mark.parametrize("verb", ["cancel", "kill"])
async def test_cancelling_what_is_cancelled_already_succeeds(ergon_async, log, verb: str) -> None:
    once = await ergon_async(verb, "ready")
    twice = await ergon_async(verb, "ready", "--json")

    assert (once.code, twice.code) == (0, 0)
    assert json.loads(twice.out)["message"] == "flow 'ready' is cancelled already"
    assert json.loads(twice.out)["changed"] is False


async def test_a_dry_run_refuses_what_the_act_itself_would_refuse(ergon_async, ergon, log) -> None:
    for typed in (
        "signal cancelled approval",
        "pause cancelled",
        "resume ready",
        "retry ready",
        "delete ready",
    ):
        real = await ergon_async(*typed.split())
        dry = await ergon_async(*typed.split(), "--dry-run")
        assert (dry.code, dry.err) == (real.code, real.err) != (0, "")


async def test_why_as_json_has_the_documented_fields(ergon_async, log) -> None:
    told = json.loads((await ergon_async("why", "paused", "--json")).out)

    assert list(told) == list(WHY)
    assert told["status"] == "paused"
    assert told["sentence"] == (await ergon_async("why", "paused")).out.strip()
