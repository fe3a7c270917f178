"""Values to JSON text."""

from __future__ import annotations

from typing import Final

import msgspec

from ergon.core.codec.hooks import to_json
from ergon.core.codec.walk import find_not_finite, find_unencodable
from ergon.errors import EncodingError

PAYLOAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest payload kept in a log. A larger value belongs in a file or object store, its name in the log."""

_encode = msgspec.json.Encoder(enc_hook=to_json).encode


def encode(value: object) -> str:
    """Write `value` as JSON text.

    Raises `EncodingError`, whose `path` names the first part that has no JSON form (such as `$.items[3].price`):
    an unknown class, NaN or infinity, a value that contains itself. Also when the text passes 64 MiB.
    The message names types and paths, never the value.
    """
    return encode_bytes(value).decode()


def encode_bytes(value: object) -> bytes:
    """`encode`, as UTF-8."""
    try:
        raw = _encode(value)
    except MemoryError:
        raise
    except Exception as error:  # msgspec's own refusals, and whatever a user's serializer raises
        raise _explain(value, error) from None
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise EncodingError(
            f"$: the value takes {len(raw):,} bytes as JSON; at most {PAYLOAD_BYTES_MAX:,} are kept. "
            "Store it elsewhere and return its name"
        )
    # NaN becomes null in silence; a text without null had none.
    if b"null" in raw and (found := find_not_finite(value)):
        raise EncodingError(f"{found[0]}: {found[1]}", path=found[0])
    return raw


def _explain(value: object, error: Exception) -> EncodingError:
    path, fault = find_unencodable(value, _encode) or ("$", f"{type(error).__name__} while it was written as JSON")
    return EncodingError(f"{path}: {fault}", path=path)
