"""Values to JSON text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ergon.core.codec.depth import CHARS_SHALLOW, nested_too_deeply
from ergon.core.codec.hooks import to_json
from ergon.core.codec.paths import placed
from ergon.core.codec.shape import Shape
from ergon.core.codec.walk import find_not_finite, find_unencodable
from ergon.errors import EncodingError

PAYLOAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest payload kept in a log. A larger value belongs in a file or object store, its name in the log."""

CHARS_UNCHECKED: Final = PAYLOAD_BYTES_MAX // 4
"""Fewer characters than this cannot take too many bytes, as one takes at most 4."""

write = msgspec.json.Encoder(enc_hook=to_json).encode
"""UTF-8 JSON, unchecked: `encode` without its errors, NaN as null. Bytes, as msgspec reads those fastest."""


Declared = Callable[[], Shape | None]


def _nothing_declared() -> None:
    """No shape is known of a value."""


def encode(value: object, declared: Declared = _nothing_declared) -> str:
    """Write `value` as JSON text.

    Raises `EncodingError`, whose `path` names the first part that has no JSON form (such as `$.items[3].price`):
    an unknown class, NaN or infinity, a value that contains itself. Also when the text passes 64 MiB.
    The message names types and paths, never the value; `declared` is asked then for the shape whose keys may be named.
    """
    try:
        text = write(value).decode()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # msgspec's own refusals, and whatever a user's serializer raises
        raise explain(value, error, declared()) from None
    # NaN becomes null in silence; a text without null had none.
    if "null" in text or len(text) > CHARS_UNCHECKED:
        check_written(value, text, declared)
    if len(text) >= CHARS_SHALLOW and nested_too_deeply(text):
        raise explain(value, RecursionError(), declared())
    return text


def check_written(value: object, text: str, declared: Declared) -> None:
    """Raise `EncodingError` for a text that is too large, or that has null in place of NaN or infinity."""
    if len(text) > CHARS_UNCHECKED and (size := len(text.encode())) > PAYLOAD_BYTES_MAX:
        raise EncodingError(
            f"the value takes {size:,} bytes as JSON; at most {PAYLOAD_BYTES_MAX:,} are kept. "
            "Store it elsewhere and use its name"
        )
    if find_not_finite(value) and (found := find_not_finite(value, declared())):
        raise EncodingError(placed(*found), path=found[0])


def explain(value: object, error: Exception, shape: Shape | None = None) -> EncodingError:
    """The error for a value that could not be written: the first part to blame, found by trying."""
    path, fault = find_unencodable(value, write, shape) or (
        "$",
        f"{type(error).__name__} while it was written as JSON",
    )
    return EncodingError(placed(path, fault), path=path)
