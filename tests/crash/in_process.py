"""The step that runs in another process. A module of its own: that process imports it, and little else.

Where it writes and where it dies come from the environment; which step of which flow it is, from its arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal

from ergon import step
from tests.crash.ledger import Ledger, read_ledger


@step(process=True)
def act_elsewhere(label: str, saw: list[str], flow: str, op: str) -> str:
    worker = multiprocessing.parent_process()
    if worker is None or not worker.is_alive():
        os._exit(1)
    ledger, me = Ledger(os.environ["CRASH_LEDGER"]), f"{worker.pid}"
    facts = {"label": label, "token": f"{label}.{secrets.token_hex(4)}", "saw": saw, "amo": False}
    facts |= {"flow": flow, "op": op, "attempt": 1, "flow_attempt": 1, "epoch": os.getpid(), "owner": me}
    for kind in ("BEGIN", "END"):
        ledger.write(kind, **facts)
        _die_here(ledger, kind, worker.pid)
    return str(facts["token"])


def _die_here(ledger: Ledger, kind: str, worker: int | None) -> None:
    """Kill the worker when this is the record it is to die after."""
    call, _, number = os.environ["CRASH_POINT"].partition(":")
    records = read_ledger(ledger.path, int(os.environ["CRASH_START"]))
    if call.upper() == kind and sum(record.kind == kind for record in records) == int(number):
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        os._exit(1)
