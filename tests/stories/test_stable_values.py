"""Time, chance, identity and log lines are the same on every replay."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ergon import (
    ExecutionLog,
    InMemoryExecutionLog,
    NotInFlow,
    flow,
    flow_id,
    get_logger,
    is_replaying,
    now,
    random,
    rng,
    step,
    uuid4,
    wait_signal,
)
from ergon.core.commit import EPOCHS_A_LIFE, Commit
from tests.stories.helpers import start, until_status, worker


async def test_now_random_and_uuid4_are_equal_on_every_replay(log: ExecutionLog) -> None:
    seen: list[list[str]] = []

    @step
    async def noop() -> None: ...

    @flow
    async def draw() -> list[str]:
        drawn = [str(now()), str(random()), str(uuid4())]
        await noop()
        drawn += [str(now()), str(rng().sample(range(100), 5))]
        seen.append(drawn)
        await wait_signal("go")
        await wait_signal("go")
        return [*drawn, str(uuid4()), flow_id()]

    handle = await start(log, draw.bind())
    for _ in range(2):
        async with worker(log, draw):
            await until_status(handle, "suspended")
        await handle.signal("go")
    async with worker(log, draw):
        result = await handle.result(10)

    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2] == result[:5]
    assert result[-1] == "f"


async def test_two_flows_draw_different_values(log: ExecutionLog) -> None:
    @flow
    async def draw() -> list[str]:
        return [str(random()), str(uuid4())]

    async with worker(log, draw):
        one = await (await start(log, draw.bind(), "a")).result(10)
        other = await (await start(log, draw.bind(), "b")).result(10)

    assert one[0] != other[0]
    assert one[1] != other[1]


async def test_chance_follows_from_the_flow_id_alone_and_the_docstrings_say_so() -> None:
    """So it is nothing to make a secret of."""

    @flow
    async def draw() -> list[str]:
        return [str(random()), str(uuid4()), str(rng().random())]

    drawn = []
    for _ in range(2):
        async with InMemoryExecutionLog() as log, worker(log, draw):
            drawn.append(await (await start(log, draw.bind(), "a")).result(10))

    assert drawn[0] == drawn[1]
    for function in (random, uuid4, rng):
        assert "secret" in (function.__doc__ or "")


async def test_flow_time_is_when_the_last_thing_happened_and_a_steps_time_is_the_clock(
    log: ExecutionLog,
) -> None:
    @step
    async def look() -> datetime:
        return now()

    @flow
    async def tell() -> list[datetime]:
        began = now()
        await asyncio.sleep(0.1)
        return [began, now(), await look()]

    before = datetime.now(UTC)
    async with worker(log, tell):
        began, woke, in_step = await (await start(log, tell.bind())).result(10)

    assert before <= began
    assert (woke - began).total_seconds() >= 0.1
    assert in_step >= woke


async def test_the_logger_is_silent_while_the_flow_repeats_itself(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    logger = get_logger("story")
    plain: list[bool] = []

    @step
    async def work() -> None:
        logger.info("in the step")

    @flow
    async def tell() -> None:
        logger.info("began %s", "well")
        plain.append(is_replaying())
        await work()
        logger.info("between")
        await wait_signal("go")
        logger.info("ended")

    with caplog.at_level(logging.INFO, "story"):
        handle = await start(log, tell.bind())
        async with worker(log, tell):
            await until_status(handle, "suspended")
        await handle.signal("go")
        async with worker(log, tell):
            await handle.result(10)

    told = [record.message for record in caplog.records if record.name == "story"]
    assert told == ["[f] began well", "[f] in the step", "[f] between", "[f] ended"]
    assert {record.flow_id for record in caplog.records if record.name == "story"} == {"f"}  # type: ignore[attr-defined]
    assert plain == [False, True]


async def test_a_line_is_logged_whatever_the_flow_id_is_and_with_the_place_it_was_written_at(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A flow id may hold any character, such as the `%` that logging formats with."""
    logger = get_logger("story")

    @flow
    async def tell() -> None:
        logger.info("all of %s%%", 100)
        logger.info("all of 100%")
        logger.warning("by %(who)s", {"who": "name"}, stacklevel=1)

    with caplog.at_level(logging.INFO, "story"):
        async with worker(log, tell):
            await (await start(log, tell.bind(), "100%done%s")).result(10)

    told = [record for record in caplog.records if record.name == "story"]
    prefix = "[100%done%s]"
    assert [record.getMessage() for record in told] == [
        f"{prefix} all of 100%",
        f"{prefix} all of 100%",
        f"{prefix} by name",
    ]
    assert {(record.funcName, record.filename) for record in told} == {("tell", "test_stable_values.py")}


async def test_the_logger_is_silent_too_when_the_number_of_claims_has_come_round(
    log: ExecutionLog, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flow that wakes every second is claimed a million times in two weeks: it looks like one claimed first then."""
    logger = get_logger("story")

    @step
    async def work() -> None:
        pass

    @flow
    async def tell() -> None:
        await work()
        logger.info("between")
        await wait_signal("go")
        logger.info("ended")

    with caplog.at_level(logging.INFO, "story"):
        handle = await start(log, tell.bind())
        async with worker(log, tell):
            await until_status(handle, "suspended")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE flows SET epoch = ?", (EPOCHS_A_LIFE,))
        await handle.signal("go")
        async with worker(log, tell):
            await handle.result(10)

    found = await log.find(handle.id)
    assert found is not None
    assert found.claims == 1
    told = [record.message for record in caplog.records if record.name == "story"]
    assert told == ["[f] between", "[f] ended"]


async def test_a_crash_before_the_flow_saw_a_result_loses_the_lines_of_that_turn_and_repeats_none(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they were written is recorded nowhere: silence is promised, and a step for what must not be lost."""
    logger = get_logger("story")
    durable = asyncio.Event()
    submit = log.submit

    @step
    async def work() -> None:
        logger.info("in the step")

    @flow
    async def tell() -> None:
        logger.info("began")
        await work()
        logger.info("between")
        await wait_signal("go")
        logger.info("ended")

    def tell_nobody(commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        submit(commit, lambda _error: durable.set())

    with caplog.at_level(logging.INFO, "story"):
        dying = worker(log, tell)
        with monkeypatch.context() as patch:
            patch.setattr(log, "submit", tell_nobody)
            await dying.start()
            handle = await start(log, tell.bind())
            await durable.wait()
            assert dying._residents is not None
            dying._residents.abort_all("it died")
        await dying.shutdown(0)
        await handle.signal("go")
        async with worker(log, tell):
            await handle.result(10)

    told = [record.message for record in caplog.records if record.name == "story"]
    assert told == ["[f] began", "[f] in the step", "[f] ended"]


@pytest.mark.parametrize("call", [now, random, uuid4, rng, flow_id])
def test_outside_a_flow_they_say_where_they_belong(call: object) -> None:
    with pytest.raises(NotInFlow, match="inside a flow"):
        call()  # type: ignore[operator]
