"""Which namespaces a database has, beside the schema that was chosen."""

from __future__ import annotations

from typing import Final

from ergon.core.namespaces import namespace_of
from ergon.storage.postgres.address import read_url
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import Settings, open_session
from ergon.storage.postgres.errors import not_opened

_LOOK: Final = """
SELECT n.nspname FROM pg_namespace AS n
WHERE starts_with(n.nspname, $1)
  AND EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = n.oid AND relname = 'meta')
  AND EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = n.oid AND relname = 'flows')
"""
"""From the catalog, which anybody may read, so that it needs no right on the schemas themselves."""
SECONDS: Final = 10.0


async def present(url: str) -> list[str]:
    """The namespaces beside the schema that a URL names, sorted. Raises `LogRefused`, `LogBusy`."""
    address = read_url(url, namespace="")
    settings = Settings(address=address, patience_seconds=SECONDS)
    try:
        connection = await open_session(settings, ServerClock(None))
        try:
            rows = await connection.fetch(_LOOK, address.base_schema)
        finally:
            await connection.close()
    except Exception as error:
        raise not_opened(error, settings.where) from error
    names = (namespace_of(str(row[0]), address.base_schema) for row in rows)
    return sorted(name for name in names if name is not None)
