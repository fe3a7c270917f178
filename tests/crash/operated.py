"""Flows under an operator's hand, and the kinds of step and limit that no other scenario has."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ergon import (
    FlowHandle,
    RetryPolicy,
    ScheduleOptions,
    Scheduler,
    SqliteExecutionLog,
    TaskStatus,
    attempt,
    dag,
    flow,
    flow_type,
    invoke,
    run_step,
    step,
    wait_signal,
)
from tests.crash.in_process import act_elsewhere
from tests.crash.program import Stage, effect, effecting, happened_before, note
from tests.crash.scenario import Scenario, act
from tests.crash.snapshot import Snapshot

# -- kinds of step ---------------------------------------------------------------------------------------


@flow
async def elsewhere() -> list[str]:
    first = await act("m0", [])
    second = await act_elsewhere("m1", [first], "f", "0:2")
    return [first, second, await act("m2", [second])]


async def _one_elsewhere(stage: Stage) -> None:
    await stage.result(await stage.schedule(elsewhere.bind(), "f"))


def plain(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        return token


@flow
async def undecorated() -> list[str]:
    first = await run_step(plain, "u0", [])
    second = await run_step(effect, "u1", first, name="effect-by-name")
    return [first, second, await run_step(plain, "u2", [first, second])]


async def _one_undecorated(stage: Stage) -> None:
    await stage.result(await stage.schedule(undecorated.bind(), "f"))


@flow_type
@dataclass
class Diamond:
    """Four steps: two that wait for nothing, one for the first, one for both others."""

    name: str

    @step
    async def left(self) -> str:
        return await effect("left")

    @step
    async def right(self) -> str:
        return await effect("right", seconds=0.004)

    @step(inputs={"saw": "left"})
    async def below(self, saw: str) -> list[str]:
        return [saw, await effect("below", saw)]

    @step(inputs={"saw": "below", "other": "right"})
    async def last(self, saw: list[str], other: str) -> list[str]:
        return [*saw, other, await effect("last", other)]

    @flow
    async def run(self) -> list[str]:
        tokens: list[str] = await dag(self, final_step="last")
        return tokens


async def _one_diamond(stage: Stage) -> None:
    await stage.result(await stage.schedule(Diamond("x").run.bind(), "f"))


# -- a deadline ------------------------------------------------------------------------------------------


@flow
async def limited() -> list[str]:
    first = await act("l0", [])
    try:
        await wait_signal("never")
    finally:
        await act("l1", [first])
    return []


async def _one_limited(stage: Stage) -> None:
    handle = await stage.schedule(limited.bind(), "f", options=ScheduleOptions(timeout=0.1))
    await stage.result(handle)


def _cancelled(final: Snapshot) -> Iterator[str]:
    for id, row in final.flows.items():
        if row["status"] != "cancelled":
            yield f"flow {id} must have been cancelled, but is {row['status']}"


# -- paused, killed, tried again, deleted ------------------------------------------------------------------


@flow
async def held() -> list[str]:
    tokens = [await act("h0", [])]
    tokens.append(await wait_signal("go", str))
    return [*tokens, await act("h1", tokens)]


async def _one_paused(stage: Stage) -> None:
    handle = await stage.schedule(held.bind(), "f")
    await stage.until_event(handle, "step_completed")
    if not happened_before("NOTE", what="signalling"):  # from then on a step may be open
        await stage.operate("pause", handle, handle.pause("lunch"))
        await stage.operate("resume", handle, handle.resume())
        note(what="signalling")
    await stage.signal(handle, "go", "go.1", key="k1")
    await stage.result(handle)


@flow
async def below_killed() -> None:
    await wait_signal("never")


@flow
async def killed() -> None:
    await act("q0", [])
    await invoke(below_killed.bind(), id="kid").result()


async def _one_killed(stage: Stage) -> None:
    handle = await stage.schedule(killed.bind(), "f")
    while await stage.log.find("kid") is None:
        await asyncio.sleep(0.002)
    await stage.operate("kill", handle, handle.kill("enough"))
    await stage.result(handle)
    await Scheduler(stage.log).handle("kid").wait_settled()


@step
async def act_when_allowed(label: str, saw: list[str]) -> str:
    with effecting(label, *saw) as token:
        if not happened_before("NOTE", what="mended"):
            raise RuntimeError("not yet")
        return token


@flow
async def failing() -> list[str]:
    first = await act("b0", [])
    return [first, await act_when_allowed("b1", [first])]


async def _one_retried(stage: Stage) -> None:
    handle = await stage.schedule(failing.bind(), "f")
    if (await handle.wait_settled()).status is TaskStatus.FAILED:
        note(what="mended")
        await stage.operate("retry", handle, handle.retry())
    await stage.result(handle)


@step(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=600))
async def act_in_ten_minutes(label: str, saw: list[str]) -> str:
    return await effect(label, *saw, fail="not yet" if attempt() == 1 else "")


@flow
async def backing_off() -> list[str]:
    first = await act("a0", [])
    return [first, await act_in_ten_minutes("a1", [first])]


async def _one_retried_now(stage: Stage) -> None:
    handle = await stage.schedule(backing_off.bind(), "f")
    await stage.until_event(handle, "step_retried")
    await stage.operate("retry now", handle, handle.retry_now())
    await stage.result(handle)


async def _one_deleted(stage: Stage) -> None:
    handle: FlowHandle[object] = Scheduler(stage.log).handle("gone")
    if not happened_before("NOTE", what="deleting"):
        await stage.result(await stage.schedule(small_family.bind(), "gone"))
        note(what="deleting")
    await stage.operate("delete", handle, Scheduler(stage.log).delete("gone"))
    later = await stage.schedule(one.bind("d9"), "f", delay=600)
    await stage.operate("reschedule", later, later.reschedule())
    await stage.result(later)


@flow
async def one(label: str) -> list[str]:
    return [await act(label, [])]


@flow
async def small_family() -> list[str]:
    return await one("d0")


# -- a step longer than the time between two renewals of the lease -----------------------------------------------


@step
async def act_for_long(label: str, saw: list[str]) -> str:
    return await effect(label, *saw, seconds=1.1)


@flow
async def long() -> list[str]:
    first = await act("j0", [])
    return [first, await act_for_long("j1", [first])]


async def _one_long(stage: Stage) -> None:
    await stage.result(await stage.schedule(long.bind(), "f"))


# -- a row that cannot be read -------------------------------------------------------------------------------


async def _one_damaged(stage: Stage) -> None:
    """A signal's row is damaged before anybody claims its flow: the flow is set aside, the other goes on."""
    assert isinstance(stage.log, SqliteExecutionLog)
    bad = await stage.schedule(held.bind(), "bad", delay=600)
    if not happened_before("NOTE", what="damaged"):
        await stage.signal(bad, "go", "go.1", key="k1")
        _damage(stage.log.path)
        note(what="damaged")
    good = await stage.schedule(one.bind("w0"), "f", delay=600)
    await stage.operate("reschedule", bad, bad.reschedule())
    await stage.operate("reschedule", good, good.reschedule())
    await stage.result(good)
    await bad.wait_settled()


def _damage(path: Path | None) -> None:
    assert path is not None
    with sqlite3.connect(path, timeout=10) as connection:
        connection.execute("UPDATE inbox SET payload = CAST(x'22ff22' AS TEXT) WHERE flow_id = 'bad'")
    connection.close()


OPERATED: Final[dict[str, Scenario]] = {
    "process-step": Scenario(
        main=_one_elsewhere, flows=(elsewhere,), labels={"f": ("m0", "m1", "m2")}, points_max=7
    ),
    "run-step": Scenario(main=_one_undecorated, flows=(undecorated,), labels={"f": ("u0", "u1", "u2")}),
    "dag": Scenario(main=_one_diamond, flows=(Diamond,), labels={"f": ("left", "below", "right", "last")}),
    "deadline": Scenario(main=_one_limited, flows=(limited,), may_drop=True, check=_cancelled),
    "pause": Scenario(main=_one_paused, flows=(held,), labels={"f": ("h0", "go", "h1")}),
    "kill": Scenario(main=_one_killed, flows=(killed, below_killed), check=_cancelled),
    "retry": Scenario(main=_one_retried, flows=(failing,), labels={"f": ("b0", "b1")}, retried=True),
    "retry-now": Scenario(main=_one_retried_now, flows=(backing_off,), labels={"f": ("a0", "a1")}),
    "delete": Scenario(
        main=_one_deleted,
        flows=(small_family, one),
        labels={"f": ("d9",)},
        deleted=frozenset({"gone", "gone/0:1"}),
    ),
    "renew": Scenario(
        main=_one_long,
        flows=(long,),
        labels={"f": ("j0", "j1")},
        options={"lease_seconds": 3.0},
        points=("renew:1:pre", "renew:1:post"),
    ),
    "park": Scenario(
        main=_one_damaged, flows=(held, one), labels={"f": ("w0",)}, ends={"bad": TaskStatus.PARKED.value}
    ),
}
