"""A process that has imported everything and forks children on request: 5 ms instead of 300 for each.

It has opened no log and started no thread, so a fork of it is as good as a new process. It speaks lines of JSON:
`{"run": "module:function", "args": {...}, "env": {...}, "err": path}` on stdin is answered by `{"pid": n}`; when a
child ends, `{"pid": n, "status": s}` follows (s: exit code, or minus the signal). It ends when stdin does, and its
children die with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(modules: list[str]) -> None:
    """Serve until stdin ends."""
    for module in modules:
        importlib.import_module(module)
    libc = ctypes.CDLL(None, use_errno=True)
    gc.collect()
    gc.freeze()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(write_end)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(read_end, selectors.EVENT_READ)
    _answer({"ready": True})
    buffer = b""
    while True:
        for key, _ in selector.select():
            if key.fd == read_end:
                os.read(read_end, 4096)
                _reap()
                continue
            text = os.read(0, 65_536)
            if not text:
                return
            buffer += text
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                    os.close(read_end)
                    os.close(write_end)
                    selector.close()
                    _run(json.loads(line))
                _answer({"pid": pid})


def _run(request: dict[str, Any]) -> None:
    """In the child: run one function, and end without the clean-up that belongs to the zygote."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        err = os.open(request["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(err, 2)
        os.environ.update(request.get("env", {}))
        module, _, name = request["run"].partition(":")
        getattr(importlib.import_module(module), name)(**request["args"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _answer(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD only has to wake `select`."""


if __name__ == "__main__":
    main(sys.argv[1:])
