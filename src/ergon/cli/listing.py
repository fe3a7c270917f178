"""`ergon ls`: flows, newest first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

import click

from ergon.cli.options import SUGGESTED_FROM_MAX, asynchronous, json_option, log_option, opened, read_since
from ergon.cli.output import ago, clean, console, is_terminal, note, print_json, rich_table, table
from ergon.cli.problems import FAILED, OK, BadInput
from ergon.cli.rows import FLOW, fields_of, flow_row
from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.names import near
from ergon.core.status import TaskStatus
from ergon.errors import UsageError
from ergon.executor.failure_lines import failure_line
from ergon.executor.sentences import clock_time, one_line, plain_reason, read_waits, waits_sentence
from ergon.scheduler.waits import now_of
from ergon.storage.log import ExecutionLog
from ergon.storage.process import state_of

COLUMNS: Final = ("ID", "FLOW", "STATUS", "QUEUE", "AGE", "ABOUT")
WATCH_SECONDS: Final = 0.5


@click.command(
    epilog=fields_of("--json prints {flows: [...], next: KEY or null}; a flow has:", FLOW),
    short_help="List flows, newest first.",
)
@log_option
@json_option
@click.option("--status", "statuses", multiple=True, metavar="STATUS", help="Only this status; repeatable.")
@click.option("--name", "names", multiple=True, metavar="FLOW", help="Only flows of this name; repeatable.")
@click.option("--queue", metavar="QUEUE", help="Only flows of this queue.")
@click.option("--tag", "tags", multiple=True, help="Only flows with this tag; repeatable: with all of them.")
@click.option("--since", metavar="TIME", help="Only flows created since: 90s, 10m, 2h, 3d, or a date.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@click.option("--after", metavar="KEY", help="The next page: the key that the page before ended with.")
@click.option("--watch", is_flag=True, help="Show the list again whenever it changes, until interrupted.")
@asynchronous
async def ls(
    url: str | None,
    as_json: bool,
    statuses: tuple[str, ...],
    names: tuple[str, ...],
    queue: str | None,
    tags: tuple[str, ...],
    since: str | None,
    limit: int,
    after: str | None,
    watch: bool,
) -> int:
    """List flows, newest first. Exits 1 when filters were given and nothing matches."""
    if watch and as_json:
        raise BadInput("--watch is for people; a program calls `ergon ls --json` as often as it needs")
    chosen = tuple(_status(text) for text in statuses)
    async with opened(url) as log:
        where = FlowFilter(
            statuses=chosen,
            names=names,
            queue=queue,
            tags=tags,
            created_after=read_since(since, log.now()) if since is not None else None,
        )
        if watch:
            await _watch(log, where, limit)
        flows, following = await _page(log, where, limit, after)
        if as_json:
            print_json({"flows": [flow_row(flow) for flow in flows], "next": following})
        elif flows:
            dead = await dead_owners(log, flows)
            table(COLUMNS, [_row(flow, log.now(), dead) for flow in flows], styled="STATUS")
            if following is not None:
                note(f"more flows: --after {following}")
        else:
            note(await _nothing(log, where, names))
    return FAILED if not flows and where != FlowFilter() else OK


async def dead_owners(log: ExecutionLog, flows: Iterable[FlowRecord]) -> frozenset[str]:
    """The ids of dead workers. Empty when none of the flows has an owner."""
    if all(flow.owner is None for flow in flows):
        return frozenset()
    now = log.now()
    return frozenset(worker.id for worker in await log.workers() if state_of(worker, now) == "dead")


async def _page(
    log: ExecutionLog, where: FlowFilter, limit: int, after: str | None
) -> tuple[list[FlowRecord], str | None]:
    try:
        flows, following = await log.list(where, limit=limit, after=after)
    except (ValueError, UsageError):
        raise BadInput(f"--after {after!r} is no key of a page; take it from the page before") from None
    return [await now_of(log, flow) for flow in flows], following


def _status(text: str) -> TaskStatus:
    try:
        return TaskStatus(text.lower())
    except (ValueError, UsageError):
        known = [status.value for status in TaskStatus]
        raise BadInput(
            f"--status {text!r} is no status{near(text.lower(), known, otherwise='.')} They are: {', '.join(known)}"
        ) from None


async def _nothing(log: ExecutionLog, where: FlowFilter, names: tuple[str, ...]) -> str:
    if where == FlowFilter():
        return "this log holds no flows yet"
    recent, _ = await log.list(FlowFilter(), limit=SUGGESTED_FROM_MAX)
    known = {flow.name for flow in recent}
    hints = [near(name, known, ask="; did you mean --name {}?") for name in names if name not in known]
    return "no flow matches" + "".join(hints[:1])


def _row(flow: FlowRecord, now: float, dead: frozenset[str]) -> tuple[str, ...]:
    age = ago(now - flow.created_at)
    return (flow.id, flow.name, flow.status.value, flow.queue, age, about(flow, dead))


def about(flow: FlowRecord, dead: frozenset[str]) -> str:
    """A few words on where a flow stands, from its record and the ids of dead workers."""
    if flow.owner in dead:
        return "its worker is gone; it goes on as soon as another runs"
    match flow.status:
        case TaskStatus.COMPLETED:
            start = flow.started_at if flow.started_at is not None else flow.created_at
            return f"took {ago((flow.ended_at or start) - start)}"
        case TaskStatus.FAILED:
            return failure_line(flow.output)
        case TaskStatus.PENDING if flow.wake_at is not None:
            return f"starts at {clock_time(flow.wake_at)}"
        case TaskStatus.SUSPENDED | TaskStatus.RUNNING if flow.reason and not plain_reason(flow.reason):
            sentence = waits_sentence(read_waits(flow.reason))
            busy = flow.status is TaskStatus.RUNNING
            return sentence.replace("waiting for step", "running step", 1) if busy else sentence
        case _:
            return one_line(plain_reason(flow.reason))


async def _watch(log: ExecutionLog, where: FlowFilter, limit: int) -> None:
    """Until interrupted. On a terminal the list is redrawn in place; elsewhere it is printed when it changes."""
    if not is_terminal():
        await _watch_lines(log, where, limit)
    from rich.live import Live

    screen = console()
    with Live(console=screen, auto_refresh=False, screen=True) as live:
        while True:
            flows, _ = await _page(log, where, min(limit, max(screen.height - 2, 1)), None)
            dead = await dead_owners(log, flows)
            rows = [_row(flow, log.now(), dead) for flow in flows]
            live.update(rich_table(COLUMNS, rows, styled="STATUS"), refresh=True)
            await asyncio.sleep(WATCH_SECONDS)


async def _watch_lines(log: ExecutionLog, where: FlowFilter, limit: int) -> None:
    shown: dict[str, Any] = {}
    while True:
        flows, _ = await _page(log, where, limit, None)
        dead = await dead_owners(log, flows)
        for flow in reversed(flows):
            now = (flow.status, flow.reason, flow.owner in dead)
            if shown.get(flow.id) != now:
                shown[flow.id] = now
                at = time.strftime("%H:%M:%S")
                cells = (flow.id, flow.name, flow.status.value, about(flow, dead))
                print(at, *(clean(cell) for cell in cells), sep="\t", flush=True)
        await asyncio.sleep(WATCH_SECONDS)
