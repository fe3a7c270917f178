"""`ergon demo` from its first line to its last: the play, the check, the numbers."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from ergon import FlowRecord, SqliteExecutionLog
from ergon.core.codec import decoder_for
from ergon.demo.check import Verdict, check_by_hand, compare
from ergon.demo.files import entries_of, to_bytes
from ergon.demo.flows import Report
from ergon.demo.home import DemoError, Home, State, job_for
from ergon.demo.play import FLOW_ID, OUR_KILL, PATH_WIDTH, Play
from ergon.demo.screen import Screen, ergon_here, quoted
from ergon.demo.tally import Tally

NAMES_SHOWN: Final = 5


async def show(directory: str | None, place: Path, *, fresh: bool, console: Console) -> bool:
    """Play the demo; True when every claim holds. Raises `DemoError`."""
    home, screen = Home(place), Screen(console)
    with home.held():
        state = _take_up(home, directory, fresh=fresh)
        began = time.monotonic()
        async with SqliteExecutionLog(home.log) as log:
            play = Play(home, state, log, screen)
            _introduce(screen, state, play.total)
            record = await play.run()
            seconds = time.monotonic() - began
            screen.event("done", f"flow {FLOW_ID!r} completed; {seconds:.1f} s since the start of this demo")
            screen.title("Is it right?")
            verdict = await _check(home, state, screen)
            flows = await play.read_everything()
            tally = play.books.tally()
        state.finished = True
        home.save(state)
    _tell_verdict(screen, record, verdict)
    _tell_numbers(screen, state, tally, flows)
    _tell_next(screen, home, state)
    return verdict.holds and tally.holds


def _take_up(home: Home, directory: str | None, *, fresh: bool) -> State:
    """The state to go on from: an unfinished demo's, or a new one."""
    job = job_for(directory, home.path)
    if not os.path.isdir(to_bytes(job.root)):
        raise DemoError(f"{job.root} is no directory")
    earlier = None if fresh else home.load()
    if earlier is not None and not earlier.finished:
        if directory is not None and earlier.job.root != job.root:
            raise DemoError(
                f"an unfinished demo of {earlier.job.root} is in {home.path}; go on with it (`{ergon_here()} demo`), "
                "start over with --fresh, or use another place with --dir"
            )
        return earlier
    home.clear()
    home.prepare()
    state = State(job=job, began_at=time.time())
    home.save(state)
    return state


def _introduce(screen: Screen, state: State, total: tuple[int, int]) -> None:
    files, size = total
    screen.title(f"Ergon demo: index {state.job.root} ({files:,} files, {size / 1e6:,.0f} MB), durably")
    screen.plain(
        "One flow lists the tree, each directory is a child flow, each file is a step: sha256 and zlib."
    )
    screen.plain(
        "A worker process executes them. It is killed with SIGKILL in the middle, again and again, and started again."
    )
    screen.plain("Nothing may be lost, and nothing that was finished may be done twice.\n")


async def _check(home: Home, state: State, screen: Screen) -> Verdict:
    entries = list(entries_of(home.path))
    total, done = sum(1 for entry in entries if entry.sha256), 0
    stopped = threading.Event()

    def on_progress(count: int) -> None:
        nonlocal done
        done += count
        if stopped.is_set():
            raise DemoError("the check was interrupted")
        screen.bar("check", min(done, total), total, f"{done:,} of {total:,}")

    try:
        return await asyncio.to_thread(compare, state.job, entries, state.began_at, on_progress)
    finally:
        stopped.set()
        screen.no_bars()


def _tell_verdict(screen: Screen, record: FlowRecord, verdict: Verdict) -> None:
    report: Report = decoder_for(Report).decode(record.output or "null")
    totals = report.totals
    screen.plain(
        f"{verdict.program} agrees with the manifest on {verdict.equal:,} of {totals.files:,} files."
    )
    _tell_some(screen, "note", "changed, came or went meanwhile", verdict.changed)
    _tell_some(screen, "note", "could not be read", verdict.unreadable)
    _tell_some(screen, "wrong", "have another digest", verdict.different)
    _tell_some(screen, "wrong", "are missing in the manifest", verdict.missing)
    _tell_some(
        screen, "wrong", f"were not checked: {verdict.program} gave no digest of them", verdict.unchecked
    )
    ratio = totals.compressed / max(totals.bytes, 1)
    screen.plain(f"Compressed, the {totals.bytes / 1e6:,.0f} MB would take {ratio:.0%} of their size.")


def _tell_numbers(screen: Screen, state: State, tally: Tally, flows: int) -> None:
    again = tally.begun - len(tally.bodies)
    kills = sum(death.how.startswith(OUR_KILL) for death in state.deaths)
    screen.title("What it took")
    screen.numbers(
        [
            ("flows", f"{flows:,}", None),
            ("worker processes", f"{state.workers:,}", None),
            ("  of them ended before the work did", f"{len(state.deaths):,}", None),
            ("  of these killed with SIGKILL by this demo", f"{kills:,}", None),
            ("steps with a result in the log", f"{tally.committed:,}", None),
            ("step bodies begun, counted outside the log in a ledger", f"{tally.begun:,}", None),
            ("  of them a second try, because a worker died in the first", f"{again:,}", None),
            ("results found in the log when flows were revived", f"{state.revived:,}", None),
        ]
    )
    _tell_some(screen, "note", "steps were tried again", tally.repeated)
    screen.title("What was promised")
    screen.numbers(
        [
            ("steps committed more than once", *_none(tally.committed_twice)),
            ("steps begun again after they were committed", *_none(tally.ran_after_commit)),
            ("steps begun twice by a worker that did not die", *_none(tally.repeated_alive)),
            ("results without a body that made them", *_none(tally.without_body)),
        ]
    )


def _none(names: list[str]) -> tuple[str, bool]:
    return f"{len(names):,}", not names


def _tell_next(screen: Screen, home: Home, state: State) -> None:
    ergon = ergon_here()
    screen.commands(
        "Look for yourself",
        [
            (f"export ERGON_LOG={quoted(home.log.resolve())}", ""),
            *(
                [("unset ERGON_NAMESPACE", "the demo's log has none")]
                if os.environ.get("ERGON_NAMESPACE")
                else ()
            ),
            (f"{ergon} ls", "the flows, newest first"),
            (f"{ergon} show {FLOW_ID}", "its children and its history, with times and source lines"),
            (f"{ergon} why {FLOW_ID}", "one sentence"),
            (f"{ergon} doctor", "what this log survives"),
        ],
    )
    screen.commands("Check the manifest yourself", [(check_by_hand(state.job, _shortest(home.manifest)), "")])


def _tell_some(screen: Screen, tag: str, what: str, names: list[str]) -> None:
    if names:
        names = [name if len(name) <= PATH_WIDTH + 12 else "…" + name[-PATH_WIDTH:] for name in names]
        more = f", and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        screen.event(tag, f"{len(names):,} {what}: {', '.join(names[:NAMES_SHOWN])}{more}")


def _shortest(path: Path) -> Path:
    """The path as one would type it here."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path.resolve()


__all__ = ["show"]
