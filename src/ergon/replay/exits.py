"""Tell who wants the process to end: somebody outside, or the code of one flow.

A flow that calls `sys.exit` or raises `KeyboardInterrupt` must not take its worker along: it would be claimed again and
end the next one, and the flows beside it would never get anywhere. But Ctrl-C and a program's own signal handler raise
the same, and that strikes whatever code is running at that moment.

Both are told apart by the traceback, as handlers come and go: who called a handler had nothing to do with it, and
gave it its own frame.
"""

from __future__ import annotations

import signal
from types import CodeType, FrameType, FunctionType, TracebackType


def ends_process(error: BaseException) -> bool:
    """True when the process was asked to end: by Ctrl-C, or by a signal handler that raised.

    `sys.exit` in a handler needs the handler to be known by its shape or as the one that is installed. Of
    `KeyboardInterrupt` only what a `raise` in the code of a flow or step certainly began is that code's own.
    """
    if isinstance(error, SystemExit):
        return _is_from_handler(error)
    return isinstance(error, KeyboardInterrupt) and any(
        isinstance(each, KeyboardInterrupt) and (_is_from_handler(each) or not _is_raised_here(each))
        for each in _with_what_led_to_it(error)
    )


def _with_what_led_to_it(error: BaseException) -> list[BaseException]:
    """The error, and what it was raised from or beside: clean-up may raise anew what struck it."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and all(each is not known for known in found):
            found.append(each)
            left += (each.__cause__, each.__context__)
    return found


def _is_from_handler(error: BaseException) -> bool:
    installed = _codes_of_handlers()
    trace, caller = error.__traceback__, None
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code in installed or (caller is not None and _was_given(frame, caller)):
            return True
        trace, caller = trace.tb_next, frame
    return False


def _was_given(frame: FrameType, caller: FrameType) -> bool:
    """Whether the frame is that of a signal handler: called in the middle of `caller`, and given it."""
    code = frame.f_code
    count = (
        code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    )
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if value is caller or (type(value) is tuple and any(each is caller for each in value)):
            return True
    return False


def _is_raised_here(error: BaseException) -> bool:
    """Whether code of this process began it by a `raise`. Python's own handler of Ctrl-C has no frame, and none."""
    import opcode  # seldom needed

    trace: TracebackType | None = error.__traceback__
    if trace is None or type(error.__cause__).__name__ == "_RemoteTraceback":  # it struck a process of a pool
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opcode.opmap["RAISE_VARARGS"]


def _codes_of_handlers() -> set[CodeType]:
    codes: set[CodeType] = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        function = getattr(handler, "__func__", handler)
        if isinstance(function, FunctionType):
            codes.add(function.__code__)
    return codes
