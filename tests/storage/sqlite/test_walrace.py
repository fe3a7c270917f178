"""The WAL-reset race: committed rows must not vanish while several logs write and checkpoint one file.

SQLite 3.7.0 to 3.51.2 loses them when a checkpoint without the write lock meets a commit that restarts the WAL, and
`integrity_check` still says ok. Here several processes update and append under our checkpoint policy, with far
more checkpoints than usual, and everything acknowledged is compared with the file. `ERGON_WALRACE_SECONDS` makes it
longer. (The same race with PASSIVE checkpoints loses rows within seconds on an affected SQLite.)
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ergon.storage.sqlite import migrations
from ergon.storage.sqlite.connection import Settings, leave_waiting_to_turnstile, open_writer
from ergon.storage.sqlite.place import place_of
from ergon.storage.sqlite.turnstile import Turnstile
from ergon.storage.sqlite.upkeep import WAL_PAGES_MAX, Upkeep

RAM = "/dev/shm" if Path("/dev/shm").is_dir() else None
ROWS = 400
WRITERS = 3
SECONDS = float(os.environ.get("ERGON_WALRACE_SECONDS", "5"))
ROUND_SECONDS = 2.5


def test_no_committed_row_vanishes_under_our_checkpoints():
    rounds = max(1, round(SECONDS / ROUND_SECONDS))
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=RAM) as folder:
            lost, commits, checkpoints = race(Path(folder) / "log.db", seed=number)
        assert not lost, f"round {number}: {len(lost)} rows lost updates: {sorted(lost.items())[:3]}"
        assert commits > 100
        assert checkpoints > 10


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_no_committed_row_vanishes_in_a_long_race():
    for number in range(60):
        with tempfile.TemporaryDirectory(dir=RAM) as folder:
            lost, commits, checkpoints = race(Path(folder) / "log.db", seed=1_000 + number, seconds=5.0)
        print(f"round {number}: {commits} commits, {checkpoints} checkpoints, {len(lost)} lost", flush=True)
        assert not lost


def race(file: Path, *, seed: int, seconds: float = ROUND_SECONDS):
    connection = open_writer(Settings(path=file))
    migrations.migrate(connection, Turnstile(patience_seconds=5), "test", 0.0)
    connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, v INTEGER, pad BLOB)")
    connection.executemany("INSERT INTO pages VALUES (?, 0, zeroblob(3000))", [(n,) for n in range(ROWS)])
    connection.close()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    children = [
        context.Process(target=write, args=(str(file), number, seed, seconds, answers))
        for number in range(WRITERS)
    ]
    for child in children:
        child.start()
    results = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    with sqlite3.connect(file) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = dict(check.execute("SELECT id, v FROM pages"))
    check.close()
    expected = dict.fromkeys(range(ROWS), 0)
    for acked, _ in results:
        for row, count in acked.items():
            expected[row] += count
    lost = {row: (count, found[row]) for row, count in expected.items() if found[row] != count}
    return lost, sum(expected.values()), sum(checkpoints for _, checkpoints in results)


def write(file: str, number: int, seed: int, seconds: float, answers) -> None:
    """Update one-page rows as the log's writer would, checkpointing every few commits."""
    settings = Settings(path=Path(file), synchronous="OFF")
    connection = open_writer(settings)
    turnstile = Turnstile(patience_seconds=30)
    turnstile.open(Path(f"{file}-turn"))
    upkeep = Upkeep(connection, Path(f"{file}-wal"), turnstile)
    dice = random.Random(seed * 100 + number)
    rows = [n for n in range(ROWS) if n % WRITERS == number]
    acked: dict[int, int] = {}
    checkpoints, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        row = dice.choice(rows)
        turnstile.begin(connection)
        connection.execute("UPDATE pages SET v = v + 1 WHERE id = ?", (row,))
        connection.execute("COMMIT")
        acked[row] = acked.get(row, 0) + 1
        if dice.random() < 0.2:
            checkpoints += upkeep._checkpoint(dice.choice(["FULL", "FULL", "TRUNCATE"]), 0.5) is not None
        if dice.random() < 0.05:
            time.sleep(dice.random() * 0.0005)
    connection.close()
    answers.put((acked, checkpoints))


def test_while_a_checkpoint_waits_for_the_write_lock_nobody_else_begins_to_write(tmp_path):
    """Else SQLite might not get it in time, and would make a checkpoint that does not hold it."""
    file = tmp_path / "log.db"
    connection, writing = open_writer(Settings(path=file)), open_writer(Settings(path=file))
    connection.execute("CREATE TABLE pages (v INTEGER)")
    ours, theirs = Turnstile(patience_seconds=5), Turnstile(patience_seconds=5)
    for turnstile in (ours, theirs):
        turnstile.open(Path(f"{file}-turn"))
    leave_waiting_to_turnstile(connection)
    upkeep = Upkeep(connection, place_of(file).wal, ours)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("INSERT INTO pages VALUES (1)")
    with ThreadPoolExecutor(1) as pool:
        checkpoint = pool.submit(upkeep._checkpoint, "FULL", 30.0)
        while theirs.is_free:
            time.sleep(0.001)
        assert not checkpoint.done()
        writing.execute("COMMIT")
        assert (checkpoint.result(30) or 0) > 0
    assert theirs.is_free
    theirs.begin(writing)

    for open_file in (ours, theirs, connection, writing):
        open_file.close()


def test_a_checkpoint_that_does_not_win_the_write_lock_is_none_at_all(tmp_path):
    """SQLite would make one of it that does not hold the lock."""
    file = tmp_path / "log.db"
    connection, writing = open_writer(Settings(path=file)), open_writer(Settings(path=file))
    connection.execute("CREATE TABLE pages (v BLOB)")
    connection.execute("INSERT INTO pages VALUES (zeroblob(100000))")
    ours = _turnstile_before(connection, file)
    upkeep = Upkeep(connection, place_of(file).wal, ours)
    size = file.stat().st_size
    writing.execute("BEGIN IMMEDIATE")

    assert upkeep._checkpoint("FULL", 0.05) is None

    assert file.stat().st_size == size
    assert ours.is_free
    writing.execute("COMMIT")
    assert upkeep._checkpoint("FULL", 0.05) is not None
    assert file.stat().st_size > 100_000
    for open_file in (ours, connection, writing):
        open_file.close()


def test_whoever_stands_stuck_in_the_turnstile_stops_no_checkpoint(tmp_path):
    file = tmp_path / "log.db"
    connection = open_writer(Settings(path=file))
    connection.execute("CREATE TABLE pages (v INTEGER)")
    ours, theirs = Turnstile(patience_seconds=5), Turnstile(patience_seconds=5)
    for turnstile in (ours, theirs):
        turnstile.open(Path(f"{file}-turn"))
    leave_waiting_to_turnstile(connection)
    upkeep = Upkeep(connection, place_of(file).wal, ours)

    assert theirs._enter(time.monotonic() + 5)
    assert upkeep._checkpoint("FULL", 0.5) is not None

    for open_file in (ours, theirs, connection):
        open_file.close()


async def test_the_log_checkpoints_by_itself_and_keeps_the_file_short(tmp_path):
    from ergon.core.commit import Commit
    from ergon.storage.sqlite import SqliteExecutionLog
    from tests.storage.kit import claimed_flow, commit_all, event, register

    file = tmp_path / "log.db"
    async with SqliteExecutionLog(file) as log:
        await register(log)
        leases = [await claimed_flow(log, f"f{n}") for n in range(20)]
        for seq in range(1, 301):
            await commit_all(
                log,
                *(
                    Commit(f"f{n}", lease, (event(seq, '"' + "x" * 2_000 + '"'),))
                    for n, lease in enumerate(leases)
                ),
            )
            await asyncio.sleep(0)
        wal = file.with_name("log.db-wal").stat().st_size
    written = 20 * 300 * 2_000
    assert wal < written * 0.75


async def test_the_log_leaves_a_young_wal_alone_and_checkpoints_it_when_it_is_full(tmp_path):
    from ergon.core.commit import Commit
    from ergon.storage.sqlite import SqliteExecutionLog
    from tests.storage.kit import claimed_flow, commit, event, register

    file = tmp_path / "log.db"
    wal = file.with_name("log.db-wal")
    full = WAL_PAGES_MAX * 4096
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        size, begun = file.stat().st_size, wal.stat().st_size
        for first in range(1, 2_000, 500):  # many rows share a page
            await commit(log, Commit("f1", lease, tuple(event(seq) for seq in range(first, first + 500))))
        assert file.stat().st_size == size
        assert begun < wal.stat().st_size < full

        for seq in range(2_001, 3_001):
            await commit(log, Commit("f1", lease, (event(seq),)))
        assert file.stat().st_size > size
        assert full <= wal.stat().st_size < full * 1.5


async def test_the_wal_of_a_log_behind_a_link_is_kept_short_too(tmp_path):
    """SQLite keeps it beside the file, not beside the link."""
    from ergon.core.commit import Commit
    from ergon.storage.sqlite import SqliteExecutionLog
    from tests.storage.kit import claimed_flow, commit, event, register

    file, link = tmp_path / "kept" / "log.db", tmp_path / "log.db"
    file.parent.mkdir()
    link.symlink_to(file)
    assert place_of(link).wal == file.with_name("log.db-wal")
    assert place_of(link).turn == file.with_name("log.db-turn")
    async with SqliteExecutionLog(link) as log:
        await register(log)
        lease = await claimed_flow(log)
        for seq in range(1, 1_001):
            await commit(log, Commit("f1", lease, (event(seq),)))
        assert file.with_name("log.db-wal").stat().st_size < WAL_PAGES_MAX * 4096 * 1.5
        assert [found.name for found in sorted(tmp_path.iterdir())] == ["kept", "log.db"]


def test_a_wal_whose_length_cannot_be_known_is_checkpointed_by_the_count_of_changes(tmp_path):
    file = tmp_path / "log.db"
    connection = open_writer(Settings(path=file))
    connection.execute("CREATE TABLE pages (v INTEGER)")
    turnstile = _turnstile_before(connection, file)
    upkeep = Upkeep(connection, tmp_path / "elsewhere.db-wal", turnstile)
    size = file.stat().st_size

    for number in range(400):
        connection.execute("INSERT INTO pages VALUES (?)", (number,))
        upkeep.after_batch()

    assert file.stat().st_size > size
    for open_file in (turnstile, connection):
        open_file.close()


def test_many_changes_of_few_pages_do_not_put_the_next_checkpoints_off(tmp_path):
    file = tmp_path / "log.db"
    connection = open_writer(Settings(path=file))
    connection.execute("CREATE TABLE one (v INTEGER)")
    connection.execute("CREATE TABLE pages (v BLOB)")
    connection.execute("INSERT INTO one VALUES (0)")
    turnstile = _turnstile_before(connection, file)
    upkeep = Upkeep(connection, place_of(file).wal, turnstile)
    connection.execute("BEGIN")
    for _ in range(50_000):
        connection.execute("UPDATE one SET v = v + 1")
    connection.execute("COMMIT")
    upkeep.after_batch()

    for _ in range(6_000):
        connection.execute("INSERT INTO pages VALUES (zeroblob(10))")
        upkeep.after_batch()

    assert file.with_name("log.db-wal").stat().st_size < 3 * WAL_PAGES_MAX * 4096
    for open_file in (turnstile, connection):
        open_file.close()


def _turnstile_before(connection, file):
    turnstile = Turnstile(patience_seconds=5)
    turnstile.open(Path(f"{file}-turn"))
    leave_waiting_to_turnstile(connection)
    return turnstile
