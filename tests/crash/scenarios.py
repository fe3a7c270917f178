"""The example flows that are killed at every point, each with its client and what must come out.

Steps leave traces outside (`effect`) and return tokens that no other execution returns, so the checker sees which
execution's result a flow has used. A flow returns the tokens it collected; `labels` says which, in which order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

from ergon import (
    DID_NOT_HAPPEN,
    Completed,
    Executor,
    FlowIdConflict,
    Outcome,
    RetryPolicy,
    ScheduleOptions,
    SqliteExecutionLog,
    StepInterrupted,
    attempt,
    flow,
    idempotency_key,
    invoke,
    patched,
    schedule_timer,
    step,
    wait_signal,
)
from ergon.worker import eager
from tests.crash.operated import OPERATED
from tests.crash.played import PLAYED
from tests.crash.program import Stage, effect, effecting, freeze_self, happened_before, note
from tests.crash.scenario import Scenario, act
from tests.crash.snapshot import Snapshot

# -- sequential ------------------------------------------------------------------------------------------


@flow
async def sequential(name: str) -> list[str]:
    tokens: list[str] = []
    for number in range(4):
        tokens.append(await act(f"s{number}", tokens))
    return tokens


async def _one_sequential(stage: Stage) -> None:
    await stage.result(await stage.schedule(sequential.bind("x"), "f"))


# -- parallel --------------------------------------------------------------------------------------------


@step
async def act_slowly(label: str, saw: list[str], seconds: float) -> str:
    return await effect(label, *saw, seconds=seconds)


@step
def act_on_thread(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        return token


@flow
async def parallel() -> list[str]:
    first = await act("p0", [])
    branches = [act_slowly(f"p{n}", [first], 0.002 * (5 - n)) for n in range(1, 4)]
    tokens = await asyncio.gather(*branches, act_on_thread("p4", [first]))
    async with asyncio.TaskGroup() as group:
        more = [group.create_task(act(f"p{n}", tokens)) for n in (5, 6)]
    return [first, *tokens, *(task.result() for task in more)]


async def _one_parallel(stage: Stage) -> None:
    await stage.result(await stage.schedule(parallel.bind(), "f"))


# -- retries ---------------------------------------------------------------------------------------------

TRIES: Final = RetryPolicy(attempts_max=3, backoff="fixed", first_delay_seconds=0.005)


@step(retry=TRIES)
async def act_at_last(label: str, saw: list[str], good: int) -> str:
    return await effect(label, *saw, fail="not yet" if attempt() < good else "")


@flow
async def retrying() -> list[str]:
    tokens = [await act_at_last("r0", [], 3)]
    try:
        await act_at_last("r1", tokens, 9)
    except Exception as error:
        tokens.append(await act(f"r2 after {error}", tokens))
    return tokens


async def _one_retrying(stage: Stage) -> None:
    await stage.result(await stage.schedule(retrying.bind(), "f"))


# -- timers ----------------------------------------------------------------------------------------------


@flow
async def timing() -> list[str]:
    tokens = [await act("t0", [])]
    await asyncio.sleep(0.03)
    tokens.append(await act("t1", tokens))
    try:
        async with asyncio.timeout(0.02):
            await wait_signal("never")
    except TimeoutError:
        tokens.append(await act("t2", tokens))
    return tokens


async def _one_timing(stage: Stage) -> None:
    await stage.result(await stage.schedule(timing.bind(), "f"))


# -- signals ---------------------------------------------------------------------------------------------


@flow
async def signalled() -> list[str]:
    tokens = [await act("g0", [])]
    async with asyncio.timeout(60):
        tokens.append(await wait_signal("go", str))
        tokens.append(await act("g1", tokens))
        tokens.append(await wait_signal("go", str))
    tokens.append(await wait_signal("end", str))
    tokens.append(await act("g2", tokens))
    return tokens


async def _one_signalled(stage: Stage) -> None:
    handle = await stage.schedule(signalled.bind(), "f")
    await stage.signal(handle, "go", "one.1", key="k1")
    await stage.signal(handle, "end", "end.3", key="k3")
    await stage.until("BEGIN", label="g1")
    await stage.signal(handle, "go", "two.2", key="k2")
    await stage.signal(handle, "go", "one.1", key="k1")
    await stage.result(handle)


# -- children --------------------------------------------------------------------------------------------


@flow
async def child(label: str) -> str:
    return await act(label, [])


@flow
async def parent() -> list[str]:
    first = await child("c0")
    handles = [invoke(child.bind(f"c{n}")) for n in (1, 2)]
    tokens = await asyncio.gather(*(handle.result() for handle in handles))
    return [first, *tokens, await act("c3", [first, *tokens])]


async def _one_parent(stage: Stage) -> None:
    await stage.result(await stage.schedule(parent.bind(), "f"))


def _three_children(final: Snapshot) -> Iterator[str]:
    children = [found for found in final.flows.values() if found["parent_id"] == "f"]
    if len(children) != 3:
        yield f"3 children were asked for, {len(children)} exist: {[found['id'] for found in children]}"


# -- children with ids of their own, one of them a stranger's --------------------------------------------------


@flow
async def stranger() -> list[str]:
    tokens = [await act("z0", [])]
    tokens.append(await wait_signal("go", str))
    return [*tokens, await act("z1", tokens)]


@step
async def act_through_child(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        inner = await invoke(child.bind("i5"), id="kid-2").result()
        note("SAW", key=idempotency_key(), value=inner)
        return token


@flow
async def parent_by_id() -> list[str]:
    first = await invoke(child.bind("i0"), id="kid-0").result()
    unwanted = asyncio.ensure_future(invoke(child.bind("i8"), id="taken").result())
    await asyncio.sleep(0)
    unwanted.cancel()
    refused, second = await asyncio.gather(
        invoke(child.bind("i9"), id="taken").result(),
        invoke(child.bind("i1"), id="kid-1").result(),
        return_exceptions=True,
    )
    assert isinstance(refused, FlowIdConflict), refused
    assert isinstance(second, str), second
    third = await act_through_child("i2", [first, second])
    return [first, second, third]


async def _one_parent_by_id(stage: Stage) -> None:
    other = await stage.schedule(stranger.bind(), "taken")
    await stage.result(await stage.schedule(parent_by_id.bind(), "f"))
    await stage.signal(other, "go", "go.1", key="k1")
    await stage.result(other)


def _kids_and_a_stranger(final: Snapshot) -> Iterator[str]:
    kids = sorted(found["id"] for found in final.flows.values() if found["parent_id"] == "f")
    if kids != ["kid-0", "kid-1", "kid-2"]:
        yield f"kid-0, kid-1 and kid-2 were asked for, but these are the children: {kids}"
    if cancels := [row for row in final.inbox if row["flow_id"] == "taken" and row["kind"] == "cancel"]:
        yield f"a stranger was asked to stop: {cancels}"
    refused = [event["op"] for event in final.events["f"] if event["kind"] == "child_failed"]
    if len(refused) != 1:
        yield f"one child's id was taken, but these were refused: {refused}"


# -- durable waits inside a step ---------------------------------------------------------------------------


@step
async def act_and_wait(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        await schedule_timer(0.02)
        value = await wait_signal("inside", str)
        note("SAW", key=idempotency_key(), value=value)
        await schedule_timer(0.01)
        return f"{token}+{value}"


@flow
async def waiting_inside() -> list[str]:
    tokens = [await act_and_wait("w0", [])]
    tokens.append(await act("w1", tokens))
    return tokens


async def _one_waiting_inside(stage: Stage) -> None:
    handle = await stage.schedule(waiting_inside.bind(), "f")
    await stage.signal(handle, "inside", "inside.1", key="k1")
    await stage.result(handle)


# -- at most once ----------------------------------------------------------------------------------------


@step(at_most_once=True)
async def act_once(label: str, saw: list[str]) -> str:
    return await effect(label, *saw, amo=True)


@flow
async def once() -> list[str]:
    tokens = [await act("o0", [])]
    try:
        tokens.append(await act_once("o1", tokens))
    except StepInterrupted:
        tokens.append(await act("o1", tokens))
    tokens.append(await act("o2", tokens))
    return tokens


async def _one_once(stage: Stage) -> None:
    await stage.result(await stage.schedule(once.bind(), "f"))


def look_outside(label: str, saw: list[str]) -> Any:
    """Verify: did the effect happen? Here it did when the body ended; then another token stands for it."""
    note("VERIFY", key_label=label)
    if happened_before("END", label=label):
        from ergon import Happened

        return Happened(result=f"{label}.verified")
    return DID_NOT_HAPPEN


@step(at_most_once=True, verify=look_outside)
async def act_once_verified(label: str, saw: list[str]) -> str:
    return await effect(label, *saw, amo=True)


@flow
async def once_verified() -> list[str]:
    tokens = [await act("v0", [])]
    tokens.append(await act_once_verified("v1", tokens))
    tokens.append(await act("v2", tokens))
    return tokens


async def _one_once_verified(stage: Stage) -> None:
    await stage.result(await stage.schedule(once_verified.bind(), "f"))


# -- the flow's own retry --------------------------------------------------------------------------------


@flow(retry=RetryPolicy(attempts_max=3, backoff="fixed", first_delay_seconds=0.01))
async def flow_retrying() -> list[str]:
    tokens = [await act("x0", [])]
    tokens.append(await wait_signal("go", str))
    tokens.append(await act_in_attempt(3, "x1", tokens))
    return tokens


@step
async def act_in_attempt(good: int, label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        from ergon.flows.context import step_context

        body: Any = step_context.get()
        if body.op.machine.attempt < good:
            raise RuntimeError("not in this attempt of the flow")
        return token


async def _one_flow_retrying(stage: Stage) -> None:
    handle = await stage.schedule(flow_retrying.bind(), "f")
    await stage.signal(handle, "go", "go.1", key="k1")
    await stage.result(handle)


@flow(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=0.02))
async def flow_retrying_with_child() -> list[str]:
    first = await act("y0", [])
    second = await act("y1", [first])
    handle = invoke(slow_child.bind("y2"))
    third = await act_in_attempt(2, "y3", [first, second])
    return [first, second, await handle.result(), third]


@flow
async def slow_child(label: str) -> str:
    return await act_slowly(label, [], 0.01)


async def _one_flow_retrying_with_child(stage: Stage) -> None:
    await stage.result(await stage.schedule(flow_retrying_with_child.bind(), "f"))


@flow(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=0.02))
async def flow_retrying_otherwise() -> list[str]:
    """The second attempt has another step, and another sleep of the same length, where the first had its own."""
    first = await act("e0", [])
    await asyncio.sleep(0.02)
    try:
        second = await act_in_attempt(2, "e1", [first])
    except RuntimeError:
        await act_once("e2", [first])
        await asyncio.sleep(OTHER_SLEEP)
        raise
    try:
        third = await act_once("e3", [first, second])
    except StepInterrupted:
        third = await act("e3", [first, second])
    await asyncio.sleep(OTHER_SLEEP)
    return [first, second, third]


OTHER_SLEEP: Final = 0.03


async def _one_flow_retrying_otherwise(stage: Stage) -> None:
    await stage.result(await stage.schedule(flow_retrying_otherwise.bind(), "f"))


def _slept_after_e3(final: Snapshot) -> Iterator[str]:
    """The last sleep begins when the event before it is delivered, whatever the attempt before has slept."""
    before, last = [
        event for event in final.events["f"] if event["kind"] in ("step_completed", "timer_fired")
    ][-2:]
    if last["kind"] != "timer_fired" or last["at"] < before["at"] + OTHER_SLEEP - 1e-6:
        yield f"the flow ends with a sleep of {OTHER_SLEEP} s, but these came last: {before}, {last}"


# -- cancel with clean-up --------------------------------------------------------------------------------


@flow
async def cancelled() -> list[str]:
    first = await act("k0", [])
    try:
        await act_slowly("k1", [first], 5.0)
    finally:
        second = await act("k2", [first])
        await act("k3", [first, second])
    return []


async def _one_cancelled(stage: Stage) -> None:
    handle = await stage.schedule(cancelled.bind(), "f")
    await stage.until("BEGIN", label="k1")
    await stage.cancel(handle, "changed my mind")
    await stage.result(handle)


def _cleaned_up(final: Snapshot) -> Iterator[str]:
    if final.flows["f"]["status"] != "cancelled":
        yield f"flow f was cancelled, but is {final.flows['f']['status']}"
    done = [event["op"] for event in final.events["f"] if event["kind"] == "step_completed"]
    if len(done) != 3:
        yield f"k0 and the clean-up k2, k3 must have completed, but these did: {done}"


# -- patched ---------------------------------------------------------------------------------------------


@flow
async def patching() -> list[str]:
    tokens = [await act("n0", [])]
    if patched("new-way"):
        tokens.append(await act("n1", tokens))
    if patched("second"):
        tokens.append(await act("n2", tokens))
    return tokens


async def _one_patching(stage: Stage) -> None:
    await stage.result(await stage.schedule(patching.bind(), "f"))


def _patches(final: Snapshot) -> Iterator[str]:
    names = [event["name"] for event in final.events["f"] if event["kind"] == "patched"]
    if sorted(names) != ["new-way", "second"]:
        yield f"each patch is recorded once, but these are: {names}"


# -- several flows on one worker ---------------------------------------------------------------------------


@flow
async def small(label: str) -> list[str]:
    first = await act(label, [])
    return [first, await act(f"{label}+", [first])]


async def _several(stage: Stage) -> None:
    ids = [f"q{n}" for n in range(3)]
    handles = [
        await stage.schedule(small.bind(id), id, options=ScheduleOptions(priority=n))
        for n, id in enumerate(ids)
    ]
    await asyncio.gather(*(stage.result(handle) for handle in handles))


def _in_small_parts() -> None:
    """Many flows are written two at a time, so that a crash comes between the parts of one call."""
    vars(eager)["CLAIM_BATCH_MAX"] = 2


async def _many(stage: Stage) -> None:
    ids = [f"m{n}" for n in range(5)]
    handles = await stage.schedule_all([small.bind(id) for id in ids], ids)
    await asyncio.gather(*(stage.result(handle) for handle in handles))


def _declare_dead_while_creating() -> None:
    """The worker is dead by the log and does not know: what it would start at once is created for anybody."""
    create_claimed = SqliteExecutionLog.create_claimed

    async def retire_and_create(self: Any, flows: Any) -> Any:
        # Once: in a later life another flow may be running, whose steps would run again.
        if flows[0].id != "l1" or happened_before("NOTE", what="retire"):
            return await create_claimed(self, flows)
        note(what="retire")
        await self.retire(flows[0].owner)
        await create_claimed(self, flows)  # raises LeaseLost
        raise AssertionError("the log took a new flow of a worker that it had declared dead")

    SqliteExecutionLog.create_claimed = retire_and_create  # type: ignore[method-assign]


async def _declared_dead(stage: Stage) -> None:
    is_first_life = not happened_before("NOTE", what="began")
    note(what="began")
    await stage.result(await stage.schedule(small.bind("l0"), "l0"))
    await stage.result(await stage.schedule(small.bind("l1"), "l1"))
    assert happened_before("NOTE", what="retire") or not is_first_life, "nobody was declared dead"


def _drain_while_creating() -> None:
    """SIGTERM comes while a new flow, which would begin at once, is on its way into the log."""
    create_claimed = SqliteExecutionLog.create_claimed

    async def drain_and_create(self: Any, flows: Any) -> Any:
        if await self.find("g") is None:
            os.kill(os.getpid(), signal.SIGTERM)
        return await create_claimed(self, flows)

    SqliteExecutionLog.create_claimed = drain_and_create  # type: ignore[method-assign]


async def _created_while_draining(stage: Stage) -> None:
    await stage.result(await stage.schedule(small.bind("g"), "g"))


def _given_back_once(final: Snapshot) -> Iterator[str]:
    """It was its first worker's, which gave it back, and then another's."""
    if (epoch := final.flows.get("g", {"epoch": 0})["epoch"]) < 2:
        yield f"the flow never changed hands: its epoch is {epoch}"


# -- Executor.run ----------------------------------------------------------------------------------------


async def _executor(stage: Stage) -> None:
    outcome: Outcome[list[str]] = await Executor(sequential.bind("x"), stage.log, "f").run()
    assert isinstance(outcome, Completed)
    note("RESULT", flow="f", value=outcome.result)


async def _executor_that_suspends(stage: Stage) -> None:
    executor = Executor(timing.bind(), stage.log, "f")
    while not isinstance(outcome := await executor.run(), Completed):
        due = min((wait["due"] for wait in outcome.waits if "due" in wait), default=0.0)
        await asyncio.sleep(max(due - stage.log.now(), 0.001))
    note("RESULT", flow="f", value=outcome.result)


# -- out of memory and back --------------------------------------------------------------------------------


@flow
async def evicted() -> list[str]:
    tokens = [await act("e0", [])]
    await asyncio.sleep(0.04)
    tokens.append(await act("e1", tokens))
    tokens.append(await wait_signal("go", str))
    tokens.append(await act("e2", tokens))
    return tokens


async def _one_evicted(stage: Stage) -> None:
    handle = await stage.schedule(evicted.bind(), "f")
    await stage.until("END", label="e1")
    await asyncio.sleep(0.02)  # long enough to leave memory again
    await stage.signal(handle, "go", "go.1", key="k1")
    await stage.result(handle)


# -- drained by SIGTERM ------------------------------------------------------------------------------------


@step
async def act_under_sigterm(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
        return token


@flow
async def drained() -> list[str]:
    tokens = [await act("d0", [])]
    tokens.append(await act_under_sigterm("d1", tokens))
    tokens.append(await act("d2", tokens))
    return tokens


async def _one_drained(stage: Stage) -> None:
    await stage.result(await stage.schedule(drained.bind(), "f"))


def _letters(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{n}" for n in range(count))


SCENARIOS: Final[dict[str, Scenario]] = {
    "sequential": Scenario(main=_one_sequential, flows=(sequential,), labels={"f": _letters("s", 4)}),
    "parallel": Scenario(main=_one_parallel, flows=(parallel,), labels={"f": _letters("p", 7)}),
    "retries": Scenario(main=_one_retrying, flows=(retrying,), labels={"f": ("r0", "r2 after not yet")}),
    "timer": Scenario(
        main=_one_timing, flows=(timing,), labels={"f": _letters("t", 3)}, timers={"f": (0.03, 0.02)}
    ),
    "signal": Scenario(
        main=_one_signalled, flows=(signalled,), labels={"f": ("g0", "one", "g1", "two", "end", "g2")}
    ),
    "children": Scenario(
        main=_one_parent, flows=(parent, child), labels={"f": _letters("c", 4)}, check=_three_children
    ),
    "children-by-id": Scenario(
        main=_one_parent_by_id,
        flows=(parent_by_id, child, stranger),
        labels={"f": _letters("i", 3), "taken": ("z0", "go", "z1")},
        check=_kids_and_a_stranger,
    ),
    "waits-in-step": Scenario(main=_one_waiting_inside, flows=(waiting_inside,), labels={"f": ("w0", "w1")}),
    "at-most-once": Scenario(main=_one_once, flows=(once,), labels={"f": _letters("o", 3)}),
    "at-most-once-verified": Scenario(
        main=_one_once_verified, flows=(once_verified,), labels={"f": _letters("v", 3)}
    ),
    "flow-retry": Scenario(main=_one_flow_retrying, flows=(flow_retrying,), labels={"f": ("x0", "go", "x1")}),
    "flow-retry-child": Scenario(
        main=_one_flow_retrying_with_child,
        flows=(flow_retrying_with_child, slow_child),
        labels={"f": _letters("y", 4)},
    ),
    "flow-retry-otherwise": Scenario(
        main=_one_flow_retrying_otherwise,
        flows=(flow_retrying_otherwise,),
        labels={"f": ("e0", "e1", "e3")},
        check=_slept_after_e3,
        points_max=24,
    ),
    "cancel": Scenario(main=_one_cancelled, flows=(cancelled,), may_drop=True, check=_cleaned_up),
    "patched": Scenario(
        main=_one_patching, flows=(patching,), labels={"f": _letters("n", 3)}, check=_patches
    ),
    "queue": Scenario(main=_several, flows=(small,), labels={f"q{n}": (f"q{n}", f"q{n}+") for n in range(3)}),
    "many": Scenario(
        main=_many,
        flows=(small,),
        labels={f"m{n}": (f"m{n}", f"m{n}+") for n in range(5)},
        prepare=_in_small_parts,
    ),
    "declared-dead": Scenario(
        main=_declared_dead,
        flows=(small,),
        labels={id: (id, f"{id}+") for id in ("l0", "l1")},
        options={"lease_seconds": 1.0},
        prepare=_declare_dead_while_creating,
    ),
    "created-while-draining": Scenario(
        main=_created_while_draining,
        flows=(small,),
        labels={"g": ("g", "g+")},
        prepare=_drain_while_creating,
        check=_given_back_once,
    ),
    "executor": Scenario(main=_executor, labels={"f": _letters("s", 4)}),
    "executor-suspends": Scenario(
        main=_executor_that_suspends, labels={"f": _letters("t", 3)}, timers={"f": (0.03, 0.02)}
    ),
    "eviction": Scenario(
        main=_one_evicted,
        flows=(evicted,),
        labels={"f": ("e0", "e1", "go", "e2")},
        options={"evict_after_seconds": 0.006},
        timers={"f": (0.04,)},
    ),
    "drain": Scenario(main=_one_drained, flows=(drained,), labels={"f": _letters("d", 3)}),
    **OPERATED,
    **PLAYED,
}


# -- several processes -------------------------------------------------------------------------------------

BLOCKED_SECONDS: Final = 2.8
"""More than three leases."""


@step
async def act_frozen(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        if "body" in label:
            if not happened_before("NEM"):
                freeze_self("body")
            elif "slow" in label:
                await asyncio.sleep(0.7)
        if "blocked" in label:
            time.sleep(BLOCKED_SECONDS)
        return token


@flow
async def shared(middle: str) -> list[str]:
    tokens = [await act("a", [])]
    tokens.append(await act_frozen(middle, tokens))
    tokens.append(await act("c", tokens))
    return tokens


@flow
async def shared_and_idle() -> list[str]:
    tokens = [await act("a", [])]
    tokens.append(await wait_signal("go", str))
    tokens.append(await act("c", tokens))
    return tokens


@step
async def act_in_bulk(label: str, saw: list[str]) -> dict[str, str]:
    with effecting(label, *saw) as token:
        return {"token": token, "padding": "x" * 40_000}


@flow
async def filling(count: int) -> list[str]:
    tokens: list[str] = []
    for number in range(count):
        tokens.append((await act_in_bulk(f"f{number}", tokens[-1:]))["token"])
    return tokens


async def _fill(stage: Stage) -> None:
    handles = [await stage.schedule(filling.bind(20), f"f{number}") for number in range(4)]
    await asyncio.gather(*(stage.result(handle) for handle in handles))


async def _one_shared(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared.bind("b"), "f"))


async def _one_shared_frozen(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared.bind("b-body"), "f"))


async def _one_shared_race(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared.bind("b-body-slow"), "f"))


async def _one_shared_blocked(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared.bind("b-blocked"), "f"))


async def _one_shared_idle(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared_and_idle.bind(), "f"))


async def _signal_the_idle(stage: Stage) -> None:
    handle = await stage.schedule(shared_and_idle.bind(), "f")
    await stage.signal(handle, "go", "go.1", key="k1")
    await stage.result(handle)


async def _another(stage: Stage) -> None:
    await stage.result(await stage.schedule(shared.bind("b"), "g"))


_SHARED: Final = (shared, shared_and_idle)
_QUICK: Final = {"lease_seconds": 0.5, "reap_seconds": 0.1, "poll_seconds": 0.2, "evict_after_seconds": 30.0}
SHARED: Final[dict[str, Scenario]] = {
    "shared": Scenario(main=_one_shared, flows=_SHARED, options=_QUICK, labels={"f": ("a", "b", "c")}),
    "shared-body": Scenario(
        main=_one_shared_frozen, flows=_SHARED, options=_QUICK, labels={"f": ("a", "b-body", "c")}
    ),
    "shared-race": Scenario(
        main=_one_shared_race, flows=_SHARED, options=_QUICK, labels={"f": ("a", "b-body-slow", "c")}
    ),
    "shared-blocked": Scenario(
        main=_one_shared_blocked,
        flows=_SHARED,
        options=_QUICK | {"lease_seconds": 0.8},
        labels={"f": ("a", "b-blocked", "c")},
    ),
    "shared-idle": Scenario(
        main=_one_shared_idle, flows=_SHARED, options=_QUICK, labels={"f": ("a", "go", "c")}
    ),
    "shared-signal": Scenario(main=_signal_the_idle, flows=_SHARED, options=_QUICK),
    "filling": Scenario(main=_fill, flows=(filling,), labels={f"f{n}": _letters("f", 20) for n in range(4)}),
    "another": Scenario(main=_another, flows=_SHARED, options=_QUICK, labels={"g": ("a", "b", "c")}),
}
