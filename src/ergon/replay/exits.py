"""Tell who wants the process to end: somebody outside, or the code of one flow.

A flow that calls `sys.exit` must not take its worker along: it would be claimed again and end the next one, and the
flows beside it would never get anywhere. But a program's own signal handler may call it too, and that strikes
whatever code is running at that moment.
"""

from __future__ import annotations

import signal
from types import CodeType, FunctionType


def ends_process(error: BaseException) -> bool:
    """True when the process was asked to end: Ctrl-C, or a signal handler that called `sys.exit`."""
    if not isinstance(error, SystemExit):
        return isinstance(error, KeyboardInterrupt)
    handlers = _codes_of_handlers()
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _codes_of_handlers() -> set[CodeType]:
    codes: set[CodeType] = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        function = getattr(handler, "__func__", handler)
        if isinstance(function, FunctionType):
            codes.add(function.__code__)
    return codes
