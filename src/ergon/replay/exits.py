"""Tell who wants the process to end: somebody outside, or the code of one flow.

A flow that calls `sys.exit` or raises `KeyboardInterrupt` must not take its worker along: it would be claimed again and
end the next one, and the flows beside it would never get anywhere. But Ctrl-C and a program's own signal handler raise
the same, and that strikes whatever code is running at that moment.
"""

from __future__ import annotations

import signal
from types import CodeType, FunctionType, MethodType, TracebackType


def ends_process(error: BaseException) -> bool:
    """True when the process was asked to end: by Ctrl-C, or by a signal handler that raised."""
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        return False
    handlers = _codes_of_handlers()
    trace, innermost = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace, innermost = trace.tb_next, trace
    # Python's own handler of Ctrl-C has no frame: the innermost is that of the code it struck.
    return isinstance(error, KeyboardInterrupt) and not (innermost is not None and _raises(innermost))


def _raises(trace: TracebackType) -> bool:
    """Whether the code itself raised there, by a `raise`."""
    import opcode  # seldom needed

    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opcode.opmap["RAISE_VARARGS"]


def _codes_of_handlers() -> set[CodeType]:
    codes: set[CodeType] = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        function = getattr(handler, "func", handler)  # a partial, as of `asyncio.run`
        if isinstance(function, MethodType):
            function = function.__func__
        if isinstance(function, FunctionType):
            codes.add(function.__code__)
    return codes
