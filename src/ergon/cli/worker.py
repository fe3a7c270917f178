"""`ergon worker` executes flows until it is told to stop; `ergon workers` lists who does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

from ergon.cli.fleet import Fleet
from ergon.cli.options import (
    asynchronous,
    is_memory,
    json_option,
    log_option,
    namespace_given,
    opened,
    require_option,
)
from ergon.cli.output import ago, note, print_json, table
from ergon.cli.problems import FAILED, OK, BadInput
from ergon.cli.rows import WORKER, fields_of, worker_row
from ergon.cli.stopping import on_eof, on_signals
from ergon.cli.targets import load_all
from ergon.core.namespaces import split_namespace
from ergon.flows.flow import Flow
from ergon.opening import open_log
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
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Run so many workers, each in a process of its own; one that dies is started again.",
)
@log_option
@require_option
@asynchronous
async def worker(processes: int, **given: Any) -> int:
    """Execute the flows found in modules or files (TARGET: module or file.py) until told to stop.

    SIGTERM or Ctrl-C stops claiming and lets running steps end, for at most --drain seconds; what is left runs
    again on another worker. A second Ctrl-C stops at once, which is safe too. Exits 0 after SIGTERM, 130 after Ctrl-C.

    With --processes 4 this process starts workers named NAME-1 to NAME-4 and shows what they say. It passes SIGTERM and
    Ctrl-C on to them and ends when they have.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    wanted = Wanted(**given)
    return await (_run_here(wanted) if processes == 1 else _run_fleet(wanted, processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `ergon worker` was told."""

    targets: tuple[str, ...]
    name: str
    queues: tuple[str, ...]
    versions: tuple[str, ...]
    tags: tuple[str, ...]
    capacity: int
    drain_seconds: float
    until_eof: bool
    url: str | None
    require: str | None

    def command(self, name: str) -> list[str]:
        """The command of one of several processes. It stops when its standard input ends: with its parent, however."""
        options = [
            ("--name", name),
            *(("--queue", queue) for queue in self.queues),
            *(("--version", version) for version in self.versions),
            *(("--tag", tag) for tag in self.tags),
            ("--capacity", self.capacity),
            ("--drain", self.drain_seconds),
            ("--require", self.require),
        ]
        given = [f"{option}={value}" for option, value in options if value is not None]
        return [sys.executable, "-m", "ergon", "worker", *given, "--until-eof", "--", *self.targets]


async def _run_here(wanted: Wanted) -> int:
    """Be a worker until told to stop."""
    flows = _all_flows(wanted.targets)
    queues, tags = wanted.queues or ("default",), wanted.tags
    async with opened(wanted.url, create=True, require=wanted.require) as log:
        found = Worker(
            log,
            wanted.name,
            flows=flows,
            queues=queues,
            versions=wanted.versions or None,
            tags=tags,
            options=WorkerOptions(capacity=wanted.capacity, drain_seconds=wanted.drain_seconds),
        )
        stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        on_signals(stop, drain_seconds=wanted.drain_seconds)
        handle = await found.start()
        logger.info(
            "runs %s from %s%s",
            ", ".join(found.registry.names),
            ", ".join(queues),
            f" with tags {', '.join(sorted(tags))}" if tags else "",
        )
        if wanted.until_eof:
            on_eof(stop, drain_seconds=wanted.drain_seconds)
        code = await stop
        logger.info("stopping: running steps have %g s to end", wanted.drain_seconds)
        await handle.shutdown(wanted.drain_seconds)
    logger.info("stopped")
    return code


async def _run_fleet(wanted: Wanted, processes: int) -> int:
    """Run several workers in processes of their own until told to stop."""
    namespace = namespace_given()
    if is_memory(open_log(wanted.url or None, namespace=namespace, require=wanted.require)):
        raise BadInput("a memory: log is one process's own; several need the path of a file")
    if wanted.url:  # not as an option: a password in it would stand in every list of processes
        os.environ["ERGON_LOG"] = split_namespace(wanted.url)[0] if namespace is not None else wanted.url
    if namespace is not None:
        os.environ["ERGON_NAMESPACE"] = namespace
    names = [f"{wanted.name}-{number}" for number in range(1, processes + 1)]
    fleet = Fleet(names, wanted.command, drain_seconds=wanted.drain_seconds)
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    on_signals(stop, fleet.leave)
    if wanted.until_eof:
        on_eof(stop)
    code = await fleet.run(stop)
    logger.info("stopped")
    return code


def _all_flows(targets: tuple[str, ...]) -> list[Flow[..., Any]]:
    flows: list[Flow[..., Any]] = []
    for target in load_all(targets):
        flows += [target.one()] if target.wanted is not None else target.flows
    return flows


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
