"""Which process this is, so that another one on the same machine can tell that it is gone.

A pid alone is not enough: pids are reused, restart at each boot, and mean something else in another pid
namespace (a container). So a process is a boot id, a pid, and a start mark that holds the namespace and the
kernel's start time of the process.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from ergon.core.commit import WorkerRecord

_PROC: Final = Path("/proc")


class Process(Struct, frozen=True, kw_only=True):
    """Enough about a process to recognise it later."""

    pid: int
    process_start: str
    """`<pid namespace>/<kernel start time>`; empty where the system does not tell."""
    boot_id: str
    """Differs after each start of the machine; empty where the system does not tell."""
    host: str


def this_process() -> Process:
    """Describe the process that calls."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    """A process keeps all of it. A fork forgets it: its pid may be that of an ancestor which is gone."""
    start = _kernel_start(pid)
    namespace = _pid_namespace(pid)
    mark = f"{namespace}/{start}" if start and namespace else ""
    return Process(pid=pid, process_start=mark, boot_id=boot_id(), host=_host())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.cache_clear)


@cache
def _host() -> str:
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Return the id of this start of the machine, or nothing where it has none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def is_gone(*, pid: int, process_start: str, boot: str, one_machine: bool = True) -> bool:
    """Tell whether this process is known to have ended. False when it lives, or when nobody can know from here.

    one_machine: the log is used on this machine only, so that another boot id is an earlier start of it. Else it may
    be another machine, of which nothing can be known.
    """
    here = boot_id()
    if not boot or not here or not process_start:
        return False
    if boot != here:
        return one_machine  # no process survives the end of its machine's uptime
    namespace, _, start = process_start.partition("/")
    if namespace != _pid_namespace(os.getpid()) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, but belongs to somebody else
    stat = _stat_fields(pid)
    if not stat:
        return False  # hidden from us, or it ended just now: the next look will tell
    return stat[0] in "ZX" or stat[19] != start


def state_of(worker: WorkerRecord, now: float) -> str:
    """The worker's state, also when nobody has declared it dead yet: until then the log calls it alive."""
    if worker.state not in ("alive", "draining"):
        return worker.state
    # Which log it is in is not known here. An earlier start of this machine shows by its lease.
    gone = is_gone(pid=worker.pid, process_start=worker.process_start, boot=worker.boot_id, one_machine=False)
    return "dead" if gone or worker.lease_expires_at < now else worker.state


def _kernel_start(pid: int) -> str:
    stat = _stat_fields(pid)
    return stat[19] if stat else ""


def _pid_namespace(pid: int) -> str:
    try:
        return str((_PROC / str(pid) / "ns/pid").readlink()).removeprefix("pid:[").removesuffix("]")
    except OSError:
        return ""


def _stat_fields(pid: int) -> list[str]:
    """Return the fields after the command's name, which may itself hold spaces and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
