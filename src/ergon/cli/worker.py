"""`ergon worker` executes flows until it is told to stop; `ergon workers` lists who does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from ergon.cli.options import asynchronous, json_option, log_option, opened, require_option
from ergon.cli.output import ago, note, print_json, table
from ergon.cli.problems import FAILED, INTERRUPTED, OK
from ergon.cli.rows import WORKER, fields_of, worker_row
from ergon.cli.targets import load
from ergon.flows.flow import Flow
from ergon.storage.process import state_of
from ergon.worker.worker import Worker, WorkerOptions

logger = logging.getLogger("ergon.worker")


@click.command(short_help="Execute flows until told to stop.")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--name", default="worker", show_default=True, help="A name for people.")
@click.option("--queue", "queues", multiple=True, help="Take from this queue; repeatable. Default: default.")
@click.option(
    "--version",
    "versions",
    multiple=True,
    metavar="VERSION",
    help="Run flows of this version, or of a range such as '>=1.2,<2'; repeatable. Default: any.",
)
@click.option("--tag", "tags", multiple=True, help="Take flows with this tag too; repeatable. Default: none.")
@click.option(
    "--capacity", type=click.IntRange(1), default=1000, show_default=True, help="Flows in memory at once."
)
@click.option(
    "--drain",
    "drain_seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running steps may go on when told to stop.",
)
@click.option(
    "--until-eof", is_flag=True, help="Also stop when standard input ends: with whoever started it."
)
@log_option
@require_option
@asynchronous
async def worker(
    targets: tuple[str, ...],
    name: str,
    queues: tuple[str, ...],
    versions: tuple[str, ...],
    tags: tuple[str, ...],
    capacity: int,
    drain_seconds: float,
    until_eof: bool,
    url: str | None,
    require: str | None,
) -> int:
    """Execute the flows found in modules or files (TARGET: module or file.py) until told to stop.

    SIGTERM or Ctrl-C stops claiming and lets running steps end, for at most --drain seconds; what is left runs
    again on another worker. A second Ctrl-C stops at once, which is safe too. Exits 0 after SIGTERM, 130 after Ctrl-C.
    """
    flows = _all_flows(targets)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    async with opened(url, create=True, require=require) as log:
        found = Worker(
            log,
            name,
            flows=flows,
            queues=queues or ("default",),
            versions=versions or None,
            tags=tags,
            options=WorkerOptions(capacity=capacity, drain_seconds=drain_seconds),
        )
        stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        _on_signals(stop)
        handle = await found.start()
        logger.info(
            "runs %s from %s%s",
            ", ".join(found.registry.names),
            ", ".join(queues or ("default",)),
            f" with tags {', '.join(sorted(tags))}" if tags else "",
        )
        if until_eof:
            _on_eof(stop)
        code = await stop
        logger.info("stopping: running steps have %g s to end", drain_seconds)
        await handle.shutdown(drain_seconds)
    logger.info("stopped")
    return code


def _all_flows(targets: tuple[str, ...]) -> list[Flow[..., Any]]:
    flows: list[Flow[..., Any]] = []
    for text in targets:
        target = load(text)
        flows += [target.one()] if target.wanted is not None else target.flows
    return flows


def _on_signals(stop: asyncio.Future[int]) -> None:
    """First signal: drain. Second: leave at once; whatever is durable stays, whatever is not runs again."""
    resolve = _resolver(stop)

    def on_signal(number: int, _frame: object) -> None:
        code = INTERRUPTED if number == signal.SIGINT else OK
        if on_signal.seen:  # type: ignore[attr-defined]
            os._exit(INTERRUPTED)
        on_signal.seen = True  # type: ignore[attr-defined]
        resolve(code)

    on_signal.seen = False  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)


def _on_eof(stop: asyncio.Future[int]) -> None:
    resolve = _resolver(stop)

    def read() -> None:
        # Not through sys.stdin, whose lock this thread would still hold when the interpreter ends.
        while os.read(0, 4096):
            pass
        resolve(OK)

    threading.Thread(target=read, name="ergon-stdin", daemon=True).start()


def _resolver(stop: asyncio.Future[int]) -> Callable[[int], None]:
    """Settle the future from a signal handler or a thread."""
    loop = asyncio.get_running_loop()

    def settle(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    def from_anywhere(code: int) -> None:
        loop.call_soon_threadsafe(settle, code)

    return from_anywhere


@click.command(
    epilog=fields_of("--json prints an array; a worker has:", WORKER),
    short_help="List workers.",
)
@log_option
@json_option
@click.option("--all", "show_all", is_flag=True, help="Also those that were stopped or died.")
@asynchronous
async def workers(url: str | None, as_json: bool, show_all: bool) -> int:
    """List the workers of a log, newest first. Exits 1 when none is alive."""
    async with opened(url) as log:
        known = [(found, state_of(found, log.now())) for found in await log.workers()]
        now = log.now()
    alive = [pair for pair in known if pair[1] in ("alive", "draining")]
    shown = known if show_all else alive
    if as_json:
        print_json([worker_row(found, state) for found, state in shown])
    elif shown:
        rows = [
            (
                found.name,
                state,
                f"{found.host}:{found.pid}",
                ", ".join(found.queues),
                " or ".join(found.versions) if found.versions is not None else "any",
                ", ".join(found.tags) or "-",
                ago(now - found.started_at),
                ", ".join(found.flows),
            )
            for found, state in shown
        ]
        table(("NAME", "STATE", "PROCESS", "QUEUES", "VERSIONS", "TAGS", "UP", "FLOWS"), rows, styled="STATE")
    else:
        note("no worker is alive" + ("" if known else "; none ever was") + ". Start one: ergon worker TARGET")
    return OK if alive else FAILED
