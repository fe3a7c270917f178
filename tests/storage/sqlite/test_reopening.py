"""What a log does when its file cannot be opened again, and what it answers when a COMMIT lied."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from ergon.core.commit import Commit, Lease
from ergon.errors import LeaseLost, LogBusy, LogClosed, LogDamaged, LogRefused
from ergon.storage.sqlite import SqliteExecutionLog
from tests.storage.kit import claimed_flow, commit, commit_all, event, new_flow, register
from tests.storage.sqlite.test_crashes import FlakyConnection


def cannot_open():
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    error.sqlite_errorname = "SQLITE_CANTOPEN"
    raise error


@pytest.mark.parametrize("landed", [True, False])
async def test_a_log_that_could_not_be_reopened_is_reopened_by_the_next_write(file, landed):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        group = log._session._group
        assert group is not None
        connect, group._connect = group._connect, cannot_open
        FlakyConnection(group, landed=landed)

        with pytest.raises(LogBusy, match="opened again"):
            await asyncio.wait_for(commit(log, Commit("f1", lease, (event(1),))), 5)
        with pytest.raises(LogBusy, match="nothing was written"):
            await asyncio.wait_for(commit(log, Commit("f1", lease, (event(1),))), 5)
        group._connect = connect
        await asyncio.wait_for(commit(log, Commit("f1", lease, (event(1),))), 5)

        assert await log.history("f1") == [event(1)]
        await log.create(new_flow("f2"))


async def test_when_the_writing_thread_dies_everything_pending_and_later_is_refused(file):
    log = await SqliteExecutionLog(file).connect()
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
    writer = log._session._writer
    assert writer is not None

    def die(*_):
        raise MemoryError("a defect")

    writer._write = die  # type: ignore[method-assign]
    with pytest.raises(LogClosed):
        await asyncio.wait_for(log.create(new_flow("f1")), 5)
    with pytest.raises(LogClosed):
        await asyncio.wait_for(log.create(new_flow("f2")), 5)
    assert len(told) == 1
    await asyncio.wait_for(log.close(), 5)


async def test_parts_refused_in_a_batch_whose_commit_lied_are_told_so(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        flaky = FlakyConnection(log._session._group, landed=True)

        answers = await commit_all(
            log, Commit("f1", lease, (event(1),)), Commit("f1", Lease("nobody", 9), (event(2),))
        )

        assert flaky.failed
        assert answers[0] is None
        assert isinstance(answers[1], LeaseLost)
        assert await log.history("f1") == [event(1)]


async def fail_once(log, lease, *, expect):
    """An I/O error: the log has to open its file again."""
    FlakyConnection(log._session._group, landed=False)
    with pytest.raises(expect) as caught:
        await asyncio.wait_for(commit(log, Commit("f1", lease, (event(1),))), 5)
    return str(caught.value)


def move_away(file, place):
    for beside in file.parent.glob(f"{file.name}*"):
        beside.rename(place / beside.name)


async def test_a_log_whose_file_was_deleted_makes_no_new_one_in_its_place(file, tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        move_away(file, elsewhere)

        said = await fail_once(log, lease, expect=LogDamaged)
        with pytest.raises(LogDamaged):
            await log.create(new_flow("f2"))
        assert not file.exists()

        move_away(elsewhere / file.name, file.parent)
        await commit(log, Commit("f1", lease, (event(1),)))
        assert await log.history("f1") == [event(1)]

    assert "was deleted" in said


@pytest.mark.parametrize("empty", [True, False])
async def test_a_log_whose_file_was_replaced_writes_nothing_to_the_other(file, tmp_path, empty):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        move_away(file, elsewhere)
        if empty:
            file.touch()
        else:
            async with SqliteExecutionLog(file):
                pass
        before = file.read_bytes()

        said = await fail_once(log, lease, expect=LogRefused)
        with pytest.raises(LogRefused):
            await log.create(new_flow("f2"))

    assert "was replaced" in said
    assert file.read_bytes() == before
