"""`ergon run`: start one flow and execute it here until it has ended."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ergon.cli.options import (
    asynchronous,
    log_option,
    next_command,
    opened,
    path_of,
    read_json,
    require_option,
)
from ergon.cli.output import clean, note, print_json
from ergon.cli.problems import BadInput, FlowDidNotComplete
from ergon.cli.rows import payload
from ergon.cli.stopping import leave, leave_if_late
from ergon.cli.targets import Target, load
from ergon.core.codec import encode
from ergon.core.commit import FlowRecord
from ergon.core.failure import MESSAGE_CHARS_MAX
from ergon.core.status import TaskStatus
from ergon.errors import ErgonError
from ergon.executor.failure_lines import failure_line
from ergon.executor.sentences import one_line
from ergon.flows.arguments import where_further_go
from ergon.flows.flow import Flow, FlowCall
from ergon.scheduler.handle import FlowHandle
from ergon.scheduler.scheduler import Scheduler
from ergon.storage.log import ExecutionLog
from ergon.worker.signals import listen
from ergon.worker.worker import Worker, WorkerOptions

NEWS_SECONDS = 1.0
DRAIN_SECONDS = 10.0


@click.command(short_help="Run one flow here until it has ended; print its result.")
@click.argument("target", metavar="TARGET")
@click.option(
    "--input", "text", default="{}", metavar="JSON", help="Arguments by name, or @file.json. Default: {}."
)
@click.option("--id", "flow_id", metavar="ID", help="The flow's id; the same id goes on where it stopped.")
@log_option
@require_option
@asynchronous
async def run(target: str, text: str, flow_id: str | None, url: str | None, require: str | None) -> None:
    """Run one flow here until it has ended, and print its result as JSON.

    TARGET is module:flow or file.py:flow. A worker in this process executes it with its children and waits through
    its timers and signals; while it runs it may also take other flows of the same code from this log. Interrupted by
    Ctrl-C or SIGTERM, running steps have 10 seconds to end, and unless it ends with them the flow stays in the log: the
    same command with its --id goes on, or any `ergon worker`.

    \b
    ergon run orders.py:process --input '{"order": {"id": 7}}' --id order-7
    """  # noqa: D301 - click reads the control character
    code = load(target)
    chosen = code.one()
    call = bind(chosen, read_json(text, "--input"))
    async with opened(url, create=True, require=require) as log:
        try:
            with _told_to_stop():
                record = await _run(log, code, call, flow_id)
        except asyncio.CancelledError:
            raise click.Abort from None
    _tell(record)


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Ctrl-C and SIGTERM cancel the task that is in the block.

    A second one ends the process at once, which is safe, and so does a flow that computes without end, after a while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # nobody handles signals there
        return
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop(_number: signal.Signals) -> None:
        leave_if_late(DRAIN_SECONDS)
        loop.call_soon_threadsafe(task.cancel)

    stop_listening = listen(stop, again=leave)
    try:
        yield
    finally:
        stop_listening()


async def _run(log: ExecutionLog, code: Target, call: FlowCall[Any], flow_id: str | None) -> FlowRecord:
    queues = sorted({"default", *(flow.options.queue for flow in code.flows)})
    tags = {tag for flow in code.flows for tag in flow.options.tags}
    options = WorkerOptions(drain_seconds=DRAIN_SECONDS)
    handle = await Scheduler(log).schedule(call, id=flow_id)
    here = f" in {path_of(log)}" if path_of(log) is not None else ""
    before = await handle.record()
    if before.status.is_terminal:
        note(clean(f"flow {handle.id!r} has ended already{here}: nothing runs here, this is what it came to"))
        return before
    note(clean(f"flow {handle.id!r} runs here{here}"))
    working = Worker(log, "ergon-run", flows=code.flows, queues=queues, tags=tags, options=options)
    with _telling_its_end_once(handle.id):
        try:
            async with working:
                return await _wait(handle)
        except asyncio.CancelledError:
            after_all = await handle.record()
            if after_all.status.is_terminal or after_all.status is TaskStatus.PARKED:
                return after_all
            note(
                clean(
                    f"interrupted; flow {handle.id!r} stays in the log, and --id {handle.id} goes on with it"
                )
            )
            raise


async def _wait(handle: FlowHandle[Any]) -> FlowRecord:
    """Wait for the flow's end, and say meanwhile what it waits for."""
    news = asyncio.create_task(_tell_waits(handle, note))
    try:
        return await handle.wait_settled()
    except asyncio.CancelledError:
        note(f"stopping: running steps have {DRAIN_SECONDS:g} s to end (Ctrl-C again: stop at once)")
        raise
    finally:
        news.cancel()


@contextmanager
def _telling_its_end_once(flow_id: str) -> Iterator[None]:
    """Keep from the loggers how the flow ends: `_tell` says that. What they say of its children stays."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return getattr(record, "flow_id", None) != flow_id

    loggers = [logging.getLogger(name) for name in ("ergon.executor", "ergon.worker")]
    for logger in loggers:
        logger.addFilter(is_of_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_others)


async def _tell_waits(handle: FlowHandle[Any], say: Callable[[str], None]) -> None:
    """Say what the flow waits for, each time that changes."""
    told = None
    while True:
        await asyncio.sleep(NEWS_SECONDS)
        record = await handle.record()
        stands = record.status, record.reason
        if stands == told:
            continue
        if record.status is TaskStatus.PAUSED:
            told = stands
            say(clean(f"flow {handle.id!r} is paused; {next_command('resume', handle.id)} lets it go on"))
        elif record.status is TaskStatus.SUSPENDED:
            told = stands
            say(clean(await handle.why()))


def bind(flow: Flow[..., Any], arguments: Any) -> FlowCall[Any]:
    """The flow with arguments given as JSON. Raises `BadInput` where they do not fit its signature."""
    signature = inspect.signature(flow.function)
    if not isinstance(arguments, dict):
        example = ", ".join(f'"{name}": ...' for name in signature.parameters if name != "self")
        raise BadInput(
            f"--input must be a JSON object with the flow's arguments by name, such as {{{example}}}"
        )
    if flow.owner is not None and "self" not in arguments:
        arguments = {"self": arguments}  # the fields of a @flow_type object
    try:
        args, kwargs = flow.decode_input(encode(arguments))
        return flow.bind(*args, **kwargs)
    except ErgonError as error:
        what = str(error).removeprefix(f"flow `{flow.name}").removeprefix(str(signature))
        what = what.removeprefix("`").removeprefix(": ").removeprefix(", ")
        what = what.partition(". Give the parameter")[0].replace("the stored input has", "it has")
        what = what.replace("the stored value does not fit the declared type", "the value does not fit")
        unknown = sorted(set(arguments) - set(signature.parameters))
        if unknown and "does not take" not in what:
            what += f", and it has `{unknown[0]}`, which the flow does not take"
            what += where_further_go(signature, unknown)
        raise BadInput(f"--input does not fit {flow.name}{signature}: {what}") from None


def _tell(record: FlowRecord) -> None:
    """Print the result; raise what says that there is none."""
    match record.status:
        case TaskStatus.COMPLETED:
            print_json(payload(record.output))
        case TaskStatus.PARKED:
            raise FlowDidNotComplete(
                clean(f"flow {record.id!r} is parked: {one_line(record.reason)}")
                + f" ({next_command('resume', record.id)} lets it go on, with the code it needs)"
            )
        case TaskStatus.CANCELLED if record.output is None:
            raise FlowDidNotComplete(clean(f"flow {record.id!r} was cancelled: {record.reason}"))
        case _:
            what = failure_line(record.output, MESSAGE_CHARS_MAX)
            again = f", {next_command('retry', record.id)} tries it again"
            raise FlowDidNotComplete(
                clean(f"flow {record.id!r} {record.status}: {what}")
                + f" ({next_command('show', record.id)} has its history"
                + f"{again if record.status is TaskStatus.FAILED else ''})"
            )
