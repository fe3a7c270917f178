"""Files and places the log refuses, with a sentence that says what to do."""

from __future__ import annotations

import asyncio
import os
import sqlite3

import pytest

from ergon.core.commit import Commit
from ergon.errors import ForkedConnection, LogDamaged, LogRefused, LogTooNew
from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog, place
from ergon.storage.sqlite.durability import is_walreset_affected
from ergon.testing.conformance.kit import until
from ergon.testing.conformance.life import open_files
from tests.storage.kit import claimed_flow, commit, event, new_flow, register


async def refused(file, kind=LogRefused, **options):
    with pytest.raises(kind) as caught:
        await SqliteExecutionLog(file, **options).connect()
    return str(caught.value)


async def test_a_directory_a_missing_directory_and_a_read_only_one_are_refused(tmp_path):
    assert "is a directory" in await refused(tmp_path)
    assert "create it first" in await refused(tmp_path / "nowhere" / "log.db")
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        assert "read-only" in await refused(closed / "log.db")


async def test_a_file_that_is_no_database_is_damaged(file):
    file.write_bytes(b"Dear diary, " * 500)

    assert "not a healthy database; name another file" in await refused(file, LogDamaged)
    assert file.read_bytes().startswith(b"Dear diary")
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


async def test_a_log_deleted_without_its_write_ahead_log_is_not_made_anew(file):
    """Somebody may have it open; and what that one writes would end up in the new file's recovery."""
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
        kept = file.with_name("kept")
        file.rename(kept)

        assert "is still there" in await refused(file)

        kept.rename(file)
    async with SqliteExecutionLog(file) as log:
        assert await log.find("f1") is not None


async def test_nothing_is_acknowledged_that_goes_to_a_file_nobody_will_find(file):
    async with SqliteExecutionLog(file) as log:
        kept = file.with_name("kept")
        file.rename(kept)
        with pytest.raises(LogDamaged, match="deleted or moved"):
            await log.create(new_flow("f1"))
        file.touch()
        with pytest.raises(LogRefused, match="replaced"):
            await log.create(new_flow("f1"))
        kept.rename(file)

        await log.create(new_flow("f2"))

    async with SqliteExecutionLog(file) as log:
        assert await log.find("f1") is None
        assert await log.find("f2") is not None


@pytest.mark.parametrize("by_another", [False, True], ids=["deleted", "replaced"])
async def test_nothing_is_acknowledged_that_goes_to_a_write_ahead_log_nobody_will_find(file, by_another):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        wal = file.with_name("log.db-wal")
        wal.unlink()
        if by_another:
            wal.touch()

        for _ in range(2):
            with pytest.raises(LogDamaged, match=r"log\.db-wal, which holds its last commits, was deleted"):
                await commit(log, Commit("f1", lease, (event(1),)))
            with pytest.raises(LogDamaged, match="nothing more is written"):
                await log.create(new_flow("f2"))

    async with SqliteExecutionLog(file) as log:
        assert await log.find("f1") is not None, "closing brings into the file what was acknowledged before"
        assert await log.history("f1") == []
        assert await log.find("f2") is None


async def test_a_log_whose_write_ahead_log_was_put_back_goes_on(file):
    async with SqliteExecutionLog(file) as log:
        wal, kept = file.with_name("log.db-wal"), file.with_name("kept")
        wal.rename(kept)
        with pytest.raises(LogDamaged):
            await log.create(new_flow("f1"))
        kept.rename(wal)

        await log.create(new_flow("f1"))

    async with SqliteExecutionLog(file) as log:
        assert await log.find("f1") is not None


async def test_the_write_ahead_log_of_a_log_behind_a_link_is_looked_for_where_it_is(file, tmp_path):
    (beside := tmp_path / "beside").mkdir()
    link = beside / "link.db"
    link.symlink_to(file)
    async with SqliteExecutionLog(link) as log:
        await log.create(new_flow("f1"))
        file.with_name("log.db-wal").unlink()

        with pytest.raises(LogDamaged, match=r"log\.db-wal"):
            await log.create(new_flow("f2"))


def test_a_write_ahead_log_that_is_made_later_is_not_another_one(file):
    file.touch()
    anchor = place.Anchor(file)
    anchor.check()
    wal = file.with_name("log.db-wal")
    wal.touch()
    anchor.check()

    wal.unlink()

    with pytest.raises(LogDamaged, match=r"log\.db-wal"):
        anchor.check()


async def test_another_programs_database_is_refused_and_left_as_it_was(file):
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE customers (id)")
    other.close()

    assert "another program's database" in await refused(file)

    check = sqlite3.connect(file)
    assert check.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    check.close()


async def test_a_newer_schema_is_too_new(file):
    async with SqliteExecutionLog(file):
        pass
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version=999")
    other.close()

    assert "upgrade" in await refused(file, LogTooNew)


async def test_a_log_that_is_refused_late_leaves_no_file_open(file):
    async with SqliteExecutionLog(file):
        pass
    with sqlite3.connect(file) as other:
        other.execute("DELETE FROM meta WHERE key = 'generation'")
    other.close()
    await refused(file, LogDamaged)
    before = open_files()

    for _ in range(3):
        await refused(file, LogDamaged)

    await until(lambda: open_files() <= before)


async def test_the_schema_of_the_next_release_is_fine_when_it_says_so(file):
    async with SqliteExecutionLog(file):
        pass
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA user_version=2")
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
    other.execute("UPDATE meta SET value = '2' WHERE key = 'compatible_from'")
    other.close()

    await refused(file, LogTooNew)


async def test_a_damaged_page_is_reported_not_read(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        await commit(log, Commit("f1", lease, tuple(event(n, '"' + "x" * 900 + '"') for n in range(1, 200))))
    with file.open("r+b") as raw:
        size = file.stat().st_size
        for page in range(4, size // 4096):
            raw.seek(page * 4096)
            raw.write(os.urandom(64))

    log = SqliteExecutionLog(file)
    with pytest.raises(LogDamaged):
        async with log:
            await log.history("f1")
            await log.find("f1")
    await log.close()


async def test_a_log_that_lost_its_write_ahead_file_still_opens(file):
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
    assert not file.with_name("log.db-wal").exists()

    async with SqliteExecutionLog(file) as log:
        assert await log.find("f1") is not None


@pytest.mark.parametrize(
    "line, expected",
    [
        ("36 35 0:40 / {} rw - nfs4 host:/x rw", "nfs4"),
        ("36 35 0:40 / {} rw shared:1 master:2 - fuse.sshfs host: rw", "fuse.sshfs"),
        ("36 35 0:40 / {} rw - 9p share rw", "9p"),
        ("36 35 0:40 / {} rw - ext4 /dev/x rw", "ext4"),
    ],
)
async def test_network_file_systems_are_told_from_local_ones(tmp_path, line, expected):
    folder = tmp_path / "with space"
    folder.mkdir()
    mounts = tmp_path / "mountinfo"
    escaped = str(folder).replace(" ", "\\040")
    mounts.write_text(f"1 0 8:1 / / rw - btrfs /dev/y rw\n{line.format(escaped)}\n")

    assert place.filesystem_of(folder, mounts) == expected
    assert place.filesystem_of(tmp_path, mounts) == "btrfs"
    assert place.is_network(expected) is (expected != "ext4")


async def test_a_network_file_system_is_refused_unless_allowed(file, monkeypatch):
    monkeypatch.setattr(place, "filesystem_of", lambda path: "nfs4")

    assert "allow_network_filesystem=True" in await refused(file)
    async with SqliteExecutionLog(file, allow_network_filesystem=True) as log:
        assert await log.find("x") is None


async def test_a_link_does_not_hide_on_which_file_system_a_log_is(tmp_path, monkeypatch):
    far, link = tmp_path / "far", tmp_path / "log.db"
    far.mkdir()
    link.symlink_to(far / "log.db")
    monkeypatch.setattr(place, "filesystem_of", lambda folder: "nfs4" if folder == far else "ext4")

    assert "network file system (nfs4)" in await refused(link)
    assert not (far / "log.db").exists()


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL", "FULL", "EXTRA"])
async def test_whoever_makes_a_log_goes_on_with_the_setting_it_asked_for(file, synchronous):
    async with SqliteExecutionLog(file, synchronous=synchronous) as log:
        assert (await log.durability()).settings["synchronous"] == synchronous


async def test_settings_are_read_back_and_graded(file):
    async with SqliteExecutionLog(file) as log:
        full = await log.durability()
        assert full.level == "D3"
        assert full.settings["journal_mode"] == "wal"
        assert full.settings["synchronous"] == "FULL"
        assert full.settings["wal_autocheckpoint"] == "0"
        assert full.settings["sqlite_version"] == sqlite3.sqlite_version
        reading = await log._session.read(
            lambda reading: reading.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
        )
        assert reading == 0
    async with SqliteExecutionLog(file, synchronous="NORMAL") as log:
        normal = await log.durability()
        assert normal.level == "D1"
        assert "power loss" in normal.notes[0]
    async with InMemoryExecutionLog() as log:
        assert (await log.durability()).level == "D0"


async def test_less_durability_than_required_is_refused(file):
    assert "D3 is required" in await refused(file, synchronous="NORMAL", require="D3")
    assert "synchronous=NORMAL: commits survive" in await refused(file, synchronous="NORMAL", require="D3")
    with pytest.raises(LogRefused, match="unknown"):
        SqliteExecutionLog(file, synchronous="SOMETIMES")  # type: ignore[arg-type]
    async with SqliteExecutionLog(file, require="D3"):
        pass


async def test_the_reason_that_a_file_is_not_d4_is_its_one_machine(file):
    of_the_best = await refused(file, require="D4")
    of_a_relaxed = await refused(file, synchronous="OFF", require="D4")

    assert of_the_best.endswith(
        "has durability D3, D4 is required: a SQLite file is on one machine and lost with it, whatever its settings. "
        "Lift that, or require D3 at most"
    )
    assert "synchronous=OFF" in of_a_relaxed
    assert "one machine" in of_a_relaxed
    assert "one machine" not in await refused(file, synchronous="OFF", require="D3")


@pytest.mark.parametrize("require", ["X", "d3", "D5", "", "D"])
def test_a_durability_class_that_does_not_exist_is_refused_when_the_log_is_made(file, require):
    with pytest.raises(LogRefused, match=r"no durability class; the classes are D0, D1, D2, D3, D4"):
        SqliteExecutionLog(file, require=require)


@pytest.mark.parametrize(
    "version, affected",
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), True),
        ((3, 53, 0), False),
    ],
)
def test_versions_with_the_wal_reset_bug_are_known(version, affected):
    assert is_walreset_affected(version) is affected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_log_carried_through_fork_refuses_in_the_child_and_works_on_in_the_parent(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                log.submit(Commit("f1", lease, (event(9),)), lambda error: None)
            except ForkedConnection:
                try:
                    log.find("f1").send(None)
                except ForkedConnection:
                    code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        await commit(log, Commit("f1", lease, (event(1),)))
        assert await log.history("f1") == [event(1)]


def test_a_log_can_be_used_by_one_event_loop_after_another(file):
    log = SqliteExecutionLog(file)

    async def use(flow_id):
        await log.connect()
        await log.create(new_flow(flow_id))
        return await log.find("f1")

    asyncio.run(use("f1"))
    found = asyncio.run(use("f2"))

    async def close():
        await log.connect()
        await log.close()

    asyncio.run(close())
    assert found is not None


async def test_memory_is_private_to_each_log():
    async with InMemoryExecutionLog() as one, await SqliteExecutionLog.in_memory() as two:
        await one.create(new_flow("f1"))

        assert await two.find("f1") is None
