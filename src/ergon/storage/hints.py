"""Who wants to hear that something changed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ergon.core.commit import Hint

_log: Final = logging.getLogger("ergon.storage")
Listener = Callable[[Hint], None]


class Hints:
    """Tells each listener, on the event loop. A listener that raises is reported and stays."""

    def __init__(self) -> None:
        self._listeners: dict[object, Listener] = {}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; returns how to remove it."""
        key = object()
        self._listeners[key] = listener

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def tell(self, hint: Hint) -> None:
        """Pass a hint on."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(hint)
            except Exception:  # noqa: BLE001 - a listener may raise anything
                _log.exception("a listener of the execution log raised")
