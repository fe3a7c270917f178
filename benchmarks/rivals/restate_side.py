"""Restate with its Python SDK: its server, and a service of ours that it calls. Runs in its own environment.

`python restate_side.py WORKLOAD '{"folder": ...}'` prints figures as JSON, like every side. Of what was tried for it
here this is the quickest: one handler calls all flows (a client for each costs five times as much), and the service is
served by granian on uvloop. The server has its own defaults, by which it flushes its log to the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import restate

Params = dict[str, Any]
HOST = "127.0.0.1"
PACKAGES = Path(sys.executable).parents[1] / "server" / "node_modules"
SERVER = "@restatedev/restate-server-*/bin/restate-server"
"""The program itself: the command beside it is a script that leaves it running when it is killed."""
READY_SECONDS = 60.0
END_SECONDS = 10.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The server is on this machine, whatever proxies there are."""

began: list[float] = []
bench = restate.Service("bench")


async def add_one(number: int) -> int:
    began.append(time.perf_counter())
    return number + 1


@bench.handler()
async def in_sequence(ctx: restate.Context, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await ctx.run_typed("add_one", add_one, number=number)
    return number


@bench.handler()
async def all_at_once(ctx: restate.Context, params: Params) -> int:
    """Run many flows; returns how many ended."""
    began.clear()
    calls = [ctx.service_call(in_sequence, arg=params["steps"]) for _ in range(params["flows"])]
    return len([await call for call in calls])


@bench.handler()
async def moments(_: restate.Context) -> list[float]:
    """How many bodies have run, and when the first and the last began."""
    return [len(began), min(began), max(began)]


app = restate.app([bench])


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def post(url: str, body: object = None) -> Any:
    """Call the server; the answer is JSON."""
    request = urllib.request.Request(url, method="POST")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json")
    with DIRECT.open(request, timeout=200) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def running(folder: str) -> Iterator[str]:
    """A server and the service behind it; gives the address at which the service is called."""
    ingress, admin, node, service = (free_port() for _ in range(4))
    environment = {
        **os.environ,
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_IP": HOST,
        "RESTATE_BIND_PORT": str(node),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
        "DO_NOT_TRACK": "1",
    }
    granian = Path(sys.executable).with_name("granian")
    serve = {
        "--interface": "asginl", "--host": HOST, "--port": str(service), "--http": "2", "--loop": "uvloop",
        "--log-level": "error", "--workers-kill-timeout": "1",
    }  # fmt: skip
    commands = (
        [str(next(PACKAGES.glob(SERVER))), "--base-dir", folder],
        [str(granian), *chain.from_iterable(serve.items()), "--no-access-log", f"{Path(__file__).stem}:app"],
    )
    processes = [
        subprocess.Popen(
            command,
            env=environment,
            cwd=Path(__file__).parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it would hold ours open after we have ended
        )
        for command in commands
    ]
    try:
        register(f"http://{HOST}:{admin}/deployments", f"http://{HOST}:{service}", processes)
        yield f"http://{HOST}:{ingress}/bench"
    finally:
        for process in processes:  # the server first: the service ends once nobody is connected
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.kill()


def register(admin: str, service: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """Tell the server where the service is, once both are up."""
    give_up_at = time.monotonic() + READY_SECONDS
    while True:
        try:
            post(admin, {"uri": service, "force": True})
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > give_up_at or any(process.poll() is not None for process in processes):
                raise SystemExit(f"the server or the service did not come up: {error}") from None
            time.sleep(0.1)
        else:
            return


def w2(params: Params) -> dict[str, float]:
    with running(params["folder"]) as address:
        post(f"{address}/all_at_once", {"flows": 20, "steps": params["steps"]})
        start = time.perf_counter()
        ended = post(f"{address}/all_at_once", {"flows": params["flows"], "steps": params["steps"]})
        took = time.perf_counter() - start
        count, first, last = post(f"{address}/moments")
    steps = params["flows"] * params["steps"]
    assert ended == params["flows"], f"{ended} flows ended"
    assert count == steps, f"{count} bodies ran, not {steps}"
    return {"all_steps_per_s": steps / took, "steps_per_s": steps / (last - first)}


if __name__ == "__main__":
    print(json.dumps({"W2": w2}[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
