"""How a new log comes to be: whole, from an image, or by its migrations where that cannot be."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from ergon import list_namespaces
from ergon.errors import LogRefused
from ergon.storage.sqlite import SqliteExecutionLog, blank, place
from ergon.storage.sqlite.connection import Settings, reopen_writer
from ergon.storage.sqlite.namespaces import present
from tests.storage.kit import claimed_flow, new_flow, register
from tests.storage.sqlite.children import hear, start
from tests.storage.sqlite.make_blank import make_blank

RENEW = "the image is not what the migrations make; renew it: python -m tests.storage.sqlite.make_blank"


def what_is_in(file) -> dict[str, Any]:
    with closing(sqlite3.connect(file)) as log:
        settings = ("application_id", "user_version", "journal_mode", "page_size", "encoding", "auto_vacuum")
        return {
            **{name: log.execute(f"PRAGMA {name}").fetchone()[0] for name in settings},
            "schema": log.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
            ).fetchall(),
            "meta": dict(log.execute("SELECT key, value FROM meta")),
            "rows": [log.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("flows", "workers")],
            "health": log.execute("PRAGMA integrity_check").fetchone()[0],
        }


@pytest.fixture(
    params=[
        "image",
        "a file system that may not flush",
        "no unnamed files here",
        "no unnamed files in this system",
        "old SQLite",
    ]
)
def way(request, tmp_path, monkeypatch) -> str:
    """The ways a log is made: from the image, or not."""
    really_open = os.open

    def refuse(path, flags, *arguments, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return really_open(path, flags, *arguments, **named)

    if request.param == "image":
        monkeypatch.setattr(blank, "FLUSHED", {place.filesystem_of(tmp_path)})  # wherever the tests run
    elif request.param == "no unnamed files here":
        monkeypatch.setattr(os, "open", refuse)
    elif request.param == "a file system that may not flush":
        monkeypatch.setattr(place, "filesystem_of", lambda folder: "btrfs")
    elif request.param == "no unnamed files in this system":
        monkeypatch.setattr(blank, "_UNNAMED", 0)
    elif request.param == "old SQLite":
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    return str(request.param)


def test_the_image_is_what_the_migrations_make(tmp_path):
    shipped, made = tmp_path / "shipped.db", tmp_path / "made.db"
    shipped.write_bytes(blank.IMAGE.read_bytes())
    make_blank(made)

    assert what_is_in(shipped) == what_is_in(made), RENEW
    assert what_is_in(shipped)["health"] == "ok"
    for left_blank in (blank.GENERATION, blank.CREATED_BY, blank.CREATED_AT):
        assert blank.IMAGE.read_bytes().count(left_blank) == 1, RENEW


async def test_however_a_log_is_made_it_is_a_log(file, way):
    async with SqliteExecutionLog(file) as log:
        assert log.is_new
        await register(log)
        await claimed_flow(log)

    async with SqliteExecutionLog(file) as log:
        assert not log.is_new
        assert await log.find("f1") is not None
    found = what_is_in(file)
    assert found["health"] == "ok"
    assert sorted(found["meta"]) == [
        "compatible_from",
        "created_at",
        "created_by",
        "epochs_from",
        "generation",
    ]
    assert not any("<" in value for value in found["meta"].values()), "nothing is left blank"
    assert (" STRICT" in str(found["schema"])) is (way != "old SQLite")


async def test_a_log_says_who_made_it_and_when(file, way):
    async with SqliteExecutionLog(file) as log:
        with closing(sqlite3.connect(file)) as other:
            meta = dict(other.execute("SELECT key, value FROM meta"))
        now = log.now()
        assert meta["generation"] == log.generation

    assert re.fullmatch(r"[0-9a-f]{32}", meta["generation"])
    assert now - 60 < float(meta["created_at"]) <= now
    assert re.fullmatch(rf"ergon \S+, SQLite {re.escape(sqlite3.sqlite_version)} *", meta["created_by"])


async def test_a_log_whose_maker_has_a_long_name_is_made_by_migrations(file, monkeypatch):
    """A value longer than its blank would move all that follows in the file."""
    monkeypatch.setattr(
        blank, "made_by", lambda: f"ergon 1.0.dev1+{'g' * 40}, SQLite {sqlite3.sqlite_version}"
    )

    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))

    assert what_is_in(file)["health"] == "ok"
    assert blank.make(place.place_of(file.with_name("other.db"))._replace(filesystem="ext4"), 1.0) is False


async def test_two_logs_are_two_logs(tmp_path, way):
    async with SqliteExecutionLog(tmp_path / "a.db") as one, SqliteExecutionLog(tmp_path / "b.db") as two:
        assert one.generation != two.generation


async def test_many_open_a_new_file_at_once(file, way):
    logs = [SqliteExecutionLog(file) for _ in range(8)]

    await asyncio.gather(*(log.connect() for log in logs))

    assert len({log.generation for log in logs}) == 1
    for log in logs:
        await log.close()


async def test_a_log_behind_a_link_is_made_where_the_link_leads(tmp_path, way):
    (tmp_path / "far").mkdir()
    link = tmp_path / "log.db"
    link.symlink_to(tmp_path / "far" / "real.db")

    async with SqliteExecutionLog(link) as log:
        await log.create(new_flow("f1"))

    assert link.is_symlink()
    assert what_is_in(tmp_path / "far" / "real.db")["rows"] == [(1,), (0,)]


async def test_a_log_of_which_a_power_cut_left_only_the_file_is_a_log(file, tmp_path, way):
    """From the image it is the same log; the tables of a migration need not have reached the disk yet."""
    left = tmp_path / "left.db"
    async with SqliteExecutionLog(file) as log:
        shutil.copy(file, left)
        first = log.generation

    async with SqliteExecutionLog(left) as log:
        assert (log.generation == first) is (way == "image")
        assert (await log.durability()).level == "D3"
        await log.create(new_flow("f1"))


async def test_an_empty_file_becomes_the_log(file):
    """Such as one that `mktemp` made, or of which a power cut left only the name."""
    file.touch(mode=0o600)

    async with SqliteExecutionLog(file) as log:
        assert log.is_new
        await log.create(new_flow("f1"))

    assert file.stat().st_mode & 0o777 == 0o600, "it is the same file"


async def test_a_new_log_may_be_read_by_those_whom_the_umask_lets(file):
    before = os.umask(0o027)
    try:
        async with SqliteExecutionLog(file):
            assert file.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


async def test_the_journal_of_a_database_that_is_gone_is_not_played_into_a_new_log(file):
    """It would put the other's pages where the log's are."""
    other = file.with_name("other.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as database:
        database.execute("PRAGMA page_size=4096")
        database.execute("CREATE TABLE customers (name)")
        database.executemany("INSERT INTO customers VALUES (?)", [("x" * 3000,)] * 100)
        database.execute("PRAGMA cache_spill=1")
        database.execute("PRAGMA cache_size=2")
        database.execute("BEGIN")
        database.execute("UPDATE customers SET name = 'y' || name")
        file.with_name("log.db-journal").write_bytes(other.with_name("other.db-journal").read_bytes())

    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))

    assert what_is_in(file)["health"] == "ok"
    assert "customers" not in str(what_is_in(file)["schema"])


async def test_a_write_ahead_log_that_comes_late_to_be_deleted_is_not_played_into_a_new_log(
    file, monkeypatch
):
    """Whoever deletes a log deletes its files one after the other; the check may have come before the last."""
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("old"))
        left = file.with_name("log.db-wal").read_bytes()
    file.unlink()
    monkeypatch.setattr(
        place, "_check_not_half_gone", lambda place: file.with_name("log.db-wal").write_bytes(left)
    )

    async with SqliteExecutionLog(file) as log:
        assert await log.find("old") is None

    assert what_is_in(file)["health"] == "ok"


async def test_an_empty_file_beside_a_write_ahead_log_is_not_made_a_log(file):
    """SQLite would delete what holds the last commits."""
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
        kept = file.with_name("log.db-wal").read_bytes()
    file.write_bytes(b"")
    file.with_name("log.db-wal").write_bytes(kept)

    with pytest.raises(LogRefused, match=r"is empty, but log\.db-wal, which holds its last commits, is not"):
        await SqliteExecutionLog(file).connect()
    with pytest.raises(LogRefused, match="is empty"):
        reopen_writer(Settings(path=file), "its generation")
    assert await list_namespaces(f"sqlite:///{file}") == []
    assert present(file) == []

    assert file.with_name("log.db-wal").read_bytes() == kept


async def test_a_file_that_another_process_begins_meanwhile_was_not_emptied(file, monkeypatch):
    """Between two looks at the file there was one at its write-ahead log."""
    file.touch()
    really_stat = os.stat

    def begun_after_the_first_look(path, *arguments, **named):
        found = really_stat(path, *arguments, **named)
        if path == file and not found.st_size:
            file.write_bytes(b"x" * 4096)
            file.with_name("log.db-wal").write_bytes(b"x")
        return found

    monkeypatch.setattr(os, "stat", begun_after_the_first_look)

    place.check_not_emptied(place.place_of(file))

    assert file.stat().st_size, "it was looked at"


async def test_links_that_lead_in_a_circle_are_refused(tmp_path):
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    one.symlink_to(other)
    other.symlink_to(one)

    with pytest.raises(LogRefused, match=r"one\.db"):
        await SqliteExecutionLog(one).connect()


async def test_a_package_without_its_image_makes_logs_by_migrations(file, monkeypatch):
    monkeypatch.setattr(blank, "IMAGE", file.with_name("nowhere"))

    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))

    assert what_is_in(file)["health"] == "ok"


@pytest.mark.parametrize("call", ["fdatasync", "link"])
def test_a_process_killed_while_it_makes_a_log_leaves_nothing_behind(file, call):
    child = start("open_and_die_at", file, call)

    assert hear(child) == "opening"
    child.communicate()

    assert child.returncode == -signal.SIGKILL
    assert list(file.parent.iterdir()) == []


async def test_a_file_that_another_makes_meanwhile_is_left_as_it_is(file, monkeypatch):
    really_link = os.link

    def be_late(source, target, **named):
        file.touch()
        really_link(source, target, **named)

    monkeypatch.setattr(os, "link", be_late)

    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
        assert log.generation

    assert what_is_in(file)["health"] == "ok"
