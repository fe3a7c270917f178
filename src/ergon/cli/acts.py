"""Verbs that change one flow: `signal`, `cancel`, `kill`, `pause`, `resume`, `retry`, `delete`.

Each prints one line that says what was changed. None of them needs the flow's code.
"""

from __future__ import annotations

import click

from ergon.cli.options import asynchronous, find_flow, log_option, opened, read_json
from ergon.cli.output import clean, note
from ergon.cli.problems import BadInput
from ergon.core.commit import FlowRecord
from ergon.core.names import near
from ergon.core.status import TaskStatus
from ergon.executor.sentences import read_waits
from ergon.scheduler.scheduler import Scheduler

id_argument = click.argument("flow_id", metavar="ID")
reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the log.")


@click.command(short_help="Send a signal to a flow.")
@id_argument
@click.argument("name", metavar="NAME")
@click.option("--value", default="null", metavar="JSON", help="The value, or @file.json. Default: null.")
@click.option("--key", metavar="KEY", help="Repeating a signal with the same key changes nothing.")
@log_option
@asynchronous
async def signal(flow_id: str, name: str, value: str, key: str | None, url: str | None) -> None:
    """Send a signal to a flow. It is kept until a wait for NAME takes it, also while no worker runs."""
    parsed = read_json(value, "--value")
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        await Scheduler(log).handle(flow_id).signal(name, parsed, key=key)
    print(clean(f"sent signal {name!r} to flow {flow_id!r}"))
    awaited = [str(wait.get("name")) for wait in read_waits(record.reason) if wait.get("kind") == "signal"]
    if awaited and name not in awaited and (hint := near(name, awaited, ask="{}")):
        note(clean(f"the flow waits for signal {hint!r}, not {name!r}; this one is kept for a later wait"))


@click.command(short_help="Ask a flow to stop; its cleanup runs.")
@id_argument
@reason_option
@log_option
@asynchronous
async def cancel(flow_id: str, reason: str, url: str | None) -> None:
    """Ask a flow to stop: its except and finally blocks run, running steps are cancelled, children follow."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        _refuse_ended(record, "cancelled")
        await Scheduler(log).handle(flow_id).cancel(reason)
    print(clean(f"asked flow {flow_id!r} to cancel (it was {record.status})"))


@click.command(short_help="Stop a flow at once; no more of its code runs.")
@id_argument
@reason_option
@log_option
@asynchronous
async def kill(flow_id: str, reason: str, url: str | None) -> None:
    """Stop a flow at once. None of its code runs any more, not even its cleanup; children follow."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        _refuse_ended(record, "killed")
        await Scheduler(log).handle(flow_id).kill(reason)
    print(clean(f"killed flow {flow_id!r} (it was {record.status})"))


@click.command(short_help="Hold a flow back until it is resumed.")
@id_argument
@reason_option
@log_option
@asynchronous
async def pause(flow_id: str, reason: str, url: str | None) -> None:
    """Hold a flow back until it is resumed. A step that is running may run again then."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        _refuse_ended(record, "paused")
        if record.status is TaskStatus.PAUSED:
            raise BadInput(f"flow {flow_id!r} is paused already")
        await Scheduler(log).handle(flow_id).pause(reason)
    print(clean(f"paused flow {flow_id!r} (it was {record.status}); `ergon resume {flow_id}` lets it go on"))


@click.command(short_help="Let a paused or parked flow go on.")
@id_argument
@log_option
@asynchronous
async def resume(flow_id: str, url: str | None) -> None:
    """Let a paused or parked flow go on."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        if record.status is TaskStatus.FAILED:
            raise BadInput(f"flow {flow_id!r} has failed; `ergon retry {flow_id}` tries it again")
        if record.status not in (TaskStatus.PAUSED, TaskStatus.PARKED):
            raise BadInput(
                f"flow {flow_id!r} is {record.status}; only a paused or parked flow can be resumed"
            )
        await Scheduler(log).handle(flow_id).resume()
    print(clean(f"resumed flow {flow_id!r} (it was {record.status})"))


@click.command(short_help="Try a failed flow again; what it completed is kept.")
@id_argument
@click.option(
    "--now", is_flag=True, help="For one that will be tried again later, or a step of it: do not wait."
)
@log_option
@asynchronous
async def retry(flow_id: str, now: bool, url: str | None) -> None:
    """Try a failed flow again. Steps it completed are not repeated."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        if now:
            await Scheduler(log).handle(flow_id).retry_now()
            print(clean(f"flow {flow_id!r} waits no longer for its next attempt"))
            return
        if record.status is not TaskStatus.FAILED:
            other = "; `ergon resume` lets it go on" if record.status in _HELD else ""
            if any(wait.get("kind") == "retry" for wait in read_waits(record.reason)):
                other = "; `ergon retry --now` begins its next attempt at once"
            raise BadInput(
                f"flow {flow_id!r} is {record.status}; only a failed flow can be tried again{other}"
            )
        await Scheduler(log).handle(flow_id).retry()
    print(clean(f"flow {flow_id!r} will be tried again"))


@click.command(short_help="Remove an ended flow with its history and children.")
@id_argument
@log_option
@asynchronous
async def delete(flow_id: str, url: str | None) -> None:
    """Remove an ended flow with its history, messages and children."""
    async with opened(url) as log:
        record = await find_flow(log, flow_id)
        if not record.status.is_terminal:
            raise BadInput(
                f"flow {flow_id!r} is {record.status}; only an ended flow can be deleted: cancel it first"
            )
        await Scheduler(log).delete(flow_id)
    print(clean(f"deleted flow {flow_id!r}"))


_HELD = (TaskStatus.PAUSED, TaskStatus.PARKED)


def _refuse_ended(record: FlowRecord, act: str) -> None:
    if record.status.is_terminal:
        raise BadInput(f"flow {record.id!r} has ended ({record.status}); it cannot be {act} any more")
