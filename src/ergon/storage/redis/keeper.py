"""Renew leases for an event loop that is blocked: a thread with a connection of its own, started when first asked.

Whoever asks does not wait and hears nothing. Between a request and its writing any time may pass; whether the
incarnation is alive is decided in the script that writes, so a late renewal of a dead one changes nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Final

from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import Settings

_SECONDS_MAX: Final = 5.0


class Keeper:
    """One for each opening of a log."""

    def __init__(self, settings: Settings, partitions: Partitions, server: Server) -> None:
        self._settings, self._partitions, self._server = settings, partitions, server
        self._asked = queue.SimpleQueue["tuple[Any, ...] | None"]()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def renew(self, worker_id: str, lease_seconds: float) -> None:
        """Ask for one renewal. Returns at once."""
        if self._stopped:
            return
        values = (worker_id.encode(), repr(float(lease_seconds)).encode())
        self._asked.put(self._partitions.call_on(0, "renew", values))
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="ergon-keeper", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """Let the thread end; what nobody waits for is not waited for."""
        self._stopped = True
        self._asked.put(None)

    def _work(self) -> None:
        client: Any = None
        while (command := self._asked.get()) is not None and not self._stopped:
            try:
                client = client or self._connect()
                client.execute_command(*command)
            except Exception:  # noqa: BLE001 - there is nobody to tell; the next request tries again
                _close(client)
                client = None
        _close(client)

    def _connect(self) -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        settings = self._settings
        options: dict[str, Any] = {
            **settings.client_options(),
            "socket_timeout": _SECONDS_MAX,
            "socket_connect_timeout": _SECONDS_MAX,
            "retry": Retry(NoBackoff(), 0),
        }
        address = self._server.address_of(self._partitions.bases[0])
        if address is not None:
            return redis.Redis(host=address[0], port=address[1], **options)
        if settings.path is not None:
            return redis.Redis(unix_socket_path=settings.path, db=settings.db, **options)
        return redis.Redis(host=settings.host, port=settings.port, db=settings.db, **options)


def _close(client: Any) -> None:
    if client is not None:
        with contextlib.suppress(Exception):
            client.close()
