"""A flow that kills its process takes no others with it: whose workers died one after the other begins apart."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from ergon import ExecutionLog, flow, step
from ergon.worker import suspects
from tests.stories.helpers import lines, process_with_worker, start, until, until_status, worker
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


async def is_so(look: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await look() == expected


SUSPECTS = tuple("abcdefgh")


def workers_died(path: Path, *ids: str) -> None:
    """As two dead workers leave flows that they recorded nothing of: the next claim counts the second."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "UPDATE flows SET claims_stalled = 1, claimed_seq = 0 WHERE id = ?", [(id,) for id in ids]
        )


async def test_suspects_begin_one_by_one_and_after_all_others(
    log: ExecutionLog, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handles = [await start(log, works.bind(name), name) for name in (*SUSPECTS, "innocent")]
    workers_died(path, *SUSPECTS)

    with caplog.at_level(logging.WARNING, "ergon.worker"):
        async with worker(log, works):
            for handle in handles:
                await handle.result(10)

    assert told[:2] == ["innocent begins", "innocent ends"]
    begun = told[2::2]
    assert sorted(begun) == [f"{name} begins" for name in SUSPECTS]
    assert told[3::2] == [line.replace("begins", "ends") for line in begun], "never two at once"
    assert [record.message.split(";")[0] for record in caplog.records] == [
        f"flow {line[0]}: 2 workers in a row have died before they recorded anything of it" for line in begun
    ]


async def test_a_suspect_that_lives_for_a_while_keeps_the_others_waiting_no_more(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALONE_SECONDS", 0.1)
    for name in SUSPECTS[:3]:
        await start(log, hangs.bind(name), name)
    workers_died(path, *SUSPECTS)

    async with worker(log, hangs):
        await until(lambda: len(told) == 3)
        may_end.set()


async def test_a_suspect_that_has_recorded_something_keeps_the_others_waiting_no_more(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALONE_SECONDS", 60.0)
    for name in SUSPECTS[:3]:
        await start(log, works_and_hangs.bind(name), name)
    workers_died(path, *SUSPECTS)

    async with worker(log, works_and_hangs):
        await until(lambda: sum("hangs" in line for line in told) == 3)
        may_end.set()


async def test_many_suspects_begin_in_a_time_that_does_not_grow_with_their_number(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALL_SECONDS", 0.1)
    for name in SUSPECTS:
        await start(log, hangs.bind(name), name)
    workers_died(path, *SUSPECTS)

    async with worker(log, hangs):
        await until(lambda: len(told) == len(SUSPECTS), within=0.9 * suspects.ALONE_SECONDS * len(SUSPECTS))
        may_end.set()


async def test_a_worker_that_drains_lets_go_of_suspects_that_had_no_turn_yet(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALONE_SECONDS", 60.0)
    monkeypatch.setattr(suspects, "ALL_SECONDS", 600.0)
    handles = [await start(log, hangs.bind(name), name) for name in SUSPECTS]
    workers_died(path, *SUSPECTS)

    async def standing() -> list[str]:
        return sorted([str(await handle.status()) for handle in handles])

    async with worker(log, hangs, drain_seconds=20.0) as draining:
        await until(lambda: told)
        shutting_down = asyncio.create_task(draining.shutdown())
        others = ["pending"] * (len(SUSPECTS) - 1)
        await until(lambda: is_so(standing, [*others, "running"]))
        may_end.set()
        await shutting_down

    assert await standing() == ["completed", *others]
    assert len(told) == 1, "no other step began"


async def test_a_suspect_that_is_paused_before_its_turn_does_not_begin(
    log: ExecutionLog, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(suspects, "ALONE_SECONDS", 60.0)
    handles = {name: await start(log, hangs.bind(name), name) for name in SUSPECTS[:2]}
    workers_died(path, *SUSPECTS)

    async with worker(log, hangs):
        await until(lambda: told)
        (begun,) = (name for name in handles if told == [f"{name} begins"])
        (waiting,) = handles.keys() - {begun}
        await handles[waiting].pause()
        await asyncio.sleep(0.3)  # the worker notices within a poll, of 0.1 s here
        may_end.set()
        await handles[begun].result(10)
        await until_status(handles[waiting], "paused")
    assert told == [f"{begun} begins"]
    assert f"flow {waiting}: 2 workers" not in caplog.text


async def test_a_flow_that_kills_its_workers_takes_no_others_with_it(
    log: ExecutionLog, path: Path, tmp_path: Path
) -> None:
    """Each of them is claimed together with the one that kills, and has a step that takes longer than a kill."""
    marks = tmp_path / "marks"
    await start(log, deadly.bind(str(marks)), "killer")
    others = [await start(log, harmless.bind(str(tmp_path / name)), name) for name in SUSPECTS]

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
    assert [lines(tmp_path / name) for name in SUSPECTS] == [["done"]] * len(SUSPECTS)
    assert len(lines(marks)) >= suspects.DEATHS, "it was claimed and killed beside them"
