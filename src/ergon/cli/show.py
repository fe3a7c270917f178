"""`ergon show`, `why` and `inbox`: one flow, in full, in one sentence, and what it has not read yet."""

from __future__ import annotations

from typing import Final

import click

from ergon.cli.listing import about, dead_owners
from ergon.cli.options import asynchronous, find_flow, json_option, log_option, opened
from ergon.cli.output import ago, clean, console, cut, local_time, note, print_json, table
from ergon.cli.rows import EVENT, FLOW, MESSAGE, WHY, event_row, fields_of, flow_row, message_row, payload
from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.history import Event, EventKind
from ergon.core.status import TaskStatus
from ergon.executor.failure_lines import failure_line, failure_lines
from ergon.executor.sentences import read_waits
from ergon.executor.waits import OWN_CODE
from ergon.scheduler.scheduler import Scheduler
from ergon.scheduler.waits import up_to_date
from ergon.storage.log import ExecutionLog

PAYLOAD_WIDTH: Final = 60
EVENTS_SHOWN: Final = 200
TREE_MAX: Final = 50
"""Flows shown in a tree of children, unless all are asked for."""
CHILDREN_READ: Final = 1_000
BACK_OFFS: Final = (EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED)
"""Events whose time is that of the next attempt; when the last one failed is not recorded."""


@click.command(
    epilog=fields_of("--json prints an object; it has:", WHY),
    short_help="Say in one sentence why a flow is where it is.",
)
@click.argument("flow_id", metavar="ID")
@log_option
@json_option
@asynchronous
async def why(flow_id: str, url: str | None, as_json: bool) -> None:
    """Say in one sentence why a flow is where it is, with the evidence."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        sentence = await Scheduler(log).handle(flow_id).why()
    if as_json:
        print_json({"id": record.id, "status": record.status.value, "sentence": sentence})
    else:
        print(clean(sentence))


@click.command(
    epilog=fields_of("--json prints an array; a message has:", MESSAGE),
    short_help="List the messages a flow has not read yet.",
)
@click.argument("flow_id", metavar="ID")
@log_option
@json_option
@asynchronous
async def inbox(flow_id: str, url: str | None, as_json: bool) -> None:
    """List the messages (signals, ended children, a cancel) that a flow has not taken yet, oldest first."""
    async with opened(url) as log:
        await find_flow(log, flow_id)
        messages = await log.inbox(flow_id)
    if as_json:
        print_json([message_row(message) for message in messages])
    elif messages:
        rows = [
            (local_time(message.at), message.kind, message.name, cut(message.payload or "", PAYLOAD_WIDTH))
            for message in messages
        ]
        table(("CAME", "KIND", "NAME", "VALUE"), rows)
    else:
        note("nothing is unread")


@click.command(
    epilog="\n\n".join(
        (
            fields_of(
                "--json prints a flow with sentence, input, output, children and history; a flow has:", FLOW
            ),
            fields_of("each of its history has:", EVENT),
        )
    ),
    short_help="Show one flow: where it stands, its children, its history.",
)
@click.argument("flow_id", metavar="ID")
@log_option
@json_option
@click.option("--full", is_flag=True, help="Cut neither payloads nor the tree of children.")
@click.option(
    "--events",
    "events_max",
    type=click.IntRange(0),
    default=EVENTS_SHOWN,
    show_default=True,
    help="Show so many of the latest events; 0: all. (--json: all.)",
)
@asynchronous
async def show(flow_id: str, url: str | None, as_json: bool, full: bool, events_max: int) -> None:
    """Show one flow: where it stands, what it waits for, its children, its history with times and source lines."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        sentence = await Scheduler(log).handle(flow_id).why()
        history = await log.history(flow_id)
        record = (
            record._replace(reason=up_to_date(record, history, log.now()))
            if read_waits(record.reason)
            else record
        )
        if as_json:
            children, _ = await log.list(FlowFilter(parent_id=flow_id), limit=10_000)
            print_json(
                flow_row(record)
                | {
                    "sentence": sentence,
                    "input": payload(record.input),
                    "output": payload(record.output),
                    "children": [child.id for child in reversed(children)],
                    "history": [event_row(event) for event in history],
                }
            )
            return
        _show_header(record, sentence, log.now(), full=full)
        _show_stacks(record)
        await _show_tree(log, record, 100_000 if full else TREE_MAX)
        _show_history(record, history, full=full, events_max=events_max)


def _show_header(record: FlowRecord, sentence: str, now: float, *, full: bool) -> None:
    out = console()
    out.print(clean(sentence[0].upper() + sentence[1:]) + ".", style="bold", soft_wrap=True)
    width = None if full else max(out.width - 12, 40)
    facts = {
        "flow": record.name,
        "queue": record.queue + (f"   version {record.version}" if record.version is not None else ""),
        "tags": ", ".join(record.tags),
        "created": f"{local_time(record.created_at)} ({ago(now - record.created_at)} ago)",
        "started": local_time(record.started_at),
        "ended": _ended(record),
        "deadline": local_time(record.deadline_at) if record.deadline_at is not None else "",
        "parent": record.parent_id or "",
        "input": record.input,
        "result": record.output or "" if record.status is TaskStatus.COMPLETED else "",
    }
    for name, fact in facts.items():
        if fact:
            text = clean(fact)
            out.print(f"  {name:<9} {text if width is None else cut(text, width)}", soft_wrap=True)
    _show_failure(record, full=full, width=width)


def _show_stacks(record: FlowRecord) -> None:
    """Who awaits whom, for each wait where that is more than the line in the sentence."""
    lines: dict[str, list[str]] = {}
    for wait in read_waits(record.reason):
        if stack := wait.get("stack"):
            name = f' "{wait["name"]}"' if wait.get("name") else ""
            what = "its own code" if wait["kind"] == OWN_CODE else f"{wait['kind']}{name}"
            lines.setdefault(" > ".join(map(str, stack)), []).append(what)
    if not lines:
        return
    out = console()
    out.print("\nWaits", style="bold")
    for stack, waits in lines.items():
        out.print(clean(f"  {', '.join(waits)}: {stack}"), soft_wrap=True)


def _ended(record: FlowRecord) -> str:
    if record.ended_at is None:
        return ""
    start = record.started_at if record.started_at is not None else record.created_at
    return f"{local_time(record.ended_at)} (took {ago(record.ended_at - start)})"


def _show_failure(record: FlowRecord, *, full: bool, width: int | None) -> None:
    """One line, or with `full` one for each error of the chain or the group."""
    if record.status is not TaskStatus.FAILED:
        return
    lines = failure_lines(record.output) if full else [(failure_line(record.output), 0)]
    for number, (line, depth) in enumerate(lines):
        text = clean(line) if width is None else cut(clean(line), width)
        console().print(f"  {'' if number else 'failure':<9} {'  ' * depth}{text}", soft_wrap=True)


async def _show_tree(log: ExecutionLog, record: FlowRecord, most: int) -> None:
    """The children below the flow, depth first, as long as they fit."""
    lines: list[str] = []

    async def add(parent: FlowRecord, indent: str) -> None:
        children, more = await log.list(FlowFilter(parent_id=parent.id), limit=CHILDREN_READ)
        children.reverse()
        dead = await dead_owners(log, children)
        for number, child in enumerate(children):
            if len(lines) >= most:
                lines.append(
                    f"{indent}└ … {'at least ' if more else ''}{len(children) - number:,} more (--full: all)"
                )
                return
            last = number == len(children) - 1 and more is None
            label = child.id.removeprefix(f"{parent.id}/")
            line = (
                f"{indent}{'└' if last else '├'} {label}  {child.name}  {child.status}  {about(child, dead)}"
            )
            lines.append(line.rstrip())
            await add(child, indent + ("  " if last else "│ "))

    await add(record, "  ")
    if not lines:
        return
    out = console()
    out.print("\nChildren", style="bold")
    for line in lines:
        out.print(clean(line), soft_wrap=True)


def _show_history(record: FlowRecord, history: list[Event], *, full: bool, events_max: int) -> None:
    out = console()
    shown = history[-events_max:] if events_max else history
    hidden = len(history) - len(shown)
    title = f"\nHistory ({len(history)} event{'' if len(history) == 1 else 's'}" + (
        f", the last {len(shown)} shown; --events 0: all)" if hidden else ")"
    )
    out.print(title, style="bold")
    if not shown:
        return
    start = record.started_at if record.started_at is not None else record.created_at
    rows = [
        (
            str(event.seq),
            "-" if event.kind in BACK_OFFS else _since(start, event.at),
            event.kind,
            event.op or "-",
            event.name or "-",
            str(event.attempt or "-"),
            event.source or "-",
            _told(event, start) if full else cut(_told(event, start), PAYLOAD_WIDTH),
        )
        for event in shown
    ]
    table(("SEQ", "WHEN", "WHAT", "OP", "NAME", "ATTEMPT", "SOURCE", "PAYLOAD"), rows)


def _told(event: Event, start: float) -> str:
    """The payload; of a back-off first when it ends, as that is the time that its event has."""
    due = f"next attempt due {_since(start, event.at)} " if event.kind in BACK_OFFS else ""
    return due + (event.payload or "-")


def _since(start: float, at: float) -> str:
    return (
        f"+{max(at - start, 0.0):.3f} s"  # a worker's idea of the log's clock is off by the way of a message
    )
