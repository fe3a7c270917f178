"""Which namespaces a server has, beside the prefix that was chosen.

No key lists them, so that a namespace needs rights on its own keys only. Whoever asks goes through all keys of a server
(`SCAN`), which takes about a second for a million of them, and holds up nobody meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ergon.core.namespaces import is_namespace
from ergon.errors import ErgonError
from ergon.storage.redis.connection import Link
from ergon.storage.redis.errors import translate
from ergon.storage.redis.partitions import base_of
from ergon.storage.redis.server import Server
from ergon.storage.redis.settings import NAMESPACE_MARK, parse

_AT_ONCE: Final = 1_000


async def present(url: str) -> list[str]:
    """The namespaces beside the prefix that a URL names, sorted. Raises `LogRefused`, `LogBusy`."""
    settings = parse(url, namespace="")
    server = Server(settings)
    begins, _, ends = (base_of(settings.prefix + NAMESPACE_MARK + "\n", 0) + "meta").partition("\n")
    try:
        await server.open()
        found = await asyncio.gather(*(_scan(link, f"{begins}*{ends}") for link in server.masters))
    except ErgonError:
        raise
    except Exception as error:
        raise translate(error, settings.where) from error
    finally:
        await server.close()
    names = (key.removeprefix(begins).removesuffix(ends) for keys in found for key in keys)
    return sorted({name for name in names if name and is_namespace(name)})


async def _scan(link: Link, pattern: str) -> set[str]:
    """The keys of one server that look like this."""
    cursor, found = b"0", set[str]()
    while True:
        (answer,) = await link.run([("SCAN", cursor, "MATCH", pattern, "COUNT", _AT_ONCE)], strict=True)
        cursor, keys = answer
        found |= {key.decode("utf-8", "replace") for key in keys}
        if cursor == b"0":
            return found
