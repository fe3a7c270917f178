"""What keeps the children of `ergon worker --processes N` running, with children that are no workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ergon.cli.fleet import Fleet

LIVES = "import sys; sys.stdin.read()"
"""Ends when its parent closes its standard input or a signal comes, as a worker does."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def children_of_children(tmp_path: Path) -> Iterator[Path]:
    """A file that pids are written to; they are killed when the test ends."""
    pids = tmp_path / "pids"
    yield pids
    for pid in pids.read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


async def test_a_child_is_started_again_though_a_process_that_it_started_lives_on(
    children_of_children: Path,
) -> None:
    """That process has inherited the child's pipes, so nobody sees the end of what the child says."""
    orphans = (
        "import os, signal, subprocess;"
        "found = subprocess.Popen(['sleep', '600']);"
        f"print(found.pid, file=open({str(children_of_children)!r}, 'a'), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    fleet = Fleet(["w"], lambda _: [sys.executable, "-c", orphans], drain_seconds=0.1)
    running = asyncio.create_task(fleet.run(stop))

    await until(
        lambda: children_of_children.exists() and len(children_of_children.read_text().splitlines()) >= 2
    )
    stop.set_result(0)

    assert await asyncio.wait_for(running, 30) == 0


async def test_a_child_that_cannot_be_started_is_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    """As when the system has no room for another process at the moment."""
    commands = iter([["/there/is/no/such/program"]])
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    caplog.set_level("INFO", "ergon.worker")
    fleet = Fleet(["w"], lambda _: next(commands, [sys.executable, "-c", LIVES]), drain_seconds=5)
    running = asyncio.create_task(fleet.run(stop))

    await until(lambda: "w started" in caplog.text)
    stop.set_result(0)

    assert await asyncio.wait_for(running, 30) == 0
    assert "w could not be started ([Errno 2]" in caplog.text
    assert "it is started again in 0.5 s" in caplog.text


async def test_a_child_whose_log_was_busy_or_full_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ended because of a busy moment must not take the others with it."""
    child = tmp_path / "child.py"
    child.write_text(
        "import sys\n"
        "from ergon import errors\n"
        "from ergon.cli import app\n"
        "def fails(*_, **__):\n"
        "    raise getattr(errors, sys.argv[1])('in the way')\n"
        "app.cli.main = fails\n"
        "app.main()\n"
    )
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    caplog.set_level("INFO", "ergon.worker")
    names = ["LogBusy", "LogFull", "StoreError"]
    fleet = Fleet(names, lambda name: [sys.executable, str(child), name], drain_seconds=5)
    running = asyncio.create_task(fleet.run(stop))

    await until(lambda: stop.done() or caplog.text.count("it is started again") >= 3)
    stop.set_result(0)

    assert await asyncio.wait_for(running, 30) == 0
    for name in names:
        assert f"{name} ended with exit code 1" in caplog.text


async def test_children_are_read_on_when_nobody_reads_what_their_parent_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child whose pipe is full would stand still at its next log line, with its flows."""
    talks = f"print('a line\\n' * 100_000, flush=True); open({str(tmp_path / 'said')!r}, 'w'); {LIVES}"
    reader, writer = os.pipe()
    os.close(reader)
    nobody = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", nobody)
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        Fleet(["w"], lambda _: [sys.executable, "-c", talks], drain_seconds=5).run(stop)
    )

    await until((tmp_path / "said").exists)
    stop.set_result(0)

    assert await asyncio.wait_for(running, 30) == 0
    with pytest.raises(BrokenPipeError):
        nobody.close()


async def test_a_mistake_in_the_parent_stops_the_children_and_is_told() -> None:
    """Otherwise it would go on with fewer workers, and nobody would know."""

    def command(name: str) -> list[str]:
        if name == "bad":
            raise KeyError(name)
        return [sys.executable, "-c", LIVES]

    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    with pytest.raises(KeyError):
        await asyncio.wait_for(Fleet(["good", "bad"], command, drain_seconds=5).run(stop), 30)
