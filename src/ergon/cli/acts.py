"""Verbs that change one flow: `signal`, `cancel`, `kill`, `pause`, `resume`, `retry`, `delete`.

Each prints one line that says what was changed, or with --dry-run what would be. None of them needs the flow's code.
What is so already, because the same command ran before, is no error; only `retry` refuses a flow that has not failed,
or of which nothing waits for its next attempt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import click

from ergon.cli import would
from ergon.cli.options import (
    asynchronous,
    find_flow,
    json_option,
    log_option,
    nearest,
    next_command,
    opened,
    read_json,
)
from ergon.cli.output import clean, note, print_json
from ergon.cli.problems import BadInput
from ergon.cli.rows import ACT, fields_of
from ergon.core.commit import CancelName, FlowRecord, Message, MessageKind, read_reason
from ergon.core.names import check_name, near
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove
from ergon.executor.earlier import read_earlier
from ergon.executor.sentences import clock_time, one_line, read_waits
from ergon.scheduler.scheduler import Scheduler
from ergon.storage.log import ExecutionLog

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the log.")


class Act(NamedTuple):
    """One command: where, on which flow, and how to tell of it."""

    verb: str
    log: ExecutionLog
    flow_id: str
    found: FlowRecord | None
    """As it stood before; None: there is no such flow."""
    as_json: bool
    dry_run: bool

    @property
    def flow(self) -> FlowRecord:
        """As it stood before."""
        assert self.found is not None
        return self.found

    @property
    def handle(self) -> Any:
        """The flow's handle."""
        return Scheduler(self.log).handle(self.flow_id)

    def tell(self, done: str, would: str) -> None:
        """Say what was done, or for a dry run what would be."""
        self._say(would if self.dry_run else done, changed=not self.dry_run)

    def tell_already(self, what: str) -> None:
        """Say that it is so already."""
        self._say(what, changed=False)

    def _say(self, message: str, *, changed: bool) -> None:
        if self.as_json:
            print_json(
                {
                    "id": self.flow_id,
                    "verb": self.verb,
                    "changed": changed,
                    "dry_run": self.dry_run,
                    "status_before": self.found.status.value if self.found is not None else None,
                    "message": message,
                }
            )
        else:
            print(clean(message))


def verb(
    short_help: str, *, must_exist: bool = True
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], click.Command]:
    """Make a verb of a function that is given its `Act`, with the options that all of them have."""

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        @click.command(
            name=function.__name__,
            short_help=short_help,
            epilog=fields_of("--json prints an object; it has:", ACT),
        )
        @click.argument("flow_id", metavar="ID")
        @log_option
        @json_option
        @click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
        @asynchronous
        @functools.wraps(function)
        async def call(
            flow_id: str, *, url: str | None, as_json: bool, dry_run: bool, **options: Any
        ) -> None:
            async with opened(url) as log:
                record = await (
                    find_flow(log, flow_id) if must_exist else log.find(check_name("flow id", flow_id))
                )
                await function(Act(function.__name__, log, flow_id, record, as_json, dry_run), **options)

        return call

    return decorate


@verb("Send a signal to a flow.")
@click.argument("name", metavar="NAME")
@click.option("--value", default="null", metavar="JSON", help="The value, or @file.json. Default: null.")
@click.option("--key", metavar="KEY", help="Repeating a signal with the same key changes nothing.")
async def signal(act: Act, name: str, value: str, key: str | None) -> None:
    """Send a signal to a flow. It is kept until a wait for NAME takes it, also while no worker runs."""
    parsed, flow = read_json(value, "--value"), act.flow
    if key is not None and await act.log.has_key(Message(flow.id, MessageKind.SIGNAL, name, None, key)):
        act.tell_already(f"flow {flow.id!r} was sent signal {name!r} with key {key!r} already")
        return
    if act.dry_run and flow.status.is_terminal:
        raise BadInput(f"flow {flow.id!r} is {flow.status}; it takes no signal any more")
    if not act.dry_run:
        await act.handle.signal(name, parsed, key=key)
    act.tell(
        f"sent signal {name!r} to flow {flow.id!r}",
        f"would send signal {name!r} to flow {flow.id!r} (it is {flow.status})",
    )
    awaited = [str(wait.get("name")) for wait in read_waits(flow.reason) if wait.get("kind") == "signal"]
    if awaited and name not in awaited and (hint := near(name, awaited, ask="{}")):
        note(clean(f"the flow waits for signal {hint!r}, not {name!r}; this one is kept for a later wait"))


@verb("Ask a flow to stop; its cleanup runs.")
@reason_option
@click.option("--again", is_flag=True, help="Interrupt it also while it cleans up after an earlier cancel.")
async def cancel(act: Act, reason: str, *, again: bool) -> None:
    """Ask a flow to stop: its except and finally blocks run, running steps are cancelled, children follow.

    One that cleans up after an earlier cancel is left to do so, and asked again only if it goes on instead of ending.
    """
    earlier = None if again else await _asked_earlier(act)
    if await _was_cancelled_already(act, "cancelled", lambda: act.handle.cancel(reason, again=again)):
        return
    if earlier is not None:
        told, changes = earlier
        if changes:
            act.tell(told, told)
        else:
            act.tell_already(told)
        return
    act.tell(
        f"asked flow {act.flow.id!r} to cancel (it was {act.flow.status})",
        f"would ask flow {act.flow.id!r} to cancel (it is {act.flow.status}): its cleanup runs, its children follow",
    )


@verb("Stop a flow at once; no more of its code runs.")
@reason_option
async def kill(act: Act, reason: str) -> None:
    """Stop a flow at once. None of its code runs any more, not even its cleanup; children follow."""
    if await _was_cancelled_already(act, "killed", lambda: act.handle.kill(reason)):
        return
    act.tell(
        f"killed flow {act.flow.id!r} (it was {act.flow.status})",
        f"would kill flow {act.flow.id!r} (it is {act.flow.status}): no more of its code runs, its children follow",
    )


@verb("Hold a flow back until it is resumed.")
@reason_option
async def pause(act: Act, reason: str) -> None:
    """Hold a flow back until it is resumed. A step that is running may run again then."""
    flow = act.flow
    _refuse_ended(flow, "paused")
    if flow.status is TaskStatus.PAUSED:
        act.tell_already(f"flow {flow.id!r} is paused already")
        return
    if not act.dry_run:
        await act.handle.pause(reason)
    repeats = ", and repeats a step that was running" if flow.status is TaskStatus.RUNNING else ""
    act.tell(
        f"paused flow {flow.id!r} (it was {flow.status}); {next_command('resume', flow.id)} lets it go on{repeats}",
        f"would pause flow {flow.id!r} (it is {flow.status}) until {next_command('resume', flow.id)}",
    )


@verb("Let a paused or parked flow go on.")
async def resume(act: Act) -> None:
    """Let a paused or parked flow go on."""
    flow = act.flow
    if flow.status in _HELD and not act.dry_run:
        try:
            await act.handle.resume()
        except IllegalMove:  # somebody else was quicker
            flow = await find_flow(act.log, flow.id)
    if flow.status is TaskStatus.FAILED:
        raise BadInput(f"flow {flow.id!r} has failed; {next_command('retry', flow.id)} tries it again")
    if flow.status.is_terminal:
        raise BadInput(f"flow {flow.id!r} is {flow.status}; only a paused or parked flow can be resumed")
    if flow.status not in _HELD:
        act.tell_already(f"flow {flow.id!r} is held back by nobody (it is {flow.status})")
        return
    act.tell(
        f"resumed flow {flow.id!r} (it was {flow.status})",
        f"would resume flow {flow.id!r} (it is {flow.status})",
    )


@verb("Try a failed flow again; what it completed is kept.")
@click.option(
    "--now", is_flag=True, help="For one that will be tried again later, or a step of it: do not wait."
)
async def retry(act: Act, *, now: bool) -> None:
    """Try a failed flow again. Steps it completed are not repeated."""
    flow = act.flow
    if now:
        if not act.dry_run:
            await act.handle.retry_now()
        elif not await would.retry_at_once(act.log, flow):
            raise BadInput(f"flow {flow.id!r} is {flow.status}; nothing of it waits to be tried again")
        act.tell(
            f"flow {flow.id!r} waits no longer for its next attempt",
            f"would begin the next attempt of flow {flow.id!r} (it is {flow.status}), or of its steps that wait for "
            "one, at once",
        )
        return
    if flow.status is not TaskStatus.FAILED:
        other = f"; {next_command('resume', flow.id)} lets it go on" if flow.status in _HELD else ""
        if any(wait.get("kind") == "retry" for wait in read_waits(flow.reason)):
            other = f"; {next_command('retry --now', flow.id)} begins its next attempt at once"
        raise BadInput(f"flow {flow.id!r} is {flow.status}; only a failed flow can be tried again{other}")
    if not act.dry_run:
        await act.handle.retry()
    act.tell(
        f"flow {flow.id!r} will be tried again",
        f"would try flow {flow.id!r} again; the steps it completed are not repeated",
    )


@verb("Remove an ended flow with its history and children.", must_exist=False)
async def delete(act: Act) -> None:
    """Remove an ended flow with its history, messages and children. One that is not there is told, and no error."""
    flow = act.found
    if flow is None:
        hint = await nearest(act.log, act.flow_id)
        act.tell_already(f"there is no flow {act.flow_id!r} in this log, so nothing is deleted{hint}")
        return
    if not flow.status.is_terminal:
        raise BadInput(
            f"flow {flow.id!r} is {flow.status}; only an ended flow can be deleted: cancel it first"
        )
    if not act.dry_run:
        await Scheduler(act.log).delete(flow.id)
    elif (child := await would.unfinished_child(act.log, flow)) is not None:
        raise BadInput(f"flow {flow.id!r} cannot be deleted yet: its child {child}")
    act.tell(
        f"deleted flow {flow.id!r}",
        f"would delete flow {flow.id!r} ({flow.status}) with its history, its messages and its children",
    )


_HELD = (TaskStatus.PAUSED, TaskStatus.PARKED)


async def _asked_earlier(act: Act) -> tuple[str, bool] | None:
    """For a flow that is being cancelled already: what to say, and whether asking once more changes anything."""
    flow_id = act.flow_id
    unread = [message for message in await act.log.inbox(flow_id) if message.kind == MessageKind.CANCEL]
    _, cancels = read_earlier(await act.log.history(flow_id))
    if not (unread or cancels):
        return None
    told = f"flow {flow_id!r} was asked to cancel before, and has not heard of it yet"
    if cancels:
        why = one_line(read_reason(cancels[-1].payload))
        told = (
            f"flow {flow_id!r} was asked to cancel at {clock_time(cancels[-1].at)}{f' ({why})' if why else ''}: "
            "it is left to clean up, and asked again if it goes on instead of ending"
        )
    told += f"; {next_command('cancel --again', flow_id)} breaks off its cleanup"
    return told, all(message.name != CancelName.PERSON for message in unread)


async def _was_cancelled_already(act: Act, done: str, stop: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Stop the flow, unless this is a dry run. True, and told, when it is cancelled already, whoever did it."""
    flow = act.flow
    if flow.status is not TaskStatus.CANCELLED:
        _refuse_ended(flow, done)
        if act.dry_run:
            return False
        try:
            await stop()
        except IllegalMove:  # it ended just now
            flow = await find_flow(act.log, flow.id)
            _refuse_ended(flow, done, unless=TaskStatus.CANCELLED)
        else:
            return False
    act.tell_already(f"flow {flow.id!r} is cancelled already")
    return True


def _refuse_ended(record: FlowRecord, act: str, *, unless: TaskStatus | None = None) -> None:
    if record.status.is_terminal and record.status is not unless:
        raise BadInput(f"flow {record.id!r} has ended ({record.status}); it cannot be {act} any more")
