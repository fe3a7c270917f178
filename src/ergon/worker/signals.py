"""SIGTERM and Ctrl-C (SIGINT): handled once for the process, told to whoever listens.

The handlers are ours while somebody listens, and what they were before afterwards, unless the program has put others
there meanwhile. A signal may come between any two lines of this file, so each does right whether or not one did.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Listener:
    """Who is told of the first signal, and what is done at further ones."""

    __slots__ = ("again", "is_told", "tell")

    def __init__(self, tell: Callable[[signal.Signals], object], again: Callable[[], object] | None) -> None:
        self.tell, self.again, self.is_told = tell, again, False


_listeners: Final[list[_Listener]] = []
_before: Final[dict[signal.Signals, signal._HANDLER]] = {}


def listen(
    tell: Callable[[signal.Signals], object], *, again: Callable[[], object] | None = None
) -> Callable[[], None]:
    """Call `tell` at the first signal from now on, and `again` at each further one. Returns how to stop that.

    Both are called in the signal handler. Without `again` the listener leaves at the first signal, so that a second one
    does what it did before: usually it ends the program. Call it in the main thread, the only one that handles signals.
    """
    listener = _Listener(tell, again)
    _listeners.append(listener)
    for number in _SIGNALS:
        found = signal.getsignal(number)
        if found is not _on_signal:
            _before[number] = found if found is not None else signal.SIG_DFL
            signal.signal(number, _on_signal)
    _restore_unless_needed()  # one that came meanwhile may have told everybody

    def leave() -> None:
        with contextlib.suppress(ValueError):  # a signal has told it, and it has left
            _listeners.remove(listener)
        _restore_unless_needed()

    return leave


def _on_signal(number: int, _frame: object) -> None:
    listeners = tuple(_listeners)
    _listeners[:] = [listener for listener in listeners if listener.again is not None]
    _restore_unless_needed()
    if not listeners:  # the last has just left
        signal.raise_signal(number)
    for listener in listeners:
        if listener.is_told and listener.again is not None:
            listener.again()
        else:
            listener.is_told = True
            listener.tell(signal.Signals(number))


def _restore_unless_needed() -> None:
    for number in _SIGNALS:
        if not _listeners and signal.getsignal(number) is _on_signal:
            signal.signal(number, _before.get(number, signal.SIG_DFL))
