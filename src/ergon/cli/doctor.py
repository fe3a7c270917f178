"""`ergon doctor`: say whether a log is healthy and what it survives."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import click

from ergon.cli.options import asynchronous, json_option, log_option, namespace_given, opened, path_of
from ergon.cli.output import clean, console, cut, print_json, size
from ergon.cli.problems import FAILED, OK, BadInput
from ergon.core.commit import FlowFilter, FlowRecord, WorkerRecord
from ergon.core.durability import SURVIVES
from ergon.core.names import near
from ergon.core.status import TaskStatus
from ergon.errors import StoreError
from ergon.executor.sentences import one_line
from ergon.opening import open_log
from ergon.scheduler.why import missing_for
from ergon.storage.log import ExecutionLog
from ergon.storage.process import state_of
from ergon.storage.sqlite.place import place_of

FREE_BYTES_MIN: Final = 200_000_000
SHOWN_MAX: Final = 5
LOOKED_AT_MAX: Final = 1000
"""How many flows are looked at one by one."""


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    state: str
    """ok, note (worth knowing) or wrong."""
    fact: str


@click.command(short_help="Say whether a log is healthy and what it survives.")
@log_option
@json_option
@asynchronous
async def doctor(url: str | None, as_json: bool) -> int:
    """Say whether a log is healthy and what it survives. Exits 1 when something is wrong.

    \b
    --json prints {ok: true or false, checks: [{name, state, fact}]}; state is ok, note or wrong.
    """  # noqa: D301 - click reads the control character
    findings = [Finding("Python", "ok", f"{sys.version.split()[0]} at {sys.executable}")]
    # A URL that no store knows is bad input; all else that keeps it shut is a finding.
    is_file = path_of(open_log(url or None, namespace=namespace_given())) is not None
    try:
        async with opened(url) as log:
            findings += await _examine(log)
    except BadInput:
        raise
    except StoreError as error:
        if is_file:
            findings.append(Finding("SQLite", "ok", sqlite3.sqlite_version))
        findings.append(Finding("log", "wrong", str(error)))
    healthy = all(finding.state != "wrong" for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": [finding._asdict() for finding in findings]})
    else:
        _print(findings)
    return OK if healthy else FAILED


async def _examine(log: ExecutionLog) -> list[Finding]:
    counts = await log.count(FlowFilter())
    workers = [(worker, state_of(worker, log.now())) for worker in await log.workers()]
    return [
        *await _durability(log),
        *_place(path_of(log)),
        *await _workers(log, workers),
        _counts(counts),
        *await _parked(log),
        *await _stuck(log, workers),
    ]


async def _durability(log: ExecutionLog) -> list[Finding]:
    found = await log.durability()
    settings = dict(found.settings)
    version = settings.pop("sqlite_version", None)
    bug_is, _, policy = settings.pop("walreset_bug", "absent").partition("; ")
    bug = (
        "has the WAL-reset bug, which Ergon's checkpoints avoid"
        if bug_is == "avoided"
        else "free of the WAL-reset bug"
    )
    filesystem = settings.pop("filesystem", "unknown")
    backed = ", ".join(f"{name}={value}" for name, value in settings.items())
    low = found.level in ("D0", "D1", "D2")
    of_sqlite = [
        Finding("SQLite", "note" if bug_is == "avoided" else "ok", f"{version}, {bug}"),
        *([Finding("checkpoints", "ok", policy.removeprefix("checkpoints "))] if policy else []),
        Finding("file system", "ok", filesystem),
    ]
    return [
        *(of_sqlite if version is not None else ()),
        Finding(
            "durability",
            "note" if low else "ok",
            f"{found.level}: survives {SURVIVES[found.level]} ({backed})",
        ),
        *(Finding("durability", "note", text) for text in found.notes if "WAL-reset" not in text),
    ]


def _place(path: Path | None) -> list[Finding]:
    if path is None:
        return []
    place = place_of(path)
    bytes_wal = place.wal.stat().st_size if place.wal.exists() else 0
    writable = os.access(place.file, os.W_OK) and os.access(place.folder, os.W_OK | os.X_OK)
    free = shutil.disk_usage(place.folder).free
    leads = f" (a link to {place.file})" if path.is_symlink() else ""
    return [
        Finding("log", "ok", f"{path}{leads}, {size(path.stat().st_size)}, WAL {size(bytes_wal)}"),
        Finding(
            "writable",
            "ok" if writable else "wrong",
            "yes" if writable else "no: give this user write rights",
        ),
        Finding("free space", "ok" if free >= FREE_BYTES_MIN else "wrong", size(free)),
    ]


async def _workers(log: ExecutionLog, workers: list[tuple[WorkerRecord, str]]) -> list[Finding]:
    states = Counter(state for _, state in workers)
    alive = [
        f"{worker.name} (pid {worker.pid})" for worker, state in workers if state in ("alive", "draining")
    ]
    fact = f"{len(alive)} alive" + (f": {', '.join(alive[:SHOWN_MAX])}" if alive else "")
    findings = [Finding("workers", "ok", f"{fact}; {states['dead']} died, {states['stopped']} stopped")]
    dead = {worker.id for worker, state in workers if state == "dead"}
    running, more = await log.list(FlowFilter(statuses=(TaskStatus.RUNNING,)), limit=LOOKED_AT_MAX)
    orphans = [flow.id for flow in running if flow.owner in dead]
    if orphans:
        findings.append(
            Finding(
                "orphans",
                "note" if alive else "wrong",
                f"still owned by a worker that died: {len(orphans)} ({_some(orphans)}); the next worker takes over"
                + _of_the_newest(more),
            )
        )
    return findings


def _counts(counts: dict[TaskStatus, int]) -> Finding:
    parts = [f"{count:,} {status}" for status, count in counts.items() if count]
    return Finding("flows", "ok", ", ".join(parts) or "none yet")


async def _parked(log: ExecutionLog) -> list[Finding]:
    parked, more = await log.list(FlowFilter(statuses=(TaskStatus.PARKED,)), limit=SHOWN_MAX)
    found = [Finding("parked", "wrong", f"{flow.id}: {cut(one_line(flow.reason), 200)}") for flow in parked]
    if more is not None:
        found.append(Finding("parked", "wrong", "and more: ergon ls --status parked"))
    return found


async def _stuck(log: ExecutionLog, workers: list[tuple[WorkerRecord, str]]) -> list[Finding]:
    """Flows that are ready, or were to wake, while nobody alive takes them."""
    statuses = (TaskStatus.PENDING, TaskStatus.SUSPENDED)
    waiting, more = await log.list(FlowFilter(statuses=statuses), limit=LOOKED_AT_MAX)
    alive = [worker for worker, state in workers if state in ("alive", "draining")]
    ready = Counter(
        (flow.name, _why_not(flow, alive)) for flow in waiting if _is_ready(flow, log.now())
    ).most_common()
    stuck = [
        Finding("no worker", "wrong", f"`{name}`: {count} ready, and {why_not}{_of_the_newest(more)}")
        for (name, why_not), count in ready
        if why_not is not None
    ]
    if more is None or stuck:
        return stuck[:SHOWN_MAX]
    fact = f"none is ready in vain{_of_the_newest(more)}; `ergon why ID` tells of any other"
    return [Finding("no worker", "note", fact)]


def _why_not(flow: FlowRecord, alive: list[WorkerRecord]) -> str | None:
    """What keeps all of these workers from taking the flow."""
    known = {name for worker in alive for name in worker.flows}
    if flow.name in known:
        return missing_for(flow, alive)
    return "no live worker has code for them" + near(flow.name, sorted(known), ask="; did you mean `{}`?")


def _of_the_newest(more: object) -> str:
    """What a count leaves out, where there are more flows than are looked at."""
    return f" (among the newest {LOOKED_AT_MAX:,})" if more is not None else ""


def _is_ready(flow: FlowRecord, now: float) -> bool:
    if flow.wake_at is None:
        return flow.status == TaskStatus.PENDING  # a suspended one waits for something other than time
    return flow.wake_at <= now


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")


def _print(findings: list[Finding]) -> None:
    out = console()
    styles = {"ok": "green", "note": "yellow", "wrong": "bold red"}
    from rich.text import Text

    for finding in findings:
        line = Text()
        line.append(f"{finding.state:<6}", style=styles[finding.state])
        line.append(f"{finding.name:<13}", style="bold")
        line.append(clean(finding.fact))
        out.print(line, soft_wrap=True)
