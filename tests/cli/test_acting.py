"""Verbs that change a flow: their JSON, their dry runs, and what happens when they are repeated."""

import asyncio
import json

import pytest

from ergon import (
    FlowFilter,
    RetryPolicy,
    Scheduler,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    step,
    wait_signal,
)
from ergon.cli.rows import ACT, WHY
from ergon.core.commit import NewFlow
from tests.stories.helpers import until_status


@step(retry=RetryPolicy(attempts_max=5, first_delay_seconds=600, delay_max_seconds=600))
async def refuse() -> None:
    raise ConnectionError("refused")


@flow
async def refused() -> None:
    await refuse()


async def until_kind(log: SqliteExecutionLog, flow_id: str, kind: str) -> None:
    async with asyncio.timeout(20):
        while kind not in [event.kind for event in await log.history(flow_id)]:
            await asyncio.sleep(0.01)


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


REPEATED = [
    ("resume paused", "flow 'paused' is held back by nobody (it is pending)"),
    ("pause ready", "flow 'ready' is paused already"),
    ("delete cancelled", "there is no flow 'cancelled' in this log, so nothing is deleted"),
    ("signal ready approval --key k", "flow 'ready' was sent signal 'approval' with key 'k' already"),
]


@pytest.mark.parametrize("typed, sentence", REPEATED)
async def test_typing_an_act_again_succeeds_and_says_that_it_is_so_already(
    ergon_async, log, typed: str, sentence: str
) -> None:
    """A script that was cut off runs its commands again."""
    once = await ergon_async(*typed.split(), "--json")
    after = await everything(log)
    dry = await ergon_async(*typed.split(), "--dry-run", "--json")
    twice = await ergon_async(*typed.split(), "--json")

    assert [answer.code for answer in (once, dry, twice)] == [0, 0, 0]
    assert [json.loads(answer.out)["changed"] for answer in (once, dry, twice)] == [True, False, False]
    assert {json.loads(answer.out)["message"] for answer in (dry, twice)} == {sentence}
    assert await everything(log) == after


async def test_a_key_that_an_ended_flow_has_had_is_no_error(ergon_async, log) -> None:
    for typed in ("signal ready approval --key k", "cancel ready"):
        await ergon_async(*typed.split())

    again = await ergon_async("signal", "ready", "approval", "--key", "k")

    assert again.code == 0
    assert "already" in again.out


async def test_deleting_what_is_not_there_asks_whether_another_was_meant(ergon_async, log) -> None:
    assert "did you mean 'ready'?" in (await ergon_async("delete", "raedy")).out


@pytest.fixture
async def parent(log):
    """A flow that is cancelled, and whose child has not ended yet, since its cleanup has to run."""
    await log.create(NewFlow("child", "asks", input="{}", parent_id="cancelled", parent_op="0"))
    return "cancelled"


async def test_a_dry_run_refuses_what_the_act_itself_would_refuse(ergon_async, log, parent: str) -> None:
    for typed in (
        "signal cancelled approval",
        "signal cancelled approval --key k",
        "pause cancelled",
        "resume cancelled",
        "retry ready",
        "retry ready --now",
        "retry cancelled --now",
        "delete ready",
        f"delete {parent}",
    ):
        real = await ergon_async(*typed.split())
        dry = await ergon_async(*typed.split(), "--dry-run")
        assert (dry.code, dry.err) == (real.code, real.err) != (0, ""), typed


async def test_a_dry_run_of_a_retry_at_once_finds_the_step_that_waits_for_it(ergon_async, log) -> None:
    handle = await Scheduler(log).schedule(refused.bind(), id="refused")
    async with Worker(log, flows=[refused]):
        await until_kind(log, "refused", "step_retried")

    dry = await ergon_async("retry", "refused", "--now", "--dry-run")
    once = await ergon_async("retry", "refused", "--now")
    again = await ergon_async("retry", "refused", "--now", "--dry-run")

    assert (dry.code, once.code, again.code) == (0, 0, 2)
    assert "nothing of it waits" in again.err
    await handle.kill()


async def test_why_as_json_has_the_documented_fields(ergon_async, log) -> None:
    told = json.loads((await ergon_async("why", "paused", "--json")).out)

    assert list(told) == list(WHY)
    assert told["status"] == "paused"
    assert told["sentence"] == (await ergon_async("why", "paused")).out.strip()


async def test_cancelling_what_is_being_cancelled_says_so_and_how_to_insist(ergon_async, log) -> None:
    @flow
    async def cleans(question: str) -> None:
        try:
            await wait_signal("never")
        finally:
            await wait_signal("cleaned")

    handle = await Scheduler(log).schedule(cleans.bind("?"), id="cleans")
    options = WorkerOptions(poll_seconds=0.1, evict_after_seconds=0.05)
    async with Worker(log, flows=[cleans], options=options):
        await until_status(handle, "suspended")
    once = await ergon_async("cancel", "cleans", "--reason", "enough")
    unheard = await ergon_async("cancel", "cleans")
    async with Worker(log, flows=[cleans], options=options):
        await until_status(handle, "suspended")
    heard = await ergon_async("cancel", "cleans")
    kept = await ergon_async("cancel", "cleans", "--json")
    again = await ergon_async("cancel", "cleans", "--again", "--reason", "it hangs")
    async with Worker(log, flows=[cleans], options=options):
        record = await handle.wait_settled(10)

    assert once.out == "asked flow 'cleans' to cancel (it was suspended)\n"
    assert "has not heard of it yet" in unheard.out
    assert "(enough): it is left to clean up, and asked again if it goes on instead of ending" in heard.out
    assert "`ergon cancel --again cleans` breaks off its cleanup" in heard.out
    assert (json.loads(kept.out)["message"] + "\n", json.loads(kept.out)["changed"]) == (heard.out, False)
    assert again.out == "asked flow 'cleans' to cancel (it was pending)\n"
    assert (record.status, record.reason) == ("cancelled", "it hangs")
