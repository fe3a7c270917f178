"""A flow that kills its process takes no others with it: those whose workers died in a row begin in turns."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ergon import ExecutionLog, FlowHandle, Scheduler, flow, step
from ergon.worker import turns
from tests.stories.helpers import lines, process_with_worker, start, until, worker
from tests.stories.programs import deadly, harmless

told: list[str] = []
may_end = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global may_end  # noqa: PLW0603 - one for the event loop of each test
    told.clear()
    may_end = asyncio.Event()


@step
async def work(name: str) -> None:
    told.append(f"{name} begins")
    await asyncio.sleep(0.01)
    told.append(f"{name} ends")


@step
async def hang(name: str) -> None:
    told.append(f"{name} begins")
    await may_end.wait()


@flow
async def works(name: str) -> None:
    await work(name)


@flow
async def hangs(name: str) -> None:
    await hang(name)


@flow
async def works_and_hangs(name: str) -> None:
    await work(name)
    await hang(f"{name} hangs,")


@flow
async def tells_and_hangs(name: str) -> None:
    told.append(f"{name} is run")
    await hang(name)


class DrawsTheLast(random.Random):
    """Chance without chance."""

    def choice(self, seq: Any) -> Any:
        return seq[-1]


async def says(handle: FlowHandle[Any], words: str) -> bool:
    return words in await handle.why()


async def is_so(look: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await look() == expected


FATEFUL = tuple("abcdefgh")


def workers_died(path: Path, *ids: str) -> None:
    """As two dead workers leave flows that they recorded nothing of: the next claim counts the second."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "UPDATE flows SET claims_stalled = 1, claimed_seq = 0 WHERE id = ?", [(id,) for id in ids]
        )


async def test_flows_whose_workers_died_begin_one_by_one_and_after_all_others(
    log: ExecutionLog, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handles = [await start(log, works.bind(name), name) for name in (*FATEFUL, "innocent")]
    workers_died(path, *FATEFUL)

    with caplog.at_level(logging.WARNING, "ergon.worker"):
        async with worker(log, works):
            for handle in handles:
                await handle.result(10)

    assert told[:2] == ["innocent begins", "innocent ends"]
    begun = told[2::2]
    assert sorted(begun) == [f"{name} begins" for name in FATEFUL]
    assert told[3::2] == [line.replace("begins", "ends") for line in begun], "never two at once"
    assert [record.message.split(";")[0] for record in caplog.records] == [
        f"flow {line[0]}: 2 workers in a row have died before they recorded anything of it" for line in begun
    ]


async def test_one_that_lives_for_a_while_keeps_the_others_waiting_no_more(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 0.1)
    for name in FATEFUL[:3]:
        await start(log, hangs.bind(name), name)
    workers_died(path, *FATEFUL)

    async with worker(log, hangs):
        await until(lambda: len(told) == 3)
        may_end.set()


async def test_one_that_has_recorded_something_keeps_the_others_waiting_no_more(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 60.0)
    for name in FATEFUL[:3]:
        await start(log, works_and_hangs.bind(name), name)
    workers_died(path, *FATEFUL)

    async with worker(log, works_and_hangs):
        await until(lambda: sum("hangs" in line for line in told) == 3)
        may_end.set()


async def test_many_begin_in_a_time_that_does_not_grow_with_their_number(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 60.0)
    monkeypatch.setattr(turns, "ALL_SECONDS", 1.0)
    many = [str(number) for number in range(300)]
    await Scheduler(log).schedule_all([hangs.bind(name) for name in many], ids=many)
    workers_died(path, *many)

    async with worker(log, hangs):
        # Were each to wait for its share of what is left, all would take 6.3 s.
        await until(lambda: len(told) == len(many), within=5.0)
        may_end.set()


async def test_a_worker_that_drains_gives_back_those_that_had_no_turn_yet_and_runs_none_of_their_code(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 600.0)
    monkeypatch.setattr(turns, "ALL_SECONDS", 6_000.0)
    handles = [await start(log, tells_and_hangs.bind(name), name) for name in FATEFUL]
    workers_died(path, *FATEFUL)

    async def standing() -> list[str]:
        return sorted([str(await handle.status()) for handle in handles])

    async with worker(log, tells_and_hangs, drain_seconds=20.0) as draining:
        await until(lambda: len(told) == 2)
        shutting_down = asyncio.create_task(draining.shutdown())
        others = ["pending"] * (len(FATEFUL) - 1)
        await until(lambda: is_so(standing, [*others, "running"]))
        may_end.set()
        await shutting_down

    assert await standing() == ["completed", *others]
    assert told == [f"{told[0][0]} is run", f"{told[0][0]} begins"]


async def test_why_says_that_a_flow_waits_for_its_turn(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 60.0)
    handles = {name: await start(log, hangs.bind(name), name) for name in FATEFUL[:2]}
    workers_died(path, *FATEFUL)

    async with worker(log, hangs, lease_seconds=1.0):
        await until(lambda: told)
        (waiting,) = handles.keys() - {told[0][0]}
        await until(lambda: says(handles[waiting], "waiting for its turn to begin, apart from others whose"))
        may_end.set()


async def test_many_of_one_kind_count_as_one_for_those_of_another(log: ExecutionLog, path: Path) -> None:
    """The last of the names is drawn each time: had all flows the same chance, it would be the last that came."""
    for name in FATEFUL:
        await start(log, works.bind(name) if name in "ab" else hangs.bind(name), name)
    workers_died(path, *FATEFUL)

    async with worker(log, works, hangs) as drawing:
        assert drawing._host is not None
        drawing._host.rng = DrawsTheLast()
        await until(lambda: len(told) > 4)
        may_end.set()

    assert sorted(told[:4]) == ["a begins", "a ends", "b begins", "b ends"]


async def test_one_that_is_paused_before_its_turn_does_not_begin(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "ALONE_SECONDS", 60.0)
    first, paused, last = [await start(log, hangs.bind(name), name) for name in "cba"]
    workers_died(path, *FATEFUL)

    async with worker(log, hangs) as drawing:
        assert drawing._host is not None
        drawing._host.rng = DrawsTheLast()
        await until(lambda: told == ["a begins"])
        await paused.pause()
        await until(lambda: not drawing._residents or "b" not in drawing._residents.runs)
        may_end.set()
        await last.result(10)
        await first.result(10)

    assert str(await paused.status()) == "paused"
    assert told == ["a begins", "c begins"]
    assert "flow b: 2 workers" not in caplog.text


async def test_a_flow_that_kills_its_workers_takes_no_others_with_it(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    """Each of them is claimed together with the one that kills, and has a step that takes longer than a kill."""
    marks = tmp_path / "marks"
    await start(log, deadly.bind(str(marks)), "killer")
    others = [await start(log, harmless.bind(str(tmp_path / name)), name) for name in FATEFUL]

    async def have_ended() -> bool:
        return all([str(await other.status()) == "completed" for other in others])

    for _ in range(20):
        async with process_with_worker(path) as process:
            ends = asyncio.create_task(process.wait())
            while not (ends.done() or await have_ended()):
                await asyncio.sleep(0.02)
            ends.cancel()
        if await have_ended():
            break

    assert await have_ended()
    assert [lines(tmp_path / name) for name in FATEFUL] == [["done"]] * len(FATEFUL)
    assert len(lines(marks)) >= turns.DEATHS, "it was claimed and killed beside them"
