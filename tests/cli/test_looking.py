"""`ls`, `show`, `why`, `inbox`, `workers`, `doctor`: what they show, and the JSON that programs rely on."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ergon.cli.doctor as doctor_module
from ergon import ScheduleOptions, Scheduler, SqliteExecutionLog, Worker, WorkerOptions, flow, step
from ergon.cli.rows import EVENT, FLOW, MESSAGE, WORKER
from ergon.core.commit import ClaimRequest, Commit, Lease, Settled, WorkerRecord
from ergon.core.status import TaskStatus
from ergon.executor import incarnation
from tests.stories.helpers import until


@pytest.fixture
def filled(ergon):
    """A log with a few flows of each kind."""
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--id", "count-1")
    ergon("run", "shop.py:fails", "--id", "fails-1")
    ergon("run", "shop.py:family", "--id", "family-1")
    return ergon


async def waiting(flow_id: str) -> None:
    async with SqliteExecutionLog("ergon.db") as log:
        await Scheduler(log).schedule_named("asks", {"question": "?"}, id=flow_id)


def test_ls_shows_flows_newest_first_and_filters(filled) -> None:
    everything = filled("ls")
    failed = filled("ls", "--status", "failed", "--status", "parked")
    named = filled("ls", "--name", "count", "--since", "1h")

    ids = [line.split("\t")[0] for line in everything.out.splitlines()]
    assert everything.code == failed.code == named.code == 0
    assert ids[0] == "ID"
    assert set(ids[1:]) == {"kid-1", "kid-2", "family-1", "fails-1", "count-1"}
    assert ids[-1] == "count-1"
    assert failed.out.splitlines()[1].startswith("fails-1\tfails\tfailed\tdefault\t")
    assert "ValueError: no luck" in failed.out
    assert [line.split("\t")[0] for line in named.out.splitlines()[1:]][-1] == "count-1"
    assert "family" not in named.out


def test_ls_json_has_the_documented_fields_and_pages(filled) -> None:
    first = json.loads(filled("ls", "--json", "--limit", "3").out)
    second = json.loads(filled("ls", "--json", "--limit", "3", "--after", first["next"]).out)

    flows = first["flows"] + second["flows"]
    assert [len(first["flows"]), len(second["flows"]), second["next"]] == [3, 2, None]
    assert len({row["id"] for row in flows}) == 5
    assert all(list(row) == list(FLOW) for row in flows)
    assert all(row["created_at"].endswith("Z") for row in flows)
    for name in FLOW:
        assert name in filled("ls", "--help").out


def test_the_log_may_be_named_before_the_verb(filled, here, monkeypatch) -> None:
    (here / "ergon.db").rename(here / "named.db")

    assert (
        filled("--log", "named.db", "why", "count-1").out == filled("why", "count-1", "--log", "named.db").out
    )
    monkeypatch.setenv("ERGON_LOG", "typo.db")
    assert filled("--log", "named.db", "ls").code == 0
    assert filled("--log", "typo.db", "ls", "--log", "named.db").code == 0


def test_an_empty_log_is_no_error_but_a_filter_without_a_match_is(ergon, filled) -> None:
    assert json.loads(ergon("ls", "--json", "--queue", "none").out) == {"flows": [], "next": None}
    assert ergon("ls", "--json", "--queue", "none").code == 1


def test_show_tells_header_children_history_and_source_lines(filled) -> None:
    shown = filled("show", "family-1")

    assert shown.code == 0
    assert shown.out.startswith("Flow 'family-1' has ended: completed at ")
    assert "├ kid-1  count  completed" in shown.out
    assert "└ kid-2  count  completed" in shown.out
    assert "child_completed" in shown.out
    assert "shop.py:" in shown.out
    assert "result    [4,5]" in shown.out


def test_show_json_has_the_documented_fields(filled) -> None:
    found = json.loads(filled("show", "count-1", "--json").out)

    assert list(found) == [*FLOW, "sentence", "input", "output", "children", "history"]
    assert found["input"] == {"n": 1}
    assert found["output"] == 4
    assert [event["kind"] for event in found["history"]] == ["step_completed"] * 3
    assert all(list(event) == list(EVENT) for event in found["history"])


def test_show_cuts_payloads_unless_asked_for_all(ergon) -> None:
    long = "x" * 500
    ergon("run", "shop.py:fails", "--input", json.dumps({"reason": long}), "--id", "f")
    ergon("run", "shop.py:naps", "--input", '{"seconds": 0}', "--id", "n")

    assert long not in ergon("show", "f").out
    assert long in ergon("show", "f", "--full").out
    assert "the last 1 shown" in ergon("show", "n", "--events", "1").out


def test_what_a_log_holds_never_acts_on_the_terminal(ergon) -> None:
    """A log is data that others may write: escape sequences in it are shown, not obeyed; markup is text."""
    evil = "\x1b[2J\x07[red]gone[/red]\u202e"
    ergon("run", "shop.py:fails", "--input", json.dumps({"reason": evil}), "--id", "f")

    for arguments in (("ls",), ("show", "f"), ("show", "f", "--full"), ("why", "f")):
        shown = ergon(*arguments).out
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
    assert "[red]gone[/red]" in ergon("ls").out


async def test_a_flow_that_waits_for_its_own_code_is_shown_with_the_stack_of_its_wait(ergon_async) -> None:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()

    @flow
    async def own_code() -> None:
        await wait(asyncio.Event())

    options = WorkerOptions(evict_after_seconds=0.05)
    async with SqliteExecutionLog("ergon.db") as log, Worker(log, flows=[own_code], options=options):
        handle = await Scheduler(log).schedule(own_code.bind(), id="own-1")
        async with asyncio.timeout(10):
            while await handle.status() != TaskStatus.SUSPENDED:
                await asyncio.sleep(0.01)
    listed, shown = await ergon_async("ls"), await ergon_async("show", "own-1")
    as_json = json.loads((await ergon_async("show", "own-1", "--json")).out)

    assert "waiting for something that only its own code can give" in listed.out
    assert re.search(
        r"Waits\n  its own code: .*own_code \(test_looking.py:\d+\) > .*wait \(test_look", shown.out
    )
    assert [wait["kind"] for wait in as_json["waits"]] == ["code"]
    assert as_json["reason"] == ""


async def test_why_and_inbox_tell_what_a_flow_waits_for_and_what_is_unread(ergon_async) -> None:
    await waiting("asks-1")

    why = await ergon_async("why", "asks-1")
    await ergon_async("signal", "asks-1", "approval", "--value", '"yes"', "--key", "k")
    unread = await ergon_async("inbox", "asks-1")
    as_json = json.loads((await ergon_async("inbox", "asks-1", "--json")).out)

    assert why.out == "flow 'asks-1' is ready, but no worker is alive: start one that runs its code\n"
    assert 'signal\tapproval\t"yes"' in unread.out
    assert [list(message) for message in as_json] == [list(MESSAGE)]
    assert as_json[0]["payload"] == "yes"


def test_a_flow_whose_only_worker_was_killed_is_not_said_to_run(ergon, command, here) -> None:
    process = command("run", "shop.py:works", "--input", '{"seconds": 60}', "--id", "works-1")
    wait_for((here / "notes.txt").exists)
    process.kill()
    process.wait()

    why, ls, show = ergon("why", "works-1"), ergon("ls"), ergon("show", "works-1")

    gone = f"on worker 'ergon-run' (pid {process.pid} on "
    for said in (why.out, show.out):
        assert gone in said
        assert "which is gone; it goes on as soon as a worker runs that has code for `works`" in said
        assert "is running" not in said
    assert "its worker is gone; it goes on as soon as another runs" in ls.out


def test_workers_lists_the_living_and_with_all_the_others(filled, command) -> None:
    process = command("worker", "shop.py", "--name", "w1", "--queue", "default")
    wait_for(lambda: "w1" in filled("workers").out)
    alive = json.loads(filled("workers", "--json").out)
    process.kill()
    process.wait()

    nobody = filled("workers")
    everyone = filled("workers", "--all")

    assert [list(worker) for worker in alive] == [list(WORKER)]
    assert alive[0]["pid"] == process.pid
    assert alive[0]["state"] == "alive"
    assert nobody.code == 1
    assert "no worker is alive" in nobody.err
    assert f"w1\tdead\t{alive[0]['host']}:{process.pid}" in everyone.out


def test_doctor_is_content_with_a_healthy_log(filled) -> None:
    report = filled("doctor")
    as_json = json.loads(filled("doctor", "--json").out)

    assert report.code == 0
    for word in (
        "Python",
        "SQLite",
        "durability",
        "D3",
        "synchronous=FULL",
        "file system",
        "free space",
        "4 completed",
    ):
        assert word in report.out, report.out
    assert as_json["ok"] is True
    assert {check["state"] for check in as_json["checks"]} <= {"ok", "note"}


async def test_doctor_finds_parked_flows_and_flows_without_code(ergon_async) -> None:
    await waiting("asks-1")
    await park("asks-2")

    report = await ergon_async("doctor")

    assert report.code == 1
    assert "parked" in report.out
    assert "asks-2: the code has changed" in report.out
    assert "`asks`: 1 ready, and no live worker has code for them" in report.out


async def test_doctor_finds_flows_that_were_to_wake_while_nobody_is_there(ergon_async) -> None:
    await leave("asks-1", Settled(TaskStatus.SUSPENDED))
    await leave("asks-2", Settled(TaskStatus.SUSPENDED, wake_at=time.time() + 3_600))
    asleep = await ergon_async("doctor")
    await leave("asks-3", Settled(TaskStatus.SUSPENDED, wake_at=time.time()))
    overdue = await ergon_async("doctor")

    assert asleep.code == 0, asleep.out
    assert overdue.code == 1
    assert "`asks`: 1 ready, and no live worker has code for them" in overdue.out


async def test_doctor_names_the_flow_that_a_misspelt_name_may_have_meant(ergon_async) -> None:
    @flow
    async def ask() -> None: ...

    await waiting("asks-1")
    async with SqliteExecutionLog("ergon.db") as log, Worker(log, flows=[ask]):
        report = await ergon_async("doctor")

    assert "and no live worker has code for them; did you mean `ask`?" in report.out


@pytest.mark.parametrize(
    "options, told",
    [
        ({"queue": "billing"}, "no live worker with its code takes from queue `billing`"),
        ({"version": "2"}, "no live worker runs version '2'"),
        ({"tags": ("gpu",)}, "no live worker that takes from queue `default` has tag `gpu`"),
    ],
)
async def test_doctor_finds_flows_that_no_live_worker_takes_though_one_has_their_code(
    ergon_async, options: dict[str, Any], told: str
) -> None:
    @flow(name="asks")
    async def asks() -> None: ...

    async with SqliteExecutionLog("ergon.db") as log, Worker(log, flows=[asks], versions=["1"]):
        scheduler = Scheduler(log, version=options.get("version", "1"))
        chosen = ScheduleOptions(queue=options.get("queue"))
        await scheduler.schedule(asks.bind(), id="a", tags=options.get("tags"), options=chosen)
        report = await ergon_async("doctor")
        why = await ergon_async("why", "a")

    assert report.code == 1
    assert f"`asks`: 1 ready, and {told}" in report.out
    assert told in why.out


async def test_doctor_says_where_it_has_looked_at_the_newest_flows_only(ergon_async, monkeypatch) -> None:
    monkeypatch.setattr("ergon.cli.doctor.LOOKED_AT_MAX", 1)
    for number in (1, 2):
        await leave(f"asks-{number}", Settled(TaskStatus.SUSPENDED))
    content = await ergon_async("doctor")
    for number in (3, 4):
        await waiting(f"asks-{number}")
    stuck = await ergon_async("doctor")

    assert content.code == 0
    assert "none is ready in vain (among the newest 1)" in content.out
    assert "1 ready, and no live worker has code for them (among the newest 1)" in stuck.out


def test_doctor_looks_where_a_linked_log_is(filled, here: Path, monkeypatch) -> None:
    (here / "disk").mkdir()
    for file in here.glob("ergon.db*"):
        file.rename(here / "disk" / file.name)
    (here / "ergon.db").symlink_to(here / "disk" / "ergon.db")
    asked: list[Path] = []
    usage = shutil.disk_usage

    def ask(place: Path) -> Any:
        asked.append(place)
        return usage(place)

    monkeypatch.setattr(shutil, "disk_usage", ask)
    report = filled("doctor")
    (here / "disk" / "ergon.db-wal").write_bytes(bytes(5_000))
    (of_the_log, *_) = doctor_module._place(here / "ergon.db")

    assert asked[0] == here / "disk"
    assert f"(a link to {here / 'disk' / 'ergon.db'})" in report.out
    assert of_the_log.fact.endswith("WAL 5.0 kB")


def test_a_flow_that_sleeps_beyond_all_calendars_hides_no_other(ergon, command, here) -> None:
    (here / "far.py").write_text(
        "import asyncio\nfrom ergon import flow\n@flow\nasync def far() -> None:\n    await asyncio.sleep(1e12)\n"
    )
    run = command("run", "far.py:far", "--id", "far")
    assert run.stderr is not None
    told = [run.stderr.readline(), run.stderr.readline()]
    run.send_signal(signal.SIGINT)
    run.communicate()

    listed, shown, why = ergon("ls"), ergon("show", "far"), ergon("why", "far")
    (as_json,) = json.loads(ergon("ls", "--json").out)["flows"]

    assert "a timer, due at 9999-01-01 00:00:00 UTC" in told[1]
    assert [listed.code, shown.code, why.code] == [0, 0, 0]
    assert "far" in listed.out
    assert "due at 9999-01-01 00:00:00 UTC" in why.out
    assert as_json["wake_at"] == "9999-01-01T00:00:00.000000Z"


def test_doctor_tells_of_sqlite_only_where_the_log_is_a_file(ergon, here) -> None:
    (here / "ergon.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)

    damaged = ergon("doctor")
    unreachable = ergon("doctor", "--log", "postgresql://postgres@127.0.0.1:1/db")

    assert (damaged.code, unreachable.code) == (1, 1)
    assert f"SQLite       {sqlite3.sqlite_version}" in damaged.out
    assert "SQLite" not in unreachable.out
    assert "cannot be reached" in unreachable.out


def test_doctor_says_what_is_wrong_with_a_damaged_log(ergon, here) -> None:
    (here / "ergon.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)

    report = ergon("doctor")

    assert report.code == 1
    assert "wrong" in report.out
    assert "Traceback" not in report.err


def test_watch_tells_each_change_where_there_is_no_terminal(filled, command) -> None:
    process = command("ls", "--watch")
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(5)]

    filled("run", "shop.py:count", "--input", '{"n": 9}', "--id", "later")
    news = process.stdout.readline()
    process.send_signal(2)

    assert "count-1" in "".join(seen)
    assert "later" in news
    assert process.wait(10) == 130


def test_a_terminal_gets_a_table_and_no_colour_when_told_so(filled) -> None:
    coloured = on_terminal("ls", env={"NO_COLOR": "", "TERM": "xterm-256color"})
    plain = on_terminal("ls", env={"NO_COLOR": "1", "TERM": "xterm-256color"})

    assert "count-1" in coloured
    assert "\x1b[" in coloured
    assert "\x1b[3" not in plain
    assert "\t" not in plain


def on_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What the command writes to a terminal of 120 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ergon", *arguments],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": "120", **env},
    )
    os.close(follower)
    found = b""
    try:
        while data := os.read(leader, 4096):
            found += data
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(leader)
    assert process.wait(20) == 0
    return found.decode()


def test_a_reader_that_stops_reading_is_no_error(filled) -> None:
    line = f"{sys.executable} -m ergon ls | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stderr == ""


@flow(name="asks")
async def _asks(question: str) -> str:
    return question


async def park(flow_id: str) -> None:
    """A flow whose owner parked it."""
    await leave(flow_id, Settled(TaskStatus.PARKED, reason="the code has changed"))


async def leave(flow_id: str, settled: Settled) -> None:
    """A flow whose owner left it like this, and has ended."""
    worker_id = f"w#{flow_id}"
    async with SqliteExecutionLog("ergon.db") as log:
        await Scheduler(log).schedule(_asks.bind("?"), id=flow_id)
        worker = WorkerRecord(
            id=worker_id, name="w", host="h", pid=1, process_start="", boot_id="", flows=("asks",)
        )
        await log.register(worker, lease_seconds=10)
        (claimed,) = await log.claim(ClaimRequest(worker=worker_id, names=("asks",), flow_id=flow_id))
        done = asyncio.get_running_loop().create_future()
        log.submit(Commit(flow_id, Lease(worker_id, claimed.lease.epoch), settled=settled), done.set_result)
        assert await done is None
        await log.retire(worker_id)
        left = await log.find(flow_id)
        assert left is not None
        assert left.status == settled.status


def wait_for(found, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


async def test_a_step_that_is_over_is_not_listed_as_running(
    ergon_async, here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flow does is written down when it stands still; then it moves, and the next thing is not written yet."""
    gates = [asyncio.Event(), asyncio.Event()]

    @step
    async def first() -> None:
        await gates[0].wait()

    @step
    async def second() -> None:
        await gates[1].wait()

    @flow
    async def busy() -> None:
        await first()
        await second()

    async def told() -> bool:
        record = await log.find("f")
        return record is not None and "first" in record.reason

    options = WorkerOptions(lease_seconds=60)
    async with SqliteExecutionLog("ergon.db") as log, Worker(log, flows=[busy], options=options):
        handle = await Scheduler(log).schedule(busy.bind(), id="f")
        await until(told)
        before = json.loads((await ergon_async("show", "f", "--json")).out)["waits"]
        monkeypatch.setattr(incarnation, "LOOK_SECONDS", 60.0)
        gates[0].set()
        await until(lambda: log.history("f"))
        listed = await ergon_async("ls")
        page = json.loads((await ergon_async("ls", "--json")).out)
        shown = json.loads((await ergon_async("show", "f", "--json")).out)
        assert await told(), "or this shows nothing"
        gates[1].set()
        await handle.result(10)

    assert [wait["name"] for wait in before] == ["first"]
    assert "first" not in listed.out
    assert page["flows"][0]["waits"] == shown["waits"] == []
